"""Charts of what drives latency, and of what drives sparsity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .charts import Chart, Table, axis, bars, dots, figure, heat, row_axis, value_scale
from .dependence import dependence, value_axis
from .effects import CYCLES, RATES, Effects, beeswarm, importance
from .style import ACCENT, SEQUENTIAL, amount, anchor, label, with_unit

if TYPE_CHECKING:
    import pandas as pd

    from ..attribution import KnobAttribution, LayerAttribution

__all__ = ["cycle_charts", "sparsity_charts"]

_DEPENDENCE = 4
_PAIRS = 6
_PAIRS_DRAWN = 2
_KNOBS = 12
_STANDS_FOR = {
    "dataset": "input.density",
    "network": "layer.fan_in",
    "neuron": "neuron.model",
    "surrogate": "surrogate.slope",
}
"""Keys whose value stands for a knob of several features."""


def cycle_charts(cycles: KnobAttribution, confidence: float) -> tuple[Chart, ...]:
    """Draw what drives cycles: importance with intervals, a beeswarm, dependence of the top knobs.

    Nothing is drawn if no knob moves them.

    Parameters
    ----------
    cycles : KnobAttribution
        Of many configurations.
    confidence : float
        Of the intervals of importance.
    """
    import pandas as pd

    effects = Effects(
        scale=CYCLES,
        prefix="cycles",
        rows="configurations",
        settings=cycles.display(),
        moved=pd.DataFrame(cycles.values, columns=[knob.name for knob in cycles.knobs]),
        ranked=cycles.importance(confidence),
    )
    return _charts(effects, confidence)


def sparsity_charts(sparsity: LayerAttribution, confidence: float) -> tuple[Chart, ...]:
    """Draw what drives how often layers spike: as `cycle_charts`, and by layer, and by pairs.

    Parameters
    ----------
    sparsity : LayerAttribution
        Of many configurations.
    confidence : float
        Of the intervals of importance.
    """
    import pandas as pd

    names, values = sparsity.by_knob()
    effects = Effects(
        scale=RATES,
        prefix="sparsity",
        rows="layers",
        settings=_settings(sparsity, names),
        moved=pd.DataFrame(values, columns=list(names)),
        ranked=sparsity.importance(confidence),
        stands=_STANDS_FOR,
    )
    charts = _charts(effects, confidence)
    return (*charts[:1], _per_layer(sparsity), *charts[1:], *_pairs(sparsity)) if charts else ()


def _charts(effects: Effects, confidence: float) -> tuple[Chart, ...]:
    moving = effects.ranked[effects.ranked["mean_abs"] > 0]
    if not len(moving):
        return ()
    return (
        importance(effects, confidence),
        beeswarm(effects),
        *(dependence(effects, knob) for knob in moving["knob"][:_DEPENDENCE]),
    )


def _settings(sparsity: LayerAttribution, names: tuple[str, ...]) -> pd.DataFrame:
    """Of each row the value of each knob: a number, or the name whose feature is set."""
    import pandas as pd

    features = list(sparsity.feature_names)
    columns: dict[str, Any] = {}
    for name in names:
        key = _STANDS_FOR.get(name, name)
        if key in features:
            columns[name] = sparsity.data[:, features.index(key)].astype(np.float64)
            continue
        named = {
            each.partition("=")[2]: sparsity.data[:, place] > 0
            for place, each in enumerate(features)
            if each.startswith(f"{key}=")
        }
        column = np.full(len(sparsity.data), "another", dtype=object)
        for kind, given in named.items():
            column[given] = kind
        columns[name] = column
    return pd.DataFrame(columns)


def _per_layer(sparsity: LayerAttribution) -> Chart:
    means = sparsity.per_layer()
    names = list(means.columns[means.to_numpy().max(axis=0) > 0][:_KNOBS])
    layers = [str(layer) for layer in means.index]
    values = means[names].to_numpy(dtype=float).T
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    cells = heat(
        values,
        scale=SEQUENTIAL,
        ends=(0.0, float(values.max())),
        text=[[amount(value) for value in line] for line in values.round(3)],
        hover=[
            [
                f"{label(name)}, {label(layer)}: {amount(value)} logits"
                for layer, value in zip(layers, line, strict=True)
            ]
            for name, line in zip(names, values, strict=True)
        ],
    )
    ticks = (range(len(layers)), [label(layer, 14) for layer in layers])
    ends = (-0.5, len(layers) - 0.5)
    return Chart(
        id="sparsity-layers",
        heading="Which layer listens to which knob",
        text=(
            "Mean size of the effect on the firing rate of a layer, in logits. The largest is that "
            f"of {names[row]} on {layers[column]}: {amount(values[row, column])}."
        ),
        alt=f"Heat map of {len(names)} knobs by {len(layers)} layers, mean effect in logits.",
        figure=figure(
            [cells],
            height=85 + 27 * len(names),
            yaxis=row_axis(names),
            xaxis=axis("layer, from the input on", ticks, ends=ends, grid=False),
        ),
        table=Table(
            caption="Mean size of the effect on the firing rate of each layer (logits)",
            columns=("knob", *layers),
            rows=tuple((name, *line) for name, line in zip(names, values.tolist(), strict=True)),
        ),
    )


def _pairs(sparsity: LayerAttribution) -> tuple[Chart, ...]:
    pairs = sparsity.top_pairs(_PAIRS)
    if not len(pairs):
        return ()
    both = list(zip(pairs["first"], pairs["second"], strict=True))
    sizes = pairs["mean_abs"].to_numpy(dtype=float)
    names = [f"{first} with {second}" for first, second in both]
    hover = [
        f"{label(name, 70)}: {amount(size)} logits" for name, size in zip(names, sizes, strict=True)
    ]
    rows = row_axis(names)
    rows["ticktext"] = [f"{label(first, 24)}<br>with {label(second, 24)}" for first, second in both]
    title = "mean size of the interaction (logits)"
    ranking = Chart(
        id="sparsity-pairs",
        heading="Pairs that do something together that neither does alone",
        text=(
            f"Mean size of the SHAP interaction over {len(sparsity.interaction_rows)} layers: "
            f"{names[0]} leads with {amount(sizes[0])} logits."
        ),
        alt=f"Bar chart of {len(names)} pairs of features, the largest first: {names[0]}.",
        figure=figure(
            [bars(sizes, np.arange(len(names)), color=ACCENT, hover=hover)],
            height=80 + 40 * len(names),
            yaxis=rows,
            xaxis=axis(title, ends=(0, 1.05 * float(sizes.max(initial=1e-6))), nticks=7),
        ),
        table=Table(
            caption="Largest interactions of two features",
            columns=("feature", "with", "mean size (logits)"),
            rows=tuple((*pair, size) for pair, size in zip(both, sizes.tolist(), strict=True)),
        ),
    )
    return (ranking, *(_interaction(sparsity, *pair) for pair in both[:_PAIRS_DRAWN]))


def _interaction(sparsity: LayerAttribution, first: str, second: str) -> Chart:
    """Draw what a pair adds to the effects of its two features, against both of their values."""
    features = list(sparsity.feature_names)
    # SHAP gives half of an interaction to each of the two
    together = 2 * sparsity.interactions[:, features.index(first), features.index(second)]
    data = sparsity.data[sparsity.interaction_rows].astype(np.float64)
    along, beside = sorted(
        (first, second), key=lambda name: -len(np.unique(data[:, features.index(name)]))
    )
    x, color = data[:, features.index(along)], data[:, features.index(beside)]
    largest = int(np.abs(together).argmax())
    sentence = (
        f"Together they add from {RATES.write(together.min())} to {RATES.write(together.max())}; "
        f"most at {along} = {amount(x[largest])} and {beside} = {amount(color[largest])}."
    )
    hover = [
        f"{label(along)} = {amount(a)}<br>{label(beside)} = {amount(b)}: {RATES.write(value)}"
        for a, b, value in zip(x, color, together, strict=True)
    ]
    title = "interaction (logits)"
    return Chart(
        id=f"pair-{anchor(first)}-{anchor(second)}",
        heading=f"{along} with {beside}",
        text=f"{sentence} Color: {beside}.",
        alt=f"Scatter plot of the {title} against {along}, colored by {beside}. {sentence}",
        figure=figure(
            [dots(x, together, hover=hover, **value_scale(color, beside))],
            height=340,
            xaxis=value_axis(along, x),
            yaxis=RATES.axis(title, together),
        ),
        table=Table(
            caption=f"Interaction of {along} and {beside}",
            columns=(with_unit(along), with_unit(beside), title),
            rows=tuple(zip(x.tolist(), color.tolist(), together.tolist(), strict=True)),
        ),
        half=True,
    )
