from __future__ import annotations

import doctest
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikemeter.config import NeuronConfig
from spikemeter.errors import RunFolderError
from spikemeter.models import integer
from spikemeter.models.integer import (
    IntegerLayer,
    IntegerNetwork,
    class_accuracy,
    decay_terms,
    layer_spikes,
    load_network,
    membrane_bound,
    network_spikes,
    neuron_decay,
    quantised_decay,
    save_network,
)
from spikemeter.network import parse_network


def random_layer(
    notation: str, index: int, rng: np.random.Generator, **changes: Any
) -> IntegerLayer:
    """Give layer `index` of a network on 2 x 7 x 6 inputs."""
    geometry = parse_network(notation, channels=2, height=7, width=6)[index]
    constants = {
        "threshold": 90, "gain_shift": 4, "decay": 232, "membrane_bits": 24, "weight_bits": 4,
    } | changes  # fmt: skip
    return IntegerLayer(
        geometry=geometry,
        weight=rng.integers(-7, 8, geometry.weight_shape).astype(np.int8),
        bias=rng.integers(-99, 100, geometry.out_channels).astype(np.int32),
        **constants,
    )


def random_spikes(
    layer: IntegerLayer, rng: np.random.Generator, samples: int = 3
) -> NDArray[np.bool_]:
    geometry = layer.geometry
    shape = (samples, 6, geometry.in_channels, geometry.in_height, geometry.in_width)
    return rng.random(shape) < 0.3


def slow_step(layer: IntegerLayer, mem: int, drive: int) -> int:
    """Membrane of one neuron after a step."""
    unit = 65536 if layer.neuron == "lapicque" else 256
    fired = mem > layer.threshold
    if fired and layer.reset == "zero":
        return 0 if layer.neuron == "lapicque" else drive
    return mem * layer.decay // unit + drive - (layer.threshold if fired else 0)


