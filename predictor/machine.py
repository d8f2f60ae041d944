"""What a machine's timing says, and what it may ask for: one contract for every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..network import Layer, taps_inside

__all__ = [
    "AXES",
    "BUCKETS",
    "SLACK",
    "Chance",
    "Timing",
    "TimingModel",
    "check_counts",
    "check_trains",
    "count_problem",
    "mean_of_samples",
    "place",
    "tap_bounds",
    "tap_problem",
]

BUCKETS = ("encode", "accumulate", "fire", "stall")
"""Where a layer's cycles go; ``rtl/perf_counters.sv`` says what each one means."""

AXES = ("sample", "step", "channel", "row", "column")
"""Of spikes that enter a layer, as far as an array of them goes."""

SLACK = 1e-6
"""Counts and taps may be rounded by this share, or by this much where there are none."""

_Floats = NDArray[np.float64]
_Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chance:
    """What counts leave open of a latency: which line each spike came on.

    Attributes
    ----------
    variance : ndarray of float, shape (samples,)
        In cycles squared, over the places that the spikes may have had, if all are equally likely.
    unevenness : ndarray of float, shape (samples,)
        Cycles on whose scale the latency moves if spikes gather somewhere.
    convexity : ndarray of float, shape (samples,), or None
        Cycles by which the mean latency may at most exceed that of mean counts; None if the counts
        are whole.
    """

    variance: _Floats
    unevenness: _Floats
    convexity: _Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timing:
    """Cycles of a batch of samples; whole numbers where they are exact.

    Attributes
    ----------
    cycles : ndarray of float, shape (samples,)
        Latency, from the start with the input resident to done.
    layer_cycles : ndarray of float, shape (samples, layers)
        From the dispatch of a layer's first step to the end of its last.
    buckets : dict of str to ndarray of float, shape (samples, layers)
        The same cycles by `BUCKETS`.
    initiation_interval_cycles : ndarray of float, shape (samples,)
        Cycles from the result before to this one in a steady stream, the load of the input
        included. Traces stream in their order, again and again; an estimate from counts is a
        stream of its own.
    outside : tuple of tuple of str
        For each sample a sentence for everything that lies outside of what the timing was fitted
        to; empty where nothing was fitted.
    chance : Chance, or None
        How cycles that were expected from counts may scatter. None where nothing is known of it.
    """

    cycles: _Floats
    layer_cycles: _Floats
    buckets: dict[str, _Floats]
    initiation_interval_cycles: _Floats
    outside: tuple[tuple[str, ...], ...] = ()
    chance: Chance | None = None


def mean_of_samples(values: _Floats) -> _Floats:
    """Mean over samples, the first axis; one sample needs no reduction."""
    means: _Floats = values[0] if len(values) == 1 else values.mean(axis=0)
    return means


class TimingModel(Protocol):
    """A machine whose cycles follow from the spikes that enter its layers."""

    def trace(self, inputs: Sequence[NDArray[np.bool_]]) -> Timing:
        """Cycles from spike trains.

        Parameters
        ----------
        inputs : sequence of ndarray of bool
            Spikes that enter each weighted layer, shape (samples, time_steps, channels, height,
            width) or, flattened in that order, (samples, time_steps, features).

        Returns
        -------
        Timing
            One entry per sample.

        Raises
        ------
        ValueError
            If an array does not fit its layer.
        """
        ...

    def statistics(
        self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None
    ) -> Timing:
        """Cycles expected from spike counts.

        Parameters
        ----------
        counts : sequence of ndarray of float, shape (samples, time_steps, in_channels)
            Spikes that enter each weighted layer; need not be whole numbers. A last axis of 1
            holds those of all channels together.
        taps : sequence of ndarray of float, in the shapes of `counts`, optional
            Kernel taps of these spikes that lie inside the frame. Default: spikes are equally
            likely at every pixel.

        Returns
        -------
        Timing
            One entry per sample.

        Raises
        ------
        ValueError
            If an array does not fit its layer, or holds what cannot be counted there.
        """
        ...

    def doubt(
        self, confidence: float, outside: Sequence[str] = ()
    ) -> tuple[float, tuple[str, ...]]:
        """How far the timing itself may be off, in log cycles, and warnings about it.

        Parameters
        ----------
        confidence : float
            Share of cases in which it shall be off by no more.
        outside : sequence of str, optional
            What lies outside of what it was fitted to, from `Timing.outside`.
        """
        ...


