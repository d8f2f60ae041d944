"""Charts of one configuration: how knobs make its prediction, and where its cycles go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .charts import (
    Chart,
    Table,
    axis,
    bars,
    dots,
    figure,
    heat,
    log_axis,
    row_axis,
    whiskers,
)
from .effects import RATES, value_text
from .style import (
    BUCKETS,
    DIVERGING,
    DOWN,
    INK,
    MUTED,
    RULE,
    UP,
    amount,
    effect,
    label,
    percent,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..attribution import KnobAttribution, LayerAttribution
    from ..estimate import LatencyEstimate

__all__ = [
    "OVERLAP",
    "bucket_chart",
    "largest_steps",
    "layer_cycles_chart",
    "layer_sparsity_chart",
    "waterfall",
]

OVERLAP = 1.001
"""Where what layers spend adds up to more than so many latencies, they work at the same time."""

_STEPS = 10
_KNOBS = 12
_DOING = {
    "encode": "finding spikes",
    "accumulate": "adding up the weights of spikes",
    "fire": "updating neurons",
    "stall": "waiting",
}

_Floats = NDArray[np.float64]


def largest_steps(local: KnobAttribution, most: int) -> list[tuple[str, float, float]]:
    """Give the knobs that make most of a prediction: text, effect, and its standard error.

    Parameters
    ----------
    local : KnobAttribution
        Of one configuration.
    most : int
        How many.
    """
    values, errors, shown = local.values[0], local.errors[0], local.display().iloc[0]
    names = [knob.name for knob in local.knobs]
    return [
        (f"{names[at]} = {value_text(shown[names[at]])}", float(values[at]), float(errors[at]))
        for at in np.argsort(-np.abs(values), kind="stable")[:most].tolist()
    ]


def waterfall(local: KnobAttribution, confidence: float) -> Chart:
    """Draw how knobs lead from the average of what is compared to the prediction of one point.

    Parameters
    ----------
    local : KnobAttribution
        Of the configuration alone.
    confidence : float
        Of the whiskers.
    """
    every = largest_steps(local, len(local.knobs))
    shown, rest = (every, []) if len(every) <= _STEPS + 1 else (every[:_STEPS], every[_STEPS:])
    if rest:
        together = f"{len(rest)} other knobs together"
        # Their errors at most: they may go together
        shown = [*shown, (together, sum(each[1] for each in rest), sum(each[2] for each in rest))]
    names, steps, errors = (list(column) for column in zip(*shown, strict=True))
    doubt = NormalDist().inv_cdf((1 + confidence) / 2) * np.array(errors)
    first, last = float(np.exp(local.base)), float(np.exp(local.predicted[0]))
    ends = np.exp(local.base + np.cumsum(steps))
    labels = ["average of what is compared", *names, "this configuration"]
    largest = ", ".join(f"{name} ({effect(step)})" for name, step, _ in every[:3])
    return Chart(
        id="waterfall",
        heading="From the average to this prediction, knob by knob",
        text=(
            f"What is compared takes {amount(first)} cycles on (geometric) average, this "
            f"configuration {amount(last)}. Most of the way: {largest}. Factors multiply; whiskers "
            f"are {percent(confidence)} intervals of the sampling."
        ),
        alt=f"Waterfall from {amount(first)} to {amount(last)} cycles. {largest}.",
        figure=_draw_waterfall(labels, np.append(first, ends[:-1]), ends, steps, doubt),
        table=Table(
            caption="Shapley values of this configuration, and cycles after each",
            columns=("knob", "effect (%)", "low (%)", "high (%)", "cycles so far"),
            rows=(
                (labels[0], None, None, None, first),
                *(
                    (name, *(100 * math.expm1(step + side * wide) for side in (0, -1, 1)), end)
                    for name, step, wide, end in zip(
                        names, steps, doubt.tolist(), ends.tolist(), strict=True
                    )
                ),
                (labels[-1], None, None, None, last),
            ),
        ),
    )


def _draw_waterfall(
    labels: Sequence[str], starts: _Floats, ends: _Floats, steps: Sequence[float], doubt: _Floats
) -> Figure:
    rows = np.arange(1, len(steps) + 1)
    texts = [effect(step) for step in steps]
    hover = [
        f"{label(name, 60)}: {text}, {amount(start)} to {amount(end)} cycles"
        for name, text, start, end in zip(labels[1:-1], texts, starts, ends, strict=True)
    ]
    colors = [UP if step > 0 else DOWN for step in steps]
    # Text on the side that has more room
    low = np.minimum(np.minimum(starts, ends), ends * np.exp(-doubt))
    high = np.maximum(np.maximum(starts, ends), ends * np.exp(doubt))
    on_right = low * high < low.min() * high.max()
    written = {
        "type": "scatter", "mode": "text", "x": np.where(on_right, high, low), "y": rows,
        "text": [f"\N{NO-BREAK SPACE}{text}\N{NO-BREAK SPACE}" for text in texts],
        "textposition": [f"middle {'right' if each else 'left'}" for each in on_right],
        "textfont": {"size": 12, "color": INK}, "hoverinfo": "skip", "cliponaxis": False,
    }  # fmt: skip
    marks = [
        bars(ends - starts, rows, color=colors, hover=hover, base=starts),
        dots(
            ends, rows, size=1, color=INK,
            further={"error_x": whiskers(ends * np.expm1(doubt), -ends * np.expm1(-doubt))},
        ),
        written,
        dots(
            [starts[0], ends[-1]], [0, len(steps) + 1], size=11, symbol="diamond", opacity=1,
            color=[MUTED, INK], hover=[f"{amount(end)} cycles" for end in (starts[0], ends[-1])],
        ),
    ]  # fmt: skip
    lines = [
        {
            "type": "line", "x0": at, "x1": at, "y0": row, "y1": row + 1, "layer": "below",
            "line": {"color": RULE, "width": 1},
        }
        for row, at in enumerate([starts[0], *ends])
    ]  # fmt: skip
    return figure(
        marks,
        height=75 + 30 * len(labels),
        yaxis=row_axis(labels),
        xaxis=log_axis("cycles", [*low, *high]),
        shapes=lines,
    )


def bucket_chart(estimate: LatencyEstimate) -> Chart:
    """Draw the cycles of each layer by what they are spent on.

    Parameters
    ----------
    estimate : LatencyEstimate
    """
    layers = estimate.layers
    names = [layer.name for layer in layers]
    total = sum(layer.cycles for layer in layers)
    sums = {kind: sum(layer.buckets.get(kind, 0.0) for layer in layers) for kind in BUCKETS}
    kinds = [kind for kind, cycles in sums.items() if cycles]
    marks = []
    for kind in kinds:
        cycles = [layer.buckets.get(kind, 0.0) for layer in layers]
        hover = [
            f"{label(name)}, {kind}: {amount(each)} cycles, {percent(each / total)} of all"
            for name, each in zip(names, cycles, strict=True)
        ]
        marks.append(
            bars(cycles, np.arange(len(names)), color=BUCKETS[kind], hover=hover, name=kind)
        )
    most = max(layers, key=lambda layer: layer.cycles)
    kind = max(sums, key=lambda each: sums[each])
    text = (
        f"{most.name} takes {percent(most.cycles / total)} of the cycles. Of all cycles "
        f"{percent(sums[kind] / total)} go to {_DOING[kind]} ({kind})."
    )
    if total > estimate.cycles * OVERLAP:
        text += " Stalled layers wait for others, which work at the same time."
    ends = (0.0, 1.04 * most.cycles)
    return Chart(
        id="buckets",
        heading="Cycles of each layer, by what they are spent on",
        text=text,
        alt=f"Stacked bars of {len(names)} layers. {text}",
        figure=figure(
            marks,
            height=105 + 36 * len(names),
            barmode="stack",
            yaxis=row_axis(names),
            xaxis=axis("cycles", ends=ends, nticks=6),
        ),
        table=Table(
            caption="Cycles of each layer",
            columns=(
                "layer",
                *(f"{kind} (cycles)" for kind in kinds),
                "all (cycles)",
                "share (%)",
                "spikes entering (per line and step)",
                "firing rate (per neuron and step)",
            ),
            rows=tuple(
                (
                    layer.name,
                    *(float(layer.buckets.get(kind, 0.0)) for kind in kinds),
                    float(layer.cycles),
                    100 * layer.cycles / total,
                    layer.input_rate,
                    layer.firing_rate,
                )
                for layer in layers
            ),
        ),
    )


def layer_cycles_chart(
    local: KnobAttribution, layer_cycles: _Floats, estimate: LatencyEstimate
) -> Chart:
    """Draw how many cycles each knob adds to each layer.

    Parameters
    ----------
    local : KnobAttribution
        Of the configuration.
    layer_cycles : ndarray of float, shape (layers, knobs)
        Shapley values, in cycles.
    estimate : LatencyEstimate
    """
    return _signed_heat(
        [knob.name for knob in local.knobs],
        [layer.name for layer in estimate.layers],
        layer_cycles.T,
        unit="cycles",
        write=lambda value: f"{'+' if round(value) > 0 else ''}{amount(round(value))}",
        id="layer-cycles",
        heading="What each knob adds to each layer, in cycles",
    )


def layer_sparsity_chart(local: LayerAttribution) -> Chart | None:
    """Draw how each knob moves the firing rate of each layer of the configuration.

    Nothing is drawn if none does.

    Parameters
    ----------
    local : LayerAttribution
        Of the configuration alone.
    """
    names, values = local.by_knob()
    if not names:
        return None
    return _signed_heat(
        names,
        [local.layers[place] for place in local.layer],
        values.T,
        unit="logits",
        write=lambda value: RATES.write(round(value, 2)).removesuffix(" logits"),
        id="layer-sparsity",
        heading="How each knob moves the firing rate of each layer, in logits",
    )


def _signed_heat(
    names: Sequence[str],
    layers: Sequence[str],
    values: _Floats,
    *,
    unit: str,
    write: Callable[[float], str],
    **about: Any,
) -> Chart:
    """Draw knobs by layers on a scale around zero, the knobs that do most first."""
    order = np.argsort(-np.abs(values).max(axis=1), kind="stable")[:_KNOBS]
    names, values = [names[place] for place in order.tolist()], values[order]
    limit = float(np.abs(values).max(initial=1e-9))
    cells = heat(
        values,
        scale=DIVERGING,
        ends=(-limit, limit),
        text=[[write(value) for value in line] for line in values],
        hover=[
            [
                f"{label(name)}, {label(layer)}: {write(value)} {unit}"
                for layer, value in zip(layers, line, strict=True)
            ]
            for name, line in zip(names, values, strict=True)
        ],
    )
    row, column = map(int, np.unravel_index(int(np.abs(values).argmax()), values.shape))
    text = (
        "Against the average of what is compared. The largest is that of "
        f"{names[row]} on {layers[column]}: {write(values[row, column])} {unit}."
    )
    ticks = (range(len(layers)), [label(layer, 14) for layer in layers])
    ends = (-0.5, len(layers) - 0.5)
    return Chart(
        text=text,
        alt=f"Heat map of {len(names)} knobs by {len(layers)} layers, in {unit}. {text}",
        figure=figure(
            [cells],
            height=85 + 27 * len(names),
            yaxis=row_axis(names),
            xaxis=axis("layer, from the input on", ticks, ends=ends, grid=False),
        ),
        table=Table(
            caption=f"Contribution of each knob to each layer ({unit})",
            columns=("knob", *layers),
            rows=tuple((name, *line) for name, line in zip(names, values.tolist(), strict=True)),
        ),
        **about,
    )
