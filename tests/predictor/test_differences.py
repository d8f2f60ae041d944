"""Intervals of a difference hold as often as they say, on runs that were not used to make them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spikemeter.config import load_config
from spikemeter.errors import PredictorError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.differences import (
    UNSEEN_CYCLES,
    CalibratedRuns,
    DifferenceErrors,
    difference_errors,
    read_calibrated,
)
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.sparsity import accuracy_interval, logistic, logit

CONFIDENCE = 0.9


@pytest.fixture(scope="module")
def shipped() -> LatencyPredictor:
    return LatencyPredictor.default()


@pytest.fixture(scope="module")
def runs(shipped) -> CalibratedRuns:
    return read_calibrated(shipped, CONFIDENCE)


def some(runs, chosen):
    """Give some of the runs."""
    return CalibratedRuns(
        table=runs.table.iloc[chosen],
        configs=[runs.configs[number] for number in chosen],
        frame=runs.frame.iloc[chosen],
        log_cycles=runs.log_cycles[chosen],
        accuracy=runs.accuracy[chosen],
        predicted=runs.predicted.iloc[chosen],
        errors=runs.errors[chosen],
        accuracy_errors=runs.accuracy_errors[chosen],
        groups=runs.groups[chosen],
        unit=runs.unit,
        unseen=runs.unseen[chosen],
    )


def pairs_of(runs):
    names = [(config.dataset, config.network) for config in runs.configs]
    first, second = np.triu_indices(len(names), 1)
    alike = [
        names[a] == names[b] and runs.groups[a] != runs.groups[b]
        for a, b in zip(first, second, strict=True)
    ]
    return first[alike], second[alike]


def coverage(shipped, runs, fold):
    """Share of pairs of left-out runs whose differences intervals from the others hold."""
    held: list[np.ndarray] = []
    half_width, _ = shipped.parts.residuals["accuracy"].half_width(CONFIDENCE)
    for number in np.unique(fold):
        errors = difference_errors(shipped, some(runs, np.flatnonzero(fold != number)), CONFIDENCE)
        assert errors.warning is None
        left = some(runs, np.flatnonzero(fold == number))
        a, b = pairs_of(left)
        halves = left.spread * left.unit
        missed = left.errors * left.spread
        cycles = np.abs(missed[a] - missed[b]) <= errors.of_cycles(halves[a], halves[b])
        expected = logistic(logit(left.accuracy) - left.accuracy_errors)
        _, low, high = accuracy_interval(expected, half_width)
        missed, halves = left.accuracy - expected, (high - low) / 2
        accuracy = np.abs(missed[a] - missed[b]) <= errors.of_accuracy(halves[a], halves[b])
        held.append(np.stack([cycles, accuracy]))
    return np.concatenate(held, axis=1).mean(axis=1)


def test_intervals_of_a_difference_hold_on_points_left_out(shipped, runs):
    fold = np.random.default_rng(0).integers(5, size=runs.groups.max() + 1)[runs.groups]
    cycles, accuracy = coverage(shipped, runs, fold)
    assert 0.87 < cycles < 0.94  # 91 % measured
    assert 0.87 < accuracy < 0.94


def test_intervals_of_a_difference_hold_on_networks_left_out(shipped, runs):
    networks = [config.network for config in runs.configs]
    cycles, accuracy = coverage(shipped, runs, np.unique(networks, return_inverse=True)[1])
    assert 0.86 < cycles < 0.95
    assert 0.86 < accuracy < 0.95


def test_what_two_runs_of_a_network_share_cancels(shipped, runs):
    """Errors that are the same for all runs of a network must not widen a difference."""
    names = [f"{config.dataset} {config.network}" for config in runs.configs]
    shared = np.random.default_rng(0).normal(size=100)[np.unique(names, return_inverse=True)[1]]
    own = 0.1 * np.random.default_rng(1).normal(size=len(runs.errors))
    given = replace(runs, unseen=np.full(len(own), np.nan))
    alike = replace(given, errors=(shared + own) / given.spread)
    other = np.random.default_rng(2).permutation(shared)
    apart = replace(given, errors=(other + own) / given.spread)
    ours, theirs = (difference_errors(shipped, each, CONFIDENCE) for each in (alike, apart))
    assert ours.cycles < 0.35 * theirs.cycles


def test_a_higher_confidence_needs_wider_intervals(shipped):
    widths = []
    for confidence in (0.5, 0.9, 0.99):
        runs = read_calibrated(shipped, confidence)
        errors = difference_errors(shipped, runs, confidence)
        widths.append(errors.cycles * runs.unit)
    assert widths == sorted(widths)
    assert widths[2] > 2 * widths[0]


def test_repetitions_of_a_point_weigh_as_one(shipped, runs):
    once = difference_errors(shipped, runs, CONFIDENCE)
    twice = some(runs, np.concatenate([np.arange(len(runs.groups))] * 2))
    assert difference_errors(shipped, twice, CONFIDENCE).cycles == pytest.approx(once.cycles)


def test_pairs_are_of_one_data_set_and_network_and_of_different_points(runs):
    from spikemeter.predictor.differences import _pairs

    few = some(runs, np.arange(120))
    found = {tuple(sorted(pair)) for pair in zip(*(x.tolist() for x in _pairs(few)), strict=True)}
    assert found == set(zip(*(x.tolist() for x in pairs_of(few)), strict=True))


def test_other_runs_than_those_of_the_errors_make_the_errors_independent(shipped, runs):
    cycles = shipped.parts.residuals["hyperparameters"]
    short = {
        **shipped.parts.residuals,
        "hyperparameters": Residuals(error=cycles.error[:-1], group=cycles.group[:-1]),
    }
    other = LatencyPredictor(parts=replace(shipped.parts, residuals=short))
    without = read_calibrated(other, CONFIDENCE)
    assert not without.has_errors
    assert "calibrated runs: " in without.doubt
    errors = difference_errors(other, without, CONFIDENCE)
    assert "taken as independent" in errors.warning
    assert errors.of_cycles(np.array([0.3]), np.array([0.4])) == pytest.approx(0.5)
    shown = without.beside_measured(runs.configs[0])
    np.testing.assert_allclose(shown["predicted"], without.predicted["cycles"])


def test_networks_with_one_run_each_make_the_errors_independent(shipped, runs):
    names = [(config.dataset, config.network) for config in runs.configs]
    alone = some(runs, [names.index(name) for name in dict.fromkeys(names)])
    assert difference_errors(shipped, alone, CONFIDENCE).warning is not None


def test_a_difference_is_never_wider_than_what_can_be():
    errors = DifferenceErrors(cycles=1e9, accuracy=1e9)
    assert errors.of_cycles(np.ones(1), np.ones(1)) == 50
    assert errors.of_accuracy(np.ones(1), np.ones(1)) == 1


def test_calibrated_runs_stand_beside_predictions_that_had_not_seen_them(shipped, runs):
    config = load_config({"dataset": "digits-saccade", "network": "8C3-MP2-10"})
    shown = runs.beside_measured(config)
    table = shipped.table()
    np.testing.assert_allclose(shown["measured"], table["cycles.mean"], rtol=1e-12)
    np.testing.assert_array_equal(shown["accuracy"], table["accuracy.integer.test"])
    same = (table["dataset"] == config.dataset) & (table["network"] == config.network)
    assert shown["same"].tolist() == same.tolist()
    assert 10 < same.sum() < 50
    # An interval held its run exactly if the error was within its half width.
    held = shown["measured"].between(shown["low"], shown["high"])
    residuals = shipped.parts.residuals["hyperparameters"]
    expected = np.abs(residuals.error) <= residuals.half_width(CONFIDENCE)[0]
    assert held.tolist() == expected.tolist()
    said = shipped.parts.scores["scores"]["hyperparameters"]["mape"]
    assert np.abs(shown["predicted"] / shown["measured"] - 1).mean() == pytest.approx(said)
    assert runs.doubt is None


def test_of_a_predictor_that_kept_no_unseen_cycles_they_are_about_right_and_it_says_so(runs):
    without = replace(runs, unseen=np.full(len(runs.log_cycles), np.nan))
    assert "approximate" in without.doubt
    exact, about = (each.beside_measured(runs.configs[0]) for each in (runs, without))
    ratio = np.abs(np.log(about["predicted"] / exact["predicted"]))
    assert 0 < np.median(ratio) < 0.01
    held = [each["measured"].between(each["low"], each["high"]) for each in (exact, about)]
    assert held[0].tolist() == held[1].tolist()


@pytest.mark.parametrize("cycles", [0.0, -1.0, np.inf, np.nan])
def test_unseen_cycles_that_are_none_are_refused(shipped, monkeypatch, cycles):
    table = shipped.table()
    table.loc[3, UNSEEN_CYCLES] = cycles
    monkeypatch.setattr(LatencyPredictor, "table", lambda _: table)
    with pytest.raises(PredictorError, match=r"cycles\.unseen: must be positive and finite"):
        read_calibrated(shipped, CONFIDENCE)


def test_a_table_without_measurements_is_refused(shipped):
    import io

    import pandas as pd

    content = io.BytesIO()
    pd.DataFrame({"status": ["ok"], "network": ["10"]}).to_parquet(content)
    hollow = LatencyPredictor(parts=replace(shipped.parts, table=content.getvalue()))
    with pytest.raises(PredictorError, match="must have a column 'dataset'"):
        read_calibrated(hollow, CONFIDENCE)
