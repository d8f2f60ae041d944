"""Spikes as the work that they make: flat arrays which a fitted timing model adds up.

A `Workload` holds the spikes of many samples, of one network or of many, as cells: one for each
sample, layer, step and input map, in this order. What else decides the work is a number for each
sample, layer and step, here called a row. A fit reads the workload of all its measurements, a
prediction that of one configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..network import Layer
from .timing import even_taps

__all__ = ["Workload", "joined", "workload"]

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Spikes of some samples, and the sizes of what they enter.

    Attributes
    ----------
    events, taps : ndarray of float, shape (cells,)
        Spikes, and their kernel taps inside the frame.
    maps : ndarray of int, shape (rows,)
        Cells of each row: the input maps of its layer.
    sample, layer, step : ndarray of int, shape (rows,)
        Where a row belongs; rows of a sample stand together.
    dense : ndarray of bool, shape (rows,)
        Whether the layer is a dense one.
    channels, area, inputs, pixels, kernel_taps, cores, width : ndarray of float, shape (rows,)
        Output channels, neurons of one of them, input lines, those of one map, taps of a kernel,
        and the configured cores and lines that are scanned at once.
    pipelined : ndarray of bool, shape (samples,)
        Whether the configured schedule is ``step_pipelined``.
    knobs : ndarray of float, shape (samples, knobs)
        Further numbers, in the order of their names.
    """

    events: _Floats
    taps: _Floats
    maps: _Indices
    sample: _Indices
    layer: _Indices
    step: _Indices
    dense: NDArray[np.bool_]
    channels: _Floats
    area: _Floats
    inputs: _Floats
    pixels: _Floats
    kernel_taps: _Floats
    cores: _Floats
    width: _Floats
    pipelined: NDArray[np.bool_]
    knobs: _Floats

    @property
    def samples(self) -> int:
        """Samples that it holds."""
        return len(self.pipelined)

    @property
    def starts(self) -> _Indices:
        """First row of every sample."""
        return np.searchsorted(self.sample, np.arange(self.samples)).astype(np.int64)


def workload(
    config: Config,
    counts: Sequence[_Floats],
    taps: Sequence[_Floats] | None,
    knobs: Sequence[str] = (),
) -> Workload:
    """Lay out the spikes of one configuration.

    Parameters
    ----------
    config : Config
        Network and hardware.
    counts : sequence of ndarray of float, shape (samples, time_steps, in_channels)
        Spikes that enter each weighted layer; with a last axis of 1 those of all channels, which
        are then taken to spike alike.
    taps : sequence of ndarray of float, or None
        Kernel taps of these spikes that lie inside the frame, in the same shapes. None: spikes
        are equally likely at every pixel.
    knobs : sequence of str, optional
        Names of the further numbers to take from `hardware.knobs`.
    """
    layers = config.layers
    samples, steps = counts[0].shape[:2]
    if taps is None:
        taps = [count * even_taps(layer) for layer, count in zip(layers, counts, strict=True)]

    def rows(values: Sequence[float]) -> _Floats:
        return np.tile(np.repeat(np.asarray(values, dtype=np.float64), steps), samples)

    numbers = [config.hardware.knobs[name] for name in knobs]
    width = float(config.hardware.encoder_width)
    indices = np.arange(samples * len(layers) * steps)
    return Workload(
        events=_cells(counts, layers),
        taps=_cells(taps, layers),
        maps=rows([layer.in_channels for layer in layers]).astype(np.int64),
        sample=indices // (len(layers) * steps),
        layer=indices // steps % len(layers),
        step=indices % steps,
        dense=rows([layer.kind == "dense" for layer in layers]) > 0,
        channels=rows([layer.out_channels for layer in layers]),
        area=rows([layer.out_height * layer.out_width for layer in layers]),
        inputs=rows([layer.inputs for layer in layers]),
        pixels=rows([layer.in_height * layer.in_width for layer in layers]),
        kernel_taps=rows([layer.kernel**2 for layer in layers]),
        cores=rows(config.neural_cores),
        width=rows([width] * len(layers)),
        pipelined=np.full(samples, config.hardware.schedule == "step_pipelined"),
        knobs=np.tile(np.asarray(numbers, dtype=np.float64), (samples, 1)),
    )


def joined(works: Sequence[Workload]) -> Workload:
    """Put workloads one after the other; their samples are numbered through."""
    offsets = np.cumsum([0, *(work.samples for work in works)])
    merged = {
        field.name: np.concatenate([getattr(work, field.name) for work in works])
        for field in fields(Workload)
    }
    merged["sample"] = np.concatenate(
        [work.sample + offset for work, offset in zip(works, offsets, strict=False)]
    )
    return Workload(**merged)


def _cells(arrays: Sequence[_Floats], layers: Sequence[Layer]) -> _Floats:
    """Flatten (samples, steps, channels) of every layer, samples first."""
    flat = [
        _by_channel(array, layer.in_channels).reshape(len(array), -1)
        for array, layer in zip(arrays, layers, strict=True)
    ]
    return np.concatenate(flat, axis=1).ravel()


def _by_channel(values: _Floats, channels: int) -> _Floats:
    """Spread numbers of all channels together evenly over them."""
    if values.shape[2] == channels:
        return np.asarray(values, dtype=np.float64)
    return np.broadcast_to(values / channels, (*values.shape[:2], channels))
