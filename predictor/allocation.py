"""Which layer should get how many neural cores: the allocation that makes a network fastest.

The cores of an accelerator are shared out among the layers once, when it is built, and what a layer
makes of them depends on how often the neurons before it spike. `allocate_cores` finds the best way
to share out a budget of cores, from whatever is known of the spikes, and the best for every smaller
budget along with it: the Pareto front of cores against cycles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..config import Config, load_config
from ..errors import ConfigError, PredictorError
from .allocation_bounds import Limits
from .allocation_costs import AllocationCosts, Objective, allocation_costs
from .allocation_limits import allocation_limits, checked_limits, even_share, fits, nothing_fits
from .allocation_search import Point, cheapest_allocations, moved_choices
from .estimate import LatencyEstimate
from .intervals import checked_confidence
from .predict import LatencyPredictor, Source, _resolved, predict_latency
from .resources import ResourceEstimate, check_estimable, estimate_resources
from .spikes import KnownSpikes

__all__ = [
    "OBJECTIVES",
    "Allocation",
    "AllocationPoint",
    "FrontPoint",
    "allocate_cores",
    "with_cores",
]

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
"""What an allocation can make least: the latency, or the initiation interval."""

_NEIGHBOURS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationPoint:
    """One way to share out cores, and what it comes to.

    Attributes
    ----------
    neural_cores : tuple of int
        Cores of each weighted layer.
    cores : int
        Their sum.
    cycles, initiation_interval_cycles : float
        As an estimate of the same fidelity gives them.
    """

    neural_cores: tuple[int, ...]
    cores: int
    cycles: float
    initiation_interval_cycles: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint(AllocationPoint):
    """A point of the Pareto front: every allocation on fewer cores takes longer.

    Attributes
    ----------
    bound_cycles : float
        No allocation on fewer cores than the next point takes less than this. Where that is proved
        of the point itself, it is the point's own objective.
    exact : bool
        Whether it is proved.
    """

    bound_cycles: float
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The best way found to share out a budget of cores.

    Attributes
    ----------
    config : Config
        The configuration that was asked about, with these cores.
    objective : {"latency", "interval"}
        What is least: `estimate.cycles`, or `estimate.initiation_interval_cycles`.
    budget : int
        Cores that were allowed.
    neural_cores : tuple of int
        Cores of each weighted layer. Of equally good allocations, one on the fewest cores.
    cores : int
        Their sum.
    estimate : LatencyEstimate
        Of the network on these cores, with its interval.
    exact : bool
        Whether it is proved that no allocation within the budget has a lower objective.
    gap : float
        Share of the objective that a better allocation might save at most; 0 if exact.
    front : tuple of FrontPoint
        By rising cores, up to this allocation: the best that was found within every budget.
    compared : mapping of str to AllocationPoint
        ``configured``: the cores of the configuration. ``even``: the budget spread evenly, a layer
        with few output channels leaving its share to others; with limits, as much of it as fits.
        What does not fit the limits is left out.
    neighbours : tuple of AllocationPoint
        The best two within the budget that move a core, or as many as make a difference, from one
        layer to another; where there are none, those that give one layer more or less.
    limits : mapping of str to int
        Most ``lut`` and ``bram`` that were allowed, as far as they were limited.
    resources : ResourceEstimate or None
        What this allocation is estimated to take of an FPGA, with the error of that; None for a
        machine that the model does not hold for.
    """

    config: Config
    objective: Objective
    budget: int
    neural_cores: tuple[int, ...]
    cores: int
    estimate: LatencyEstimate
    exact: bool
    gap: float
    front: tuple[FrontPoint, ...]
    compared: Mapping[str, AllocationPoint]
    neighbours: tuple[AllocationPoint, ...]
    limits: Mapping[str, int]
    resources: ResourceEstimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "objective": self.objective,
            "budget": self.budget,
            "neural_cores": list(self.neural_cores),
            "cores": self.cores,
            "exact": self.exact,
            "gap": self.gap,
            "estimate": self.estimate.to_dict(),
            "front": [asdict(point) for point in self.front],
            "compared": {name: asdict(point) for name, point in self.compared.items()},
            "neighbours": [asdict(point) for point in self.neighbours],
            "limits": dict(self.limits),
            "resources": None if self.resources is None else self.resources.to_dict(),
        }


