"""Trials of real Optuna studies that end early."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from spiking_modules import WHOLE, Explicit, frames

from spikemeter.errors import InputError, MissingToolError, PredictorError
from spikemeter.predictor import LatencyEstimate, predict_latency
from spikemeter.predictor.training import LatencyMonitor
from spikemeter.predictor.trials import FORECAST, LatencyPruner, report_forecast


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def forecast(low: float, high: float, *, in_domain: bool = True) -> LatencyEstimate:
    """A forecast in microseconds; the clock has 100 MHz."""
    found = predict_latency(WHOLE)
    middle = (low * high) ** 0.5
    return replace(
        found, cycles=100 * middle, microseconds=middle, interval_cycles=(100 * low, 100 * high),
        in_domain=in_domain,
    )  # fmt: skip


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/study.db"])
def test_hopeless_trials_are_stopped_by_their_forecast(tmp_path: Path, storage: Any) -> None:
    """Trials of 100, 200, 300, ... us, whose intervals become narrow with the epochs."""
    epochs: dict[int, int] = {}

    def objective(trial: optuna.Trial) -> float:
        us = 100.0 * (1 + trial.number)
        for epoch in range(1, 5):
            epochs[trial.number] = epoch
            factor = 1 + 0.8 / epoch
            report_forecast(trial, forecast(us / factor, us * factor), epoch=epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return us

    place = None if storage is None else storage.format(tmp_path)
    study = optuna.create_study(storage=place, study_name="one", pruner=LatencyPruner(250))
    study.optimize(objective, n_trials=5)
    assert states(study) == ["COMPLETE"] * 3 + ["PRUNED"] * 2
    # 300 us is less than 250 us at its low end until the end, 400 us from 1.6, 500 us from 2
    assert epochs == {0: 4, 1: 4, 2: 4, 3: 2, 4: 1}
    if place is not None:  # another process reads them
        again = optuna.load_study(study_name="one", storage=place)
        kept = again.trials[4].user_attrs[FORECAST]
        assert kept["microseconds_low"] == pytest.approx(500 / 1.8)
        assert kept["epoch"] == 1


def test_a_monitor_reports_its_forecast(tmp_path: Path) -> None:
    seen: list[LatencyEstimate] = []

    def objective(trial: optuna.Trial) -> float:
        net = Explicit().eval()
        with LatencyMonitor(net, WHOLE) as monitor:
            with pytest.raises(PredictorError, match=r"^forecast: no epoch has ended yet"):
                monitor.report(trial)
            for epoch in range(3):
                net.run(frames(epoch, steps=5))
                monitor.end_epoch()
                seen.append(monitor.report(trial))
                assert seen[-1] == monitor.forecast()
                if trial.should_prune():
                    raise optuna.TrialPruned
        return 0.0

    for budget, state, reports in ((1e6, "COMPLETE", 3), (0.1, "PRUNED", 1)):
        seen.clear()
        pruner = LatencyPruner(budget)
        study = optuna.create_study(storage=f"sqlite:///{tmp_path}/s.db", pruner=pruner)
        study.optimize(objective, n_trials=1)
        assert states(study) == [state]
        assert len(seen) == reports
        kept = study.trials[0].user_attrs[FORECAST]
        low, high = (cycles / 100 for cycles in seen[-1].interval_cycles)
        numbers = [kept[f"microseconds{end}"] for end in ("", "_low", "_high")]
        assert numbers == pytest.approx([seen[-1].microseconds, low, high])
        assert (kept["epoch"], kept["confidence"], kept["in_domain"]) == (reports, 0.9, True)


def test_another_pruner_judges_the_rest() -> None:
    inner = optuna.pruners.ThresholdPruner(lower=0.5)

    def objective(trial: optuna.Trial) -> float:
        report_forecast(trial, forecast(100, 120 if trial.number else 400), epoch=1)
        trial.report(0.4 if trial.number == 1 else 0.6, step=1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return 0.6

    study = optuna.create_study(direction="maximize", pruner=LatencyPruner(150, inner=inner))
    study.optimize(objective, n_trials=3)
    assert states(study) == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_it_waits_and_it_trusts_no_forecast_from_outside_of_the_domain() -> None:
    study = optuna.create_study(pruner=LatencyPruner(50, warmup_epochs=3))
    trial = study.ask()
    assert not trial.should_prune()  # nothing is known
    report_forecast(trial, forecast(100, 120), epoch=2)
    assert not trial.should_prune()
    report_forecast(trial, forecast(100, 120), epoch=3)
    assert trial.should_prune()
    report_forecast(trial, forecast(100, 120, in_domain=False), epoch=3)
    with pytest.warns(UserWarning, match=r"trial 0 goes on although its forecast, 100 us or more"):
        assert not trial.should_prune()
    report_forecast(trial, forecast(50, 120), epoch=3)
    assert not trial.should_prune()  # the low end may just do


def test_with_several_objectives_it_can_be_asked() -> None:
    pruner = LatencyPruner(50)
    study = optuna.create_study(directions=["maximize", "minimize"], pruner=pruner)
    trial = study.ask()
    report_forecast(trial, forecast(100, 120), epoch=1)
    with pytest.raises(NotImplementedError):
        trial.should_prune()
    assert pruner.is_hopeless(trial)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"budget_us": 0}, r"^budget_us: must be a number above 0, got 0$"),
        ({"budget_us": True}, r"^budget_us: must be a number above 0, got True$"),
        ({"budget_us": "300"}, r"^budget_us: must be a number above 0, got '300'$"),
        ({"budget_us": 1, "warmup_epochs": 0}, r"^warmup_epochs: must be a whole number above 0, "),
        ({"budget_us": 1, "inner": 3}, r"^inner: must be a pruner of Optuna, got 3$"),
    ],
)
def test_arguments_of_no_use_are_refused(arguments: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        LatencyPruner(**arguments)


def test_a_budget_may_be_a_number_of_numpy() -> None:
    pruner = LatencyPruner(np.float32(50))
    trial = optuna.create_study().ask()
    report_forecast(trial, forecast(100, 120), epoch=1)
    assert pruner.is_hopeless(trial)


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "spikemeter.predictor.trials")
    monkeypatch.setitem(sys.modules, "optuna.pruners", None)
    with pytest.raises(MissingToolError, match=r"optuna is not .*; install spikemeter\[sweep\]$"):
        import spikemeter.predictor.trials  # noqa: F401
