"""How a report looks and spells: its colors for a light and a dark page, its numbers, its names."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

import numpy as np

__all__ = [
    "ACCENT",
    "BUCKETS",
    "CELL",
    "DIVERGING",
    "DOWN",
    "GREY",
    "GRID",
    "GROUPS",
    "INK",
    "LOW_TO_HIGH",
    "MUTED",
    "PAPER",
    "RULE",
    "SEQUENTIAL",
    "SEQUENTIAL_WIDE",
    "THEME",
    "UP",
    "Cell",
    "amount",
    "anchor",
    "cell_text",
    "effect",
    "label",
    "listed",
    "percent",
    "with_unit",
]

THEME = {
    "paper": ("#ffffff", "#14181d"),
    "panel": ("#f5f7f9", "#1c2229"),
    "ink": ("#1c2733", "#e6eaee"),
    "muted": ("#586573", "#a5b0bc"),
    "grid": ("#e2e7ec", "#2c343d"),
    "rule": ("#b6c0ca", "#4c5865"),
    "accent": ("#0b62a0", "#63b3ea"),
    "warm": ("#b5470f", "#f29559"),
    "grey": ("#8f9aa6", "#7b8794"),
    "encode": ("#4aa3df", "#8fd0ff"),
    "accumulate": ("#14507f", "#3f8fce"),
    "fire": ("#e08a1e", "#f5b35a"),
    "stall": ("#a9b2bc", "#66717d"),
    "green": ("#137a5a", "#45c49a"),
    "pink": ("#a8437f", "#e389bf"),
    "gold": ("#8a6a00", "#dcb53c"),
    "cell": ("#0a0e12", "#fefefe"),
    "little": ("#f2f7fb", "#1a222b"),
    "some": ("#a9cbe6", "#274c6c"),
    "cold": ("#3f88c0", "#3878aa"),
    "cool": ("#b7d2e8", "#2a4d6b"),
    "middle": ("#f6f6f5", "#20262d"),
    "mild": ("#f2c4a4", "#6e4027"),
    "hot": ("#c96a31", "#b85a26"),
    "most": ("#0a335c", "#cfe8ff"),
}
"""Name of each color, as it is on a light page and on a dark one.

