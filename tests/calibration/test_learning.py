from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import (
    synthetic_courses,
    synthetic_events,
    synthetic_row,
    synthetic_table,
    synthetic_train_events,
)

from spikemeter.calibration import learning, tuning
from spikemeter.calibration.learning import (
    USUAL_RATES,
    estimated_inputs,
    folds,
    frames_of,
    grow_head,
    known_statistics,
    lessons,
    log_cycles_at_rate,
    measured_log_cycles,
    predicted_log_cycles,
    teach,
    usual_rate,
)
from spikemeter.calibration.observed import observed_runs
from spikemeter.calibration.tuning import DEFAULT_SETTINGS, tuned
from spikemeter.config import load_config
from spikemeter.predictor.ensemble import TreeSettings
from spikemeter.predictor.events import TapRatios, expected_counts
from spikemeter.predictor.features import categories_of
from spikemeter.predictor.sparsity import HEADS, logit
from spikemeter.predictor.timing import even_taps, timing_model

QUICK = {name: TreeSettings(rounds=30, eta=0.2) for name in DEFAULT_SETTINGS}


@pytest.fixture(scope="module")
def observed():
    return observed_runs(synthetic_table(12, seeds=2))


@pytest.fixture(scope="module")
def given(observed):
    return lessons(observed, known_statistics(observed), categories_of(observed.configs))


@pytest.fixture(scope="module")
def model(given, observed):
    return teach(given, range(len(observed)), QUICK)


def row(network="4C3-MP2-10", **content):
    """A made-up run of a configuration that is told."""
    config = load_config({"dataset": "nmnist-saccade", "network": network, **content})
    return synthetic_row(config, np.random.default_rng(0), 0.1)


def observed_rows(*rows):
    """Parse rows; enough others are put in front of them."""
    others = synthetic_table(8, seeds=1)
    observed = observed_runs(pd.concat([others, pd.DataFrame(rows)], ignore_index=True))
    return observed.chosen(range(8, 8 + len(rows)))


# What is known of data sets


def test_statistics_are_those_of_the_training_split(observed):
    known = known_statistics(observed)
    assert list(known) == ["nmnist-saccade"]
    six, eight = known["nmnist-saccade"]
    assert (six.size, eight.size) == ((16, 16, 6), (16, 16, 8))
    np.testing.assert_allclose(eight.events, synthetic_train_events(8))
    assert np.abs(eight.events - synthetic_events(8)).max() > 0.1
    assert (six.coding, six.tap_ratio) == ({}, pytest.approx(1.0))


def test_every_data_set_camera_coding_and_size_has_its_own():
    keen = {"camera_threshold": 0.2}
    rows = [
        row(),
        row(dataset="digits-saccade"),
        row(input=keen),
        row(input={"height": 20}),
        row(input={"time_steps": 6}),
        row(input={**keen, "time_steps": 6}),
    ]
    known = known_statistics(observed_rows(*rows))
    assert sorted(known) == ["digits-saccade", "nmnist-saccade"]
    (digits,) = known["digits-saccade"]
    assert digits.size == (16, 16, 8)
    found = {(entry.size, *entry.coding.items()) for entry in known["nmnist-saccade"]}
    assert found == {
        ((16, 16, 8),),
        ((16, 16, 6),),
        ((20, 16, 8),),
        ((16, 16, 8), ("camera_threshold", 0.2)),
        ((16, 16, 6), ("camera_threshold", 0.2)),
    }


def test_statistics_are_means_over_runs():
    more, less = row(), row()
    more["input.train_events"] = (1.5 * synthetic_events(8)).ravel().tolist()
    less["input.train_events"] = (0.5 * synthetic_events(8)).ravel().tolist()
    for each, ratio in ((more, 1.2), (less, 1.0)):
        config = load_config({"dataset": "nmnist-saccade", "network": "4C3-MP2-10"})
        each["layers.taps"] = [ratio * even_taps(config.layers[0]), 7.0]
    dense = row("10")  # without a kernel, taps say nothing
    dense["input.train_events"] = more["input.train_events"]
    ((entry,),) = known_statistics(observed_rows(more, less)).values()
    np.testing.assert_allclose(entry.events, synthetic_events(8))
    assert entry.tap_ratio == pytest.approx(1.1)
    ((entry,),) = known_statistics(observed_rows(more, less, dense)).values()
    assert entry.tap_ratio == pytest.approx(1.1)
    ((entry,),) = known_statistics(observed_rows(dense)).values()
    assert entry.tap_ratio == 1.0


