"""The published engine of arXiv 2603.24891 as a formula: what its cycles follow from, about.

A convolution (3x3, padded) goes through its output channels in ``P = ceil(C_out / cores)`` phases,
and in each phase through all steps and input maps. An encoder turns a map of S spikes into a list
while the cores work on the list before, nine cycles per spike, then every neuron fires:

    cycles = P (sum over steps, channels of max(9 S, 10 + 2 S) + T H W)

A dense layer first lists the spikes of all steps, then each of ``R = ceil(neurons / cores)`` rounds
reads them, one cycle per spike, and fires:

    cycles = 2 (chunks + S) + R (S + T)        chunks = T ceil(inputs / encoder_width)

Layers run one after the other and inferences do not overlap. Taps outside the frame take their
cycle too, so spike counts alone decide.

The ten cycles of a map are four chunks, since an encoder of that design spans a quarter of a map,
and two for the handover: ``encoder_width`` is that of the dense layers alone. Its dense encoder
spans 200 inputs, and its states take some cycles more than this formula: counted one by one they
give 65,926 for the larger dense layer of the published sample, the formula with a width of 32
gives 64,677, and 64,610 are published. The core counts of that sample are not published; those in
``tests/predictor/test_published.py`` are inferred from its cycles.

References
----------
.. [1] Aliyev, Lopez, Adegbija, "Surrogates, Spikes, and Sparsity", arXiv 2603.24891, ISPASS 2026.
.. [2] Its code, github.com/githubofaliyev/SNN-DSE: ``Hardware/conv_ec.sv`` and ``fc_ec.sv``, and
   ``Hardware/cycles_and_spikes_sample.txt`` for the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..network import Layer, packed_words
from .machine import BUCKETS, Timing, check_counts, check_trains

__all__ = [
    "LIST_CYCLES",
    "MAP_CYCLES",
    "PUBLISHED_ERROR",
    "TAP_CYCLES",
    "PublishedTiming",
]

PUBLISHED_ERROR = 0.08
"""No layer of the published sample is farther from the formula, as a share; a test measures it."""

_WARNING = (
    "hardware.backend: published is an approximate formula; it is within "
    f"{100 * PUBLISHED_ERROR:.0f} % of each layer of the one published sample, with its cores "
    "inferred, and the interval is wider by as much"
)

TAP_CYCLES = 9
"""Per spike and phase of a convolution: one for each tap, those outside the frame included."""
MAP_CYCLES = 10
"""To encode an input map without spikes: two for each of four chunks, two for the handover."""
LIST_CYCLES = 2
"""To put a spike on the list, and to pass over a chunk of a dense layer."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTiming:
    """Timing of the published engine; approximate, see `PUBLISHED_ERROR`.

    Attributes
    ----------
    layers : tuple of Layer
        The network; its convolutions are 3x3 and padded.
    neural_cores : tuple of int
        Cores of each layer.
    encoder_width : int
        Inputs of a dense layer that one chunk covers.
    time_steps : int
        Steps of an inference.
    """

    layers: tuple[Layer, ...]
    neural_cores: tuple[int, ...]
    encoder_width: int
    time_steps: int

    def trace(self, inputs: Sequence[NDArray[np.bool_]]) -> Timing:
        """See `TimingModel.trace`; the cycles are those of the counts."""
        check_trains(self.layers, self.time_steps, inputs)
        maps = [
            train.reshape(*train.shape[:2], layer.in_channels, -1)
            for layer, train in zip(self.layers, inputs, strict=True)
        ]
        return self._timing([spikes.sum(axis=-1, dtype=np.float64) for spikes in maps])

    def statistics(
        self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None
    ) -> Timing:
        """See `TimingModel.statistics`; taps are without effect.

        Counts of all channels together are taken to be alike in each. Counts that are means, over
        samples or channels, give a lower bound, since the larger of two costs is taken map by map.
        """
        check_counts(self.layers, self.time_steps, "counts", counts)
        if taps is not None:
            check_counts(self.layers, self.time_steps, "taps", taps, counts)
        return self._timing(
            [
                np.broadcast_to(count / layer.in_channels, (*count.shape[:2], layer.in_channels))
                if count.shape[2] != layer.in_channels
                else count
                for layer, count in zip(self.layers, counts, strict=True)
            ]
        )

    def doubt(
        self, confidence: float, outside: Sequence[str] = ()
    ) -> tuple[float, tuple[str, ...]]:
        """Log of the largest error seen, at any confidence, and a warning that says so."""
        return math.log1p(PUBLISHED_ERROR), (_WARNING,)

    def _timing(self, counts: Sequence[_Floats]) -> Timing:
        """Add up the layers, which run one after the other."""
        costs = [
            (self._conv_cycles if layer.kind == "conv" else self._dense_cycles)(layer, cores, count)
            for layer, cores, count in zip(self.layers, self.neural_cores, counts, strict=True)
        ]
        buckets = {
            name: np.stack([cost[index] for cost in costs], axis=1)
            for index, name in enumerate(BUCKETS)
        }
        layer_cycles = np.sum(list(buckets.values()), axis=0)
        cycles = layer_cycles.sum(axis=1)
        return Timing(
            cycles=cycles,
            layer_cycles=layer_cycles,
            buckets=buckets,
            initiation_interval_cycles=cycles.copy(),
        )

    def _conv_cycles(self, layer: Layer, cores: int, counts: _Floats) -> tuple[_Floats, ...]:
        """Cycles by `BUCKETS`, each of shape (samples,), from the counts of every step and map."""
        phases = -(-layer.out_channels // cores)
        adding = TAP_CYCLES * counts
        waiting = np.maximum(MAP_CYCLES + LIST_CYCLES * counts - adding, 0)
        firing = float(phases * self.time_steps * layer.out_height * layer.out_width)
        return (
            phases * waiting.sum(axis=(1, 2)),
            phases * adding.sum(axis=(1, 2)),
            np.full(len(counts), firing),
            np.zeros(len(counts)),
        )

    def _dense_cycles(self, layer: Layer, cores: int, counts: _Floats) -> tuple[_Floats, ...]:
        """Cycles by `BUCKETS`, each of shape (samples,), from the counts of every step and map."""
        rounds = -(-layer.out_channels // cores)
        spikes = counts.sum(axis=(1, 2))
        chunks = self.time_steps * packed_words(layer.inputs, self.encoder_width)
        return (
            LIST_CYCLES * (chunks + spikes),
            rounds * spikes,
            np.full(len(counts), float(rounds * self.time_steps)),
            np.zeros(len(counts)),
        )
