"""Timing held to a plain event-by-event account of the machine, and to what must always hold.

That it equals the RTL is shown by tests/rtl/test_engine.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_case, random_network

from spikemeter.config import Config, load_config
from spikemeter.models.integer import network_spikes
from spikemeter.network import Layer
from spikemeter.predictor.expectation import _lundberg
from spikemeter.predictor.timing import BUCKETS, EngineTiming, spike_taps, timing_model

BACKENDS = ("engine", "published")


def plain_step_cycles(
    layer: Layer, cores: int, config: Config, spikes: np.ndarray
) -> tuple[int, int]:
    """Walk through one step of one sample; return all its cycles and those that accumulate."""
    encoder_width = config.hardware.encoder_width
    drain = 7 if config.neuron.model == "lapicque" else 6
    phases = -(-layer.out_channels // cores)
    free_at, accumulate, index = 0, 0, 0
    for row in range(layer.in_height):
        for column in range(layer.in_width):
            for channel in range(layer.in_channels):
                if spikes[channel, row, column]:
                    taps = 1
                    if layer.kind == "conv":
                        taps = sum(
                            0 <= row + layer.padding - ky < layer.out_height
                            and 0 <= column + layer.padding - kx < layer.out_width
                            for ky in range(layer.kernel)
                            for kx in range(layer.kernel)
                        )
                    free_at = max(free_at, 8 + index // encoder_width) + phases * taps
                    accumulate += phases * taps
                index += 1
    words = -(-layer.inputs // encoder_width)
    fire = layer.out_height * layer.out_width * phases
    return max(words + 3, free_at) + fire + drain, accumulate


@pytest.mark.parametrize("seed", range(12))
def test_trace_equals_an_event_by_event_account(seed: int) -> None:
    case = random_case(seed, samples=2)
    trains = network_spikes(case.network, case.inputs)
    timing = timing_model(case.config).trace(trains.inputs)
    for index, (layer, cores) in enumerate(
        zip(case.config.layers, case.config.neural_cores, strict=True)
    ):
        for sample, train in enumerate(trains.inputs[index]):
            steps = [plain_step_cycles(layer, cores, case.config, spikes) for spikes in train]
            busy = sum(timing.buckets[name][sample, index] for name in BUCKETS[:3])
            assert busy == sum(cycles - 1 for cycles, _ in steps)
            assert timing.buckets["accumulate"][sample, index] == sum(step[1] for step in steps)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_what_always_holds(seed: int) -> None:
    case = random_case(seed)
    trains = network_spikes(case.network, case.inputs).inputs
    timing = timing_model(case.config).trace(trains)
    np.testing.assert_array_equal(sum(timing.buckets.values()), timing.layer_cycles)
    assert all((cycles >= 0).all() for cycles in timing.buckets.values())

    serial = timing_model(with_hardware(case.config, schedule="layer_serial")).trace(trains)
    pipelined = timing_model(with_hardware(case.config, schedule="step_pipelined")).trace(trains)
    np.testing.assert_array_equal(serial.cycles, serial.layer_cycles.sum(axis=1))
    assert (pipelined.cycles <= serial.cycles).all()

    outputs = [layer.out_channels for layer in case.config.layers]
    more = [
        min(cores + 1, most) for cores, most in zip(case.config.neural_cores, outputs, strict=True)
    ]
    wider = timing_model(with_hardware(case.config, neural_cores=more)).trace(trains)
    assert (wider.cycles <= timing.cycles).all()

    rng = np.random.default_rng(seed)
    layer = int(rng.integers(len(trains)))
    flipped = trains[layer].copy()
    flipped.reshape(-1)[rng.integers(flipped.size)] = True
    extended = [*trains[:layer], flipped, *trains[layer + 1 :]]
    again = timing_model(with_hardware(case.config, schedule="layer_serial")).trace(extended)
    assert (again.layer_cycles[:, layer] >= serial.layer_cycles[:, layer]).all()


def test_no_spikes_cost_the_fixed_part() -> None:
    config = small_config()
    silent = [
        np.zeros((1, 4, layer.in_channels, layer.in_height, layer.in_width), dtype=bool)
        for layer in config.layers
    ]
    timing = timing_model(config).trace(silent)
    assert (timing.buckets["accumulate"] == 0).all()
    # words + 3 to scan, neurons per core, 6 to drain; 4 steps
    assert timing.layer_cycles[0, 0] == 4 * (9 + 3 + 12 * 12 * 2 + 6)
    counts = [np.zeros((1, 4, layer.in_channels)) for layer in config.layers]
    np.testing.assert_array_equal(timing_model(config).statistics(counts).cycles, timing.cycles)


def centred_trains(config: Config, density: float) -> tuple[np.ndarray, ...]:
    """Spikes of a random network whose input keeps to the middle of the frame."""
    rng = np.random.default_rng(0)
    weight = np.hanning(14)[1:-1]
    chance = 2 * density * np.minimum(1, 2 * np.outer(weight, weight))
    spikes = rng.random((16, 4, 2, 12, 12)) < chance
    return network_spikes(random_network(config, rng), spikes).inputs


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.5])
def test_counts_with_taps_come_close(density: float) -> None:
    config = small_config()
    trains = centred_trains(config, density)
    counts = [train.sum(axis=(3, 4)).astype(float) for train in trains]
    taps = [spike_taps(layer, train) for layer, train in zip(config.layers, trains, strict=True)]
    exact, expected = (
        timing_model(config).trace(trains),
        timing_model(config).statistics(counts, taps),
    )
    without = timing_model(config).statistics(counts)
    np.testing.assert_allclose(expected.buckets["accumulate"], exact.buckets["accumulate"])
    error = np.abs(expected.cycles / exact.cycles - 1).mean()
    assert error < 0.01
    assert error < np.abs(without.cycles / exact.cycles - 1).mean()


@given(events=st.floats(0, 33), more=st.floats(0, 3))
def test_more_expected_spikes_never_cost_less(events: float, more: float) -> None:
    config = small_config()
    cycles = [
        timing_model(config)
        .statistics([np.full((1, 4, 2), amount), np.full((1, 4, 8), amount)])
        .layer_cycles[0]
        for amount in (events, events + more)
    ]
    assert (cycles[0] <= cycles[1] + 1e-9).all()


def dense_config(network: str, encoder_width: int) -> Config:
    return load_config(
        {
            "network": network,
            "input": {
                "height": 12, "width": 12, "channels": 2, "time_steps": 4,
                "statistics": [[0.0, 0.0]] * 4,
            },
            "hardware": {"encoder_width": encoder_width},
        }
    )  # fmt: skip


def test_counts_of_single_pixels_are_spike_trains() -> None:
    config = dense_config("40-30-10", 8)
    rng = np.random.default_rng(3)
    trains = [
        rng.random((16, 4, x.in_channels, x.in_height, x.in_width)) < 0.2 for x in config.layers
    ]
    counts = [train.sum(axis=(3, 4)).astype(float) for train in trains]
    model = timing_model(config)
    exact, expected = model.trace(trains), model.statistics(counts)
    for name in BUCKETS:
        np.testing.assert_array_equal(expected.buckets[name][:, 1:], exact.buckets[name][:, 1:])
    assert (expected.layer_cycles[:, 0] != exact.layer_cycles[:, 0]).any()

    # Means of the same counts say no more than how many spikes there are
    halves = [counts[0], *[count / 2 for count in counts[1:]]]
    sums = [count.sum(axis=2, keepdims=True) for count in halves]
    np.testing.assert_allclose(model.statistics(halves).cycles, model.statistics(sums).cycles)
    # What else is in the batch does not matter
    mixed = [np.concatenate(pair) for pair in zip(counts, halves, strict=True)]
    np.testing.assert_array_equal(model.statistics(mixed).cycles[:16], expected.cycles)


@pytest.mark.parametrize("density", [0.004, 0.008, 0.014, 0.02, 0.04, 0.06, 0.15])
@pytest.mark.parametrize("network", ["32-10", "8C3-10"])
def test_the_variance_is_that_of_the_places(network: str, density: float) -> None:
    config = dense_config(network, 16)
    rng = np.random.default_rng(4)
    layer = config.layers[0]
    spikes = round(density * layer.inputs)
    places = rng.permuted(np.tile(np.arange(layer.inputs) < spikes, (4000, 1)), axis=1)
    train = np.repeat(places[:, None], 4, axis=1).reshape(4000, 4, 2, 12, 12)
    silent = [np.zeros((4000, 4, x.inputs), dtype=bool) for x in config.layers[1:]]
    model = timing_model(config)
    assert isinstance(model, EngineTiming)
    # One step of the first layer, given the taps that there are
    exact = model.step_costs([train, *silent])
    waited = exact.encode[:, 0, 0]
    counts = [np.full((1, 4, 1), float(spikes)), *[np.zeros((1, 4, 1)) for _ in silent]]
    taps = [np.full((1, 4, 1), spike_taps(layer, train).sum(axis=2).mean()), *counts[1:]]
    found = model.statistics(counts, taps).chance
    assert found is not None
    assert 0.6 < np.sqrt(found.variance[0] / 4) / max(waited.std(), 0.5) < 1.9


def test_an_event_that_may_not_come_scatters_by_its_own_cost() -> None:
    """A mean of a quarter of an event a step is one event in every fourth step."""
    config = dense_config("32-10", 16)
    rng = np.random.default_rng(6)
    silent = np.zeros((8000, 4, 288), dtype=bool)
    train = silent.copy()
    train[np.arange(8000), 0, rng.integers(288, size=8000)] = rng.random(8000) < 0.25
    model = timing_model(config)
    rest = [np.zeros((8000, 4, layer.inputs), dtype=bool) for layer in config.layers[1:]]
    scatter = model.trace([train, *rest]).cycles.var()
    counts = [np.array([[[0.25], [0], [0], [0]]]), *[np.zeros((1, 4, 1)) for _ in rest]]
    found = model.statistics(counts, counts).chance
    assert found is not None
    assert 0.5 < found.variance[0] / scatter < 2


def test_what_mean_counts_hide_is_bounded() -> None:
    """The mean cost lies above that of the mean, by no more than the convexity."""
    for network in ("8C3-MP2-10", "24-10"):
        for schedule in ("layer_serial", "step_pipelined"):
            config = with_hardware(dense_config(network, 16), schedule=schedule)
            trains = random_samples(config, 2)
            layers, model = config.layers, timing_model(config)
            counts = [
                train.reshape(16, 4, layer.in_channels, -1).sum(axis=3).astype(float)
                for layer, train in zip(layers, trains, strict=True)
            ]
            taps = [spike_taps(layer, train) for layer, train in zip(layers, trains, strict=True)]
            means, mean_taps = ([x.mean(axis=0)[None] for x in both] for both in (counts, taps))
            timing = model.statistics(means, mean_taps)
            whole = model.statistics(counts, taps).chance
            assert whole is not None
            assert whole.convexity is None
            assert timing.chance is not None
            assert timing.chance.convexity is not None
            hidden = model.trace(trains).cycles.mean() - timing.cycles[0]
            assert 0 < hidden < timing.chance.convexity[0]


def random_samples(config: Config, seed: int) -> list[np.ndarray]:
    """Spikes through a random network, of 16 samples from sparse to dense."""
    rng = np.random.default_rng(seed)
    size = config.input
    density = np.geomspace(0.001, 0.4, 16).reshape(-1, 1, 1, 1, 1)
    shape = (16, size.time_steps, size.channels, size.height, size.width)
    return list(network_spikes(random_network(config, rng), rng.random(shape) < density).inputs)


@pytest.mark.parametrize(
    ("networks", "mean", "p99"),
    [
        (("8C3-MP2-10", "6C5-MP2-24-10", "4C3-8C3-MP2-20-10"), 0.002, 0.01),
        # Which word holds which spike decides more here; no counts tell, as the next test shows
        (("64-10", "24-10", "48-32-10"), 0.01, 0.06),
    ],
    ids=["convolutions", "dense alone"],
)
def test_the_error_from_counts_with_taps(
    networks: tuple[str, ...], mean: float, p99: float
) -> None:
    errors, without, together = [], [], []
    for seed in range(12):
        config = dense_config(networks[seed % 3], (16, 32, 64)[seed // 4])
        trains = random_samples(config, seed)
        layers, model = config.layers, timing_model(config)
        counts = [train.sum(axis=(3, 4)).astype(float) for train in trains]
        taps = [spike_taps(layer, train) for layer, train in zip(layers, trains, strict=True)]
        sums = [count.sum(axis=2, keepdims=True) for count in counts]
        exact = model.trace(trains).cycles
        errors += np.abs(model.statistics(counts, taps).cycles / exact - 1).tolist()
        without += np.abs(model.statistics(counts).cycles / exact - 1).tolist()
        together += np.abs(model.statistics(sums).cycles / exact - 1).tolist()
    assert len(errors) == 192
    assert np.mean(errors) < mean
    assert np.quantile(errors, 0.99) < p99
    assert np.mean(errors) <= np.mean(without) <= np.mean(together) + 1e-9
    assert np.mean(together) < 0.02
    assert np.quantile(together, 0.99) < 0.1


def test_counts_of_dense_networks_say_no_more() -> None:
    """The error is that of the mean over other places of the same spikes, hence of chance."""
    rng = np.random.default_rng(5)
    errors, least = [], []
    for seed in range(8):
        config = dense_config(("64-10", "24-10")[seed % 2], (16, 32)[seed // 4])
        model, trains = timing_model(config), random_samples(config, seed)
        exact = model.trace(trains).cycles
        counts = [train.sum(axis=(3, 4)).astype(float) for train in trains]
        maps = trains[0].reshape(16, 4, 2, -1)
        others = [
            model.trace([rng.permuted(maps, axis=3).reshape(16, 4, -1), trains[1]]).cycles
            for _ in range(60)
        ]
        errors += np.abs(model.statistics(counts).cycles / exact - 1).tolist()
        least += np.abs(np.mean(others, axis=0) / exact - 1).tolist()
    assert np.mean(errors) < 1.1 * np.mean(least)
    assert np.quantile(errors, 0.99) < 1.1 * np.quantile(least, 0.99)


def test_the_decay_of_waiting_solves_its_equation() -> None:
    load = 1 + np.geomspace(1e-4, 1e6, 2000)
    root = _lundberg(load)
    assert (root > 0).all()
    # The derivative of what must vanish, at the root
    slope = 1 - load * np.exp(-root)
    error = (root - load * -np.expm1(-root)) / slope
    assert np.abs(error / root).max() < 1e-4


def test_flattened_spikes_cost_the_same() -> None:
    case = random_case(5)
    trains = network_spikes(case.network, case.inputs).inputs
    flat = [train.reshape(*train.shape[:2], -1) for train in trains]
    np.testing.assert_array_equal(
        timing_model(case.config).trace(flat).cycles, timing_model(case.config).trace(trains).cycles
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_do_not_fit_are_named(backend: str) -> None:
    config = small_config(backend)
    trains = [
        np.zeros((1, 4, layer.in_channels, layer.in_height, layer.in_width), dtype=bool)
        for layer in config.layers
    ]
    with pytest.raises(ValueError, match=r"inputs_1 must have shape .*\(samples, 4, 8, 6, 6\), go"):
        timing_model(config).trace([trains[0], trains[1][:, :, :3]])
    with pytest.raises(ValueError, match=r"inputs must be 2 arrays, one per weighted layer, got 1"):
        timing_model(config).trace(trains[:1])
    with pytest.raises(ValueError, match=r"inputs_0 must hold one sample or more, .* got 0"):
        timing_model(config).trace([train[:0] for train in trains])
    with pytest.raises(ValueError, match=r"inputs_1 must hold one sample or more, .* got 2"):
        timing_model(config).trace([trains[0], np.concatenate([trains[1]] * 2)])
    with pytest.raises(ValueError, match=r"counts_0 must have .* or \(samples, 4, 1\), got"):
        timing_model(config).statistics([np.zeros((1, 3, 2)), np.zeros((1, 4, 8))])
    counts = [np.zeros((1, 4, 2)), np.zeros((1, 4, 8))]
    with pytest.raises(ValueError, match=r"taps_1 must have shape .*\(samples, 4, 1\), got"):
        timing_model(config).statistics(counts, [counts[0], counts[0]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "index", "value", "sentence"),
    [
        ("counts", 0, np.nan, "counts_0 must be finite, got nan"),
        ("counts", 1, np.inf, "counts_1 must be finite, got inf"),
        ("counts", 1, -2.0, "counts_1 must not be negative, got -2"),
        ("counts", 1, 36.5, "counts_1 must be at most the 36 neurons of a channel, got 36.5"),
        ("taps", 0, np.nan, "taps_0 must be finite, got nan"),
        ("taps", 0, -0.5, "taps_0 must not be negative, got -0.5"),
        ("taps", 0, 9.5, "taps_0 must be at most the 9 taps of a spike, got 9.5 for 1 spikes"),
        ("taps", 0, 3.5, "taps_0 must be at least the 4 taps of a spike, got 3.5 for 1 spikes"),
        ("taps", 1, 1.5, "taps_1 must be at most the 1 taps of a spike, got 1.5 for 1 spikes"),
        ("taps", 1, 0.5, "taps_1 must be at least the 1 taps of a spike, got 0.5 for 1 spikes"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    backend: str, name: str, index: int, value: float, sentence: str
) -> None:
    config = small_config(backend)
    arrays = {"counts": [np.ones((1, 4, 2)), np.ones((1, 4, 8))]}
    arrays["taps"] = [6 * arrays["counts"][0], arrays["counts"][1].copy()]
    model = timing_model(config)
    model.statistics(arrays["counts"], arrays["taps"])
    arrays[name][index][0, 3, 1] = value
    with pytest.raises(ValueError, match=f"^{sentence} at step 3, channel 1$"):
        model.statistics(arrays["counts"], arrays["taps"])
    summed = [np.full((1, 4, 1), 2 * 144.0), np.full((1, 4, 1), 288.5)]
    with pytest.raises(ValueError, match=r"^counts_1 must be at most the 288 inputs of the layer"):
        model.statistics(summed)
    two = [np.ones((2, 4, 2)), np.ones((2, 4, 8))]
    with pytest.raises(ValueError, match=r"^taps_0 must hold the 1 samples of its counts, got 2$"):
        model.statistics([np.ones((1, 4, 2)), np.ones((1, 4, 8))], two)


@pytest.mark.parametrize("backend", BACKENDS)
@given(seed=st.integers(0, 10_000), density=st.sampled_from([0.0, 0.02, 0.3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_the_contract_of_every_machine(backend: str, seed: int, density: float) -> None:
    config = small_config(backend)
    rng = np.random.default_rng(seed)
    trains = [
        rng.random((2, 4, layer.in_channels, layer.in_height, layer.in_width)) < density
        for layer in config.layers
    ]
    timing = timing_model(config).trace(trains)
    assert set(timing.buckets) == set(BUCKETS)
    np.testing.assert_array_equal(sum(timing.buckets.values()), timing.layer_cycles)
    np.testing.assert_array_equal(timing.cycles, timing.layer_cycles.sum(axis=1))
    assert all((cycles >= 0).all() for cycles in timing.buckets.values())

    flat = [train.reshape(2, 4, -1) for train in trains]
    np.testing.assert_array_equal(timing_model(config).trace(flat).cycles, timing.cycles)

    silent = timing_model(config).trace([np.zeros_like(train) for train in trains])
    without = [np.zeros((2, 4, layer.in_channels)) for layer in config.layers]
    np.testing.assert_array_equal(timing_model(config).statistics(without).cycles, silent.cycles)
    assert (silent.buckets["accumulate"] == 0).all()
    assert (timing.layer_cycles >= silent.layer_cycles).all()

    layer = int(rng.integers(len(trains)))
    trains[layer].reshape(-1)[rng.integers(trains[layer].size)] = True
    again = timing_model(config).trace(trains).layer_cycles
    assert (again[:, layer] >= timing.layer_cycles[:, layer]).all()
    np.testing.assert_array_equal(again[:, 1 - layer], timing.layer_cycles[:, 1 - layer])
    wider = timing_model(with_hardware(config, neural_cores=[5, 6])).trace(trains).layer_cycles
    assert (wider <= again).all()


def small_config(backend: str = "engine") -> Config:
    return load_config(
        {
            "network": "8C3-MP2-10",
            "input": {
                "height": 12, "width": 12, "channels": 2, "time_steps": 4,
                "statistics": [[0.0, 0.0]] * 4,
            },
            "hardware": {"backend": backend, "neural_cores": [4, 5]},
        }
    )  # fmt: skip


def with_hardware(config: Config, **changes: object) -> Config:
    content = config.model_dump()
    content["hardware"] |= changes
    return load_config(content)
