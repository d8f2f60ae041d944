"""When each layer does what during one inference, for a look in a trace viewer.

The engine's timing says more than sums: the events of a word are in service from the later of
cycle ``8 + word`` of their step and the end of the events before them, so the bucket of every
single cycle follows from the spikes. `chrome_trace` lays timelines side by side in the Trace Event
format, which Perfetto and chrome://tracing open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ConfigError, InputError
from .timing import DISPATCH_CYCLES, EVENT_CYCLES, EngineTiming, timing_model, word_service

__all__ = ["Slice", "check_trace_path", "chrome_trace", "engine_timeline"]

_NANOSECONDS, _PICOSECONDS = 1_000, 1_000_000
"""Of a microsecond."""
_FASTEST_IN_NANOSECONDS_MHZ = 1_000
"""At a faster clock a cycle is shorter than a nanosecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Cycles in a row that a layer spends in one bucket.

    Attributes
    ----------
    layer, step : int
        Index of the weighted layer, and of the time step that it works on or waits for.
    bucket : str
        One of ``encode``, ``accumulate``, ``fire`` and ``stall``.
    start : int
        First cycle, counted from the dispatch of layer 0.
    cycles : int
        Cycles in a row, at least 1.
    """

    layer: int
    step: int
    bucket: str
    start: int
    cycles: int


def engine_timeline(config: Config, inputs: Sequence[NDArray[np.bool_]]) -> tuple[Slice, ...]:
    """Lay out one inference on an idle engine, cycle by cycle.

    Parameters
    ----------
    config : Config
        Network, time steps and hardware; the backend must be the engine.
    inputs : sequence of ndarray of bool
        Spikes of one sample that enter each weighted layer, shape (1, time_steps, ...) as in
        `EngineTiming.trace`.

    Returns
    -------
    tuple of Slice
        By layer and start. Equal to the buckets that the RTL pulses, cycle by cycle; the slices
        of a layer fill the time from its first dispatch to its last cycle without a gap.

    Raises
    ------
    ConfigError
        If `hardware.backend` is another machine: what is known of it is sums.
    ValueError
        If an array does not fit its layer, or holds more than one sample.

    References
    ----------
    .. [1] ``rtl/event_control.sv``: the equations at its head, and ``perf_*_o``.
    """
    machine = timing_model(config)
    if not isinstance(machine, EngineTiming):
        rule = "must be engine for a timeline, of other machines only sums are known"
        raise ConfigError(f"hardware.backend: {rule}; got {config.hardware.backend!r}")
    costs = machine.step_costs(inputs)
    if len(costs.encode) != 1:
        raise ValueError(f"inputs_0 must hold one sample for a timeline, got {len(inputs[0])}")
    start, finish = machine.schedule(costs.total)
    slices: list[Slice] = []
    for index, (layer, cores) in enumerate(zip(machine.layers, machine.neural_cores, strict=True)):
        phases = -(-layer.out_channels // cores)
        services = word_service(machine, layer, phases, inputs[index])[0]
        free = int(start[0, index, 0])
        for step, service in enumerate(services):
            dispatch, end = int(start[0, index, step]), int(finish[0, index, step])
            changes = [(free, "stall"), (dispatch + DISPATCH_CYCLES, "encode")]
            for first, past in _busy(service):
                changes += [(dispatch + first, "accumulate"), (dispatch + past, "encode")]
            changes.append((end - int(costs.fire[index, 0]), "fire"))
            slices += _slices(index, step, changes, end)
            free = end
    return tuple(slices)


def chrome_trace(config: Config, timelines: Mapping[str, Sequence[Slice]]) -> dict[str, Any]:
    """Lay timelines side by side in the Trace Event format.

    Parameters
    ----------
    config : Config
        Names the layers and gives the clock.
    timelines : mapping of str to sequence of Slice
        One process each, for instance ``"timing model"`` and ``"RTL"``.

    Returns
    -------
    dict
        To be written as JSON. A thread is a layer; its steps hold the buckets. Times are
        microseconds at the clock, in whole nanoseconds, so that viewers which keep no more nest
        them as they are. Above 1,000 MHz they are in whole picoseconds: a cycle still has its
        length in the file, but not in such a viewer. Every event carries its cycles in ``args``.

    References
    ----------
    .. [1] Trace Event Format: complete events (``"ph": "X"``) and metadata (``"ph": "M"``).
    """
    events: list[dict[str, Any]] = []
    for process, (name, slices) in enumerate(timelines.items(), start=1):
        events.append(_named("process_name", process, 0, name))
        events += [
            _named("thread_name", process, index, layer.name)
            for index, layer in enumerate(config.layers)
        ]
        for (layer, step), of_step in groupby(slices, key=lambda entry: (entry.layer, entry.step)):
            events += _step_events(process, layer, step, list(of_step), config.hardware.clock_mhz)
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def check_trace_path(path: Path) -> None:
    """Refuse to write a trace over a file that is none.

    Raises
    ------
    InputError
        If there is a file that does not begin as a trace.
    """
    if not path.is_file():
        return
    begin = b'{"traceEvents"'
    with path.open("rb") as file:
        is_trace = file.read(len(begin)) == begin
    if not is_trace:
        rule = "must not exist, or be a trace, since what it holds would be lost"
        raise InputError(f"out: {rule}; got {str(path)!r}")


def _busy(service: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First cycle of a step, and first cycle after, of every stretch with events in service."""
    first = past = 0
    for word in np.flatnonzero(service):
        ready = EVENT_CYCLES + int(word)
        if ready > past:
            if past:
                yield first, past
            first = past = ready
        past += int(service[word])
    if past:
        yield first, past


