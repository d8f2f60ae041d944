"""Knobs: keys of a configuration that change together, so that every mix of two is a configuration.

Attributions replace the knobs of one configuration by those of another, a few at a time. A key that
makes sense only beside another one (a slope and its surrogate, cores and their network) is in one
knob with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._checks import check_neuron
from ..config import Config, InputConfig, NeuronConfig
from ..errors import ConfigError
from .features import FLAT_KEYS, KNOB_PREFIX, config_from_row, plain_cell, row_from_config

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOT_READ", "Knob", "associations", "cells_of", "display_values", "frame_of", "knobs_of"]

NOT_READ = (
    "training.seed",
    "training.patience",
    "training.precision",
    "hardware.clock_mhz",
    "hardware.membrane_bits",
)
"""Keys that no prediction of cycles depends on, and so are no knobs of it."""

_EVENTS = "input.statistics"
_STEPS = "input.time_steps"
_SURROGATE = ("surrogate.name", "surrogate.slope", "surrogate.width")
_NEURON = ("neuron.model", "neuron.match", "neuron.R", "neuron.C")
_NETWORK = ("network", "hardware.neural_cores", "training.population")
_DATASET = (
    "dataset",
    *(key for key in FLAT_KEYS if key.startswith("input.") and key != _STEPS),
    _EVENTS,
)
_PLAIN = ("dataset", "network", "hardware.neural_cores", *_SURROGATE[:2], *_NEURON[:2])
"""Keys whose values need no label beside those of others."""

_ASSOCIATED = 0.3
"""Strength from which two knobs are said to be correlated."""

_NOISE = 3.0
"""The same, in units of what independent values scatter by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """Keys that change together.

    Attributes
    ----------
    name : str
        The key itself if there is one (``neuron.beta``), else what they are of: ``dataset``,
        ``input``, ``network``, ``hardware``, ``neuron`` or ``surrogate``.
    keys : tuple of str
        Flat keys.
    """

    name: str
    keys: tuple[str, ...]


