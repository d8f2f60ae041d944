"""Which rows of a table no `Config` allows, without a `Config` for each.

Limits of numbers are those of the JSON Schema. What else is refused hangs on neuron, surrogate and
training, or on the network and its place (data set, input, population, hardware), never on both;
see `columns`. Rows that say the same of one of these but for numbers are judged together: by those
with the smallest and the largest of the numbers that rules join, and one by one if these differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import json_schema
from ..errors import ConfigError
from .columns import NUMBERS, Asked, Columns, read_columns
from .features import config_from_row, plain_cell

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Refusals"]

_CHOICES = ("neuron.", "surrogate.", "training.")
_POPULATION = "training.population"
_CORES = "hardware.neural_cores"
_JOINED = ("neuron.beta", "neuron.R", "neuron.C", "hardware.encoder_width")
"""Numbers that rules join with others."""

_JOINED_IF_GIVEN = ("surrogate.slope", "surrogate.width")
"""Numbers of which rules ask whether they are given."""

_ANY_PLACE = {
    "network": "1", "input.height": 1, "input.width": 1, "input.channels": 1,
    "input.time_steps": 1, "input.events": [0.0],
}  # fmt: skip
"""The least network, on which any training choices are allowed."""

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]
_Indices = NDArray[np.int64]


class Refusals:
    """Judges rows, and remembers what it has seen."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def of(self, rows: pd.DataFrame) -> _Flags:
        """Mark the rows that are no valid configuration.

        Parameters
        ----------
        rows : DataFrame
            Columns are flat keys, all of them known.

        Returns
        -------
        ndarray of bool, shape (rows,)
        """
        columns = read_columns(rows)
        numbers = np.arange(len(rows))
        asked = Asked(
            rows=columns, hardware=columns, row=numbers, machine=numbers, names=rows.index
        )
        refused = _beyond_limits(columns)
        for codes, joined, side in (
            (asked.kind, _neurons(columns), _choices_of),
            (asked.place, _machines(columns), _place_of),
        ):
            for members in _grouped(codes, np.flatnonzero(~refused)):
                if not all(self._allows(side(columns, at)) for at in _extremes(members, joined)):
                    refused[members] = [not self._allows(side(columns, at)) for at in members]
        for index in np.flatnonzero(_odd_cores(columns) & ~refused).tolist():
            refused[index] = not self._allows(_place_of(columns, index))
        return refused

    def _allows(self, row: Mapping[str, Any]) -> bool:
        key = repr(row)
        if key not in self._known:
            try:
                config_from_row(row)
            except ConfigError:
                self._known[key] = False
            else:
                self._known[key] = True
        return self._known[key]


def _beyond_limits(columns: Columns) -> _Flags:
    """Mark rows with a number that its key never allows, or something else than a number."""
    beyond = np.zeros(len(columns), dtype=bool)
    for key, values in columns.numbers.items():
        rule = _limits()[key]
        with np.errstate(invalid="ignore"):  # no comparison holds for an empty cell
            beyond |= (values < rule["minimum"]) | (values > rule["maximum"])
            beyond |= (values <= rule["exclusiveMinimum"]) | (values >= rule["exclusiveMaximum"])
            beyond |= np.isinf(values) | (rule["whole"] & (values > np.floor(values)))
        cells = columns.cells[key]
        if cells.dtype.kind not in "iuf":
            beyond |= [type(plain_cell(cell)) not in (int, float, type(None)) for cell in cells]
    return beyond


@cache
def _limits() -> dict[str, dict[str, Any]]:
    """Limits of every number by its flat key, from the JSON Schema of a configuration."""
    schema = json_schema()
    limits = {}
    for key in NUMBERS:
        section, _, name = key.partition(".")
        reference = schema["properties"][section]["$ref"].rpartition("/")[2]
        rule = schema["$defs"][reference]["properties"][name]
        rule = next((each for each in rule.get("anyOf", ()) if each["type"] != "null"), rule)
        limits[key] = {
            "minimum": rule.get("minimum", -np.inf),
            "maximum": rule.get("maximum", np.inf),
            "exclusiveMinimum": rule.get("exclusiveMinimum", -np.inf),
            "exclusiveMaximum": rule.get("exclusiveMaximum", np.inf),
            "whole": rule["type"] == "integer",
        }
    return limits


def _grouped(codes: _Indices, rows: _Indices) -> Iterator[_Indices]:
    """Rows that have one code, for each code."""
    order = rows[np.argsort(codes[rows], kind="stable")]
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _extremes(members: _Indices, joined: list[_Floats]) -> list[int]:
    """Members with the smallest and the largest of each number; any, if there is none."""
    found = {int(members[0])}
    for values in joined:
        of_members = values[members]
        if not np.isnan(of_members).all():
            found |= {
                int(members[np.nanargmin(of_members)]),
                int(members[np.nanargmax(of_members)]),
            }
    return sorted(found)


def _neurons(columns: Columns) -> list[_Floats]:
    """Numbers that rules join for neurons."""
    beta, resistance, capacity = map(columns.numbers.get, _JOINED[:3])
    found = [each for each in (beta, resistance, capacity) if each is not None]
    if resistance is not None and capacity is not None:
        found.append(resistance * capacity)
    return found


def _machines(columns: Columns) -> list[_Floats]:
    """Numbers that rules join for a network and its hardware."""
    width = columns.numbers.get(_JOINED[3])
    return [*columns.cores.T, *([] if width is None else [width])]


def _odd_cores(columns: Columns) -> _Flags:
    """Mark rows whose cores are no list of whole numbers, or an empty one."""
    if _CORES not in columns.cells:
        return np.zeros(len(columns), dtype=bool)
    cells = columns.cells[_CORES]
    odd = {"[]", "()", *(repr(cells[index]) for index in columns.odd.tolist())}
    return np.array([repr(cell) in odd for cell in cells], dtype=bool)


def _choices_of(columns: Columns, index: int) -> dict[str, Any]:
    """Training choices of a row, on a network that allows any."""
    row = columns.row(index)
    choices = {k: x for k, x in row.items() if k.startswith(_CHOICES) and k != _POPULATION}
    return _ANY_PLACE | _judged(choices)


def _place_of(columns: Columns, index: int) -> dict[str, Any]:
    """Network and hardware of a row, with the training choices that are the default."""
    row = columns.row(index)
    return _judged({k: x for k, x in row.items() if k == _POPULATION or not k.startswith(_CHOICES)})


def _judged(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out numbers that only their own limits have a say in, and empty cells."""
    judged = {}
    for key, cell in row.items():
        value = plain_cell(cell)
        if value is not None and (key not in NUMBERS or key in _JOINED):
            judged[key] = value
        elif value is not None and key in _JOINED_IF_GIVEN:
            judged[key] = 1.0
    return judged
