"""Which machine explains the measurements: structures compared by what they had not seen.

A structure is judged by its errors on groups that it was not fitted to, and of those within one
standard error of the best the simpler one is taken, unless that costs a twentieth of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..predictor.structure import PARTS, KnobRole, Overlap, Structure
from .timing_problem import EXACT, Candidate, Problem

__all__ = ["find_structure"]

_Floats = NDArray[np.float64]
_Choice = Callable[[Problem, Structure], list[Structure]]

_ROUNDS = 3
_GAIN = 1e-3
"""A structure must be better by this share of the error to be worth another look."""
_SAME = 1e-9
"""Predictions this close, as a share, are the same."""
_JUDGED = 12
"""Of the options of a choice this many are held against unseen groups."""
_SCANNED = 48
"""So many numbers of cores or lines are all tried; of more these many, then around the best."""


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
    costs something goes, where that is within one standard error. What no longer makes a
    difference to any measurement then is not said of the machine.
    """
    best = min(_judged(problem, _usual(problem)), key=problem.score)
    for _ in range(_ROUNDS):
        before = problem.score(best)
        for choice in (_core_choices, *_role_choices(problem), *_CHOICES):
            options = _judged(problem, choice(problem, best.structure))
            found = min(options, key=problem.score, default=best)
            if problem.score(found) < (1 - _GAIN) * problem.score(best) - EXACT:
                best = found
        if problem.score(best) > (1 - _GAIN) * before - EXACT:
            break
    reference = best
    for simpler in _simpler(reference.structure):
        candidate = problem.candidate(replace(best.structure, **simpler))
        if candidate.structure != best.structure and problem.is_as_good(candidate, reference):
            best = candidate
    return _without_idle_choices(problem, _without_idle_terms(problem, best))


def _judged(problem: Problem, structures: list[Structure]) -> list[Candidate]:
    """Judge the structures that explain best what was seen."""
    return [problem.candidate(each) for each in sorted(structures, key=problem.loss)[:_JUDGED]]


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


def _core_choices(problem: Problem, at: Structure) -> list[Structure]:
    work = problem.work
    return [
        replace(at, cores=cores)
        for cores in (
            None,
            *_best_numbers(problem, lambda cores: replace(at, cores=cores), work.channels),
            *_countable(problem),
        )
    ]


def _width_choices(problem: Problem, at: Structure) -> list[Structure]:
    work = problem.work
    lines = np.where(
        np.where(work.dense, at.dense == "map", at.conv == "map"), work.pixels, work.inputs
    )
    numbers = _best_numbers(problem, lambda width: replace(at, width=width), lines)
    return [replace(at, width=width) for width in (None, 1, *numbers, *_countable(problem))]


def _conv_choices(problem: Problem, at: Structure) -> list[Structure]:
    if problem.work.dense.all():
        return []
    return [
        replace(at, conv=way, conv_repeats=repeats, borders=borders, fire_overlaps=firing)
        for way, repeats in _OVERLAPS
        for borders in (False, True)
        for firing in ((False, True) if way == "step" else (at.fire_overlaps,))
    ]


def _dense_choices(problem: Problem, at: Structure) -> list[Structure]:
    if not problem.work.dense.any():
        return []
    return [
        replace(at, dense=way, dense_repeats=repeats, fire_overlaps=firing)
        for way, repeats in _OVERLAPS
        if way != "map"
        for firing in ((False, True) if way == "step" else (at.fire_overlaps,))
    ]


def _separate_choices(problem: Problem, at: Structure) -> list[Structure]:
    return [replace(at, separate=separate) for separate in _separations(problem)]


def _order_choices(problem: Problem, at: Structure) -> list[Structure]:
    return [replace(at, order=order) for order in _orders(problem)]


def _role_choices(problem: Problem) -> list[_Choice]:
    """Give each knob another role, or none; then it no longer counts cores or lines."""

    def options(problem: Problem, at: Structure, name: str) -> list[Structure]:
        others = tuple(role for role in at.roles if role.knob != name)
        free = replace(
            at,
            cores=None if at.cores == name else at.cores,
            width=None if at.width == name else at.width,
        )
        return [replace(free, roles=(*others, *role)) for role in _roles(problem, name)]

    return [partial(options, name=name) for name in problem.knobs]


