"""The table of a user's own measurements: one latency in each row, checked before it is believed.

Columns are ``config`` (a YAML file or JSON text), ``spikes`` (an ``.npz`` file), ``latency``,
``unit`` (cycles, us or ms) and any number of ``hw_NAME``, which become `hardware.knobs`. Paths are
relative to the table. A refusal names row and column; rows are counted from 1, without the header.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config, measured_config, read_yaml
from ..errors import InputError
from ..predictor.spikes import KnownSpikes, read_spikes
from ..predictor.workload import Workload, joined, workload

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CONTRADICTION", "Measurements", "read_measurements"]

CONTRADICTION = 1.1
"""Latencies of one configuration, spikes and knobs may differ by this factor, as noise."""

_NEEDED = ("config", "spikes", "latency", "unit")
_KNOB = "hw_"
_MICROSECONDS = {"us": 1.0, "ms": 1000.0}
_UNITS = ("cycles", *_MICROSECONDS)
_LARGEST_LATENCY = 1e15

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurements:
    """A table that was read and found sound.

    Attributes
    ----------
    configs : tuple of Config
        Configuration of every row.
    spikes : tuple of KnownSpikes
        Spikes of every row; with several samples the latency is their mean.
    cycles : ndarray of float, shape (rows,)
        Measured latency.
    unit : str
        What the table gives it in.
    knobs : tuple of str
        Names of the further numbers, sorted.
    """

    configs: tuple[Config, ...]
    spikes: tuple[KnownSpikes, ...]
    cycles: _Floats
    unit: str
    knobs: tuple[str, ...]

    @property
    def networks(self) -> NDArray[np.int64]:
        """Number of each row's network and input size, shape (rows,)."""
        return _numbered([_network(config) for config in self.configs])

    @property
    def machines(self) -> NDArray[np.int64]:
        """Number of each row's network and input size on its hardware, shape (rows,)."""
        return _numbered([f"{_network(each)} {each.hardware!r}" for each in self.configs])

    @property
    def owner(self) -> NDArray[np.int64]:
        """Row of each sample of `work`, shape (samples,)."""
        return np.repeat(np.arange(len(self.spikes)), [known.samples for known in self.spikes])

    def work(self) -> Workload:
        """Lay out the spikes of all rows."""
        return joined(
            [
                workload(config, known.counts, known.taps, self.knobs)
                for config, known in zip(self.configs, self.spikes, strict=True)
            ]
        )


def read_measurements(path: str | Path, *, backend: str = "measured") -> Measurements:
    """Read a table of measurements.

    Parameters
    ----------
    path : str or Path
        A CSV or Parquet file.
    backend : str, optional
        What `hardware.backend` of every configuration becomes.

    Returns
    -------
    Measurements

    Raises
    ------
    InputError
        If the file cannot be read or a row is not sound; names row and column.
    """
    path = Path(path)
    rows = _rows(path)
    unit = _common_unit(rows)
    names = [column for column in rows[0] if column.startswith(_KNOB)]
    configs, spikes, latencies = [], [], []
    for number, row in enumerate(rows, 1):
        knobs = {name.removeprefix(_KNOB): _number(row[name], number, name) for name in names}
        config = _config(row, number, path.parent, knobs, backend)
        configs.append(config)
        spikes.append(_spikes(path.parent / str(config.spikes), config, number))
        latencies.append(_latency(row["latency"], number))
    known_knobs = _common_knobs(configs)
    clocks = np.array([config.hardware.clock_mhz for config in configs])
    scale = clocks * _MICROSECONDS[unit] if unit in _MICROSECONDS else 1.0
    found = Measurements(
        configs=tuple(configs),
        spikes=tuple(spikes),
        cycles=np.array(latencies) * scale,
        unit=unit,
        knobs=known_knobs,
    )
    _refuse_contradictions(found)
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    import pandas as pd

    if not path.is_file():
        raise InputError(f"cannot read the measurements {str(path)!r}: there is no such file")
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1" or path.suffix == ".parquet"
        if is_parquet:
            frame: pd.DataFrame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except Exception as error:  # damaged files fail in more ways than can be listed
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot read the measurements {str(path)!r}: {reason}") from error
    frame.columns = [str(column).strip() for column in frame.columns]
    for column in _NEEDED:
        if column not in frame.columns:
            listed = ", ".join(frame.columns) or "none"
            raise InputError(f"measurements: must have a column {column!r}; got {listed}")
    if not frame.columns.is_unique or _KNOB in frame.columns:
        rule = "columns must have names of their own"
        raise InputError(f"measurements: {rule}, got {_repeated(frame)}")
    if frame.empty:
        raise InputError("measurements: must hold rows, got none")
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)]


def _repeated(frame: pd.DataFrame) -> str:
    repeated = list(frame.columns[frame.columns.duplicated()])
    return f"{repeated[0]!r} twice" if repeated else repr(_KNOB)


