"""The calibration table: one row per run, in Parquet, with one schema for every row.

Columns are the flat keys of the configuration (``neuron.beta``; ``hardware.neural_cores`` with
``auto`` resolved) and what was measured. Lists hold one number per weighted layer;
``input.events`` is flat, time steps first. A run that failed has its reason and no measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ..config import Config
from ..errors import InputError
from ..files import write_whole
from ..predictor.features import FLAT_KEYS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCHEMA", "TABLE_NAME", "USABLE", "read_rows", "read_table", "table_of", "write_table"]

TABLE_NAME = "table.parquet"

USABLE = ("ok", "silent")
"""Statuses of runs that were measured; the others have a reason instead."""

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
    "layers.cycles": _NUMBERS,
    "input.events": _NUMBERS,
    "samples": pa.int64(),
    "cycles.mean": pa.float64(),
    "cycles.sd": pa.float64(),
    "cycles.min": pa.float64(),
    "cycles.max": pa.float64(),
    "initiation_interval_cycles": pa.float64(),
    "spikes_match": pa.bool_(),
    "seconds.train": pa.float64(),
    "seconds.simulate": pa.float64(),
    "version.data": pa.int64(),
    "version.train": pa.int64(),
    "version.quantise": pa.int64(),
    "version.rtl": pa.int64(),
}

_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _flat_type(key: str) -> pa.DataType:
    """Type of a flat key's column; what may also be ``auto`` is text."""
    if key == "hardware.neural_cores":
        return pa.list_(pa.int64())
    section, _, inner = key.rpartition(".")
    model: Any = Config.model_fields[section].annotation if section else Config
    assert issubclass(model, BaseModel)
    annotation = _given(model.model_fields[inner].annotation)
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
    ]
)
"""Columns of the table, in order."""


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows in the columns of `SCHEMA`; keys that a row lacks become null."""
    return pa.Table.from_pylist([_typed(row) for row in rows], schema=SCHEMA)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet, whole or not at all; `InputError` if that cannot be."""
    write_whole(path, lambda file: pq.write_table(table, file))


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
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise InputError(f"the table {str(path)!r} must have a column {missing[0]!r}, got none")
    return table.select(SCHEMA.names).cast(SCHEMA)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a calibration table.

    Parameters
    ----------
    path : str or Path
        ``table.parquet``, or the folder of a campaign.

    Returns
    -------
    DataFrame
        One row per run, columns as in `SCHEMA`.

    Raises
    ------
    InputError
        If the file cannot be read or is no calibration table of this version.
    """
    path = Path(path)
    frame: pd.DataFrame = read_rows(path / TABLE_NAME if path.is_dir() else path).to_pandas()
    return frame


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Row with text where a column also takes ``auto``."""
    return {
        key: str(value) if value is not None and SCHEMA.field(key).type == pa.string() else value
        for key, value in row.items()
    }
