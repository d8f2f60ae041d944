"""Pictures for readers without scripts: what the charts of a report use of Plotly, drawn again.

matplotlib draws the same numbers, axes and colors, so that no plot is described twice.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingToolError
from .style import GRID, INK, MUTED, PAPER, RULE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["picture"]

_DPI = 120
_INCHES = {False: 7.4, True: 4.6}
_PIXELS_PER_INCH = 84
"""Of the heights of figures: somewhat fewer than of a screen, as the letters here are smaller."""

_COLORS = 64
_SYMBOLS = {"circle": "o", "diamond": "D", "x-thin": "x"}
_SIZES = {"font.size": 8.5, "text.parse_math": False, "axes.unicode_minus": True}


def picture(figure: Figure, *, half: bool = False) -> bytes:
    """Draw a figure as a small PNG.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
        Of bars that lie, dots, lines, texts and heat maps on numeric axes.
    half : bool, optional
        Whether it is half as wide.

    Returns
    -------
    bytes

    Raises
    ------
    MissingToolError
        If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingToolError(
            "matplotlib is not installed, and this needs it; install spikemeter[explain]"
        ) from error

    content = figure.to_plotly_json()
    layout = content["layout"]
    with mpl.rc_context(_SIZES):
        size = (_INCHES[half], layout["height"] / _PIXELS_PER_INCH)
        canvas = Canvas(figsize=size, dpi=_DPI, layout="constrained")
        agg = FigureCanvasAgg(canvas)
        axes = canvas.subplots()
        _draw_axis(axes, "x", layout.get("xaxis", {}))
        _draw_axis(axes, "y", layout.get("yaxis", {}))
        for shape in layout.get("shapes", ()):
            ends = [shape["x0"], shape["x1"]], [shape["y0"], shape["y1"]]
            axes.plot(*ends, color=shape["line"]["color"], linewidth=0.8, zorder=1)
        stacked = layout.get("barmode") == "stack"
        lefts: dict[float, float] = {}
        for trace in content["data"]:
            if trace["type"] == "bar":
                _draw_bars(axes, trace, lefts if stacked else {})
            elif trace["type"] == "heatmap":
                _draw_heat(canvas, axes, trace)
            else:
                _draw_dots(canvas, axes, trace)
        _draw_legend(canvas, layout, content["data"])
        agg.draw()
    return _packed(np.asarray(agg.buffer_rgba()))


