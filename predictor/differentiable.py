"""Latency as a differentiable function of spikes: the exact timing once more, in PyTorch.

A loss on spike counts treats all spikes alike; on the machine their price differs by layer, by
place in the frame, and by whether the cores wait for them at all. `TorchTiming` gives the cycles
of `spikemeter.predictor.timing` with a gradient for every spike. With s in [0, 1] for spikes,
packed into words as the machine does it, a step of a layer of the engine costs

    begin = max(words + 3, max over k of (S(k) + min(8 + k, words + 3) + late(k) O(k)))
    cost  = begin + neurons / cores + drain

    S(k) = phases x sum of s x (taps inside the frame) over words k and later
    O(k) = min(1, sum of s over words k and later)        late(k) = max(0, 8 + k - (words + 3))

Where all taps of a spike are served at once they count as one, and the neurons fire as
`tiled_fire_cycles` says.

On zeros and ones this is the exact cost. There O(k) tells whether any event comes from word k on.
If so, the term is 8 + k + S(k), as it should be (an empty word k only repeats the next one that is
not, less its lead). If not, the term is at most words + 3 and changes nothing. In between, a term
that loses its last spikes sinks below the scan without a jump. Only the last four words can begin
after the scan, so O weighs four cycles at most and every other word is linear in s.

References
----------
.. [1] ``rtl/event_control.sv``: states ``StScan``, ``StFire``, ``StDrain``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config
from ..errors import ConfigError
from ..network import Layer, banks, packed_words, taps_inside
from .published import LIST_CYCLES, MAP_CYCLES, TAP_CYCLES, PublishedTiming
from .timing import EVENT_CYCLES, SCAN_CYCLES, EngineTiming, timing_model

__all__ = ["TorchTiming"]


class TorchTiming(nn.Module):
    """Cycles of a machine from spike tensors, differentiable.

    On spikes of zeros and ones the cycles are those of the exact timing, and the gradient of an
    input is the time that its event is served, ``phases x taps``, in every step whose end waits
    for it: from the word on that attains the maximum. Words that tie share it evenly; where the
    scan of the words, or a tie with it, sets the end, the gradient is 0.

    Parameters
    ----------
    config : Config
        Network, time steps, neuron model and hardware.
    time_first : bool, default False
        Whether spikes have shape (time_steps, samples, ...), as a loop over time stacks them.
    temperature : float, optional
        Softness of every maximum, in cycles, above 0: ``max(x)`` becomes ``temperature x
        log(sum(exp(x / temperature)))``. This is never less than the maximum, exceeds it by at
        most ``temperature x log(number of terms)``, and shares the gradient among terms in
        proportion to ``exp(x / temperature)``, so that spikes behind the scan have one too.
        Default: the exact maximum. May be changed between calls.

    Raises
    ------
    ConfigError
        If the machine has no differentiable timing.
    ValueError
        If `temperature` is not above 0.

    Notes
    -----
    Computed in float32 (float64 if any spikes are) whatever autocast says, so that bfloat16 never
    rounds a cycle. The taps of a step and layer add up exactly below 2**24 and are multiplied by
    the phases last; steps and layers add up in float64, where the device has it. Results are then
    equal to the exact timing below 2**24 cycles and off by rounding above. Buffers are integers,
    so that ``half()`` leaves them exact, and stand in no state dict.

    For the engine with L layers and T steps a temperature adds at most ``T sum(log(words + 1))``
    times itself, and with ``step_pipelined`` as often the logarithm of the number of paths,
    ``comb(T + L - 2, L - 1)``. For the published machine it is ``T x phases x channels x log(2)``
    for each convolution.

    Examples
    --------
    >>> from spikemeter.config import load_config
    >>> config = load_config({"network": "4C3-MP2-10", "dataset": "nmnist-saccade"})
    >>> timing = TorchTiming(config)
    >>> frames = torch.zeros(1, 8, 2, 16, 16)
    >>> pooled = torch.zeros(1, 8, 4, 8, 8)
    >>> timing([frames, pooled])
    tensor([8536.])
    """

    def __init__(
        self, config: Config, *, time_first: bool = False, temperature: float | None = None
    ) -> None:
        super().__init__()
        model = timing_model(config)
        if not isinstance(model, EngineTiming | PublishedTiming):
            rule = "must be engine or published for a differentiable timing"
            raise ConfigError(f"hardware.backend: {rule}; got {config.hardware.backend!r}")
        self.time_first = time_first
        self.temperature = temperature
        self._time_steps = model.time_steps
        self._pipelined = isinstance(model, EngineTiming) and model.pipelined
        self._maps = [(x.in_channels, x.in_height, x.in_width) for x in model.layers]
        if isinstance(model, EngineTiming):
            self.layers = nn.ModuleList(
                _EngineLayer(model, layer, cores, silent)
                for layer, cores, silent in zip(
                    model.layers, model.neural_cores, _silent_cycles(model), strict=True
                )
            )
        else:
            self.layers = nn.ModuleList(
                _PublishedLayer(model, layer, cores)
                for layer, cores in zip(model.layers, model.neural_cores, strict=True)
            )

    @property
    def temperature(self) -> float | None:
        """Softness of the maxima in cycles; None: they are exact."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float | None) -> None:
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"temperature must be a number above 0 or None, got {value!r}")
        self._temperature = value

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Latency of every sample; see `cycles`."""
        return self.cycles(inputs)

    def cycles(self, inputs: Sequence[Tensor]) -> Tensor:
        """Latency of every sample, from the start with the input resident to done.

        Parameters
        ----------
        inputs : sequence of Tensor
            Spikes that enter each weighted layer, after pooling and before dropout, shape
            (samples, time_steps, channels, height, width) or, flattened in that order, (samples,
            time_steps, features); with `time_first` (time_steps, samples, ...). Zeros and ones, or
            relaxed to anything between. Values are not checked: outside this range, or not a
            number, they give cycles that mean nothing.

        Returns
        -------
        Tensor, shape (samples,)
            Cycles.

        Raises
        ------
        ValueError
            If an array does not fit its layer.
        """
        return self._latency(inputs)[0]

    def layer_cycles(self, inputs: Sequence[Tensor]) -> Tensor:
        """Cycles from the dispatch of a layer's first step to the end of its last.

        Parameters
        ----------
        inputs : sequence of Tensor
            As for `cycles`.

        Returns
        -------
        Tensor, shape (samples, layers)
            Cycles; where layers run one after the other they add up to the latency.

        Raises
        ------
        ValueError
            If an array does not fit its layer.
        """
        return self._latency(inputs)[1]

    def _latency(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Cycles of shape (samples,) and of shape (samples, layers)."""
        self._check(inputs)
        double = any(spikes.dtype == torch.float64 for spikes in inputs)
        dtype = torch.float64 if double else torch.float32
        device = inputs[0].device.type
        wide = dtype if device == "mps" else torch.float64  # MPS has no float64
        with torch.autocast(device, enabled=False):
            costs = [
                layer(spikes.reshape(*spikes.shape[:2], *size), dtype, self._temperature)
                for layer, spikes, size in zip(self.layers, inputs, self._maps, strict=True)
            ]
            total = torch.stack(costs).to(wide)
            total = total if self.time_first else total.transpose(1, 2)
            cycles, spans = self._pipeline(total) if self._pipelined else _serial(total)
            return cycles.to(dtype), spans.T.to(dtype)

    def _pipeline(self, total: Tensor) -> tuple[Tensor, Tensor]:
        """Cycles of all and of each layer, from costs of shape (layers, time_steps, samples).

        ``finish[l, t] = max(finish[l - 1, t], finish[l, t - 1]) + cost[l, t]`` without a loop over
        the steps: with the layer's cumulated costs C it is ``C[t] + max over s <= t of
        (finish[l - 1, s] - C[s - 1])``, s being the last step that waited for its input.
        """
        finish = total[0].cumsum(0)
        spans = [finish[-1]]
        for cost in total[1:].unbind(0):
            ready, own = finish, cost.cumsum(0)
            gap = ready - (own - cost)
            if self._temperature is None:
                wait = gap.cummax(0).values
            else:
                wait = self._temperature * (gap / self._temperature).logcumsumexp(0)
            finish = own + wait
            spans.append(finish[-1] - ready[0])
        return finish[-1], torch.stack(spans)

    def _check(self, inputs: Sequence[Tensor]) -> None:
        """Hold the arrays against the layers; worded as for arrays of the exact timing."""
        if len(inputs) != len(self._maps):
            rule = f"inputs must be {len(self._maps)} arrays, one per weighted layer"
            raise ValueError(f"{rule}, got {len(inputs)}")
        of_samples, of_steps = (1, 0) if self.time_first else (0, 1)
        for index, (spikes, size) in enumerate(zip(inputs, self._maps, strict=True)):
            shape = tuple(spikes.shape)
            allowed = ((math.prod(size),), size)
            if len(shape) < 3 or shape[of_steps] != self._time_steps or shape[2:] not in allowed:
                steps = str(self._time_steps)
                lead = (steps, "samples") if self.time_first else ("samples", steps)
                expected = " or ".join(f"({', '.join((*lead, *map(str, x)))})" for x in allowed)
                raise ValueError(f"inputs_{index} must have shape {expected}, got {shape}")
            if shape[of_samples] != inputs[0].shape[of_samples] or not shape[of_samples]:
                rule = "must hold one sample or more, as many as layer 0"
                raise ValueError(f"inputs_{index} {rule}, got {shape[of_samples]}")


