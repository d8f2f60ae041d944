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

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import Config
from ..files import write_whole
from .plan import Plan
from .store import stage_versions
from .table import USABLE, VERSION_COLUMNS
from .worker import CRASHED

__all__ = ["DONE_COLUMNS", "done_runs", "run_id_of", "run_numbers"]

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


def done_runs(plan: Plan, table: pa.Table, *, retry_failed: bool = False) -> set[str]:
    """Find the runs whose row is what a plan asks for.

    Parameters
    ----------
    plan : Plan
        Measured runs must have its number of samples, and as many of them in RTL.
    table : pyarrow.Table
        Rows with `DONE_COLUMNS`.
    retry_failed : bool, optional
        Count runs that failed as not done. Those whose process was killed never are: another try
        may mend them. Those that diverged always are: they would again.
    """
    columns = (
        table.column(name).to_pylist() for name in ("run_id", "status", "samples", "samples.rtl")
    )
    done = set()
    for run_id, status, samples, simulated in zip(*columns, strict=True):
        if status in USABLE:
            finished = samples == plan.samples and (simulated or 0) >= plan.simulated(run_id)
        else:
            finished = status == "diverged" or (status != CRASHED and not retry_failed)
        if finished:
            done.add(run_id)
    return done


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
