"""Many configurations as the columns of a table, without a `Config` for every row.

A `Config` is validated in full where rows differ in kind: in a name, in a shape, or in which keys
are given. Where they differ in a number alone, the limits of its key are an interval, so that the
rows with the smallest and the largest one speak for those between. Nothing is let through that a
`Config` would refuse, and the first that is refused is found.

That rests on what rules join: keys of neuron, surrogate and training; or keys of data set, input,
network and population, and hardware with all of these. One that joined a neuron and its hardware,
say, would have to be told here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._checks import check_hardware
from ..config import Config
from ..errors import ConfigError, InputError
from .features import FLAT_KEYS, KNOB_PREFIX, config_from_row, plain_cell

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NUMBERS", "Asked", "Columns", "first_of", "joint_codes", "read_columns"]

NUMBERS = (
    "neuron.beta",
    "neuron.R",
    "neuron.C",
    "neuron.threshold",
    "surrogate.slope",
    "surrogate.width",
    "training.epochs",
    "training.lr",
    "training.batch_size",
    "training.weight_bits",
    "training.dropout",
    "training.seed",
    "training.patience",
    "hardware.clock_mhz",
    "hardware.encoder_width",
)
"""Keys that allow every value between two that they allow, if it is whole where it must be.

Beside its own limits only rules for the same kind of neuron, or for the same network on the same
kind of hardware, have a say in a value.
"""

_CORES = "hardware.neural_cores"
_WIDTH = "hardware.encoder_width"
_EVENTS = "input.events"
_STATISTICS = "input.statistics"
_POPULATION = "training.population"
"""Of the choices for training the one that must fit the network."""

_CHOICES = ("neuron.", "surrogate.", "training.")
_HARDWARE = "hardware."
_MOST_LAYERS = 64
"""Lists of cores that are longer are validated one by one; no engine has so many layers."""

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The keys of configurations in a table.

    Attributes
    ----------
    cells : dict of str to ndarray, shape (rows,)
        What the table says.
    codes : dict of str to ndarray of int, shape (rows,)
        Equal for cells that say the same; of numbers, for those that are there.
    numbers : dict of str to ndarray of float, shape (rows,)
        Those of `NUMBERS`; NaN where there is none.
    cores : ndarray of float, shape (rows, layers)
        Neural cores of each layer; NaN behind the last one, and where they are automatic.
    odd : ndarray of int
        Rows, one of each sort, where something else stands for a number: text, say.
    """

    cells: dict[str, NDArray[Any]]
    codes: dict[str, _Indices]
    numbers: dict[str, _Floats]
    cores: _Floats
    odd: _Indices

    def __len__(self) -> int:
        return len(self.cores)

    def row(self, index: int) -> dict[str, Any]:
        """Give one row, as `config_from_row` reads it."""
        return {key: cells[index] for key, cells in self.cells.items()}

    def joint(self, keys: Iterable[str]) -> _Indices:
        """Code the rows by several keys together."""
        return joint_codes((self.codes[key] for key in keys), len(self))