def allocate_cores(
    source: Source,
    cores: int | None = None,
    objective: str = "latency",
    *,
    luts: int | None = None,
    brams: int | None = None,
    predictor: LatencyPredictor | None = None,
    confidence: float = 0.9,
    fidelity: str | None = None,
    samples: int | None = None,
    spikes: Mapping[str, NDArray[np.generic]] | None = None,
) -> Allocation:
    """Share out neural cores among the layers such that the network is fastest.

    Parameters
    ----------
    source : Config, mapping, str or Path
        A configuration, its keys, a YAML file, or a run folder, as for `predict_latency`. Its
        machine, schedule and spikes count; its core counts are compared with, no more.
    cores : int, optional
        Budget: most cores of all layers together, at least one for each. Default: as many as the
        configuration has, or with `luts` or `brams` as many as they allow.
    objective : {"latency", "interval"}, optional
        Whether the cycles of an inference or the initiation interval shall be least.
    luts, brams : int, optional
        Most LUTs, and block RAMs of 18 Kbit, that `estimate_resources` may give the allocation.
    predictor, confidence, fidelity, samples, spikes : optional
        As for `predict_latency`.

    Returns
    -------
    Allocation
        Exact as far as the cycles are: from a trace the best there is for the recorded samples,
        from hyperparameters for the expected spikes.

    Raises
    ------
    ConfigError
        If the configuration is refused, or names a fitted backend.
    RunFolderError
        If a run folder is incomplete or damaged.
    PredictorError
        If the question cannot be answered: cores, objective, limits, fidelity, samples, or data
        set; or if nothing fits the limits.

    Notes
    -----
    Exact for ``schedule: layer_serial`` and for the published machine, whose latency is a sum over
    layers, by dynamic programming. Elsewhere the search proves what it finds by branch and bound,
    unless too many allocations are nearly as good: then `Allocation.exact` is false and
    `Allocation.gap` certified. See ``docs/allocation.md``.

    Examples
    --------
    >>> content = {"dataset": "nmnist-saccade", "network": "16C3-MP2-32C3-MP2-10"}
    >>> found = allocate_cores(content, cores=24)
    >>> found.cores, found.exact
    (24, True)
    """
    confidence = checked_confidence(confidence)
    if not (isinstance(objective, str) and objective in OBJECTIVES):
        raise PredictorError(
            f"objective: must be one of {', '.join(OBJECTIVES)}; got {objective!r}"
        )
    limited = checked_limits(luts, brams)
    config, known, wanted = _resolved(source, fidelity, samples, spikes)
    if limited:
        check_estimable(config)
    budget = _checked_budget(config, cores)
    if predictor is None and wanted != "trace":
        predictor = LatencyPredictor.default()
    costs = allocation_costs(
        config, known, wanted == "trace", None if predictor is None else predictor.parts
    )
    wish: Objective = "interval" if objective == "interval" else "latency"
    if limited and cores is None:
        budget = costs.most_cores
    limits = allocation_limits(config, costs, limited)
    points = cheapest_allocations(costs, wish, budget, limits=limits)
    if not points:
        raise PredictorError(nothing_fits(config, limits, limited, budget))
    best, front = points[-1], _front(costs, points)

    def estimated(neural_cores: Sequence[int]) -> LatencyEstimate:
        return predict_latency(
            with_cores(config, neural_cores),
            confidence=confidence,
            predictor=predictor,
            fidelity=wanted,
            spikes=None if known is None else _arrays(known),
        )

    compared = {}
    if fits(config, config.neural_cores, limited):
        compared["configured"] = config.neural_cores
    if even := even_share(config, budget, limited):
        compared["even"] = even
    return Allocation(
        config=with_cores(config, front[-1].neural_cores),
        objective=wish,
        budget=budget,
        neural_cores=front[-1].neural_cores,
        cores=front[-1].cores,
        estimate=estimated(front[-1].neural_cores),
        exact=best.exact,
        gap=0.0 if best.exact else 1 - best.bound / best.value,
        front=front,
        compared={name: _point(cores, estimated(cores)) for name, cores in compared.items()},
        neighbours=_neighbours(costs, wish, best.choice, budget, limits),
        limits=limited,
        resources=_resources(with_cores(config, front[-1].neural_cores)),
    )


