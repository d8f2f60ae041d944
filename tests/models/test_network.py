from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import snntorch as snn
import torch
from torch import nn

from spikemeter.config import Config
from spikemeter.models.network import SpikingLayer, SpikingNetwork

MakeConfig = Callable[..., Config]


def random_frames(batch: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, 4, 2, 8, 8, generator=generator) < 0.3).float()


def seeded_network(make_config: MakeConfig, **sections: object) -> SpikingNetwork:
    torch.manual_seed(3)
    return SpikingNetwork(make_config(**sections))


def with_running_statistics(network: SpikingNetwork) -> SpikingNetwork:
    network.train()
    for seed in range(20):
        network(random_frames(8, seed))
    for layer in network.spiking_layers:
        if isinstance(layer.norm, nn.BatchNorm2d):
            nn.init.uniform_(layer.norm.weight, 0.5, 2)
            nn.init.uniform_(layer.norm.bias, -0.5, 0.5)
    return network.eval()


def test_layer_by_layer_equals_a_plain_snntorch_loop_over_time(make_config: MakeConfig) -> None:
    network = seeded_network(
        make_config,
        network="4C3-MP2-3C3v-10", training={"batch_norm": False}, neuron={"threshold": 0.2},
    ).eval()  # fmt: skip
    frames = random_frames()
    first, second, last = network.spiking_layers
    neurons = [snn.Leaky(beta=232 / 256, threshold=0.2) for _ in range(3)]
    mems: list[torch.Tensor] = [torch.zeros(1) for _ in range(3)]
    weights = [layer.weighted.quant_weight().value for layer in network.spiking_layers]
    outputs = []
    for step in frames.unbind(1):
        currents = nn.functional.conv2d(step, weights[0], first.weighted.bias, padding=1)
        spikes, mems[0] = neurons[0](currents, mems[0].expand_as(currents))
        pooled = nn.functional.max_pool2d(spikes, 2)
        currents = nn.functional.conv2d(pooled, weights[1], second.weighted.bias)
        spikes, mems[1] = neurons[1](currents, mems[1].expand_as(currents))
        currents = nn.functional.linear(spikes.flatten(1), weights[2], last.weighted.bias)
        spikes, mems[2] = neurons[2](currents, mems[2].expand_as(currents))
        outputs.append(spikes)
    fired = network(frames)
    assert [tuple(spikes.shape) for spikes in fired] == [
        (4, 5, 4, 8, 8), (4, 5, 3, 2, 2), (4, 5, 10),
    ]  # fmt: skip
    assert 0 < fired[-1].mean() < 1
    assert torch.equal(fired[-1], torch.stack(outputs))


def test_folding_batch_normalisation_changes_no_current(make_config: MakeConfig) -> None:
    network = with_running_statistics(
        seeded_network(make_config, network="4C3-MP2-3C3v-10", neuron={"threshold": 0.5})
    )
    assert network.warming_up
    layer = network.spiking_layers[0]
    frames = random_frames().flatten(0, 1)
    before = layer.norm(layer.weighted(frames))
    network.fold()
    assert not network.warming_up
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    quantised = layer.weighted(frames)
    layer.quantise(False)
    torch.testing.assert_close(layer.weighted(frames), before)
    assert not torch.allclose(quantised, before, atol=1e-4)


def test_warm_up_uses_weights_as_they_are(make_config: MakeConfig) -> None:
    layer = seeded_network(make_config).spiking_layers[0]
    frames = random_frames().flatten(0, 1)
    expected = nn.functional.conv2d(frames, layer.weighted.weight, layer.weighted.bias, padding=1)
    torch.testing.assert_close(layer.weighted(frames), expected)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize(
    ("neuron", "published"),
    [
        ({"beta": 0.9}, partial(snn.Leaky, beta=232 / 256)),
        ({"model": "lapicque", "beta": 0.9}, partial(snn.Lapicque, beta=0.9)),
        ({"model": "lapicque", "beta": 0.2}, partial(snn.Lapicque, beta=0.2)),
        ({"model": "lapicque", "R": 5.0, "C": 2.0}, partial(snn.Lapicque, R=5.0, C=2.0)),
    ],
)
def test_neurons_are_those_of_snntorch(
    make_config: MakeConfig,
    neuron: dict[str, Any],
    published: Callable[..., snn.SpikingNeuron],
    reset: str,
) -> None:
    config = make_config(neuron=neuron | {"reset": reset})
    ours = SpikingLayer(config.layers[0], config).neuron
    theirs = published(reset_mechanism=reset)
    torch.manual_seed(0)
    mem = other = torch.zeros(50)
    for _ in range(8):
        current = torch.randn(50) * 3
        spikes, mem = ours(current, mem)
        expected, other = theirs(current, other)
        torch.testing.assert_close(mem, other, atol=1e-3, rtol=1e-3)
        assert torch.equal(spikes, expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_weights_are_signed_symmetric_integers_of_one_scale(
    make_config: MakeConfig, bits: int
) -> None:
    network = seeded_network(make_config, training={"batch_norm": False, "weight_bits": bits})
    for layer in network.spiking_layers:
        quantised = layer.weighted.quant_weight()
        integers = quantised.int()
        assert quantised.scale.numel() == 1
        assert int(integers.abs().max()) == 2 ** (bits - 1) - 1
        torch.testing.assert_close(quantised.value, integers * quantised.scale)


@pytest.mark.parametrize(
    ("name", "slope", "at_distance"),
    [
        ("fast_sigmoid", 25.0, 1 / (1 + 25 * 0.1) ** 2),
        ("fast_sigmoid", 1.0, 1 / 1.1**2),
        ("atan", 2.0, 1 / (1 + (torch.pi * 0.1) ** 2)),
        ("atan", 8.0, 4 / (1 + (torch.pi * 0.4) ** 2)),
    ],
)
def test_surrogates_have_their_published_gradient(
    make_config: MakeConfig, name: str, slope: float, at_distance: float
) -> None:
    config = make_config(surrogate={"name": name, "slope": slope}, neuron={"threshold": 0.7})
    layer = SpikingLayer(config.layers[0], config)
    mem = torch.tensor([0.8, 0.6], requires_grad=True)
    spikes, _ = layer.neuron(mem, torch.zeros(2))
    spikes.sum().backward()
    assert spikes.tolist() == [1, 0]
    assert mem.grad is not None
    torch.testing.assert_close(mem.grad, torch.full((2,), at_distance))


def test_every_weight_of_every_layer_gets_a_gradient(make_config: MakeConfig) -> None:
    network = seeded_network(make_config, network="4C3-MP2-3C3-12-10")
    network(random_frames())[-1].sum().backward()
    for name, value in network.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


def test_dropout_stands_before_dense_layers_only(make_config: MakeConfig) -> None:
    network = seeded_network(
        make_config, network="4C3-MP2-12-10", training={"dropout": 0.5, "batch_norm": False}
    ).train()
    first, second, _ = network.spiking_layers
    frames = random_frames().transpose(0, 1)
    assert torch.equal(first(frames), first(frames))
    entering = torch.ones(4, 5, 4, 4, 4)
    assert not torch.equal(second.dropout(entering), entering)
    network.eval()
    assert torch.equal(network(random_frames())[-1], network(random_frames())[-1])


def test_a_forgotten_network_is_freed(make_config: MakeConfig) -> None:
    network = seeded_network(make_config)
    network(random_frames())[-1].sum().backward()
    neuron = weakref.ref(network.spiking_layers[0].neuron)
    del network
    gc.collect()
    assert neuron() is None