def _slices(layer: int, step: int, changes: Sequence[tuple[int, str]], end: int) -> Iterator[Slice]:
    """Turn changes of bucket into slices; a bucket without a cycle leaves none."""
    ends = [start for start, _ in changes[1:]] + [end]
    for (start, bucket), past in zip(changes, ends, strict=True):
        if past > start:
            yield Slice(layer=layer, step=step, bucket=bucket, start=start, cycles=past - start)


def _step_events(
    process: int, layer: int, step: int, slices: Sequence[Slice], clock_mhz: float
) -> list[dict[str, Any]]:
    """One step of a layer, and its buckets within."""
    start, past = slices[0].start, slices[-1].start + slices[-1].cycles
    spans = [(f"step {step}", start, past - start)]
    spans += [(entry.bucket, entry.start, entry.cycles) for entry in slices]
    events: list[dict[str, Any]] = [
        {
            "name": label,
            "ph": "X",
            "pid": process,
            "tid": layer,
            **_times(first, first + cycles, clock_mhz),
            "args": {"start_cycle": first, "cycles": cycles},
        }
        for label, first, cycles in spans
    ]
    # The sums of two rounded numbers may differ in their last bit
    whole, last = events[0], events[-1]
    while whole["ts"] + whole["dur"] < last["ts"] + last["dur"]:
        whole["dur"] = math.nextafter(whole["dur"], math.inf)
    return events


def _times(first: int, past: int, clock_mhz: float) -> dict[str, float]:
    """Time stamp and duration; a cycle that bounds many events has one time in all of them."""
    fast = clock_mhz > _FASTEST_IN_NANOSECONDS_MHZ
    unit = _PICOSECONDS if fast else _NANOSECONDS
    start, end = (round(unit * cycle / clock_mhz) for cycle in (first, past))
    return {"ts": _microseconds(start, unit), "dur": _microseconds(end - start, unit)}


def _microseconds(amount: int, unit: int) -> float:
    """Microseconds that a viewer turns into this amount, also if it cuts off fractions."""
    value = amount / unit
    return value if int(value * unit) == amount else math.nextafter(value, math.inf)


def _named(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
