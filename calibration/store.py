"""The store of a campaign: rows in batches, each whole or not there.

    rows/<time>-<id>.json      manifest of a batch: schema version, checksum, number of rows
    rows/<time>-<id>.parquet   its rows, put in place last: without them there is no batch
    damaged/                   batches that are not what was written, set aside

Nothing here is ever changed in place, so any number of campaigns may write into one folder, and
one that is killed leaves nothing half. Rows of one run may be in several batches: the latest of
those that say something about it holds, and a failure only where there is none. A failure that is
later than that stays beside it: a plan that asks for more has no use for what was measured. Small
batches are merged now and then, by one process at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..files import lock_folder, write_whole
from .table import (
    MISMATCH,
    SCHEMA,
    SCHEMA_VERSION,
    USABLE,
    VERSION_COLUMNS,
    fit_schema,
    missing_columns,
    read_rows,
    table_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BATCHES_TO_MERGE",
    "FULL_BATCH_ROWS",
    "Contents",
    "append_rows",
    "export_table",
    "latest_rows",
    "merge_batches",
    "read_columns",
    "read_store",
    "read_table",
    "set_aside",
    "stage_versions",
    "with_stale",
]

BATCHES_TO_MERGE = 64
"""From this many small batches on they are merged."""

FULL_BATCH_ROWS = 16_384
"""A batch of so many rows is left as it is; what merging holds in memory is bounded by it."""

_LEFTOVER_SECONDS = 3600
_RETRIES = 20
_FINDINGS = (*USABLE, MISMATCH)
_BATCH_NAME = re.compile(r"\d{20}-z?[0-9a-f]{8}")
_TEMPORARY = re.compile(r"\.(plan\.yaml|splits\.json|index\.parquet)\.[0-9a-f]{32}.*")


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    rows: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contents:
    """What a store holds.

    Attributes
    ----------
    table : pyarrow.Table
        One row per run, in the order in which runs were first finished: the latest that was
        measured, or whose RTL disagrees; of a run that has none, its latest failure. Where that
        was asked for, a failure later than the former follows it.
    batches : tuple of str
        Names of the batches that were read.
    damaged : dict
        What is wrong with each batch that could not be read; its runs count as not done.
    """

    table: pa.Table
    batches: tuple[str, ...]
    damaged: Mapping[str, str]

    def sentences(self) -> list[str]:
        """Say which batches are damaged, and how."""
        return [f"rows/{name}.parquet is damaged: {why}" for name, why in self.damaged.items()]


def append_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Write rows as a new batch, whole or not at all.

    Returns
    -------
    str or None
        Name of the batch; none without rows.

    Raises
    ------
    InputError
        If it cannot be written; what was there stays as it is.
    """
    if not rows:
        return None
    last = _batch_names(folder / "rows")[-1:]
    after = [int(name.partition("-")[0]) + 1 for name in last]  # also if the clock goes back
    return _write_batch(folder, f"{max(time.time_ns(), *after, 0):020d}", table_of(rows))


def read_store(
    folder: Path,
    columns: Iterable[str] | None = None,
    *,
    skip: Iterable[str] = (),
    failures: bool = False,
) -> Contents:
    """Read all rows.

    Parameters
    ----------
    folder : Path
        Of a campaign.
    columns : iterable of str, optional
        Columns to read beside ``run_id``; all by default.
    skip : iterable of str, optional
        Names of batches to leave out.
    failures : bool, optional
        Keep a failure beside an older row that was measured; see `latest_rows`.

    Returns
    -------
    Contents

    Raises
    ------
    InputError
        If a batch is of another schema version, lacks a column, or cannot be read for want of
        rights.
    """
    names = SCHEMA.names if columns is None else list(dict.fromkeys(["run_id", *columns]))
    left_out = set(skip)
    for _ in range(_RETRIES):
        try:
            contents = _read_batches(folder, names, left_out)
        except FileNotFoundError:
            continue  # merged meanwhile by another process: what it held is elsewhere now
        table = contents.table if failures else latest_rows(contents.table)
        return replace(contents, table=table.select(names))
    raise InputError(f"cannot read {str(folder / 'rows')!r}: its files change all the time")


