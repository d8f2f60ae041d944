"""What cores cost and save: cycles of every layer for each core count that makes a difference.

A layer's cores share its output channels, so that its cycles depend on them through the phases
``P = ceil(out_channels / cores)`` alone. Of all core counts with the same phases the least is as
fast as any other, which leaves some ``2 sqrt(out_channels)`` options for a layer. What a step of it
costs with each option is worked out once; the latency of a whole allocation is then put together
from these, many allocations at a time, as the schedule says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .._checks import LARGEST_CORES, MOST_WRITTEN
from ..config import Config
from ..errors import ConfigError
from ..network import Layer, banks, packed_words, pixels_at_once
from .events import expected_taps, input_events
from .features import layer_features
from .folder import PredictorParts
from .predict import expected_spikes
from .published import PublishedTiming
from .spikes import KnownSpikes
from .timing import (
    DRAIN_CYCLES,
    EVENT_CYCLES,
    SCAN_CYCLES,
    EngineTiming,
    engine_sizes,
    layer_shapes,
    timing_model,
    word_service,
)

__all__ = ["AllocationCosts", "Objective", "allocation_costs", "core_counts"]

Objective = Literal["latency", "interval"]

_LINES_AT_A_TIME = 2**24
"""Input lines, over samples and steps, whose words are held at a time."""
_COSTS_AT_A_TIME = 2**21
"""Costs of steps that are put together at a time."""

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllocationCosts:
    """Cycles of all layers for all options, and how they add up.

    Attributes
    ----------
    cores : tuple of ndarray of int, shape (options,)
        Of each layer, ascending: the fewest cores of each number of phases.
    step_cycles : tuple of ndarray of float, shape (time_steps, options, samples)
        What a step costs with each option; one step stands for all where only those are known.
    pipelined : bool
        Whether a layer starts a step when the one before has finished that step.
    load_cycles : float or None
        To write the input of a step; None where inferences do not overlap.
    stream : bool
        Whether the samples enter in turn, as of a trace; each is a stream of its own otherwise.
    total_cycles : tuple of ndarray of float, shape (options,)
        What each layer spends on all samples.
    """

    cores: tuple[_Indices, ...]
    step_cycles: tuple[_Floats, ...]
    pipelined: bool
    load_cycles: float | None
    stream: bool
    total_cycles: tuple[_Floats, ...] = field(init=False)

    def __post_init__(self) -> None:
        totals = tuple(costs.sum(axis=(0, 2)) for costs in self.step_cycles)
        object.__setattr__(self, "total_cycles", totals)

    @property
    def samples(self) -> int:
        """Samples that all cycles are means over."""
        return int(self.step_cycles[0].shape[2])

    @property
    def time_steps(self) -> int:
        """Steps of an inference."""
        return len(self.step_cycles[0])

    @property
    def most_cores(self) -> int:
        """Cores beyond which nothing gets faster."""
        return sum(int(counts[-1]) for counts in self.cores)

    def used(self, choices: _Indices) -> _Indices:
        """Cores of whole allocations, shape (allocations,)."""
        total: _Indices = sum(
            (counts[choices[:, index]] for index, counts in enumerate(self.cores)),
            start=np.zeros(len(choices), dtype=np.int64),
        )
        return total

    def values(self, objective: Objective, choices: _Indices) -> _Floats:
        """Latency or initiation interval of whole allocations.

        Parameters
        ----------
        objective : {"latency", "interval"}
        choices : ndarray of int, shape (allocations, layers)
            Option of each layer.

        Returns
        -------
        ndarray of float, shape (allocations,)
            In cycles, mean over samples: those of an estimate on so many cores.
        """
        if self.is_sum(objective):
            total: _Floats = sum(
                (cycles[choices[:, index]] for index, cycles in enumerate(self.total_cycles)),
                start=np.zeros(len(choices)),
            )
            return total / self.samples  # exact where the cycles are whole
        some = max(1, _COSTS_AT_A_TIME // (self.samples * self.time_steps))
        parts = [
            self._some_values(objective, choices[at : at + some])
            for at in range(0, len(choices), some)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def is_sum(self, objective: Objective) -> bool:
        """Whether an objective is the sum of what the layers spend."""
        return self.load_cycles is None or (objective == "latency" and not self.pipelined)

    def size(self, objective: Objective) -> int:
        """Costs that a layer adds to an allocation, with some for what goes along with each."""
        if objective == "interval" and self.stream:
            return self.time_steps * (self.samples + len(self.cores) + 1)
        return self.time_steps * self.samples + 32

    def start(self, objective: Objective) -> _Floats:
        """Give the state before the first layer, below that of any allocation; see `advanced`."""
        if objective == "latency":
            return np.zeros((self.time_steps, 1, self.samples))
        assert self.load_cycles is not None
        slowest = np.full((1, 1, 1), self.load_cycles * self.time_steps)
        for layer in range(len(self.cores)):  # with as many cores as it can use
            least = self.cycles(objective, layer).min(axis=1, keepdims=True)
            slowest = np.maximum(slowest, least)
        return slowest

    def advanced(
        self, objective: Objective, layer: int, state: _Floats, options: _Indices
    ) -> _Floats:
        """Put one more layer behind partial allocations.

        Parameters
        ----------
        objective : {"latency", "interval"}
            One that is not a sum.
        layer : int
        state : ndarray of float, shape (time_steps, allocations, samples)
            End of each step of the layer before: ``finish[l, t] = max(finish[l-1, t],
            finish[l, t-1]) + cost[l, t]``. Or, with an axis of one step, what the slowest layer
            spends on an inference at least; in a stream, one number, its mean over samples.
        options : ndarray of int, shape (allocations,)
            Of the layer.
        """
        if objective == "latency":
            costs = self.step_cycles[layer][:, options]
            costs[0] += state[0]
            for step in range(1, len(costs)):
                costs[step] += np.maximum(costs[step - 1], state[step])
            return costs
        slowest: _Floats = np.maximum(state, self._spent(layer, options))
        return slowest

    def critical(self, objective: Objective, choice: _Indices) -> _Floats:
        """Tell what one allocation waits for, sample by sample.

        Parameters
        ----------
        objective : {"latency", "interval"}
            One that is not a sum, and not of a stream.
        choice : ndarray of int, shape (layers,)

        Returns
        -------
        ndarray of float, shape (1 + layers, time_steps, samples)
            Weights: 1 / samples for the steps on a longest path of each sample, else 0; of an
            interval, with an axis of one step, for its slowest layer, or first for its `start`. The
            weighted sum of costs is the objective of this allocation, and a lower bound of it for
            any other.
        """
        states = [self.start(objective)]
        for layer in range(len(self.cores)):
            options = choice[layer : layer + 1]
            states.append(self.advanced(objective, layer, states[-1], options))
        reached = np.stack([state[:, 0] for state in states])
        weights = np.zeros_like(reached)
        sample = np.arange(self.samples)
        if objective == "interval":
            weights[reached[:, 0].argmax(axis=0), 0, sample] = 1 / self.samples
            return weights
        at = np.full(self.samples, len(self.cores))
        when = np.full(self.samples, self.time_steps - 1)
        for _ in range(len(self.cores) + self.time_steps - 1):
            weights[at, when, sample] = 1 / self.samples
            before = np.where(when > 0, reached[at, when - 1, sample], -1.0)
            up = (at > 1) & (reached[at - 1, when, sample] >= before)
            at, when = at - up, when - (~up & (when > 0))
        return weights

    def cycles(self, objective: Objective, layer: int) -> _Floats:
        """Costs that the weights of `critical` are for, shape (time_steps, options, samples)."""
        if objective == "latency":
            return self.step_cycles[layer]
        return self._spent(layer, np.arange(len(self.cores[layer])))

    def _spent(self, layer: int, options: _Indices) -> _Floats:
        """Sum a layer's steps, shape (1, options, samples); a stream has one sample: the mean."""
        spent: _Floats = self.step_cycles[layer][:, options].sum(axis=0, keepdims=True)
        return spent.mean(axis=2, keepdims=True) if self.stream else spent

    def _some_values(self, objective: Objective, choices: _Indices) -> _Floats:
        if objective == "interval" and self.stream:
            return self._stream_intervals(choices)
        state = self.start(objective)
        for layer in range(choices.shape[1]):
            state = self.advanced(objective, layer, state, choices[:, layer])
        value: _Floats = state[-1].mean(axis=1)
        return value

    def _stream_intervals(self, choices: _Indices) -> _Floats:
        """Mean cycles between results of a stream; `EngineTiming` has the same, one by one."""
        load, steps = self.load_cycles, self.time_steps
        assert load is not None
        totals = [cycles[:, choices[:, layer]] for layer, cycles in enumerate(self.step_cycles)]
        if not self.pipelined:  # a layer waits for all steps of its input
            load, steps = load * steps, 1
            totals = [total.sum(axis=0, keepdims=True) for total in totals]
        layers, loaded = len(totals), np.zeros(len(choices))
        # End of every layer's work on the inference before last, and on the last one
        freed = last = [loaded] * layers
        done = []
        for inference in range(layers + 1 + self.samples):
            begin = np.maximum(loaded, freed[0])
            ready = [begin + load * (step + 1) for step in range(steps)]
            loaded, ends = ready[-1], []
            for layer, total in enumerate(totals):
                clock = last[layer]
                if layer + 1 < layers:
                    clock = np.maximum(clock, freed[layer + 1])
                for step in range(steps):
                    cost = total[step, :, inference % self.samples]
                    clock = np.maximum(clock, ready[step]) + cost
                    ready[step] = clock
                ends.append(clock)
            freed, last = last, ends
            done.append(ends[-1])
        interval: _Floats = (done[-1] - done[layers]) / self.samples
        return interval


