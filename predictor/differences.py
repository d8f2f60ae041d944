"""How far the difference of two predictions may be off: learned from pairs of calibrated runs.

The interval of one prediction is for one training. A change asks about two trainings of one network
on one data set, whose errors are partly the same. So the runs of a predictor are taken in pairs:
errors that both share cancel, and what is left says how wide an interval of the change must be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import PredictorError
from .features import config_from_row, group_key
from .intervals import TOO_FEW_FACTOR, WIDEST
from .knobs import frame_of
from .sparsity import accuracy_interval, logistic, logit

if TYPE_CHECKING:
    import pandas as pd

    from .predict import LatencyPredictor

__all__ = [
    "UNSEEN_CYCLES",
    "CalibratedRuns",
    "DifferenceErrors",
    "difference_errors",
    "read_calibrated",
]

UNSEEN_CYCLES = "cycles.unseen"
"""Column of a predictor's runs: cycles that a model predicted which had not seen the run."""

_NEEDED = ("status", "dataset", "network", "cycles.mean", "accuracy.integer.test")
_LEAST = 1e-9

_INDEPENDENT = (
    "change intervals: the runs of this predictor are not those of its errors, or no network has "
    "two of them, so the two errors of a change are taken as independent"
)
_FITTED = (
    "calibrated runs: the runs of this predictor are not those of its errors, so what is shown as "
    "predicted is what the predictor says after it has learned from them"
)

_NOT_KEPT = (
    "calibrated runs: this predictor has kept errors over their predicted spread alone, so how far "
    "off their predictions were is approximate, and whether an interval held is exact"
)

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibratedRuns:
    """The runs of a predictor beside what it predicts of them; arrays have shape (runs,).

    Attributes
    ----------
    table : DataFrame
        As `LatencyPredictor.table` gives it.
    configs : list of Config
    frame : DataFrame
        The same by flat key.
    log_cycles, accuracy : ndarray of float
        Measured.
    predicted : DataFrame
        What the predictor says after it has learned from all of them.
    errors, accuracy_errors : ndarray of float
        Out of fold: of log cycles over the predicted spread, and of log odds of accuracy. Empty if
        those of the predictor are of other runs.
    groups : ndarray of int
        Runs of one group differ in seed and hardware alone.
    unit : float
        Spreads in the half width of an interval.
    unseen : ndarray of float
        Log cycles out of fold; NaN where the predictor did not keep them.
    """

    table: pd.DataFrame
    configs: list[Config]
    frame: pd.DataFrame
    log_cycles: _Floats
    accuracy: _Floats
    predicted: pd.DataFrame
    errors: _Floats
    accuracy_errors: _Floats
    groups: _Indices
    unit: float
    unseen: _Floats

    @property
    def has_errors(self) -> bool:
        """Whether errors out of fold are known of these runs."""
        return len(self.errors) > 0

    @property
    def spread(self) -> _Floats:
        """By what errors of log cycles were divided; where that is not kept, as it is today."""
        spread = half_widths(self.predicted) / self.unit
        if self.has_errors:
            known = (np.abs(self.errors) > _LEAST) & ~np.isnan(self.unseen)
            np.divide(self.log_cycles - self.unseen, self.errors, out=spread, where=known)
        return spread

    def beside_measured(self, config: Config) -> pd.DataFrame:
        """Give predicted beside measured cycles of each run.

        Returns
        -------
        DataFrame
            Columns ``dataset``, ``network``, ``predicted``, ``low``, ``high``, ``measured``,
            ``accuracy``, ``status`` and ``same``: whether data set and network are those of
            `config`.

        Notes
        -----
        Predicted out of fold, by a model that had not seen the run.
        """
        import pandas as pd

        half = self.spread * self.unit
        logs = np.log(self.predicted["cycles"].to_numpy())
        if self.has_errors:
            logs = self.log_cycles - self.errors * self.spread
        same = [
            (run.dataset, run.network) == (config.dataset, config.network) for run in self.configs
        ]
        return pd.DataFrame(
            {
                "dataset": [run.dataset for run in self.configs],
                "network": [run.network for run in self.configs],
                "predicted": np.exp(logs),
                "low": np.exp(logs - half),
                "high": np.exp(logs + half),
                "measured": np.exp(self.log_cycles),
                "accuracy": self.accuracy,
                "status": self.table["status"].to_numpy(),
                "same": same,
            }
        )

    @property
    def doubt(self) -> str | None:
        """A sentence if `beside_measured` is not out of fold, or only about so."""
        if not self.has_errors:
            return _FITTED
        return _NOT_KEPT if np.isnan(self.unseen).any() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceErrors:
    """How wide intervals of a difference must be.

    Attributes
    ----------
    cycles : float
        Half width for log cycles, over the root of the sum of the squared half widths of both.
    accuracy : float
        The same for accuracies, whose half width is half of their interval.
    warning : str or None
        A sentence if that is not from pairs.
    """

    cycles: float
    accuracy: float
    warning: str | None = None

    def of_cycles(self, first: _Floats, second: _Floats) -> _Floats:
        """Half width of the difference of log cycles, from the half widths of both."""
        half: _Floats = np.minimum(self.cycles * np.hypot(first, second), WIDEST)
        return half

    def of_accuracy(self, first: _Floats, second: _Floats) -> _Floats:
        """Half width of the difference of accuracies, from the half widths of both."""
        half: _Floats = np.minimum(self.accuracy * np.hypot(first, second), 1.0)
        return half


