"""Campaigns: every run of a plan is trained, simulated, checked and measured once.

    DIR/plan.yaml       the plan as it was run last
    DIR/splits.json     which rows are for scoring, frozen
    DIR/rows/           the rows (`spikemeter.calibration.store`)
    DIR/runs/<run_id>/  run folders
    DIR/index.parquet   the runs of the plan, to save working them out again
    DIR/campaign-<id>   an empty file by which workers know the folder

A run is known by what decides its outcome: its configuration and the versions of the stages. So a
campaign that was stopped goes on where it was, a plan that grew only does what is new, and several
may write into one folder.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ..config import Config
from ..errors import InputError
from ..files import lock_folder, write_whole
from .cluster import check_request
from .drive import CampaignState, Progress, drive
from .measure import measure, simulate_run
from .plan import Plan, read_plan
from .runs import DONE_COLUMNS, done_runs, rows_for, run_id_of, run_numbers
from .splits import Splits, choose_splits, freeze_splits, split_columns
from .store import (
    Contents,
    latest_rows,
    merge_batches,
    read_store,
    set_aside,
    stage_versions,
    with_stale,
)
from .table import USABLE
from .worker import MARK, MISMATCH, Job

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CampaignReport",
    "CampaignState",
    "DryRun",
    "campaign_table",
    "dry_run",
    "measure",
    "plan_of",
    "run_campaign",
    "run_id_of",
    "simulate_run",
]

_GUESSED_RUNS = 10_000
"""Of a larger plan a dry run looks at so many runs, drawn by chance, to say what there is."""

_MARK_NAME = re.compile(rf"{MARK}[0-9a-f]{{32}}")
_SHOWN_COLUMNS = ("accuracy.integer.test", "cycles.mean")


class CampaignReport(TypedDict):
    """What a campaign has: plain values, ready for JSON.

    ``status`` counts the rows of the plan's ``runs``, ``reasons`` has those that were not measured
    by their id, ``mismatches`` those among them whose RTL disagrees. ``stale`` counts rows of older
    versions, which stay beside. ``damaged`` has a sentence for every batch of rows that was set
    aside; its runs were done again.
    """

    folder: str
    runs: int
    status: dict[str, int]
    reasons: dict[str, str]
    mismatches: dict[str, str]
    stale: int
    damaged: list[str]


class DryRun(TypedDict):
    """What a campaign would do. ``hours`` is of one worker, from rows of it or a rough rule.

    ``damaged`` has a sentence for every batch of rows that it would set aside.
    """

    folder: str
    runs: int
    done: int
    missing: int
    networks: dict[str, int]
    datasets: dict[str, int]
    hours: float
    hours_from: str
    damaged: list[str]


def run_campaign(
    plan: Plan,
    out: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    gpus: int = 0,
    retry_failed: bool = False,
    only: Collection[int] | None = None,
    progress: Progress | None = None,
) -> CampaignReport:
    """Do every run of a plan that has no row yet.

    Parameters
    ----------
    plan : Plan
        Validated as a whole before anything runs.
    out : str or Path
        Folder of the campaign; the same folder again goes on where it was.
    workers : int, optional
        Processes, with one thread each; one per core by default.
    scheduler : str, optional
        Address of a Dask scheduler whose workers do the runs, instead of processes of this
        machine. Workers that see `out` keep run folders there, others keep none.
    gpus : int, optional
        Give each run a GPU, as the Dask resource ``GPU``.
    retry_failed : bool
        Do runs again that failed before. Runs whose process was killed are done again anyway.
    only : collection of int, optional
        Runs to do, by number; all by default.
    progress : callable, optional
        Told the `CampaignState` whenever it changes.

    Returns
    -------
    CampaignReport

    Raises
    ------
    ConfigError
        If a run of the plan is no valid configuration.
    InputError
        If `out` cannot be written, or a number or an address is impossible.
    MissingToolError
        If a compiler or package is missing, which would fail every run alike.
    ClusterError
        If the scheduler is lost for good. The rows that are finished are kept.
    """
    from ..rtl.toolchain import tool_environment

    check_request(scheduler, workers=workers, gpus=gpus)
    out, progress = Path(out), progress or _say_nothing
    if scheduler is None and not out.exists():
        tool_environment()  # what is missing is said before anything is made
    numbers, splits, contents = _open(plan, out)
    if only is not None:
        numbers = {run_id: number for run_id, number in numbers.items() if number in only}
    done = done_runs(plan, contents.table, retry_failed=retry_failed)
    todo = {run_id: number for run_id, number in numbers.items() if run_id not in done}
    mine = rows_for(plan, contents.table)
    state = _beginning(mine, done.intersection(numbers), len(numbers), contents.sentences())
    progress(state)
    set_aside(out, contents.damaged)
    if todo:
        if scheduler is None:
            _prepare_machine(plan, todo.values(), progress)
        alone = lock_folder(out)
        order = list(todo)
        if alone is None:  # another one is at it: another order, so that both do different runs
            random.shuffle(order)
        try:
            drive(
                _jobs(plan, out, splits, {run_id: todo[run_id] for run_id in order}),
                out, state, progress,
                known=contents.batches,
                done_runs=partial(done_runs, plan, retry_failed=retry_failed),
                scheduler=scheduler, workers=workers, gpus=gpus,
            )  # fmt: skip
        finally:
            if alone is not None:
                os.close(alone)
    with contextlib.suppress(InputError):  # rows are safe; it can be done another time
        merge_batches(out, least=2, whole=True)
    return _report(plan, out, numbers, contents.sentences())


def campaign_table(plan: Plan, out: str | Path) -> pd.DataFrame:
    """Rows of a plan, in its order; a row with another number of samples is none of it.

    Raises
    ------
    InputError
        If the store cannot be read, or a run has no row yet.
    """
    table = rows_for(plan, read_store(Path(out), failures=True).table)
    places = {run_id: row for row, run_id in enumerate(table.column("run_id").to_pylist())}
    numbers = run_numbers(plan)
    missing = [run_id for run_id in numbers if run_id not in places]
    if missing:
        raise InputError(f"{len(missing)} of {len(numbers)} runs of the plan have no row yet")
    frame: pd.DataFrame = table.take([places[run_id] for run_id in numbers]).to_pandas()
    return frame


def dry_run(
    plan: Plan,
    out: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    gpus: int = 0,
    retry_failed: bool = False,
) -> DryRun:
    """Tell what `run_campaign` would do, and do nothing; what it would refuse is refused.

    Returns
    -------
    DryRun
    """
    check_request(scheduler, workers=workers, gpus=gpus)
    out = Path(out)
    choose_splits(plan, out)
    contents = read_store(out, (*DONE_COLUMNS, "seconds.total"), failures=True)
    table = contents.table
    numbers = run_numbers(plan)
    done = done_runs(plan, table, retry_failed=retry_failed)
    todo = [number for run_id, number in numbers.items() if run_id not in done]
    drawn = random.Random(0).sample(todo, min(len(todo), _GUESSED_RUNS))  # noqa: S311 - no secret
    looked_at = [plan.config(number) for number in drawn]
    share = len(todo) / max(len(looked_at), 1)
    measured = pc.mean(table.column("seconds.total")).as_py()
    seconds = [measured or _rough_seconds(config) for config in looked_at]
    return DryRun(
        folder=str(out),
        runs=len(numbers),
        done=len(numbers) - len(todo),
        missing=len(todo),
        networks=_scaled(Counter(config.network for config in looked_at), share),
        datasets=_scaled(Counter(str(config.dataset) for config in looked_at), share),
        hours=sum(seconds) * share / 3600,
        hours_from="the rows that are there" if measured else "a rough rule",
        damaged=contents.sentences(),
    )


def plan_of(folder: str | Path) -> Plan:
    """Read the plan that a campaign ran last; `ConfigError` if that cannot be."""
    return read_plan(Path(folder) / "plan.yaml", every_run=False)


def _say_nothing(_: CampaignState) -> None:
    """Progress that nobody watches."""


def _open(plan: Plan, out: Path) -> tuple[dict[str, int], Splits, Contents]:
    """Read what is there, and note the plan; one that is refused leaves everything as it was."""
    contents = read_store(out, (*DONE_COLUMNS, *_SHOWN_COLUMNS), failures=True)
    choose_splits(plan, out)
    new = not out.is_dir()
    numbers = run_numbers(plan, None if new else out)
    _make_folder(out)
    if new:
        run_numbers(plan, out)  # to be kept
    text = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False)
    write_whole(out / "plan.yaml", text.encode())
    return numbers, freeze_splits(plan, out), contents


def _make_folder(out: Path) -> None:
    """Make the folder and the mark by which workers know it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not _marks(out):  # two are no harm: a worker looks for one of them
            (out / f"{MARK}{uuid.uuid4().hex}").touch()
    except OSError as error:
        raise InputError(f"out: cannot write the folder {str(out)!r}: {error.strerror}") from error