def latest_rows(table: pa.Table) -> pa.Table:
    """Keep one row of every run, at the place of the first: its last finding, or last failure.

    Parameters
    ----------
    table : pyarrow.Table
        With ``run_id`` and ``status``.
    """
    runs = _runs(table)
    if runs is None:
        return table
    findings, lasts = runs
    return table.take(np.where(findings < 0, lasts, findings))


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Move damaged batches to ``damaged``, so that their runs are done again.

    Raises
    ------
    InputError
        If that cannot be.
    """
    place = folder / "damaged"
    for name in names:
        try:
            place.mkdir(exist_ok=True)
            for suffix in (".parquet", ".json"):
                with contextlib.suppress(FileNotFoundError):  # another campaign was first
                    (folder / "rows" / f"{name}{suffix}").replace(place / f"{name}{suffix}")
        except OSError as error:
            rule = "is damaged and cannot be set aside"
            raise InputError(f"rows/{name}.parquet {rule}: {error.strerror}") from error


def read_columns(path: Path, columns: Iterable[str] | None = None) -> Contents:
    """Read a campaign's folder, or a Parquet file that was exported from one; add ``stale``.

    Parameters
    ----------
    path : Path
    columns : iterable of str, optional
        Columns to read beside ``run_id`` and ``stale``; all by default.

    Raises
    ------
    InputError
        If it cannot be read or is no calibration table of this version.
    """
    wanted = None if columns is None else [*columns, *VERSION_COLUMNS]
    if not path.is_dir():
        table = read_rows(path)
        if wanted is not None:
            table = table.select(list(dict.fromkeys(["run_id", *wanted])))
        return Contents(table=with_stale(table), batches=(), damaged={})
    if not (path / "rows").is_dir():
        raise InputError(f"cannot read the table in {str(path)!r}: it holds no folder rows")
    contents = read_store(path, wanted)
    return replace(contents, table=with_stale(contents.table))


def read_table(path: str | Path, *others: str | Path) -> pd.DataFrame:
    """Read one calibration table, or several as one.

    Parameters
    ----------
    path, *others : str or Path
        Folders of campaigns, or Parquet files that `spikemeter table` exported. Of a run that
        several have the first measured row of this version is taken, else the first row.

    Returns
    -------
    DataFrame
        One row per run, columns as in `SCHEMA`, and ``stale``.

    Raises
    ------
    InputError
        If it cannot be read or is no calibration table of this version.

    Warns
    -----
    UserWarning
        For every batch of rows that is damaged.
    """
    found = [read_columns(Path(each)) for each in (path, *others)]
    for contents in found:
        for sentence in contents.sentences():
            warnings.warn(sentence, stacklevel=2)
    whole = pa.concat_tables([each.table for each in found], promote_options="permissive")
    frame: pd.DataFrame = whole.to_pandas()
    if not others:
        return frame
    worse = frame["stale"].to_numpy(dtype=bool) | ~frame["status"].isin(_FINDINGS).to_numpy()
    best_first = frame.iloc[np.argsort(worse, kind="stable")]
    return best_first.drop_duplicates("run_id").sort_index().reset_index(drop=True)


def merge_batches(folder: Path, *, least: int = BATCHES_TO_MERGE, whole: bool = False) -> None:
    """Turn small batches since the last full one into one, unless another process is at it.

    Parameters
    ----------
    folder : Path
        Of a campaign.
    least : int, optional
        Fewer batches are left as they are.
    whole : bool, optional
        Take all of them. By default an older one stays until those after it have as many rows, so
        that every row is written again only so often as its batch can double.

    Raises
    ------
    InputError
        If the merged batch cannot be written; what was there stays as it is.

    Notes
    -----
    The merged batch takes the time of the latest one that it replaces, so rows that others add
    meanwhile stay the later ones. Killed before the old batches are gone, it leaves rows twice;
    reading tells them from one another, and the next merge removes them. A batch with columns that
    this version does not know, or without some that it needs, stays as it is, with all before it.
    """
    rows = folder / "rows"
    handle = lock_folder(rows)
    if handle is None:
        return
    try:
        _sweep(rows)
        tail = _small_tail(rows)
        if len(tail) < max(least, 2):
            return
        small = list(tail) if whole else _level(tail)
        if len(small) < 2:
            return
        contents = read_store(folder, skip=set(_batch_names(rows)) - set(small), failures=True)
        if contents.damaged:
            return  # the next start says so and does its runs again
        _write_batch(folder, contents.batches[-1].partition("-")[0], contents.table, merged=True)
        for name in contents.batches:
            (rows / f"{name}.parquet").unlink(missing_ok=True)  # first: with it goes the batch
            (rows / f"{name}.json").unlink(missing_ok=True)
    finally:
        os.close(handle)


def export_table(table: pa.Table, path: Path, *, as_csv: bool) -> None:
    """Write rows as CSV, lists as JSON in their cells, or as Parquet; whole or not at all."""
    if as_csv:
        from pyarrow import csv

        write_whole(path, lambda file: csv.write_csv(_flat(table), file))
    else:
        write_whole(path, lambda file: pq.write_table(table, file, compression="zstd"))


def with_stale(table: pa.Table) -> pa.Table:
    """Add the column ``stale``: whether a stage has another version today than the row."""
    stale = pa.array(np.zeros(table.num_rows, dtype=bool))
    for name, version in stage_versions().items():
        stale = pc.or_(stale, pc.fill_null(pc.not_equal(table.column(name), version), False))
    return table.append_column("stale", stale)


def stage_versions() -> dict[str, int]:
    """Versions of the stages data, train, quantise and rtl, as the columns name them."""
    from ..datasets import DATA_VERSION
    from ..models import QUANTISE_VERSION, TRAIN_VERSION
    from ..rtl import RTL_VERSION

    versions = (DATA_VERSION, TRAIN_VERSION, QUANTISE_VERSION, RTL_VERSION)
    return dict(zip(VERSION_COLUMNS, versions, strict=True))


class _DamagedError(Exception):
    """A batch is not what was written."""


def _batch_names(rows: Path) -> list[str]:
    """Names of the batches, oldest first."""
    return sorted(path.stem for path in rows.glob("*.parquet") if _BATCH_NAME.fullmatch(path.stem))


def _write_batch(folder: Path, moment: str, table: pa.Table, *, merged: bool = False) -> str:
    """Write a batch; a merged one comes after every other name of its moment."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    content = buffer.getbuffer()
    manifest = _Manifest(
        schema_version=SCHEMA_VERSION,
        sha256=hashlib.sha256(content).hexdigest(),
        rows=table.num_rows,
    )
    name = f"{moment}-{'z' if merged else ''}{uuid.uuid4().hex[:8]}"
    path = folder / "rows" / f"{name}.json"
    write_whole(path, json.dumps(manifest.model_dump(), indent=1).encode())
    try:
        write_whole(path.with_suffix(".parquet"), lambda file: file.write(content))
    except InputError:
        path.unlink(missing_ok=True)
        raise
    return name


