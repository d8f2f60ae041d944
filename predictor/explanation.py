"""Which knobs drive sparsity, and how predictions met measurements: tables and plots.

Explanations are SHAP values of the model of output rates, in units of its logit, for the layers
whose spikes another layer must process. They explain the learned half; the timing behind it is a
formula. shap and matplotlib load when they are used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingToolError
from ..files import write_whole
from .events import input_events
from .features import config_from_row, knob_of, layer_features

if TYPE_CHECKING:
    import pandas as pd

    from .predict import LatencyPredictor

__all__ = ["knob_importance", "parity_plot", "shap_plot"]

_DPI = 150
_INK, _GREY, _GOOD, _BAD = "#22303c", "#9aa5b1", "#2a78b5", "#d1495b"
_PARITY_COLUMNS = ("predicted", "low", "high", "measured")


def knob_importance(predictor: LatencyPredictor, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rank the knobs by how far they move the rate of spikes between layers.

    Parameters
    ----------
    predictor : LatencyPredictor
    rows : DataFrame, optional
        Configurations by flat key, to explain the predictor on. Default: the runs that it was
        calibrated on.

    Returns
    -------
    DataFrame
        Columns ``knob`` and ``mean_abs_shap`` (mean over layers and runs of the absolute SHAP
        value, in logits of the output rate), largest first. Features of one knob are added up
        before the absolute value; ``network`` is the knob of all sizes of layers.

    Raises
    ------
    MissingToolError
        If shap is not installed.
    InputError
        If there are no rows.
    """
    import pandas as pd

    values, _ = _shap_values(predictor, rows)
    names = predictor.parts.domain.feature_names
    total: dict[str, NDArray[np.float64]] = {}
    for column, name in enumerate(names):
        knob = knob_of(name)
        total[knob] = total.get(knob, np.zeros(len(values))) + values[:, column]
    sizes = {knob: float(np.abs(value).mean()) for knob, value in total.items()}
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return pd.DataFrame(ranked, columns=["knob", "mean_abs_shap"])


def shap_plot(predictor: LatencyPredictor, path: str | Path, *, shown: int = 12) -> Path:
    """Draw the SHAP values of the most important features as a beeswarm.

    Parameters
    ----------
    predictor : LatencyPredictor
        Explained on the runs that it was calibrated on.
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
    values, features = _shap_values(predictor, None)
    shap = _tool("shap")
    plt = _pyplot()
    explanation = shap.Explanation(
        values=values, data=features, feature_names=list(predictor.parts.domain.feature_names)
    )
    figure, axes = plt.subplots(figsize=(8.5, 0.42 * shown + 1.6), layout="constrained")
    try:
        shap.plots.beeswarm(
            explanation, max_display=shown, ax=axes, show=False, plot_size=None,
            group_remaining_features=False,
        )  # fmt: skip
        axes.set_title("What drives the spikes between layers", loc="left", color=_INK)
        axes.set_xlabel("SHAP value: change of the output rate, in logits")
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
    figure = _tool("matplotlib.figure").Figure(figsize=(6, 6), layout="constrained")
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


def _shap_values(
    predictor: LatencyPredictor, rows: pd.DataFrame | None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """SHAP values and features of the layers that feed others, shape (layers, features)."""
    frame = predictor.table() if rows is None else rows
    if not len(frame):
        raise InputError("rows: at least one configuration is needed to explain, got none")
    parts = predictor.parts
    features = []
    for row in frame.to_dict("records"):
        config = config_from_row(row)
        entering = input_events(config, parts.statistics, parts.tap_ratios.input)
        layers = layer_features(config, entering.events, parts.domain.categories)
        features.append(layers[:-1] if len(layers) > 1 else layers)
    stacked = np.concatenate(features)
    booster = parts.model.ensembles["output"].booster()
    values = _tool("shap").TreeExplainer(booster).shap_values(stacked)
    return np.asarray(values, dtype=np.float64), stacked


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
    ticker = _tool("matplotlib.ticker")
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
        _tool("matplotlib").use("agg")
    return _tool("matplotlib.pyplot")


def _tool(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingToolError(
            f"{package} is not installed, and this needs it; install spikemeter[explain]"
        ) from error


def _write_png(figure: Any, path: Path) -> Path:
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=_DPI))
    return path
