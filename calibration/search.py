"""Which machine explains the measurements: structures compared by what they had not seen.

A structure's costs are non-negative least squares of relative errors. Where it takes a maximum, the
longer side depends on the costs and the costs on the longer side, so the two are found in turn. A
structure is judged by its errors on groups that it was not fitted to, and of those within one
standard error of the best the simpler one is taken, unless that costs a twentieth of the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..predictor.costs import PARTS, CostModel, KnobRole, Overlap, Structure, Term
from ..predictor.workload import Workload

__all__ = ["Candidate", "Problem", "find_structure", "folds"]

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]

_CORES = (*range(1, 17), 20, 24, 28, 32, 48, 64, 96, 128, 256)
_SEARCH_FOLDS = 5
_ERROR_FOLDS = 10
_LEAVE_ONE_OUT_UP_TO = 20
_ITERATIONS = 12
_ROUNDS = 3
_STARTS = (None, 1.0)
_GAIN = 1e-3
"""A structure must be better by this share of the error to be worth another look."""
_TOLERANCE = 0.05
"""A simpler structure may be worse by this share of the error, if that is within the noise."""
_EXACT = 1e-6
"""Errors of log cycles below this are none."""
_WORST = 20.0
"""No error of log cycles counts more, so that one silent prediction does not decide."""


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
    errors : ndarray of float, shape (rows,)
        log(measured) - log(predicted) where the row's group had not been seen.
    """

    structure: Structure
    terms: tuple[Term, ...]
    kept: NDArray[np.bool_]
    errors: _Floats


@dataclass(slots=True, kw_only=True, eq=False)
class Problem:
    """Measurements to be explained.

    Attributes
    ----------
    work : Workload
        Their spikes.
    owner : ndarray of int, shape (samples,)
        Row of each sample, ascending; a row's latency is the mean of its samples.
    cycles : ndarray of float, shape (rows,)
        Measured latency.
    groups : ndarray of int, shape (rows,)
        Rows that stay together in every split.
    knobs : dict of str to float
        Names of the workload's knobs, in its order, and where their scale is one.
    """

    work: Workload
    owner: _Indices
    cycles: _Floats
    groups: _Indices
    knobs: dict[str, float]
    _models: dict[Structure, CostModel] = field(default_factory=dict)
    _seen: dict[Any, Candidate] = field(default_factory=dict)

    def model(self, structure: Structure) -> CostModel:
        """Count the work as a structure does, once."""
        if structure not in self._models:
            self._models[structure] = CostModel(
                work=self.work, structure=structure, references=self.knobs
            )
        return self._models[structure]

    def rows_of(self, per_sample: _Floats) -> _Floats:
        """Mean over the samples of each row."""
        sizes = np.bincount(self.owner)
        first = np.cumsum(sizes) - sizes
        sums = np.add.reduceat(per_sample, first, axis=0)
        means: _Floats = sums / sizes.reshape(-1, *[1] * (sums.ndim - 1))
        return means

    def solve(
        self, structure: Structure, kept: NDArray[np.bool_], rows: _Indices
    ) -> tuple[_Floats, float]:
        """Find the costs that explain some rows best.

        Parameters
        ----------
        structure : Structure
        kept : ndarray of bool, shape (terms,)
            Terms that may cost something.
        rows : ndarray of int

        Returns
        -------
        costs : ndarray of float, shape (terms,)
        loss : float
            Mean square of the relative errors.
        """
        model = self.model(structure)
        moves = structure.order != "serial" or (structure.conv, structure.dense) != ("sum", "sum")
        best, least = np.zeros(len(kept)), np.inf
        for start in _STARTS if moves else _STARTS[:1]:
            features = self._relative(model.features(waiting=start), rows)
            before = np.inf
            for _ in range(_ITERATIONS):
                costs = _non_negative(features, kept)
                if moves:
                    features = self._relative(model.features(costs), rows)
                loss = float(np.mean((features @ costs - 1) ** 2))
                if loss < least:
                    best, least = costs, loss
                if not moves or abs(loss - before) <= 1e-9 * loss + 1e-18:
                    break
                before = loss
        return best, least

    def predicted(self, structure: Structure, costs: _Floats) -> _Floats:
        """Cycles of every row, never nothing."""
        found = self.rows_of(self.model(structure).features(costs) @ costs)
        cycles: _Floats = np.maximum(found, np.exp(-_WORST) * self.cycles)
        return cycles

    def candidate(
        self, structure: Structure, kept: NDArray[np.bool_] | None = None, *, fine: bool = False
    ) -> Candidate:
        """Judge a structure by groups that its costs had not seen; `fine` takes more splits."""
        terms = self.model(structure).terms
        kept = np.ones(len(terms), dtype=bool) if kept is None else kept
        key = (structure, kept.tobytes(), fine)
        if key not in self._seen:
            errors = np.empty(len(self.cycles))
            number = _ERROR_FOLDS if fine else _SEARCH_FOLDS
            for held_out in folds(self.groups, number):
                seen = np.setdiff1d(np.arange(len(errors)), held_out)
                costs, _ = self.solve(structure, kept, seen)
                predicted = self.predicted(structure, costs)[held_out]
                errors[held_out] = np.log(self.cycles[held_out] / predicted)
            self._seen[key] = Candidate(
                structure=structure, terms=terms, kept=kept, errors=np.clip(errors, -_WORST, _WORST)
            )
        return self._seen[key]

    def mean_errors(self, candidate: Candidate) -> _Floats:
        """Mean absolute error of log cycles of every group."""
        sizes = np.bincount(self.groups)
        return np.bincount(self.groups, weights=np.abs(candidate.errors)) / sizes

    def score(self, candidate: Candidate) -> float:
        """Mean over the groups of their mean absolute error of log cycles."""
        return float(self.mean_errors(candidate).mean())

    def is_as_good(self, candidate: Candidate, best: Candidate) -> bool:
        """Whether a candidate is within one standard error of another, group by group.

        Few groups have a large standard error, so it may not be worse by more than `_TOLERANCE`.
        """
        errors = self.mean_errors(best)
        worse = self.mean_errors(candidate) - errors
        allowed = min(worse.std(ddof=1) / np.sqrt(len(worse)), _TOLERANCE * errors.mean())
        return bool(worse.mean() <= max(allowed, _EXACT))

    def _relative(self, features: _Floats, rows: _Indices) -> _Floats:
        relative: _Floats = (self.rows_of(features) / self.cycles[:, None])[rows]
        return relative


