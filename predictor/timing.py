"""From spikes to cycles: the engine's exact timing, and its expectation from spike counts.

The machine is that of ``rtl/``. A step of a layer, counted from the cycle of its dispatch, costs

    begin  = max(words + 3, max over non-empty words k of (8 + k + S(k)))
    cost   = begin + height * width * phases + drain

with ``phases`` the output channels that a core owns, rounded up. ``S(k)`` is the service of all
events in words k and later; an event is served in ``phases x (taps inside the frame)`` cycles, and
``drain`` is 6, or 7 for Lapicque neurons. Each constant names the pipeline that it counts.

A layer's step t starts when the step before is done, its input is there and its output has room.
With ``layer_serial`` the input is the whole inference of the layer before, with ``step_pipelined``
its step t. The latency of an inference ends with the last step of the last layer.

From counts, ``S(k)`` is not known. Let n events of a step be independent and equally likely at
every input line, let A be all their service and W the words, and let X(k) be the service of the
events before word k, so that ``k + S(k) = A + k - X(k)``. On the scale of many words ``k - X(k)``
is a Brownian bridge with drift that ends at W - A and has the variance ``v = n E[service^2]``. Its
maximum exceeds x >= max(0, W - A) with the probability ``exp(-2 x (x - W + A) / v)``, and so

    E[begin] = words + 3 + max(0, A - W) + m + late
    m        = sqrt(pi v / 8) erfcx(abs(W - A) / sqrt(2 v))

Where A > W the decay of that probability is known exactly for a long step, by the exponent theta
of Lundberg's equation ``theta = (n / W) (1 - exp(-theta service))``, and ``v = 2 (A - W) / theta``
takes it over: services are lumps, and with few of them cores wait longer than under a diffusion.
Cycles are whole, so that m becomes ``1 / (exp(1 / m) - 1)``, the sum that belongs to the integral
of an exponential. ``late`` is for the events of the last words, whose pipeline is five cycles
longer than that of the scan: 5 cycles, times the chance that the last event ends that late.

The distribution of the maximum gives its variance over the places of the spikes, too:
``v / 2 - abs(W - A) m - m^2``. Where every input map is a single pixel, behind a dense layer, whole
counts per channel are the spike train, and the step costs exactly what a trace of it costs.

References
----------
.. [1] ``rtl/event_control.sv``: states ``StScan``, ``StFire``, ``StDrain``.
.. [2] ``rtl/spike_buffer.sv``: when a step is resident, and the two halves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Config, is_fitted
from ..network import Layer, packed_words, taps_inside
from .machine import BUCKETS, Timing, TimingModel, check_counts, check_trains
from .published import PublishedTiming

__all__ = [
    "BUCKETS",
    "EngineTiming",
    "StepCosts",
    "Timing",
    "TimingModel",
    "even_taps",
    "spike_taps",
    "timing_model",
]

DISPATCH_CYCLES = 1
"""`StIdle`: the step is dispatched."""
SCAN_CYCLES = 3
"""From the dispatch past the last word: one cycle to start, one to read, one to see it empty."""
EVENT_CYCLES = 8
"""From the dispatch until the first event of word 0 is served: read, list, encode, decode."""
DRAIN_CYCLES = {"lif": 6, "lapicque": 7}
"""`StDrain`: from the last cycle of `StFire` until its spikes are in the buffer, by neuron model.

