"""The published engine's formula: held to a plain loop, and to the one sample that is published."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikemeter.config import Config, load_config
from spikemeter.network import Layer
from spikemeter.predictor import LatencyPredictor, predict_latency
from spikemeter.predictor.published import PUBLISHED_ERROR, PublishedTiming
from spikemeter.predictor.timing import (
    BUCKETS,
    spike_taps,
    timing_model,
)

# The sample: spikes that enter a layer, and its cycles. What enters the first is not published.
SPIKES = (10431, 2338, 2112, 813, 831, 535, 471, 7)
CYCLES = (423543, 140248, 123635, 121550, 114702, 111198, 64610, 1293)
NETWORK = "64C3-28C3-MP2-48C3-54C3-MP2-120C3-126C3-140C3-MP2-1064-200"
# Inferred from the cycles; the core counts of that design are divisors of the output channels.
CORES = (16, 7, 8, 9, 8, 9, 10, 8, 2)


def plain_cycles(layer: Layer, cores: int, encoder_width: int, spikes: np.ndarray) -> int:
    """Walk through one layer and one sample; spikes of shape (steps, channels, height, width)."""
    rounds = math.ceil(layer.out_channels / cores)
    total = 0
    if layer.kind == "dense":
        for step in spikes:
            total += 2 * math.ceil(step.size / encoder_width) + 2 * int(step.sum())
        for _ in range(rounds):
            for step in spikes:
                total += int(step.sum()) + 1
        return total
    for _ in range(rounds):
        for step in spikes:
            for frame in step:
                count = int(frame.sum())
                total += max(9 * count, 10 + 2 * count)
            total += layer.out_height * layer.out_width
    return total


def small_config(**hardware: object) -> Config:
    return load_config(
        {
            "network": "6C3-MP2-7C3-20-9",
            "input": {
                "height": 6, "width": 8, "channels": 2, "time_steps": 3,
                "statistics": [[1.0, 2.0]] * 3,
            },
            "hardware": {"backend": "published", "neural_cores": [4, 7, 6, 1]} | hardware,
        }
    )  # fmt: skip


def random_trains(config: Config, seed: int, samples: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    density = rng.choice([0.0, 0.02, 0.1, 0.5, 1.0], size=(samples, 1, 1, 1, 1))
    shapes = [(layer.in_channels, layer.in_height, layer.in_width) for layer in config.layers]
    steps = config.input.time_steps
    return [rng.random((samples, steps, *shape)) < density for shape in shapes]


def counted(trains: list[np.ndarray]) -> list[np.ndarray]:
    return [train.sum(axis=(3, 4)).astype(float) for train in trains]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("encoder_width", [8, 13, 32])
def test_the_formula_equals_a_plain_loop(seed: int, encoder_width: int) -> None:
    config = small_config(encoder_width=encoder_width)
    trains = random_trains(config, seed)
    timing = timing_model(config).trace(trains)
    for index, (layer, cores) in enumerate(zip(config.layers, config.neural_cores, strict=True)):
        expected = [plain_cycles(layer, cores, encoder_width, train) for train in trains[index]]
        assert timing.layer_cycles[:, index].tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_counts_alone_decide(seed: int) -> None:
    config = small_config()
    trains = random_trains(config, seed)
    exact = timing_model(config).trace(trains)
    taps = [spike_taps(layer, train) for layer, train in zip(config.layers, trains, strict=True)]
    for given_taps in (None, taps):
        counts = timing_model(config).statistics(counted(trains), given_taps)
        np.testing.assert_array_equal(counts.cycles, exact.cycles)
        for name in BUCKETS:
            np.testing.assert_array_equal(counts.buckets[name], exact.buckets[name])


def test_inferences_follow_one_another() -> None:
    config = small_config()
    timing = timing_model(config).trace(random_trains(config, 1))
    np.testing.assert_array_equal(timing.initiation_interval_cycles, timing.cycles)
    np.testing.assert_array_equal(timing.cycles, timing.layer_cycles.sum(axis=1))
    assert (timing.buckets["stall"] == 0).all()


def test_no_spikes_cost_the_fixed_part() -> None:
    config = small_config()
    timing = timing_model(config).trace(
        [np.zeros_like(train) for train in random_trains(config, 0)]
    )
    # Two phases of 3 steps: 2 maps to encode and 48 neurons to fire; then 6 maps and 12 neurons
    assert timing.layer_cycles[0, :2].tolist() == [2 * 3 * (2 * 10 + 48), 3 * (6 * 10 + 12)]
    # 3 steps: 84 inputs are 3 chunks of 32, 20 are one; 4 and 9 rounds
    assert timing.layer_cycles[0, 2:].tolist() == [3 * (2 * 3 + 4), 3 * (2 * 1 + 9)]


@given(events=st.floats(0, 12), more=st.floats(0, 3))
def test_more_expected_spikes_never_cost_less(events: float, more: float) -> None:
    config = small_config()
    fewer, many = (
        timing_model(config).statistics(
            [
                np.full((1, 3, x.in_channels), min(amount, x.in_height * x.in_width))
                for x in config.layers
            ]
        )
        for amount in (events, events + more)
    )
    assert (fewer.layer_cycles <= many.layer_cycles + 1e-9).all()


def test_more_cores_are_never_slower() -> None:
    trains = random_trains(small_config(), 3)
    before = np.full(4, np.inf)
    for cores in range(1, 7):
        config = small_config(neural_cores=[cores] * 4)
        now = timing_model(config).trace(trains).layer_cycles.max(axis=0)
        assert (now <= before).all()
        before = now


@pytest.fixture(scope="module")
def published() -> Config:
    return load_config(
        {
            "network": NETWORK,
            "input": {"height": 32, "width": 32, "time_steps": 4, "statistics": [[0, 0]] * 4},
            "hardware": {"backend": "published", "neural_cores": CORES},
        }
    )


def sample_bounds(config: Config, cores: tuple[int, ...]) -> np.ndarray:
    """Fewest and most cycles of the sample's layers after the first, shape (2, layers).

    The cost of a map is convex in its spikes: evenly spread they cost least, in few maps most.
    """
    model = timing_model(config)
    assert isinstance(model, PublishedTiming)
    layers = config.layers[1:]
    even, packed = [], []
    for layer, spikes in zip(layers, SPIKES, strict=True):
        maps = config.input.time_steps * layer.in_channels
        pixels = layer.in_height * layer.in_width
        even.append((spikes + np.arange(maps)) // maps)
        packed.append(np.clip(spikes - pixels * np.arange(maps), 0, pixels))
    rest = PublishedTiming(
        layers=layers, neural_cores=cores, encoder_width=model.encoder_width, time_steps=4
    )
    return np.concatenate(
        [
            rest.statistics([x.reshape(1, 4, -1).astype(float) for x in counts]).layer_cycles
            for counts in (even, packed)
        ]
    )


def test_the_published_sample_is_reproduced_with_inferred_cores(published: Config) -> None:
    least, most = sample_bounds(published, CORES[1:])
    measured = np.array(CYCLES)
    assert ((least <= measured) & (measured <= most)).tolist() == [
        False, False, True, True, True, True, False, False,
    ]  # fmt: skip
    nearest = np.clip(measured, least, most)
    error = np.abs(nearest / measured - 1)
    np.testing.assert_allclose(error, [0.052, 0.012, 0, 0, 0, 0, 0.001, 0.072], atol=0.0005)
    assert (np.abs(np.log(nearest / measured)) <= math.log1p(PUBLISHED_ERROR)).all()
    assert least.sum() < measured.sum() < most.sum()


def test_no_other_divisor_explains_a_convolution_as_well(published: Config) -> None:
    """Of all core counts that divide the channels, the inferred ones come nearest."""
    measured = np.array(CYCLES)[:6]
    convolutions = published.layers[1:7]

    def distances(cores: list[int]) -> np.ndarray:
        least, most = sample_bounds(published, (*cores, 8, 2))[:, :6]
        return np.abs(np.log(np.clip(measured, least, most) / measured))

    inferred = distances(list(CORES[1:7]))
    for index, layer in enumerate(convolutions):
        others = [n for n in range(1, layer.out_channels + 1) if layer.out_channels % n == 0]
        others.remove(CORES[index + 1])
        for number in others:
            cores = list(CORES[1:7])
            cores[index] = number
            assert distances(cores)[index] > inferred[index] + 0.02


def test_the_interval_and_a_warning_say_that_it_is_a_formula(predictor: LatencyPredictor) -> None:
    content = {
        "dataset": "nmnist-saccade", "network": "8C3-MP2-12C3-MP2-10",
        "surrogate": {"name": "atan", "slope": 2}, "training": {"epochs": 4},
    }  # fmt: skip
    engine = predictor.estimate(content)
    formula = predictor.estimate(content | {"hardware": {"backend": "published"}})
    assert engine.warnings == ()
    assert formula.in_domain
    assert "within 8 % of each layer of the one published sample" in formula.warnings[0]
    widths = [math.log(e.interval_cycles[1] / e.cycles) for e in (engine, formula)]
    assert widths[1] == pytest.approx(widths[0] + math.log(1.08))

    rows = pd.DataFrame({"hardware.backend": ["engine", "published"]}).assign(
        **{"dataset": "nmnist-saccade", "network": content["network"], "training.epochs": 4},
        **{"surrogate.name": "atan", "surrogate.slope": 2},
    )
    many = predictor.predict(rows)
    for (_, row), one in zip(many.iterrows(), (engine, formula), strict=True):
        assert row["cycles"] == pytest.approx(one.cycles, rel=1e-5)
        assert row["interval_cycles.high"] == pytest.approx(one.interval_cycles[1], rel=1e-5)
        assert row["warnings"] == "; ".join(one.warnings)


def test_from_counts_the_error_of_the_formula_is_all_there_is() -> None:
    config = small_config()
    trains = random_trains(config, 2)
    arrays = {f"counts_{index}": count for index, count in enumerate(counted(trains))}
    estimate = predict_latency(config, spikes=arrays)
    assert estimate.statistics_level == "channels"
    assert estimate.cycles == pytest.approx(timing_model(config).trace(trains).cycles.mean())
    low, high = estimate.interval_cycles
    assert (low, high) == pytest.approx((estimate.cycles / 1.08, estimate.cycles * 1.08))
    assert len(estimate.warnings) == 1


def test_microseconds_scale_with_the_clock(tmp_path) -> None:
    config = small_config()
    trains = random_trains(config, 2)
    path = tmp_path / "spikes.npz"
    np.savez(path, **{f"inputs_{index}": train for index, train in enumerate(trains)})
    slow, fast = (
        predict_latency(small_config(clock_mhz=clock).model_copy(update={"spikes": str(path)}))
        for clock in (50, 200)
    )
    assert slow.fidelity == "trace"
    assert slow.cycles == fast.cycles == timing_model(config).trace(trains).cycles.mean()
    assert slow.microseconds == pytest.approx(4 * fast.microseconds)
    assert slow.interval_cycles == pytest.approx((slow.cycles / 1.08, slow.cycles * 1.08))
