"""From spikes to cycles: the engine's exact timing, and its expectation from spike counts.

The machine is that of ``rtl/``. A step of a layer, counted from the cycle of its dispatch, costs

    begin  = max(words + 3, max over non-empty words k of (8 + k + S(k)))
    cost   = begin + height * width * phases + drain

with ``phases`` the output channels that a core owns, rounded up. ``S(k)`` is the service of all
events in words k and later; an event is served in ``phases x (taps inside the frame)`` cycles, and
``drain`` is 6, or 7 for Lapicque neurons. Each constant names the pipeline that it counts.

Where a core serves all nine taps of a 3x3 kernel at once (`hardware.taps_per_cycle`), an event is
served in ``phases`` cycles, and the neurons fire in tiles of 3x3. Tiles are written back in strips
of three pooled rows, of which the last one is waited for; `tiled_fire_cycles` has the equation.

A layer's step t starts when the step before is done, its input is there and its output has room.
With ``layer_serial`` the input is the whole inference of the layer before, with ``step_pipelined``
its step t. The latency of an inference ends with the last step of the last layer.

From counts, ``S(k)`` is not known; `expectation` derives what it does to a step in the mean, and
how much it scatters. Where every input map is a single pixel, behind a dense layer, whole counts
per channel are the spike train, and the step costs exactly what a trace of it costs.

Two things are left out when such steps are put together. With ``step_pipelined`` a layer waits for
the later of two events, and the later of two expectations stands for the expected later one: too
early, most where layers are equally slow. And the variance is summed over all steps of all layers,
those included for which nothing waits.

References
----------
.. [1] ``rtl/event_control.sv``: states ``StScan``, ``StFire``, ``StDrain``.
.. [2] ``rtl/spike_buffer.sv``: when a step is resident, and the two halves.
.. [3] ``rtl/strip_packer.sv``: how tiles are written back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Config, is_fitted
from ..network import Layer, banks, packed_words, taps_inside
from .expectation import LATE_CYCLES, StepSizes, StepWaits, expected_waits, mean_waits
from .machine import BUCKETS, Chance, Timing, TimingModel, check_counts, check_trains
from .published import PublishedTiming

__all__ = [
    "BUCKETS",
    "DRAIN_CYCLES",
    "EngineSizes",
    "EngineTiming",
    "LayerShapes",
    "StepCosts",
    "Timing",
    "TimingModel",
    "engine_sizes",
    "even_taps",
    "expected_cycles",
    "layer_shapes",
    "spike_taps",
    "stack_shapes",
    "tiled_fire_cycles",
    "timing_model",
    "word_service",
]

DISPATCH_CYCLES = 1
"""`StIdle`: the step is dispatched."""
SCAN_CYCLES = 3
"""From the dispatch past the last word: one cycle to start, one to read, one to see it empty."""
EVENT_CYCLES = SCAN_CYCLES + LATE_CYCLES
"""From the dispatch until the first event of word 0 is served: read, list, encode, decode."""
DRAIN_CYCLES = {"lif": 6, "lapicque": 7}
"""`StDrain`: from the last cycle of `StFire` until its spikes are in the buffer, by neuron model.

