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
from spikemeter.predictor.timing import BUCKETS, spike_taps, statistics_timing, trace_timing

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
    timing = trace_timing(case.config, trains.inputs)
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
    timing = trace_timing(case.config, trains)
    np.testing.assert_array_equal(sum(timing.buckets.values()), timing.layer_cycles)
    assert all((cycles >= 0).all() for cycles in timing.buckets.values())

    serial = trace_timing(with_hardware(case.config, schedule="layer_serial"), trains)
    pipelined = trace_timing(with_hardware(case.config, schedule="step_pipelined"), trains)
    np.testing.assert_array_equal(serial.cycles, serial.layer_cycles.sum(axis=1))
    assert (pipelined.cycles <= serial.cycles).all()

    outputs = [layer.out_channels for layer in case.config.layers]
    more = [
        min(cores + 1, most) for cores, most in zip(case.config.neural_cores, outputs, strict=True)
    ]
    wider = trace_timing(with_hardware(case.config, neural_cores=more), trains)
    assert (wider.cycles <= timing.cycles).all()

    rng = np.random.default_rng(seed)
    layer = int(rng.integers(len(trains)))
    flipped = trains[layer].copy()
    flipped.reshape(-1)[rng.integers(flipped.size)] = True
    extended = [*trains[:layer], flipped, *trains[layer + 1 :]]
    again = trace_timing(with_hardware(case.config, schedule="layer_serial"), extended)
    assert (again.layer_cycles[:, layer] >= serial.layer_cycles[:, layer]).all()


def test_no_spikes_cost_the_fixed_part() -> None:
    config = small_config()
    silent = [
        np.zeros((1, 4, layer.in_channels, layer.in_height, layer.in_width), dtype=bool)
        for layer in config.layers
    ]
    timing = trace_timing(config, silent)
    assert (timing.buckets["accumulate"] == 0).all()
    # words + 3 to scan, neurons per core, 6 to drain; 4 steps
    assert timing.layer_cycles[0, 0] == 4 * (9 + 3 + 12 * 12 * 2 + 6)
    counts = [np.zeros((1, 4, layer.in_channels)) for layer in config.layers]
    np.testing.assert_array_equal(statistics_timing(config, counts).cycles, timing.cycles)


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
    exact, expected = trace_timing(config, trains), statistics_timing(config, counts, taps)
    without = statistics_timing(config, counts)
    np.testing.assert_allclose(expected.buckets["accumulate"], exact.buckets["accumulate"])
    error = np.abs(expected.cycles / exact.cycles - 1).mean()
    assert error < 0.01
    assert error < np.abs(without.cycles / exact.cycles - 1).mean()


@given(events=st.floats(0, 40), more=st.floats(0, 3))
def test_more_expected_spikes_never_cost_less(events: float, more: float) -> None:
    config = small_config()
    cycles = [
        statistics_timing(
            config, [np.full((1, 4, 2), amount), np.full((1, 4, 8), amount)]
        ).layer_cycles[0]
        for amount in (events, events + more)
    ]
    assert (cycles[0] <= cycles[1] + 1e-9).all()


def test_flattened_spikes_cost_the_same() -> None:
    case = random_case(5)
    trains = network_spikes(case.network, case.inputs).inputs
    flat = [train.reshape(*train.shape[:2], -1) for train in trains]
    np.testing.assert_array_equal(
        trace_timing(case.config, flat).cycles, trace_timing(case.config, trains).cycles
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_do_not_fit_are_named(backend: str) -> None:
    config = small_config(backend)
    trains = [
        np.zeros((1, 4, layer.in_channels, layer.in_height, layer.in_width), dtype=bool)
        for layer in config.layers
    ]
    with pytest.raises(ValueError, match=r"inputs_1 must have shape .*\(samples, 4, 8, 6, 6\), go"):
        trace_timing(config, [trains[0], trains[1][:, :, :3]])
    with pytest.raises(ValueError, match=r"inputs must be 2 arrays, one per weighted layer, got 1"):
        trace_timing(config, trains[:1])
    with pytest.raises(ValueError, match=r"inputs_0 must hold one sample or more, .* got 0"):
        trace_timing(config, [train[:0] for train in trains])
    with pytest.raises(ValueError, match=r"inputs_1 must hold one sample or more, .* got 2"):
        trace_timing(config, [trains[0], np.concatenate([trains[1]] * 2)])
    with pytest.raises(ValueError, match=r"counts_0 must have .* or \(samples, 4, 1\), got"):
        statistics_timing(config, [np.zeros((1, 3, 2)), np.zeros((1, 4, 8))])
    counts = [np.zeros((1, 4, 2)), np.zeros((1, 4, 8))]
    with pytest.raises(ValueError, match=r"taps_1 must have shape .*\(samples, 4, 1\), got"):
        statistics_timing(config, counts, [counts[0], counts[0]])


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
    timing = trace_timing(config, trains)
    assert set(timing.buckets) == set(BUCKETS)
    np.testing.assert_array_equal(sum(timing.buckets.values()), timing.layer_cycles)
    np.testing.assert_array_equal(timing.cycles, timing.layer_cycles.sum(axis=1))
    assert all((cycles >= 0).all() for cycles in timing.buckets.values())

    flat = [train.reshape(2, 4, -1) for train in trains]
    np.testing.assert_array_equal(trace_timing(config, flat).cycles, timing.cycles)

    silent = trace_timing(config, [np.zeros_like(train) for train in trains])
    without = [np.zeros((2, 4, layer.in_channels)) for layer in config.layers]
    np.testing.assert_array_equal(statistics_timing(config, without).cycles, silent.cycles)
    assert (silent.buckets["accumulate"] == 0).all()
    assert (timing.layer_cycles >= silent.layer_cycles).all()

    layer = int(rng.integers(len(trains)))
    trains[layer].reshape(-1)[rng.integers(trains[layer].size)] = True
    again = trace_timing(config, trains).layer_cycles
    assert (again[:, layer] >= timing.layer_cycles[:, layer]).all()
    np.testing.assert_array_equal(again[:, 1 - layer], timing.layer_cycles[:, 1 - layer])
    wider = trace_timing(with_hardware(config, neural_cores=[5, 6]), trains).layer_cycles
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
