"""Fitting forecasts from the first epochs: what final spikes follow from the rates so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..predictor.ensemble import Ensemble, TreeSettings, fit_head
from ..predictor.forecast import FEATURES, PROGRESS, Forecaster, forecast_features
from ..predictor.intervals import Residuals
from ..predictor.predict import expected_spikes, mean_cycles
from ..predictor.sparsity import Predicted, logit
from .learning import Lessons
from .observed import Observed

__all__ = ["fit_forecaster"]

_SETTINGS = TreeSettings(rounds=200)

_Floats = NDArray[np.float64]


def fit_forecaster(
    given: Lessons,
    observed: Observed,
    expected: Sequence[Predicted],
    spread: _Floats,
    parts: Sequence[NDArray[np.int64]],
) -> Forecaster:
    """Learn how rates go on, and how far forecasts are off on unseen runs.

    Parameters
    ----------
    given : Lessons
    observed : Observed
        The same runs.
    expected : sequence of Predicted
        Of each run, by a model that had not seen it.
    spread : ndarray of float, shape (runs,)
        Likewise, of the errors of log cycles.
    parts : sequence of ndarray of int
        Runs of each fold.

    Returns
    -------
    Forecaster
    """
    features, targets = [], []
    for run in range(len(observed)):
        found = _epochs(given, observed, expected[run], run)
        final = logit(observed.output_rates[run])
        features.append(found)
        targets.append(final - found[:, :, _NOW])
    everything = range(len(observed))
    errors = {progress: np.empty(len(observed)) for progress in PROGRESS}
    for held_out in parts:
        seen = np.setdiff1d(everything, held_out)
        ensemble = _fit(features, targets, seen)
        forecaster = Forecaster(ensemble=ensemble, residuals=())
        for progress, error in errors.items():
            error[held_out] = _errors(given, observed, expected, features, held_out, progress,
                                      forecaster)  # fmt: skip
    return Forecaster(
        ensemble=_fit(features, targets, everything),
        residuals=tuple(
            Residuals(error=error / np.sqrt(spread), group=observed.groups)
            for error in errors.values()
        ),
    )


_NOW = FEATURES.index("rate.now")


def _epochs(
    given: Lessons, observed: Observed, expected: Predicted, run: int
) -> NDArray[np.float32]:
    """Rows after every epoch of a run, shape (epochs, layers, features)."""
    rates = observed.epoch_rates[run]
    config = given.configs[run]
    return np.stack(
        [forecast_features(config, rates[: epoch + 1], expected) for epoch in range(len(rates))]
    )


def _fit(
    features: Sequence[NDArray[np.float32]], targets: Sequence[_Floats], runs: Iterable[int]
) -> Ensemble:
    chosen = [int(run) for run in runs]
    rows = np.concatenate([features[run].reshape(-1, len(FEATURES)) for run in chosen])
    return fit_head(rows, np.concatenate([targets[run].reshape(-1) for run in chosen]), _SETTINGS)


def _errors(
    given: Lessons,
    observed: Observed,
    expected: Sequence[Predicted],
    features: Sequence[NDArray[np.float32]],
    runs: NDArray[np.int64],
    progress: float,
    forecaster: Forecaster,
) -> _Floats:
    """Errors of log cycles forecast after a share of the epochs, at least one."""
    spikes = []
    for run in runs:
        epochs = len(features[run])
        epoch = max(round(progress * epochs), 1) - 1
        rates = forecaster.output_rates(features[run][epoch])
        spikes.append(
            expected_spikes(
                given.configs[run],
                given.entering[run],
                expected[run].with_output(rates),
                given.profile,
            )
        )
    configs = [given.configs[run] for run in runs]
    return observed.log_cycles[runs] - np.log(mean_cycles(configs, spikes)[0])