def core_counts(layer: Layer, taps_per_cycle: int = 1) -> _Indices:
    """Fewest cores of each number of phases, ascending: no others need be tried.

    With nine banks, those that would write too many neurons at once are left out.

    Examples
    --------
    >>> from ..network import parse_network
    >>> core_counts(parse_network("10", channels=1, height=1, width=1)[0])
    array([ 1,  2,  3,  4,  5, 10])
    """
    cores = np.arange(1, min(layer.out_channels, LARGEST_CORES) + 1)
    phases = np.unique(-(-layer.out_channels // cores))
    if banks(layer, taps_per_cycle) > 1:
        pixels = [pixels_at_once(layer.pool, phase) for phase in phases.tolist()]
        phases = phases[np.array(pixels) * layer.out_channels <= MOST_WRITTEN]
    fewest: _Indices = -(-layer.out_channels // phases)[::-1]
    return fewest


def allocation_costs(
    config: Config, spikes: KnownSpikes | None, trace: bool, parts: PredictorParts | None
) -> AllocationCosts:
    """Cost all layers with all options, from the spikes that are known or expected.

    Parameters
    ----------
    config : Config
        Network and machine; its own core counts are left aside.
    spikes : KnownSpikes or None
        None for a prediction from hyperparameters.
    trace : bool
        Whether the costs are to be those of the spike trains, else of their counts.
    parts : PredictorParts or None
        Of a predictor; a trace needs none.

    Raises
    ------
    ConfigError
        If the machine is a fitted one.
    """
    model, layers = timing_model(config), config.layers
    cores = tuple(core_counts(layer, config.hardware.taps_per_cycle) for layer in layers)
    load = None
    if isinstance(model, EngineTiming):
        load = float(packed_words(layers[0].inputs, model.encoder_width))
        if trace:
            assert spikes is not None
            assert spikes.inputs is not None
            traced = zip(layers, cores, spikes.inputs, strict=True)
            costs = tuple(_traced(model, *each) for each in traced)
        else:
            counted = zip(layers, cores, *_amounts(config, spikes, parts), strict=True)
            costs = tuple(_counted(model, *each) for each in counted)
    elif isinstance(model, PublishedTiming):
        counts = spikes.counts if spikes is not None else _amounts(config, None, parts)[0]
        published = zip(layers, cores, counts, strict=True)
        costs = tuple(_published(model, *each) for each in published)
    else:
        rule = "must be engine or published to allocate cores: a fitted timing holds for the core"
        rule += " counts that were measured, and for no others"
        raise ConfigError(f"hardware.backend: {rule}; got {config.hardware.backend!r}")
    return AllocationCosts(
        cores=cores,
        step_cycles=costs,
        pipelined=config.hardware.schedule == "step_pipelined",
        load_cycles=load,
        stream=trace,
    )


def _amounts(
    config: Config, spikes: KnownSpikes | None, parts: PredictorParts | None
) -> tuple[Sequence[_Floats], Sequence[_Floats]]:
    """Give counts and taps of what enters each layer, as `predict_latency` takes them."""
    assert parts is not None
    if spikes is not None:
        ratios = parts.tap_ratios.of(len(config.layers))
        return spikes.counts, spikes.taps or expected_taps(config, spikes.counts, ratios)
    entering = input_events(config, parts.statistics)
    features = layer_features(config, entering.events, parts.domain.categories)
    expected = expected_spikes(config, entering, parts.model.predict(features), parts.profile)
    return [count[None] for count in expected.counts], [taps[None] for taps in expected.taps]


def _traced(
    model: EngineTiming, layer: Layer, cores: _Indices, train: NDArray[np.bool_]
) -> _Floats:
    """Costs of the steps of one layer from its spike train.

    See `timing` for the equation. Service goes with the phases, so that the words are read once.
    """
    phases = -(-layer.out_channels // cores)
    some = max(1, _LINES_AT_A_TIME // (train.shape[1] * layer.inputs))
    parts = []
    for first in range(0, len(train), some):
        service = word_service(model, layer, 1, train[first : first + some])
        from_word = service[..., ::-1].cumsum(axis=2)[..., ::-1]
        positions = EVENT_CYCLES + np.arange(service.shape[2])
        scanned = service.shape[2] + SCAN_CYCLES
        begins = [
            np.where(from_word > 0, positions + phase * from_word, scanned).max(axis=2)
            for phase in phases.tolist()
        ]
        parts.append(np.maximum(np.stack(begins), scanned))
    options = layer_shapes((layer,) * len(cores))
    drain, taps = DRAIN_CYCLES[model.neuron], model.taps_per_cycle
    sizes = engine_sizes(options, cores[:, None].astype(np.float64), 1, drain, taps)
    costs = np.concatenate(parts, axis=1).astype(np.float64)  # options, samples, steps
    return np.ascontiguousarray(np.moveaxis(costs, 2, 0)) + sizes.fire


def _counted(
    model: EngineTiming, layer: Layer, cores: _Indices, counts: _Floats, taps: _Floats
) -> _Floats:
    """Costs of the steps of one layer from counts: an engine of one step, a layer per option."""
    samples, steps, channels = counts.shape
    engine = replace(
        model,
        layers=(layer,) * len(cores),
        neural_cores=tuple(cores.tolist()),
        time_steps=1,
        pipelined=False,
    )
    flat = [amounts.reshape(samples * steps, 1, channels) for amounts in (counts, taps)]
    timing = engine.expected(*([amounts] * len(cores) for amounts in flat), chance=False)
    costs = timing.layer_cycles.reshape(samples, steps, len(cores))
    return np.ascontiguousarray(costs.transpose(1, 2, 0))


def _published(model: PublishedTiming, layer: Layer, cores: _Indices, counts: _Floats) -> _Floats:
    """Cycles of one layer, all steps in one, from counts: a machine with a layer per option."""
    machine = replace(model, layers=(layer,) * len(cores), neural_cores=tuple(cores.tolist()))
    return machine.statistics([counts] * len(cores)).layer_cycles.T[None]