def read_calibrated(predictor: LatencyPredictor, confidence: float) -> CalibratedRuns:
    """Read the runs of a predictor, and predict them.

    Raises
    ------
    PredictorError
        If they cannot be read, or lack a column.
    InputError
        If one of them is no configuration.
    """
    table = predictor.table()
    for column in _NEEDED:
        if column not in table.columns:
            raise PredictorError(f"the runs of the predictor must have a column {column!r}")
    configs = [config_from_row(row) for row in table.to_dict("records")]
    frame = frame_of(configs)
    keys = [group_key(config) for config in configs]
    groups = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    residuals = predictor.parts.residuals
    cycles, odds = residuals["hyperparameters"], residuals["accuracy"]
    known = all(np.array_equal(each.group, groups) for each in (cycles, odds))
    return CalibratedRuns(
        table=table,
        configs=configs,
        frame=frame,
        log_cycles=np.log(table["cycles.mean"].to_numpy(dtype=np.float64)),
        accuracy=table["accuracy.integer.test"].to_numpy(dtype=np.float64),
        predicted=predictor.predict(frame, confidence=confidence),
        errors=cycles.error if known else np.empty(0),
        unseen=_unseen_log_cycles(table),
        accuracy_errors=odds.error if known else np.empty(0),
        groups=groups,
        unit=max(cycles.half_width(confidence)[0], _LEAST),
    )


def difference_errors(
    predictor: LatencyPredictor, runs: CalibratedRuns, confidence: float
) -> DifferenceErrors:
    """Find how wide intervals of a difference must be.

    Parameters
    ----------
    predictor : LatencyPredictor
    runs : CalibratedRuns
        Predicted with the same confidence.
    confidence : float
        In (0, 1).

    Returns
    -------
    DifferenceErrors

    Notes
    -----
    All pairs of different points with the same data set and network are taken, each with the weight
    of one, shared by repetitions. The error of a pair is that of its difference, over the root of
    the sum of the squares of what is predicted of each: spreads of log cycles, half widths of
    accuracy. Its quantile plays the part that the quantile of single errors plays for intervals of
    one prediction, also in that the largest 1/(n + 1) of n points is left out. Pairs that share a
    point depend on one another, so that this holds approximately. Both trainings draw their seeds
    anew, and the interval holds what that brings.
    """
    first, second = _pairs(runs) if runs.has_errors else (np.empty(0, dtype=np.int64),) * 2
    if not len(first):
        return DifferenceErrors(cycles=1.0, accuracy=1.0, warning=_INDEPENDENT)
    sizes = np.bincount(runs.groups)[runs.groups]
    weight = 1 / (sizes[first] * sizes[second])
    points = len(np.unique(runs.groups[np.concatenate([first, second])]))
    half_width, _ = predictor.parts.residuals["accuracy"].half_width(confidence)
    expected = logistic(logit(runs.accuracy) - runs.accuracy_errors)
    _, low, high = accuracy_interval(expected, half_width)
    missed = runs.accuracy - expected

    def quantile(errors: _Floats, scale: _Floats) -> float:
        distance = np.abs(errors[first] - errors[second])
        ratio = distance / np.maximum(np.hypot(scale[first], scale[second]), _LEAST)
        return _weighted_quantile(ratio, weight, points, confidence)

    spread = runs.spread
    return DifferenceErrors(
        cycles=quantile(runs.errors * spread, spread) / runs.unit,
        accuracy=quantile(missed, (high - low) / 2),
    )


def _unseen_log_cycles(table: pd.DataFrame) -> _Floats:
    if UNSEEN_CYCLES not in table.columns:
        return np.full(len(table), np.nan)
    cycles = table[UNSEEN_CYCLES].to_numpy(dtype=np.float64)
    if not (np.isfinite(cycles).all() and cycles.min(initial=1.0) > 0):
        rule = "must be positive and finite in every run of the predictor"
        raise PredictorError(f"{UNSEEN_CYCLES}: {rule}, got {cycles.min():g}")
    logs: _Floats = np.log(cycles)
    return logs


def half_widths(predicted: pd.DataFrame) -> _Floats:
    """Half widths of the intervals of log cycles of some predictions."""
    half: _Floats = np.log(
        predicted["interval_cycles.high"].to_numpy() / predicted["cycles"].to_numpy()
    )
    return half


def accuracy_half_widths(predicted: pd.DataFrame) -> _Floats:
    """Half of the intervals of accuracy of some predictions."""
    half: _Floats = (
        predicted["interval_accuracy.high"].to_numpy()
        - predicted["interval_accuracy.low"].to_numpy()
    ) / 2
    return half


def _pairs(runs: CalibratedRuns) -> tuple[_Indices, _Indices]:
    """Pairs of runs of the same data set and network, but of different points."""
    alike: dict[tuple[str | None, str], list[int]] = {}
    for number, config in enumerate(runs.configs):
        alike.setdefault((config.dataset, config.network), []).append(number)
    found = [_all_pairs(np.array(members)) for members in alike.values()]
    first, second = np.concatenate(found, axis=1)
    different = runs.groups[first] != runs.groups[second]
    return first[different], second[different]


def _all_pairs(members: _Indices) -> NDArray[np.int64]:
    return members[np.stack(np.triu_indices(len(members), 1))]


def _weighted_quantile(values: _Floats, weight: _Floats, points: int, confidence: float) -> float:
    """Quantile of weighted values, of which 1/(points + 1) lie at infinity."""
    order = np.argsort(values, kind="stable")
    covered = np.cumsum(weight[order]) / weight.sum() * (points / (points + 1))
    reached = int(np.searchsorted(covered, confidence - 1e-12))
    if reached == len(values):
        return float(values.max()) * TOO_FEW_FACTOR
    return float(values[order[reached]])
