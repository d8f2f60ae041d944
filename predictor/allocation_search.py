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

Limits on other resources than cores rule allocations out. A bound of all allocations is one of
those that fit; where a limit binds, the resource gets a price, and the bound comes closer
(Lagrangian relaxation). Branch and bound leaves out what no completion can make fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .allocation_bounds import Bound, Limits, layer_bound, priced_bound, unlimited, weighted_bound
from .allocation_costs import AllocationCosts, Objective

__all__ = ["TOLERANCE", "Point", "cheapest_allocations", "moved_choices"]

TOLERANCE = 1e-9
"""Objectives that differ by a smaller share are equal but for rounding."""
_WEIGHTINGS = 3
"""Budgets that costs are weighted for."""
_ROUNDS = 10
"""Allocations that a weighting is averaged over."""
_PRICINGS = 24
"""Prices that are tried for a resource at a time."""
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
    costs: AllocationCosts,
    objective: Objective,
    budget: int,
    *,
    limits: Limits | None = None,
    effort: int = _EFFORT,
) -> list[Point]:
    """Find the best allocation within every budget up to one.

    Parameters
    ----------
    costs : AllocationCosts
    objective : {"latency", "interval"}
    budget : int
        Most cores in total; at least one per layer.
    limits : Limits, optional
        Of other resources.
    effort : int, optional
        Costs that the proofs may go through.

    Returns
    -------
    list of Point
        By rising cores, each better than all before it. Empty if none was found that fits.
    """
    search = Search(costs, objective, min(budget, costs.most_cores), limits)
    if objective == "interval" or costs.is_sum(objective):
        search.add(layer_bound(costs, objective, search.budget))
    if not (costs.is_sum(objective) or (objective == "interval" and costs.stream)):
        search.weigh()
    search.try_smallest()
    search.price()
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


