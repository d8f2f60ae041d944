"""A picture of an allocation: the Pareto front, and where its cores go. matplotlib loads here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingToolError
from ..files import write_whole
from .allocation import Allocation, AllocationPoint

__all__ = ["check_plot_path", "plot_allocation"]

_FORMATS = (".png", ".svg")
_DPI = 130
_INK, _BEST = "#22303c", "#0b7285"
_MARKS = {"configured": ("s", "#c2410c"), "even": ("^", "#7048a8")}


def check_plot_path(path: str | Path) -> Path:
    """Refuse a plot before any work is done for it.

    Raises
    ------
    InputError
        If it is no PNG or SVG file.
    MissingToolError
        If matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"plot: must end in {' or '.join(_FORMATS)}, got {str(path)!r}")
    if find_spec("matplotlib") is None:
        raise MissingToolError(
            "matplotlib is not installed, and this needs it; install spikemeter[explain]"
        )
    return path


def plot_allocation(allocation: Allocation, path: str | Path) -> Path:
    """Draw the front of cores against cycles, and how each of its points shares out the cores.

    Parameters
    ----------
    allocation : Allocation
    path : str or Path
        PNG or SVG file to write, whole or not at all.

    Returns
    -------
    Path
        Where the plot is.

    Raises
    ------
    InputError, MissingToolError
        As `check_plot_path`.
    """
    path = check_plot_path(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    front, shares = figure.subplots(1, 2)
    _draw_front(front, allocation)
    _draw_shares(shares, allocation)
    for axes in (front, shares):
        axes.set_xlabel("neural cores of all layers", color=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=9)
    kind = path.suffix.lower()[1:]
    dated = {"Date": None} if kind == "svg" else None  # the same file every time
    with mpl.rc_context({"svg.hashsalt": "spikemeter"}):
        write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=_DPI, metadata=dated))
    return path


def _draw_front(axes: Any, allocation: Allocation) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    cores = [point.cores for point in allocation.front]
    values = [_objective(allocation, point) for point in allocation.front]
    axes.step(
        [*cores, _end(allocation)], [*values, values[-1]], where="post", color=_BEST,
        linewidth=1.8, zorder=2, label="best within a budget",
    )  # fmt: skip
    marked = [(name, point, *_MARKS[name]) for name, point in allocation.compared.items()]
    for name, point, marker, color in [*marked, ("chosen", allocation.front[-1], "o", _BEST)]:
        value = _objective(allocation, point)
        axes.plot(
            point.cores, value, marker, color=color, markersize=8, zorder=3,
            label=f"{name}: {value:,.0f}",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    for axis, subs in ((axes.xaxis, (1, 1.5, 2, 3, 4, 6, 8)), (axes.yaxis, (1, 2, 5))):
        axis.set_major_locator(LogLocator(base=10, subs=subs))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    what = "latency" if allocation.objective == "latency" else "initiation interval"
    axes.set_ylabel(f"{what} in cycles", color=_INK)
    proved = (
        "proved" if allocation.exact else f"at most {100 * allocation.gap:.2g} % above the least"
    )
    title = f"Least {what} within {allocation.budget} cores, {proved}"
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.grid(visible=True, which="both", color="#e6eaee", linewidth=0.7)
    axes.legend(frameon=False, fontsize=9)


def _draw_shares(axes: Any, allocation: Allocation) -> None:
    import matplotlib as mpl
    from matplotlib.ticker import MaxNLocator

    cores = np.array([point.neural_cores for point in allocation.front]).T
    names = [layer.name for layer in allocation.estimate.layers]
    colors = mpl.colormaps["viridis"](np.linspace(0.05, 0.95, len(names)))
    total = np.append(cores.sum(axis=0), _end(allocation))
    shares = np.column_stack([cores, cores[:, -1]])
    axes.stackplot(total, shares, step="post", colors=colors, labels=names, linewidth=0)
    axes.set(xlim=(total[0], total[-1]), ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("neural cores of each layer", color=_INK)
    axes.set_title("How the best shares them out", loc="left", fontsize=11, color=_INK)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="upper left")


def _end(allocation: Allocation) -> int:
    """Where the last point, which holds from its cores on, stops being drawn."""
    return max(allocation.budget, allocation.cores + 1)


def _objective(allocation: Allocation, point: AllocationPoint) -> float:
    if allocation.objective == "latency":
        return point.cycles
    return point.initiation_interval_cycles
