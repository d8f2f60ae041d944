"""Judging points of a space: what is predicted for them, and how likely each is to be good."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import InputConfig, TrainingConfig
from ..errors import ConfigError, InputError, PredictorError
from ..network import parse_network
from ..space import Space
from .intervals import Residuals
from .predict import LatencyPredictor
from .refusals import Refusals
from .sparsity import RATE_FLOOR

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Criteria",
    "ErrorShares",
    "Judge",
    "Verdicts",
    "check_positive",
    "check_whole",
    "checked_accuracy",
    "checked_budget",
]

_SIZES = ("height", "width", "channels")
_SHOWN = {
    "microseconds": ("microseconds", 3),
    "interval_microseconds.low": ("low_us", 3),
    "interval_microseconds.high": ("high_us", 3),
    "accuracy": ("accuracy", 4),
    "interval_accuracy.low": ("interval_accuracy.low", 4),
    "interval_accuracy.high": ("interval_accuracy.high", 4),
}
"""Predictions of kept points: where they come from, and their decimals."""

_HUGE = 1e6
"""Errors in units of the interval, beyond any that was seen."""

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What is asked of a point.

    Attributes
    ----------
    budget_us : float
        Latency that is allowed, in microseconds.
    min_accuracy : float or None
        Test accuracy that is asked for.
    confidence : float
        Of the intervals.
    """

    budget_us: float
    min_accuracy: float | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """What was found of some points.

    Attributes
    ----------
    drawn : dict of str to ndarray, shape (points,)
        As `Space.draw` gives them.
    valid : ndarray of bool, shape (points,)
        Whether they are configurations. All that follows is of the valid ones.
    rows : DataFrame
        Their flat keys.
    predicted : DataFrame
        As `LatencyPredictor.predict` gives it, and ``low_us`` and ``high_us``: the interval of the
        latency, in microseconds.
    accurate : ndarray of bool
        Whether they may be as accurate as asked for.
    kept : ndarray of bool
        Whether they may be that, and within the budget.
    good : ndarray of float
        Probability that they are.
    work : ndarray of float
        Multiply-accumulates of a time step, times steps, times epochs.
    """

    drawn: dict[str, NDArray[Any]]
    valid: _Flags
    rows: pd.DataFrame
    predicted: pd.DataFrame
    accurate: _Flags
    kept: _Flags
    good: _Floats
    work: _Floats

    def kept_rows(self, keys: Sequence[str]) -> pd.DataFrame:
        """Give some keys of the kept points, and what is predicted, rounded."""
        rows, predicted = self.rows.loc[self.kept, list(keys)], self.predicted[self.kept]
        rounded = {name: predicted[key].round(decimals) for name, (key, decimals) in _SHOWN.items()}
        return rows.assign(**rounded, in_domain=predicted["in_domain"])


class ErrorShares:
    """Share of the errors on unseen runs that lie below a distance.

    They are the errors behind the intervals, with their signs: each calibrated point has the same
    weight, shared by its runs. That estimates the share without bias, also where it is small; but
    beyond the largest error that was seen it is 0, where n points vouch for no less than 1/(n+1).

    Parameters
    ----------
    residuals : Residuals
    confidence : float
        Of the intervals that distances are held against.
    """

    def __init__(self, residuals: Residuals, confidence: float) -> None:
        _, member, sizes = np.unique(residuals.group, return_inverse=True, return_counts=True)
        order = np.argsort(residuals.error, kind="stable")
        weights = 1 / sizes[member][order]
        self._error = residuals.error[order]
        self._below = np.cumsum(np.append(0.0, weights)) / len(sizes)
        self._half_width = residuals.half_width(confidence)[0]

    def below(self, distance: _Floats, half_width: _Floats) -> _Floats:
        """Share of errors of at most a distance, where the interval has this half width."""
        with np.errstate(divide="ignore", invalid="ignore"):
            units = distance * self._half_width / half_width
        certain = np.where(distance < 0, -_HUGE, _HUGE)  # an interval without any width
        units = np.where(half_width > 0, units, certain)
        share: _Floats = self._below[np.searchsorted(self._error, units, side="right")]
        return share


