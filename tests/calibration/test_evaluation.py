from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_runs import synthetic_table

from spikemeter.calibration import evaluate, fit_predictor
from spikemeter.calibration.evaluation import BASELINES, evaluated, split_of
from spikemeter.calibration.observed import observed_runs
from spikemeter.calibration.tuning import DEFAULT_SETTINGS
from spikemeter.errors import InputError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.ensemble import TreeSettings

HELD_OUT = "6C5-MP2-24-10"
SETTINGS = {name: TreeSettings(rounds=80, eta=0.15) for name in DEFAULT_SETTINGS}


@pytest.fixture(scope="module")
def table():
    """Made-up runs that say which of them two of the splits hold out."""
    runs = synthetic_table(40, seeds=2)
    points = runs["run_id"].str.split("-").str[0].str.removeprefix("run").astype(int)
    return runs.assign(
        **{"test.random": points % 5 == 0, "test.unseen_topology": runs["network"] == HELD_OUT}
    )


@pytest.fixture(scope="module")
def predictor(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "predictor"
    fit_predictor(table, out, settings=SETTINGS)
    return LatencyPredictor.load(out)


@pytest.fixture(scope="module")
def report(predictor):
    return evaluate(predictor, "random", settings=SETTINGS)


def test_scores_are_of_the_rows_that_the_split_holds_out(report, table):
    assert report["split"] == "random"
    assert report["rows"] == table["test.random"].sum()
    assert report["rows"] + report["rows_learned_from"] == len(table)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_model_beats_what_knows_less(report):
    assert set(report["baselines"]) == set(BASELINES)
    assert report["r2_log"] > 0.8
    for name in ("mean", "mean_firing_rate"):
        assert report["rmse_log"] < report["baselines"][name]["rmse_log"]
    assert report["baselines"]["mean"]["spearman"] == 0
    assert report["spearman"] > 0.9


def test_the_noise_of_seeds_bounds_what_can_be_reached(report):
    assert 0 < report["noise_floor_log"] < report["rmse_log"] * 1.5
    assert report["r2_log"] < report["r2_log_ceiling"] + 0.05 < 1.05
    assert 0.9 < report["spearman_ceiling"] < 1


def test_parts_make_up_the_whole(report):
    for key in ("by_dataset", "by_network"):
        parts = report[key].values()
        assert sum(part["rows"] for part in parts) == report["rows"]
        squares = sum(part["rows"] * part["rmse_log"] ** 2 for part in parts)
        assert np.sqrt(squares / report["rows"]) == pytest.approx(report["rmse_log"])


def test_the_held_out_rows_teach_nothing(table):
    observed = observed_runs(table)
    held_out = split_of(observed, "random")
    before = evaluated(observed, held_out, "random", settings=SETTINGS)
    wrong = table.copy()
    factor = np.where(table["test.random"], 3.0, 1.0)
    wrong["cycles.mean"] = table["cycles.mean"] * factor
    after = evaluated(observed_runs(wrong), held_out, "random", settings=SETTINGS)
    # The same predictions: every error grows by the same amount.
    assert after["mean_width"] == pytest.approx(before["mean_width"])
    assert after["rmse_log"] > 0.9


def test_an_unseen_topology_is_unseen(predictor, table):
    report = evaluate(predictor, "unseen_topology", settings=SETTINGS)
    assert list(report["by_network"]) == [HELD_OUT]
    assert report["rows"] == (table["network"] == HELD_OUT).sum()
    assert report["in_domain"] < 1  # 24 neurons behind a 5x5 kernel were not calibrated


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ("nothing", "must be one of random, unseen_topology"),
        ("unseen_dataset", "the table must say in 'test.unseen_dataset'"),
    ],
)
def test_splits_that_are_not_there_are_refused(predictor, split, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate(predictor, split)


def test_a_split_must_leave_enough_to_learn_from(table):
    observed = observed_runs(table)
    most = observed.groups != observed.groups[0]
    with pytest.raises(InputError, match=r"must leave at least 8 runs of 2 points .* got 2 of 1"):
        evaluated(observed, most, "random", settings=SETTINGS)


def test_a_split_must_hold_out_some(table):
    empty = observed_runs(table.assign(**{"test.random": False}))
    with pytest.raises(InputError, match="must hold out some of the runs, got 0"):
        split_of(empty, "random")


def test_runs_of_a_private_data_set_are_scored_too(table):
    private = table["run_id"].str.startswith(("run1", "run2"))
    mixed = table.assign(dataset=table["dataset"].where(~private, None))
    observed = observed_runs(mixed)
    report = evaluated(observed, split_of(observed, "random"), "random", settings=SETTINGS)
    assert set(report["by_dataset"]) == {"nmnist-saccade", "None"}
    assert report["by_dataset"]["None"]["r2_log"] > 0.5


def test_baselines_of_silent_networks_are_the_mean(table):
    observed = observed_runs(table)
    silent = [[np.zeros_like(steps) for steps in run] for run in observed.step_counts]
    found = evaluated(replace(observed, step_counts=silent), split_of(observed, "random"), "random",
                      settings=SETTINGS)  # fmt: skip
    mean = found["baselines"]["mean"]
    assert found["baselines"]["total_spikes"]["rmse_log"] == pytest.approx(mean["rmse_log"])
