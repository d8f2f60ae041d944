"""What a step of the engine costs in expectation, where no one knows which word holds which spike.

A step of a layer with W words begins to fire, counted from its dispatch, after

    begin = max(W + 3, max over non-empty words k of (8 + k + S(k)))

cycles, with ``S(k)`` the service of all events in words k and later; see `timing`. From counts,
``S(k)`` is not known. Let n events of a step be independent and equally likely at every input line,
let A be all their service, and let X(k) be the service of the events before word k, so that
``k + S(k) = A + k - X(k)``. On the scale of many words ``k - X(k)`` is a Brownian bridge with drift
that ends at W - A and has the variance ``v = n E[service^2]``. Its maximum exceeds
x >= max(0, W - A) with the probability ``exp(-2 x (x - W + A) / v)``, and so

    E[begin] = W + 3 + max(0, A - W) + m + late
    m        = sqrt(pi v / 8) erfcx(abs(W - A) / sqrt(2 v))

Where A > W the decay of that probability is known for a long step, by the exponent theta of
Lundberg's equation ``theta = (n / W) (1 - exp(-theta service))``, and ``v = 2 (A - W) / theta``
takes it over: services are lumps, and with few of them cores wait longer than under a diffusion.
Cycles are whole, so that m becomes ``1 / (exp(1 / m) - 1)``, the sum that belongs to the integral
of an exponential. ``late`` is for the events of the last words, whose pipeline is five cycles
longer than that of the scan: 5 cycles, times the chance p that the last event ends that late.

The places of the spikes scatter the step by the variance of the maximum,
``v / 2 - abs(W - A) m - m^2``, and that of the late end, ``5^2 p (1 - p)``. With fewer than one
event a step, a share of the steps has one and the others none, which adds
``share (1 - share) (m + late)^2``.

What this leaves out:

* Events of a convolution differ in service. Lundberg's equation is solved for their mean service,
  and its exponent divided by the mean of the square over the square of the mean; the equation of
  the mixture itself has another root.
* That ratio is the one of evenly spread positions, even where the taps of the spikes are known.
* The late end is added as if it were independent of the maximum. It is not: the last events decide
  both.
* A bridge is the limit of many events. With one or two, m is off by a cycle or two.
* Spikes of trained networks are not spread evenly. `StepWaits.unevenness` is the scale of what that
  may move.
* Counts that are means over samples give the cost of the mean. A maximum is convex, so the mean
  cost is higher, by `StepWaits.convexity` at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .machine import SLACK

__all__ = ["LATE_CYCLES", "StepSizes", "StepWaits", "expected_waits", "mean_waits"]

LATE_CYCLES = 5
"""By which the pipeline of events is longer than that of the scan."""
_FEWEST = 1e-9
"""Stands in for amounts that are zero where they divide."""
_SMALLEST_MEAN = 0.01
"""Cycles: below this the sum over whole cycles is zero."""
_CRITICAL = 1.0001
"""Service per word scanned above which the cores are the bottleneck; near 1 both forms agree."""
_ROUNDING_VARIANCE = 0.25
"""Half a cycle squared: an expectation of whole cycles is not whole."""
_ROOT_PI_8 = math.sqrt(math.pi / 8)
_ROOT_HALF = math.sqrt(0.5)

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepSizes:
    """What the wait for events depends on beside the events.

    Attributes
    ----------
    words : ndarray of float, shape (layers, 1)
        Words that hold the input of one step.
    spread : ndarray of float, shape (layers, 1)
        Mean square of the taps of a spike over the square of their mean.
    inside : ndarray of float, shape (layers, 1)
        Share of the words after which a short event still ends before the scan.
    """

    words: _Floats
    spread: _Floats
    inside: _Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inside", 1 - (LATE_CYCLES - 1) / 2 / self.words)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepWaits:
    """Cycles from the end of the scan to the first neuron that fires, and what they hide.

    Attributes
    ----------
    mean, variance : ndarray of float, shape (samples, layers, time_steps)
        Over the places that the spikes may have, if all are equally likely.
    unevenness : ndarray of float, shape (samples, layers, time_steps)
        Cycles of the scan between two events, at most those for which the places decide: the scale
        on which spikes that gather somewhere delay the cores or spare them.
    convexity : ndarray of float, shape (samples, layers, time_steps), or None
        By how much the mean cost of steps may exceed that of their mean, where the counts are means
        and no counts; None if all are whole.
    """

    mean: _Floats
    variance: _Floats
    unevenness: _Floats
    convexity: _Floats | None


def expected_waits(sizes: StepSizes, events: _Floats, accumulate: _Floats) -> StepWaits:
    """Wait of every step, from its events and their service.

    Parameters
    ----------
    sizes : StepSizes
        The layers.
    events, accumulate : ndarray of float, shape (samples, layers, time_steps)
        Events, and the cycles that they are in service.

    Notes
    -----
    Derived in the module.
    """
    step = _step(sizes, events, accumulate)
    mean = step.share * step.over
    late = LATE_CYCLES**2 * step.in_time * (1.0 - step.in_time)
    variance = step.share * (step.variance() + late + _ROUNDING_VARIANCE)
    convexity = _convexity(sizes, events, accumulate)
    if convexity is not None:
        variance += mean * (step.over - mean)
    return StepWaits(
        mean=mean,
        variance=variance,
        unevenness=step.share * np.minimum(sizes.words / step.some, step.over - step.least),
        convexity=convexity,
    )


def mean_waits(sizes: StepSizes, events: _Floats, accumulate: _Floats) -> _Floats:
    """Give the mean of `expected_waits` alone, in less time."""
    step = _step(sizes, events, accumulate)
    waits: _Floats = step.share * step.over
    return waits


class _Step(NamedTuple):
    """Steps in which something happens, and how often that is; cycles."""

    share: _Floats
    some: _Floats
    # Variance of the bridge, distance to its end, and mean of its maximum
    bridge: _Floats
    drift: _Floats
    maximum: _Floats
    in_time: _Floats
    least: _Floats
    over: _Floats

    def variance(self) -> _Floats:
        """Of the maximum: E[x^2] of exp(-2 x (x + drift) / bridge) is bridge / 2 - drift mean."""
        variance: _Floats = self.bridge / 2 - (self.drift + self.maximum) * self.maximum
        return variance


def _step(sizes: StepSizes, events: _Floats, accumulate: _Floats) -> _Step:
    # Fewer than one event a step: some steps have one, the others none
    share = np.minimum(events, 1.0)
    some = np.maximum(events, 1.0)
    busy = accumulate / np.maximum(share, _FEWEST)
    service = busy / some
    after_scan = busy - sizes.words
    drift = np.abs(after_scan)
    bridge = _bridge(busy, service, drift, sizes)
    maximum = _mean_maximum(bridge, drift)
    # Words are counted, not measured: a sum over whole cycles instead of an integral
    overshoot = 1 / np.expm1(1 / np.maximum(maximum, _SMALLEST_MEAN))
    inside = np.maximum(np.minimum(sizes.inside - service / sizes.words, 1.0), 0.0)
    in_time = inside**some
    late = LATE_CYCLES * (1.0 - in_time)
    least = np.maximum(after_scan, 0.0)
    over = np.maximum(least + overshoot + late, after_scan + LATE_CYCLES)
    return _Step(share, some, bridge, drift, maximum, in_time, least, over)


def _convexity(sizes: StepSizes, events: _Floats, accumulate: _Floats) -> _Floats | None:
    """See `StepWaits`: a step costs at most scan and service together, at least the longer one."""
    part = events % 1.0
    if not np.logical_or.reduce(part, axis=None):
        return None
    part = np.minimum(part, 1.0 - part)
    if part.max() <= SLACK:
        return None
    return np.where(part > SLACK, np.minimum(accumulate, sizes.words), 0.0)


def _bridge(busy: _Floats, service: _Floats, drift: _Floats, sizes: StepSizes) -> _Floats:
    """Variance of the Brownian bridge whose maximum accumulation ends after; see the module."""
    load = np.maximum(busy / sizes.words, _CRITICAL)
    bridge: _Floats = (
        service * sizes.spread * np.where(load > _CRITICAL, 2 * drift / _lundberg(load), busy)
    )
    return bridge


def _mean_maximum(bridge: _Floats, drift: _Floats) -> _Floats:
    """Cycles that accumulation is expected to end after both the scan and its own service."""
    deviation = np.sqrt(np.maximum(bridge, _FEWEST))
    mean: _Floats = _ROOT_PI_8 * deviation * _erfcx()(_ROOT_HALF * drift / deviation)
    return mean


@cache
def _erfcx() -> Callable[[_Floats], _Floats]:
    """Import what takes a while when it is first needed."""
    from scipy.special import erfcx

    function: Callable[[_Floats], _Floats] = erfcx
    return function


def _lundberg(load: _Floats) -> _Floats:
    """Positive root y of ``y = load (1 - exp(-y))`` for a load above 1, within a part in 10,000.

    One step of Newton's method, from the root's series around a load of 1 or, for a large one, from
    its limit; both lie right of the root, which they are off by 2 % at most.
    """
    above = load - 1
    start = np.minimum(load, above + above / (above * (2 / 3) + 1))
    decayed = load * np.exp(-start)
    root: _Floats = (load - decayed - start * decayed) / (1 - decayed)
    return root
