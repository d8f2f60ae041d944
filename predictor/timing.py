"""From spikes to cycles: the engine's exact timing, and its expectation from spike counts.

The machine is that of ``rtl/``. A step of a layer, counted from the cycle of its dispatch, costs

    begin  = max(words + 3, max over non-empty words k of (8 + k + S(k)))
    cost   = begin + neurons / cores + drain

where ``S(k)`` is the service of all events in words k and later; an event is served in
``phases x (taps inside the frame)`` cycles, and ``drain`` is 6, or 7 for Lapicque neurons. Each
constant names the pipeline that it counts.

A layer's step t starts when the step before is done, its input is there and its output has room.
With ``layer_serial`` the input is the whole inference of the layer before, with ``step_pipelined``
its step t. The latency of an inference ends with the last step of the last layer.

References
----------
.. [1] ``rtl/event_control.sv``: states ``StScan``, ``StFire``, ``StDrain``.
.. [2] ``rtl/spike_buffer.sv``: when a step is resident, and the two halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..network import Layer, packed_words
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
    "statistics_timing",
    "timing_model",
    "trace_timing",
]

_DISPATCH_CYCLES = 1
"""`StIdle`: the step is dispatched."""
_SCAN_CYCLES = 3
"""From the dispatch past the last word: one cycle to start, one to read, one to see it empty."""
_EVENT_CYCLES = 8
"""From the dispatch until the first event of word 0 is served: read, list, encode, decode."""
_DRAIN_CYCLES = {"lif": 6, "lapicque": 7}
"""`StDrain`: from the last cycle of `StFire` until its spikes are in the buffer, by neuron model.