def folds(groups: _Indices, number: int = _ERROR_FOLDS) -> list[_Indices]:
    """Split rows into folds of whole groups; few groups are left out one by one."""
    order = np.random.default_rng(0).permutation(np.unique(groups))
    number = len(order) if len(order) <= _LEAVE_ONE_OUT_UP_TO else number
    return [np.flatnonzero(np.isin(groups, chunk)) for chunk in np.array_split(order, number)]


def find_structure(problem: Problem) -> Candidate:
    """Search the structure that predicts unseen groups best, and simplify it.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Candidate
        With the errors of a fine cross-validation.

    Notes
    -----
    From the best of a few usual machines one choice after the other is changed to what predicts
    best, until nothing helps. Then every choice goes back to the simpler one, and every term that
    costs something goes, where that is within one standard error.
    """
    best = min((problem.candidate(each) for each in _usual(problem)), key=problem.score)
    for _ in range(_ROUNDS):
        before = problem.score(best)
        for choices in _choices(problem, best.structure):
            options = [problem.candidate(each) for each in choices]
            found = min(options, key=problem.score, default=best)
            if problem.score(found) < (1 - _GAIN) * problem.score(best) - _EXACT:
                best = found
        if problem.score(best) > (1 - _GAIN) * before - _EXACT:
            break
    reference = best
    for simpler in _simpler(problem, reference.structure):
        candidate = problem.candidate(replace(best.structure, **simpler))
        if candidate.structure != best.structure and problem.is_as_good(candidate, reference):
            best = candidate
    return _without_idle_terms(problem, best)


def _usual(problem: Problem) -> list[Structure]:
    """Machines to begin with: without overlap, with it step by step, and map by map."""
    structures = [
        Structure(separate=separate, **choice)
        for separate in _separations(problem)
        for choice in (
            {},
            {"conv": "step", "dense": "step"},
            {"conv": "step", "fire_overlaps": True},
            {"conv": "map", "conv_repeats": True, "borders": True},
        )
    ]
    return [replace(each, order=order) for each in structures for order in _orders(problem)[:3]]


