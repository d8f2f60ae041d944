"""Effects of knobs on many points, and two charts of them: their importance, and a beeswarm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .charts import (
    Chart,
    Table,
    axis,
    bars,
    dots,
    effect_axis,
    figure,
    ranks_of,
    row_axis,
    whiskers,
)
from .style import (
    ACCENT,
    GREY,
    LOW_TO_HIGH,
    RULE,
    Cell,
    amount,
    effect,
    label,
    listed,
    percent,
    with_unit,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CYCLES",
    "KNOBS",
    "RATES",
    "Effects",
    "Scale",
    "beeswarm",
    "cell",
    "hover_texts",
    "importance",
    "is_numeric",
    "spread",
    "value_text",
]

KNOBS = 10
"""Knobs of a beeswarm, and those among which a partner is looked for."""

_SWITCH = {"false": 0.0, "true": 1.0}
_POINTS = 300
_BARS = 14

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How the effects of an attribution are read.

    Attributes
    ----------
    of : str
        What is moved.
    unit, sign : str
        Of what `read` gives, in full and short.
    read : callable
        Effects, as the attribution has them, in that unit.
    write : callable
        One effect with its sign and unit.
    axis : callable
        Axis of effects from a title and values.
    """

    of: str
    unit: str
    sign: str
    read: Callable[[Any], Any]
    write: Callable[[float], str]
    axis: Callable[..., dict[str, Any]]

    @property
    def title(self) -> str:
        """Of an axis of effects."""
        return f"effect on {self.of} ({self.unit})"


def _percents(logs: Any) -> Any:
    return 100 * np.expm1(logs)


def _same(logits: Any) -> Any:
    return np.asarray(logits, dtype=np.float64)


def _logits(value: float) -> str:
    return f"{'+' if value > 0 else ''}{amount(round(value, 3))} logits"


def _logit_axis(title: str, values: Any, *, ticks: int = 8) -> dict[str, Any]:
    values = np.append(np.asarray(values, dtype=np.float64).ravel(), 0.0)
    slack = 0.06 * max(float(np.ptp(values)), 0.02)
    ends = (float(values.min()) - slack, float(values.max()) + slack)
    zero: dict[str, Any] = {"zeroline": True, "zerolinecolor": RULE, "zerolinewidth": 1}
    return axis(title, ends=ends, nticks=ticks, **zero)


CYCLES = Scale(
    of="cycles", unit="percent", sign="%", read=_percents, write=effect, axis=effect_axis
)
RATES = Scale(
    of="the firing rate", unit="logits", sign="logits", read=_same, write=_logits, axis=_logit_axis
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effects:
    """What every knob did to every point.

    Attributes
    ----------
    scale : Scale
    prefix : str
        Of anchors.
    rows : str
        What a point is, in the plural.
    settings : DataFrame, shape (points, knobs)
        Of each knob: numbers, or text.
    moved : DataFrame, shape (points, knobs)
        Effects.
    ranked : DataFrame
        Columns ``knob``, ``mean_abs``, ``low``, ``high``; largest first.
    stands : mapping
        Knobs whose setting is that of another key, which stands for them.
    """

    scale: Scale
    prefix: str
    rows: str
    settings: pd.DataFrame
    moved: pd.DataFrame
    ranked: pd.DataFrame
    stands: Mapping[str, str] = field(default_factory=dict)

    def key(self, knob: str) -> str:
        """Key of a knob's settings."""
        return self.stands.get(knob, knob)

    def shown(self) -> _Ints:
        """Rows that are drawn: all, or evenly some."""
        count = len(self.moved)
        return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(np.int64))

    def of(self, knob: str) -> tuple[pd.Series[Any], _Floats]:
        """Give the settings and effects of a knob on the rows that are drawn."""
        rows = self.shown()
        return self.settings[knob].iloc[rows], self.moved[knob].to_numpy(dtype=float)[rows]


def importance(effects: Effects, confidence: float) -> Chart:
    """Draw how far each knob moves what is predicted, on average, with intervals."""
    scale, ranked = effects.scale, effects.ranked
    ranked = ranked[ranked["mean_abs"] > 0][:_BARS]
    names = list(ranked["knob"])
    means, low, high = (
        scale.read(ranked[name].to_numpy(dtype=float)) for name in ("mean_abs", "low", "high")
    )
    sizes = [
        f"{amount(mean)} {scale.sign} [{amount(a)}, {amount(b)}]"
        for mean, a, b in zip(means, low, high, strict=True)
    ]
    leading = listed([f"{name} by {size}" for name, size in zip(names[:3], sizes, strict=False)])
    hover = [f"{label(name)}: {size}" for name, size in zip(names, sizes, strict=True)]
    marks = bars(
        means,
        np.arange(len(names)),
        color=ACCENT,
        hover=hover,
        error_x=whiskers(high - means, means - low),
    )
    title = f"mean effect, up or down ({scale.unit})"
    return Chart(
        id=f"{effects.prefix}-importance",
        heading=f"How far each knob moves {scale.of}",
        text=(
            f"Up or down, on average: {leading}. Whiskers are {percent(confidence)} intervals over "
            f"the {effects.rows} compared."
        ),
        alt=f"Bar chart of {len(names)} knobs, the largest first: {leading}.",
        figure=figure(
            [marks],
            height=105 + 25 * len(names),
            yaxis=row_axis(names),
            xaxis=axis(title, ends=(0, 1.05 * float(high.max(initial=1e-3))), nticks=7),
        ),
        table=Table(
            caption=f"Mean size of the effect of each knob on {scale.of}",
            columns=("knob", f"mean effect ({scale.unit})", "low", "high"),
            rows=tuple(zip(names, means, low, high, strict=True)),
        ),
    )


