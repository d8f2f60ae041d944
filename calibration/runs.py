"""The runs of a plan: their identity, and which of them are done.

A run is its ``run_id``: the hash of its configuration and of the versions of the stages that turn
it into a row. So what is done is done for every plan that asks for it, and a stage whose output
changes on purpose makes new runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..config import Config
from ..files import write_whole
from .plan import Plan
from .store import latest_rows, stage_versions
from .table import USABLE, VERSION_COLUMNS
from .worker import CRASHED

__all__ = ["DONE_COLUMNS", "done_runs", "rows_for", "run_id_of", "run_numbers"]

DONE_COLUMNS = ("status", "samples", "samples.rtl", *VERSION_COLUMNS)
"""Columns that say whether a run is done."""

_INDEX = "index.parquet"


def run_id_of(config: Config, versions: Mapping[str, int]) -> str:
    """SHA-256 of a configuration and the versions of the stages that turn it into a row."""
    return _run_id(config.digest, versions)


def run_numbers(plan: Plan, folder: Path | None = None) -> dict[str, int]:
    """Give the runs of a plan by id, in order, with their numbers.

    Parameters
    ----------
    plan : Plan
    folder : Path, optional
        Of the campaign. The answer is kept there, since it takes some 0.3 ms a run.

    Raises
    ------
    ConfigError
        If a run is no valid configuration.
    InputError
        If the folder cannot be written.
    """
    versions = stage_versions()
    known = {"plan": plan.digest, **{key: str(value) for key, value in versions.items()}}
    if folder is not None and (found := _kept(folder / _INDEX, known)):
        first = next(iter(found))
        if run_id_of(plan.config(found[first]), versions) == first:  # else keys have come since
            return found
    numbers: dict[str, int] = {}
    for number, digest in enumerate(plan.digests):
        numbers.setdefault(_run_id(digest, versions), number)
    if folder is not None:
        table = pa.table({"run_id": list(numbers), "number": list(numbers.values())})
        table = table.replace_schema_metadata(known)
        write_whole(
            folder / _INDEX, lambda file: pq.write_table(table, file, write_page_checksum=True)
        )
    return numbers


def rows_for(plan: Plan, table: pa.Table) -> pa.Table:
    """Give of every run the row that a plan goes by, as `latest_rows` does.

    A measured row is none for it if it has another number of samples, or fewer of them in RTL.

    Parameters
    ----------
    plan : Plan
    table : pyarrow.Table
        Rows with `DONE_COLUMNS`, and failures beside measured ones.
    """
    return latest_rows(table.filter(pa.array(~_is(table, *USABLE) | _suits(plan, table))))


def done_runs(plan: Plan, table: pa.Table, *, retry_failed: bool = False) -> set[str]:
    """Find the runs that a plan need not do.

    Parameters
    ----------
    plan : Plan
        Measured runs must have its number of samples, and as many of them in RTL. Failures count
        whatever they were asked for.
    table : pyarrow.Table
        Rows with `DONE_COLUMNS`, and failures beside measured ones.
    retry_failed : bool, optional
        Count runs that failed as not done. Those whose process was killed never are: another try
        may mend them. Those that diverged always are: they would again.
    """
    settled = _is(table, "diverged") if retry_failed else ~_is(table, CRASHED)
    finished = np.where(_is(table, *USABLE), _suits(plan, table), settled)
    return set(table.column("run_id").filter(pa.array(finished)).to_pylist())


def _is(table: pa.Table, *statuses: str) -> NDArray[np.bool_]:
    """Tell which rows have one of some statuses."""
    found: NDArray[np.bool_] = pc.is_in(table.column("status"), pa.array(statuses)).to_numpy()
    return found


def _suits(plan: Plan, table: pa.Table) -> NDArray[np.bool_]:
    """Tell which rows have the samples that a plan asks for, and as many of them in RTL."""
    samples, in_rtl = (
        pc.fill_null(table.column(name), 0).to_numpy() for name in ("samples", "samples.rtl")
    )
    asked = [plan.simulated(run_id) for run_id in table.column("run_id").to_pylist()]
    found: NDArray[np.bool_] = (samples == plan.samples) & (in_rtl >= np.array(asked, dtype=int))
    return found


def _run_id(digest: str, versions: Mapping[str, int]) -> str:
    content = {"config": digest, "versions": dict(versions)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _kept(path: Path, known: Mapping[str, str]) -> dict[str, int] | None:
    """Read what was worked out before, if it is of the same plan and versions and undamaged."""
    with contextlib.suppress(OSError, pa.ArrowException, KeyError, ValueError):
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
        metadata = table.schema.metadata or {}
        found = {key.decode(): value.decode() for key, value in metadata.items()}
        if {key: found.get(key) for key in known} == known:
            columns = (table.column(name).to_pylist() for name in ("run_id", "number"))
            return dict(zip(*columns, strict=True))
    return None
