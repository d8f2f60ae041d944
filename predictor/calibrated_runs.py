"""The runs that a predictor was calibrated on, read without trusting them.

Parquet packs well: a small file of a stranger may stand for a table that fills the memory. So it is
held against limits before it is unpacked, and text that repeats is unpacked last.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ..errors import PredictorError, in_one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_runs"]

_MOST_RUNS = 200_000
_MOST_NUMBERS = 50_000_000
_LONGEST_TEXT = 1000


def read_runs(content: bytes) -> pd.DataFrame:
    """Read the table of a predictor.

    Parameters
    ----------
    content : bytes
        Parquet.

    Returns
    -------
    DataFrame
        One row per run.

    Raises
    ------
    PredictorError
        If it is no table of text, numbers and lists of numbers, or too large a one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(io.BytesIO(content))
        _check_kinds(schema)
        texts = [field.name for field in schema if _is_text(field.type)]
        file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
        _check_size(file.metadata)
        packed = file.read()
        for name in texts:
            _check_text(packed[name])
        runs: pd.DataFrame = packed.cast(schema).to_pandas(ignore_metadata=True)
        return runs
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        reason = in_one_line(error)
        raise PredictorError(f"cannot read the runs of the predictor: {reason}") from error


def _check_kinds(schema: Any) -> None:
    from pyarrow import types

    for field in schema:
        kind = field.type
        while types.is_list(kind) or types.is_large_list(kind):
            kind = kind.value_type
        number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        if not (number or types.is_null(kind) or _is_text(field.type)):
            raise ValueError(f"{field.name!r} must hold text or numbers, got {kind}")


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _check_size(metadata: Any) -> None:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    numbers = sum(
        group.column(column).num_values for group in groups for column in range(group.num_columns)
    )
    if not (metadata.num_rows <= _MOST_RUNS and numbers <= _MOST_NUMBERS):
        rule = f"there must be at most {_MOST_RUNS} runs of {_MOST_NUMBERS} numbers"
        raise ValueError(f"{rule}, got {metadata.num_rows} of {numbers}")


def _check_text(column: Any) -> None:
    """Hold the longest text of a column, which may stand in every row, against its limit."""
    for chunk in column.chunks:
        for text in chunk.dictionary:
            if len(text.as_buffer() or b"") > _LONGEST_TEXT:
                raise ValueError(f"text must have at most {_LONGEST_TEXT} bytes")
