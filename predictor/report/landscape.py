"""Charts of many networks: the two-phase search, the Pareto front, predicted against measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .charts import Chart, Table, axis, dots, figure, heat, log_axis, whiskers
from .effects import cell, value_text
from .style import (
    ACCENT,
    GREY,
    INK,
    PAPER,
    SEQUENTIAL,
    SEQUENTIAL_WIDE,
    UP,
    amount,
    anchor,
    label,
    percent,
    with_unit,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..estimate import LatencyEstimate
    from ..planes import Plane

__all__ = ["pareto_chart", "pareto_front", "parity_chart", "plane_charts"]

_TEXTS = 10
"""Cells beside each other that have room for a text."""

_TICKS = 9

_Floats = NDArray[np.float64]


def plane_charts(plane: Plane) -> tuple[Chart, Chart]:
    """Draw one plane of the search twice: predicted accuracy, and predicted latency."""
    return (
        _plane_chart(plane, "accuracy", 100 * plane.accuracy, "test accuracy", "%"),
        _plane_chart(plane, "latency", plane.microseconds, "latency", "µs"),
    )


def _plane_chart(plane: Plane, what: str, values: _Floats, of: str, unit: str) -> Chart:
    x, y = [value_text(each) for each in plane.x], [value_text(each) for each in plane.y]
    inside = np.where(plane.inside, values, np.nan)
    known = np.isfinite(inside)
    outside = np.argwhere(~known)
    sentence = "No cell lies in the calibrated domain."
    if known.any():
        best = np.nanargmax(inside) if what == "accuracy" else np.nanargmin(inside)
        row, column = np.unravel_index(int(best), inside.shape)
        sentence = (
            f"{'Highest' if what == 'accuracy' else 'Lowest'} at {plane.x_key} {x[column]}, "
            f"{plane.y_key} {y[row]}: {amount(inside[row, column])}"
            f"\N{NO-BREAK SPACE}{unit}."
        )
    if len(outside):
        sentence += f" {len(outside)} of {known.size} cells lie outside the calibrated domain."
    return Chart(
        id=f"plane-{anchor(plane.title)}-{what}",
        heading=f"{plane.title}: {of} ({unit})",
        text=sentence,
        alt=f"Heat map of predicted {of} over {plane.x_key} and {plane.y_key}. {sentence}",
        figure=figure(
            [_plane_cells(plane, inside, x, y, f"{of} ({unit})"), *_plane_marks(plane, outside)],
            height=150 + max(18, min(44, 240 // len(y))) * len(y),
            xaxis=_grid_axis(plane.x_key, x, plane.x),
            yaxis=_grid_axis(plane.y_key, y, plane.y),
        ),
        table=Table(
            caption=f"{plane.title}: predicted {of}",
            columns=(
                with_unit(plane.x_key),
                with_unit(plane.y_key),
                f"{of} ({unit})",
                "in the domain",
            ),
            rows=tuple(
                (
                    cell(plane.x[column]),
                    cell(plane.y[row]),
                    float(values[row, column]),
                    bool(plane.inside[row, column]),
                )
                for row in range(len(y))
                for column in range(len(x))
            ),
        ),
        half=True,
    )


def _plane_cells(
    plane: Plane, inside: _Floats, x: list[str], y: list[str], title: str
) -> dict[str, Any]:
    known = inside[np.isfinite(inside)]
    few = len(x) <= _TEXTS
    digits = 2 if title.endswith("(%)") else 3
    return heat(
        inside,
        scale=SEQUENTIAL if few else SEQUENTIAL_WIDE,
        ends=(float(known.min()), float(known.max())) if len(known) else (0.0, 1.0),
        text=[[amount(float(f"{each:.{digits}g}")) for each in line] for line in inside]
        if few
        else None,
        hover=[
            [
                f"{label(plane.x_key)} = {label(x[column])}<br>{label(plane.y_key)} = "
                f"{label(y[row])}<br>{title}: {amount(inside[row, column])}"
                for column in range(len(x))
            ]
            for row in range(len(y))
        ],
    )


def _plane_marks(plane: Plane, outside: NDArray[np.int64]) -> list[dict[str, Any]]:
    marks = []
    if len(outside):
        cross: dict[str, Any] = {"symbol": "x-thin", "size": 8, "line": {"width": 1, "color": GREY}}
        marks.append(dots(outside[:, 1], outside[:, 0], name="outside the domain", **cross))
    if plane.at is not None:
        column, row = plane.at
        x, y = column + np.array([-1, 1, 1, -1, -1]) / 2, row + np.array([-1, -1, 1, 1, -1]) / 2
        name = "nearest this configuration"
        # In two colors, to be seen on every cell
        for color, width, named in ((PAPER, 5, None), (INK, 2, name)):
            frame = {"mode": "lines", "line": {"color": color, "width": width}}
            marks.append(dots(x, y, name=named, further=frame))
    return marks


def _grid_axis(key: str, names: list[str], values: Sequence[Any]) -> dict[str, Any]:
    """Cells at 0, 1, ...; of many numbers not every one is written."""
    numbers = all(isinstance(value, (int, float)) for value in values)
    step = math.ceil(len(names) / _TICKS) if numbers else 1
    ticks = (range(0, len(names), step), [label(name, 18) for name in names[::step]])
    return axis(with_unit(key), ticks, ends=(-0.5, len(names) - 0.5), grid=False)


def pareto_front(cycles: _Floats, accuracy: _Floats) -> NDArray[np.int64]:
    """Find the runs that no other beats in both, by rising cycles.

    Parameters
    ----------
    cycles, accuracy : ndarray of float, shape (runs,)
        Runs without either (NaN) are on no front.

    Returns
    -------
    ndarray of int
        Their places.
    """
    known = np.flatnonzero(np.isfinite(cycles) & np.isfinite(accuracy))
    order = known[np.lexsort((-accuracy[known], cycles[known]))]
    best, front = -np.inf, []
    for place in order.tolist():
        if accuracy[place] > best:
            best = accuracy[place]
            front.append(place)
    return np.array(front, dtype=np.int64)


def pareto_chart(runs: pd.DataFrame, estimate: LatencyEstimate) -> Chart | None:
    """Draw measured accuracy against measured cycles, their front, and the configuration.

    Nothing is drawn of runs without both.

    Parameters
    ----------
    runs : DataFrame
        As in `LatencyExplanation.runs`.
    estimate : LatencyEstimate
        Of the configuration.
    """
    runs = _known(runs, "measured", "accuracy")
    if not len(runs):
        return None
    cycles, accuracy = (runs[key].to_numpy(dtype=float) for key in ("measured", "accuracy"))
    same = runs["same"].to_numpy(dtype=bool)
    front = pareto_front(cycles, accuracy)
    hover = [
        f"{_run(row)}<br>{amount(row['measured'])} cycles, {percent(row['accuracy'])} right"
        for row in runs.to_dict("records")
    ]
    line = {"mode": "lines", "line": {"color": INK, "width": 1.5, "shape": "hv"}}
    marks = [
        _runs(cycles, 100 * accuracy, hover, ~same, "other networks or data", color=GREY),
        _runs(
            cycles, 100 * accuracy, hover, same, "same network and data", color=ACCENT, size=8,
            opacity=0.95,
        ),
        dots(cycles[front], 100 * accuracy[front], name="Pareto front", further=line),
        *_here(estimate),
    ]  # fmt: skip
    sentence = f"{len(front)} of {len(runs):,} measured runs are on the front."
    if estimate.accuracy is not None:
        better = (cycles < estimate.cycles) & (accuracy > estimate.accuracy)
        own = int((better & same).sum())
        sentence += (
            f" This configuration is expected at {amount(estimate.cycles)} cycles and "
            f"{percent(estimate.accuracy)} right; {int(better.sum()) or 'no'} measured runs were "
            f"both faster and more accurate, {own or 'none'} of them with its network and data set."
        )
    on_front = np.isin(np.arange(len(runs)), front)
    return Chart(
        id="pareto-front",
        heading="Accuracy and latency of the calibrated runs",
        text=sentence,
        alt=f"Scatter plot of test accuracy against cycles with the Pareto front. {sentence}",
        figure=figure(
            [mark for mark in marks if len(mark["x"])],
            height=430,
            xaxis=log_axis("cycles", [*cycles, *estimate.interval_cycles]),
            yaxis=axis("test accuracy (%)", ends=(-3, 103), nticks=6),
        ),
        table=Table(
            caption="Measured runs",
            columns=(
                "data set", "network", "cycles", "accuracy (%)", "on the front",
                "same network and data",
            ),
            rows=tuple(
                (*run, bool(on), bool(alike))
                for *run, on, alike in zip(
                    runs["dataset"], runs["network"], cycles.tolist(), (100 * accuracy).tolist(),
                    on_front, same, strict=True,
                )
            ),
        ),
    )  # fmt: skip


def _here(estimate: LatencyEstimate) -> list[dict[str, Any]]:
    """Mark the configuration with both of its intervals."""
    if estimate.accuracy is None or estimate.interval_accuracy is None:
        return []
    (low, high), cycles = estimate.interval_cycles, estimate.cycles
    worst, best = (100 * share for share in estimate.interval_accuracy)
    accuracy = 100 * estimate.accuracy
    bar = {"thickness": 1.8, "width": 5}
    said = (
        f"this configuration: {amount(low)} to {amount(high)} cycles, {amount(worst)} to "
        f"{amount(best)} % right"
    )
    errors = {
        "error_x": whiskers([high - cycles], [cycles - low], UP, **bar),
        "error_y": whiskers([best - accuracy], [accuracy - worst], UP, **bar),
    }
    look = {"symbol": "diamond", "size": 13, "color": UP, "opacity": 1}
    name = "this configuration"
    return [dots([cycles], [accuracy], hover=[said], name=name, further=errors, **look)]


def parity_chart(runs: pd.DataFrame, confidence: float) -> Chart | None:
    """Draw predicted against measured cycles of runs that the predicting model had not seen.

    Nothing is drawn if the predictor did not keep such predictions.

    Parameters
    ----------
    runs : DataFrame
        As in `LatencyExplanation.runs`.
    confidence : float
        Of its intervals.
    """
    keys = ("predicted", "low", "high", "measured")
    runs = _known(runs, *keys)
    if not len(runs):
        return None
    predicted, low, high, measured = (runs[key].to_numpy(dtype=float) for key in keys)
    held = (low <= measured) & (measured <= high)
    off = np.abs(predicted / measured - 1)
    ends = np.array([min(measured.min(), predicted.min()), max(measured.max(), predicted.max())])
    hover = [
        f"{_run(row)}<br>predicted {amount(row['predicted'])} [{amount(row['low'])}, "
        f"{amount(row['high'])}], measured {amount(row['measured'])} cycles"
        for row in runs.to_dict("records")
    ]
    identity = {"mode": "lines", "line": {"color": INK, "width": 1.2}}
    marks = [dots(ends, ends, name="predicted = measured", further=identity)]
    for chosen, color, name in ((held, ACCENT, "inside its interval"), (~held, UP, "outside")):
        above, below = (high - predicted)[chosen], (predicted - low)[chosen]
        mark = _runs(measured, predicted, hover, chosen, name, color=color)
        marks.append(mark | {"error_y": whiskers(above, below, color, thickness=0.6, width=0)})
    sentence = (
        f"{percent(float((off <= 0.1).mean()))} of the predictions are within {percent(0.1)}, half "
        f"within {percent(float(np.median(off)))}; {percent(float(held.mean()))} of the "
        f"{percent(confidence)} intervals hold the measurement."
    )
    return Chart(
        id="parity",
        heading="Predicted against measured",
        text=f"Every run was predicted by a model that had not seen it. {sentence}",
        alt=f"Scatter plot of predicted against measured cycles of {len(runs):,} runs. {sentence}",
        figure=figure(
            [mark for mark in marks if len(mark["x"])],
            height=470,
            xaxis=log_axis("measured cycles", ends),
            yaxis=log_axis("predicted cycles", ends),
        ),
        table=Table(
            caption="Runs, predicted without having seen them",
            columns=(
                "data set", "network", "predicted (cycles)", "low", "high", "measured (cycles)",
                "inside",
            ),
            rows=tuple(
                (*run, bool(fine))
                for *run, fine in zip(
                    *(runs[key] for key in ("dataset", "network", *keys)), held, strict=True
                )
            ),
        ),
    )  # fmt: skip


def _run(row: Mapping[Any, Any]) -> str:
    return f"{label(row['dataset'])}, {label(row['network'])}"


def _known(runs: pd.DataFrame, *keys: str) -> pd.DataFrame:
    known: pd.DataFrame = runs[np.isfinite(runs[list(keys)].to_numpy(dtype=float)).all(axis=1)]
    return known


def _runs(
    x: _Floats, y: _Floats, hover: list[str], chosen: NDArray[np.bool_], name: str, **marker: Any
) -> dict[str, Any]:
    texts = [text for text, each in zip(hover, chosen, strict=True) if each]
    look = {"size": 5, "opacity": 0.6} | marker
    return dots(x[chosen], y[chosen], hover=texts, name=name, **look)