def check_trains(
    layers: Sequence[Layer], time_steps: int, inputs: Sequence[NDArray[np.bool_]]
) -> None:
    """Refuse spike trains that do not fit the layers.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    time_steps : int
        Steps of an inference.
    inputs : sequence of ndarray of bool
        Must have shape (samples, time_steps, channels, height, width) or, flattened in that order,
        (samples, time_steps, features).

    Raises
    ------
    ValueError
        Names the array, what it must be and its shape.
    """
    maps = [(layer.in_channels, layer.in_height, layer.in_width) for layer in layers]
    for index, train in enumerate(inputs):
        if getattr(train, "dtype", None) != np.bool_:
            found = getattr(train, "dtype", type(train).__name__)
            raise ValueError(f"inputs_{index} must be an array of bool, got {found}")
    _check("inputs", inputs, [{shape, (math.prod(shape),)} for shape in maps], time_steps)


def check_counts(
    layers: Sequence[Layer],
    time_steps: int,
    name: Literal["counts", "taps"],
    arrays: Sequence[_Floats],
    counts: Sequence[_Floats] | None = None,
) -> None:
    """Refuse spikes, or their taps, per step and channel that do not fit the layers.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    time_steps : int
        Steps of an inference.
    name : {"counts", "taps"}
        What the arrays hold, and are called in a refusal.
    arrays : sequence of ndarray of float
        Must have shape (samples, time_steps, in_channels), or (samples, time_steps, 1) for all
        channels together, and hold finite numbers from 0 to what the layer can receive.
    counts : sequence of ndarray of float, optional
        The counts that taps belong to, already checked: each of these spikes has as many taps as
        `tap_bounds` allows. A last axis of 1 may stand against one of all channels.

    Raises
    ------
    ValueError
        Names the array, what it must be, and its shape or the value and its place.
    """
    _check(name, arrays, [{(layer.in_channels,), (1,)} for layer in layers], time_steps)
    for index, (layer, array) in enumerate(zip(layers, arrays, strict=True)):
        if name == "counts":
            problem = count_problem(layer, array)
        else:
            problem = tap_problem(layer, array, None if counts is None else counts[index])
        if problem is not None:
            raise ValueError(f"{name}_{index} {problem}")


@lru_cache(maxsize=1024)
def tap_bounds(layer: Layer) -> tuple[int, int]:
    """Fewest taps inside the frame that a spike can have, in a corner, and most."""
    rows, columns = taps_inside(layer)
    return min(rows) * min(columns), max(rows) * max(columns)


def count_problem(layer: Layer, counts: _Floats) -> str | None:
    """Say what is wrong with spikes that enter a layer, of shape (..., channels) or (..., 1)."""
    if counts.shape[-1] == layer.in_channels > 1:
        pixels = layer.in_height * layer.in_width
        return _amount_problem(counts, pixels, f"{pixels} neurons of a channel")
    return _amount_problem(counts, layer.inputs, f"{layer.inputs} inputs of the layer")


