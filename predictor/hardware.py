"""Many networks on much hardware: all engines together, any other machine by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Asked, first_of, joint_codes
from .machine import Timing, TimingModel
from .points import Learned, Question
from .timing import DISPATCH_CYCLES, EngineTiming, engine_sizes, expected_cycles, timing_model

__all__ = ["Hardware", "Timed", "read_places", "time_hardware"]

_SAMPLES_AT_A_TIME = 2**10
"""Of a machine that gets the spikes of every channel."""

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timed:
    """Latencies, and how far the timing itself may be off; arrays have shape (chosen,) or as said.

    Attributes
    ----------
    cycles, initiation_interval_cycles, microseconds : ndarray of float
    layer_cycles : ndarray of float, shape (chosen, layers)
        That each layer takes but for waiting for the one before; with ``step_pipelined`` they
        overlap.
    half_width : ndarray of float
        Of an interval of log cycles, for the timing alone.
    in_domain : ndarray of bool
        Whether they lie within what the timing was fitted to.
    warnings : list of tuple
        Which of them need which sentences.
    """

    cycles: _Floats
    initiation_interval_cycles: _Floats
    microseconds: _Floats
    layer_cycles: _Floats
    half_width: _Floats
    in_domain: _Flags
    warnings: list[tuple[_Indices, Sequence[str]]]


def time_hardware(
    question: Question, learned: Learned, point: _Indices, places: Hardware, confidence: float
) -> Timed:
    """Run what was learned on the hardware that is asked about.

    Parameters
    ----------
    question : Question
    learned : Learned
        Of each point of the question.
    point : ndarray of int, shape (chosen,)
        Which of these points each latency is of.
    places : Hardware
        From `read_places`.
    confidence : float
        As in `predict_latency`.
    """
    hardware, size = _asked_hardware(question, places), len(point)
    cycles, interval, half_width = np.empty(size), np.empty(size), np.zeros(size)
    layer_cycles = np.empty((size, question.networks.pixels.shape[1]))
    in_domain = np.ones(size, dtype=np.bool_)
    warnings: list[tuple[_Indices, Sequence[str]]] = []
    together = hardware.engine & ~learned.known_places[point]
    engines = np.flatnonzero(together)
    found = _engine_cycles(question, learned, hardware, engines, point[engines])
    cycles[engines], interval[engines], layer_cycles[engines] = found
    others = np.flatnonzero(~together)
    codes = question.asked.place[question.chosen[others]], learned.drain[point[others]]
    for members in _machines(hardware, others, codes):
        model, timing = _machine_timing(question, learned, members, point[members])
        cycles[members] = timing.cycles
        interval[members] = timing.initiation_interval_cycles
        layer_cycles[members] = _without_waiting(model, timing)
        outside = timing.outside or ((),) * len(members)
        for sentences in dict.fromkeys(outside):
            alike = members[[other == sentences for other in outside]]
            half_width[alike], notes = model.doubt(confidence, sentences)
            in_domain[alike] = not sentences
            warnings.append((alike, notes))
    return Timed(
        cycles=cycles,
        initiation_interval_cycles=interval,
        microseconds=cycles / hardware.clock_mhz,
        layer_cycles=layer_cycles,
        half_width=half_width,
        in_domain=in_domain,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hardware:
    """Hardware of places, or of all that is asked about; arrays have one entry for each of them.

    Attributes
    ----------
    engine, pipelined : ndarray of bool
        Whether it is our own engine, and whether its schedule is ``step_pipelined``.
    cores : ndarray of float, shape (..., layers)
        Neural cores; NaN behind the last layer.
    width, taps, clock_mhz : ndarray of float
        Of the encoder, kernel taps served per cycle at most, and of the clock.
    """

    engine: _Flags
    pipelined: _Flags
    cores: _Floats
    width: _Floats
    taps: _Floats
    clock_mhz: _Floats


def read_places(asked: Asked) -> Hardware:
    """Read the hardware of each of `Asked.places`."""
    configs = [asked.config(index) for index in asked.places.tolist()]
    sections = [config.hardware for config in configs]
    most = max((len(config.neural_cores) for config in configs), default=0)
    cores = np.full((len(configs), most), np.nan)
    for line, config in zip(cores, configs, strict=True):
        line[: len(config.neural_cores)] = config.neural_cores
    return Hardware(
        engine=np.array([section.backend == "engine" for section in sections]),
        pipelined=np.array([section.schedule == "step_pipelined" for section in sections]),
        cores=cores,
        width=np.array([section.encoder_width for section in sections], dtype=np.float64),
        taps=np.array([section.taps_per_cycle for section in sections], dtype=np.float64),
        clock_mhz=np.array([section.clock_mhz for section in sections]),
    )


def _asked_hardware(question: Question, places: Hardware) -> Hardware:
    """Hardware of all that is asked: that of its place, but for the numbers that it gives."""
    asked, chosen = question.asked, question.chosen
    place, layers = asked.place[chosen], question.networks.pixels.shape[1]
    cores, width, clock = places.cores[place, :layers], places.width[place], places.clock_mhz[place]
    of_layers = asked.hardware.cores[asked.machine[chosen], :layers]
    own = (cores[:, : of_layers.shape[1]], width, clock)
    keys = ("hardware.encoder_width", "hardware.clock_mhz")
    given = (of_layers, *(asked.number(key, chosen) for key in keys))
    for array, values in zip(own, given, strict=True):
        if values is not None:
            np.copyto(array, values, where=~np.isnan(values))
    return Hardware(
        engine=places.engine[place],
        pipelined=places.pipelined[place],
        cores=cores,
        width=width,
        taps=places.taps[place],
        clock_mhz=clock,
    )


def _engine_cycles(
    question: Question,
    learned: Learned,
    hardware: Hardware,
    members: _Indices,
    point: _Indices,
) -> tuple[_Floats, _Floats, _Floats]:
    """Cycles, initiation intervals and cycles of each layer of some that are engines.

    A layer of a point costs once for all that give it as many phases, words and taps at once.
    """
    shapes = question.networks.shapes.chosen(question.network[members])
    cores, width, taps = (each[members] for each in (hardware.cores, hardware.width, hardware.taps))
    layers = np.arange(cores.shape[1])
    rows = point[:, None] * len(layers) + layers
    phases, words = (
        -(-shapes.channels[..., 0] // cores),
        -(-shapes.inputs[..., 0] // width[:, None]),
    )
    at_once = np.broadcast_to(taps[:, None], rows.shape)
    codes = (array.astype(np.int64).ravel() for array in (rows, phases, words, at_once))
    different = joint_codes(codes, rows.size)
    which, layer = np.divmod(first_of(different), len(layers))
    sizes = engine_sizes(
        shapes.chosen((which, layer)),
        cores[which, layer][:, None],
        width[which][:, None],
        learned.drain[point[which]][:, None],
        taps[which][:, None],
    )
    return expected_cycles(
        sizes,
        learned.counts[point[which], layer],
        learned.taps[point[which], layer][:, None],
        different.reshape(rows.shape),
        hardware.pipelined[members],
    )


def _machines(
    hardware: Hardware, members: _Indices, codes: Sequence[NDArray[Any]]
) -> Iterator[_Indices]:
    """Split some by their machines, and these into parts; codes say what else is one machine."""
    numbers = (*codes, hardware.width[members], *hardware.cores[members].T)
    machine = joint_codes((each.astype(np.int64) for each in numbers), len(members))
    for number in range(machine.max(initial=-1) + 1):
        alike = members[machine == number]
        for first in range(0, len(alike), _SAMPLES_AT_A_TIME):
            yield alike[first : first + _SAMPLES_AT_A_TIME]


def _without_waiting(model: TimingModel, timing: Timing) -> _Floats:
    """Cycles of layers, shape (samples, layers); our engine's only while they have work."""
    if not isinstance(model, EngineTiming):
        return timing.layer_cycles
    work = (timing.buckets[name] for name in ("encode", "accumulate", "fire"))
    return sum(work, np.array(DISPATCH_CYCLES * model.time_steps, dtype=np.float64))


def _machine_timing(
    question: Question, learned: Learned, members: _Indices, point: _Indices
) -> tuple[TimingModel, Timing]:
    """Time some that have one machine, from the spikes of every channel."""
    asked, index = question.asked, int(question.chosen[members[0]])
    config, network = asked.config(index), question.network[members[0]]
    with asked.naming(index):
        model = timing_model(config)
    events = question.networks.entering[network].events
    counts = [np.broadcast_to(events, (len(members), *events.shape))]
    for number, layer in enumerate(config.layers[1:], start=1):
        of_channel = learned.counts[point, number, :, None] / layer.in_channels
        counts.append(np.repeat(of_channel, layer.in_channels, axis=2))
    each = learned.taps[point].T[:, :, None, None]
    return model, model.statistics(
        counts, [count * taps for count, taps in zip(counts, each, strict=True)]
    )