def test_private_data_sets_are_not_known():
    private = row()
    private["dataset"] = None
    assert known_statistics(observed_rows(private)) == {}


# What is learned


def test_every_layer_is_a_row(observed, given):
    layers = [len(config.layers) for config in observed.configs]
    assert given.ends.tolist() == np.cumsum(layers).tolist()
    assert len(given.features) == sum(layers)
    for head in ("firing", "output", "taps", "early", "late", "accuracy"):
        assert given.targets[head].shape == (sum(layers),)
    second = given.rows_of([1])
    assert second.tolist() == list(range(layers[0], layers[0] + layers[1]))
    assert given.rows_of([3, 1]).tolist() == [*given.rows_of([3]), *second]
    assert given.rows_of([]).tolist() == []


def test_targets_are_on_the_scales_of_their_heads(observed, given):
    for run in (0, 5):
        rows, config = given.rows_of([run]), observed.configs[run]
        np.testing.assert_allclose(given.targets["firing"][rows], logit(observed.firing_rates[run]))
        np.testing.assert_allclose(given.targets["output"][rows], logit(observed.output_rates[run]))
        accuracy = given.targets["accuracy"][rows]
        assert np.isnan(accuracy[:-1]).all()
        assert accuracy[-1] == logit(observed.accuracy[run : run + 1])[0]
        # Of taps and courses there is something to learn only where spikes go on.
        hidden = [index > 0 and layer.kernel > 1 for index, layer in enumerate(config.layers)]
        assert np.isfinite(given.targets["taps"][rows]).tolist() == hidden
        for head in ("early", "late"):
            course = given.targets[head][rows]
            assert np.isfinite(course[:-1]).all()
            assert np.isnan(course[-1])


def test_courses_are_those_that_were_measured(observed, given):
    """Rows of a layer tell how the spikes that *leave* it go over time."""
    for run in range(len(observed)):
        config, rows = observed.configs[run], given.rows_of([run])[:-1]
        found = np.stack([given.targets[head][rows] for head in ("early", "late")], axis=1)
        courses = given.profile.over_steps(found, config.input.time_steps)
        np.testing.assert_allclose(courses, synthetic_courses(config), atol=0.06)


def test_taps_are_relative_to_spikes_spread_evenly():
    many = row("8C3-MP2-12C3-MP2-10")
    many["layers.taps"] = [1.3 * taps for taps in many["layers.taps"]]
    observed = observed_rows(many)
    given = lessons(observed, known_statistics(observed), categories_of(observed.configs))
    first, second, dense = given.targets["taps"]
    assert second == pytest.approx(math.log(1.3))
    assert np.isnan([first, dense]).all()  # the first is known from the data set


def test_silent_layers_teach_no_courses_and_no_taps():
    silent = row("8C3-MP2-12C3-MP2-10")
    silent["layers.step_counts"][1:] = [[0.0] * 8] * 2
    silent["layers.taps"][1:] = [0.0, 0.0]
    observed = observed_rows(silent, row("8C3-MP2-12C3-MP2-10"))
    given = lessons(observed, known_statistics(observed), categories_of(observed.configs))
    for head in ("early", "late", "taps"):
        assert np.isnan(given.targets[head][:3]).all()
        assert np.isfinite(given.targets[head][3:]).any()
    assert np.isfinite(given.targets["firing"]).all()


# How much each row counts


def test_rows_count_by_how_far_they_move_cycles(observed, given):
    """The square of the derivative of log cycles, found here by a difference in the middle."""
    step, squares = 1e-3, []
    for run, config in enumerate(observed.configs):
        for layer in range(len(config.layers)):
            logs = []
            for way in (step, -step):
                odds = logit(observed.output_rates[run])
                odds[layer] += way
                rates = 1 / (1 + np.exp(-odds))
                logs.append(measured_log_cycles(observed.chosen([run]), [rates])[0])
            squares.append(((logs[0] - logs[1]) / (2 * step)) ** 2)
    expected = np.array(squares) / np.mean([each for each in squares if each > 1e-12])
    weights = given.weights["output"]
    assert list(given.weights) == ["output"]
    assert np.corrcoef(weights, expected)[0, 1] > 0.98
    assert (np.abs(weights - expected) < 0.25 * expected + 0.05).all()


