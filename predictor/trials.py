"""Optuna trials that end early, once the forecast says that they come out too slow."""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingToolError
from .epochs import microseconds
from .estimate import LatencyEstimate

try:
    from optuna.pruners import BasePruner
except ImportError as error:
    raise MissingToolError(
        "optuna is not installed, and this needs it; install spikemeter[sweep]"
    ) from error

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

__all__ = ["FORECAST", "LatencyPruner", "report_forecast"]

FORECAST = "spikemeter.forecast"
"""User attribute of a trial that holds its last forecast."""


def report_forecast(trial: Trial, forecast: LatencyEstimate, *, epoch: int) -> None:
    """Keep a forecast with a trial, where a pruner finds it.

    Parameters
    ----------
    trial : optuna.Trial
        Of any storage, in a study of one or several objectives.
    forecast : LatencyEstimate
        Of the finished network; an estimate before training will do too.
    epoch : int
        Epochs that are done.
    """
    about = {"confidence": forecast.confidence, "in_domain": forecast.in_domain}
    trial.set_user_attr(FORECAST, {"epoch": epoch, **microseconds(forecast), **about})


class LatencyPruner(BasePruner):
    """Stops trials whose network will be too slow, long before it is trained.

    In the objective, `LatencyMonitor.report` tells the trial the forecast after each epoch, and
    ``trial.should_prune()`` asks this pruner. A trial is hopeless once even the low end of the
    forecast's interval is above the budget. A forecast outside of the predictor's domain stops no
    trial; a warning says so.

    Parameters
    ----------
    budget_us : float
        Mean latency that is allowed, in microseconds; above 0.
    warmup_epochs : int, optional
        Epochs after which it begins to judge; 1 or more.
    inner : BasePruner, optional
        Is asked about trials that are not hopeless, say a `MedianPruner` of their accuracy, which
        judges by what ``trial.report`` was told.

    Raises
    ------
    InputError
        If an argument is of no use.

    Notes
    -----
    Forecasts travel as the user attribute `FORECAST`, so that they reach the pruner through any
    storage and from any process, and the values of ``trial.report`` stay those of the objective.
    Optuna has no pruning with several objectives, where ``should_prune`` raises; ask
    `LatencyPruner.is_hopeless` there.

    Examples
    --------
    >>> study = optuna.create_study(pruner=LatencyPruner(300.0))  # doctest: +SKIP
    """

    def __init__(
        self, budget_us: float, *, warmup_epochs: int = 1, inner: BasePruner | None = None
    ) -> None:
        is_number = isinstance(budget_us, Real) and not isinstance(budget_us, bool)
        if not (is_number and 0 < budget_us < math.inf):
            raise InputError(f"budget_us: must be a number above 0, got {budget_us!r}")
        if type(warmup_epochs) is not int or warmup_epochs < 1:
            rule = "must be a whole number above 0"
            raise InputError(f"warmup_epochs: {rule}, got {warmup_epochs!r}")
        if inner is not None and not isinstance(inner, BasePruner):
            raise InputError(f"inner: must be a pruner of Optuna, got {inner!r}")
        self._budget_us, self._warmup_epochs, self._inner = float(budget_us), warmup_epochs, inner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Judge a trial; Optuna asks."""
        if self.is_hopeless(trial):
            return True
        return self._inner is not None and self._inner.prune(study, trial)

    def is_hopeless(self, trial: Trial | FrozenTrial) -> bool:
        """Tell whether the last forecast of a trial leaves no hope; without one there is."""
        forecast: dict[str, Any] | None = trial.user_attrs.get(FORECAST)
        if forecast is None or forecast["epoch"] < self._warmup_epochs:
            return False
        if forecast["microseconds_low"] <= self._budget_us:
            return False
        if not forecast["in_domain"]:
            low = f"{forecast['microseconds_low']:.6g} us or more"
            warnings.warn(
                f"trial {trial.number} goes on although its forecast, {low}, is above the budget, "
                f"{self._budget_us:g} us: it lies outside of what the predictor was calibrated on",
                stacklevel=2,
            )
        return bool(forecast["in_domain"])