def _choices(problem: Problem, at: Structure) -> Iterator[list[Structure]]:
    """Options for one choice after the other, the rest as it is."""
    dense = problem.work.dense
    sources = list(problem.knobs)
    fixed = sorted(_CORES, key=lambda number: _quick_loss(problem, replace(at, cores=number)))[:2]
    yield [replace(at, cores=cores) for cores in (None, *fixed, *_countable(problem, sources))]
    yield [replace(at, width=width) for width in (None, 1, *_countable(problem, sources))]
    ways: tuple[Overlap, ...] = get_args(Overlap)
    overlaps = [(way, repeats) for way in ways for repeats in (False, True)]
    if not dense.all():
        yield [
            replace(at, conv=way, conv_repeats=repeats, borders=borders, fire_overlaps=firing)
            for way, repeats in overlaps
            for borders in (False, True)
            for firing in ((False, True) if way == "step" else (at.fire_overlaps,))
        ]
    if dense.any():
        yield [
            replace(at, dense=way, dense_repeats=repeats, fire_overlaps=firing)
            for way, repeats in overlaps
            if way != "map"
            for firing in ((False, True) if way == "step" else (at.fire_overlaps,))
        ]
    yield [replace(at, separate=separate) for separate in _separations(problem)]
    yield [replace(at, order=order) for order in _orders(problem)]
    used = {at.cores, at.width}
    for name in sources:
        if name not in used:
            others = tuple(role for role in at.roles if role.knob != name)
            yield [replace(at, roles=(*others, *role)) for role in _roles(problem, name)]


def _simpler(problem: Problem, at: Structure) -> Iterator[dict[str, Any]]:
    """Simpler choices than those of a structure, the most doubtful first."""
    for index in range(len(at.roles)):
        yield {"roles": at.roles[:index] + at.roles[index + 1 :]}
    if at.order != "serial":
        yield {"order": "serial"}
    for kind in ("dense", "conv"):
        yield {kind: "sum", f"{kind}_repeats": False}
        yield {f"{kind}_repeats": False}
        if getattr(at, kind) == "map":
            yield {kind: "step"}
    yield {"fire_overlaps": False}
    yield {"separate": False}
    yield {"cores": None}
    yield {"width": None}
    yield {"borders": False}


def _without_idle_terms(problem: Problem, best: Candidate) -> Candidate:
    """Drop terms that cost nothing, then those that unseen groups do not miss, cheapest first."""
    everything = np.arange(len(problem.cycles))
    costs, _ = problem.solve(best.structure, best.kept, everything)
    kept = costs > 0
    reference = problem.candidate(best.structure, kept, fine=True)
    shares = problem._relative(problem.model(best.structure).features(costs), everything) * costs
    for term in np.argsort(shares.mean(axis=0)):
        if kept[term] and kept.sum() > 1:
            fewer = kept.copy()
            fewer[term] = False
            candidate = problem.candidate(best.structure, fewer, fine=True)
            if problem.is_as_good(candidate, reference):
                kept = fewer
    return problem.candidate(best.structure, kept, fine=True)


def _non_negative(features: _Floats, kept: NDArray[np.bool_]) -> _Floats:
    """Least squares of ``features @ costs = 1`` with costs of at least nothing."""
    from scipy.optimize import nnls

    size = np.sqrt((features**2).sum(axis=0))
    used = kept & (size > 0)
    costs = np.zeros(len(kept))
    if used.any():
        costs[used] = nnls(features[:, used] / size[used], np.ones(len(features)))[0] / size[used]
    return costs


def _quick_loss(problem: Problem, structure: Structure) -> float:
    kept = np.ones(len(problem.model(structure).terms), dtype=bool)
    return problem.solve(structure, kept, np.arange(len(problem.cycles)))[1]


def _separations(problem: Problem) -> tuple[bool, ...]:
    """Costs of their own make a difference where both kinds of layers were measured."""
    dense = problem.work.dense
    return (False, True) if dense.any() and not dense.all() else (False,)


def _orders(problem: Problem) -> tuple[Any, ...]:
    """Orders that the measurements can tell apart."""
    if not problem.work.layer.any():
        return ("serial",)
    orders = ("serial", "lockstep", "pipelined", "slowest")
    pipelined = problem.work.pipelined
    return (*orders, "schedule") if pipelined.any() and not pipelined.all() else orders


def _countable(problem: Problem, names: Sequence[str]) -> list[str]:
    """Knobs that may be a number of cores or lines."""
    return [name for name in names if problem.work.knobs[:, _column(problem, name)].min() >= 1]


def _roles(problem: Problem, name: str) -> list[tuple[KnobRole, ...]]:
    """Nothing, or any work that grows or shrinks with a knob."""
    values = problem.work.knobs[:, _column(problem, name)]
    if values.min() == values.max() or values.min() < 0:
        return [()]
    inverses = (False, True) if values.min() > 0 else (False,)
    groups = dict.fromkeys(part.group for part in PARTS.values())
    return [
        (),
        *(
            (KnobRole(knob=name, group=group, inverse=inverse),)
            for group in groups
            for inverse in inverses
        ),
    ]


def _column(problem: Problem, name: str) -> int:
    return list(problem.knobs).index(name)
