"""One whole fit of a timing model: the machine, and what is learned of its errors if that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..predictor.fitted import residual_features
from ..predictor.structure import Structure
from .search import find_structure
from .timing_problem import Candidate, Problem

if TYPE_CHECKING:
    import xgboost

__all__ = ["Fit", "fit_rows"]

_FOLDS = 10
_ROUNDS = 60
_PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 2,
    "eta": 0.1,
    "min_child_weight": 3,
    "lambda": 2.0,
    "nthread": 1,
    "seed": 0,
}
_WORTH_LEARNING = 0.005
"""Errors of log cycles below this are not worth a model."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """What explains some measurements.

    Attributes
    ----------
    found : Candidate
        The machine and its costs.
    booster : xgboost.Booster or None
        What it is off by, where that was worth learning.
    residual : dict
        Whether it was: ``won``, and the mean error of log cycles ``error_without`` and
        ``error_with`` it.
    """

    found: Candidate
    booster: xgboost.Booster | None
    residual: dict[str, Any]

    def predicted(self, problem: Problem) -> _Floats:
        """Cycles of every measurement, seen or not."""
        predicted = problem.predicted(self.found.structure, self.found.costs)
        if self.booster is None:
            return predicted
        return predicted * _factors(problem, self.found.structure, predicted, self.booster)


def fit_rows(problem: Problem) -> Fit:
    """Fit a machine to the rows of a problem, and a model of its errors.

    The model stays only if it lowers the errors on unseen groups by more than one standard error.
    """
    found = find_structure(problem)
    without = problem.score(found)
    summary: dict[str, Any] = {"won": False, "error_without": without, "error_with": None}
    if without < _WORTH_LEARNING:
        return Fit(found=found, booster=None, residual=summary)
    errors = _errors_with(problem, found)
    gain, standard_error = problem.difference(found.errors, errors)
    summary["error_with"] = float(problem.mean_errors(errors).mean())
    summary["won"] = gain > standard_error
    booster = None
    if summary["won"]:
        predicted = problem.predicted(found.structure, found.costs)
        booster = _booster(problem, found.structure, predicted, problem.rows)
    return Fit(found=found, booster=booster, residual=summary)


def _errors_with(problem: Problem, found: Candidate) -> _Floats:
    """Errors of log cycles that are left where neither costs nor model had seen the group."""
    errors = np.empty(len(problem.rows))
    for held_out in problem.folds(_FOLDS):
        seen, left = np.delete(problem.rows, held_out), problem.rows[held_out]
        costs, _ = problem.solve(found.structure, found.kept, rows=seen, start=found.costs)
        predicted = problem.predicted(found.structure, costs)
        booster = _booster(problem, found.structure, predicted, seen)
        better = predicted * _factors(problem, found.structure, predicted, booster)
        errors[held_out] = np.log(problem.cycles[left] / better[left])
    return errors


def _booster(
    problem: Problem, structure: Structure, predicted: _Floats, rows: NDArray[np.int64]
) -> xgboost.Booster:
    import xgboost

    features = _features(problem, structure, predicted)[rows]
    target = np.log(problem.cycles / predicted)[rows]
    data = xgboost.DMatrix(features, label=target, nthread=1)
    return xgboost.train(_PARAMETERS, data, num_boost_round=_ROUNDS)


def _factors(
    problem: Problem, structure: Structure, predicted: _Floats, booster: xgboost.Booster
) -> _Floats:
    learned = booster.inplace_predict(_features(problem, structure, predicted))
    factors: _Floats = np.exp(learned.astype(np.float64))
    return factors


def _features(problem: Problem, structure: Structure, predicted: _Floats) -> NDArray[np.float32]:
    """Features of every measurement: the mean over its samples."""
    features = residual_features(problem.model(structure), predicted[problem.owner])
    return problem.rows_of(features.astype(np.float64)).astype(np.float32)
