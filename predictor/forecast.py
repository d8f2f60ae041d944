"""From the firing rates of the first epochs to the spikes of the finished network.

Rates move while a network trains, fastest at the beginning. One more ensemble reads where they
stand after some of the epochs, where they came from and what was expected of them before training,
and gives the log odds of the rate of each layer's output lines after the last epoch, on the test
samples of the quantised network, relative to those of the firing rate now.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError, PredictorError
from .ensemble import Ensemble
from .intervals import Residuals
from .sparsity import RATE_FLOOR, Predicted, logistic, logit

__all__ = [
    "FEATURES",
    "PROGRESS",
    "Forecaster",
    "checked_rates",
    "forecast_features",
    "read_rates",
]

FEATURES = (
    "progress",
    "epochs",
    "rate.now",
    "rate.change",
    "rate.since_first",
    "expected.firing",
    "expected.output",
    "layer.position",
    "layer.position_from_output",
    "layer.pool",
    "training.lr",
    "training.batch_norm",
)
"""Columns of `forecast_features`; rates are log odds."""

PROGRESS = (0.25, 0.5, 0.75, 1.0)
"""Shares of all epochs after which the errors of forecasts are kept."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecaster:
    """What is learned of the way that rates go.

    Attributes
    ----------
    ensemble : Ensemble
        Of the rows of `forecast_features`.
    residuals : tuple of Residuals
        Errors of log cycles on unseen runs after each of `PROGRESS`, over the square root of the
        spread that was predicted before training: what is hard to predict is hard to forecast,
        but less so.
    """

    ensemble: Ensemble
    residuals: tuple[Residuals, ...]

    def output_rates(self, features: NDArray[np.float32]) -> _Floats:
        """Forecast the rate of the output lines of every row, in [`RATE_FLOOR`, 1]."""
        now = features[:, FEATURES.index("rate.now")].astype(np.float64)
        return np.clip(logistic(now + self.ensemble.values(features)), RATE_FLOOR, 1.0)

    def half_width(self, progress: float, before: float, spread: float, confidence: float) -> float:
        """Half width of the interval of log cycles; it never grows while training goes on.

        Where forecasts became worse with an epoch, which is chance, those before are given as
        wide an interval, so that no width is less than what was measured.

        Parameters
        ----------
        progress : float
            Share of the epochs that are done, above 0.
        before : float
            Half width before training.
        spread : float
            Predicted before training.
        confidence : float
        """
        unit = math.sqrt(spread)
        widths = [before, *(unit * each.half_width(confidence)[0] for each in self.residuals)]
        narrowing = np.maximum.accumulate(widths[::-1])[::-1]
        return float(np.interp(progress, (0.0, *PROGRESS), narrowing))


def read_rates(path: Path, epochs: int | None = None) -> list[list[float]]:
    """Read the firing rates of epochs from a file.

    Parameters
    ----------
    path : Path
        JSON: a list for each epoch of a rate for each layer, or the ``result.json`` of a run.
    epochs : int, optional
        The first so many alone; all by default.

    Raises
    ------
    InputError
        If the file cannot be read, holds no rates, or of fewer epochs.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the firing rates {str(path)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the firing rates {str(path)!r} are not valid JSON") from error
    rates = content.get("firing_rate_per_epoch") if isinstance(content, dict) else content
    if not isinstance(rates, list) or not rates:
        rule = "must hold a list for each epoch, itself or under firing_rate_per_epoch"
        raise InputError(f"the firing rates {str(path)!r} {rule}; got {str(rates)[:60]}")
    if epochs is not None and not 1 <= epochs <= len(rates):
        raise InputError(f"epochs: must be 1 to {len(rates)}, those of {str(path)!r}; got {epochs}")
    return rates[:epochs]


def checked_rates(
    rates: NDArray[np.float64] | Sequence[Sequence[float]], config: Config
) -> _Floats:
    """Hold firing rates of epochs against a configuration.

    Raises
    ------
    PredictorError
        If they are not one rate in [0, 1] for each epoch so far and weighted layer.
    """
    rule = "must be one list per epoch of one number per layer"
    try:
        given = np.asarray(rates)
    except (TypeError, ValueError) as error:
        raise PredictorError(f"firing_rates: {rule}, got {rates!r}") from error
    if given.dtype.kind not in "iuf":
        raise PredictorError(f"firing_rates: {rule}, got {rates!r}")
    found = given.astype(np.float64)
    layers, epochs = len(config.layers), config.training.epochs
    if found.ndim != 2 or found.shape[1] != layers or not len(found):
        rule = f"must have shape (epochs, {layers}), a rate for each layer of {config.network}"
        raise PredictorError(f"firing_rates: {rule}; got {found.shape}")
    if len(found) > epochs:
        rule = f"must be of at most the {epochs} training.epochs"
        raise PredictorError(f"firing_rates: {rule}, got {len(found)}")
    wrong = ~((found >= 0) & (found <= 1))  # also of NaN
    if wrong.any():
        epoch, layer = (int(place) for place in np.argwhere(wrong)[0])
        rule = f"must lie between 0 and 1, got {found[epoch, layer]:g}"
        raise PredictorError(f"firing_rates: {rule} in epoch {epoch + 1} of layer {layer}")
    return found


def forecast_features(config: Config, rates: _Floats, expected: Predicted) -> NDArray[np.float32]:
    """Describe where the rates of every layer stand.

    Parameters
    ----------
    config : Config
    rates : ndarray of float, shape (epochs, layers)
        Firing rates of the epochs so far, at least one.
    expected : Predicted
        What was expected before training, one row per layer.

    Returns
    -------
    ndarray of float32, shape (layers, features)
        Columns as in `FEATURES`.
    """
    odds = logit(rates)
    layers = len(config.layers)
    rows = np.empty((layers, len(FEATURES)), dtype=np.float32)
    columns = (
        len(rates) / config.training.epochs,
        config.training.epochs,
        odds[-1],
        odds[-1] - odds[-2] if len(odds) > 1 else 0.0,
        odds[-1] - odds[0],
        logit(expected.firing_rate),
        logit(expected.output_rate),
        np.arange(layers),
        np.arange(layers)[::-1],
        [layer.pool for layer in config.layers],
        config.training.lr,
        config.training.batch_norm,
    )
    for number, column in enumerate(columns):
        rows[:, number] = column
    return rows
