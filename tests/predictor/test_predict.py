from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from random_networks import random_network
from synthetic_runs import synthetic_table

from spikemeter.calibration.fit import fit_predictor
from spikemeter.calibration.tuning import DEFAULT_SETTINGS
from spikemeter.config import load_config
from spikemeter.errors import ConfigError, InputError, PredictorError, RunFolderError
from spikemeter.models.integer import network_spikes
from spikemeter.predictor import LatencyPredictor, predict_latency
from spikemeter.predictor.ensemble import TreeSettings
from spikemeter.predictor.events import KnownInput, TapRatios, expected_taps
from spikemeter.predictor.features import config_from_row, layer_features
from spikemeter.predictor.intervals import OUTSIDE_FACTOR, WIDEST, Residuals
from spikemeter.predictor.machine import Timing
from spikemeter.predictor.predict import expected_spikes, mean_cycles
from spikemeter.predictor.sparsity import Predicted
from spikemeter.predictor.timing import BUCKETS, even_taps, spike_taps, timing_model

QUICK = {name: TreeSettings(rounds=40, eta=0.2) for name in DEFAULT_SETTINGS}

CONTENT = {
    "dataset": "nmnist-saccade",
    "network": "8C3-MP2-12C3-MP2-10",
    "surrogate": {"name": "atan", "slope": 2},
    "training": {"epochs": 4},
}


@pytest.fixture
def run_folder(tmp_path):
    """A run folder with the two files that a prediction reads."""
    config = load_config(CONTENT)
    rng = np.random.default_rng(0)
    shapes = [(2, 16, 16), (8, 8, 8), (12 * 4 * 4,)]
    arrays = {f"inputs_{i}": rng.random((6, 8, *shape)) < 0.15 for i, shape in enumerate(shapes)}
    arrays["outputs"] = rng.random((6, 8, 10)) < 0.1
    arrays["labels"] = np.arange(6)
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text(config.to_yaml())
    np.savez(path / "trace.npz", **arrays)
    return path


def trains(run_folder):
    with np.load(run_folder / "trace.npz") as arrays:
        return [arrays[f"inputs_{i}"] for i in range(3)]


def test_a_configuration_is_predicted_from_its_hyperparameters(predictor):
    estimate = predictor.estimate(CONTENT)
    assert estimate.fidelity == "hyperparameters"
    assert estimate.in_domain
    assert estimate.warnings == ()
    assert estimate.microseconds == pytest.approx(estimate.cycles / 100)
    low, high = estimate.interval_cycles
    assert low < estimate.cycles < high
    assert sum(layer.cycles for layer in estimate.layers) == pytest.approx(estimate.cycles)
    for layer in estimate.layers:
        assert tuple(layer.buckets) == BUCKETS
        assert sum(layer.buckets.values()) == pytest.approx(layer.cycles)
        assert 0 < layer.firing_rate < 1
    assert estimate.worst_case_cycles is None
    assert estimate.sample_cycles == ()
    assert estimate.quantised


