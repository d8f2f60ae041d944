"""Measurements as a problem: what a structure costs, and how it does where nothing was seen.

A structure's costs are non-negative least squares of relative errors. Where it takes a maximum, the
longer side depends on the costs and the costs on the longer side, so the two are found in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..predictor.costs import CostModel, cost_model
from ..predictor.structure import Structure, Term
from ..predictor.workload import Workload

__all__ = ["EXACT", "Candidate", "Problem"]

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]
_Indices = NDArray[np.int64]

EXACT = 1e-6
"""Errors of log cycles below this are none."""

_FOLDS = 5
_FINE_FOLDS = 10
_LEAVE_ONE_OUT_UP_TO = 20
_ITERATIONS = 10
_SETTLED = 1e-5
"""Costs and maxima are found when the loss falls by no more than this share."""
_STARTS = (None, 1.0)
_TOLERANCE = 0.05
"""A simpler structure may be worse by this share of the error, if that is within the noise."""
_WORST = 20.0
"""No error of log cycles counts more, so that one silent prediction does not decide."""
_MODELS = 400
"""Counted structures that are kept at hand."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A structure with its costs.

    Attributes
    ----------
    structure : Structure
    terms : tuple of Term
        Costs that it leaves open.
    kept : ndarray of bool, shape (terms,)
        Those that are not forced to nothing.
    costs : ndarray of float, shape (terms,)
        What explains all rows of the problem best.
    errors : ndarray of float, shape (rows,)
        log(measured) - log(predicted) where the costs had not seen the row's group.
    """

    structure: Structure
    terms: tuple[Term, ...]
    kept: _Flags
    costs: _Floats
    errors: _Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Measurements to be explained.

    Attributes
    ----------
    work : Workload
        Their spikes.
    owner : ndarray of int, shape (samples,)
        Row of each sample, ascending; a row's latency is the mean of its samples.
    cycles : ndarray of float, shape (measurements,)
        Measured latency.
    groups : ndarray of int, shape (measurements,)
        Measurements that stay together in every split.
    knobs : dict of str to float
        Names of the workload's knobs, in its order, and where their scale is one.
    rows : ndarray of int, shape (rows,)
        The measurements that may be looked at; predictions are of all.
    """

    work: Workload
    owner: _Indices
    cycles: _Floats
    groups: _Indices
    knobs: dict[str, float]
    rows: _Indices
    _models: dict[Structure, CostModel] = field(default_factory=dict)
    _solved: dict[Structure, tuple[_Floats, float]] = field(default_factory=dict)
    _judged: dict[Any, Candidate] = field(default_factory=dict)

    def part(self, rows: _Indices) -> Problem:
        """Look at some of the measurements alone."""
        return replace(self, rows=rows, _solved={}, _judged={})

    def model(self, structure: Structure) -> CostModel:
        """Count the work as a structure does, once."""
        if structure not in self._models:
            while len(self._models) >= _MODELS:
                del self._models[next(iter(self._models))]
            self._models[structure] = cost_model(self.work, structure, self.knobs)
        return self._models[structure]

    def rows_of(self, per_sample: _Floats) -> _Floats:
        """Mean over the samples of each measurement."""
        sizes = np.bincount(self.owner)
        first = np.cumsum(sizes) - sizes
        sums = np.add.reduceat(per_sample, first, axis=0)
        means: _Floats = sums / sizes.reshape(-1, *[1] * (sums.ndim - 1))
        return means

    def relative(self, features: _Floats, rows: _Indices) -> _Floats:
        """Work of some rows by what they took, from that of all samples."""
        relative: _Floats = (self.rows_of(features) / self.cycles[:, None])[rows]
        return relative

    def solve(
        self,
        structure: Structure,
        kept: _Flags | None = None,
        *,
        rows: _Indices | None = None,
        start: _Floats | None = None,
        iterations: int = _ITERATIONS,
    ) -> tuple[_Floats, float]:
        """Find the costs that explain some rows best.

        Parameters
        ----------
        structure : Structure
        kept : ndarray of bool, shape (terms,), optional
            Terms that may cost something. Default: all.
        rows : ndarray of int, optional
            Default: all of the problem.
        start : ndarray of float, shape (terms,), optional
            Costs whose maxima come first. Default: several guesses.
        iterations : int, optional
            Costs and maxima follow each other so often at most.

        Returns
        -------
        costs : ndarray of float, shape (terms,)
        loss : float
            Mean square of the relative errors.
        """
        model = self.model(structure)
        rows = self.rows if rows is None else rows
        kept = np.ones(len(model.terms), dtype=bool) if kept is None else kept
        if start is not None:
            starts = [model.features(start)]
        else:
            starts = [model.features(waiting=share) for share in _STARTS[: 1 + _moves(structure)]]
        best, least = np.zeros(len(kept)), np.inf
        for features in starts:
            relative = self.relative(features, rows)
            before = np.inf
            for _ in range(iterations):
                costs = _non_negative(relative, kept)
                if _moves(structure):
                    relative = self.relative(model.features(costs), rows)
                loss = float(np.mean((relative @ costs - 1) ** 2))
                if loss < least:
                    best, least = costs, loss
                if not _moves(structure) or loss >= (1 - _SETTLED) * before or loss < EXACT**2:
                    break
                before = loss
        return best, least

    def predicted(self, structure: Structure, costs: _Floats) -> _Floats:
        """Cycles of every measurement, never nothing."""
        found = self.rows_of(self.model(structure).features(costs) @ costs)
        cycles: _Floats = np.maximum(found, np.exp(-_WORST) * self.cycles)
        return cycles

    def loss(self, structure: Structure) -> float:
        """Mean square of the relative errors of a structure where all was seen."""
        return self._costs(structure)[1]

    def candidate(
        self, structure: Structure, kept: _Flags | None = None, *, fine: bool = False
    ) -> Candidate:
        """Judge a structure by groups that its costs had not seen; `fine` takes more splits."""
        terms = self.model(structure).terms
        costs = self._costs(structure)[0]
        if kept is None:
            kept = np.ones(len(terms), dtype=bool)
        else:
            costs, _ = self.solve(structure, kept, start=np.where(kept, costs, 0.0))
        key = (structure, kept.tobytes(), fine)
        if key not in self._judged:
            errors = np.empty(len(self.rows))
            for held_out in self.folds(_FINE_FOLDS if fine else _FOLDS):
                seen = np.delete(self.rows, held_out)
                fold_costs, _ = self.solve(structure, kept, rows=seen, start=costs)
                left = self.rows[held_out]
                predicted = self.predicted(structure, fold_costs)[left]
                errors[held_out] = np.log(self.cycles[left] / predicted)
            self._judged[key] = Candidate(
                structure=structure,
                terms=terms,
                kept=kept,
                costs=costs,
                errors=np.clip(errors, -_WORST, _WORST),
            )
        return self._judged[key]

    def folds(self, number: int) -> list[_Indices]:
        """Split the rows, by their places among them."""
        return _folds(self.groups[self.rows], number)

    def mean_errors(self, errors: _Floats) -> _Floats:
        """Mean absolute error of log cycles of every group."""
        _, member = np.unique(self.groups[self.rows], return_inverse=True)
        means: _Floats = np.bincount(member, weights=np.abs(errors)) / np.bincount(member)
        return means

    def score(self, candidate: Candidate) -> float:
        """Mean over the groups of their mean absolute error of log cycles."""
        return float(self.mean_errors(candidate.errors).mean())

    def is_as_good(self, candidate: Candidate, best: Candidate) -> bool:
        """Whether a candidate is within one standard error of another, group by group.

        Few groups have a large standard error, so it may not be worse by more than `_TOLERANCE`.
        """
        worse, error = self.difference(candidate.errors, best.errors)
        allowed = min(error, _TOLERANCE * self.score(best))
        return worse <= max(allowed, EXACT)

    def difference(self, errors: _Floats, others: _Floats) -> tuple[float, float]:
        """By how much errors are larger than others, mean over the groups and standard error."""
        larger = self.mean_errors(errors) - self.mean_errors(others)
        return float(larger.mean()), float(larger.std(ddof=1) / np.sqrt(len(larger)))

    def _costs(self, structure: Structure) -> tuple[_Floats, float]:
        if structure not in self._solved:
            self._solved[structure] = self.solve(structure)
        return self._solved[structure]


def _folds(groups: _Indices, number: int) -> list[_Indices]:
    """Split rows into folds of whole groups; where many are asked for, few are left out singly."""
    order = np.random.default_rng(0).permutation(np.unique(groups))
    if number > _FOLDS and len(order) <= _LEAVE_ONE_OUT_UP_TO:
        number = len(order)
    chunks = np.array_split(order, min(number, len(order)))
    return [np.flatnonzero(np.isin(groups, chunk)) for chunk in chunks]


def _moves(structure: Structure) -> bool:
    """Whether the work that counts depends on the costs."""
    return structure.order != "serial" or (structure.conv, structure.dense) != ("sum", "sum")


def _non_negative(features: _Floats, kept: NDArray[np.bool_]) -> _Floats:
    """Least squares of ``features @ costs = 1`` with costs of at least nothing."""
    from scipy.optimize import nnls

    size = np.sqrt((features**2).sum(axis=0))
    used = kept & (size > 0)
    costs = np.zeros(len(kept))
    if used.any():
        costs[used] = nnls(features[:, used] / size[used], np.ones(len(features)))[0] / size[used]
    return costs