def with_cores(config: Config, neural_cores: Sequence[int]) -> Config:
    """Give a configuration other cores.

    Raises
    ------
    ConfigError
        If its layers cannot have them.
    """
    content = config.model_dump()
    return load_config(
        {**content, "hardware": {**content["hardware"], "neural_cores": tuple(neural_cores)}}
    )


def _checked_budget(config: Config, cores: int | None) -> int:
    if cores is None:
        return sum(config.neural_cores)
    layers = len(config.layers)
    if isinstance(cores, bool) or not isinstance(cores, int | np.integer):
        raise PredictorError(f"cores: must be a whole number, got {cores!r}")
    if cores < layers:
        rule = f"must be at least {layers}, one for each weighted layer of {config.network}"
        raise PredictorError(f"cores: {rule}; got {cores}")
    return int(cores)


def _resources(config: Config) -> ResourceEstimate | None:
    """Estimate what a configuration takes of an FPGA; None where the model does not hold."""
    try:
        check_estimable(config)
    except ConfigError:
        return None
    return estimate_resources(config)


def _arrays(known: KnownSpikes) -> dict[str, NDArray[np.generic]]:
    """Name known spikes as a file of them would, for an estimate on other cores."""
    arrays: dict[str, NDArray[np.generic]] = {"quantised": np.array(known.quantised)}
    if known.inputs is not None:
        arrays |= {f"inputs_{index}": train for index, train in enumerate(known.inputs)}
    else:
        arrays |= {f"counts_{index}": count for index, count in enumerate(known.counts)}
        arrays |= {f"taps_{index}": taps for index, taps in enumerate(known.taps or ())}
    if known.outputs is not None:
        arrays["outputs"] = known.outputs
    return arrays


def _front(costs: AllocationCosts, points: Sequence[Point]) -> tuple[FrontPoint, ...]:
    found = _points(costs, np.stack([point.choice for point in points]))
    return tuple(
        FrontPoint(**asdict(each), bound_cycles=point.bound, exact=point.exact)
        for each, point in zip(found, points, strict=True)
    )


def _points(costs: AllocationCosts, choices: NDArray[np.int64]) -> list[AllocationPoint]:
    columns = [counts[choices[:, layer]] for layer, counts in enumerate(costs.cores)]
    neural_cores = np.stack(columns, axis=1).tolist()
    latencies = costs.values("latency", choices).tolist()
    intervals = costs.values("interval", choices).tolist()
    return [
        AllocationPoint(
            neural_cores=tuple(each),
            cores=sum(each),
            cycles=cycles,
            initiation_interval_cycles=interval,
        )
        for each, cycles, interval in zip(neural_cores, latencies, intervals, strict=True)
    ]


def _point(neural_cores: Sequence[int], estimate: LatencyEstimate) -> AllocationPoint:
    return AllocationPoint(
        neural_cores=tuple(neural_cores),
        cores=sum(neural_cores),
        cycles=estimate.cycles,
        initiation_interval_cycles=estimate.initiation_interval_cycles,
    )


def _neighbours(
    costs: AllocationCosts,
    objective: Objective,
    choice: NDArray[np.int64],
    budget: int,
    limits: Limits,
) -> tuple[AllocationPoint, ...]:
    moved = moved_choices(costs, choice[None], budget)
    moved = moved[limits.fits(moved)]
    lengths = (moved != choice).sum(axis=1)
    order = np.lexsort((costs.used(moved), costs.values(objective, moved), -lengths))
    return tuple(_points(costs, moved[order[:_NEIGHBOURS]]))
