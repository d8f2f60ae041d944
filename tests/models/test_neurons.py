from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from spikemeter.config import Config
from spikemeter.errors import ConfigError
from spikemeter.models.network import SpikingLayer, SpikingNetwork
from spikemeter.models.neurons import fire, pool_spikes

MakeConfig = Callable[..., Config]

SURROGATES = [
    "fast_sigmoid", "atan", "spike_rate_escape", "sso", "sigmoid", "triangular",
    "straight_through",
]  # fmt: skip
NEURONS: list[dict[str, Any]] = [
    {"beta": 0.9, "threshold": 0.8},
    {"beta": 1.0},
    {"model": "lapicque", "beta": 0.7, "threshold": 0.3},
    {"model": "lapicque", "beta": 0.2},
    {"model": "lapicque", "R": 5.0, "C": 2.0, "threshold": 0.3},
]


def stepwise(layer: SpikingLayer, current: torch.Tensor) -> torch.Tensor:
    """The neuron of snnTorch, step by step."""
    mem, spikes = torch.zeros_like(current[0]), []
    for step in current:
        spike, mem = layer.neuron(step, mem)
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("name", SURROGATES)
def test_all_steps_at_once_equal_snntorch_step_by_step(
    make_config: MakeConfig, name: str, neuron: dict[str, Any], reset: str
) -> None:
    config = make_config(
        neuron=neuron | {"reset": reset},
        surrogate={"name": name, "slope": None if name == "straight_through" else 1.7},
    )
    layer = SpikingLayer(config.layers[0], config)
    torch.manual_seed(0)
    values, incoming = torch.randn(9, 4, 33) * 1.5, torch.randn(9, 4, 33)
    results = []
    for function in (
        lambda current: fire(current, layer.constants, layer.gradient),
        lambda current: stepwise(layer, current),
    ):
        current = values.clone().requires_grad_()
        spikes = function(current)
        torch.manual_seed(5)  # for noise that is drawn step by step, backwards
        spikes.backward(incoming)
        results.append((spikes.detach(), current.grad))
    (spikes, grad), (expected_spikes, expected_grad) = results
    assert 0.02 < spikes.mean() < 0.6
    assert torch.equal(spikes, expected_spikes)
    if reset == "zero" and neuron.get("model") == "lapicque":
        torch.testing.assert_close(grad, expected_grad)
    else:
        assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_spikes_are_the_same_without_gradients(
    make_config: MakeConfig, neuron: dict[str, Any], reset: str, steps: int
) -> None:
    config = make_config(neuron=neuron | {"reset": reset})
    layer = SpikingLayer(config.layers[0], config)
    torch.manual_seed(0)
    current = torch.randn(steps, 4, 33) * 3
    expected = stepwise(layer, current)
    assert expected.any()
    assert torch.equal(fire(current, layer.constants, layer.gradient), expected)
    with torch.no_grad():
        leaf = current.clone().requires_grad_()
        assert torch.equal(fire(leaf, layer.constants, layer.gradient), expected)


def test_a_layers_neurons_do_not_look_at_one_another(make_config: MakeConfig) -> None:
    config = make_config()
    layer = SpikingLayer(config.layers[0], config)
    current = torch.randn(6, 8, 5)
    alone = fire(current[:, 3:4], layer.constants, layer.gradient)
    assert torch.equal(fire(current, layer.constants, layer.gradient)[:, 3:4], alone)


@pytest.mark.parametrize("beta", [0.9, 0.5, 0.2])
def test_a_lapicque_network_matched_in_both_is_the_lif_network(
    make_config: MakeConfig, beta: float
) -> None:
    frames = (torch.rand(6, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    results = []
    for neuron in (
        {"model": "lif"}, {"model": "lapicque", "match": "both"}, {"model": "lapicque"}
    ):  # fmt: skip
        torch.manual_seed(2)
        network = SpikingNetwork(
            make_config(
                network="4C3-MP2-6C3-10", training={"batch_norm": False},
                neuron=neuron | {"beta": beta, "threshold": 0.15},
            )
        )  # fmt: skip
        fired = network(frames)
        fired[-1].sum().backward()
        grads = [value.grad for value in network.parameters()]
        results.append((fired, grads))
    (lif, lif_grads), (both, both_grads), (free, _) = results
    assert 0 < lif[-1].mean() < 1
    assert all(map(torch.equal, lif, both))
    assert all(map(torch.equal, lif_grads, both_grads))
    assert not all(map(torch.equal, lif, free))


def test_a_lapicque_neuron_matched_in_both_cannot_reset_to_zero(make_config: MakeConfig) -> None:
    # It forgets the whole step there, in hardware too, and so would not fire as the LIF neuron.
    neuron = {"model": "lapicque", "match": "both", "reset": "zero"}
    with pytest.raises(ConfigError, match=r"neuron\.reset: must be subtract .*; got zero"):
        make_config(neuron=neuron)
    for match in ("none", "decay", "gain"):
        assert make_config(neuron=neuron | {"match": match}).neuron.reset == "zero"


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("shape", [(8, 8), (9, 7), (4, 5), (13, 12)])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.6, 1.0])
def test_pooled_spikes_are_the_maximum_in_value_and_gradient(
    size: int, shape: tuple[int, int], rate: float
) -> None:
    torch.manual_seed(4)
    values = (torch.rand(3, 2, 4, *shape) < rate).float()
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    pooled = pool_spikes(ours, size)
    expected = F.max_pool2d(theirs.flatten(0, 1), size).unflatten(0, (3, 2))
    assert torch.equal(pooled, expected)
    incoming = torch.randn_like(pooled)
    pooled.backward(incoming)
    expected.backward(incoming)
    assert torch.equal(ours.grad, theirs.grad)
    with torch.no_grad():
        assert torch.equal(pool_spikes(values, size), expected)