def beeswarm(effects: Effects) -> Chart:
    """Draw each point's effect of each of the largest knobs, colored by the value of the knob."""
    names = list(effects.ranked["knob"][:KNOBS])
    count = len(effects.shown())
    places: dict[bool, list[_Floats]] = {True: [], False: []}
    texts: dict[bool, list[str]] = {True: [], False: []}
    for row, name in enumerate(names):
        settings, moved = effects.of(name)
        ordered = settings.map(_SWITCH) if set(settings) <= set(_SWITCH) else settings
        numeric = is_numeric(ordered)
        ranks = ranks_of(ordered.to_numpy(dtype=np.float64)) if numeric else np.zeros(count)
        places[numeric].append(np.stack([moved, row + spread(moved), ranks]))
        texts[numeric] += hover_texts(effects, name)
    colors = {"colorscale": LOW_TO_HIGH, "cmin": 0.0, "cmax": 1.0}
    marks = []
    for numeric, parts in places.items():
        if parts:
            x, y, ranks = np.concatenate(parts, axis=1)
            color = colors | {"color": ranks.astype(np.float32)} if numeric else {"color": GREY}
            marks.append(dots(x, y, hover=texts[numeric], **{"size": 5, "opacity": 0.75} | color))
    title, widest = effects.scale.title, effects.of(names[0])[1]
    everything = np.concatenate([effects.of(name)[1] for name in names])
    return Chart(
        id=f"{effects.prefix}-beeswarm",
        heading=f"Each dot is one of {count:,} {effects.rows}",
        text=(
            "To the right the value of a knob makes more, to the left less: "
            f"{names[0]} from {effects.scale.write(widest.min())} to "
            f"{effects.scale.write(widest.max())}. Blue dots have a low value of their knob, or "
            "false, red ones a high one, or true; values of grey dots have no order."
        ),
        alt=f"Beeswarm: {title} of {len(names)} knobs for {count:,} {effects.rows}.",
        figure=figure(
            marks,
            height=95 + 38 * len(names),
            yaxis=row_axis(names),
            xaxis=effects.scale.axis(title, everything),
        ),
        table=_swarm_table(effects, names),
    )


def _swarm_table(effects: Effects, names: Sequence[str]) -> Table:
    columns: list[str] = []
    cells: list[list[Cell]] = []
    for name in names:
        settings, moved = effects.of(name)
        columns += [with_unit(effects.key(name)), f"effect of {name} ({effects.scale.sign})"]
        cells += [[cell(value) for value in settings], effects.scale.read(moved).tolist()]
    return Table(
        caption=f"The {len(names)} knobs that move {effects.scale.of} most: values, and effects",
        columns=tuple(columns),
        rows=tuple(zip(*cells, strict=True)),
    )


def hover_texts(effects: Effects, knob: str) -> list[str]:
    """Say of every point that is drawn the value of a knob and what it does."""
    name, write = label(effects.key(knob)), effects.scale.write
    settings, moved = effects.of(knob)
    return [
        f"{name} = {label(value_text(value))}: {write(each)}"
        for value, each in zip(settings, moved, strict=True)
    ]


def is_numeric(settings: pd.Series[Any]) -> bool:
    """Whether the values of a knob are numbers."""
    return settings.dtype.kind in "biuf"


def value_text(value: Any) -> str:
    """Write a value of a knob for people."""
    return amount(float(value)) if isinstance(value, (int, float, np.number)) else str(value)


def cell(value: Any) -> Cell:
    """Make a value of a knob a cell of a table."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (int, float)) else str(value)


def spread(values: _Floats, bins: int = 60, widest: float = 0.4) -> _Floats:
    """Offsets that keep dots of like values from covering each other."""
    offsets = np.zeros(len(values))
    if not len(values):
        return offsets
    span = float(np.ptp(values))
    binned = np.round((values - values.min()) / span * bins) if span else offsets.copy()
    for each in np.unique(binned):
        chosen = np.flatnonzero(binned == each)
        steps = np.arange(len(chosen))
        offsets[chosen] = np.where(steps % 2, 1, -1) * ((steps + 1) // 2)
    most = float(np.abs(offsets).max())
    return offsets * min(0.06, widest / most) if most else offsets
