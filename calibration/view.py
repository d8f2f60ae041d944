"""Views of a table: some columns of the rows that meet some conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from .store import Contents, read_columns
from .table import NUMBER_OR_TEXT, SCHEMA

__all__ = ["chosen_columns", "read_rows_where"]

_STALE = "stale"
_NAMES = (*SCHEMA.names, _STALE)
_CONDITION = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|==?|<|>)\s*(.*?)\s*")
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<=": pc.less_equal, ">=": pc.greater_equal, "!=": pc.not_equal,
    "=": pc.equal, "<": pc.less, ">": pc.greater,
}  # fmt: skip
_EQUALITIES = ("=", "!=")


def chosen_columns(text: str | None, default: Sequence[str] | None = None) -> list[str]:
    """Columns that a text names: some with commas between, or ``*`` for all.

    Parameters
    ----------
    text : str or None
        As a user writes it.
    default : sequence of str, optional
        Without a text; all by default.

    Raises
    ------
    InputError
        If there is no such column.
    """
    if text is None:
        return list(default or _NAMES)
    names = list(_NAMES) if text.strip() == "*" else [part.strip() for part in text.split(",")]
    for name in names:
        if name not in _NAMES:
            raise InputError(f"columns: must be of the table, or *; got {name!r}")
    return list(dict.fromkeys(names))


def read_rows_where(path: Path, columns: Sequence[str], conditions: Sequence[str]) -> Contents:
    """Read the rows that meet all conditions.

    Parameters
    ----------
    path : Path
        Folder of a campaign, or an exported table.
    columns : sequence of str
        Columns to read, beside ``run_id`` and ``stale``.
    conditions : sequence of str
        Such as ``neuron.beta>=0.5`` or ``status!=ok``. A row without a value meets none but ``!=``;
        neither does ``auto`` where a number is asked for. A ``run_id`` may be its first digits.

    Raises
    ------
    InputError
        If the table cannot be read, or a condition is none.
    """
    parsed = [_parsed(condition) for condition in conditions]
    names = [*columns, *(key for key, _, _ in parsed)]
    contents = read_columns(path, dict.fromkeys(name for name in names if name != _STALE))
    table = contents.table
    for key, sign, value in parsed:
        try:
            found = _meets(table.column(key), key, sign, value)
        except pa.ArrowException as error:
            raise InputError(f"where: {key} cannot be compared by {sign}") from error
        table = table.filter(pc.fill_null(found, sign == "!="))
    return replace(contents, table=table)


def _parsed(condition: str) -> tuple[str, str, pa.Scalar]:
    """Column, operator and value of a condition."""
    found = _CONDITION.fullmatch(condition)
    if found is None:
        raise InputError(f"where: must be KEY=VALUE, or with != < <= > >=; got {condition!r}")
    key, sign, text = found.groups()
    sign = "=" if sign == "==" else sign
    if key not in _NAMES:
        raise InputError(f"where: must name a column of the table; got {key!r}")
    kind = pa.bool_() if key == _STALE else SCHEMA.field(key).type
    return key, sign, _value(key, kind, sign, text)


def _meets(column: pa.ChunkedArray, key: str, sign: str, value: pa.Scalar) -> pa.ChunkedArray:
    """Tell which values of a column meet a condition; null where there is none to compare."""
    if key == "run_id":
        found = pc.starts_with(column, value.as_py())
        return found if sign == "=" else pc.invert(found)
    if key in NUMBER_OR_TEXT and pa.types.is_floating(value.type):
        nothing = pa.scalar(None, column.type)
        column = pc.if_else(pc.equal(column, "auto"), nothing, column).cast(value.type)
    return _OPERATORS[sign](column, value)


def _value(key: str, kind: pa.DataType, sign: str, text: str) -> pa.Scalar:
    if key in NUMBER_OR_TEXT and (sign not in _EQUALITIES or _is_number(text)):
        kind = pa.float64()
    if pa.types.is_string(kind):
        if sign not in _EQUALITIES:
            raise InputError(f"where: {key} is text, to be compared by = or !=; got {sign}")
        return pa.scalar(text)
    if pa.types.is_boolean(kind):
        if text.lower() not in ("true", "false"):
            raise InputError(f"where: {key} is true or false, got {text!r}")
        return pa.scalar(text.lower() == "true")
    if pa.types.is_list(kind):
        raise InputError(f"where: {key} is a list, which cannot be compared; got {text!r}")
    if not _is_number(text):
        raise InputError(f"where: {key} is a number, got {text!r}")
    return pa.scalar(float(text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