def _read_batches(folder: Path, names: Sequence[str], skip: set[str]) -> Contents:
    tables, batches, damaged = [], [], {}
    read = list(dict.fromkeys([*names, "status"]))
    for batch in _batch_names(folder / "rows"):
        if batch in skip:
            continue
        try:
            tables.append(_read_batch(folder / "rows" / f"{batch}.parquet", read))
            batches.append(batch)
        except _DamagedError as error:
            damaged[batch] = str(error)
    fields = [SCHEMA.field(name) for name in read]
    empty = pa.schema(fields, metadata=SCHEMA.metadata).empty_table()
    table = _standing(pa.concat_tables([empty, *tables]))
    return Contents(table=table, batches=tuple(batches), damaged=damaged)


def _read_batch(path: Path, names: Sequence[str]) -> pa.Table:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
    manifest = _manifest(path)
    if manifest.schema_version != SCHEMA_VERSION:
        rule = f"must have schema_version {SCHEMA_VERSION}"
        raise InputError(f"{str(path)!r} {rule}, got {manifest.schema_version}")
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise _DamagedError("its checksum does not fit")
    try:
        with pq.ParquetFile(io.BytesIO(content)) as file:
            held = set(file.schema_arrow.names)
            table = file.read(columns=[name for name in names if name in held])
        return fit_schema(table, names, path=path)
    except pa.ArrowException as error:
        raise _DamagedError(" ".join(str(error).split())) from error