def read_columns(rows: pd.DataFrame) -> Columns:
    """Read the columns of a table that are keys of a configuration."""
    cells = {
        str(name): _cells(rows[name])
        for name in rows.columns
        if str(name) in (*FLAT_KEYS, _EVENTS, _STATISTICS) or str(name).startswith(KNOB_PREFIX)
    }
    if _EVENTS in cells and "dataset" in cells:  # they stand in where no data set is named
        events = cells[_EVENTS] = cells[_EVENTS].astype(object)
        events[[plain_cell(cell) is not None for cell in cells["dataset"]]] = None
    numbers, codes = {}, {}
    cores, odd = np.full((len(rows), 0), np.nan), set[int]()
    for key, column in cells.items():
        if key in NUMBERS:
            numbers[key], found = _read_numbers(column)
            codes[key] = np.isnan(numbers[key]).astype(np.int64)
            odd |= found
        elif key == _CORES:
            cores, codes[key], found = _read_cores(column)
            odd |= found
        else:
            codes[key] = _codes(column)
    return Columns(
        cells=cells,
        codes=codes,
        numbers=numbers,
        cores=cores,
        odd=np.array(sorted(odd), dtype=np.int64),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Many configurations: each is a row of one table on the hardware of a row of another.

    Attributes
    ----------
    rows, hardware : Columns
        Keys of the section ``hardware`` count in the latter alone, all others in the former. Both
        may be one table.
    row, machine : ndarray of int, shape (asked,)
        Which rows of them.
    names : sequence
        Of `rows`, for errors.
    """

    rows: Columns
    hardware: Columns
    row: _Indices
    machine: _Indices
    names: Sequence[Hashable] | pd.Index[Any]
    _known: dict[int, Config | str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def network(self) -> _Indices:
        """Code of all that decides what enters which network, of each of `rows`."""
        keys = [key for key in self.rows.codes if not key.startswith((_HARDWARE, *_CHOICES))]
        return self.rows.joint([*keys, *(_POPULATION,) * (_POPULATION in self.rows.codes)])

    @cached_property
    def kind(self) -> _Indices:
        """Code of neuron, surrogate and training but for their numbers, of each of `rows`."""
        keys = [key for key in self.rows.codes if key.startswith(_CHOICES)]
        return self.rows.joint(key for key in keys if key != _POPULATION)

    @cached_property
    def point(self) -> _Indices:
        """Code of everything but the seed and the hardware, of each of `rows`."""
        numbers = (
            _codes(values)
            for key, values in self.rows.numbers.items()
            if key.startswith(_CHOICES) and key != "training.seed"
        )
        return joint_codes(chain((self.network, self.kind), numbers), len(self.rows))

    @cached_property
    def place(self) -> _Indices:
        """Code of the network and the hardware but for its numbers, shape (asked,)."""
        keys = [key for key in self.hardware.codes if key.startswith(_HARDWARE)]
        codes = self.network[self.row], self.hardware.joint(keys)[self.machine]
        return joint_codes(codes, len(self))

    @cached_property
    def networks(self) -> _Indices:
        """Where each code of `network` is asked for first."""
        return first_of(self.network[self.row])

    @cached_property
    def kinds(self) -> _Indices:
        """Where each code of `kind` is asked for first."""
        return first_of(self.kind[self.row])

    @cached_property
    def places(self) -> _Indices:
        """Where each code of `place` is asked for first."""
        return first_of(self.place)

    def number(self, key: str, chosen: _Indices | slice) -> _Floats | None:
        """Give a number of some that are asked; None if the table does not have it."""
        of_hardware = key.startswith(_HARDWARE)
        columns, index = (self.hardware, self.machine) if of_hardware else (self.rows, self.row)
        return columns.numbers[key][index[chosen]] if key in columns.numbers else None

    def config(self, index: int) -> Config:
        """Validate one of them.

        Raises
        ------
        ConfigError
            If it is refused; it says which one.
        """
        if index not in self._known:
            content = self.rows.row(self.row[index])
            if self.hardware is not self.rows:
                content = {key: x for key, x in content.items() if not key.startswith(_HARDWARE)}
                content |= self.hardware.row(self.machine[index])
            try:
                self._known[index] = config_from_row(content)
            except ConfigError as error:
                self._known[index] = f"{self.name(index)}: {error}"
        found = self._known[index]
        if isinstance(found, str):
            raise ConfigError(found)
        return found

    @contextmanager
    def naming(self, index: int) -> Iterator[None]:
        """Let errors say which one they are about."""
        try:
            yield
        except InputError as error:
            raise type(error)(f"{self.name(index)}: {error}") from error

    def name(self, index: int) -> str:
        """Say which one it is."""
        row = f"row {self.names[self.row[index]]}"
        if self.hardware is self.rows:
            return row
        return f"{row}, hardware {self.machine[index]}"

    def validate(self) -> None:
        """Hold all of them against what a `Config` allows.

        Raises
        ------
        ConfigError
            If one is refused; for the first of them.
        """
        if self._refuses(len(self)):
            first = bisect_left(range(1, len(self)), True, key=self._refuses)
            for index in chain([first], self._witnesses(len(self))):
                self.config(index)

    def _refuses(self, count: int) -> bool:
        """Tell whether one of the first so many is refused."""
        try:
            for index in self._witnesses(count):
                self.config(index)
        except ConfigError:
            return True
        return False

    def _witnesses(self, count: int) -> Iterator[int]:
        """Those that speak for the first so many, as long as each one is good."""
        row, machine = self.row[:count], self.machine[:count]
        everything = _Groups(np.zeros(count, dtype=np.int64))
        kinds, places = _Groups(self.kind[row]), _Groups(self.place[:count])
        found = [kinds.first, places.first]
        found += [_first_with(row, self.rows.odd), _first_with(machine, self.hardware.odd)]
        numbers = {key: self.number(key, slice(count)) for key in NUMBERS}
        numbers |= {
            f"{_CORES}.{layer}": x[machine] for layer, x in enumerate(self.hardware.cores.T)
        }
        for key, values in numbers.items():
            if values is not None:
                groups = kinds if key.startswith("neuron.") else everything
                found.append(groups.extremes(values))
        resistance, capacity = numbers["neuron.R"], numbers["neuron.C"]
        if resistance is not None and capacity is not None:
            with np.errstate(all="ignore"):
                found.append(kinds.extremes(resistance * capacity))
        yield from np.unique(np.concatenate(found)).tolist()
        yield from self._tight(places, count)

    def _tight(self, places: _Groups, count: int) -> Iterator[int]:
        """Those that may not fit their network, if all extremes of a place together do not."""
        machine, width = self.machine[:count], self.number(_WIDTH, slice(count))
        columns = [np.full(count, np.nan) if width is None else width]
        columns += [*self.hardware.cores[machine].T]
        bounds = np.array([places.bounds(values) for values in columns])
        for place, index in enumerate(places.first.tolist()):
            config = self.config(index)
            if not all(_fits(config, *corner) for corner in bounds[:, :, place].T.tolist()):
                members = places.members(place)
                alone = _Groups(np.zeros(len(members), dtype=np.int64))
                for values in columns:
                    yield from members[alone.extremes(values[members])].tolist()


def joint_codes(codes: Iterable[_Indices], rows: int) -> _Indices:
    """Code rows by several codes together, from 0 on in the order in which they come."""
    import pandas as pd

    joint = np.zeros(rows, dtype=np.int64)
    for each in codes:
        joint, different = pd.factorize(joint * (int(each.max(initial=0)) + 1) + each)
        if len(different) == rows:  # nothing is left to tell apart
            break
    return joint.astype(np.int64)


def first_of(codes: _Indices) -> _Indices:
    """Where each code comes first; codes count from 0 on."""
    first = np.full(int(codes.max(initial=-1)) + 1, -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first


def _first_with(codes: _Indices, wanted: _Indices) -> _Indices:
    """Where each wanted code comes first, for those that come at all."""
    wanted = wanted[wanted <= codes.max(initial=-1)]
    found = first_of(codes)[wanted]
    return found[found >= 0]


class _Groups:
    """Numbers from 0 on, in groups of one code each; all codes from 0 on must occur."""

    def __init__(self, codes: _Indices) -> None:
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(codes.max(initial=-1) + 1))
        self._sizes = np.diff(self._starts, append=len(codes))
        self.first = self._order[self._starts]

    def members(self, group: int) -> _Indices:
        """Give those of one group."""
        start = self._starts[group]
        return self._order[start : start + self._sizes[group]]

    def bounds(self, values: _Floats) -> tuple[_Floats, _Floats]:
        """Smallest and largest value of each group; NaN is none, and stands for no value."""
        ordered = values[self._order]
        low, high = (each.reduceat(ordered, self._starts) for each in (np.fmin, np.fmax))
        return low, high

    def extremes(self, values: _Floats) -> _Indices:
        """Where each group has these bounds, and where one value is not whole."""
        ordered = values[self._order]
        found = [np.flatnonzero(ordered > np.floor(ordered))[:1]]
        for bound in self.bounds(values):
            there = np.flatnonzero(ordered == np.repeat(bound, self._sizes))
            if len(there):  # a group without values takes the next one's
                following = np.searchsorted(there, self._starts)
                found.append(there[np.minimum(following, len(there) - 1)])
        return self._order[np.concatenate(found)]


def _fits(config: Config, encoder_width: float, *neural_cores: float) -> bool:
    """Tell whether the network of a configuration fits other hardware; NaN stands for its own."""
    cores = tuple(int(each) for each in neural_cores if not math.isnan(each))
    width = config.hardware.encoder_width if math.isnan(encoder_width) else int(encoder_width)
    hardware = config.hardware.model_copy(update={"encoder_width": width})
    update = {"hardware": hardware, "neural_cores": cores or config.neural_cores}
    try:
        check_hardware(config.model_copy(update=update))
    except ConfigError:
        return False
    return True


def _cells(column: pd.Series[Any]) -> NDArray[Any]:
    """Numbers of a plain type, or objects."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    return column.to_numpy(dtype=object)


def _codes(cells: NDArray[Any]) -> _Indices:
    """Code cells, from 0 on; those of one code say the same in the same type."""
    import pandas as pd

    if cells.dtype == object and pd.api.types.infer_dtype(cells, skipna=True) != "string":
        plain = (cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells)
        cells = np.array(list(map(repr, plain)), dtype=object)
    codes, _ = pd.factorize(cells, use_na_sentinel=False)
    return codes.astype(np.int64)


def _read_numbers(cells: NDArray[Any]) -> tuple[_Floats, set[int]]:
    """Numbers of a column, NaN for none; and a row for each thing in it that is no plain number."""
    if cells.dtype.kind in "iuf":
        return cells.astype(np.float64), set()
    codes, odd = _codes(cells), set[int]()
    values = []
    for index in first_of(codes).tolist():
        cell = plain_cell(cells[index])
        values.append(_number(cell))
        if type(cell) not in (int, float, type(None)) or (cell is not None and values[-1] is None):
            odd.add(index)
    return np.array(values, dtype=np.float64)[codes], odd


def _number(cell: Any) -> float | None:
    """Read a number, also from text; None if that cannot be."""
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _read_cores(cells: NDArray[Any]) -> tuple[_Floats, _Indices, set[int]]:
    """Cores of the layers, how many are given as a code, and a row for each other thing."""
    codes, odd = _codes(cells), set[int]()
    lists: list[list[float | None]] = []
    lengths = []
    for index in first_of(codes).tolist():
        cell = plain_cell(cells[index])
        listed = isinstance(cell, Collection) and not isinstance(cell, (str, bytes, Mapping))
        given = list(cell) if listed else []
        plain = bool(given) or cell is None or cell == "auto"
        if not plain or len(given) > _MOST_LAYERS or not all(map(_is_whole, given)):
            odd.add(index)
        lists.append([_number(each) for each in given[:_MOST_LAYERS]])
        # Those that are too long to be read here are each of its own length
        lengths.append(len(given) if len(given) <= _MOST_LAYERS else _MOST_LAYERS + 1 + index)
    cores = np.full((len(lists), max(map(len, lists), default=0)), np.nan)
    for line, numbers in zip(cores, lists, strict=True):
        line[: len(numbers)] = numbers
    return cores[codes], np.array(lengths, dtype=np.int64)[codes], odd


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
