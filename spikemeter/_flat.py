"""Configurations as flat keys and columns: sections joined by dots, as tables name them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from .config import Config
from .errors import ConfigError

__all__ = ["ABSENT", "cells", "changed", "flat", "is_known", "is_whole", "settle_nulls"]

ABSENT: Any = object()
"""Stands where a configuration does not have a key."""

_BY_NAME = "hardware.knobs"
"""Section whose keys are names of the user's."""

_NOT_NULL_BY_DEFAULT = ("neuron.beta", "surrogate.slope")
"""Keys that may be null but are not by themselves, so that a null differs from an empty cell."""

_NULL = np.inf
"""Stands for such a null; no number of a configuration may be infinite."""


@cache
def _annotation(key: str) -> Any:
    """Type that a configuration asks for under a key; None for a key that it does not have."""
    model: type[BaseModel] | None = Config
    annotation: Any = None
    for part in key.split("."):
        if model is None or part not in model.model_fields:
            return None
        annotation = model.model_fields[part].annotation
        is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation if is_section else None
    return annotation


def _kinds(annotation: Any) -> set[Any]:
    """Types among which a value may choose."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation}


@cache
def is_whole(key: str) -> bool:
    """Tell whether the configuration asks for a whole number under this key, if for a number."""
    kinds = _kinds(_annotation(key))
    return int in kinds and float not in kinds


@cache
def _is_number(key: str) -> bool:
    return _kinds(_annotation(key)) <= {int, float, type(None)} or key.startswith(f"{_BY_NAME}.")


def is_known(key: str) -> bool:
    """Tell whether a configuration has this flat key."""
    if key.startswith(f"{_BY_NAME}."):
        return True
    annotation = _annotation(key)
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation is not None and not is_section


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Copy keys and values, some of them changed: names are sections and keys joined by dots."""
    content = deepcopy(dict(base))
    for key, value in changes.items():
        _set(content, key.split("."), value)
    return content


def _set(content: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        section = content.setdefault(part, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{part}: should hold keys and values, got {section!r}")
        content = section
    content[path[-1]] = value


def flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Keys and values of a configuration, as columns of a table name them.

    Parameters
    ----------
    content : mapping
        As a YAML file holds it.

    Returns
    -------
    dict
        `input.statistics` as ``input.events``, in one list with steps first; keys that say where
        files are, but change no prediction from hyperparameters, are left out.

    Raises
    ------
    ConfigError
        If a key is unknown, a section holds no keys, or a null stands where it may not.
    """
    found = dict(_flattened("", content))
    for key in ("data_root", "spikes"):
        found.pop(key, None)
    statistics = found.pop("input.statistics", None)
    if statistics is not None:
        if found.get("dataset") is not None:
            rule = "must be absent beside dataset, where many are predicted at once"
            raise ConfigError(f"input.statistics: {rule}; got both")
        found["input.events"] = _one_list(statistics)
    return found


def _flattened(prefix: str, content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    pairs = []
    for name, value in content.items():
        key = f"{prefix}{name}"
        if is_known(key) and key != _BY_NAME:
            if value is None and type(None) not in _kinds(_annotation(key)):
                raise ConfigError(f"{key}: must not be null")
            pairs.append((key, value))
        elif isinstance(value, Mapping) and (key == _BY_NAME or _annotation(key) is not None):
            pairs += _flattened(f"{key}.", value)
        elif _annotation(key) is not None:
            raise ConfigError(f"{key}: should hold keys and values, got {value!r}")
        else:
            raise ConfigError(f"unknown key {key!r}; allowed here: {', '.join(_beside(key))}")
    return pairs


def _beside(key: str) -> list[str]:
    """Keys of the section that a key would be in."""
    section, _, _ = key.rpartition(".")
    annotation = _annotation(section) if section else Config
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return list(annotation.model_fields) if is_section else []


def _one_list(statistics: Any) -> Any:
    try:
        return [float(each) for step in statistics for each in step]
    except (TypeError, ValueError) as error:
        rule = "should be lists of numbers, one for each time step"
        raise ConfigError(f"input.statistics: {rule}; got {statistics!r:.80}") from error


def cells(key: str, values: Sequence[Any]) -> NDArray[Any]:
    """Cells of a column for some values of its key: numbers as such, all else as objects.

    `ABSENT` becomes an empty cell, and so does a null, but for those left to `settle_nulls`.
    """
    if _is_number(key):
        null = _NULL if key in _NOT_NULL_BY_DEFAULT else np.nan
        numbers = [_number(value, null) for value in values]
        if all(type(number) in (int, float) for number in numbers):
            whole = all(type(number) is int for number in numbers)
            return np.array(numbers, dtype=np.int64 if whole else np.float64)
        plain = numbers
    else:
        plain = [None if value is ABSENT else value for value in values]
        if all(isinstance(value, bool) for value in plain):
            return np.array(plain)
    column = np.empty(len(plain), dtype=object)
    column[:] = plain
    return column


def _number(value: Any, null: float) -> Any:
    """Read a number, also from text as YAML 1.1 has it; what is none stays as it is."""
    if value is None:
        return null
    if value is ABSENT:
        return np.nan
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value.item() if isinstance(value, np.generic) else value


def settle_nulls(columns: Mapping[str, NDArray[Any]]) -> None:
    """Empty the marked nulls where something else stands for the key; a `Config` refuses others."""
    beta, slope = (columns.get(key) for key in _NOT_NULL_BY_DEFAULT)
    if beta is not None and beta.dtype.kind == "f":
        stands_in = _given(columns, "neuron.R") | _given(columns, "neuron.C")
        beta[np.isinf(beta) & stands_in] = np.nan
    if slope is not None and slope.dtype.kind == "f":
        name = columns.get("surrogate.name", np.full(len(slope), None, dtype=object))
        stands_in = _given(columns, "surrogate.width") & (name != "spike_rate_escape")
        slope[np.isinf(slope) & ((name == "straight_through") | stands_in)] = np.nan


def _given(columns: Mapping[str, NDArray[Any]], key: str) -> NDArray[np.bool_]:
    """Tell where a number is given."""
    if key not in columns:
        return np.zeros(1, dtype=bool)
    return np.asarray(columns[key] == columns[key], dtype=bool)  # NaN is not