A Lapicque neuron takes one cycle more for its multiplier (``rtl/neuron_bank.sv``, `gen_lapicque`).
"""
READ_CYCLES = 1
"""By which spikes that are read from a strip are later than others (``rtl/strip_packer.sv``)."""
_LINES_AT_A_TIME = 2**24
"""Input lines, over samples and steps, that are packed at a time."""
_LAYERS_AT_A_TIME = 2**11
"""Layers whose steps are costed at a time: all arrays in between stay in the cache."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepCosts:
    """Cycles of every step of every layer, for a batch of samples.

    Attributes
    ----------
    encode, accumulate : ndarray of float, shape (samples, layers, time_steps)
        Cycles in which the cores wait for events, and in which they add weights.
    fire : ndarray of float, shape (layers, 1)
        Cycles per step in which neurons are updated, the drain of the pipeline included.
    waits : StepWaits, or None
        What costs from counts leave open; None if they are exact, or if nobody wants to know.
    """

    encode: _Floats
    accumulate: _Floats
    fire: _Floats
    waits: StepWaits | None = None

    @property
    def total(self) -> _Floats:
        """Cycles of a step from its dispatch to its end, shape (samples, layers, time_steps)."""
        return DISPATCH_CYCLES + self.fire + self.encode + self.accumulate


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTiming:
    """Timing of Spikemeter's own engine.

    Attributes
    ----------
    layers : tuple of Layer
        The network.
    neural_cores : tuple of int
        Cores of each layer.
    encoder_width : int
        Spikes that one scan cycle covers.
    time_steps : int
        Steps of an inference.
    pipelined : bool
        Whether the schedule is ``step_pipelined``.
    neuron : {"lif", "lapicque"}
        Model of the neurons.
    taps_per_cycle : int
        9 where a core serves all taps of a 3x3 kernel at once, else 1.
    """

    layers: tuple[Layer, ...]
    neural_cores: tuple[int, ...]
    encoder_width: int
    time_steps: int
    pipelined: bool
    neuron: Literal["lif", "lapicque"] = "lif"
    taps_per_cycle: int = 1

    def trace(self, inputs: Sequence[NDArray[np.bool_]]) -> Timing:
        """See `TimingModel.trace`; the cycles are those of the RTL, one for one."""
        check_trains(self.layers, self.time_steps, inputs)
        return self._timing(self.step_costs(inputs), stream=True)

    def statistics(
        self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None
    ) -> Timing:
        """See `TimingModel.statistics`.

        Counts of all channels together are as good as those of each, except in maps of a single
        pixel: there a channel is an input line. With taps, accumulation is exact; what is left is
        which word holds which spike. A layer that serves all taps at once needs none.

        Counts are those of one sample. Means over samples are allowed, but a step costs the longer
        of scan and service, so that the cycles of the mean lie below the mean of the cycles, and
        with ``step_pipelined`` a layer waits for the later of two on top of that.
        `Chance.convexity` says by how much at most.
        """
        check_counts(self.layers, self.time_steps, "counts", counts)
        if taps is not None:
            check_counts(self.layers, self.time_steps, "taps", taps, counts)
        return self.expected(counts, taps)

    def expected(
        self,
        counts: Sequence[_Floats],
        taps: Sequence[_Floats] | None = None,
        *,
        chance: bool = True,
    ) -> Timing:
        """Do the work of `statistics`, for arrays that were checked before.

        Without `chance` it is left aside how they scatter, which takes time of its own.
        """
        sizes, single_pixels, banked = _sizes(self)
        events = _per_step(counts)
        served = events * sizes.even_taps if taps is None else _per_step(taps)
        for index in banked:
            served[:, index] = events[:, index]
        accumulate = served * sizes.phases
        waits = expected_waits(sizes.steps, events, accumulate) if chance else None
        wait = mean_waits(sizes.steps, events, accumulate) if waits is None else waits.mean
        for index in single_pixels:
            if counts[index].shape[2] == self.layers[index].in_channels:
                exact, known = _known_places(sizes, index, self.encoder_width, counts[index])
                np.copyto(wait[:, index], exact, where=known)
                for open_ in () if waits is None else (waits.variance, waits.unevenness):
                    np.copyto(open_[:, index], 0.0, where=known)
        return self._timing(_expected_costs(sizes, wait, accumulate, waits), stream=False)

    def doubt(
        self, confidence: float, outside: Sequence[str] = ()
    ) -> tuple[float, tuple[str, ...]]:
        """None: cycles equal the RTL's."""
        return 0.0, ()

    def step_costs(self, inputs: Sequence[NDArray[np.bool_]]) -> StepCosts:
        """Costs of every step from spike trains; see `trace`."""
        sizes, *_ = _sizes(self)
        begins: list[_Floats] = []
        accumulates: list[_Floats] = []
        for layer, phases, spikes in zip(self.layers, sizes.phases.ravel(), inputs, strict=True):
            ends, services = _begin_and_service(self, layer, int(phases), spikes)
            begins.append(ends.astype(np.float64))
            accumulates.append(services.astype(np.float64))
        begin, accumulate = np.stack(begins, axis=1), np.stack(accumulates, axis=1)
        encode: _Floats = begin - accumulate - DISPATCH_CYCLES
        return StepCosts(encode=encode, accumulate=accumulate, fire=sizes.fire)

    def _timing(self, costs: StepCosts, *, stream: bool) -> Timing:
        """Put the layers' steps one after the other as the schedule says."""
        encode = np.add.reduce(costs.encode, axis=2)
        accumulate = np.add.reduce(costs.accumulate, axis=2)
        fire = (costs.fire * self.time_steps).T
        if len(encode) > 1:
            fire = np.repeat(fire, len(encode), axis=0)
        busy = encode + accumulate + fire
        spent = busy + DISPATCH_CYCLES * self.time_steps
        if self.pipelined:
            start, finish = self.schedule(costs.total)
            cycles, layer_cycles = finish[:, -1, -1], finish[:, :, -1] - start[:, :, 0]
        else:
            cycles, layer_cycles = np.add.reduce(spent, axis=1), spent
        return Timing(
            cycles=cycles,
            layer_cycles=layer_cycles,
            buckets={
                "encode": encode,
                "accumulate": accumulate,
                "fire": fire,
                "stall": layer_cycles - busy,
            },
            initiation_interval_cycles=(
                self._stream_intervals(costs.total) if stream else self._slowest_stage(spent)
            ),
            chance=None if costs.waits is None else _chance(costs.waits, spent, cycles),
        )

    def schedule(self, total: _Floats) -> tuple[_Floats, _Floats]:
        """When each step of each layer starts and ends, for inferences on an idle engine.

        Parameters
        ----------
        total : ndarray of float, shape (samples, layers, time_steps)
            Cost of every step.

        Returns
        -------
        start, finish : ndarray of float, shape (samples, layers, time_steps)
            Cycle of the dispatch of a step, and first cycle after it.
        """
        if self.pipelined:
            finish = _pipelined_finish(total)
        else:
            finish = total.reshape(len(total), -1).cumsum(axis=1).reshape(total.shape)
        return finish - total, finish

    def _stream_intervals(self, total: _Floats) -> _Floats:
        """Cycles between results when the samples enter in turn, again and again.

        Measured over each sample once, after as many inferences as there are layers, and one more:
        then the pipeline of layers is full. With very different samples the last cycles of the
        start-up can still show.
        """
        samples, layers, _ = total.shape
        full = layers + 1
        costs = total.tolist()
        done = self._stream([costs[index % samples] for index in range(full + samples)])
        return np.roll(np.diff(done[full - 1 :]), full % samples)

    def _stream(self, costs: Sequence[list[list[float]]]) -> list[float]:
        """Cycle after the last step of each of these inferences, back to back.

        An item of `costs` has the cost of every step by layer and step. The input of a step takes
        one cycle per word to write; a half of a buffer is free when its reader has finished the
        inference before last.
        """
        load = float(packed_words(self.layers[0].inputs, self.encoder_width))
        layers, steps = len(self.layers), self.time_steps
        loaded, done = 0.0, []
        # End of the last step of every layer, in the inference before last and the last one
        freed, last = [0.0] * layers, [0.0] * layers
        for inference in costs:
            begin = max(loaded, freed[0])
            ready = [begin + load * (step + 1) for step in range(steps)]
            loaded = ready[-1]
            ends = []
            for layer in range(layers):
                clock = last[layer]
                if layer + 1 < layers:
                    clock = max(clock, freed[layer + 1])
                finish = []
                for step, cost in enumerate(inference[layer]):
                    clock = max(clock, ready[step if self.pipelined else -1]) + cost
                    finish.append(clock)
                ready = finish
                ends.append(clock)
            freed, last = last, ends
            done.append(clock)
        return done

    def _slowest_stage(self, spent: _Floats) -> _Floats:
        """Cycles between results when one sample enters again and again.

        The slowest stage sets the pace: a layer that repeats its steps, which take the cycles
        `spent` of shape (samples, layers), or the load of the input.
        """
        load = self.time_steps * packed_words(self.layers[0].inputs, self.encoder_width)
        slowest: _Floats = np.maximum(np.maximum.reduce(spent, axis=1), load)
        return slowest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerShapes:
    """What the cost of a step depends on in the network.

    Attributes
    ----------
    channels, height, width : ndarray of float, shape (layers, 1)
        Output channels, and the map of neurons of one of them.
    pool : ndarray of float, shape (layers, 1)
        Side of the max pooling behind them.
    inputs : ndarray of float, shape (layers, 1)
        Input lines.
    even_taps, spread : ndarray of float, shape (layers, 1)
        Mean of the taps of a spike, and of their square over the square of that mean.
    bankable : ndarray of bool, shape (layers, 1)
        Whether a core can serve all taps of a spike at once.
    """

    channels: _Floats
    height: _Floats
    width: _Floats
    pool: _Floats
    inputs: _Floats
    even_taps: _Floats
    spread: _Floats
    bankable: NDArray[np.bool_]

    def chosen(self, index: Any) -> LayerShapes:
        """Choose some layers, or networks where these come first."""
        return LayerShapes(**{name: getattr(self, name)[index] for name in _SHAPES})