def slow_membranes(layer: IntegerLayer, spikes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Membranes (time_steps, channels, height, width) of one sample, neuron by neuron."""
    geometry, pad = layer.geometry, layer.geometry.padding
    low, high = -(2 ** (layer.membrane_bits - 1)), 2 ** (layer.membrane_bits - 1) - 1
    neurons = (geometry.out_channels, geometry.out_height, geometry.out_width)
    membranes = np.zeros((len(spikes), *neurons), dtype=np.int64)
    for channel, row, column in itertools.product(*map(range, neurons)):
        mem = 0
        for step, frame in enumerate(spikes):
            current = 0
            if geometry.kind == "dense":
                for line, spike in enumerate(frame.ravel()):
                    current += int(layer.weight[channel, line]) * int(spike)
            else:
                taps = itertools.product(
                    range(geometry.in_channels), range(geometry.kernel), range(geometry.kernel)
                )
                for source, y, x in taps:
                    at = (row + y - pad, column + x - pad)
                    if 0 <= at[0] < geometry.in_height and 0 <= at[1] < geometry.in_width:
                        weight = int(layer.weight[channel, source, y, x])
                        current += weight * int(frame[source, at[0], at[1]])
            mem = slow_step(layer, mem, current * 2**layer.gain_shift + int(layer.bias[channel]))
            mem = min(max(mem, low), high)
            membranes[step, channel, row, column] = mem
    return membranes


def slow_pooled(spikes: NDArray[np.bool_], pool: int) -> NDArray[np.bool_]:
    time_steps, channels, height, width = spikes.shape
    pooled = np.zeros((time_steps, channels, height // pool, width // pool), dtype=bool)
    for row, column in itertools.product(range(height // pool), range(width // pool)):
        square = spikes[:, :, row * pool : (row + 1) * pool, column * pool : (column + 1) * pool]
        pooled[:, :, row, column] = square.any(axis=(2, 3))
    return pooled


LAYERS = [
    ("3C3-MP2-10", 0),
    ("3C3v-10", 0),
    ("3C5-MP4-10", 0),
    ("5C1-10", 0),
    ("3C3-MP2-4C3v-10", 1),
    ("3C3-MP2-10", 1),
    ("10", 0),
]


@pytest.mark.parametrize(("notation", "index"), LAYERS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decay": 256, "gain_shift": 0, "threshold": 9},
        {"membrane_bits": 8, "threshold": 100},
        {"reset": "zero"},
        {"neuron": "lapicque", "decay": 58982},
        {"neuron": "lapicque", "decay": -58982},
        {"neuron": "lapicque", "decay": 58982, "reset": "zero"},
    ],
    ids=[
        "plain",
        "no leak",
        "saturating",
        "reset to zero",
        "lapicque",
        "negative decay",
        "lapicque reset to zero",
    ],
)
def test_reference_equals_a_loop_over_single_neurons(
    notation: str, index: int, changes: dict[str, Any]
) -> None:
    rng = np.random.default_rng(5)
    layer = random_layer(notation, index, rng, **changes)
    spikes = random_spikes(layer, rng)
    pooled, fired = layer_spikes(layer, spikes)
    assert 0 < fired.mean() < 1
    for sample, train in enumerate(spikes):
        expected = slow_membranes(layer, train) > layer.threshold
        np.testing.assert_array_equal(pooled[sample], slow_pooled(expected, layer.geometry.pool))
        np.testing.assert_allclose(fired[sample], expected.mean(axis=(1, 2, 3)))


def test_saturation_is_part_of_the_arithmetic() -> None:
    rng = np.random.default_rng(5)
    narrow = random_layer("3C3-10", 0, rng, membrane_bits=8, threshold=100)
    membranes = slow_membranes(narrow, random_spikes(narrow, rng)[0])
    assert membranes.min() == -128
    assert membranes.max() == 127


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("model", ["lif", "lapicque"])
@pytest.mark.parametrize(("notation", "index"), LAYERS)
def test_reference_equals_snntorch_where_rounding_cannot_matter(
    notation: str, index: int, model: str, reset: str
) -> None:
    # A decay of one half and 15 bits below a unit of weight leave nothing to round in 6 steps.
    rng = np.random.default_rng(8)
    layer = random_layer(
        notation, index, rng, decay=128 if model == "lif" else 32768, gain_shift=15,
        threshold=7 << 15, membrane_bits=32, neuron=model, reset=reset,
    )  # fmt: skip
    spikes = random_spikes(layer, rng)
    geometry = layer.geometry
    weight = torch.from_numpy(layer.weight.astype(np.float64))
    bias = torch.from_numpy(layer.bias / 2.0**15)
    if model == "lif":
        half = torch.tensor(0.5, dtype=torch.float64)
        neuron = snn.Leaky(beta=half, threshold=7.0, reset_mechanism=reset)
    else:  # 1 - 1/(R C) is one half, and 1/C is 1
        neuron = snn.Lapicque(R=2.0, C=1.0, threshold=7.0, reset_mechanism=reset)
    mem = torch.zeros(1, dtype=torch.float64)
    out = []
    for step in torch.from_numpy(spikes.astype(np.float64)).unbind(1):
        if geometry.kind == "dense":
            current = torch.nn.functional.linear(step.flatten(1), weight, bias)[:, :, None, None]
        else:
            current = torch.nn.functional.conv2d(step, weight, bias, padding=geometry.padding)
        spike, mem = neuron(current, torch.zeros_like(current) if mem.numel() == 1 else mem)
        out.append(spike)
    expected = torch.stack(out, dim=1)
    assert expected.any()
    if geometry.pool > 1:
        expected = torch.nn.functional.max_pool3d(expected, (1, geometry.pool, geometry.pool))
    np.testing.assert_array_equal(layer_spikes(layer, spikes)[0], expected.numpy() > 0)


def test_layers_feed_each_other_and_the_last_one_is_flat() -> None:
    rng = np.random.default_rng(2)
    notation = "3C3-MP2-4C3-10"
    layers = tuple(random_layer(notation, index, rng) for index in range(3))
    spikes = random_spikes(layers[0], rng)
    trains = network_spikes(IntegerNetwork(layers=layers), spikes)
    entering = spikes
    for layer, train, fired in zip(layers, trains.inputs, trains.fired, strict=True):
        np.testing.assert_array_equal(train, entering)
        entering, rate = layer_spikes(layer, entering)
        np.testing.assert_array_equal(fired, rate)
    assert trains.outputs.shape == (3, 6, 10)
    np.testing.assert_array_equal(trains.outputs, entering[:, :, :, 0, 0])


def test_how_samples_are_grouped_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    layer = random_layer("3C3-MP2-10", 0, rng)
    spikes = random_spikes(layer, rng, samples=5)
    whole, _ = layer_spikes(layer, spikes)
    monkeypatch.setattr(integer, "_PATCH_VALUES", 2 * 42 * 18)
    np.testing.assert_array_equal(layer_spikes(layer, spikes)[0], whole)
    np.testing.assert_array_equal(layer_spikes(layer, spikes[3:4])[0], whole[3:4])


def test_spikes_of_another_size_are_refused() -> None:
    layer = random_layer("3C3-10", 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"into 0:3C3 must have shape .*2, 7, 6.*got \(1, 4, 2"):
        layer_spikes(layer, np.zeros((1, 4, 2, 6, 7), dtype=bool))


@given(
    seed=st.integers(0, 2**16),
    decay=st.one_of(
        st.floats(0.01, 1).map(lambda beta: ("lif", quantised_decay(beta))),
        st.integers(-65536, 65536).map(lambda factor: ("lapicque", factor)),
    ),
    reset=st.sampled_from(["subtract", "zero"]),
    threshold=st.integers(1, 500),
    gain_shift=st.integers(0, 6),
    rate=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_no_membrane_exceeds_its_bound(
    seed: int,
    decay: tuple[str, int],
    reset: str,
    threshold: int,
    gain_shift: int,
    rate: float,
) -> None:
    rng = np.random.default_rng(seed)
    layer = random_layer(
        "2C1-10", 0, rng,
        neuron=decay[0], decay=decay[1], reset=reset,
        threshold=threshold, gain_shift=gain_shift, membrane_bits=32,
    )  # fmt: skip
    spikes = rng.random((12, 2, 7, 6)) < rate
    bound = membrane_bound(layer)
    assert np.abs(slow_membranes(layer, spikes)).max() <= bound


def test_decay_table_holds_all_sums_of_three_signed_powers_of_two() -> None:
    powers = [sign * 256 // 2**shift for shift in range(9) for sign in (1, -1)] + [0]
    reachable = {sum(terms) for terms in itertools.product(powers, repeat=3)}
    for decay in range(1, 257):
        if decay in reachable:
            terms = decay_terms(decay)
            assert len(terms) <= 3
            assert sum(sign * 256 // 2**shift for sign, shift in terms) == decay
        else:
            with pytest.raises(KeyError):
                decay_terms(decay)


def test_decay_takes_as_few_terms_as_it_can() -> None:
    assert [len(decay_terms(decay)) for decay in (256, 128, 192, 224, 232)] == [1, 1, 2, 2, 3]


@given(beta=st.floats(1e-6, 1))
def test_quantised_decay_is_the_nearest_and_never_far(beta: float) -> None:
    reachable = [decay for decay in range(1, 257) if decay in integer._DECAY_TERMS]
    distance = min(abs(decay - beta * 256) for decay in reachable)
    assert abs(quantised_decay(beta) - beta * 256) == distance
    assert distance <= 4


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.01, float("nan")])
def test_quantised_decay_refuses_what_is_no_decay(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta must be in \(0, 1\]"):
        quantised_decay(beta)


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(integer)
    assert result.attempted == 5
    assert result.failed == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 0), ("threshold", 2**23), ("gain_shift", 16), ("gain_shift", -1),
        ("decay", 230), ("neuron", "izhikevich"), ("reset", "none"), ("membrane_bits", 33),
        ("membrane_bits", 7), ("weight_bits", 9), ("weight_bits", 3),
    ],
)  # fmt: skip
def test_constants_beyond_the_hardware_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} of layer 0:3C3 does not fit"):
        random_layer("3C3-10", 0, np.random.default_rng(0), **{name: value})


@pytest.mark.parametrize("decay", [-65537, 65537])
def test_a_multiplied_decay_beyond_one_is_refused(decay: int) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=f"decay of layer 0:3C3 does not fit .* got {decay}"):
        random_layer("3C3-10", 0, rng, neuron="lapicque", decay=decay)


def test_a_matched_lapicque_neuron_fires_exactly_as_lif() -> None:
    rng = np.random.default_rng(5)
    lif = random_layer("3C3-10", 0, rng)
    matched = NeuronConfig(model="lapicque", beta=0.9, match="both")
    other = replace(lif, neuron="lapicque", decay=neuron_decay(matched))
    assert (lif.decay, other.decay) == (neuron_decay(NeuronConfig(beta=0.9)), 232 * 256)
    spikes = random_spikes(lif, rng)
    np.testing.assert_array_equal(layer_spikes(other, spikes)[0], layer_spikes(lif, spikes)[0])


@pytest.mark.parametrize("shape", [(1, 6, 2, 6, 7), (1, 6, 7, 6, 2), (0, 6, 2, 7, 6), (6, 2, 7, 6)])
def test_spikes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    network = IntegerNetwork(layers=(random_layer("3C3-10", 0, np.random.default_rng(0)),))
    with pytest.raises(
        ValueError, match=r"spikes into 0:3C3 must have shape .*2, 7, 6\) with a sa"
    ):
        network_spikes(network, np.zeros(shape, dtype=bool))


def test_accuracy_counts_the_spikes_of_each_class() -> None:
    outputs = np.zeros((4, 3, 6), dtype=bool)  # three classes of two neurons
    outputs[0, :2, 5] = True
    outputs[1, 0, 2:4] = outputs[1, 1, 0] = True
    outputs[2, 0, 1] = outputs[2, 0, 4] = True  # a tie: the lower class counts
    assert class_accuracy(outputs, np.array([2, 1, 0, 0]), 3) == 1.0
    assert class_accuracy(outputs, np.array([2, 0, 2, 1]), 3) == 0.25


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, IntegerNetwork]:
    rng = np.random.default_rng(4)
    layers = (
        random_layer("3C3-MP2-10", 0, rng, reset="zero"),
        random_layer("3C3-MP2-10", 1, rng, neuron="lapicque", decay=-1234),
    )
    network = IntegerNetwork(layers=layers)
    save_network(network, tmp_path / "network.npz")
    return tmp_path / "network.npz", network


def test_a_saved_network_comes_back_whole(saved: tuple[Path, IntegerNetwork]) -> None:
    path, network = saved
    loaded = load_network(path, [layer.geometry for layer in network.layers])
    for found, expected in zip(loaded.layers, network.layers, strict=True):
        np.testing.assert_array_equal(found.weight, expected.weight)
        np.testing.assert_array_equal(found.bias, expected.bias)
        for name in (
            "geometry", "threshold", "gain_shift", "decay", "membrane_bits", "neuron", "reset"
        ):  # fmt: skip
            assert getattr(found, name) == getattr(expected, name)
        assert found.weight.dtype == np.int8
        assert not found.weight.flags.writeable
    assert [entry.name for entry in path.parent.iterdir()] == ["network.npz"]


def test_a_damaged_network_is_refused_whatever_the_damage(
    saved: tuple[Path, IntegerNetwork],
) -> None:
    path, network = saved
    geometry = [layer.geometry for layer in network.layers]
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:size] for size in (0, 1, 50, len(content) // 2, len(content) - 1)]
    for position in rng.integers(0, len(content), 200):
        flipped = bytearray(content)
        flipped[position] ^= int(rng.integers(1, 256))
        damaged.append(bytes(flipped))
    refusals = []
    for blob in damaged:
        path.write_bytes(blob)
        try:
            loaded = load_network(path, geometry)
        except RunFolderError as error:
            refusals.append(str(error))
        else:  # a byte that means nothing, such as a time stamp
            for found, expected in zip(loaded.layers, network.layers, strict=True):
                np.testing.assert_array_equal(found.weight, expected.weight)
    assert all(str(path) in message for message in refusals)
    assert len(refusals) > len(damaged) / 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weight_0": None}, "weight_0"),
        ({"decay_1": None}, "decay_1"),
        ({"weight_0": np.zeros((3, 2, 3, 3), np.int64)}, "weight_0 must be int8, got int64"),
        ({"weight_0": np.zeros((3, 2, 3, 1), np.int8)}, "weight of layer 0:3C3"),
        ({"bias_1": np.zeros(9, np.int32)}, "bias of layer 1:10"),
        ({"threshold_0": np.float64(3.5)}, "threshold_0 must be int64"),
        ({"threshold_0": np.zeros(2, np.int64)}, "size 1"),
        ({"decay_0": np.int64(230)}, "decay of layer 0:3C3"),
        ({"membrane_bits_0": np.int64(2**40)}, "membrane_bits of layer 0:3C3"),
        ({"bias_0": np.array([None, 1, 2])}, "allow_pickle"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_network_of_other_content_is_refused(
    saved: tuple[Path, IntegerNetwork], changes: dict[str, Any], reason: str
) -> None:
    path, network = saved
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(path, **arrays)
    with pytest.raises(RunFolderError, match=reason):
        load_network(path, [layer.geometry for layer in network.layers])


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    geometry = parse_network("10", channels=1, height=2, width=2)
    path = tmp_path / "network.npz"
    with pytest.raises(RunFolderError, match="No such file"):
        load_network(path, geometry)
    path.write_text("weights: good")
    with pytest.raises(RunFolderError, match="cannot read"):
        load_network(path, geometry)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(RunFolderError, match=r"not an \.npz archive"):
        load_network(path, geometry)


def test_importing_the_package_and_reading_networks_needs_no_torch() -> None:
    code = (
        "import sys, spikemeter.models as m; m.load_run, m.load_network; "
        "sys.exit(bool({'torch', 'snntorch', 'brevitas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
