"""What a chart of a report is, and the few marks and axes that all of them are made of.

A figure holds numbers on numeric axes alone; names stand in the texts of ticks. So names are never
read as anything else, and one small renderer (`spikemeter.predictor.report.static`) can draw every
figure again without a browser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingToolError
from .style import (
    CELL,
    GRID,
    INK,
    LOW_TO_HIGH,
    MUTED,
    PAPER,
    RULE,
    Cell,
    amount,
    effect,
    label,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "Chart",
    "Table",
    "axis",
    "bars",
    "dots",
    "effect_axis",
    "figure",
    "heat",
    "log_axis",
    "row_axis",
    "value_scale",
    "whiskers",
]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_PLAIN = ",~g"
"""Numbers with thousands, in the words of d3."""

_MOST_TICKS = 7
_FEW_DECADES = 0.7
_PERCENTS = (
    (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 50, 100, 200, 400, 900, 1900, 4900, 9900),
    (-0.1, -0.2, -0.5, -1, -2, -5, -10, -20, -30, -50, -70, -80, -90, -95, -98, -99),
)

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Numbers that a reader can sort and copy.

    Attributes
    ----------
    caption : str
        What the rows are.
    columns : tuple of str
        Headings, with units.
    rows : tuple of tuple
        Text, numbers, or None for what is not known.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers alone."""
        return tuple(
            all(_is_number(row[column]) for row in self.rows) for column in range(len(self.columns))
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chart:
    """One plot: in words, as a figure, and as the numbers that it shows.

    Attributes
    ----------
    id : str
        Anchor in the page.
    heading : str
        What it shows.
    text : str
        One or two sentences that say what one sees, with numbers.
    alt : str
        Stands in for the picture.
    figure : plotly.graph_objects.Figure
        Numbers on numeric axes; every text in it has gone through `label`.
    table : Table
        Every number of the figure.
    half : bool
        Whether two of them stand side by side where there is room.
    """

    id: str
    heading: str
    text: str
    alt: str
    figure: Figure
    table: Table
    half: bool = False


def figure(
    marks: Sequence[dict[str, Any]], *, height: int, legend: str | None = None, **layout: Any
) -> Figure:
    """Make a figure in the style of the report; `legend` says what the names in its legend are.

    Raises
    ------
    MissingToolError
        If plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingToolError(
            "plotly is not installed, and this needs it; install spikemeter[explain]"
        ) from error
    style: dict[str, Any] = {
        "template": "none",
        "height": height,
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": _FONT, "size": 13, "color": INK},
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8, "pad": 2},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": RULE, "font": {"color": INK, "size": 13}},
        "hovermode": "closest",
        "showlegend": any(mark.get("showlegend") for mark in marks),
        "legend": {
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
            "traceorder": "normal", "font": {"size": 12, "color": INK}, "itemclick": False,
            "itemdoubleclick": False,
        },
        "bargap": 0.32,
    }  # fmt: skip
    if legend is not None:
        font = {"size": 12, "color": MUTED}
        style["legend"] |= {"title": {"text": f"{label(legend)}: ", "font": font}}
    return go.Figure(data=list(marks), layout=style | layout)


def bars(
    lengths: Any,
    rows: Any,
    *,
    color: Any,
    hover: Sequence[str],
    name: str | None = None,
    **further: Any,
) -> dict[str, Any]:
    """Lying bars; with a name they are in the legend."""
    return {
        "type": "bar", "orientation": "h", "x": lengths, "y": rows, "marker": {"color": color},
        "hoverinfo": "text", "hovertext": list(hover), **_named(name), **further,
    }  # fmt: skip


def dots(
    x: Any,
    y: Any,
    *,
    hover: Sequence[str] | None = None,
    name: str | None = None,
    further: dict[str, Any] | None = None,
    **marker: Any,
) -> dict[str, Any]:
    """Points; keywords describe their marker. Without hover texts they say nothing."""
    said = {"hoverinfo": "skip"} if hover is None else {"hovertext": list(hover)}
    return {
        "type": "scatter", "mode": "markers", "x": small(x), "y": small(y),
        "marker": {"size": 6, "opacity": 0.8} | marker, "hoverinfo": "text", **said,
        **_named(name), **(further or {}),
    }  # fmt: skip


def heat(
    values: _Floats,
    *,
    scale: Sequence[tuple[float, str]],
    ends: tuple[float, float],
    text: Sequence[Sequence[str]] | None,
    hover: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Cells with texts; without these, or where a page is too narrow, a bar says the scale."""
    low, high = ends
    texts: dict[str, Any] = {"xgap": 1, "ygap": 1, "showscale": True}
    if text is not None:
        texts = {
            "text": text,
            "texttemplate": "%{text}",
            "textfont": {"color": CELL},
            "xgap": 2,
            "ygap": 2,
            "showscale": False,
        }
    return texts | {
        "type": "heatmap", "z": values, "x": np.arange(values.shape[1]),
        "y": np.arange(values.shape[0]), "colorscale": scale, "zmin": low,
        "zmax": high if high > low else low + 1, "hoverinfo": "text", "hovertext": hover,
        "hoverongaps": False,
        "colorbar": {
            "thickness": 8, "outlinewidth": 0, "tickfont": {"size": 11, "color": INK}, "nticks": 6,
            "tickformat": _PLAIN,
        },
    }  # fmt: skip


def whiskers(above: Any, below: Any, color: str = INK, **further: Any) -> dict[str, Any]:
    """Error bars by their lengths above and below."""
    bar = {"type": "data", "symmetric": False, "color": color, "thickness": 1.4, "width": 4}
    return bar | {"array": small(above), "arrayminus": small(below)} | further


def value_scale(values: _Floats, by: str, *, few: int = 6) -> dict[str, Any]:
    """Color markers by the rank of a value, with a bar that says which values the colors are.

    Notes
    -----
    Ranks, so that a few extreme values do not make all others look alike.
    """
    ranks = ranks_of(values)
    known = np.isfinite(values)
    kinds, first = np.unique(values[known], return_index=True)
    spots = ranks[known][first]
    if len(kinds) > few:
        chosen = [int(np.abs(spots - at).argmin()) for at in (0.0, 0.5, 1.0)]
        kinds, spots = kinds[chosen], spots[chosen]
    return {
        "color": small(ranks), "colorscale": LOW_TO_HIGH, "cmin": 0.0, "cmax": 1.0,
        "colorbar": {
            "title": {"text": label(by), "side": "right", "font": {"size": 12, "color": MUTED}},
            "thickness": 9, "outlinewidth": 0, "tickfont": {"size": 11, "color": INK},
            "tickmode": "array", "tickvals": spots.tolist(), "len": 0.9,
            "ticktext": [amount(kind) for kind in kinds],
        },
    }  # fmt: skip


def axis(
    title: str | None,
    ticks: tuple[Sequence[float], Sequence[str]] | None = None,
    *,
    ends: tuple[float, float],
    log: bool = False,
    grid: bool = True,
    **further: Any,
) -> dict[str, Any]:
    """Describe an axis; `ends` are values, also where it is logarithmic."""
    found: dict[str, Any] = {
        "automargin": True,
        "zeroline": False,
        "showgrid": grid,
        "gridcolor": GRID,
        "linecolor": RULE,
        "tickcolor": RULE,
        "tickfont": {"size": 12, "color": INK},
        "type": "log" if log else "linear",
        "range": [math.log10(end) for end in ends] if log else list(ends),
    }
    if title is not None:
        font = {"size": 12, "color": MUTED}
        found["title"] = {"text": label(title, 90), "font": font, "standoff": 10}
    if ticks is not None:
        found |= {"tickmode": "array", "tickvals": list(ticks[0]), "ticktext": list(ticks[1])}
    else:
        found["tickformat"] = _PLAIN
    return found | further


def row_axis(names: Sequence[str]) -> dict[str, Any]:
    """Rows at 0, 1, ... from the top, each with its name."""
    ticks = (range(len(names)), [label(name) for name in names])
    return axis(None, ticks, ends=(len(names) - 0.4, -0.6), grid=False)


def log_axis(title: str, values: Any) -> dict[str, Any]:
    """Logarithmic axis around positive values, with round ticks that have thousands."""
    values = np.asarray(values, dtype=np.float64)
    room = 1.02 * (float(values.max()) / float(values.min())) ** 0.06
    low, high = float(values.min()) / room, float(values.max()) * room
    ticks = _round_ticks(low, high)
    return axis(title, (ticks, [amount(tick) for tick in ticks]), ends=(low, high), log=True)


def _round_ticks(low: float, high: float) -> list[float]:
    """Round values between two positive ones: powers of ten, some between, or even steps."""
    decades = math.log10(high / low)
    if decades < _FEW_DECADES:
        rough = 10.0 ** math.floor(math.log10((high - low) / 4))
        step = next(rough * each for each in (1, 2, 2.5, 5, 10) if rough * each * 5 >= high - low)
        ticks = [step * count for count in range(math.ceil(low / step), int(high / step) + 1)]
    else:
        steps = (1,) if decades > 3.2 else (1, 3) if decades > 1.6 else (1, 2, 5)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [each * 10.0**power for power in powers for each in steps]
    edge = (high / low) ** 0.015  # a label has no room at the very end
    ticks = [tick for tick in ticks if low * edge <= tick <= high / edge]
    while len(ticks) > _MOST_TICKS:
        ticks = ticks[::2]
    return ticks


def effect_axis(title: str, values: Any, *, ticks: int = 8) -> dict[str, Any]:
    """Axis of natural logs of cycles, whose ticks are percent of cycles."""
    values = np.append(np.asarray(values, dtype=np.float64).ravel(), 0.0)
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.02)
    low, high = low - 0.06 * span, high + 0.06 * span
    places = [0.0]
    for percents in _PERCENTS:
        last = 0.0
        for place in (math.log1p(each / 100) for each in percents):
            if abs(place - last) > span / ticks and low <= place <= high:
                places.append(place)
                last = place
    places.sort()
    texts = [effect(place) for place in places]
    zero: dict[str, Any] = {"zeroline": True, "zerolinecolor": RULE, "zerolinewidth": 1}
    return axis(title, (places, texts), ends=(low, high), **zero)


def small(values: Any) -> NDArray[np.float32]:
    """Single precision, which is finer than any screen, in half the bytes."""
    return np.asarray(values, dtype=np.float32)


def ranks_of(values: NDArray[Any]) -> _Floats:
    """Place of each value among all, from 0 to 1; ties share one, and unknown ones have 0.5."""
    known = np.isfinite(values)
    kinds, places = np.unique(values[known], return_inverse=True)
    ranks = np.full(len(values), 0.5)
    if len(kinds) > 1:
        counts = np.bincount(places)
        middles = np.cumsum(counts) - (counts + 1) / 2
        ranks[known] = ((middles - middles[0]) / (middles[-1] - middles[0]))[places]
    return ranks


def _named(name: str | None) -> dict[str, Any]:
    return {"showlegend": False} if name is None else {"name": name, "showlegend": True}


def _is_number(cell: Cell) -> bool:
    if cell is None:
        return True
    number = isinstance(cell, (int, float, np.integer, np.floating))
    return number and not isinstance(cell, (bool, np.bool_))
