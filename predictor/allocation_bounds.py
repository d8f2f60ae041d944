"""Lower bounds of what allocations cost, solved for every budget, and limits that they keep to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .allocation_costs import AllocationCosts, Objective

__all__ = [
    "Bound",
    "Limits",
    "layer_bound",
    "priced_bound",
    "solved_bound",
    "unlimited",
    "weighted_bound",
]

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limits:
    """Resources beside cores of which an allocation may take so much.

    Attributes
    ----------
    amounts : tuple of ndarray of float, shape (options, resources)
        What each layer takes, by its option.
    most : ndarray of float, shape (resources,)
        What all layers together may take.
    """

    amounts: tuple[_Floats, ...]
    most: _Floats

    def fits(self, choices: _Indices) -> _Flags:
        """Tell which whole allocations, shape (allocations, layers), keep to the limits."""
        fitting: _Flags = np.all(self.taken(choices) <= self.most, axis=1)
        return fitting

    def taken(self, choices: _Indices) -> _Floats:
        """Sum what whole allocations take, shape (allocations, resources)."""
        total: _Floats = sum(
            (amount[choices[:, layer]] for layer, amount in enumerate(self.amounts)),
            start=np.zeros((len(choices), len(self.most))),
        )
        return total


def unlimited(costs: AllocationCosts) -> Limits:
    """Limit nothing but the cores."""
    return Limits(amounts=tuple(np.zeros((len(each), 0)) for each in costs.cores), most=np.zeros(0))


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
    prices : ndarray of float, shape (resources,), or None
        Of a bound that adds up: cycles that a unit of each limited resource costs, in the tables,
        less what the limits are worth. No allocation that fits is dearer by that.
    """

    tables: tuple[_Floats, ...]
    join: np.ufunc
    leaving: tuple[_Floats, ...]
    completed: tuple[_Floats, ...]
    prices: _Floats | None = None

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
        return solved_bound(costs.cores, means, np.add, (), budget)
    slowest = costs.start(objective)[:, 0]
    means[0] = np.maximum(means[0], slowest.mean())
    leaving = (np.full(slowest.shape, 1 / slowest.size),) * len(means)
    return solved_bound(costs.cores, means, np.maximum, leaving, budget)


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
    return solved_bound(costs.cores, tables, np.add, tuple(leaving), budget)


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


def solved_bound(
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


def priced_bound(bound: Bound, costs: AllocationCosts, limits: Limits, prices: _Floats) -> Bound:
    """Add the price of what each layer takes to a bound that adds up, less that of the limits.

    Parameters
    ----------
    bound : Bound
    costs : AllocationCosts
    limits : Limits
    prices : ndarray of float, shape (resources,)
        Cycles for a unit of each limited resource, at least 0.
    """
    tables = [
        table + amount @ prices for table, amount in zip(bound.tables, limits.amounts, strict=True)
    ]
    tables[0] = tables[0] - limits.most @ prices
    budget = len(bound.completed[0]) - 1
    solved = solved_bound(costs.cores, tables, np.add, bound.leaving, budget)
    return replace(solved, prices=prices)