def _draw_axis(axes: Any, which: str, described: dict[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

    log = described.get("type") == "log"
    if log:
        axes.set(**{f"{which}scale": "log"})
    if "range" in described:
        ends = described["range"]
        axes.set(**{f"{which}lim": [10**end for end in ends] if log else ends})
    side = axes.xaxis if which == "x" else axes.yaxis
    if described.get("tickmode") == "array":
        texts = [_plain(text) for text in described["ticktext"]]
        side.set_ticks(list(described["tickvals"]), labels=texts)
    else:
        side.set_major_locator(MaxNLocator(described.get("nticks", 7)))
        side.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    side.set_minor_formatter(NullFormatter())
    side.set_minor_locator(NullLocator())
    if title := described.get("title", {}).get("text"):
        side.set_label_text(_plain(title), color=MUTED)
    if described.get("showgrid"):
        side.grid(visible=True, color=GRID, linewidth=0.7)
    if described.get("zeroline"):
        (axes.axvline if which == "x" else axes.axhline)(0, color=RULE, linewidth=0.8, zorder=1)
    axes.tick_params(axis=which, colors=RULE, labelcolor=INK)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_bars(axes: Any, trace: dict[str, Any], lefts: dict[float, float]) -> None:
    widths, rows = _numbers(trace["x"]), _numbers(trace["y"])
    starts = _numbers(trace["base"]) if "base" in trace else np.zeros(len(rows))
    starts = starts + np.array([lefts.get(row, 0.0) for row in rows])
    for row, width in zip(rows, widths, strict=True):
        lefts[row] = lefts.get(row, 0.0) + width
    color = trace["marker"]["color"]
    name = _plain(trace["name"]) if trace.get("showlegend") else None
    axes.barh(rows, widths, left=starts, height=0.66, color=color, label=name, zorder=2)
    _draw_errors(axes, trace, starts + widths, rows)


def _draw_heat(canvas: Any, axes: Any, trace: dict[str, Any]) -> None:
    values = np.ma.masked_invalid(_numbers(trace["z"]))
    edges = [np.arange(values.shape[side] + 1) - 0.5 for side in (1, 0)]
    low, high = trace["zmin"], trace["zmax"]
    mesh = axes.pcolormesh(
        *edges, values, cmap=_colormap(trace["colorscale"]), vmin=low, vmax=high,
        edgecolors=PAPER, linewidth=trace["xgap"] / 2, zorder=2,
    )  # fmt: skip
    if trace["showscale"]:
        _draw_colorbar(canvas, axes, mesh, trace["colorbar"])
        return
    for (row, column), value in np.ndenumerate(values):
        if not np.ma.is_masked(value):
            text, color = _plain(trace["text"][row][column]), trace["textfont"]["color"]
            place = {"ha": "center", "va": "center", "fontsize": 7}
            axes.text(column, row, text, color=color, zorder=3, **place)


def _draw_dots(canvas: Any, axes: Any, trace: dict[str, Any]) -> None:
    x, y = _numbers(trace["x"]), _numbers(trace["y"])
    name = _plain(trace["name"]) if trace.get("showlegend") else None
    if trace["mode"] == "lines":
        line = trace["line"]
        style = {
            "color": line["color"], "linewidth": line["width"],
            "drawstyle": "steps-post" if line.get("shape") == "hv" else "default",
        }  # fmt: skip
        axes.plot(x, y, label=name, zorder=3, **style)
    elif trace["mode"] == "text":
        for at, row, text, side in zip(x, y, trace["text"], trace["textposition"], strict=True):
            from_side = "left" if side.endswith("right") else "right"
            axes.text(at, row, _plain(text), va="center", ha=from_side, color=INK, zorder=4)
    else:
        _draw_errors(axes, trace, x, y)
        drawn = axes.scatter(x, y, label=name, zorder=3, **_marker(trace["marker"]))
        if "colorbar" in trace["marker"]:
            _draw_colorbar(canvas, axes, drawn, trace["marker"]["colorbar"])


def _marker(marker: dict[str, Any]) -> dict[str, Any]:
    """Words of matplotlib for a marker of Plotly."""
    symbol = marker.get("symbol", "circle")
    look = {
        "s": (0.72 * marker["size"]) ** 2, "alpha": marker["opacity"],
        "marker": _SYMBOLS[symbol], "linewidths": 0.0,
    }  # fmt: skip
    if symbol == "x-thin":
        return look | {"c": [marker["line"]["color"]], "linewidths": 0.8}
    if "colorscale" in marker:
        scale = {"cmap": _colormap(marker["colorscale"]), "vmin": 0.0, "vmax": 1.0}
        return look | scale | {"c": _numbers(marker["color"])}
    color = marker["color"]
    return look | {"c": [color] if isinstance(color, str) else list(color)}


def _draw_errors(axes: Any, trace: dict[str, Any], x: Any, y: Any) -> None:
    for side in ("x", "y"):
        if (error := trace.get(f"error_{side}")) is not None:
            lengths = np.stack([_numbers(error["arrayminus"]), _numbers(error["array"])]).clip(0)
            axes.errorbar(
                x, y, **{f"{side}err": lengths}, fmt="none", ecolor=error["color"],
                elinewidth=error["thickness"], capsize=error["width"] / 2, zorder=3,
                capthick=error["thickness"],
            )  # fmt: skip


def _draw_colorbar(canvas: Any, axes: Any, drawn: Any, described: dict[str, Any]) -> None:
    drawn.set_alpha(None)
    bar = canvas.colorbar(drawn, ax=axes, fraction=0.03, pad=0.02)
    bar.outline.set_visible(False)
    if "title" in described:
        bar.set_label(_plain(described["title"]["text"]), color=MUTED)
    if "tickvals" in described:
        bar.set_ticks(list(described["tickvals"]), labels=list(map(_plain, described["ticktext"])))
    bar.ax.tick_params(colors=RULE, labelcolor=INK)


def _draw_legend(canvas: Any, layout: dict[str, Any], traces: Sequence[Any]) -> None:
    if any(trace.get("showlegend") for trace in traces):
        columns = 4 if canvas.get_figwidth() > _INCHES[True] else 2
        look = {"frameon": False, "labelcolor": INK, "handlelength": 1.2}
        title = layout["legend"].get("title", {}).get("text", "")
        drawn = canvas.legend(
            loc="outside upper left", ncols=columns, title=_plain(title) or None,
            alignment="left", **look,
        )  # fmt: skip
        drawn.get_title().set_color(MUTED)


def _colormap(scale: Sequence[Sequence[Any]]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", [(at, color) for at, color in scale])


def _numbers(values: Any) -> Any:
    """Numbers as Plotly keeps them: a sequence, or the bytes of an array."""
    if isinstance(values, dict):
        array = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
        if "shape" in values:
            array = array.reshape([int(size) for size in values["shape"].split(",")])
        values = array
    return np.asarray(values, dtype=np.float64)


def _plain(text: str) -> str:
    """Undo `label`: what Plotly reads as text, as text."""
    return html.unescape(text.replace("<br>", "\n"))


def _packed(pixels: NDArray[np.uint8]) -> bytes:
    """Write a PNG of few colors, rare ones among them: a third of the bytes, and looks the same."""
    from PIL import Image  # matplotlib needs it too

    few = Image.fromarray(pixels[..., :3]).quantize(
        _COLORS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
    )
    file = io.BytesIO()
    few.save(file, format="PNG", optimize=True)
    return file.getvalue()
