"""Allocations verified: the one that was chosen, and its neighbours, simulated in RTL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..config import require_rtl
from ..errors import InputError
from ..predictor.allocation import Allocation, AllocationPoint, with_cores
from ..predictor.timing import timing_model
from .measure import simulate_run

if TYPE_CHECKING:
    from ..models import Run

__all__ = ["VerifiedPoint", "verify_allocation"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, what is done of it, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPoint(AllocationPoint):
    """An allocation beside what the RTL took; `cycles` of the point are those predicted.

    Attributes
    ----------
    measured_cycles, measured_initiation_interval_cycles : float
        Of the RTL, over the simulated samples.
    samples : int
        That were simulated.
    difference_cycles : float
        Largest difference between RTL and timing model, for the same spikes: over samples and
        layers, and, where the allocation was found from a trace, between predicted and measured.
        0 unless one of them is wrong.
    """

    measured_cycles: float
    measured_initiation_interval_cycles: float
    samples: int
    difference_cycles: float


def verify_allocation(
    run: Run,
    allocation: Allocation,
    *,
    samples: int | None = None,
    progress: Progress | None = None,
) -> tuple[VerifiedPoint, ...]:
    """Simulate the chosen allocation and its neighbours in RTL.

    Each of them is hardware of its own, for which a simulator is built, some seconds to minutes,
    unless it is in the cache.

    Parameters
    ----------
    run : Run
        Trained; the network that is simulated.
    allocation : Allocation
        Of this run.
    samples : int, optional
        Recorded samples to simulate. Default: those that the allocation was found from, if from a
        trace, and all that are recorded otherwise.
    progress : callable, optional
        Told about each allocation.

    Returns
    -------
    tuple of VerifiedPoint
        The chosen allocation, then the neighbours.

    Raises
    ------
    ConfigError
        If the machine has no RTL.
    InputError
        If the allocation is of another configuration, or the run has fewer samples.
    SpikeMismatchError
        If the spikes of the RTL are not those of the integer reference.
    SpikemeterError
        If a tool is missing, or a simulation fails.
    """
    require_rtl(run.config)
    if with_cores(run.config, allocation.neural_cores).digest != allocation.config.digest:
        rule = f"must be of the configuration of the run {str(run.path)!r}"
        raise InputError(f"allocation: {rule}, but for its cores; got another one")
    if samples is None:
        samples = len(allocation.estimate.sample_cycles) or len(run.labels)
    report = progress or (lambda step, done, total: None)
    points = (allocation.front[-1], *allocation.neighbours)
    verified = []
    for number, point in enumerate(points):
        report("simulating allocations in RTL", number, len(points))
        exact = len(allocation.estimate.sample_cycles) == samples
        verified.append(_verified(run, point, samples, exact))
    report("simulating allocations in RTL", len(points), len(points))
    return tuple(verified)


def _verified(run: Run, point: AllocationPoint, samples: int, exact: bool) -> VerifiedPoint:
    """Simulate one allocation; `exact` if its cycles are predicted for these very samples."""
    from ..rtl import check_spikes

    config = with_cores(run.config, point.neural_cores)
    simulation, expected = simulate_run(replace(run, config=config), samples)
    check_spikes(simulation, expected, config.layers)
    timing = timing_model(config).trace(expected.inputs)
    measured = float(simulation.cycles.mean())
    interval = simulation.initiation_interval_cycles
    differences = [
        np.abs(simulation.cycles - timing.cycles).max(),
        np.abs(simulation.layer_cycles - timing.layer_cycles).max(),
    ]
    if exact:
        differences += [abs(point.cycles - measured)]
        differences += [abs(point.initiation_interval_cycles - interval)]
    return VerifiedPoint(
        neural_cores=point.neural_cores,
        cores=point.cores,
        cycles=point.cycles,
        initiation_interval_cycles=point.initiation_interval_cycles,
        measured_cycles=measured,
        measured_initiation_interval_cycles=interval,
        samples=samples,
        difference_cycles=float(max(differences)),
    )