A Lapicque neuron takes one cycle more for its multiplier (``rtl/neural_core.sv``, `gen_lapicque`).
"""
_LINES_AT_A_TIME = 2**24
"""Input lines, over samples and steps, that are packed at a time."""
_FEWEST = 1e-9
"""Stands in for amounts that are zero where they divide."""
_SMALLEST_MEAN = 0.01
"""Cycles: below this the sum over whole cycles is zero."""
_CRITICAL = 1.0001
"""Service per word scanned above which the cores are the bottleneck; near 1 both forms agree."""
_LATE_CYCLES = EVENT_CYCLES - SCAN_CYCLES
"""By which the pipeline of events is longer than that of the scan."""
_ROUNDING_VARIANCE = 0.25
"""Half a cycle squared: an expectation of whole cycles is not whole."""
_ROOT_PI_8 = math.sqrt(math.pi / 8)
_ROOT_HALF = math.sqrt(0.5)

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
    variance : ndarray of float, shape (samples, layers, time_steps), or None
        Of costs from counts, over the places that the spikes may have; None if they are exact.
    """

    encode: _Floats
    accumulate: _Floats
    fire: _Floats
    variance: _Floats | None = None

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
    """

    layers: tuple[Layer, ...]
    neural_cores: tuple[int, ...]
    encoder_width: int
    time_steps: int
    pipelined: bool
    neuron: Literal["lif", "lapicque"] = "lif"

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
        which word holds which spike.
        """
        check_counts(self.layers, self.time_steps, "counts", counts)
        if taps is not None:
            check_counts(self.layers, self.time_steps, "taps", taps, counts)
        return self.expected(counts, taps)

    def expected(self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None) -> Timing:
        """Do the work of `statistics`, for arrays that were checked before."""
        sizes = _sizes(self)
        events = _per_step(counts)
        served = events * sizes.even_taps if taps is None else _per_step(taps)
        costs = _expected_costs(sizes, events, served)
        if sizes.single_pixels:
            costs = self._with_known_places(costs, counts)
        return self._timing(costs, stream=False)

    def doubt(
        self, confidence: float, outside: Sequence[str] = ()
    ) -> tuple[float, tuple[str, ...]]:
        """None: cycles equal the RTL's."""
        return 0.0, ()

    def step_costs(self, inputs: Sequence[NDArray[np.bool_]]) -> StepCosts:
        """Costs of every step from spike trains; see `trace`."""
        sizes = _sizes(self)
        begins: list[_Floats] = []
        accumulates: list[_Floats] = []
        for layer, phases, spikes in zip(self.layers, sizes.phases.ravel(), inputs, strict=True):
            ends, services = _begin_and_service(layer, int(phases), self.encoder_width, spikes)
            begins.append(ends.astype(np.float64))
            accumulates.append(services.astype(np.float64))
        begin, accumulate = np.stack(begins, axis=1), np.stack(accumulates, axis=1)
        encode: _Floats = begin - accumulate - DISPATCH_CYCLES
        return StepCosts(encode=encode, accumulate=accumulate, fire=sizes.fire)

    def _with_known_places(self, costs: StepCosts, counts: Sequence[_Floats]) -> StepCosts:
        """Put in the exact costs of steps whose counts are spike trains themselves.

        In a map of a single pixel a channel is a line, so that counts of 0 and 1 say which word
        holds which spike.
        """
        assert costs.variance is not None
        encode, variance = costs.encode.copy(), costs.variance.copy()
        phases = _sizes(self).phases.ravel()
        for index in _sizes(self).single_pixels:
            layer, count = self.layers[index], counts[index]
            if count.shape[2] != layer.in_channels:
                continue
            known = ((count == 0) | (count == 1)).all(axis=2)
            begin, service = _begin_and_service(
                layer, int(phases[index]), self.encoder_width, count == 1
            )
            encode[:, index][known] = (begin - service - DISPATCH_CYCLES)[known]
            variance[:, index][known] = 0.0
        return replace(costs, encode=encode, variance=variance)

    def _timing(self, costs: StepCosts, *, stream: bool) -> Timing:
        """Put the layers' steps one after the other as the schedule says."""
        encode = np.add.reduce(costs.encode, axis=2)
        accumulate = np.add.reduce(costs.accumulate, axis=2)
        fire = np.repeat(costs.fire.T * self.time_steps, len(encode), axis=0)
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
            variance=None if costs.variance is None else np.add.reduce(costs.variance, axis=(1, 2)),
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
        if not self.pipelined:
            finish = total.reshape(len(total), -1).cumsum(axis=1).reshape(total.shape)
            return finish - total, finish
        # finish[t] = max(finish[t-1], ready[t]) + total[t], unrolled: the sum of the costs up to
        # t, and the longest wait of any step up to t
        spent = total.cumsum(axis=2)
        finish = np.empty_like(total)
        ready = np.zeros((len(total), 1))
        for layer in range(total.shape[1]):
            waited = ready - (spent[:, layer] - total[:, layer])
            finish[:, layer] = spent[:, layer] + np.maximum.accumulate(waited, axis=1)
            ready = finish[:, layer]
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
class _Sizes:
    """What the cost of a step depends on beside its spikes; shape (layers, 1)."""

    phases: _Floats
    words: _Floats
    fire: _Floats
    even_taps: _Floats
    # Mean square of the taps of a spike over the square of their mean
    spread: _Floats
    # Cycles that encode at least: the scan without the dispatch
    scan: _Floats
    # Share of the words after which a short event still ends before the scan
    inside: _Floats
    # Dense layers whose input maps are single pixels
    single_pixels: tuple[int, ...]