def tap_problem(layer: Layer, taps: _Floats, counts: _Floats | None) -> str | None:
    """Say what is wrong with the taps of spikes that enter a layer; counts are without fault."""
    fewest, most = tap_bounds(layer)
    if counts is None:
        every = most * layer.inputs
        return _amount_problem(taps, every, f"{every} taps of all inputs")
    if len(taps) != len(counts):
        return f"must hold the {len(counts)} samples of its counts, got {len(taps)}"
    if taps.shape != counts.shape:
        problem = _sign_problem(taps)
        if problem is not None:
            return problem
        taps, counts = (array.sum(axis=-1, keepdims=True) for array in (taps, counts))
    beyond = taps - most * (1 + SLACK) * counts - SLACK
    short = fewest * (1 - SLACK) * counts - taps
    # NaN compares as false
    if (beyond <= 0).all() and (short <= 0).all():
        return None
    return (
        _sign_problem(taps)
        or _tap_excess(beyond, taps, counts, f"most the {most}")
        or _tap_excess(short, taps, counts, f"least the {fewest}")
    )


def place(index: int, shape: _Shape, axes: Sequence[str] = AXES) -> str:
    """Say where the element of this flat index is, axis by axis; those of length one go without.

    Examples
    --------
    >>> place(13, (1, 4, 5))
    ' at step 2, channel 3'
    """
    indices = np.unravel_index(index, shape)
    places = [
        f"{axis} {at}" for axis, at, size in zip(axes, indices, shape, strict=False) if size > 1
    ]
    return f" at {', '.join(places)}" if places else ""


def _amount_problem(amounts: _Floats, most: int, limit: str) -> str | None:
    """Say what is wrong with numbers that must lie between 0 and `most`."""
    least = np.minimum.reduce(amounts, axis=None, initial=0.0)
    largest = np.maximum.reduce(amounts, axis=None, initial=0.0)
    # NaN compares as false
    if least >= 0 and largest <= most + SLACK * (1 + most):
        return None
    problem = _sign_problem(amounts)
    return problem or _at(amounts, int(amounts.argmax()), f"must be at most the {limit}")


def _sign_problem(amounts: _Floats) -> str | None:
    """Say what is wrong with numbers that must be finite and not negative."""
    finite = np.isfinite(amounts)
    if not finite.all():
        return _at(amounts, int(finite.argmin()), "must be finite")
    if amounts.min() < 0:
        return _at(amounts, int(amounts.argmin()), "must not be negative")
    return None


def _tap_excess(excess: _Floats, taps: _Floats, counts: _Floats, bound: str) -> str | None:
    """Say where taps are out of a bound, if the excess over it is positive anywhere."""
    if excess.max() <= 0:
        return None
    index = int(excess.argmax())
    found = f"got {taps.flat[index]:g} for {counts.flat[index]:g} spikes"
    return f"must be at {bound} taps of a spike, {found}{place(index, taps.shape)}"


def _at(amounts: _Floats, index: int, rule: str) -> str:
    return f"{rule}, got {amounts.flat[index]:g}{place(index, amounts.shape)}"


def _check(
    name: str,
    arrays: Sequence[NDArray[np.generic]],
    shapes: Sequence[set[_Shape]],
    time_steps: int,
) -> None:
    """Hold the arrays against the shapes that they may have after (samples, time_steps)."""
    if len(arrays) != len(shapes):
        rule = f"{name} must be {len(shapes)} arrays, one per weighted layer"
        raise ValueError(f"{rule}, got {len(arrays)}")
    samples = arrays[0].shape[:1]
    for index, (array, allowed) in enumerate(zip(arrays, shapes, strict=True)):
        if array.shape[:1] != samples or samples == (0,):
            rule = "must hold one sample or more, as many as layer 0"
            raise ValueError(f"{name}_{index} {rule}, got {array.shape[0]}")
        if array.shape[1:2] != (time_steps,) or array.shape[2:] not in allowed:
            expected = " or ".join(
                f"(samples, {', '.join(map(str, (time_steps, *shape)))})"
                for shape in sorted(allowed, key=lambda shape: (len(shape), -math.prod(shape)))
            )
            raise ValueError(f"{name}_{index} must have shape {expected}, got {array.shape}")
