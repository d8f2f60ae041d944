from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from spikemeter.config import Config
from spikemeter.datasets import DataSplits
from spikemeter.errors import ConfigError
from spikemeter.models.export import export_network
from spikemeter.models.folder import QUANTISE_VERSION
from spikemeter.models.integer import IntegerNetwork, membrane_bound, network_spikes
from spikemeter.models.network import SpikingNetwork

MakeConfig = Callable[..., Config]


def deterministic_network(config: Config) -> SpikingNetwork:
    """Weights from arithmetic alone, so that every machine has the same."""
    network = SpikingNetwork(config)
    with torch.no_grad():
        for index, layer in enumerate(network.spiking_layers):
            weight, bias = layer.weighted.weight, layer.weighted.bias
            values = torch.arange(weight.numel()) * (17 + index) % 101 - 42
            weight.copy_((values / 100).reshape(weight.shape))
            bias.copy_(torch.arange(bias.numel()) * 7 % 5 / 20 - 0.1)
    network.fold()
    return network.eval()


def constants(network: IntegerNetwork, name: str) -> list[int]:
    return [getattr(layer, name) for layer in network.layers]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    "neuron",
    [
        {"beta": 0.3, "threshold": 0.6},
        {"beta": 0.9, "threshold": 1.0},
        {"beta": 1.0, "threshold": 1.5},
        {"beta": 0.7, "threshold": 0.8, "reset": "zero"},
        {"model": "lapicque", "beta": 0.7, "threshold": 0.2},
        {"model": "lapicque", "beta": 0.2, "threshold": 0.8},
        {"model": "lapicque", "beta": 0.7, "match": "gain", "threshold": 0.8, "reset": "zero"},
        {"model": "lapicque", "R": 5.0, "C": 2.0, "threshold": 0.3},
    ],
)
def test_integers_fire_as_the_module_does(
    make_config: MakeConfig, splits: DataSplits, bits: int, neuron: dict[str, Any]
) -> None:
    config = make_config(network="4C3-MP2-6C3-10", neuron=neuron, training={"weight_bits": bits})
    module = deterministic_network(config)
    frames = splits.test.frames[:32]
    trains = network_spikes(export_network(module, config), frames)
    with torch.no_grad():
        fired = module(torch.tensor(frames).float())
    outputs = fired[-1].transpose(0, 1).numpy() > 0
    assert 0.02 < outputs.mean() < 0.98
    assert (outputs == trains.outputs).mean() > 0.99
    for share, spikes in zip(trains.fired, fired, strict=True):
        assert share.mean() == pytest.approx(float(spikes.mean()), rel=0.03)


def exact_network(config: Config) -> SpikingNetwork:
    """Weights and biases that are multiples of a power of two, as their scale then is."""
    network = SpikingNetwork(config)
    rng = np.random.default_rng(6)
    with torch.no_grad():
        for layer in network.spiking_layers:
            weight, bias = layer.weighted.weight, layer.weighted.bias
            integers = rng.integers(-7, 8, weight.shape)
            integers.flat[0] = 7  # the largest, which sets the scale
            weight.copy_(torch.from_numpy(integers / 8))
            bias.copy_(torch.from_numpy(rng.integers(-3, 4, bias.shape) / 8))
    network.fold()
    return network.eval()


@pytest.mark.parametrize("neuron", [
    {"beta": 0.5, "reset": "subtract"},
    {"beta": 0.5, "reset": "zero"},
    {"model": "lapicque", "beta": 0.5, "match": "both", "reset": "subtract"},
    {"model": "lapicque", "R": 2.0, "C": 1.0, "reset": "zero"},
])  # fmt: skip
@pytest.mark.parametrize(
    ("notation", "population"),
    [
        ("4C1-5C3-MP2-10", 1),
        ("3C5-MP4-6C1-12-10", 1),
        ("4C3v-MP2-6C3-20", 2),
        ("4C5v-MP2-30", 3),
        ("4C3-MP2-5C3-MP2-40", 4),
        ("24-10", 1),
    ],
)
def test_integers_fire_exactly_as_the_module_where_nothing_is_rounded(
    make_config: MakeConfig, notation: str, population: int, neuron: dict[str, Any]
) -> None:
    config = make_config(
        network=notation, input={"height": 11, "width": 9, "time_steps": 4},
        neuron=neuron | {"threshold": 0.75},
        training={"population": population, "batch_norm": False},
    )  # fmt: skip
    module = exact_network(config)
    frames = np.random.default_rng(1).random((20, 4, 2, 11, 9)) < 0.3
    trains = network_spikes(export_network(module, config), frames)
    with torch.no_grad():
        fired = module(torch.tensor(frames))
    for index, (spikes, geometry) in enumerate(zip(fired[:-1], config.layers, strict=False)):
        if geometry.pool > 1:
            spikes = torch.nn.functional.max_pool2d(spikes.flatten(0, 1), geometry.pool)
            spikes = spikes.unflatten(0, (4, 20))
        entering = spikes.transpose(0, 1).numpy() > 0
        found = trains.inputs[index + 1].reshape(entering.shape)
        assert 0 < entering.mean() < 1
        np.testing.assert_array_equal(found, entering)
    outputs = fired[-1].transpose(0, 1).numpy() > 0
    assert 0 < outputs.mean() < 1
    np.testing.assert_array_equal(trains.outputs, outputs)
    assert config.classes == 10


