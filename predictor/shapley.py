"""Shapley values by permutation sampling, many points and outputs at once.

The value of a set of knobs is what is predicted when these come from the explained configuration
and all others from one of the background, averaged over the background: the interventional
definition, which asks what the model would say, whether or not knobs go together in the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ShapleyValues", "Value", "shapley_values"]

Value = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Outputs (asked, outputs) for indices (asked, knobs): the row that each knob is taken from."""

_AT_A_TIME = 2**18
"""Mixed configurations that are evaluated together, to bound memory."""

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShapleyValues:
    """What each knob contributes.

    Attributes
    ----------
    credit, errors : ndarray of float, shape (points, knobs, outputs)
        Shapley values, and their standard errors: how far other permutations of the knobs would
        move them. The background is taken as it is.
    base : ndarray of float, shape (outputs,)
        Mean over the background.
    predicted : ndarray of float, shape (points, outputs)
        ``base + credit.sum(axis=1)`` up to rounding.
    """

    credit: _Floats
    errors: _Floats
    base: _Floats
    predicted: _Floats


def shapley_values(
    value: Value,
    codes: _Indices,
    points: _Indices,
    background: _Indices,
    *,
    rounds: int,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> ShapleyValues:
    """Sample Shapley values.

    Parameters
    ----------
    value : callable
        Predicts rows that are mixed from others.
    codes : ndarray of int, shape (rows, knobs)
        Equal where two rows agree in a knob.
    points, background : ndarray of int
        Rows to explain, and rows to explain them by.
    rounds : int
        For each point and each row of the background, so many permutations are drawn, and each is
        also walked in reverse; at least 2, which tell the errors.
    rng : Generator
    progress : callable, optional
        Told how many points are done, of how many.

    Returns
    -------
    ShapleyValues

    Notes
    -----
    A walk goes from a row of the background to the point and turns one knob after the other; what
    each turn changes is credited to its knob, so that credits add up exactly. A permutation and its
    reverse err in opposite ways. Where two rows agree in a knob, turning it changes nothing and
    costs nothing.

    References
    ----------
    .. [1] Strumbelj and Kononenko, "Explaining prediction models and individual predictions with
       feature contributions", Knowledge and Information Systems 2014.
    .. [2] Mitchell et al., "Sampling permutations for Shapley value estimation", JMLR 2022.
    """
    if rounds < 2:
        raise ValueError(f"rounds must be at least 2, got {rounds}")
    knobs = codes.shape[1]
    ends = np.unique(np.concatenate([points, background]))
    at_ends = value(np.repeat(ends[:, None], knobs, axis=1))
    of_row = np.zeros((len(codes), at_ends.shape[1]))
    of_row[ends] = at_ends
    walks = len(background) * rounds * 2
    together = max(1, _AT_A_TIME // (walks * max(knobs - 1, 1)))
    credit = np.zeros((len(points), knobs, at_ends.shape[1]))
    errors = np.zeros_like(credit)
    for first in range(0, len(points), together):
        some = slice(first, first + together)
        walked = _walked(value, codes, points[some], background, of_row, rounds, rng)
        credit[some] = walked.mean(axis=(1, 2))
        errors[some] = np.sqrt(walked.var(axis=2, ddof=1).mean(axis=1) / (walks / 2))
        if progress is not None:
            progress(min(first + together, len(points)), len(points))
    return ShapleyValues(
        credit=credit,
        errors=errors,
        base=of_row[background].mean(axis=0),
        predicted=of_row[points],
    )


def _walked(
    value: Value,
    codes: _Indices,
    points: _Indices,
    background: _Indices,
    of_row: _Floats,
    rounds: int,
    rng: np.random.Generator,
) -> _Floats:
    """Credits, means of walks there and back, of shape (points, background, rounds, knobs, out)."""
    knobs, outputs = codes.shape[1], of_row.shape[1]
    shape = (len(points), len(background), rounds)
    order = rng.permuted(np.broadcast_to(np.arange(knobs), (*shape, knobs)), axis=-1)
    order = np.stack([order, order[..., ::-1]], axis=3).reshape(-1, knobs)
    start, end = (
        np.broadcast_to(rows, (*shape, 2)).ravel()
        for rows in (background[None, :, None, None], points[:, None, None, None])
    )
    before_and_after = _along(value, codes, order, start, end, of_row)
    credit = np.empty((len(order), knobs, outputs))
    np.put_along_axis(credit, order[:, :, None], np.diff(before_and_after, axis=1), axis=1)
    mean: _Floats = credit.reshape(*shape, 2, knobs, outputs).mean(axis=3)
    return mean


def _along(
    value: Value,
    codes: _Indices,
    order: _Indices,
    start: _Indices,
    end: _Indices,
    of_row: _Floats,
) -> _Floats:
    """Find outputs along walks, both ends included, shape (walks, knobs + 1, outputs)."""
    walks, knobs = order.shape
    different = codes[start] != codes[end]
    turns = np.take_along_axis(different, order, axis=1)
    turned = turns.cumsum(axis=1)
    # A knob that turns nothing, and the last that does, lead to what is known already.
    walk, step = np.nonzero(turns & (turned < turned[:, -1:]))
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(knobs), order.shape), axis=1)
    taken = rank[walk] <= step[:, None]
    asked = np.where(taken, end[walk, None], start[walk, None])
    found = np.empty((walks, knobs + 1, of_row.shape[1]))
    found[:, 0] = of_row[start]
    if len(asked):
        found[walk, step + 1] = value(asked)
    known = np.zeros((walks, knobs + 1), dtype=np.int64)
    known[walk, step + 1] = step + 1
    np.maximum.accumulate(known, axis=1, out=known)
    found = np.take_along_axis(found, known[:, :, None], axis=1)
    done = np.concatenate([np.zeros((walks, 1), dtype=bool), turned == turned[:, -1:]], axis=1)
    return np.where(done[:, :, None], of_row[end][:, None], found)