@lru_cache(maxsize=1024)
def _sizes(machine: EngineTiming) -> _Sizes:
    phases = [
        -(-layer.out_channels // cores)
        for layer, cores in zip(machine.layers, machine.neural_cores, strict=True)
    ]
    neurons = [layer.out_height * layer.out_width for layer in machine.layers]
    words = _column([packed_words(x.inputs, machine.encoder_width) for x in machine.layers])
    return _Sizes(
        phases=_column(phases),
        words=words,
        fire=_column(neurons) * _column(phases) + DRAIN_CYCLES[machine.neuron],
        even_taps=_column([even_taps(layer) for layer in machine.layers]),
        spread=_column([_tap_spread(layer) for layer in machine.layers]),
        scan=words + (SCAN_CYCLES - DISPATCH_CYCLES),
        inside=1 - (_LATE_CYCLES - 1) / 2 / words,
        single_pixels=tuple(
            index
            for index, layer in enumerate(machine.layers)
            if layer.kind == "dense" and layer.in_height == layer.in_width == 1
        ),
    )


def _tap_spread(layer: Layer) -> float:
    rows, columns = _taps(layer)
    of_rows = (rows**2).mean() / rows.mean() ** 2
    return float(of_rows * (columns**2).mean() / columns.mean() ** 2)


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


def _begin_and_service(
    layer: Layer, phases: int, encoder_width: int, spikes: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycles of every step until the first neuron fires, and those that add weights.

    Both of shape (samples, time_steps); computed for some samples at a time, to bound memory.
    """
    words = packed_words(layer.inputs, encoder_width)
    positions = EVENT_CYCLES + np.arange(words)
    some = max(1, _LINES_AT_A_TIME // (spikes.shape[1] * layer.inputs))
    begins, services = [], []
    for first in range(0, len(spikes), some):
        of_word = word_service(layer, phases, encoder_width, spikes[first : first + some])
        from_word = of_word[..., ::-1].cumsum(axis=2)[..., ::-1]
        ends = np.where(from_word > 0, positions + from_word, 0).max(axis=2)
        begins.append(np.maximum(words + SCAN_CYCLES, ends))
        services.append(from_word[..., 0])
    return np.concatenate(begins), np.concatenate(services)


def word_service(
    layer: Layer, phases: int, encoder_width: int, spikes: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Cycles that the events of every word are in service.

    Parameters
    ----------
    layer : Layer
        Geometry.
    phases : int
        Output channels that a core owns, rounded up.
    encoder_width : int
        Bits of a word.
    spikes : ndarray of bool, shape (samples, time_steps, ...)
        Spikes that enter the layer, in maps or flattened.

    Returns
    -------
    ndarray of int64, shape (samples, time_steps, words)
    """
    packed = _packed(layer, encoder_width, spikes)
    service = np.zeros(packed.shape[:3], dtype=np.int64)
    for taps, mask in _tap_masks(layer, encoder_width):
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


def _expected_costs(sizes: _Sizes, events: _Floats, taps: _Floats) -> StepCosts:
    """Costs expected from events and their taps, shape (samples, layers, time_steps)."""
    accumulate = taps * sizes.phases
    # Fewer than one event a step: some steps have one, the others none
    share = np.minimum(events, 1.0)
    some = np.maximum(events, 1.0)
    busy = accumulate / np.maximum(share, _FEWEST)
    service = busy / some
    after_scan = busy - sizes.words
    wait, variance = _overshoot(busy, service, after_scan, sizes)
    inside = np.maximum(np.minimum(sizes.inside - service / sizes.words, 1.0), 0.0)
    late = _LATE_CYCLES * (1.0 - inside**some)
    over = np.maximum(after_scan, 0.0) + wait + late
    over = np.maximum(over, after_scan + _LATE_CYCLES)
    return StepCosts(
        encode=sizes.scan + share * over - accumulate,
        accumulate=accumulate,
        fire=sizes.fire,
        variance=share * (variance + _ROUNDING_VARIANCE),
    )


def _overshoot(
    busy: _Floats, service: _Floats, after_scan: _Floats, sizes: _Sizes
) -> tuple[_Floats, _Floats]:
    """Cycles that accumulation is expected to end after both the scan and its own service.

    From the distribution of the maximum of a Brownian bridge with drift; see the module. Returns
    the variance over the places of the events, too.
    """
    from scipy.special import erfcx

    drift = np.abs(after_scan)
    spread_service = service * sizes.spread
    load = np.maximum(busy / sizes.words, _CRITICAL)
    exponent = _lundberg(load) / np.maximum(spread_service, _FEWEST)
    bridge = np.where(load > _CRITICAL, 2 * drift / exponent, busy * spread_service)
    deviation = np.sqrt(np.maximum(bridge, _FEWEST))
    mean = _ROOT_PI_8 * deviation * erfcx(_ROOT_HALF * drift / deviation)
    # Words are counted, not measured: a sum over whole cycles instead of an integral
    overshoot = 1 / np.expm1(1 / np.maximum(mean, _SMALLEST_MEAN))
    # E[x^2] of exp(-2 x (x + drift) / bridge) is bridge / 2 - drift mean
    return overshoot, bridge / 2 - (drift + mean) * mean


def _lundberg(load: _Floats) -> _Floats:
    """Positive root y of ``y = load (1 - exp(-y))`` for a load above 1, within a part in 10,000.

    One step of Newton's method, from the root's series around a load of 1 or, for a large one, from
    its limit; both lie right of the root, which they are off by 2 % at most.
    """
    above = load - 1
    start = np.minimum(load, 2 * above * (above + 3) / (2 * above + 3))
    decayed = load * np.exp(-start)
    root: _Floats = (load - decayed - start * decayed) / (1 - decayed)
    return root


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
    )


@lru_cache(maxsize=1024)
def even_taps(layer: Layer) -> float:
    """Taps inside the frame of a spike that is equally likely at every pixel, in expectation."""
    rows, columns = _taps(layer)
    return float(rows.mean() * columns.mean())


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