def test_rows_of_last_layers_hardly_count(observed, given):
    weights = given.weights["output"]
    last = np.zeros(len(weights), dtype=bool)
    last[given.ends - 1] = True
    assert (weights[last] == weights.min()).all()
    assert 0 < weights.min() < 0.1 * weights[~last].mean()


def test_a_network_of_one_layer_has_weights_too():
    observed = observed_rows(row("10"), row("10", training={"lr": 0.01}))
    given = lessons(observed, known_statistics(observed), categories_of(observed.configs))
    assert (given.weights["output"] == given.weights["output"][0]).all()
    assert given.weights["output"][0] > 0


# Cycles


def test_measured_cycles_come_from_measured_rates_and_taps(observed):
    for run in (0, 3):
        one, config = observed.chosen([run]), observed.configs[run]
        counts = expected_counts(config, one.events[0], one.output_rates[0][:-1].tolist())
        taps = [
            count * (per_spike if layer.kernel > 1 else 1)
            for count, per_spike, layer in zip(counts, one.taps[0], config.layers, strict=True)
        ]
        expected = timing_model(config).statistics(
            [count[None] for count in counts], [tap[None] for tap in taps]
        )
        assert measured_log_cycles(one)[0] == pytest.approx(np.log(expected.cycles[0]))
        more = measured_log_cycles(one, tap_ratios=TapRatios(input=1.05, hidden=1.05))
        assert more[0] > measured_log_cycles(one)[0]
        double = measured_log_cycles(one, [np.minimum(2 * one.output_rates[0], 1)])
        assert double[0] > measured_log_cycles(one)[0]


def test_cycles_at_one_rate_are_those_of_networks_that_have_it(observed, given):
    rate, runs = 0.2, np.array([4, 1])
    found = log_cycles_at_rate(given, runs, rate)
    for run, log_cycles in zip(runs, found, strict=True):
        config = observed.configs[run]
        events = synthetic_train_events(config.input.time_steps)  # the others are not known before
        counts = expected_counts(config, events, [rate] * (len(config.layers) - 1))
        expected = timing_model(config).statistics([count[None] for count in counts])
        assert log_cycles == pytest.approx(np.log(expected.cycles[0]))
    assert (log_cycles_at_rate(given, runs, 2 * rate) > found).all()


def test_the_usual_rate_is_the_one_that_errs_least(observed, given):
    everything = np.arange(len(observed))
    at_rates = np.stack([log_cycles_at_rate(given, everything, rate) for rate in USUAL_RATES])
    for index, rate in enumerate(USUAL_RATES):
        assert usual_rate(at_rates[index] + 0.001, at_rates) == rate
    found = usual_rate(observed.log_cycles, at_rates)
    errors = np.mean((observed.log_cycles - at_rates) ** 2, axis=1)
    assert errors.min() == errors[USUAL_RATES.index(found)] < errors.max()


def test_frames_are_those_of_a_size_whatever_the_steps(observed):
    """All of these runs have one camera and one size, and several numbers of steps."""
    assert len({config.input.time_steps for config in observed.configs}) > 1
    assert len(np.unique(frames_of(observed))) == 1
    known = known_statistics(observed)
    assert estimated_inputs(observed, known) == {}
    (entries,) = known.values()
    other = replace(entries[0], height=12, width=12)
    found = estimated_inputs(observed, {"nmnist-saccade": (*entries, other)})
    assert sorted(found) == list(range(len(observed)))
    assert all("estimated from 12x12 frames" in each.warning for each in found.values())


# Folds and models


