"""What a machine's timing says, and what it may ask for: one contract for every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..network import Layer

__all__ = ["BUCKETS", "Timing", "TimingModel", "check_counts", "check_trains"]

BUCKETS = ("encode", "accumulate", "fire", "stall")
"""Where a layer's cycles go; ``rtl/perf_counters.sv`` says what each one means."""

_Floats = NDArray[np.float64]
_Shape = tuple[int, ...]


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
    """

    cycles: _Floats
    layer_cycles: _Floats
    buckets: dict[str, _Floats]
    initiation_interval_cycles: _Floats
    outside: tuple[tuple[str, ...], ...] = ()


class TimingModel(Protocol):
    """A machine whose cycles follow from the spikes that enter its layers."""

    def trace(self, inputs: Sequence[NDArray[np.bool_]]) -> Timing:
        """Cycles from spike trains, one array per weighted layer."""
        ...

    def statistics(
        self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None
    ) -> Timing:
        """Cycles expected from spikes, and their taps, per step and channel, or per step."""
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
    layers: Sequence[Layer], time_steps: int, name: str, arrays: Sequence[_Floats]
) -> None:
    """Refuse numbers per step and channel that do not fit the layers.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    time_steps : int
        Steps of an inference.
    name : str
        What the arrays are called in a refusal.
    arrays : sequence of ndarray of float
        Must have shape (samples, time_steps, in_channels), or (samples, time_steps, 1) for all
        channels together.

    Raises
    ------
    ValueError
        Names the array, what it must be and its shape.
    """
    _check(name, arrays, [{(layer.in_channels,), (1,)} for layer in layers], time_steps)


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
