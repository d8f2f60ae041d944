"""The search for the cheapest allocation within every budget, and the proof that it is it.

A lower bound joins a number of each layer, which depends on that layer's cores alone, to a sum or
to a maximum. Dynamic programming over the cores then solves it for every budget at once.

* With ``layer_serial`` the latency is such a sum itself, and the solution is the answer.
* With ``step_pipelined`` the latency of a sample is the longest path through its steps. Any path,
  and any average of paths, bounds it from below by a weighted sum of step costs. The weighting is
  averaged over the longest paths of the allocations that it leads to (fictitious play).
* An initiation interval is at least the mean cycles of every layer, and of the load of the input.
  From counts it is the slowest of these, sample by sample. In a stream of a trace the longest path
  to a result passes every layer; one round of all samples more, spent in that layer, makes it a
  path to the result one round later.

What a bound leaves open is closed by branch and bound. Layer by layer, a partial allocation goes on
if some completion of it could still beat the best known by all bounds; whole ones that are left
are costed. If there are more than can be looked at, the best known stands with the gap that the
bounds leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .allocation_costs import AllocationCosts, Objective

__all__ = ["TOLERANCE", "Point", "cheapest_allocations", "moved_choices"]

TOLERANCE = 1e-9
"""Objectives that differ by a smaller share are equal but for rounding."""
_WEIGHTINGS = 3
"""Budgets that costs are weighted for."""
_ROUNDS = 10
"""Allocations that a weighting is averaged over."""
_MOST = 2**23
"""Costs that a proof may hold at a time, or it is given up."""
_EFFORT = 2**28
"""Costs that all proofs together may go through. So no result depends on time."""
_MOVING = 2**27
"""Costs that moves of single layers may go through."""

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """An allocation that none on fewer cores equals.

    Attributes
    ----------
    cores : int
        That it uses.
    value : float
        Objective in cycles.
    choice : ndarray of int, shape (layers,)
        Option of each layer.
    bound : float
        None within the budget of this point, up to the next one, costs less. Equal to the value
        where that is proved.
    """

    cores: int
    value: float
    choice: _Indices
    bound: float

    @property
    def exact(self) -> bool:
        """Whether no allocation on as many cores or fewer costs less."""
        return self.bound >= self.value


def cheapest_allocations(
    costs: AllocationCosts, objective: Objective, budget: int, *, effort: int = _EFFORT
) -> list[Point]:
    """Find the best allocation within every budget up to one.

    Parameters
    ----------
    costs : AllocationCosts
    objective : {"latency", "interval"}
    budget : int
        Most cores in total; at least one per layer.
    effort : int, optional
        Costs that the proofs may go through.

    Returns
    -------
    list of Point
        By rising cores, each better than all before it.
    """
    search = Search(costs, objective, min(budget, costs.most_cores))
    if objective == "interval" or costs.is_sum(objective):
        search.add(layer_bound(costs, objective, search.budget))
    if not (costs.is_sum(objective) or (objective == "interval" and costs.stream)):
        search.weigh()
    search.try_moves()
    search.prove(effort)
    return search.points()


def moved_choices(costs: AllocationCosts, choices: _Indices, budget: int) -> _Indices:
    """Move one layer to its next option, or one up and another down, within the budget.

    Parameters
    ----------
    costs : AllocationCosts
    choices : ndarray of int, shape (allocations, layers)
    budget : int
        Most cores in total.

    Returns
    -------
    ndarray of int, shape (neighbours, layers)
        All different.
    """
    layers = choices.shape[1]
    up = np.eye(layers, dtype=np.int64)
    pairs = up[:, None] - up[None, :]
    moves = np.concatenate([up, -up, pairs[~np.eye(layers, dtype=np.bool_)]])
    moved = (choices[:, None] + moves).reshape(-1, layers)
    last = np.array([len(counts) - 1 for counts in costs.cores])
    moved = np.unique(moved[((moved >= 0) & (moved <= last)).all(axis=1)], axis=0)
    return moved[costs.used(moved) <= budget]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bound:
    """A lower bound, solved for every budget.

    Attributes
    ----------
    tables : tuple of ndarray of float, shape (options,)
        The number of each layer, by its option.
    join : numpy.ufunc
        `numpy.add` or `numpy.maximum`.
    leaving : tuple of ndarray of float, shape (time_steps, samples)
        Weights of the state behind each layer (`AllocationCosts.advanced`), whose sum is what the
        layers up to there contribute at least. Empty where the bound is the objective.
    completed : tuple of ndarray of float, shape (budget + 1,)
        Least value of the layers from each one on, by the cores that they share; infinite where
        those are too few. A last entry, of zeros, stands behind the last layer.
    """

    tables: tuple[_Floats, ...]
    join: np.ufunc
    leaving: tuple[_Floats, ...]
    completed: tuple[_Floats, ...]

    def allocations(self, cores: Sequence[_Indices], budgets: _Indices) -> _Indices:
        """Give what attains the bound within some budgets, shape (budgets, layers).

        Of equal options a layer takes that with the fewest cores.
        """
        left, choices = budgets, []
        for counts, table, after in zip(cores, self.tables, self.completed[1:], strict=True):
            rest = left - counts[:, None]
            behind = np.where(rest >= 0, after[np.maximum(rest, 0)], np.inf)
            choices.append(self.join(table[:, None], behind).argmin(axis=0))
            left = left - counts[choices[-1]]
        return np.stack(choices, axis=1)


def layer_bound(costs: AllocationCosts, objective: Objective, budget: int) -> Bound:
    """Bound an objective by what each layer spends, its steps put one after the other.

    It is the latency itself with ``layer_serial``, and the initiation interval of one sample.

    Parameters
    ----------
    costs : AllocationCosts
    objective : {"latency", "interval"}
        The latency only where it is a sum.
    budget : int
        Most cores.
    """
    means = [cycles / costs.samples for cycles in costs.total_cycles]
    if costs.is_sum(objective):
        return _solved(costs.cores, means, np.add, (), budget)
    slowest = costs.start(objective)[:, 0]
    means[0] = np.maximum(means[0], slowest.mean())
    leaving = (np.full(slowest.shape, 1 / slowest.size),) * len(means)
    return _solved(costs.cores, means, np.maximum, leaving, budget)


def weighted_bound(
    costs: AllocationCosts, objective: Objective, weights: _Floats, budget: int
) -> Bound:
    """Bound an objective by a weighted sum of costs.

    Parameters
    ----------
    costs : AllocationCosts
    objective : {"latency", "interval"}
        One that is not a sum, and not of a stream.
    weights : ndarray of float, shape (1 + layers, time_steps, samples)
        From `AllocationCosts.critical`, or an average of such.
    budget : int
        Most cores.
    """
    tables = [
        np.tensordot(costs.cycles(objective, layer), weight, axes=((0, 2), (0, 1)))
        for layer, weight in enumerate(weights[1:])
    ]
    tables[0] = tables[0] + (costs.start(objective)[:, 0] * weights[0]).sum()
    # A state of an interval is at least as slow as any layer up to there
    leaving = weights.cumsum(axis=0)[1:] if objective == "interval" else _leaving(weights[1:])
    return _solved(costs.cores, tables, np.add, tuple(leaving), budget)


def _leaving(weights: _Floats) -> Iterator[_Floats]:
    """Share of the paths that go on to the next layer behind each step, layer by layer.

    What enters a step, from the layer before or from the step before, leaves it again.
    """
    entering = np.zeros_like(weights[0])
    entering[0] = 1 / entering.shape[1]
    for of_layer in weights:
        staying = np.zeros_like(of_layer)  # paths that go on to the layer's next step
        staying[:-1] = (of_layer - entering)[1:]
        entering = of_layer - staying
        yield entering


def _solved(
    cores: Sequence[_Indices],
    tables: Sequence[_Floats],
    join: np.ufunc,
    leaving: tuple[_Floats, ...],
    budget: int,
) -> Bound:
    """Solve a bound for every budget, from the last layer to the first."""
    completed = [np.zeros(budget + 1)]
    reached = np.empty(budget + 1)
    for counts, table in zip(reversed(cores), reversed(tables), strict=True):
        least = np.full(budget + 1, np.inf)
        for used, value in zip(counts[counts <= budget].tolist(), table.tolist(), strict=False):
            some = reached[used:]
            join(completed[0][: len(some)], value, out=some)
            np.minimum(least[used:], some, out=least[used:])
        completed.insert(0, least)
    return Bound(tables=tuple(tables), join=join, leaving=leaving, completed=tuple(completed))


class Search:
    """What a question has led to: bounds, proofs, and the best allocations by rising cores.

    Attributes
    ----------
    least : ndarray of float, shape (budget + 1,)
        No allocation within a budget costs less, by all bounds and proofs.
    """

    def __init__(self, costs: AllocationCosts, objective: Objective, budget: int) -> None:
        self.costs, self.objective, self.budget = costs, objective, budget
        self.bounds: list[Bound] = []
        self.least: _Floats = np.zeros(budget + 1)
        self.cores: _Indices = np.empty(0, dtype=np.int64)
        self.values: _Floats = np.empty(0)
        self.choices: _Indices = np.empty((0, len(costs.cores)), dtype=np.int64)

    def add(self, bound: Bound) -> None:
        """Go by one more bound, and try what attains it within any budget."""
        self.bounds.append(bound)
        np.maximum(self.least, bound.completed[0], out=self.least)
        budgets = np.arange(len(self.costs.cores), self.budget + 1)
        self.try_out(np.unique(bound.allocations(self.costs.cores, budgets), axis=0))

    def try_out(self, choices: _Indices) -> None:
        """Cost allocations, and keep those that are better than all on as many cores or fewer."""
        cores = np.concatenate([self.cores, self.costs.used(choices)])
        values = np.concatenate([self.values, self.costs.values(self.objective, choices)])
        order = np.lexsort((values, cores))
        before = np.minimum.accumulate(np.append(np.inf, values[order][:-1]))
        kept = order[values[order] < before * (1 - TOLERANCE)]
        self.cores, self.values = cores[kept], values[kept]
        self.choices = np.concatenate([self.choices, choices])[kept]

    def weigh(self) -> None:
        """Bound the objective by weighted costs, for budgets from least to most."""
        weights = self.costs.critical(self.objective, np.zeros(len(self.costs.cores), np.int64))
        budgets = np.geomspace(len(self.costs.cores), self.budget, _WEIGHTINGS).round()
        for budget in np.unique(budgets.astype(np.int64)).tolist():
            weights = self.weigh_for(budget, weights)

    def weigh_for(self, budget: int, weights: _Floats) -> _Floats:
        """Average what allocations wait for, from some weights on; gives the best average."""
        bound = weighted_bound(self.costs, self.objective, weights, self.budget)
        best, chosen = bound, weights
        for number in range(_ROUNDS):
            choices = bound.allocations(self.costs.cores, np.array([budget]))
            self.try_out(choices)
            share = 2 / (number + 3)
            critical = self.costs.critical(self.objective, choices[0])
            weights = (1 - share) * weights + share * critical
            bound = weighted_bound(self.costs, self.objective, weights, self.budget)
            if bound.completed[0][budget] > best.completed[0][budget]:
                best, chosen = bound, weights
        self.add(best)
        return chosen

    def within(self, budget: int) -> int:
        """Place of the best allocation on so many cores."""
        return int(np.searchsorted(self.cores, budget, side="right")) - 1

    def limits(self) -> _Indices:
        """Most cores within which each allocation is still the best."""
        return np.append(self.cores[1:] - 1, self.budget)

    def is_open(self) -> _Flags:
        """Tell of each allocation whether another might be better within its limit."""
        open_: _Flags = self.least[self.limits()] < self.values * (1 - TOLERANCE)
        return open_

    def try_moves(self) -> None:
        """Improve what the bounds leave open by single moves: first the last one, then all."""
        each = len(self.costs.cores) ** 3 * self.costs.size(self.objective)  # of its moves
        effort = _MOVING
        for some in (slice(-1, None), slice(None)):
            values = np.empty(0)
            while not np.array_equal(values, self.values[some]):
                values, choices = self.values[some], self.choices[some][self.is_open()[some]]
                effort -= len(choices) * each
                if effort < 0:
                    return
                self.try_out(moved_choices(self.costs, choices, self.budget))

    def prove(self, effort: int) -> None:
        """Prove the best within falling budgets, as long as there is effort left."""
        budget = self.budget
        while budget >= len(self.costs.cores):
            value = self.values[self.within(budget)]
            if effort > 0 and self.least[budget] < value * (1 - TOLERANCE):
                better, looked_at = self.better(budget)
                effort -= looked_at
                if better is not None:
                    self.try_out(better)
                    proved = self.least[: budget + 1]
                    np.maximum(proved, self.values[self.within(budget)], out=proved)
            budget = int(self.cores[self.within(budget)]) - 1

    def better(self, budget: int) -> tuple[_Indices | None, int]:
        """Find all allocations within a budget that may be better, by bounds, than the best known.

        Returns
        -------
        ndarray of int, shape (allocations, layers), or None
            None if there are too many.
        int
            Costs of all partial allocations on the way.
        """
        costs, limit = self.costs, self.values[self.within(budget)] * (1 - TOLERANCE)
        state, reached = costs.start(self.objective), np.zeros((1, len(self.bounds)))
        cores, choices = np.zeros(1, dtype=np.int64), np.zeros((1, 0), dtype=np.int64)
        size, looked_at = costs.size(self.objective), 0
        for layer, counts in enumerate(costs.cores):
            left = budget - cores[:, None] - counts
            rows, options = np.nonzero(left >= len(costs.cores) - layer - 1)
            left = left[rows, options]
            joined = [
                bound.join(so_far[rows], bound.tables[layer][options])
                for bound, so_far in zip(self.bounds, reached.T, strict=True)
            ]
            open_ = self.can_beat(limit, layer, np.stack(joined, axis=1), left)
            rows, options, left = rows[open_], options[open_], left[open_]
            looked_at += len(rows) * size
            if len(rows) * size > _MOST:
                return None, looked_at
            state = costs.advanced(self.objective, layer, state[:, rows], options)
            leaving = np.stack([bound.leaving[layer] for bound in self.bounds], axis=2)
            reached = (state @ leaving).sum(axis=0)
            open_ = self.can_beat(limit, layer, reached, left)
            state, reached = state[:, open_], reached[open_]
            cores = budget - left[open_]
            choices = np.column_stack([choices[rows[open_]], options[open_]])
        return choices, looked_at

    def can_beat(self, limit: float, layer: int, reached: _Floats, left: _Indices) -> _Flags:
        """Tell which partial allocations have a completion below a limit, as far as bounds say."""
        open_ = np.ones(len(left), dtype=np.bool_)
        for bound, so_far in zip(self.bounds, reached.T, strict=True):
            open_ &= bound.join(so_far, bound.completed[layer + 1][left]) < limit
        return open_

    def points(self) -> list[Point]:
        """Put together what was found, and how far it is proved."""
        bounds = np.where(self.is_open(), self.least[self.limits()], self.values)
        return [
            Point(cores=cores, value=value, choice=choice, bound=bound)
            for cores, value, choice, bound in zip(
                self.cores.tolist(), self.values.tolist(), self.choices, bounds.tolist(),
                strict=True,
            )
        ]  # fmt: skip