@pytest.mark.parametrize("count", [2, 5, 10, 1000])
def test_folds_keep_points_together_and_leave_nothing_out(count):
    groups = np.array([3, 1, 1, 2, 3, 3, 0, 7, 7, 9, 2, 0])
    parts = folds(groups, count)
    assert len(parts) == min(count, 6)
    assert sorted(np.concatenate(parts).tolist()) == list(range(12))
    for part in parts:
        inside = set(groups[part])
        assert not inside & set(np.delete(groups, part))
    sizes = [len(set(groups[part])) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(map(np.array_equal, parts, folds(groups, count)))


def test_other_seeds_split_otherwise():
    groups = np.arange(40)
    assert not all(map(np.array_equal, folds(groups, 5), folds(groups, 5, seed=1)))


def test_a_model_has_all_heads_and_learns_what_it_is_shown(given, observed, model):
    assert set(model.ensembles) == set(HEADS)
    log_cycles, predicted = predicted_log_cycles(given, range(len(observed)), model)
    assert np.sqrt(np.mean((log_cycles - observed.log_cycles) ** 2)) < 0.12
    assert len(predicted) == len(observed)
    for run, each in enumerate(predicted):
        assert each.firing_rate.shape == (len(observed.configs[run].layers),)
        assert (each.spread == 1).all()
    accuracy = np.array([each.accuracy[-1] for each in predicted])
    assert np.abs(accuracy - observed.accuracy).max() < 0.05


def test_predictions_are_in_the_order_that_is_asked_for(given, model):
    together, _ = predicted_log_cycles(given, [6, 2, 9], model)
    alone = [predicted_log_cycles(given, [run], model)[0][0] for run in (6, 2, 9)]
    np.testing.assert_allclose(together, alone)


def test_a_model_knows_better_what_it_was_shown(given, observed):
    errors = np.empty((2, 2))
    for number, unseen in enumerate(folds(observed.groups, 2)):
        seen = np.setdiff1d(np.arange(len(observed)), unseen)
        model = teach(given, seen, QUICK)
        for column, runs in enumerate((seen, unseen)):
            log_cycles, _ = predicted_log_cycles(given, runs, model)
            errors[number, column] = np.mean((log_cycles - observed.log_cycles[runs]) ** 2)
    assert errors[:, 1].mean() > 4 * errors[:, 0].mean()


def test_a_head_without_anything_to_learn_says_nothing(given):
    rows = given.rows_of([0])
    untaught = np.full(len(given.features), np.nan)
    nothing = learning.Lessons(
        **{name: getattr(given, name) for name in given.__slots__ if name != "targets"},
        targets={**given.targets, "taps": untaught},
    )
    head = grow_head(nothing, range(6), "taps", QUICK["taps"])
    np.testing.assert_allclose(head.values(given.features[rows]), 0.0, atol=1e-6)


# Settings


def test_few_points_are_not_enough_to_choose_by(given, observed):
    assert tuned(given, observed) is DEFAULT_SETTINGS


def test_settings_are_those_that_do_best_on_unseen_points(given, observed, monkeypatch):
    useless, good = TreeSettings(rounds=1, eta=1e-3), TreeSettings(rounds=60, eta=0.2)
    monkeypatch.setattr(tuning, "_FEWEST_POINTS", 5)
    monkeypatch.setattr(tuning, "_CANDIDATES", (useless, good, useless))
    monkeypatch.setattr(tuning, "DEFAULT_SETTINGS", QUICK)
    chosen = tuned(given, observed)
    assert set(chosen) == set(HEADS) - {"spread"}
    for head in ("firing", "output", "accuracy"):
        assert chosen[head] is good
    for head in ("taps", "early", "late"):
        assert chosen[head] is QUICK[head]


def test_plain_settings_stay_unless_others_are_clearly_better():
    rng = np.random.default_rng(0)
    plain = rng.exponential(size=200)
    groups = np.arange(200)
    little, much = plain - 0.02 + np.tile([1.0, -1.0], 100), plain - 0.5
    assert tuning._clearly_best(np.stack([plain, little]), groups) == 0
    assert tuning._clearly_best(np.stack([plain, much]), groups) == 1
    assert tuning._clearly_best(np.stack([plain, plain + 1]), groups) == 0
    # Runs of one point say the same thing again
    eight = plain[:8] - 0.3 + np.tile([1.0, -1.0], 4)
    assert tuning._clearly_best(np.stack([plain[:8], eight]), groups[:8]) == 0
    again = np.stack([np.repeat(each, 25) for each in (plain[:8], eight)])
    assert tuning._clearly_best(again, np.repeat(groups[:8], 25)) == 0
    assert tuning._clearly_best(again, np.arange(200)) == 1


def test_settings_are_chosen_by_what_fires_where_nothing_is_pooled(monkeypatch):
    useless, good = TreeSettings(rounds=1, eta=1e-3), TreeSettings(rounds=60, eta=0.2)
    observed = observed_runs(synthetic_table(networks=("8C3-6C3-10", "8C3-4C3-12-10")))
    given = lessons(observed, known_statistics(observed), categories_of(observed.configs))
    monkeypatch.setattr(tuning, "_FEWEST_POINTS", 5)
    monkeypatch.setattr(tuning, "_CANDIDATES", (useless, good))
    monkeypatch.setattr(tuning, "DEFAULT_SETTINGS", QUICK)
    assert tuned(given, observed)["firing"] is good