def stack_shapes(shapes: Sequence[LayerShapes]) -> LayerShapes:
    """Put networks of as many layers together: arrays of shape (networks, layers, 1)."""
    return LayerShapes(
        **{name: np.stack([getattr(each, name) for each in shapes]) for name in _SHAPES}
    )


_SHAPES = tuple(field.name for field in fields(LayerShapes))


@lru_cache(maxsize=1024)
def layer_shapes(layers: tuple[Layer, ...]) -> LayerShapes:
    """Read the shapes of the layers of a network."""
    return LayerShapes(
        channels=_column([layer.out_channels for layer in layers]),
        height=_column([layer.out_height for layer in layers]),
        width=_column([layer.out_width for layer in layers]),
        pool=_column([layer.pool for layer in layers]),
        inputs=_column([layer.inputs for layer in layers]),
        even_taps=_column([even_taps(layer) for layer in layers]),
        spread=_column([_tap_spread(layer) for layer in layers]),
        bankable=_column([banks(layer, 9) for layer in layers]) == 9,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineSizes:
    """What the cost of a step depends on beside its spikes.

    Attributes
    ----------
    phases, fire : ndarray of float, shape (layers, 1)
        Output channels that a core owns, rounded up, and cycles in which neurons are updated.
    even_taps : ndarray of float, shape (layers, 1)
        See `LayerShapes`; 1 where all taps of a spike are served at once.
    banked : ndarray of bool, shape (layers, 1)
        Whether they are.
    scan : ndarray of float, shape (layers, 1)
        Cycles that encode at least: the scan without the dispatch.
    steps : StepSizes
        What the wait for events depends on.
    """

    phases: _Floats
    fire: _Floats
    even_taps: _Floats
    banked: NDArray[np.bool_]
    scan: _Floats
    steps: StepSizes

    def part(self, layers: slice) -> EngineSizes:
        """Give some of the layers."""
        return EngineSizes(
            phases=self.phases[layers],
            fire=self.fire[layers],
            even_taps=self.even_taps[layers],
            banked=self.banked[layers],
            scan=self.scan[layers],
            steps=StepSizes(words=self.steps.words[layers], spread=self.steps.spread[layers]),
        )


def engine_sizes(
    shapes: LayerShapes,
    neural_cores: _Floats,
    encoder_width: int | _Floats,
    drain_cycles: int | _Floats,
    taps_per_cycle: int | _Floats,
) -> EngineSizes:
    """Put layers on an engine, or many layers each on its own.

    Parameters
    ----------
    shapes : LayerShapes
        The layers.
    neural_cores : ndarray of float, shape (layers, 1)
        Cores of each layer.
    encoder_width, drain_cycles, taps_per_cycle : int, or ndarray of float, shape (layers, 1)
        Of the engine, or of each layer's; see `DRAIN_CYCLES`.
    """
    phases = -(-shapes.channels // neural_cores)
    words = -(-shapes.inputs // encoder_width)  # `packed_words`, of arrays
    fire, even_taps, spread = shapes.height * shapes.width * phases, shapes.even_taps, shapes.spread
    banked = shapes.bankable & (taps_per_cycle == 9)
    if banked.any():
        fire = np.where(banked, tiled_fire_cycles(shapes, phases), fire)
        even_taps, spread = (np.where(banked, 1.0, each) for each in (even_taps, spread))
    return EngineSizes(
        phases=phases,
        fire=fire + drain_cycles,
        even_taps=even_taps,
        banked=banked,
        scan=words + (SCAN_CYCLES - DISPATCH_CYCLES),
        steps=StepSizes(words=words, spread=spread),
    )


def tiled_fire_cycles(shapes: LayerShapes, phases: _Floats) -> _Floats:
    """Cycles in which neurons are updated, tile by tile, and the last strip is written back.

    Pool rows of tiles make a strip of three pooled rows, which is read n pixels a cycle once it is
    whole, and once the strip before has been read:

        fire = phases x tile rows x tile columns
               + READ_CYCLES + max(0, R(3) - F) + R(rows of the last strip)

    with ``R(rows) = ceil(rows x pooled width / n)``, and F the cycles in which the last strip is
    fired. Strips before it are read while the next one is fired.

    Parameters
    ----------
    shapes : LayerShapes
        Layers with 3x3 kernels.
    phases : ndarray of float, shape (layers, 1)
        Output channels that a core owns, rounded up.

    References
    ----------
    .. [1] ``rtl/snn_layer.sv``, `WriteBackCycles`.
    """
    rows, columns = -(-shapes.height // 3), -(-shapes.width // 3)
    pooled_rows, pooled_columns = shapes.height // shapes.pool, shapes.width // shapes.pool
    rate = shapes.pool**2 * phases
    pixels = np.where(rate >= 9, 1.0, np.where(rate >= 3, 3.0, 9.0))  # `pixels_at_once`, of arrays
    before = -(-rows // shapes.pool) - 1  # strips before the last one
    last = -(-(pooled_rows - 3 * before) * pooled_columns // pixels)
    late = -(-3 * pooled_columns // pixels) - (rows - before * shapes.pool) * columns * phases
    wait = np.where(before > 0, np.maximum(late, 0.0), 0.0)
    cycles: _Floats = phases * rows * columns + READ_CYCLES + wait + last
    return cycles


def expected_cycles(
    sizes: EngineSizes,
    events: _Floats,
    taps: _Floats,
    layers: NDArray[np.int64],
    pipelined: NDArray[np.bool_],
) -> tuple[_Floats, _Floats, _Floats]:
    """Cycles of many networks, each on an engine of its own, from the spikes of their layers.

    What several of them share, a layer on so many cores with the same spikes, costs once.

    Parameters
    ----------
    sizes : EngineSizes
        Of each different layer; arrays have shape (different, 1).
    events : ndarray of float, shape (different, time_steps)
        Spikes that enter each different layer. None with maps of a single pixel gets exactly one
        spike a line: `EngineTiming` times those.
    taps : ndarray of float, shape (different, 1)
        Kernel taps inside the frame of each spike.
    layers : ndarray of int, shape (networks, layers)
        Which of them each network has.
    pipelined : ndarray of bool, shape (networks,)
        Whether the schedule is ``step_pipelined``.

    Returns
    -------
    cycles, initiation_interval_cycles : ndarray of float, shape (networks,)
        As `EngineTiming.statistics` gives them.
    layer_cycles : ndarray of float, shape (networks, layers)
        That each layer takes but for waiting for the one before.
    """
    steps = events.shape[1]
    if sizes.banked.any():
        taps = np.where(sizes.banked, 1.0, taps)
    spent, total = np.empty(len(events)), np.empty_like(events)
    for first in range(0, len(events), _LAYERS_AT_A_TIME):
        some = slice(first, first + _LAYERS_AT_A_TIME)
        part = sizes.part(some)
        accumulate = events[some] * taps[some] * part.phases
        wait = mean_waits(part.steps, events[some], accumulate)
        costs = _expected_costs(part, wait, accumulate)
        busy = np.add.reduce(costs.encode, axis=1) + np.add.reduce(accumulate, axis=1)
        spent[some] = busy + part.fire[:, 0] * steps + DISPATCH_CYCLES * steps
        total[some] = costs.total
    of_layers = spent[layers]
    cycles = np.add.reduce(of_layers, axis=1)
    if pipelined.any():
        cycles[pipelined] = _pipelined_finish(total[layers[pipelined]])[:, -1, -1]
    load = sizes.steps.words[layers[:, 0], 0] * steps
    return cycles, np.maximum(np.maximum.reduce(of_layers, axis=1), load), of_layers


@lru_cache(maxsize=1024)
def _sizes(machine: EngineTiming) -> tuple[EngineSizes, tuple[int, ...], tuple[int, ...]]:
    """Sizes of the layers of an engine, and which of them are special.

    First those that are dense ones behind maps of a single pixel, then those that serve all taps at
    once.
    """
    sizes = engine_sizes(
        layer_shapes(machine.layers),
        _column(machine.neural_cores),
        machine.encoder_width,
        DRAIN_CYCLES[machine.neuron],
        machine.taps_per_cycle,
    )
    single_pixels = tuple(
        index
        for index, layer in enumerate(machine.layers)
        if layer.kind == "dense" and layer.in_height == layer.in_width == 1
    )
    return sizes, single_pixels, tuple(np.flatnonzero(sizes.banked).tolist())


def _expected_costs(
    sizes: EngineSizes, wait: _Floats, accumulate: _Floats, waits: StepWaits | None = None
) -> StepCosts:
    return StepCosts(
        encode=sizes.scan + wait - accumulate,
        accumulate=accumulate,
        fire=sizes.fire,
        waits=waits,
    )


def _pipelined_finish(total: _Floats) -> _Floats:
    """End of every step, which starts when its input is there and the step before is done.

    ``finish[t] = max(finish[t-1], ready[t]) + total[t]``, unrolled: the sum of the costs up to t,
    and the longest wait of any step up to t.
    """
    spent = np.add.accumulate(total, axis=2)
    finish: _Floats = total - spent
    ready: _Floats | float = 0.0
    for of_layer, spent_of_layer in zip(finish.swapaxes(0, 1), spent.swapaxes(0, 1), strict=True):
        of_layer += ready
        np.maximum.accumulate(of_layer, axis=1, out=of_layer)
        of_layer += spent_of_layer
        ready = of_layer
    return finish


def _tap_spread(layer: Layer) -> float:
    of_rows, of_columns = (_tap_moments(taps)[1] for taps in taps_inside(layer))
    return of_rows * of_columns


@lru_cache(maxsize=1024)
def _tap_moments(taps: tuple[int, ...]) -> tuple[float, float]:
    """Mean of the taps along one side of a map, and mean square over its square."""
    each = np.array(taps, dtype=np.float64)
    mean = float(each.mean())
    return mean, float((each**2).mean()) / mean**2


def _column(values: Sequence[float]) -> _Floats:
    column = np.array(values, dtype=np.float64)[:, None]
    column.setflags(write=False)
    return column


def _per_step(arrays: Sequence[_Floats]) -> _Floats:
    """Sum over the channels of every layer, shape (samples, layers, time_steps)."""
    samples, steps = arrays[0].shape[:2]
    sums = np.empty((samples, len(arrays), steps))
    for index, array in enumerate(arrays):
        np.add.reduce(array, axis=2, out=sums[:, index])
    return sums


def _chance(waits: StepWaits, spent: _Floats, cycles: _Floats) -> Chance:
    """Sum over all steps of all layers, which spend some of their cycles at the same time.

    Where layers wait for the later of two, they may overlap less in the mean of samples than in the
    sample of mean counts.
    """
    convexity = None
    if waits.convexity is not None:
        overlap = np.add.reduce(spent, axis=1) - cycles
        convexity = np.add.reduce(waits.convexity, axis=(1, 2)) + overlap
    return Chance(
        variance=np.add.reduce(waits.variance, axis=(1, 2)),
        unevenness=np.add.reduce(waits.unevenness, axis=(1, 2)),
        convexity=convexity,
    )


def _known_places(
    sizes: EngineSizes, index: int, encoder_width: int, counts: _Floats
) -> tuple[_Floats, NDArray[np.bool_]]:
    """Exact waits of a layer's steps, and where its counts are spike trains, so that they hold.

    In a map of a single pixel a channel is a line, so that counts of 0 and 1 say which word holds
    which spike.
    """
    words, phases = sizes.steps.words[index, 0], sizes.phases[index, 0]
    service = phases * np.add.reduceat(counts, np.arange(0, counts.shape[2], encoder_width), axis=2)
    from_word = np.add.accumulate(service[..., ::-1], axis=2)
    positions = np.arange(words - 1, -1, -1) + (EVENT_CYCLES - SCAN_CYCLES - words)
    ends = np.where(from_word > 0, positions + from_word, 0.0)
    exact: _Floats = np.maximum.reduce(ends, axis=2, initial=0.0)
    return exact, np.logical_and.reduce(counts * counts == counts, axis=2)


def _begin_and_service(
    machine: EngineTiming, layer: Layer, phases: int, spikes: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycles of every step until the first neuron fires, and those that add weights.

    Both of shape (samples, time_steps); computed for some samples at a time, to bound memory.
    """
    words = packed_words(layer.inputs, machine.encoder_width)
    positions = EVENT_CYCLES + np.arange(words)
    some = max(1, _LINES_AT_A_TIME // (spikes.shape[1] * layer.inputs))
    begins, services = [], []
    for first in range(0, len(spikes), some):
        of_word = word_service(machine, layer, phases, spikes[first : first + some])
        from_word = of_word[..., ::-1].cumsum(axis=2)[..., ::-1]
        ends = np.where(from_word > 0, positions + from_word, 0).max(axis=2)
        begins.append(np.maximum(words + SCAN_CYCLES, ends))
        services.append(from_word[..., 0])
    return np.concatenate(begins), np.concatenate(services)


def word_service(
    machine: EngineTiming, layer: Layer, phases: int, spikes: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Cycles that the events of every word are in service.

    Parameters
    ----------
    machine : EngineTiming
        Gives the bits of a word, and how many taps are served at once.
    layer : Layer
        Geometry.
    phases : int
        Output channels that a core owns, rounded up.
    spikes : ndarray of bool, shape (samples, time_steps, ...)
        Spikes that enter the layer, in maps or flattened.

    Returns
    -------
    ndarray of int64, shape (samples, time_steps, words)
    """
    packed = _packed(layer, machine.encoder_width, spikes)
    service = np.zeros(packed.shape[:3], dtype=np.int64)
    at_once = banks(layer, machine.taps_per_cycle) > 1
    for taps, mask in [(1, None)] if at_once else _tap_masks(layer, machine.encoder_width):
        set_bits = np.bitwise_count(packed if mask is None else packed & mask)
        service += set_bits.sum(axis=3, dtype=np.int64) * (taps * phases)
    return service


def _packed(
    layer: Layer, encoder_width: int, spikes: NDArray[np.bool_]
) -> NDArray[np.unsignedinteger]:
    """Pack spikes as in the buffer: row, column, channel, and words of `encoder_width`.

    Returns
    -------
    ndarray of unsigned integers, shape (samples, time_steps, words, limbs)
    """
    samples, steps = spikes.shape[:2]
    maps = spikes.reshape(samples, steps, layer.in_channels, -1)
    lines = maps.swapaxes(2, 3).reshape(samples, steps, layer.inputs)
    words = packed_words(layer.inputs, encoder_width)
    limb_bits = next((bits for bits in (64, 32, 16, 8) if encoder_width % bits == 0), None)
    if words * encoder_width != layer.inputs:
        padded = np.zeros((samples, steps, words * encoder_width), dtype=np.bool_)
        padded[..., : layer.inputs] = lines
        lines = padded
    by_word = np.packbits(lines.reshape(samples, steps, words, encoder_width), axis=3)
    return by_word if limb_bits is None else by_word.view(f"u{limb_bits // 8}")


@lru_cache(maxsize=256)
def _tap_masks(
    layer: Layer, encoder_width: int
) -> tuple[tuple[int, NDArray[np.unsignedinteger] | None], ...]:
    """Input lines by their taps inside the frame: packed masks; None where all have the same."""
    taps = np.broadcast_to(
        np.multiply.outer(*_taps(layer)), (layer.in_channels, layer.in_height, layer.in_width)
    )
    values = [int(value) for value in np.unique(taps) if value]
    if len(values) == 1 and taps.all():
        return ((values[0], None),)
    return tuple(
        (value, _packed(layer, encoder_width, (taps == value)[None, None])[0, 0])
        for value in values
    )


def timing_model(config: Config) -> TimingModel:
    """Choose the timing model of the hardware that a configuration names.

    Parameters
    ----------
    config : Config
        Network, time steps and hardware.

    Returns
    -------
    TimingModel
        `EngineTiming` for ``hardware.backend: engine``, `PublishedTiming` for ``published``, and
        `FittedTiming` for the folder of a fitted backend.

    Raises
    ------
    PredictorError
        If the folder of a fitted backend cannot be used.
    ConfigError
        If a knob of a fitted backend is missing, unknown or impossible.
    """
    if is_fitted(config):
        from .fitted import fitted_timing  # it counts taps with the functions below

        return fitted_timing(config)
    if config.hardware.backend == "published":
        return PublishedTiming(
            layers=config.layers,
            neural_cores=config.neural_cores,
            encoder_width=config.hardware.encoder_width,
            time_steps=config.input.time_steps,
        )
    return EngineTiming(
        layers=config.layers,
        neural_cores=config.neural_cores,
        encoder_width=config.hardware.encoder_width,
        time_steps=config.input.time_steps,
        pipelined=config.hardware.schedule == "step_pipelined",
        neuron=config.neuron.model,
        taps_per_cycle=config.hardware.taps_per_cycle,
    )


@lru_cache(maxsize=1024)
def even_taps(layer: Layer) -> float:
    """Taps inside the frame of a spike that is equally likely at every pixel, in expectation."""
    of_rows, of_columns = (_tap_moments(taps)[0] for taps in taps_inside(layer))
    return of_rows * of_columns


def spike_taps(layer: Layer, spikes: NDArray[np.bool_]) -> _Floats:
    """Count the taps inside the frame of the spikes that enter a layer.

    Parameters
    ----------
    layer : Layer
        Geometry.
    spikes : ndarray of bool
        Shape (samples, time_steps, in_channels, in_height, in_width), or flattened from the
        channels on.

    Returns
    -------
    ndarray of float, shape (samples, time_steps, in_channels)
        Weights that each owned output channel adds; their sum over a layer, times its output
        channels, are its synaptic operations.
    """
    maps = spikes.reshape(*spikes.shape[:2], layer.in_channels, layer.in_height, layer.in_width)
    rows, columns = (side.astype(np.float64) for side in _taps(layer))
    taps: _Floats = (maps @ columns) @ rows
    return taps


def _taps(layer: Layer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = taps_inside(layer)
    return np.array(rows), np.array(columns)