def test_constants_are_the_modules_in_membrane_units(make_config: MakeConfig) -> None:
    config = make_config(neuron={"threshold": 0.8, "beta": 0.5})
    module = deterministic_network(config)
    network = export_network(module, config)
    for layer, source in zip(network.layers, module.spiking_layers, strict=True):
        quantised = source.weighted.quant_weight()
        unit = quantised.scale.item() / 2**layer.gain_shift
        np.testing.assert_array_equal(layer.weight, quantised.int().numpy())
        assert layer.threshold == pytest.approx(0.8 / unit, abs=0.51)
        np.testing.assert_allclose(
            layer.bias * unit, source.weighted.bias.detach(), atol=0.51 * unit
        )
        assert layer.decay == 128
        assert layer.weight_bits == 4
        assert layer.threshold >= 4096
        assert layer.threshold // 2 < 4096


def test_the_automatic_width_is_the_smallest_that_cannot_saturate(
    make_config: MakeConfig,
) -> None:
    widths = set()
    for beta in (0.02, 0.9, 1.0):
        config = make_config(neuron={"beta": beta, "threshold": 8}, network="10")
        network = export_network(deterministic_network(config), config)
        bound = max(membrane_bound(layer) for layer in network.layers)
        (bits,) = set(constants(network, "membrane_bits"))
        assert bits == next(bits for bits in (16, 24, 32) if bound < 2 ** (bits - 1))
        widths.add(bits)
    assert len(widths) > 1


def test_all_layers_share_one_automatic_width(make_config: MakeConfig) -> None:
    config = make_config(network="4C3-MP2-6C3-10")
    network = export_network(deterministic_network(config), config)
    assert len(set(constants(network, "membrane_bits"))) == 1


def test_weights_of_many_thresholds_keep_membranes_within_32_bits(
    make_config: MakeConfig,
) -> None:
    config = make_config(neuron={"beta": 1.0, "threshold": 0.001}, training={"weight_bits": 8})
    network = export_network(deterministic_network(config), config)
    assert set(constants(network, "membrane_bits")) == {32}
    assert max(constants(network, "gain_shift")) < 15


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_a_given_width_is_used_and_leaves_room_above_the_threshold(
    make_config: MakeConfig, bits: int
) -> None:
    config = make_config(hardware={"membrane_bits": bits})
    network = export_network(deterministic_network(config), config)
    assert set(constants(network, "membrane_bits")) == {bits}
    for threshold in constants(network, "threshold"):
        assert min(4096, 2 ** (bits - 4)) <= threshold < 2 ** (bits - 3) or bits == 32


def test_a_width_below_the_threshold_is_refused_by_its_key(make_config: MakeConfig) -> None:
    config = make_config(
        hardware={"membrane_bits": 8}, training={"weight_bits": 8}, neuron={"threshold": 3}
    )
    with pytest.raises(ConfigError, match=r"hardware\.membrane_bits: .* 0:4C3, .*got 8 bits"):
        export_network(deterministic_network(config), config)


def test_membranes_beyond_every_width_are_refused_by_the_key(make_config: MakeConfig) -> None:
    config = make_config()
    module = deterministic_network(config)
    with torch.no_grad():
        module.spiking_layers[1].weighted.bias.fill_(1e9)
    with pytest.raises(ConfigError, match=r"hardware\.membrane_bits: 'auto' .* 1:10 may reach"):
        export_network(module, config)
    given = make_config(hardware={"membrane_bits": 16})
    assert export_network(module, given).layers[1].bias.max() == 2**15 - 1


def test_integers_are_those_of_this_version(make_config: MakeConfig) -> None:
    # When they change on purpose, raise QUANTISE_VERSION.
    config = make_config(network="4C3-MP2-6C3-10", neuron={"threshold": 1.3})
    network = export_network(deterministic_network(config), config)
    digest = hashlib.sha256()
    for layer in network.layers:
        digest.update(layer.weight.tobytes() + layer.bias.astype("<i4").tobytes())
        digest.update(f"{layer.threshold} {layer.gain_shift} {layer.decay}".encode())
    assert {QUANTISE_VERSION: digest.hexdigest()[:16]} == {1: "33de3b284e65231e"}
