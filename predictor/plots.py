"""Plots for a first look: what drives sparsity, and how predictions met measurements.

shap and matplotlib load when they are used.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingToolError
from ..files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from .attribution import LayerAttribution

__all__ = ["parity_plot", "shap_plot", "tool"]

_DPI = 150
_INK, _GREY, _GOOD, _BAD = "#22303c", "#9aa5b1", "#2a78b5", "#d1495b"
_PARITY_COLUMNS = ("predicted", "low", "high", "measured")


def tool(name: str) -> Any:
    """Load a module of a package that the extra ``explain`` brings.

    Raises
    ------
    MissingToolError
        If it is not installed.
    """
    try:
        with warnings.catch_warnings():  # of what shap uses of matplotlib, which is not ours
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingToolError(
            f"{package} is not installed, and this needs it; install spikemeter[explain]"
        ) from error


def shap_plot(sparsity: LayerAttribution, path: str | Path, *, shown: int = 12) -> Path:
    """Draw the SHAP values of the most important features as a beeswarm.

    Parameters
    ----------
    sparsity : LayerAttribution
        Of the layers to show.
    path : str or Path
        PNG file to write, whole or not at all.
    shown : int, optional
        Most features to show.

    Returns
    -------
    Path
        Where the plot is.

    Raises
    ------
    MissingToolError
        If shap or matplotlib are not installed.
    """
    shap = tool("shap")
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8.5, 0.42 * shown + 1.6), layout="constrained")
    try:
        shap.plots.beeswarm(
            sparsity.explanation(), max_display=shown, ax=axes, show=False, plot_size=None,
            group_remaining_features=False,
        )  # fmt: skip
        axes.set_title("What drives the spikes of each layer", loc="left", color=_INK)
        axes.set_xlabel("SHAP value: change of the rate of its output, in logits")
        return _write_png(figure, Path(path))
    finally:
        plt.close(figure)


def parity_plot(points: pd.DataFrame, path: str | Path, *, title: str | None = None) -> Path:
    """Draw predicted against measured cycles, with intervals and the line of identity.

    Parameters
    ----------
    points : DataFrame
        Columns ``predicted``, ``low``, ``high`` and ``measured``, in cycles.
    path : str or Path
        PNG file to write, whole or not at all.
    title : str, optional
        Default: the error and the coverage of these points.

    Returns
    -------
    Path
        Where the plot is.

    Raises
    ------
    MissingToolError
        If matplotlib is not installed.
    InputError
        If a column is missing, or a value is not positive and finite.
    """
    predicted, low, high, measured = _parity_columns(points)
    held = (low <= measured) & (measured <= high)
    figure = tool("matplotlib.figure").Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    ends = (min(low.min(), measured.min()) / 1.1, max(high.max(), measured.max()) * 1.1)
    axes.plot(ends, ends, color=_GREY, linewidth=1.2, zorder=1, label="predicted = measured")
    for chosen, color, label in ((held, _GOOD, "inside"), (~held, _BAD, "outside")):
        if chosen.any():
            bars = np.stack([predicted - low, high - predicted]).clip(0)[:, chosen]
            axes.errorbar(
                measured[chosen], predicted[chosen], yerr=bars, fmt="o", markersize=5.5,
                color=color, ecolor=color, elinewidth=1.2, alpha=0.85, markeredgecolor="white",
                markeredgewidth=0.6, label=f"{label} the interval ({chosen.sum()})", zorder=2,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    _plain_ticks(axes, ends)
    axes.set_xlabel("measured cycles (RTL)", color=_INK)
    axes.set_ylabel("predicted cycles", color=_INK)
    error = float(np.mean(np.abs(predicted / measured - 1)))
    axes.set_title(
        title or f"Mean error {error:.1%}; intervals hold {held.sum()} of {len(held)}",
        loc="left", fontsize=11, color=_INK,
    )  # fmt: skip
    axes.grid(visible=True, which="major", color="#e6eaee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    return _write_png(figure, Path(path))


def _parity_columns(points: pd.DataFrame) -> list[NDArray[np.float64]]:
    columns = []
    for name in _PARITY_COLUMNS:
        if name not in points.columns:
            raise InputError(f"points: must have a column {name!r}, got {list(points.columns)}")
        values = np.asarray(points[name], dtype=np.float64)
        if not len(values):
            raise InputError("points: at least one is needed to draw, got none")
        if not (np.isfinite(values).all() and values.min() > 0):
            raise InputError(f"points: {name} must be positive and finite, got {values.min():g}")
        columns.append(values)
    return columns


def _plain_ticks(axes: Any, ends: tuple[float, float]) -> None:
    """Label round steps with thousands, since cycles seldom span many decades."""
    ticker = tool("matplotlib.ticker")
    decades = np.log10(ends[1] / ends[0])
    steps: tuple[float, ...] = (1, 2, 5) if decades < 3 else (1,)
    if decades < 1:
        steps = (1, 1.5, 2, 3, 5, 7)
    if decades < 0.3:
        steps = (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(base=10, subs=steps))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.tick_params(colors=_INK, labelsize=9)


def _pyplot() -> Any:
    """Load pyplot, without a window system unless the caller chose one before."""
    if "matplotlib.pyplot" not in sys.modules:
        tool("matplotlib").use("agg")
    return tool("matplotlib.pyplot")


def _write_png(figure: Any, path: Path) -> Path:
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=_DPI))
    return path