def test_every_form_of_a_configuration_gives_the_same(predictor, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    expected = predictor.estimate(CONTENT)
    for source in (load_config(CONTENT), path, str(path)):
        assert predictor.estimate(source) == expected
        assert predict_latency(source, predictor=predictor) == expected


def test_knobs_move_the_prediction_as_the_runs_did(predictor):
    def cycles(threshold):
        return predictor.estimate({**CONTENT, "neuron": {"threshold": threshold}}).cycles

    assert cycles(0.5) > 1.2 * cycles(1.5)


def test_more_cores_and_a_faster_clock_need_no_calibration(predictor):
    slow = predictor.estimate({**CONTENT, "hardware": {"neural_cores": [1, 1, 1]}})
    fast = predictor.estimate(
        {**CONTENT, "hardware": {"neural_cores": [8, 12, 10], "clock_mhz": 200}}
    )
    assert slow.in_domain
    assert fast.in_domain
    assert slow.cycles > 4 * fast.cycles
    assert fast.microseconds == pytest.approx(fast.cycles / 200)


def test_the_interval_grows_with_the_confidence(predictor):
    widths = []
    for confidence in (0.5, 0.8, 0.95, 0.999):
        estimate = predictor.estimate(CONTENT, confidence=confidence)
        assert estimate.confidence == confidence
        low, high = estimate.interval_cycles
        widths.append(math.log(high / low))
    assert widths == sorted(set(widths))
    assert "confidence: 0.999 needs 999 calibrated points" in estimate.warnings[0]


def test_outside_the_domain_the_interval_widens_and_the_reason_is_given(predictor):
    inside = predictor.estimate(CONTENT)
    outside = predictor.estimate({**CONTENT, "training": {"epochs": 400}})
    assert not outside.in_domain
    assert outside.warnings == ("training.epochs: 400 is outside the calibrated 4 to 4",)
    widths = [math.log(e.interval_cycles[1] / e.interval_cycles[0]) for e in (inside, outside)]
    assert widths[1] == pytest.approx(OUTSIDE_FACTOR * widths[0])


def test_a_private_data_set_is_predicted_from_its_statistics_outside_the_domain(predictor):
    size = {"time_steps": 8, "statistics": [[5.0, 5.0]] * 8}
    estimate = predictor.estimate({"network": "8C3-MP2-12", "input": size})
    assert not estimate.in_domain
    assert any(text.startswith("dataset: a private data set") for text in estimate.warnings)
    assert estimate.layers[0].input_rate == pytest.approx(5 / 256)


def test_an_unmeasured_frame_size_is_estimated_with_a_warning(predictor):
    estimate = predictor.estimate({**CONTENT, "input": {"height": 17, "width": 17}})
    assert any("17x17 frames of 8 steps" in text for text in estimate.warnings)
    assert estimate.cycles > 0


def half_width(estimate):
    return math.log(estimate.interval_cycles[1] / estimate.cycles)


UNMEASURED = {**CONTENT, "input": {"time_steps": 7}}


def estimating(predictor, shift, frames=20):
    """The same predictor, on whose runs estimating inputs moved log cycles by so much."""
    errors = shift and Residuals(
        error=np.full(frames, shift), group=np.arange(frames), of="measured frames"
    )
    return LatencyPredictor(parts=replace(predictor.parts, estimated=errors))


def test_an_estimated_input_widens_the_interval_by_what_estimating_was_found_to_cost(predictor):
    rates = [[0.1, 0.1, 0.1]]
    for ask in (
        lambda shift: estimating(predictor, shift).estimate(UNMEASURED),
        lambda shift: estimating(predictor, shift).forecast(UNMEASURED, rates),
    ):
        narrow, wide = ask(0.1), ask(0.4)
        assert narrow.in_domain
        assert half_width(wide) - half_width(narrow) == pytest.approx(0.3)
    measured = [estimating(predictor, shift).estimate(CONTENT) for shift in (0.1, 0.4)]
    assert half_width(measured[0]) == half_width(measured[1])


def test_where_nobody_tried_to_estimate_an_estimated_input_is_outside(predictor):
    inside = estimating(predictor, 1e-9).estimate(UNMEASURED)
    outside = estimating(predictor, None).estimate(UNMEASURED)
    assert not outside.in_domain
    assert any("nobody could try what estimating costs" in text for text in outside.warnings)
    assert half_width(outside) == pytest.approx(OUTSIDE_FACTOR * half_width(inside))
    assert outside.interval_accuracy[0] < inside.interval_accuracy[0]


def test_too_few_frames_to_say_what_estimating_costs_are_said(predictor):
    few = estimating(predictor, 0.2, frames=5).estimate(UNMEASURED)
    said = "confidence: 0.9 needs 9 measured frames, there are 5;"
    assert any(text.startswith(said) for text in few.warnings)


def test_events_of_ones_own_have_the_usual_taps(predictor):
    events = predictor.parts.statistics["nmnist-saccade"][1].events
    own = {**CONTENT, "dataset": None, "input": {"statistics": events.tolist()}}

    def accumulate(ratio):
        ratios = replace(predictor.parts.tap_ratios, input=ratio)
        parts = replace(predictor.parts, tap_ratios=ratios)
        return LatencyPredictor(parts=parts).estimate(own).layers[0].buckets["accumulate"]

    assert accumulate(1.05) == pytest.approx(1.05 * accumulate(1.0), rel=0.01)


def with_residuals(predictor, **errors):
    """The same predictor with other errors on unseen runs, as many as it had."""
    residuals = dict(predictor.parts.residuals)
    for name, error in errors.items():
        given = np.full(len(residuals[name].error), error)
        residuals[name] = Residuals(error=given, group=residuals[name].group)
    return LatencyPredictor(parts=replace(predictor.parts, residuals=residuals))


def test_the_interval_is_the_error_in_units_of_the_predicted_spread(predictor):
    parts = predictor.parts
    config = load_config(CONTENT)
    events = parts.statistics["nmnist-saccade"][1].events
    features = layer_features(config, events, parts.domain.categories)
    spread = parts.model.predict(features).spread[-1]
    estimate = with_residuals(predictor, hyperparameters=-3.0).estimate(CONTENT)
    low, high = estimate.interval_cycles
    assert math.log(high / estimate.cycles) == pytest.approx(3 * spread)
    assert math.log(estimate.cycles / low) == pytest.approx(3 * spread)


def test_an_interval_stays_finite_whatever_the_errors_were(predictor):
    hopeless = with_residuals(predictor, hyperparameters=1e6, accuracy=1e6)
    one = hopeless.estimate({**CONTENT, "training": {"epochs": 400}}, confidence=0.9999)
    (many,) = hopeless.predict(
        pd.DataFrame([{"dataset": "nmnist-saccade", "network": CONTENT["network"]}])
    ).to_dict("records")
    assert one.interval_cycles[1] == pytest.approx(one.cycles * math.exp(WIDEST))
    assert many["interval_cycles.high"] == pytest.approx(many["cycles"] * math.exp(WIDEST))
    assert one.interval_accuracy == pytest.approx((0, 1), abs=1e-9)


def test_accuracy_is_predicted_with_an_interval(predictor, table):
    for row in table[::7].to_dict("records"):
        estimate = predictor.estimate(config_from_row(row))
        assert estimate.accuracy == pytest.approx(row["accuracy.integer.test"], abs=0.03)
        low, high = estimate.interval_accuracy
        assert 0 < low < estimate.accuracy < high < 1
        wide = predictor.estimate(config_from_row(row), confidence=0.95).interval_accuracy
        assert wide[0] < low < high < wide[1]


def test_accuracy_is_less_certain_outside_the_domain(predictor):
    def odds(estimate):
        return [math.log(share / (1 - share)) for share in estimate.interval_accuracy]

    inside = predictor.estimate(CONTENT)
    outside = predictor.estimate({**CONTENT, "training": {"epochs": 400}})
    widths = [np.diff(odds(estimate))[0] for estimate in (inside, outside)]
    assert widths[1] == pytest.approx(OUTSIDE_FACTOR * widths[0])


def predicted(**values):
    """What a model may say of three layers."""
    usual = {
        "firing_rate": np.full(3, 0.1),
        "output_rate": np.array([0.2, 0.05, 0.3]),
        "tap_ratio": np.array([9.0, 1.1, 9.0]),
        "course": np.zeros((3, 2)),
        "accuracy": np.full(3, 0.5),
        "spread": np.ones(3),
    }
    return Predicted(**{**usual, **values})


def test_spikes_are_expected_where_rates_taps_and_courses_say(predictor):
    config, profile = load_config(CONTENT), predictor.parts.profile
    entering = KnownInput(events=np.full((8, 2), 12.0), tap_ratio=1.05)
    course = np.array([[0.5, 0.1], [-0.4, 0.0], [99.0, 99.0]])
    spikes = expected_spikes(config, entering, predicted(course=course), profile)
    over_steps = profile.over_steps(course, 8)
    first, second, third = spikes.counts
    assert first is entering.events
    np.testing.assert_allclose(second, (0.2 * 64 * over_steps[0])[:, None] * np.ones(8))
    np.testing.assert_allclose(third, (0.05 * 16 * over_steps[1])[:, None] * np.ones(12))
    assert np.ptp(over_steps[0]) > 0.1
    ratios = [1.05, 1.1, 1.0]  # of the data set, as learned, and without a kernel always one
    for layer, counts, taps, ratio in zip(
        config.layers, spikes.counts, spikes.taps, ratios, strict=True
    ):
        np.testing.assert_allclose(taps, counts * even_taps(layer) * ratio)


def test_no_step_expects_more_spikes_than_lines(predictor):
    spikes = expected_spikes(
        load_config(CONTENT),
        KnownInput(events=np.ones((8, 2))),
        predicted(output_rate=np.ones(3), course=np.full((3, 2), 5.0)),
        predictor.parts.profile,
    )
    assert [counts.max() for counts in spikes.counts[1:]] == [64, 16]


def test_cycles_of_many_networks_are_those_of_each(predictor):
    contents = [
        CONTENT,
        {**CONTENT, "hardware": {"neural_cores": [1, 1, 1]}},
        {**CONTENT, "input": {"time_steps": 6}},
        CONTENT,
    ]
    configs = [load_config(content) for content in contents]
    spikes = [
        expected_spikes(
            config,
            KnownInput(events=np.full((config.input.time_steps, 2), 10.0 + number)),
            predicted(),
            predictor.parts.profile,
        )
        for number, config in enumerate(configs)
    ]
    cycles, interval = mean_cycles(configs, spikes)
    for number, (config, each) in enumerate(zip(configs, spikes, strict=True)):
        counts, taps = ([layer[None] for layer in layers] for layers in (each.counts, each.taps))
        alone = timing_model(config).statistics(counts, taps)
        assert cycles[number] == pytest.approx(alone.cycles[0])
        assert interval[number] == pytest.approx(alone.initiation_interval_cycles[0])
    assert len(set(cycles.tolist())) == 4


def test_a_run_folder_is_predicted_exactly_without_any_predictor(run_folder):
    estimate = predict_latency(run_folder)
    exact = timing_model(load_config(CONTENT)).trace(trains(run_folder))
    assert estimate.fidelity == "trace"
    assert list(estimate.sample_cycles) == exact.cycles.tolist()
    assert estimate.cycles == exact.cycles.mean()
    assert estimate.interval_cycles == (estimate.cycles, estimate.cycles)
    assert estimate.worst_case_cycles == exact.cycles.max()
    assert estimate.in_domain
    assert estimate.warnings == ()
    for index, layer in enumerate(estimate.layers):
        assert layer.cycles == exact.layer_cycles[:, index].mean()
        for name in BUCKETS:
            assert layer.buckets[name] == exact.buckets[name][:, index].mean()
        assert layer.input_rate == pytest.approx(trains(run_folder)[index].mean())
    assert estimate.layers[0].firing_rate is None
    assert estimate.layers[2].firing_rate == pytest.approx(0.1, abs=0.03)


def test_the_first_samples_of_a_trace_can_be_asked_for(run_folder):
    every = predict_latency(run_folder).sample_cycles
    assert predict_latency(run_folder, samples=2).sample_cycles == every[:2]
    with pytest.raises(PredictorError, match="samples: must be at most the 6 samples"):
        predict_latency(run_folder, samples=7)
    assert predict_latency(run_folder, samples=np.int64(2)).sample_cycles == every[:2]
    for samples in (0, -1, True, "1", 1.5, 2.0, math.nan, [1]):
        with pytest.raises(PredictorError, match="samples: must be at least 1 and a whole number"):
            predict_latency(run_folder, samples=samples)


def test_a_lower_fidelity_can_be_forced_and_a_higher_one_cannot(run_folder, predictor):
    config = load_config(CONTENT)
    statistics = predictor.estimate(run_folder, fidelity="statistics")
    counts = [
        x.reshape(6, 8, layer.in_channels, -1).sum(axis=3).astype(float)
        for x, layer in zip(trains(run_folder), config.layers, strict=True)
    ]
    taps = [
        spike_taps(layer, x) for layer, x in zip(config.layers, trains(run_folder), strict=True)
    ]
    expected = timing_model(config).statistics(counts, taps).cycles.mean()
    assert statistics.cycles == pytest.approx(expected)
    assert statistics.fidelity == "statistics"
    low, high = statistics.interval_cycles
    exact = predictor.estimate(run_folder).cycles
    assert low < statistics.cycles < high
    assert statistics.cycles == pytest.approx(exact, rel=0.05)
    lowest = predictor.estimate(run_folder, fidelity="hyperparameters", samples=3)
    assert lowest == predictor.estimate(config)
    with pytest.raises(PredictorError, match="allows hyperparameters at most, got 'trace'"):
        predictor.estimate(config, fidelity="trace")
    for fidelity in ("guess", ["trace"], np.array(["trace", "trace"])):
        with pytest.raises(PredictorError, match="fidelity: must be one of"):
            predictor.estimate(config, fidelity=fidelity)


def test_counts_in_memory_are_predicted_at_every_level(run_folder, predictor):
    config = load_config(CONTENT)
    arrays = {}
    for index, (layer, x) in enumerate(zip(config.layers, trains(run_folder), strict=True)):
        counts = x.reshape(6, 8, layer.in_channels, -1).sum(axis=3)
        arrays |= {f"counts_{index}": counts, f"taps_{index}": spike_taps(layer, x)}
    with_taps = predictor.estimate(config, spikes=arrays)
    assert with_taps.cycles == predictor.estimate(run_folder, fidelity="statistics").cycles
    assert with_taps.statistics_level == "taps"

    counts = {name: array for name, array in arrays.items() if name.startswith("counts")}
    by_channel = predictor.estimate(config, spikes=counts)
    assert by_channel.statistics_level == "channels"
    summed = {name: array.sum(axis=2, keepdims=True) for name, array in counts.items()}
    by_layer = predictor.estimate(config, spikes=summed)
    assert by_layer.statistics_level == "layers"
    assert by_layer.cycles == pytest.approx(by_channel.cycles)
    exact = predictor.estimate(run_folder).cycles
    assert abs(with_taps.cycles - exact) < abs(by_channel.cycles - exact)

    in_memory = {f"inputs_{index}": x for index, x in enumerate(trains(run_folder))}
    assert predict_latency(config, spikes=in_memory).cycles == exact
    with pytest.raises(ConfigError, match="counts_1: must not be negative, got -"):
        predictor.estimate(config, spikes=counts | {"counts_1": counts["counts_1"] - 1000})
    with pytest.raises(ConfigError, match="rates_1: arrays are inputs_i, counts_i, taps_i"):
        predictor.estimate(config, spikes=counts | {"rates_1": counts["counts_1"]})
    with pytest.raises(ConfigError, match="0: must be the name of an array"):
        predictor.estimate(config, spikes={0: counts["counts_0"]})


def test_expected_taps_are_some_that_spikes_can_have(predictor):
    """On a tiny map every spike has the same taps, wherever the calibrated spikes were."""
    size = {"height": 2, "width": 2, "time_steps": 2, "statistics": [[1.0, 1.0]] * 2}
    config = load_config({"network": "4C3-8C5-10", "input": size})
    for ratio in (0.5, 2.0):
        counts = [np.ones((1, 2, layer.in_channels)) for layer in config.layers]
        taps = expected_taps(config, counts, TapRatios(input=ratio, hidden=ratio).of(3))
        assert [float(tap[0, 0, 0]) for tap in taps] == [4.0, 4.0, 1.0]
        assert timing_model(config).statistics(counts, taps).cycles > 0
    assert predictor.estimate(config).cycles > 0


class Recorder:
    """Stands for a machine that is known by measurements alone."""

    def __init__(self, config):
        self.layers, self.told = config.layers, []

    def statistics(self, counts, taps=None):
        self.told.append(taps)
        cycles = np.full(len(counts[0]), 1000.0)
        parts = np.full((len(cycles), len(self.layers)), 1000.0 / len(self.layers))
        return Timing(
            cycles=cycles,
            layer_cycles=parts,
            buckets={name: parts / len(BUCKETS) for name in BUCKETS},
            initiation_interval_cycles=cycles,
        )

    def doubt(self, confidence, outside=()):
        return 0.25, ("measured",)


def test_another_machine_is_told_what_is_known_and_speaks_for_itself(
    run_folder, predictor, monkeypatch
):
    config = load_config(CONTENT)
    machine = Recorder(config)
    monkeypatch.setattr("spikemeter.predictor.predict.timing_model", lambda config: machine)
    arrays = counted(config, trains(run_folder))
    with_taps = predictor.estimate(config, spikes=arrays)
    counts = {name: array for name, array in arrays.items() if name.startswith("counts")}
    without = predictor.estimate(config, spikes=counts)
    for index, known in enumerate(machine.told[0]):
        np.testing.assert_array_equal(known, arrays[f"taps_{index}"])
    assert machine.told[1] is None
    for estimate in (with_taps, without):
        expected = (1000 / math.exp(0.25), 1000 * math.exp(0.25))
        assert estimate.interval_cycles == pytest.approx(expected)
        assert estimate.warnings == ("measured",)


def counted(config, spikes):
    """Counts and taps of spike trains, named as in a file."""
    arrays = {}
    for index, (layer, x) in enumerate(zip(config.layers, spikes, strict=True)):
        counts = x.reshape(*x.shape[:2], layer.in_channels, -1).sum(axis=3)
        arrays |= {f"counts_{index}": counts, f"taps_{index}": spike_taps(layer, x)}
    return arrays


def test_without_taps_the_interval_is_wider_and_says_why(run_folder, predictor):
    config = load_config(CONTENT)
    arrays = counted(config, trains(run_folder))
    counts = {name: array for name, array in arrays.items() if name.startswith("counts")}
    summed = {name: array.sum(axis=2, keepdims=True) for name, array in counts.items()}
    found = {
        estimate.statistics_level: estimate
        for estimate in (predictor.estimate(config, spikes=x) for x in (arrays, counts, summed))
    }
    width = {
        level: math.log(estimate.interval_cycles[1] / estimate.cycles)
        for level, estimate in found.items()
    }
    assert 0 < 5 * width["taps"] < width["channels"] <= 1.05 * width["layers"]
    assert found["taps"].warnings == ()
    for level in ("channels", "layers"):
        assert found[level].warnings[0].startswith("spikes: taps_i are not known")
    few = predictor.estimate(config, spikes=counts, confidence=0.999)
    assert any("0.999 needs 999 calibrated points" in text for text in few.warnings)


@pytest.mark.parametrize("dense", [False, True], ids=["convolutions", "dense alone"])
def test_intervals_from_counts_hold_at_every_level(dense):
    held = {"taps": [], "channels": [], "layers": []}
    networks = ("20-10", "72-24-10") if dense else ("7C3-MP2-10", "9C3-MP2-14C3-MP2-10")
    for seed in range(12):
        rng = np.random.default_rng(seed)
        content = {"network": networks[seed % 2], "dataset": "nmnist-saccade"}
        content["hardware"] = {"encoder_width": (16, 32, 64)[seed % 3]}
        config = load_config(content)
        density = np.geomspace(0.001, 0.4, 12).reshape(-1, 1, 1, 1, 1)
        frames = rng.random((12, 8, 2, 16, 16)) < density
        spikes = network_spikes(random_network(config, rng), frames).inputs
        exact = timing_model(config).trace(spikes).cycles
        for sample, cycles in enumerate(exact):
            arrays = counted(config, [x[sample : sample + 1] for x in spikes])
            counts = {name: array for name, array in arrays.items() if name.startswith("counts")}
            summed = {name: array.sum(axis=2, keepdims=True) for name, array in counts.items()}
            for level, known in zip(held, (arrays, counts, summed), strict=True):
                low, high = predict_latency(config, spikes=known).interval_cycles
                held[level].append(low <= cycles <= high)
    for level, inside in held.items():
        assert np.mean(inside) >= 0.82, level


def test_spikes_are_looked_for_beside_the_configuration(run_folder, predictor, monkeypatch):
    beside = run_folder / "mine.yaml"
    beside.write_text(yaml.safe_dump({**CONTENT, "spikes": "trace.npz"}))
    expected = predict_latency(run_folder)
    assert predict_latency(beside) == expected
    monkeypatch.chdir(run_folder)
    assert predict_latency({**CONTENT, "spikes": "trace.npz"}) == expected
    absolute = str(run_folder / "trace.npz")
    assert predict_latency({**CONTENT, "spikes": absolute}) == expected


def test_counts_are_predicted_at_the_fidelity_of_statistics(tmp_path, predictor):
    config = load_config(CONTENT)
    counts = [np.full((8, layer.in_channels), 3.0) for layer in config.layers]
    np.savez(tmp_path / "c.npz", **{f"counts_{i}": x for i, x in enumerate(counts)})
    source = {**CONTENT, "spikes": str(tmp_path / "c.npz")}
    estimate = predictor.estimate(source)
    assert estimate.fidelity == "statistics"
    assert estimate.cycles == timing_model(config).statistics([x[None] for x in counts]).cycles[0]
    wide = predictor.estimate(CONTENT)
    widths = [e.interval_cycles[1] / e.interval_cycles[0] for e in (estimate, wide)]
    assert 1 < widths[0] < widths[1]
    with pytest.raises(PredictorError, match="allows statistics at most"):
        predictor.estimate(source, fidelity="trace")


def test_spikes_that_do_not_fit_are_refused(tmp_path, run_folder):
    other = {**CONTENT, "network": "4C3-MP2-10", "spikes": str(run_folder / "trace.npz")}
    with pytest.raises(ConfigError, match=r"inputs_2: must not be there"):
        predict_latency(other)
    with pytest.raises(ConfigError, match="cannot read the spikes"):
        predict_latency({**CONTENT, "spikes": str(tmp_path / "none.npz")})


def test_an_incomplete_run_folder_is_refused(run_folder, predictor):
    (run_folder / "trace.npz").unlink()
    with pytest.raises(RunFolderError, match=r"holds no trace\.npz"):
        predictor.estimate(run_folder)
    assert predictor.estimate(run_folder, fidelity="hyperparameters").cycles > 0
    (run_folder / "trace.npz").write_bytes(b"")
    with pytest.raises(RunFolderError, match="cannot read the spikes"):
        predictor.estimate(run_folder)


def test_an_estimate_becomes_json_with_the_keys_of_a_simulation(run_folder):
    estimate = predict_latency(run_folder)
    report = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert report["samples"]["cycles"] == list(estimate.sample_cycles)
    assert report["interval_cycles"] == [estimate.cycles, estimate.cycles]
    assert [layer["name"] for layer in report["layers"]] == ["0:8C3", "1:12C3", "2:10"]
    assert set(report["layers"][0]["buckets"]) == set(BUCKETS)
    assert set(report) == {
        "cycles",
        "microseconds",
        "interval_cycles",
        "confidence",
        "fidelity",
        "statistics_level",
        "in_domain",
        "warnings",
        "samples",
        "layers",
        "initiation_interval_cycles",
        "worst_case_cycles",
        "accuracy",
        "interval_accuracy",
        "quantised",
    }
    assert (report["accuracy"], report["interval_accuracy"]) == (None, None)


def test_many_rows_are_predicted_as_one_by_one(predictor):
    rows = pd.DataFrame(
        [
            {"network": network, "neuron.threshold": threshold, "hardware.clock_mhz": clock}
            for network in ("8C3-MP2-10", CONTENT["network"])
            for threshold in (0.5, 1.0, 9.0)
            for clock in (100, 250.0)
        ]
    ).assign(dataset="nmnist-saccade", **{"training.epochs": 4})
    rows.index = rows.index + 100
    many = predictor.predict(rows, confidence=0.8)
    assert (many.index == rows.index).all()
    for index, row in rows.iterrows():
        one = predictor.estimate(
            {
                "dataset": "nmnist-saccade",
                "network": row["network"],
                "neuron": {"threshold": row["neuron.threshold"]},
                "hardware": {"clock_mhz": row["hardware.clock_mhz"]},
                "training": {"epochs": 4},
            },
            confidence=0.8,
        )
        got = many.loc[index]
        assert got["cycles"] == pytest.approx(one.cycles, rel=1e-5)
        assert got["microseconds"] == pytest.approx(one.microseconds, rel=1e-5)
        bounds = (got["interval_cycles.low"], got["interval_cycles.high"])
        assert bounds == pytest.approx(one.interval_cycles, rel=1e-5)
        interval = got["initiation_interval_cycles"]
        assert interval == pytest.approx(one.initiation_interval_cycles, rel=1e-5)
        assert got["in_domain"] == one.in_domain
        assert got["warnings"] == "; ".join(one.warnings)
    assert not many["in_domain"].all()
    assert many["in_domain"].any()


def test_a_calibration_table_is_predicted_as_it_is(predictor, table):
    predicted = predictor.predict(table)
    error = np.log(predicted["cycles"].to_numpy() / table["cycles.mean"].to_numpy())
    assert np.sqrt(np.mean(error**2)) < 0.15
    assert predicted["in_domain"].all()
    stored = predictor.table()
    assert stored["cycles.mean"].tolist() == table["cycles.mean"].tolist()
    assert predictor.predict(stored)["cycles"].tolist() == predicted["cycles"].tolist()


def test_no_rows_give_no_rows(predictor):
    empty = predictor.predict(pd.DataFrame({"network": []}))
    assert len(empty) == 0
    assert "interval_cycles.low" in empty.columns


def test_a_misspelt_column_is_refused(predictor):
    rows = pd.DataFrame({"dataset": ["nmnist-saccade"], "network": ["10"], "neuron.betta": [1]})
    with pytest.raises(InputError, match=r"unknown key 'neuron\.betta'"):
        predictor.predict(rows)


def test_fresh_points_fall_into_the_interval_about_as_often_as_it_says(predictor):
    fresh = synthetic_table(60, seeds=1, seed=123)
    predicted = predictor.predict(fresh, confidence=0.8)
    measured = fresh["cycles.mean"]
    low, high = predicted["interval_cycles.low"], predicted["interval_cycles.high"]
    assert 0.65 <= ((low <= measured) & (measured <= high)).mean() <= 0.97


def test_silent_networks_can_be_learned(tmp_path):
    table = synthetic_table(12, seeds=1)
    silent = table["neuron.threshold"] == table["neuron.threshold"].max()
    for column in ("layers.firing_rate", "layers.output_rate"):
        zeros = [[0.0] * len(rates) for rates in table[column]]
        table[column] = [
            z if s else r for z, s, r in zip(zeros, silent, table[column], strict=True)
        ]
    for column in ("layers.input_rate", "layers.taps", "layers.step_counts"):
        table[column] = [
            [row[0], *[np.zeros_like(layer).tolist() for layer in row[1:]]] if s else row
            for s, row in zip(silent, table[column], strict=True)
        ]
    table.loc[silent, "status"] = "silent"
    assert fit_predictor(table, tmp_path / "p", settings=QUICK)["runs"] == 12
    predictor = LatencyPredictor.load(tmp_path / "p")
    rows = table.to_dict("records")
    rates = [
        np.mean([layer.input_rate for layer in predictor.estimate(config_from_row(row)).layers[1:]])
        for row in rows
    ]
    assert np.mean(np.array(rates)[silent]) < 0.4 * np.mean(np.array(rates)[~silent])


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["pandas", "xgboost", "pyarrow", "shap", "matplotlib", "torch", "sklearn"]
    code = (
        "import sys, spikemeter.predictor.predict, spikemeter.predictor.explanation;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