class _EngineLayer(nn.Module):
    """Cost of every step of one layer of the engine; the equation is that of the module.

    Inputs that share a word and a pixel come in runs of ``gcd(channels, encoder_width)`` channels.
    A run has one number of taps, so runs are added up before anything is permuted or multiplied.
    """

    taps: Tensor
    lead: Tensor

    def __init__(self, model: EngineTiming, layer: Layer, cores: int, silent_cycles: float) -> None:
        super().__init__()
        self.phases = -(-layer.out_channels // cores)
        self.silent_cycles = silent_cycles
        self.pixels = layer.in_height * layer.in_width
        self.run = math.gcd(layer.in_channels, model.encoder_width)
        words = packed_words(layer.inputs, model.encoder_width)
        runs = (words, model.encoder_width // self.run)
        of_run = _taps(layer, model.taps_per_cycle).repeat_interleave(layer.in_channels // self.run)
        self.padding = math.prod(runs) - len(of_run)
        taps = F.pad(of_run, (0, self.padding)).reshape(runs)
        self.register_buffer("taps", taps, persistent=False)
        # From the end of the scan to the first event of a word; of the last words it is positive
        lead = torch.arange(words, dtype=torch.int32) + (EVENT_CYCLES - SCAN_CYCLES - words)
        self.register_buffer("lead", lead, persistent=False)
        self.early = int((lead <= 0).sum())

    def forward(self, spikes: Tensor, dtype: torch.dtype, temperature: float | None) -> Tensor:
        """Cost of shape (a, b) from spikes of shape (a, b, channels, height, width)."""
        a, b = spikes.shape[:2]
        of_runs = spikes.reshape(a, b, -1, self.run, self.pixels).sum(3, dtype=dtype)
        packed = F.pad(of_runs.transpose(2, 3).flatten(2), (0, self.padding))
        packed = packed.reshape(a, b, *self.taps.shape)
        taps = _from_word((packed * self.taps.to(dtype)).sum(-1))
        events = _from_word(packed[:, :, self.early :].sum(-1))
        lead = self.lead.to(dtype)
        # 1 - relu(1 - x) is min(1, x) with no gradient at 1: a single spike is there or not
        occupied = lead[self.early :] * (1 - F.relu(1 - events))
        after_scan = self.phases * taps + lead.clamp(max=0)
        after_scan = after_scan + F.pad(occupied, (self.early, 0))
        if temperature is None:
            wait = F.relu(after_scan.amax(-1))
        else:
            wait = temperature * (F.pad(after_scan, (1, 0)) / temperature).logsumexp(-1)
        return self.silent_cycles + wait


class _PublishedLayer(nn.Module):
    """Cost of every step of one layer of the published engine; see `PublishedTiming`."""

    def __init__(self, model: PublishedTiming, layer: Layer, cores: int) -> None:
        super().__init__()
        self.kind = layer.kind
        self.phases = -(-layer.out_channels // cores)
        self.pixels = layer.out_height * layer.out_width
        self.words = packed_words(layer.inputs, model.encoder_width)

    def forward(self, spikes: Tensor, dtype: torch.dtype, temperature: float | None) -> Tensor:
        """Cost of shape (a, b) from spikes of shape (a, b, channels, height, width)."""
        counts = spikes.flatten(3).sum(-1, dtype=dtype)
        if self.kind == "dense":
            events = counts.sum(-1)
            return LIST_CYCLES * (self.words + events) + self.phases * (events + 1)
        adding, encoding = TAP_CYCLES * counts, MAP_CYCLES + LIST_CYCLES * counts
        if temperature is None:
            slower = torch.maximum(adding, encoding)
        else:
            slower = temperature * torch.logaddexp(adding / temperature, encoding / temperature)
        return self.phases * (slower.sum(-1) + self.pixels)


def _serial(total: Tensor) -> tuple[Tensor, Tensor]:
    """Cycles of all and of each layer, from costs of shape (layers, time_steps, samples)."""
    spans = total.sum(1)
    return spans.sum(0), spans


def _from_word(of_word: Tensor) -> Tensor:
    """Sum over each word and those after it, along the last axis."""
    return of_word.flip(-1).cumsum(-1).flip(-1)


def _silent_cycles(model: EngineTiming) -> list[float]:
    """Cost of a step without spikes, of every layer, as the exact timing has it."""
    one = replace(model, time_steps=1, pipelined=False)
    silence = [np.zeros((1, 1, layer.inputs), dtype=np.bool_) for layer in model.layers]
    cycles: list[float] = one.trace(silence).layer_cycles[0].tolist()
    return cycles


def _taps(layer: Layer, taps_per_cycle: int) -> Tensor:
    """Kernel taps inside the frame of an input that take a cycle each, shape (pixels,)."""
    if banks(layer, taps_per_cycle) > 1:
        return torch.ones(layer.in_height * layer.in_width, dtype=torch.int32)
    rows, columns = (torch.tensor(side, dtype=torch.int32) for side in taps_inside(layer))
    return torch.outer(rows, columns).flatten()