def _common_unit(rows: Sequence[Mapping[str, Any]]) -> str:
    first = _text(rows[0]["unit"], 1, "unit")
    for number, row in enumerate(rows, 1):
        unit = _text(row["unit"], number, "unit")
        if unit not in _UNITS:
            raise InputError(f"row {number}, unit: must be cycles, us or ms; got {unit!r}")
        if unit != first:
            rule = f"must be {first!r} as in row 1, units are not mixed"
            raise InputError(f"row {number}, unit: {rule}; got {unit!r}")
    return first


def _config(
    row: Mapping[str, Any], number: int, folder: Path, knobs: Mapping[str, float], backend: str
) -> Config:
    """Read the configuration of a row, with its spikes and knobs."""
    text = _text(row["config"], number, "config")
    spikes = _text(row["spikes"], number, "spikes")
    try:
        if text.startswith("{"):
            content = _json_object(text)
        else:
            path = folder / text
            content = read_yaml(path / "config.yaml" if path.is_dir() else path, "configuration")
        # Without the columns first: they would hide what the configuration says of a knob
        stated = measured_config(content, spikes=spikes, backend=backend).hardware.knobs
        config = measured_config(content, spikes=spikes, backend=backend, knobs=knobs)
    except InputError as error:
        raise InputError(f"row {number}, config: {error}") from error
    for name, value in knobs.items():
        if stated.get(name, value) != value:
            rule = f"must be the {stated[name]:g} of its configuration's hardware.knobs.{name}"
            raise InputError(f"row {number}, {_KNOB}{name}: {rule}, got {value:g}")
    return config


def _spikes(path: Path, config: Config, number: int) -> KnownSpikes:
    try:
        return read_spikes(path, config)
    except InputError as error:
        ragged = _ragged_array(path)
        reason = f"{ragged}: must be an array of numbers, its rows have several lengths"
        raise InputError(f"row {number}, spikes: {reason if ragged else error}") from error


def _ragged_array(path: Path) -> str | None:
    """Name an array that holds objects, as numpy writes rows of several lengths."""
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                try:
                    file[name]
                except ValueError as error:
                    if "Object arrays" in str(error):
                        return str(name)
    except Exception:  # whatever else is wrong has its own sentence
        return None
    return None


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not valid JSON: {' '.join(str(error).split())}") from error
    assert isinstance(content, Mapping)  # it begins with a brace
    return content


def _text(value: Any, number: int, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"row {number}, {column}: must be text, got {_shown(value)}")
    return value.strip()


def _number(value: Any, number: int, column: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise InputError(f"row {number}, {column}: must be a finite number, got {_shown(value)}")
    return found


def _latency(value: Any, number: int) -> float:
    latency = _number(value, number, "latency")
    if not 0 < latency < _LARGEST_LATENCY:
        rule = f"must be positive and below {_LARGEST_LATENCY:g}"
        raise InputError(f"row {number}, latency: {rule}, got {latency:g}")
    return latency


def _shown(value: Any) -> str:
    return "nothing" if value is None or value == "" else repr(value)


def _common_knobs(configs: Iterable[Config]) -> tuple[str, ...]:
    knobs: tuple[str, ...] | None = None
    for number, config in enumerate(configs, 1):
        names = tuple(sorted(config.hardware.knobs))
        if knobs is not None and names != knobs:
            rule = f"hardware.knobs must be those of row 1 ({', '.join(knobs) or 'none'})"
            got = ", ".join(names) or "none"
            raise InputError(f"row {number}, config: {rule}; got {got}")
        knobs = names
    return knobs or ()


def _numbered(keys: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _network(config: Config) -> str:
    """Text that is equal for rows of one network and input size."""
    return f"{config.input.time_steps} {config.layers!r}"


def _refuse_contradictions(found: Measurements) -> None:
    """Refuse rows that say different things of the same inference."""
    keys = [
        _inference(config, known, clocked=found.unit in _MICROSECONDS)
        for config, known in zip(found.configs, found.spikes, strict=True)
    ]
    fastest: dict[bytes, int] = {}
    slowest: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        fastest[key] = min(fastest.get(key, row), row, key=lambda each: found.cycles[each])
        slowest[key] = max(slowest.get(key, row), row, key=lambda each: found.cycles[each])
        low, high = found.cycles[fastest[key]], found.cycles[slowest[key]]
        if high > CONTRADICTION * low:
            other = fastest[key] if row == slowest[key] else slowest[key]
            raise InputError(
                f"row {row + 1}, latency: must be within {100 * (CONTRADICTION - 1):.0f} % of "
                f"row {other + 1}, which has the same network, hardware and spikes; got "
                f"{found.cycles[row]:.6g} and {found.cycles[other]:.6g} cycles"
            )


def _inference(config: Config, known: KnownSpikes, *, clocked: bool) -> bytes:
    """Digest all that a latency may depend on; a clock matters where time was measured."""
    hardware = config.hardware
    sizes = (_network(config), config.neural_cores, hardware.encoder_width, hardware.schedule)
    knobs = sorted(hardware.knobs.items())
    digest = hashlib.sha256(repr((sizes, knobs, hardware.clock_mhz if clocked else None)).encode())
    arrays = (*known.counts, *(known.taps or ())) if known.inputs is None else known.inputs
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