def _marks(out: Path) -> list[str]:
    """Names of the files by which workers may know the folder."""
    found = (path for path in out.glob(f"{MARK}*") if path.is_file())
    return sorted(path.name for path in found if _MARK_NAME.fullmatch(path.name))


def _beginning(
    table: pa.Table, done: Set[str], total: int, damaged: Sequence[str]
) -> CampaignState:
    """Say where a campaign stands that finds some of its runs done."""
    names = ("run_id", "status", *_SHOWN_COLUMNS)
    columns = (table.column(name).to_pylist() for name in names)
    mine = [row[1:] for row in zip(*columns, strict=True) if row[0] in done]
    return CampaignState(
        step="runs",
        done=len(done),
        total=total,
        started=len(done),
        failed=sum(status not in USABLE for status, _, _ in mine),
        best_accuracy=max((best for _, best, _ in mine if best is not None), default=None),
        lowest_cycles=min(
            (cycles for status, _, cycles in mine if status == "ok" and cycles is not None),
            default=None,
        ),
        damaged=tuple(damaged),
    )


def _jobs(plan: Plan, out: Path, splits: Splits, todo: Mapping[str, int]) -> Iterator[Job]:
    versions = stage_versions()
    mark = _marks(out)[0]
    for run_id, number in todo.items():
        config = plan.config(number)
        yield Job(
            run_id=run_id,
            config=config.model_dump(mode="json"),
            versions=versions,
            splits=split_columns(config, splits),
            samples=plan.samples,
            simulated=plan.simulated(run_id),
            folder=str(out.resolve()),
            mark=mark,
            seconds=plan.limits.seconds,
            gibibytes=plan.limits.gibibytes,
        )


