"""How the steps of layers follow one another: when each begins and ends, and which decide.

Arrays of cycles have the axes (samples, layers, time_steps).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .structure import Order

__all__ = ["critical_steps", "finish_times"]

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]


def finish_times(total: _Floats, order: Order, pipelined: _Flags) -> tuple[_Floats, _Floats]:
    """Let steps follow one another.

    Parameters
    ----------
    total : ndarray of float, shape (samples, layers, time_steps)
        Cycles that each step takes.
    order : {"serial", "lockstep", "pipelined", "slowest", "schedule"}
        See `spikemeter.predictor.structure.Structure`.
    pipelined : ndarray of bool, shape (samples,)
        Samples that ``schedule`` lets be pipelined.

    Returns
    -------
    start, finish : ndarray of float
        In the shape of `total`.
    """
    samples, layers, _ = total.shape
    if order == "lockstep":
        finish = np.cumsum(total.max(axis=1), axis=1)[:, None].repeat(layers, axis=1)
        start = np.concatenate([np.zeros((samples, layers, 1)), finish[..., :-1]], axis=2)
        return start, finish
    if order == "slowest":
        finish = np.cumsum(total, axis=2)
    else:
        finish = np.cumsum(total.reshape(samples, -1), axis=1).reshape(total.shape)
        flowing = _flowing(order, pipelined)
        if flowing.any():
            finish = np.where(flowing[:, None, None], _pipelined_finish(total), finish)
    return finish - total, finish


def critical_steps(total: _Floats, order: Order, pipelined: _Flags) -> _Floats:
    """Mark the steps that the latency is the sum of, as ones; parameters of `finish_times`."""
    samples, layers, steps = total.shape
    everyone = np.arange(samples)
    critical = np.zeros(total.shape)
    if order == "lockstep":
        critical[everyone[:, None], total.argmax(axis=1), np.arange(steps)] = 1.0
        return critical
    if order == "slowest":
        critical[everyone, total.sum(axis=2).argmax(axis=1)] = 1.0
        return critical
    flowing = _flowing(order, pipelined)
    critical[~flowing] = 1.0
    if flowing.any():
        finish = _pipelined_finish(total)
        layer, step = np.full(samples, layers - 1), np.full(samples, steps - 1)
        for _ in range(layers + steps - 1):  # from the last step back to the first
            critical[everyone, layer, step] = 1.0
            above = np.where(layer > 0, finish[everyone, layer - 1, step], -1.0)
            before = np.where(step > 0, finish[everyone, layer, step - 1], -1.0)
            up = above >= before
            layer, step = np.maximum(layer - up, 0), np.maximum(step - ~up, 0)
    return critical


def _flowing(order: Order, pipelined: _Flags) -> _Flags:
    """Tell samples whose layers start a step as soon as they can."""
    return pipelined if order == "schedule" else np.full(len(pipelined), order == "pipelined")


def _pipelined_finish(total: _Floats) -> _Floats:
    samples, layers, steps = total.shape
    finish = np.zeros_like(total)
    for layer in range(layers):
        for step in range(steps):
            above = finish[:, layer - 1, step] if layer else np.zeros(samples)
            before = finish[:, layer, step - 1] if step else above
            finish[:, layer, step] = np.maximum(above, before) + total[:, layer, step]
    return finish