A Lapicque neuron takes one cycle more for its multiplier (``rtl/neural_core.sv``, `gen_lapicque`).
"""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepCosts:
    """Cycles of every step of one layer, for a batch of samples.

    Attributes
    ----------
    encode, accumulate : ndarray of float, shape (samples, time_steps)
        Cycles in which the cores wait for events, and in which they add weights.
    fire : int
        Cycles per step in which neurons are updated, the drain of the pipeline included.
    """

    encode: _Floats
    accumulate: _Floats
    fire: int

    @property
    def total(self) -> _Floats:
        """Cycles of a step from its dispatch to its end, shape (samples, time_steps)."""
        return _DISPATCH_CYCLES + self.encode + self.accumulate + self.fire


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
        """Cycles from spike trains; equal to the RTL, cycle for cycle.

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
        check_trains(self.layers, self.time_steps, inputs)
        return self._timing(
            [
                self._exact_costs(layer, cores, spikes)
                for layer, cores, spikes in zip(self.layers, self.neural_cores, inputs, strict=True)
            ],
            stream=True,
        )

    def statistics(
        self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None
    ) -> Timing:
        """Cycles expected from spike counts.

        Parameters
        ----------
        counts : sequence of ndarray of float, shape (samples, time_steps, in_channels)
            Spikes that enter each weighted layer; need not be whole numbers.
        taps : sequence of ndarray of float, shape (samples, time_steps, in_channels), optional
            Kernel taps of these spikes that lie inside the frame (`spike_taps`). Default: spikes
            are equally likely at every pixel.

        Returns
        -------
        Timing
            One entry per sample. With taps, accumulation is exact; what is left is which word
            holds which spike.

        Raises
        ------
        ValueError
            If an array does not fit its layer.
        """
        check_counts(self.layers, self.time_steps, "counts", counts)
        if taps is None:
            taps = [
                count * even_taps(layer) for layer, count in zip(self.layers, counts, strict=True)
            ]
        check_counts(self.layers, self.time_steps, "taps", taps)
        return self._timing(
            [
                self._expected_costs(layer, cores, count.sum(axis=-1), tap.sum(axis=-1))
                for layer, cores, count, tap in zip(
                    self.layers, self.neural_cores, counts, taps, strict=True
                )
            ],
            stream=False,
        )

    def _fire_cycles(self, layer: Layer, cores: int) -> int:
        phases = -(-layer.out_channels // cores)
        return layer.out_height * layer.out_width * phases + _DRAIN_CYCLES[self.neuron]

    def _exact_costs(self, layer: Layer, cores: int, spikes: NDArray[np.bool_]) -> StepCosts:
        """Costs of a layer from its spike trains."""
        phases = -(-layer.out_channels // cores)
        samples, steps = spikes.shape[:2]
        shape = (samples, steps, layer.in_channels, layer.in_height, layer.in_width)
        taps = np.multiply.outer(*_taps(layer)) * phases
        # Packed as in the buffer: row, column, channel, and words of encoder_width
        service = np.where(spikes.reshape(shape), taps, 0).transpose(0, 1, 3, 4, 2)
        words = packed_words(layer.inputs, self.encoder_width)
        padded = np.zeros((samples, steps, words * self.encoder_width), dtype=np.int32)
        padded[:, :, : layer.inputs] = service.reshape(samples, steps, -1)
        of_word = padded.reshape(samples, steps, words, self.encoder_width).sum(
            axis=-1, dtype=np.int64
        )
        from_word = of_word[..., ::-1].cumsum(axis=-1)[..., ::-1]
        ends = np.where(from_word > 0, _EVENT_CYCLES + np.arange(words) + from_word, 0)
        begin = np.maximum(words + _SCAN_CYCLES, ends.max(axis=-1))
        accumulate = from_word[..., 0]
        return StepCosts(
            encode=(begin - accumulate - _DISPATCH_CYCLES).astype(np.float64),
            accumulate=accumulate.astype(np.float64),
            fire=self._fire_cycles(layer, cores),
        )

    def _expected_costs(
        self, layer: Layer, cores: int, events: _Floats, taps: _Floats
    ) -> StepCosts:
        """Costs of a layer expected from its events and their taps, shape (samples, time_steps).

        An approximation for events spread evenly over the words: with many the cores start at the
        first and are busy to the end; with few they wait for the scan and end soon after the last
        one. The later of the two ends is taken. Single placements can lie on either side.
        """
        accumulate = taps * -(-layer.out_channels // cores)
        words = packed_words(layer.inputs, self.encoder_width)
        # Evenly spread, n events leave gaps of (words - n) / (n + 1) words before, between, after
        some = np.maximum(events, 1.0)
        gap = np.maximum(words - some, 0) / (some + 1)
        service = accumulate / np.maximum(events, 1e-9)
        ends = np.maximum(gap + service * some, words - 1 - gap + service)
        busy = np.maximum(words + _SCAN_CYCLES, _EVENT_CYCLES + ends)
        # Fewer than one event a step: some steps have one, the others none
        share = np.minimum(events, 1.0)
        begin = share * busy + (1 - share) * (words + _SCAN_CYCLES)
        return StepCosts(
            encode=begin - accumulate - _DISPATCH_CYCLES,
            accumulate=accumulate,
            fire=self._fire_cycles(layer, cores),
        )

    def _timing(self, costs: Sequence[StepCosts], *, stream: bool) -> Timing:
        """Put the layers' steps one after the other as the schedule says."""
        total = np.stack([cost.total for cost in costs], axis=1)
        start, finish = self._schedule(total[None])
        layer_cycles = finish[0, :, :, -1] - start[0, :, :, 0]
        samples, steps = costs[0].total.shape
        buckets = {
            "encode": np.stack([cost.encode.sum(axis=1) for cost in costs], axis=1),
            "accumulate": np.stack([cost.accumulate.sum(axis=1) for cost in costs], axis=1),
            "fire": np.tile([float(cost.fire * steps) for cost in costs], (samples, 1)),
        }
        buckets["stall"] = layer_cycles - sum(buckets.values())
        return Timing(
            cycles=finish[0, :, -1, -1],
            layer_cycles=layer_cycles,
            buckets=buckets,
            initiation_interval_cycles=(
                self._stream_intervals(total) if stream else self._slowest_stage(total)
            ),
        )

    def _schedule(self, total: _Floats, load: float = 0.0) -> tuple[_Floats, _Floats]:
        """When each step of each layer starts and ends, for inferences back to back.

        Parameters
        ----------
        total : ndarray of float, shape (inferences, batch, layers, time_steps)
            Cost of every step.
        load : float
            Cycles in which the input of one step is written; 0: all inputs are resident.

        Returns
        -------
        start, finish : ndarray of float, shape (inferences, batch, layers, time_steps)
            Cycle of the dispatch of a step, and first cycle after it.
        """
        inferences, batch, layers, steps = total.shape
        start, finish = np.zeros_like(total), np.zeros_like(total)
        loaded = np.zeros((batch, steps))
        for n in range(inferences):
            # A half of a buffer is free when its reader has finished the inference before last
            freed = finish[n - 2, :, :, -1] if n >= 2 else np.zeros((batch, layers))
            begin = np.maximum(loaded[:, -1], freed[:, 0])[:, None]
            loaded = begin + load * np.arange(1, steps + 1) if load else loaded
            ready = loaded
            for layer in range(layers):
                clock = finish[n - 1, :, layer, -1] if n else np.zeros(batch)
                if layer + 1 < layers:
                    clock = np.maximum(clock, freed[:, layer + 1])
                for step in range(steps):
                    resident = ready[:, step if self.pipelined else -1]
                    start[n, :, layer, step] = np.maximum(clock, resident)
                    clock = start[n, :, layer, step] + total[n, :, layer, step]
                    finish[n, :, layer, step] = clock
                ready = finish[n, :, layer]
        return start, finish

    def _stream_intervals(self, total: _Floats) -> _Floats:
        """Cycles between results when the samples enter in turn, again and again.

        Measured from the moment when the pipeline of layers is full, over each sample once.
        """
        samples, layers, _ = total.shape
        full = layers + 1
        order = np.arange(full + samples) % samples
        load = packed_words(self.layers[0].inputs, self.encoder_width)
        _, finish = self._schedule(total[order][:, None], load=load)
        done = finish[:, 0, -1, -1]
        return np.roll(np.diff(done[full - 1 :]), full % samples)

    def _slowest_stage(self, total: _Floats) -> _Floats:
        """Cycles between results when one sample enters again and again.

        The slowest stage sets the pace: a layer that repeats its steps, or the load of the input.
        """
        load = self.time_steps * packed_words(self.layers[0].inputs, self.encoder_width)
        slowest: _Floats = np.maximum(total.sum(axis=2).max(axis=1), load)
        return slowest


def timing_model(config: Config) -> TimingModel:
    """Choose the timing model of the hardware that a configuration names.

    Parameters
    ----------
    config : Config
        Network, time steps and hardware.

    Returns
    -------
    TimingModel
        `EngineTiming` for ``hardware.backend: engine``, `PublishedTiming` for ``published``.
    """
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


def trace_timing(config: Config, inputs: Sequence[NDArray[np.bool_]]) -> Timing:
    """Cycles from spike trains by the machine of a configuration; see `TimingModel.trace`."""
    return timing_model(config).trace(inputs)


def statistics_timing(
    config: Config, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None
) -> Timing:
    """Cycles expected from spike counts; see `TimingModel.statistics`."""
    return timing_model(config).statistics(counts, taps)


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
    """Kernel rows, and columns, that reach a neuron inside the frame from each input position."""
    return (
        _taps_along(layer.in_height, layer.out_height, layer),
        _taps_along(layer.in_width, layer.out_width, layer),
    )


def _taps_along(inputs: int, outputs: int, layer: Layer) -> NDArray[np.int64]:
    if layer.kind == "dense":
        return np.ones(inputs, dtype=np.int64)
    position = np.arange(inputs)[:, None] + layer.padding - np.arange(layer.kernel)
    taps: NDArray[np.int64] = ((position >= 0) & (position < outputs)).sum(axis=1)
    return taps