def _manifest(path: Path) -> _Manifest:
    """Read the manifest of a batch; it is there unless the batch is damaged or just removed."""
    try:
        return _Manifest.model_validate_json(path.with_suffix(".json").read_bytes())
    except FileNotFoundError as error:
        if not path.exists():
            raise
        raise _DamagedError("its manifest is missing") from error
    except OSError as error:
        name = str(path.with_suffix(".json"))
        raise InputError(f"cannot read {name!r}: {error.strerror}") from error
    except ValidationError as error:
        raise _DamagedError("its manifest cannot be read") from error


def _small_tail(rows: Path) -> dict[str, int]:
    """Rows of the batches since the last full one: what is merged must be next to one another."""
    small: dict[str, int] = {}
    for name in reversed(_batch_names(rows)):
        path = rows / f"{name}.parquet"
        try:
            manifest = _manifest(path)
            held = set(pq.read_schema(path).names)
        except (_DamagedError, OSError, pa.ArrowException):
            break
        ours = held <= set(SCHEMA.names) and not missing_columns(held)
        if manifest.rows >= FULL_BATCH_ROWS or not ours:
            break
        small[name] = manifest.rows
    return dict(reversed(small.items()))


def _level(tail: dict[str, int]) -> list[str]:
    """Name the latest batches, back to one that has more rows than all after it."""
    level: list[str] = []
    rows = 0
    for name, count in reversed(tail.items()):
        if level and count > rows:
            break
        level.append(name)
        rows += count
    return level[::-1]


def _sweep(rows: Path) -> None:
    """Remove what killed processes have left: unfinished files, manifests without rows."""
    for path in (*rows.iterdir(), *rows.parent.iterdir()):
        unfinished = bool(_TEMPORARY.fullmatch(path.name)) and path.is_file()
        if path.parent == rows:
            unfinished = path.name.startswith(".") or (
                path.suffix == ".json" and not path.with_suffix(".parquet").exists()
            )
        with contextlib.suppress(FileNotFoundError):  # finished meanwhile
            if unfinished and time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()


def _standing(table: pa.Table) -> pa.Table:
    """Keep of every run its last finding, and after it its last failure if that came later."""
    runs = _runs(table)
    if runs is None:
        return table
    findings, lasts = runs
    rows = np.stack([findings, np.where(lasts == findings, -1, lasts)], axis=1).ravel()
    return table.take(rows[rows >= 0])


def _runs(table: pa.Table) -> NDArray[np.int64] | None:
    """Rows of every run, in the order of their first: the last finding (or -1), and the last.

    None if no run has two.
    """
    ids = table.column("run_id")
    if len(pc.unique(ids)) == len(ids):
        return None
    rows = np.arange(len(ids))
    found = pc.is_in(table.column("status"), value_set=pa.array(_FINDINGS)).to_numpy()
    numbered = pa.table({"run_id": ids, "row": rows, "finding": np.where(found, rows, -1)})
    wanted = [("row", "min"), ("finding", "max"), ("row", "max")]
    runs = numbered.group_by("run_id").aggregate(wanted).sort_by("row_min")
    return np.stack([runs.column(name).to_numpy() for name in ("finding_max", "row_max")])


def _flat(table: pa.Table) -> pa.Table:
    """Give a table whose lists are JSON text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [
                None if value is None else json.dumps(value)
                for value in table.column(index).to_pylist()
            ]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table