def _prepare_machine(plan: Plan, numbers: Iterable[int], progress: Progress) -> None:
    """Say now what is missing, and make frames before several processes would each do it."""
    from ..datasets import load_splits
    from ..rtl.toolchain import tool_environment

    tool_environment()
    for number in plan.examples("dataset", "data_root", "input", among=numbers):
        load_splits(
            plan.config(number),
            on_progress=lambda done, total: progress(
                CampaignState(step="data", done=done, total=total)
            ),
        )


def _report(
    plan: Plan, out: Path, numbers: Mapping[str, int], damaged: Sequence[str]
) -> CampaignReport:
    contents = read_store(out, (*DONE_COLUMNS, "reason"), failures=True)
    table = rows_for(plan, contents.table)
    columns = (table.column(name).to_pylist() for name in ("run_id", "status", "reason"))
    mine = [row for row in zip(*columns, strict=True) if row[0] in numbers]
    stale = with_stale(latest_rows(contents.table)).column("stale")
    return CampaignReport(
        folder=str(out),
        runs=len(numbers),
        status=dict(Counter(status for _, status, _ in mine)),
        reasons={run_id: reason for run_id, _, reason in mine if reason},
        mismatches={run_id: reason for run_id, status, reason in mine if status == MISMATCH},
        stale=int(pc.sum(stale).as_py() or 0),
        damaged=[*damaged, *contents.sentences()],
    )


def _scaled(counts: Mapping[str, int], share: float) -> dict[str, int]:
    return {name: round(count * share) for name, count in counts.items()}


# Seconds of one core for a multiplication and addition in training, measured once, and for the rest
_SECONDS_PER_OPERATION = 2.0e-10
_SECONDS_PER_RUN = 3.0
_TRAINING_SAMPLES = 3500


def _rough_seconds(config: Config) -> float:
    """Guess what a run may take, to within a factor of a few."""
    operations = sum(layer.neurons * layer.fan_in for layer in config.layers)
    epochs = config.training.epochs * _TRAINING_SAMPLES * config.input.time_steps
    return _SECONDS_PER_RUN + 3 * epochs * operations * _SECONDS_PER_OPERATION
