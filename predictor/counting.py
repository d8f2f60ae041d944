"""Counts of spikes: made on the device that the spikes are on, fetched when somebody asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..network import Layer, taps_inside

__all__ = ["Counts", "SpikeCounter", "StepCounts"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """What was counted of some samples.

    Attributes
    ----------
    counts, taps : list of ndarray of float, shape (samples, time_steps, channels)
        Spikes that enter each weighted layer, and their kernel taps inside the frame.
    firing_rates : list of float
        Spikes per neuron and step that each layer emits, before pooling.
    """

    counts: list[_Floats]
    taps: list[_Floats]
    firing_rates: list[float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepCounts:
    """What was counted of a time step, or of all of an inference, on the device.

    Attributes
    ----------
    counts, taps : list of Tensor, shape (samples, channels) or (time_steps, samples, channels)
        As in `Counts`.
    fired : Tensor, shape (layers,)
        Spikes that each layer emitted.
    """

    counts: list[Tensor]
    taps: list[Tensor]
    fired: Tensor


class SpikeCounter:
    """Counts spikes, and keeps what was counted of the last samples.

    Parameters
    ----------
    layers : tuple of Layer
        The weighted layers.
    whole : bool
        Whether all time steps are counted at once.
    samples : int
        Keeps as many of the last inferences as hold this number of samples.
    """

    def __init__(self, layers: Sequence[Layer], *, whole: bool, samples: int) -> None:
        self._layers, self._whole, self._samples = layers, whole, samples
        self._taps = [_tap_weights(layer) for layer in layers]
        self._kept: deque[StepCounts] = deque()

    def count(self, entered: Mapping[int, Tensor], left: Mapping[int, Tensor]) -> StepCounts:
        """Count the spikes that entered each layer, and those that left its neurons."""
        pairs = [self._counts_of(index, entered[index]) for index in range(len(self._layers))]
        fired = [left[index].sum(dtype=torch.float32) for index in range(len(self._layers))]
        return StepCounts(
            counts=[counts for counts, _ in pairs],
            taps=[taps for _, taps in pairs],
            fired=torch.stack(fired),
        )

    def keep(self, steps: Sequence[StepCounts]) -> None:
        """Keep the counts of an inference, and forget those that are too old."""
        join = torch.cat if self._whole else torch.stack
        of_all = StepCounts(
            counts=[join(each) for each in zip(*(step.counts for step in steps), strict=True)],
            taps=[join(each) for each in zip(*(step.taps for step in steps), strict=True)],
            fired=torch.stack([step.fired for step in steps]).sum(0),
        )
        self._kept.append(of_all)
        sizes = [each.counts[0].shape[1] for each in self._kept]
        while sum(sizes[1:]) >= self._samples:
            self._kept.popleft()
            del sizes[0]

    def forget(self) -> None:
        """Drop what was kept."""
        self._kept.clear()

    def fetch(self) -> Counts | None:
        """Bring what was kept to the host; None if there is nothing."""
        if not self._kept:
            return None
        kept = self._kept
        counts = [_fetched(each) for each in zip(*(x.counts for x in kept), strict=True)]
        taps = [_fetched(each) for each in zip(*(x.taps for x in kept), strict=True)]
        # Functional dropout scales spikes: right in the mean, but a channel may seem to overflow
        for index, layer in enumerate(self._layers):
            pixels = layer.in_height * layer.in_width
            if counts[index].max() > pixels:
                share = np.minimum(1.0, pixels / np.maximum(counts[index], 1.0))
                counts[index], taps[index] = counts[index] * share, taps[index] * share
        fired = torch.stack([each.fired.double().cpu() for each in kept]).sum(0).tolist()
        steps = counts[0].shape[0] * counts[0].shape[1]
        rates = [total / (steps * x.neurons) for total, x in zip(fired, self._layers, strict=True)]
        return Counts(counts=counts, taps=taps, firing_rates=rates)

    def _counts_of(self, index: int, spikes: Tensor) -> tuple[Tensor, Tensor]:
        """Count spikes of each channel, and their taps."""
        layer, taps = self._layers[index], self._taps[index]
        lead = spikes.shape[: 2 if self._whole else 1]
        maps = spikes.to(torch.float32).reshape(*lead, layer.in_channels, -1)
        counts = maps.sum(-1) if maps.shape[-1] > 1 else maps[..., 0]
        if taps is None:
            return counts, counts
        if taps.device != maps.device:
            taps = self._taps[index] = taps.to(maps.device)
        return counts, maps @ taps


def _tap_weights(layer: Layer) -> Tensor | None:
    """Kernel taps inside the frame of a spike at each place; None if it is one everywhere."""
    if layer.kernel == 1:
        return None
    rows, columns = (torch.tensor(side, dtype=torch.float32) for side in taps_inside(layer))
    return torch.outer(rows, columns).flatten()


def _fetched(parts: Sequence[Tensor]) -> _Floats:
    """Bring counts of inferences together, shape (samples, time_steps, channels)."""
    arrays = [part.transpose(0, 1).cpu().numpy() for part in parts]
    return np.concatenate(arrays).astype(np.float64)