No two are equal on a light page, so that a page can put the dark ones in their place. Text has a
contrast of 4.5 or more: ``ink``, ``muted``, ``accent`` and ``warm`` on ``paper`` and ``panel``,
``cell`` on every color of a heat map whose cells have text.
"""


def _light(*names: str) -> tuple[str, ...]:
    return tuple(THEME[name][0] for name in names)


PAPER, INK, MUTED, GRID, RULE, CELL = _light("paper", "ink", "muted", "grid", "rule", "cell")
ACCENT, UP, GREY = _light("accent", "warm", "grey")
DOWN = ACCENT
BUCKETS = {name: THEME[name][0] for name in ("encode", "accumulate", "fire", "stall")}
GROUPS = _light("accent", "warm", "green", "pink", "gold", "grey")
"""Colors of groups that people who are color blind tell apart too; the last is of all others."""

SEQUENTIAL = list(zip((0.0, 0.5, 1.0), _light("little", "some", "cold"), strict=True))
SEQUENTIAL_WIDE = list(
    zip((0.0, 0.33, 0.67, 1.0), _light("little", "some", "cold", "most"), strict=True)
)
"""For cells without text."""

DIVERGING = list(
    zip((0.0, 0.25, 0.5, 0.75, 1.0), _light("cold", "cool", "middle", "mild", "hot"), strict=True)
)
LOW_TO_HIGH = [(0.0, "#2f7bd6"), (0.5, "#9467b3"), (1.0, "#d9534a")]
"""Of the values of a knob; legible on a light and on a dark page."""

_MINUS = "\N{MINUS SIGN}"
_LONGEST_LABEL = 34
_MOST_PLAIN = 1e12
_UNITS = {
    "hardware.clock_mhz": "MHz",
    "hardware.encoder_width": "bits",
    "input.density": "events per line and time step",
    "input.height": "pixels",
    "input.time_steps": "time steps",
    "input.width": "pixels",
    "layer.channels": "channels",
    "layer.fan_in": "inputs of a neuron",
    "layer.kernel": "pixels",
    "layer.neurons": "neurons",
    "layer.pool": "pixels",
    "neuron.beta": "per time step",
    "training.batch_size": "samples",
    "training.epochs": "epochs",
    "training.weight_bits": "bits",
}

Cell = str | float | int | bool | None
"""What a cell of a table holds; None is not known."""


def label(text: object, longest: int = _LONGEST_LABEL) -> str:
    """Make any text safe to show in a figure, where Plotly would read tags and entities.

    Examples
    --------
    >>> label("<b>beta & co</b>")
    '&lt;b&gt;beta &amp; co&lt;/b&gt;'
    """
    plain = "".join(each if each.isprintable() else " " for each in str(text))
    if len(plain) > longest:
        plain = plain[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return html.escape(plain, quote=False)


def with_unit(key: str) -> str:
    """Name a key or a feature with its unit, if it has one."""
    return f"{key} ({_UNITS[key]})" if key in _UNITS else key


def anchor(text: str) -> str:
    """Make a name part of an anchor.

    Examples
    --------
    >>> anchor("neuron.beta")
    'neuron-beta'
    """
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def listed(parts: Sequence[str]) -> str:
    """Join parts of a sentence.

    Examples
    --------
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def amount(value: float) -> str:
    """Write a number for people: thousands, and no more digits than matter.

    Examples
    --------
    >>> amount(27316.2), amount(0.034567), amount(12.5), amount(float("nan"))
    ('27,316', '0.0346', '12.5', '')
    """
    if not math.isfinite(value):
        return ""
    value = value or 0.0  # no minus before nothing
    size = abs(value)
    if size >= _MOST_PLAIN or 0 < size < 1e-4:
        text = f"{value:.3g}"
    elif size >= 1000 or value == round(value):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{max(2 - math.floor(math.log10(size)), 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", _MINUS)


def percent(share: float, *, signed: bool = False) -> str:
    """Write a share as percent, below ten with a digit behind the point; the space does not break.

    Examples
    --------
    >>> percent(0.123).split(), percent(0.034, signed=True).split(), percent(0.0).split()
    (['12', '%'], ['+3.4', '%'], ['0', '%'])
    """
    value = 100 * share
    size = abs(value)
    sign = "+" if signed and value >= 0.05 else ""
    text = f"{value:,.{0 if size >= 9.95 else 1}f}" if size >= 0.05 else "0"
    return f"{sign}{text}\N{NO-BREAK SPACE}%".replace("-", _MINUS)


def effect(logs: float) -> str:
    """Write an effect on the log of cycles as percent of cycles.

    Examples
    --------
    >>> effect(0.0953).split()
    ['+10', '%']
    """
    return percent(math.expm1(logs), signed=True)


def cell_text(cell: Cell) -> str:
    """Write a cell such that it can be copied as a number: six digits, thousands, a plain minus.

    Examples
    --------
    >>> cell_text(27316.25), cell_text(-0.0123456789), cell_text(None), cell_text(True)
    ('27,316.2', '-0.0123457', '', 'yes')
    """
    if cell is None:
        return ""
    if isinstance(cell, (bool, np.bool_)):
        return "yes" if cell else "no"
    if isinstance(cell, (int, np.integer)):
        return f"{cell:,}"
    if isinstance(cell, (float, np.floating)):
        if not math.isfinite(cell):
            return ""
        if 1000 <= abs(cell) < _MOST_PLAIN:
            return f"{cell:,.1f}".removesuffix(".0")
        return f"{cell:.6g}"
    return str(cell)