class Judge:
    """Judges points of one space by some criteria.

    Parameters
    ----------
    space : Space
    criteria : Criteria
    predictor : LatencyPredictor
    """

    def __init__(self, space: Space, criteria: Criteria, predictor: LatencyPredictor) -> None:
        self._space = space
        self._criteria = criteria
        self._predictor = predictor
        residuals = predictor.parts.residuals
        self._latency = ErrorShares(residuals["hyperparameters"], criteria.confidence)
        self._accuracy = ErrorShares(residuals["accuracy"], criteria.confidence)
        self._refusals: Refusals | None = None
        self._macs: dict[tuple[Any, ...], int] = {}

    def judge(self, start: int, stop: int) -> Verdicts:
        """Judge points by number, `stop` excluded.

        Raises
        ------
        PredictorError
            If the predictor cannot answer for one of them; names the first.
        """
        drawn = self._space.draw(start, stop)
        rows = self._space.frame_of(drawn, range(start, stop))
        valid, predicted = self._predict(rows)
        rows = rows[valid]
        accurate, within = self._may_be(predicted)
        return Verdicts(
            drawn=drawn,
            valid=valid,
            rows=rows,
            predicted=predicted,
            accurate=accurate,
            kept=accurate & within,
            good=self._chance(predicted),
            work=self._work(rows),
        )

    def _predict(self, rows: pd.DataFrame) -> tuple[_Flags, pd.DataFrame]:
        """Predict all rows, or without those that are refused once one was."""
        valid = np.ones(len(rows), dtype=bool)
        if self._refusals is None:
            try:
                return valid, self._answers(rows)
            except ConfigError:
                self._refusals = Refusals()
        valid = ~self._refusals.of(rows)
        return valid, self._answers(rows[valid])

    def _answers(self, rows: pd.DataFrame) -> pd.DataFrame:
        try:
            table = self._predictor.predict(rows, confidence=self._criteria.confidence)
        except PredictorError as error:
            raise PredictorError(f"candidate {str(error).removeprefix('row ')}") from error
        cycle_us = table["microseconds"] / table["cycles"]
        table["low_us"] = table["interval_cycles.low"] * cycle_us
        table["high_us"] = table["interval_cycles.high"] * cycle_us
        return table

    def _may_be(self, predicted: pd.DataFrame) -> tuple[_Flags, _Flags]:
        """Tell which may be accurate enough, and which within the budget."""
        within = predicted["low_us"].to_numpy() <= self._criteria.budget_us
        least = self._criteria.min_accuracy
        if least is None:
            return np.ones(len(predicted), dtype=bool), within
        return predicted["interval_accuracy.high"].to_numpy() >= least, within

    def _chance(self, predicted: pd.DataFrame) -> _Floats:
        """Probability of each to be good, errors of latency and of accuracy being independent."""
        expected, high = (np.log(predicted[key].to_numpy()) for key in ("microseconds", "high_us"))
        budget = np.log(self._criteria.budget_us)
        chance = self._latency.below(budget - expected, high - expected)
        least = self._criteria.min_accuracy
        if least is not None:
            keys = ("accuracy", "interval_accuracy.low")
            # An interval that ends at 0 stands for what is as good as 0
            shares = (np.maximum(predicted[key].to_numpy(), RATE_FLOOR) for key in keys)
            middle, low = map(_log_odds, shares)
            wanted = _log_odds(np.array(least))
            chance *= 1 - self._accuracy.below(wanted - middle, middle - low)
        return chance

    def _work(self, rows: pd.DataFrame) -> _Floats:
        """Multiply-accumulates of a time step, times steps, times epochs."""
        macs = np.empty(len(rows))
        keys = ["network", *(f"input.{size}" for size in _SIZES)]
        shapes = rows.reindex(columns=keys).groupby(keys, sort=False, dropna=False)
        for shape, members in shapes.indices.items():
            assert isinstance(shape, tuple)
            macs[members] = self._macs_of(shape)
        steps = _column(rows, "input.time_steps", InputConfig().time_steps)
        return macs * steps * _column(rows, "training.epochs", TrainingConfig().epochs)

    def _macs_of(self, shape: tuple[Any, ...]) -> int:
        if shape not in self._macs:
            network, *given = shape
            default = InputConfig()
            sizes = {
                size: int(getattr(default, size) if number != number else number)
                for size, number in zip(_SIZES, given, strict=True)
            }
            layers = parse_network(network, **sizes, any_machine=True)
            self._macs[shape] = sum(layer.neurons * layer.fan_in for layer in layers)
        return self._macs[shape]


def checked_budget(budget_us: float) -> float:
    """Refuse a latency that no machine has."""
    return check_positive("budget_us", budget_us)


def checked_accuracy(min_accuracy: float | None) -> float | None:
    """Refuse an accuracy that is no share, or certain."""
    if min_accuracy is None:
        return None
    if not _is_number(min_accuracy) or not 0 < min_accuracy < 1:
        raise InputError(f"min_accuracy: must be above 0 and below 1, got {min_accuracy!r}")
    return float(min_accuracy)


def check_positive(name: str, value: float) -> float:
    """Refuse what is no number above 0."""
    if not _is_number(value) or not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name}: must be above 0 and finite, got {value!r}")
    return float(value)


def check_whole(name: str, value: int, least: int, most: int) -> int:
    """Refuse what is no whole number between two."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        raise InputError(f"{name}: must be a whole number from {least} to {most}, got {value!r}")
    return int(value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _column(rows: pd.DataFrame, key: str, default: int) -> _Floats:
    if key not in rows:
        return np.full(len(rows), float(default))
    return np.asarray(rows[key].astype(float).fillna(default), dtype=np.float64)


def _log_odds(share: NDArray[np.float64]) -> _Floats:
    """Log odds without the floor that learning has."""
    with np.errstate(divide="ignore"):
        odds: _Floats = np.log(share) - np.log1p(-share)
    return odds