class Search:
    """What a question has led to: bounds, proofs, and the best allocations by rising cores.

    Attributes
    ----------
    least : ndarray of float, shape (budget + 1,)
        No allocation within a budget costs less, by all bounds and proofs.
    """

    def __init__(
        self,
        costs: AllocationCosts,
        objective: Objective,
        budget: int,
        limits: Limits | None = None,
    ) -> None:
        self.costs, self.objective, self.budget = costs, objective, budget
        self.limited = unlimited(costs) if limits is None else limits
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
        """Cost what fits, and keep what is better than all on as many cores or fewer."""
        choices = choices[self.limited.fits(choices)]
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

    def try_smallest(self) -> None:
        """Try the options that take least of each limited resource."""
        smallest = [amount.argmin(axis=0) for amount in self.limited.amounts]
        choices = np.stack(smallest, axis=1)
        self.try_out(choices[self.costs.used(choices) <= self.budget])

    def price(self) -> None:
        """Put prices on what is limited, for bounds that add up and budgets from least to most."""
        if not len(self.limited.most) or self.bounds[-1].join is not np.add:
            return
        fewest = len(self.costs.cores)
        budgets = np.geomspace(fewest, self.budget, _WEIGHTINGS).round().astype(np.int64)
        for bound in [bound for bound in self.bounds if bound.join is np.add]:
            for budget in np.unique(budgets).tolist():
                prices = np.zeros(len(self.limited.most))
                for resource in [*range(len(prices))] * (2 if len(prices) > 1 else 1):
                    prices = self.price_of(bound, budget, prices, resource)
                if prices.any():
                    self.add(priced_bound(bound, self.costs, self.limited, prices))

    def price_of(self, bound: Bound, budget: int, prices: _Floats, resource: int) -> _Floats:
        """Find the least price of a resource at which what attains a bound keeps to its limit."""
        means = [
            (table.max() - table.min()) / max(amount[:, resource].max(), 1.0)
            for table, amount in zip(bound.tables, self.limited.amounts, strict=True)
        ]
        low, high = 0.0, 4 * max(*means, 1e-6)
        for number in range(_PRICINGS):
            tried = prices.copy()
            tried[resource] = 0.0 if number == 0 else (low + high) / 2
            (choice,) = priced_bound(bound, self.costs, self.limited, tried).allocations(
                self.costs.cores, np.array([budget])
            )
            self.try_out(choice[None])
            if self.limited.taken(choice[None])[0, resource] > self.limited.most[resource]:
                low = tried[resource]
            elif number == 0:
                return tried
            else:
                high = tried[resource]
        prices = prices.copy()
        prices[resource] = high
        return prices

    def within(self, budget: int) -> int:
        """Place of the best allocation on so many cores; -1 where none is known."""
        return int(np.searchsorted(self.cores, budget, side="right")) - 1

    def best_within(self, budget: int) -> float:
        """Objective of the best allocation on so many cores; infinite where none is known."""
        place = self.within(budget)
        return float(self.values[place]) if place >= 0 else np.inf

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
            if effort > 0 and self.least[budget] < self.best_within(budget) * (1 - TOLERANCE):
                better, looked_at = self.better(budget)
                effort -= looked_at
                if better is not None:
                    self.try_out(better)
                    proved = self.least[: budget + 1]
                    np.maximum(proved, self.best_within(budget), out=proved)
            if self.within(budget) < 0:
                return
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
        costs, limit = self.costs, self.best_within(budget) * (1 - TOLERANCE)
        adds_up = costs.is_sum(self.objective)
        state = np.zeros((1, 1, 1)) if adds_up else costs.start(self.objective)
        reached = np.zeros((1, len(self.bounds)))
        cores, choices = np.zeros(1, dtype=np.int64), np.zeros((1, 0), dtype=np.int64)
        taken, least_behind = np.zeros((1, len(self.limited.most))), self.least_behind(limit)
        size, looked_at = 32 if adds_up else costs.size(self.objective), 0
        for layer, counts in enumerate(costs.cores):
            left = budget - cores[:, None] - counts
            rows, options = np.nonzero(left >= len(costs.cores) - layer - 1)
            left = left[rows, options]
            joined = np.stack(
                [
                    bound.join(so_far[rows], bound.tables[layer][options])
                    for bound, so_far in zip(self.bounds, reached.T, strict=True)
                ],
                axis=1,
            )
            taking = taken[rows] + self.limited.amounts[layer][options]
            open_ = self.can_beat(limit, layer, joined, left)
            open_ &= (taking + least_behind[layer + 1] <= self.limited.most).all(axis=1)
            rows, options, left, taken = rows[open_], options[open_], left[open_], taking[open_]
            looked_at += len(rows) * size
            if len(rows) * size > _MOST:
                return None, looked_at
            reached = joined[open_]
            if not adds_up:
                state = costs.advanced(self.objective, layer, state[:, rows], options)
                reached = self.reached(layer, state, taken)
                open_ = self.can_beat(limit, layer, reached, left)
                state, reached, left = state[:, open_], reached[open_], left[open_]
                rows, options, taken = rows[open_], options[open_], taken[open_]
            cores = budget - left
            choices = np.column_stack([choices[rows], options])
        return choices, looked_at

    def reached(self, layer: int, state: _Floats, taken: _Floats) -> _Floats:
        """Give what all bounds say of partial allocations by their state behind a layer."""
        leaving = np.stack([bound.leaving[layer] for bound in self.bounds], axis=2)
        reached: _Floats = (state @ leaving).sum(axis=0)
        for column, bound in enumerate(self.bounds):
            if bound.prices is not None:
                reached[:, column] += (taken - self.limited.most) @ bound.prices
        return reached

    def least_behind(self, limit: float) -> _Floats:
        """Give what the layers from each one on take at least, if the objective is to be lower.

        An option that no allocation below the limit has does not count.
        """
        layers, least = len(self.costs.cores), []
        for layer, amount in enumerate(self.limited.amounts):
            open_ = np.ones(len(amount), dtype=np.bool_)
            for bound in self.bounds:
                others = [table.min() for at, table in enumerate(bound.tables) if at != layer]
                so_far = bound.tables[layer]
                for other in others:
                    so_far = bound.join(so_far, other)
                open_ &= so_far < limit
            least.append(amount[open_].min(axis=0, initial=np.inf))
        behind = [np.zeros(len(self.limited.most))]
        for layer in reversed(range(layers)):
            behind.insert(0, behind[0] + least[layer])
        return np.stack(behind)

    def can_beat(self, limit: float, layer: int, reached: _Floats, left: _Indices) -> _Flags:
        """Tell which partial allocations have a completion below a limit, as far as bounds say."""
        open_ = np.ones(len(left), dtype=np.bool_)
        for bound, so_far in zip(self.bounds, reached.T, strict=True):
            open_ &= bound.join(so_far, bound.completed[layer + 1][left]) < limit
        return open_

    def points(self) -> list[Point]:
        """Put together what was found, and how far it is proved."""
        if not len(self.cores):
            return []
        bounds = np.where(self.is_open(), self.least[self.limits()], self.values)
        return [
            Point(cores=cores, value=value, choice=choice, bound=bound)
            for cores, value, choice, bound in zip(
                self.cores.tolist(), self.values.tolist(), self.choices, bounds.tolist(),
                strict=True,
            )
        ]  # fmt: skip
