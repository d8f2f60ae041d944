"""Timing of cores that serve all taps of a spike at once, held to a plain account of the machine.

That it equals the RTL is shown by tests/rtl/test_engine.py.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_networks import random_case

from spikemeter.config import Config, load_config
from spikemeter.models.integer import network_spikes
from spikemeter.network import Layer, banks, parse_network, pixels_at_once
from spikemeter.predictor import LatencyPredictor, predict_latency
from spikemeter.predictor.allocation_costs import core_counts
from spikemeter.predictor.differentiable import TorchTiming
from spikemeter.predictor.timing import layer_shapes, spike_taps, tiled_fire_cycles, timing_model

PIPELINE = 6
"""Cycles from the last fire operation to the end of a step whose spikes need no packing."""


def config_of(network: str, cores: list[int], side: int = 12, **hardware: object) -> Config:
    return load_config(
        {
            "network": network,
            "input": {
                "height": side, "width": side, "channels": 2, "time_steps": 4,
                "statistics": [[5.0, 5.0]] * 4,
            },
            "hardware": {"neural_cores": cores, "taps_per_cycle": 9, **hardware},
        }
    )  # fmt: skip


def random_trains(config: Config, density: float, samples: int = 4) -> list[NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    steps = config.input.time_steps
    return [
        rng.random((samples, steps, x.in_channels, x.in_height, x.in_width)) < density
        for x in config.layers
    ]


def plain_fire_cycles(layer: Layer, phases: int) -> int:
    """Fire tile by tile while strips are read, one cycle after the other."""
    rows, columns = -(-layer.out_height // 3), -(-layer.out_width // 3)
    left_in_strips: list[int] = []  # pixels of the strips that are whole and not yet read
    written, cycle = 0, 0
    pixels = pixels_at_once(layer.pool, phases)

    def read() -> None:
        if left_in_strips:
            left_in_strips[0] -= pixels
            if left_in_strips[0] <= 0:
                left_in_strips.pop(0)

    for row in range(rows):
        for _ in range(columns * phases):
            assert len(left_in_strips) < 2  # nothing is written over what is still to be read
            read()
            cycle += 1
        if row + 1 == rows or (row + 1) % layer.pool == 0:
            whole = min(3, layer.pooled_height - written)
            written += whole
            if whole:
                left_in_strips.append(whole * layer.pooled_width)
    while left_in_strips:
        read()
        cycle += 1
    return cycle + 1


def plain_step_cycles(
    layer: Layer, cores: int, config: Config, spikes: NDArray[np.bool_]
) -> tuple[int, int]:
    """Walk through one step of one sample; return all its cycles and those that accumulate."""
    phases, width = -(-layer.out_channels // cores), config.hardware.encoder_width
    free_at = 0
    lines = np.flatnonzero(spikes.transpose(1, 2, 0).ravel()).tolist()
    for line in lines:
        free_at = max(free_at, 8 + line // width) + phases
    drain = PIPELINE + (config.neuron.model == "lapicque")
    begin = max(-(-layer.inputs // width) + 3, free_at)
    return begin + plain_fire_cycles(layer, phases) + drain, phases * len(lines)


@pytest.mark.parametrize("seed", range(16))
def test_trace_equals_an_event_by_event_account(seed: int) -> None:
    case = random_case(seed, samples=2, taps_per_cycle=9)
    trains = network_spikes(case.network, case.inputs).inputs
    timing = timing_model(case.config).trace(trains)
    for index, (layer, cores) in enumerate(
        zip(case.config.layers, case.config.neural_cores, strict=True)
    ):
        if banks(layer, 9) == 1:
            continue
        for sample, train in enumerate(trains[index]):
            steps = [plain_step_cycles(layer, cores, case.config, spikes) for spikes in train]
            busy = timing.layer_cycles - timing.buckets["stall"]
            assert busy[sample, index] == sum(cycles - 1 for cycles, _ in steps)
            assert timing.buckets["accumulate"][sample, index] == sum(each for _, each in steps)


@pytest.mark.parametrize("pool", [1, 2, 4])
@pytest.mark.parametrize("valid", ["", "v"])
def test_every_map_is_written_back_as_it_is_fired(pool: int, valid: str) -> None:
    """No strip is overwritten, and the end is where the equation puts it."""
    sides = [*range(1, 15), 18, 19, 21, 32]
    pooling = "" if pool == 1 else f"-MP{pool}"
    for height, width, phases in itertools.product(sides, sides, (1, 2, 3, 5, 8, 9, 12)):
        pad = 2 if valid else 0
        if min(height, width) < pool:
            continue
        layer, _ = parse_network(
            f"{phases}C3{valid}{pooling}-1", channels=1, height=height + pad, width=width + pad
        )
        cycles = tiled_fire_cycles(layer_shapes((layer,)), np.array([[float(phases)]]))
        assert cycles.item() == plain_fire_cycles(layer, phases), layer


def test_more_cores_never_fire_longer() -> None:
    for side, pool in itertools.product(range(4, 40), (1, 2, 4)):
        pooling = "" if pool == 1 else f"-MP{pool}"
        layer, _ = parse_network(f"40C3{pooling}-1", channels=1, height=side, width=side)
        phases = np.arange(1.0, 41.0)
        shapes = layer_shapes((layer,) * len(phases))
        assert (np.diff(tiled_fire_cycles(shapes, phases[:, None]).ravel()) >= 0).all(), layer


def test_an_allocation_leaves_out_cores_that_write_too_much_at_once() -> None:
    layer, _ = parse_network("600C3-10", channels=1, height=8, width=8)
    counts = core_counts(layer, 9)
    assert counts.tolist() == core_counts(layer)[: len(counts)].tolist()
    assert pixels_at_once(1, -(-600 // int(counts[-1]))) * 600 == 1800
    assert len(counts) < len(core_counts(layer))


def test_layers_with_other_kernels_keep_their_cycles() -> None:
    nine = timing_model(config_of("4C5-MP2-3C1-7-5", [2, 1, 3, 5]))
    trains = random_trains(config_of("4C5-MP2-3C1-7-5", [2, 1, 3, 5]), 0.2)
    one = replace(nine, taps_per_cycle=1)
    np.testing.assert_array_equal(nine.trace(trains).layer_cycles, one.trace(trains).layer_cycles)


def test_a_layer_of_its_own_takes_a_ninth_where_frames_have_no_border() -> None:
    """An event takes a ninth of the cycles of one inside the frame, and so do the neurons."""
    config = config_of("4C3-5", [1, 5], side=30)
    train = np.zeros((1, 4, 2, 30, 30), dtype=np.bool_)
    train[..., 1:-1, 1:-1] = True
    second = np.zeros((1, 4, 4 * 30 * 30), dtype=np.bool_)
    nine, one = (
        replace(timing_model(config), taps_per_cycle=taps).trace([train, second]) for taps in (9, 1)
    )
    assert one.buckets["accumulate"][0, 0] == 9 * nine.buckets["accumulate"][0, 0]
    # The last strip, of ten: 3 rows of 30 pixels, three at once
    assert nine.buckets["fire"][0, 0] == 4 * (4 * 100 + PIPELINE + 1 + 30)
    assert one.buckets["fire"][0, 0] == 4 * (4 * 900 + PIPELINE)


@pytest.mark.parametrize("density", [0.005, 0.05, 0.3])
@pytest.mark.parametrize("schedule", ["layer_serial", "step_pipelined"])
def test_counts_come_close_and_taps_say_nothing_more(density: float, schedule: str) -> None:
    config = config_of("8C3-MP2-8C3v-10", [2, 3, 10], schedule=schedule)
    trains = random_trains(config, density, samples=16)
    model = timing_model(config)
    trace = model.trace(trains)
    counts = [train.sum(axis=(3, 4), dtype=np.float64) for train in trains]
    taps = [spike_taps(layer, train) for layer, train in zip(config.layers, trains, strict=True)]
    with_taps, without = model.statistics(counts, taps), model.statistics(counts)
    np.testing.assert_array_equal(with_taps.cycles, without.cycles)
    np.testing.assert_array_equal(
        without.buckets["accumulate"][:, :2], trace.buckets["accumulate"][:, :2]
    )
    np.testing.assert_array_equal(without.buckets["fire"][0], trace.buckets["fire"][0])
    assert np.abs(without.cycles / trace.cycles - 1).mean() < 0.02


def test_counts_without_taps_are_as_sure_as_with_them() -> None:
    config = config_of("8C3-MP2-8C3-10", [2, 3, 10])
    shipped = LatencyPredictor.default()
    trains = random_trains(config, 0.1)
    counts = {f"counts_{i}": train.sum(axis=(3, 4)) for i, train in enumerate(trains)}
    taps = {
        f"taps_{i}": spike_taps(layer, train)
        for i, (layer, train) in enumerate(zip(config.layers, trains, strict=True))
    }
    bare, full = (
        predict_latency(config, spikes=spikes, predictor=shipped)
        for spikes in (counts, counts | taps)
    )
    assert bare.cycles == full.cycles
    assert bare.interval_cycles == full.interval_cycles
    assert not any("taps_i" in text for text in bare.warnings)
    # A layer that goes tap by tap still asks for them
    mixed = config_of("8C3-MP2-8C5-10", [2, 3, 10])
    assert any("taps_i" in text for text in predict_latency(mixed, spikes=counts).warnings)


def test_the_gradient_is_the_service_of_a_spike_wherever_it_is() -> None:
    config = config_of("6C3-5", [2, 5], side=5)
    frames = torch.ones(1, 4, 2, 5, 5, requires_grad=True)
    TorchTiming(config)([frames, torch.zeros(1, 4, 150)]).sum().backward()
    assert frames.grad is not None
    assert frames.grad.unique().tolist() == [3]


def test_an_engine_with_one_tap_is_the_same_configuration_as_before() -> None:
    """Nine taps are another run; a configuration that says nothing of taps keeps its digest."""
    said, unsaid = ({"taps_per_cycle": 1}, {})
    one, silent, nine = (
        load_config({"dataset": "nmnist-saccade", "network": "4C3-10", "hardware": hardware})
        for hardware in (said, unsaid, {"taps_per_cycle": 9})
    )
    assert one.digest == silent.digest != nine.digest