def frame_of(configs: Sequence[Config]) -> pd.DataFrame:
    """Give configurations by flat key, all that a prediction from hyperparameters reads.

    Returns
    -------
    DataFrame, shape (configurations, keys)
        As `config_from_row` reads it back.
    """
    import pandas as pd

    rows = []
    for config in configs:
        row = row_from_config(config)
        if config.input.statistics is not None:
            row[_EVENTS] = [list(step) for step in config.input.statistics]
        row |= {f"{KNOB_PREFIX}{name}": value for name, value in config.hardware.knobs.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def knobs_of(frame: pd.DataFrame) -> tuple[Knob, ...]:
    """Find the knobs that differ among configurations.

    Parameters
    ----------
    frame : DataFrame
        Valid configurations by flat key, as `frame_of` gives them.

    Returns
    -------
    tuple of Knob
        In the order of the keys. A configuration that takes each knob from any of these is valid.

    Notes
    -----
    Always together are a surrogate with its slope and width; a neuron model with R, C and match;
    a network with its cores and population; a data set with its camera, coding and frame. Some
    more are where they must be: beta or reset with the neuron model where another model refuses
    them, time steps with statistics that are given for each step, all hardware with the network
    where backends differ, and data sets with networks where some do not fit each other.
    """
    cells = cells_of(frame)
    codes = _codes(cells)
    varied = [key for key in cells if key not in NOT_READ and len(set(codes[key])) > 1]
    steps = (_STEPS,) if any(cell is not None for cell in cells.get(_EVENTS, ())) else ()
    bundles = [
        (*_DATASET, *steps),
        (*_NETWORK, *_hardware_of_networks(cells, codes)),
        (*_NEURON, *_of_neuron_models(cells, codes)),
        _SURROGATE,
    ]
    if _refuse_each_other(cells, codes):
        bundles[:2] = [(*bundles[0], *bundles[1])]
    together = {key: bundle for bundle in bundles for key in bundle}
    found: dict[tuple[str, ...], list[str]] = {}
    for key in sorted(varied, key=_place):
        found.setdefault(together.get(key, (key,)), []).append(key)
    return tuple(Knob(name=_name(keys), keys=tuple(keys)) for keys in found.values())


def cells_of(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Plain values of every column; None for an empty cell."""
    return {str(key): [plain_cell(cell) for cell in frame[key]] for key in frame.columns}


def display_values(frame: pd.DataFrame, knobs: Sequence[Knob]) -> pd.DataFrame:
    """Say each knob of each configuration in one cell: a number, or a short text.

    Returns
    -------
    DataFrame, shape (configurations, knobs)
        A column for each knob by name: numbers where all values are numbers of one key; otherwise
        text, such as ``"atan 2"`` or ``"true"``.
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    for knob in knobs:
        cells = {key: [plain_cell(cell) for cell in frame[key]] for key in knob.keys}
        rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
        (alone, *more) = cells.values()
        if not more and all(map(_is_number, alone)):
            columns[knob.name] = np.array(alone, dtype=np.float64)
        else:
            texts = [_text(row) for row in rows]
            columns[knob.name] = pd.Series(texts, index=frame.index, dtype=object)
    return pd.DataFrame(columns, index=frame.index)


def associations(frame: pd.DataFrame, knobs: Sequence[Knob]) -> pd.DataFrame:
    """Find the pairs of knobs whose values are associated.

    Parameters
    ----------
    frame : DataFrame
        Configurations by flat key.
    knobs : sequence of Knob

    Returns
    -------
    DataFrame
        Columns ``first``, ``second`` and ``strength``, the strongest first, from 0.3 on, and of n
        configurations from ``3 / sqrt(n)`` on.

    Notes
    -----
    Strength is the absolute rank correlation of two numbers, the correlation ratio (of ranks) of a
    number and a name, and Cramer's V of two names. All are 0 to 1, and corrected for what
    independent values would show in so few configurations.

    References
    ----------
    .. [1] Bergsma, "A bias-correction for Cramer's V and Tschuprow's T", J. Korean Stat. Soc. 2013.
    .. [2] Kelley, "An unbiased correlation ratio measure", PNAS 1935.
    """
    import pandas as pd

    shown = display_values(frame, knobs)
    least, found = max(_ASSOCIATED, _NOISE / math.sqrt(len(frame))), []
    for number, first in enumerate(knobs):
        for second in knobs[number + 1 :]:
            strength = _association(shown[first.name], shown[second.name])
            if strength >= least:
                found.append((first.name, second.name, strength))
    found.sort(key=lambda pair: -pair[2])
    return pd.DataFrame(found, columns=["first", "second", "strength"])


def _place(key: str) -> int:
    order = (*FLAT_KEYS, _EVENTS)
    return order.index(key) if key in order else len(order)


def _name(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else keys[0].partition(".")[0]


def _codes(cells: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Text that is equal for cells that say the same."""
    return {key: [repr(cell) for cell in column] for key, column in cells.items()}


def _distinct(
    cells: Mapping[str, Sequence[Any]], codes: Mapping[str, Sequence[str]], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Values of some keys that occur together, each once; a key that is no column has none."""
    known = [key for key in keys if key in cells]
    joint = zip(*(codes[key] for key in known), strict=True)
    first = {text: row for row, text in reversed(list(enumerate(joint)))}
    return [{key: cells[key][row] for key in known} for row in sorted(first.values())]


def _hardware_of_networks(
    cells: Mapping[str, Sequence[Any]], codes: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Keys of hardware that must go with the network: all, where they are of several machines."""
    keys = tuple(key for key in cells if key.startswith("hardware.") and key not in _NETWORK)
    knobs = [key for key in keys if key.startswith(KNOB_PREFIX)]
    partly = any(cell is None for key in knobs for cell in cells[key])
    return keys if partly or len(set(codes["hardware.backend"])) > 1 else ()


def _of_neuron_models(
    cells: Mapping[str, Sequence[Any]], codes: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Keys that must go with the neuron model, because not every model takes every value."""
    free = ("neuron.beta", "neuron.reset")
    for joined in ((), free[:1], free[1:], free):
        models = _distinct(cells, codes, (*_NEURON, *joined))
        others = [_distinct(cells, codes, [key]) for key in free if key not in joined]
        if all(map(_is_neuron, product(models, *map(_extremes, others)))):
            return joined
    raise AssertionError("a neuron of the frame is refused")


def _extremes(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with the smallest and the largest number; all, if they are not numbers."""
    ((key, *_), *_) = values
    if not all(_is_number(value[key]) for value in values):
        return values
    ordered = sorted(values, key=lambda value: value[key])
    return [ordered[0], ordered[-1]]


def _is_neuron(parts: Sequence[Mapping[str, Any]]) -> bool:
    content = {
        key.partition(".")[2]: cell
        for part in parts
        for key, cell in part.items()
        if cell is not None
    }
    try:
        check_neuron(NeuronConfig.model_validate(content))
    except (ConfigError, ValueError):
        return False
    return True


def _refuse_each_other(
    cells: Mapping[str, Sequence[Any]], codes: Mapping[str, Sequence[str]]
) -> bool:
    """Tell whether a data set or frame does not suit the network of another configuration."""
    frames = ("dataset", "input.height", "input.width", "input.channels")
    datasets = _distinct(cells, codes, (*_DATASET, _STEPS))
    datasets = list({repr([cell.get(key) for key in frames]): cell for cell in datasets}.values())
    networks = _distinct(cells, codes, ("hardware.backend", *_NETWORK))
    sizes = ("network", "training.population")
    networks = list({repr([cell[key] for key in sizes]): cell for cell in networks}.values())
    if len(datasets) == 1 or len(networks) == 1:
        return False
    for dataset, network in product(datasets, networks):
        try:
            config_from_row({**dataset, **network})
        except ConfigError:
            return True
    return False


def _text(row: Mapping[str, Any]) -> str:
    """Values of the keys of one knob: those that are given, and not what they are by default."""
    said = []
    for key, cell in row.items():
        short = key.rpartition(".")[2]
        unset = cell is None or (key == "neuron.match" and cell == "none" and len(row) > 1)
        if unset or key in (_EVENTS, "input.width"):
            continue
        if key == "input.height":
            width = row.get("input.width")
            said.append(f"height {cell}" if width is None else f"{cell}x{width}")
        elif key in _PLAIN or len(row) == 1:
            said.append(_cell_text(cell))
        elif not (key.startswith("input.") and cell == InputConfig.model_fields[short].default):
            said.append(f"{short} {_cell_text(cell)}")
    if "input.height" not in row and row.get("input.width") is not None:
        said.append(f"width {row['input.width']}")
    if not said:
        return "own statistics" if row.get(_EVENTS) is not None else "default"
    return " ".join(said)


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell_text(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, list):
        return f"[{' '.join(map(str, cell))}]"
    return str(cell)


def _association(first: pd.Series[Any], second: pd.Series[Any]) -> float:
    """Strength of the association of two columns, corrected for their size."""
    if first.nunique() < 2 or second.nunique() < 2:
        return 0.0
    numbers = [column.dtype != object for column in (first, second)]
    if all(numbers):
        return _rank_correlation(first, second)
    if any(numbers):
        number, name = (first, second) if numbers[0] else (second, first)
        return _correlation_ratio(number, name)
    return _cramers_v(first, second)


def _rank_correlation(first: pd.Series[Any], second: pd.Series[Any]) -> float:
    size = len(first)
    share = float(np.corrcoef(first.rank(), second.rank())[0, 1]) ** 2
    return _root(1 - (1 - share) * (size - 1) / (size - 2)) if size > 2 else 0.0


def _correlation_ratio(number: pd.Series[Any], name: pd.Series[Any]) -> float:
    """Share of the variance of a number's ranks between names, less that of chance."""
    ranks = number.rank()
    size, names = len(ranks), name.nunique()
    if size <= names:
        return 0.0
    within = float(((ranks - ranks.groupby(name).transform("mean")) ** 2).sum())
    total = float(((ranks - ranks.mean()) ** 2).sum())
    return _root(1 - within / total * (size - 1) / (size - names))


def _cramers_v(first: pd.Series[Any], second: pd.Series[Any]) -> float:
    import pandas as pd

    counts: NDArray[np.float64] = pd.crosstab(first, second).to_numpy(dtype=np.float64)
    size, (rows, columns) = counts.sum(), counts.shape
    if size < 2:
        return 0.0
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / size
    square = float(((counts - expected) ** 2 / expected).sum()) / size
    square = max(0.0, square - (rows - 1) * (columns - 1) / (size - 1))
    sides = [side - (side - 1) ** 2 / (size - 1) for side in (rows, columns)]
    most = min(sides) - 1
    return min(1.0, _root(square / most)) if most > 1e-9 else 0.0


def _root(share: float) -> float:
    return math.sqrt(max(share, 0.0))