_OVERLAPS: list[tuple[Overlap, bool]] = [
    (way, repeats) for way in get_args(Overlap) for repeats in (False, True)
]
_CHOICES: tuple[_Choice, ...] = (
    _width_choices,
    _conv_choices,
    _dense_choices,
    _separate_choices,
    _order_choices,
)
"""Options for what follows cores and roles of knobs, one choice after the other."""


def _best_numbers(
    problem: Problem,
    with_number: Callable[[int], Structure],
    shared: _Floats,
    best: int = 2,
) -> list[int]:
    """Find the numbers that explain best how often something is to be done.

    Every number counts that shares something another way (``ceil(shared / number)``). Few are all
    tried, many first thinly, then more and more of them around the best.
    """
    numbers = _distinct_shares(shared)
    losses: dict[int, float] = {}
    tried = _spread(0, len(numbers) - 1)
    while True:
        for index in tried:
            if index not in losses:
                structure = with_number(numbers[index])
                losses[index] = problem.solve(structure, iterations=3)[1]
        ranked = sorted(losses, key=lambda index: losses[index])
        known = sorted(losses)
        gaps = [
            (low, high)
            for low, high in pairwise(known)
            if high > low + 1 and {low, high} & set(ranked[: best + 1])
        ]
        if not gaps:
            return [numbers[index] for index in ranked[:best]]
        tried = [index for low, high in gaps for index in _spread(low, high, _SCANNED // 4)]


def _distinct_shares(shared: _Floats) -> list[int]:
    """Numbers from 1 on of which no two share all of some amounts alike, the smallest of each."""
    amounts = np.unique(shared)
    small = np.arange(1, int(np.sqrt(amounts[-1])) + 2)
    # Up to the root of an amount every number shares it another way, above it only these
    numbers = np.unique([small, *np.ceil(amounts[:, None] / small)]).astype(np.int64)
    shares = np.ceil(amounts[:, None] / numbers)
    changes = np.flatnonzero((np.diff(shares, axis=1) != 0).any(axis=0)) + 1
    return [1, *(int(number) for number in numbers[changes])]


def _spread(low: int, high: int, number: int = _SCANNED) -> list[int]:
    """Choose indices from `low` to `high`, denser towards the small ones."""
    if high - low < number:
        return list(range(low, high + 1))
    steps = np.geomspace(1, high - low + 1, number)
    return sorted({low + int(step) - 1 for step in steps})


def _simpler(at: Structure) -> Iterator[dict[str, Any]]:
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
    kept = best.costs > 0
    reference = problem.candidate(best.structure, kept, fine=True)
    relative = problem.relative(problem.model(best.structure).features(best.costs), problem.rows)
    for term in np.argsort((relative * best.costs).mean(axis=0)):
        if kept[term] and kept.sum() > 1:
            fewer = kept.copy()
            fewer[term] = False
            candidate = problem.candidate(best.structure, fewer, fine=True)
            if problem.is_as_good(candidate, reference):
                kept = fewer
    return problem.candidate(best.structure, kept, fine=True)


def _without_idle_choices(problem: Problem, best: Candidate) -> Candidate:
    """Undo choices that make no difference to what the terms that are left predict."""
    left = {term for term, cost in zip(best.terms, best.costs, strict=True) if cost > 0}
    predicted = problem.predicted(best.structure, best.costs)
    for simpler in _simpler(best.structure):
        structure = replace(best.structure, **simpler)
        terms = problem.model(structure).terms
        if not left <= set(terms):
            continue
        found = dict(zip(best.terms, best.costs, strict=True))
        costs = np.array([found.get(term, 0.0) for term in terms])
        if np.allclose(problem.predicted(structure, costs), predicted, rtol=_SAME, atol=0):
            kept = np.array([term in left for term in terms])
            best = replace(best, structure=structure, terms=terms, kept=kept, costs=costs)
    return best


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


def _countable(problem: Problem) -> list[str]:
    """Knobs that may be a number of cores or lines."""
    return [
        name for name in problem.knobs if problem.work.knobs[:, _column(problem, name)].min() >= 1
    ]


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
