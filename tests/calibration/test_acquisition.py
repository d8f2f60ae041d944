from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from synthetic_runs import synthetic_row, synthetic_table, synthetic_train_events

from spikemeter.calibration import acquisition as module
from spikemeter.calibration.acquisition import acquire, widest
from spikemeter.calibration.learning import tap_ratios_of
from spikemeter.calibration.observed import observed_runs
from spikemeter.calibration.plan import Plan, Repeats
from spikemeter.calibration.runs import run_numbers
from spikemeter.calibration.store import append_rows, read_table, stage_versions
from spikemeter.calibration.tuning import DEFAULT_SETTINGS
from spikemeter.errors import InputError
from spikemeter.predictor.ensemble import TreeSettings
from spikemeter.predictor.events import InputStatistics
from spikemeter.predictor.features import config_from_row
from spikemeter.predictor.timing import even_taps

PLAN = Plan.model_validate(
    {
        "base": {"dataset": "nmnist-saccade", "training": {"epochs": 4}},
        "vary": {
            "network": ["8C3-MP2-10", "8C3-MP2-12C3-MP2-10"],
            "neuron.beta": {"low": 0.5, "high": 0.95},
            "neuron.threshold": {"low": 0.5, "high": 1.5},
            "surrogate.slope": {"low": 5, "high": 50, "log": True},
        },
        "runs": 60,
    }
)


@pytest.fixture(autouse=True)
def made_up_runs(monkeypatch):
    """Runs that take no time: what a campaign would have measured is made up."""
    asked = []

    def run_campaign(plan, out, *, only=None, **_):
        from spikemeter.predictor.features import row_from_config

        numbers = run_numbers(plan)
        done = set(read_table(out)["run_id"]) if (out / "rows").exists() else set()
        todo = {run: at for run, at in numbers.items() if at in only and run not in done}
        asked.append(sorted(todo.values()))
        rows = [
            row_from_config(plan.config(at))
            | synthetic_row(plan.config(at), np.random.default_rng(at), 0.1)
            | {"run_id": run, **stage_versions()}
            for run, at in todo.items()
        ]
        append_rows(out, rows)

    def statistics(plan, _):
        steps = plan.config(0).input.time_steps
        events = synthetic_train_events(steps)
        return {"nmnist-saccade": [InputStatistics(height=16, width=16, time_steps=steps,
                                                   events=events)]}  # fmt: skip

    quick = {name: TreeSettings(rounds=20) for name in DEFAULT_SETTINGS}
    monkeypatch.setattr(module, "DEFAULT_SETTINGS", quick)
    monkeypatch.setattr(module, "run_campaign", run_campaign)
    monkeypatch.setattr(module, "_statistics", statistics)
    return asked


def test_rounds_choose_the_widest_until_there_are_enough(made_up_runs, tmp_path):
    heard = []
    report = acquire(PLAN, tmp_path, first=20, each_round=8, most_runs=34, on_round=heard.append)
    assert [len(numbers) for numbers in made_up_runs] == [20, 8, 6]
    assert made_up_runs[0] == list(range(20))
    assert [each["runs"] for each in report["rounds"]] == [20, 28, 34]
    assert [each["left"] for each in report["rounds"]] == [40, 32, 26]
    assert report["rounds"] == heard
    assert all(each["mean_width"] <= each["widest"] for each in heard)
    assert report["stopped"].startswith("34 runs")


def test_it_goes_on_where_it_was(made_up_runs, tmp_path):
    acquire(PLAN, tmp_path, first=20, each_round=8, most_runs=28)
    made_up_runs.clear()
    acquire(PLAN, tmp_path, first=20, each_round=8, most_runs=36)
    assert [len(numbers) for numbers in made_up_runs] == [0, 8]


def test_it_stops_where_intervals_are_narrow_enough(made_up_runs, tmp_path):
    report = acquire(PLAN, tmp_path, first=20, each_round=8, target_width=100.0)
    assert len(made_up_runs) == 1
    assert report["stopped"] == "intervals are as narrow as was asked for"


def test_a_plan_can_be_used_up(made_up_runs, tmp_path):
    report = acquire(PLAN, tmp_path, first=40, each_round=15)
    assert [len(numbers) for numbers in made_up_runs] == [40, 15, 5]
    assert report["stopped"] == "every point of the plan is done"


def test_repeats_are_no_part_of_the_pool(made_up_runs, tmp_path):
    plan = PLAN.model_copy(update={"repeats": Repeats(points=30, seeds=(1, 2))})
    report = acquire(plan, tmp_path, first=20, each_round=30)
    assert sorted(chain(*made_up_runs)) == list(range(60))
    assert report["rounds"][0]["left"] == 40


def test_the_widest_come_first():
    assert widest(np.array([1.0, 3.0, 2.0, 3.0]), 3) == [1, 3, 2]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"first": 3}, "first: must be at least 8, got 3"),
        ({"each_round": 0}, "each_round: must be at least 1, got 0"),
        ({"target_width": 0.0}, "target_width: must be above 0, got 0"),
        ({"first": 30, "most_runs": 20}, "most_runs: must be at least the 30 first ones, got 20"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        acquire(PLAN, tmp_path, **options)


def test_events_of_the_plan_have_the_taps_of_runs_that_saw_them(monkeypatch):
    monkeypatch.undo()
    plan = Plan.model_validate(
        {
            "base": {"dataset": "digits-saccade", "input": {"height": 8, "width": 8}},
            "vary": {"network": ["4C3-10"], "input.time_steps": [2, 4]},
            "sampler": "grid",
        }
    )
    table = synthetic_table(8, seeds=1)
    taps = [[factor * row[0], *row[1:]] for row, factor in zip(
        table["layers.taps"], [1.04] + [1.02] * 7, strict=True)]  # fmt: skip
    seen = {"dataset": "digits-saccade", "input.height": 8, "input.width": 8, "input.time_steps": 2}
    observed = observed_runs(table.assign(**{"layers.taps": taps}))
    configs = [config_from_row(table.iloc[0].to_dict() | seen), *observed.configs[1:]]
    ratios = tap_ratios_of(replace(observed, configs=configs))
    events = [np.ones((2, 2)), *observed.train_events[1:]]
    known = module._statistics(plan, replace(observed, configs=configs, train_events=events))
    first, second = known["digits-saccade"]
    assert (first.time_steps, second.time_steps) == (2, 4)
    assert first.tap_ratio == pytest.approx(float(taps[0][0]) / even_taps(configs[0].layers[0]))
    assert second.tap_ratio == ratios.input != 1.0
    assert second.events.shape == (4, 2)
