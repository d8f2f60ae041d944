"""How the effect of a knob depends on its value, and on the knob that changes it most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .charts import Chart, Table, axis, dots, figure, log_axis, ranks_of, row_axis, value_scale
from .effects import KNOBS, Effects, cell, hover_texts, is_numeric, spread, value_text
from .style import ACCENT, GROUPS, PAPER, amount, anchor, label, with_unit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["dependence", "strongest_partner", "value_axis"]

_NAMES = 10
_FEW = 6
"""Numbers that are drawn in rows if there are no more of them."""

_WIDE = 30.0
"""Values whose largest is this many times the smallest are drawn on a logarithmic axis."""

_LEAST_EXPLAINED = 0.05
_BINS = 10
_IN_A_BIN = 8
_ROUNDING = 1e-12

_Floats = NDArray[np.float64]


def dependence(effects: Effects, knob: str) -> Chart:
    """Draw the effect of one knob against its value, colored by the knob that changes it most."""
    settings, moved = effects.of(knob)
    partner = strongest_partner(effects, knob)
    texts = hover_texts(effects, knob)
    further: list[pd.Series[Any]] = []
    sentence_of_color = ""
    if partner is not None:
        beside = effects.of(partner)[0]
        further = [beside]
        key = effects.key(partner)
        texts = [
            f"{text}<br>{label(key)} = {label(value_text(value))}"
            for text, value in zip(texts, beside, strict=True)
        ]
        sentence_of_color = f" Color: {key}, with which it changes most."
    discrete = not is_numeric(settings) or settings.nunique() <= _FEW
    x, y, layout, sentence = (_by_name if discrete else _by_number)(effects, knob)
    title, key = effects.scale.title, effects.key(knob)
    read = effects.scale.read(moved).tolist()
    return Chart(
        id=f"{effects.prefix}-{anchor(knob)}",
        heading=f"{knob if key == knob else f'{knob} ({key})'}: what its values do",
        text=sentence + sentence_of_color,
        alt=f"Scatter plot, {title} against {key}. {sentence}",
        figure=figure(
            _colored(effects, x, y, texts, partner),
            legend=effects.key(partner) if partner else None,
            **layout,
        ),
        table=Table(
            caption=f"Effect of {knob}, one row for each of the {effects.rows}",
            columns=(
                with_unit(key),
                title,
                *([with_unit(effects.key(partner))] if partner else []),
            ),
            rows=tuple(
                (cell(value), each, *map(cell, others))
                for value, each, *others in zip(settings, read, *further, strict=True)
            ),
        ),
        half=True,
    )


def strongest_partner(effects: Effects, knob: str) -> str | None:
    """Find the knob with whose value the effect of another one changes most, at its equal values.

    Notes
    -----
    Effects are compared within bins of points that share the value of `knob`, or lie next to each
    other in it: the partner is the one whose ranks explain most of what is left there (squared
    correlation, weighed by the variance of each bin).
    """
    moved = effects.moved[knob].to_numpy(dtype=float)
    bins = _alike(_codes(effects.settings[knob], moved))
    best, found = _LEAST_EXPLAINED, None
    for name in effects.ranked["knob"][:KNOBS]:
        if name == knob:
            continue
        codes = _codes(effects.settings[name], moved)
        explained = total = 0.0
        for chosen in bins:
            left = moved[chosen] - moved[chosen].mean()
            ranks = ranks_of(codes[chosen])
            ranks = ranks - ranks.mean()
            total += float(left @ left)
            if (size := float(ranks @ ranks)) > 0:
                explained += float(left @ ranks) ** 2 / size
        if total > _ROUNDING and explained / total > best:
            best, found = explained / total, name
    return found


def _alike(codes: _Floats) -> list[NDArray[np.int64]]:
    """Places of points with equal or neighboring values."""
    order = np.argsort(codes, kind="stable")
    kinds, first = np.unique(codes[order], return_index=True)
    if len(kinds) <= _NAMES:
        return np.split(order, first[1:])
    return np.array_split(order, max(1, min(_BINS, len(order) // _IN_A_BIN)))


def value_axis(key: str, values: _Floats) -> dict[str, Any]:
    """Axis of the values of a knob; logarithmic if they span much."""
    if len(values) and values.min() > 0 and values.max() / values.min() > _WIDE:
        return log_axis(with_unit(key), values)
    slack = 0.05 * (float(np.ptp(values)) or 1.0)
    ends = (float(values.min()) - slack, float(values.max()) + slack)
    return axis(with_unit(key), ends=ends, nticks=7)


def _by_number(effects: Effects, knob: str) -> tuple[_Floats, _Floats, dict[str, Any], str]:
    settings, moved = effects.of(knob)
    numbers = settings.to_numpy(dtype=float)
    known = numbers[np.isfinite(numbers)]
    layout = {
        "xaxis": value_axis(effects.key(knob), known),
        "yaxis": effects.scale.axis(effects.scale.title, moved),
        "height": 340,
    }
    order = np.argsort(numbers, kind="stable")[: len(known)]
    fifth = max(1, len(order) // 5)
    low, high = moved[order[:fifth]].mean(), moved[order[-fifth:]].mean()
    sentence = (
        f"On average {effects.scale.write(low)} in the lowest fifth of its values "
        f"(up to {amount(numbers[order[fifth - 1]])}) and {effects.scale.write(high)} in the "
        f"highest (from {amount(numbers[order[-fifth]])})."
    )
    return numbers, moved, layout, sentence


def _by_name(effects: Effects, knob: str) -> tuple[_Floats, _Floats, dict[str, Any], str]:
    settings, moved = effects.of(knob)
    texts = _grouped(settings.map(value_text).to_numpy(dtype=object), _NAMES)
    kinds, counts = np.unique(texts.astype(str), return_counts=True)
    often = kinds[np.argsort(-counts, kind="stable")][:_NAMES]
    means = {kind: float(moved[texts == kind].mean()) for kind in often}
    order = means
    if is_numeric(settings):
        order = dict(zip(texts, settings.to_numpy(dtype=float).tolist(), strict=True))
    shown = sorted(often, key=order.__getitem__)
    places = np.full(len(texts), np.nan)
    for place, kind in enumerate(shown):
        chosen = texts == kind
        places[chosen] = place + spread(moved[chosen])
    layout = {
        "yaxis": row_axis(shown),
        "xaxis": effects.scale.axis(effects.scale.title, moved, ticks=4),
        "height": max(340, 100 + 28 * len(shown)),
    }
    least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    sentence = (
        f"On average from {effects.scale.write(means[least])} with {least} to "
        f"{effects.scale.write(means[most])} with {most}."
    )
    if len(kinds) > len(shown):
        sentence += f" The {len(shown)} most frequent of {len(kinds)} values are drawn."
    return moved, places, layout, sentence


def _colored(
    effects: Effects, x: _Floats, y: _Floats, texts: list[str], partner: str | None
) -> list[dict[str, Any]]:
    """Dots colored by the partner: on a scale if it is a number, else by group with a legend."""
    known = np.isfinite(x) & np.isfinite(y)
    rim = {"line": {"width": 0.5, "color": PAPER}}

    def those(chosen: NDArray[np.bool_], name: str | None = None, **marker: Any) -> dict[str, Any]:
        hover = [text for text, each in zip(texts, chosen, strict=True) if each]
        return dots(x[chosen], y[chosen], hover=hover, name=name, **rim | marker)

    if partner is None:
        return [those(known, color=ACCENT)]
    beside = effects.of(partner)[0]
    if is_numeric(beside):
        numbers = beside.to_numpy(dtype=float)[known]
        return [those(known, **value_scale(numbers, effects.key(partner)))]
    names = _grouped(beside.map(str).to_numpy(dtype=object), len(GROUPS))
    kinds, counts = np.unique(names.astype(str), return_counts=True)
    leading = kinds[np.argsort(-counts, kind="stable")][: len(GROUPS) - 1]
    groups = [(label(kind, 24), names == kind) for kind in leading]
    if len(kinds) > len(leading):
        groups.append(("others", ~np.isin(names, leading)))
    return [
        those(known & chosen, name, color=color)
        for (name, chosen), color in zip(groups, GROUPS, strict=False)
    ]


def _grouped(texts: NDArray[np.object_], most: int) -> NDArray[np.object_]:
    """Shorten texts to their first word where there are too many: a surrogate without its slope."""
    if len(set(texts)) <= most:
        return texts
    return np.array([text.partition(" ")[0] for text in texts], dtype=object)


def _codes(settings: pd.Series[Any], moved: _Floats) -> _Floats:
    """Values as numbers; names by the mean effect of their points."""
    if is_numeric(settings):
        numbers = settings.to_numpy(dtype=float)
        return np.where(np.isfinite(numbers), numbers, -np.inf)
    texts = settings.map(str).to_numpy(dtype=object)
    codes = np.empty(len(texts))
    for kind in set(texts):
        codes[texts == kind] = moved[texts == kind].mean()
    return codes
