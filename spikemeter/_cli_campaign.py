"""Commands of a campaign: `calibrate` runs a plan, `table` shows and exports its rows."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from ._cli_output import JsonFlag, emit, number, quiet_stdout
from .errors import InputError, SpikeMismatchError

if TYPE_CHECKING:
    from .calibration.campaign import CampaignState

__all__ = ["calibrate", "table"]

_SHOWN_REASONS = 5
_SHOWN_ROWS = 20
_CELLS_PER_COLUMN = 10
"""Columns for which a terminal has fewer cells are left out."""

_SECONDS_BETWEEN_LINES = 60.0
_SHOWN_COLUMNS = (
    "run_id", "status", "dataset", "network", "accuracy.integer.test", "cycles.mean", "stale",
)  # fmt: skip


def calibrate(
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="[PLAN]", help="YAML file of what to run."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for runs and table.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the plan that DIR holds.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and how long, and run nothing.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes; one per core by default.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="Dask scheduler whose workers do the runs."),
    ] = None,
    gpus: Annotated[
        int, typer.Option(metavar="N", help="GPUs to share out, one to a run (Dask resource GPU).")
    ] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do failed runs again.")
    ] = False,
    acquire: Annotated[
        Literal["uncertainty"] | None,
        typer.Option(
            help="Do not run the whole plan: after its first runs choose, in rounds, those whose "
            "interval is widest."
        ),
    ] = None,
    first: Annotated[
        int | None, typer.Option(metavar="N", help="Runs before the first choice; 64 by default.")
    ] = None,
    each_round: Annotated[
        int | None, typer.Option(metavar="N", help="Runs to choose at a time; 32 by default.")
    ] = None,
    target_width: Annotated[
        float | None,
        typer.Option(
            metavar="W",
            help="Stop when the intervals of what was not run are this wide on average: high over "
            "low end, less 1.",
        ),
    ] = None,
    most_runs: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after so many runs.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train and simulate every run of a plan; write one table row for each.

    Stopped anywhere, the same command (or --resume) goes on where it was.

    Example: spikemeter calibrate plan.yaml --out campaign
    """
    from .calibration import acquire as choose
    from .calibration import dry_run as tell
    from .calibration import plan_of, read_plan, run_campaign

    if resume == (plan is not None):  # neither or both
        raise InputError("calibrate: give PLAN, or --resume to go on with that of --out")
    wanted = {"first": first, "each_round": each_round, "target_width": target_width,
              "most_runs": most_runs}  # fmt: skip
    rounds: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if rounds and (acquire is None or dry_run):
        option = f"--{next(iter(rounds)).replace('_', '-')}"
        raise InputError(f"{option}: is for --acquire alone, and not for --dry-run")
    with quiet_stdout():
        parsed = plan_of(out) if plan is None else read_plan(plan)
        if acquire is not None and not dry_run:
            with _watching() as watch:
                chosen = choose(
                    parsed, out, workers=workers, scheduler=scheduler, gpus=gpus,
                    retry_failed=retry_failed, progress=watch, **rounds,
                )  # fmt: skip
            emit(dict(chosen), as_json, _show_acquired)
            return
        if not dry_run:
            with _watching() as watch:
                report = run_campaign(
                    parsed, out, workers=workers, scheduler=scheduler, gpus=gpus,
                    retry_failed=retry_failed, progress=watch,
                )  # fmt: skip
    if dry_run:
        told = tell(
            parsed, out, workers=workers, scheduler=scheduler, gpus=gpus, retry_failed=retry_failed
        )
        emit(dict(told), as_json, _show_dry_run)
        return
    emit(dict(report), as_json, _show_campaign)
    refuse_mismatches(report["mismatches"], report["runs"])


def _show_acquired(console: Console, report: Mapping[str, Any]) -> None:
    rounds = Table("runs", "points left", "mean width", "widest")
    for each in report["rounds"]:
        cells = f"{each['mean_width']:.0%}", f"{each['widest']:.0%}"
        rounds.add_row(str(each["runs"]), str(each["left"]), *cells)
    console.print(rounds)
    console.print(f"stopped: {report['stopped']}; rows in {report['folder']}")


def table(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Campaign, or an exported table.")],
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Keep rows; also != < <= > >=; may be repeated."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,..",
            help="Columns to show and export, * for all; by default some are shown, all exported.",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Export as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Export as Parquet.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help=f"Rows to show: {_SHOWN_ROWS}, in JSON all."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print, filter and export the table of a campaign.

    Example: spikemeter table campaign --where status=ok --where 'neuron.beta>0.5' --csv rows.csv
    """
    from .calibration.store import export_table
    from .calibration.view import chosen_columns, read_rows_where

    if csv is not None and parquet is not None and csv.resolve() == parquet.resolve():
        raise InputError(f"table: --csv and --parquet must be two files, got {str(csv)!r} twice")
    chosen = chosen_columns(columns, _SHOWN_COLUMNS)
    exported = chosen if csv is None and parquet is None else chosen_columns(columns)
    contents = read_rows_where(folder, [*chosen, *exported, "status"], where or [])
    rows = contents.table.select(chosen)
    shown = limit if limit is not None else rows.num_rows if as_json else _SHOWN_ROWS
    for path in (csv, parquet):
        if path is not None:
            ordered = contents.table.sort_by("run_id").select(exported)
            export_table(ordered, path, as_csv=path is csv)
    report = {
        "folder": str(folder),
        "rows": rows.num_rows,
        "stale": sum(contents.table.column("stale").to_pylist()),
        "status": dict(Counter(contents.table.column("status").to_pylist())),
        "damaged": contents.sentences(),
        "written": [str(path) for path in (csv, parquet) if path is not None],
        "table": _plain(rows.slice(0, shown).to_pylist()),
    }
    emit(report, as_json, _show_table)


def refuse_mismatches(reasons: Mapping[str, str], runs: int) -> None:
    """Name the first run whose RTL disagrees; the reasons, by run_id, say with what."""
    for run_id, reason in reasons.items():
        raise SpikeMismatchError(
            f"RTL disagrees in {len(reasons)} of {runs} runs; run {run_id[:12]}: {reason}"
        )


def _plain(value: Any) -> Any:
    """Give values as JSON has them: no NaN."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _watching() -> Iterator[Callable[[CampaignState], None]]:
    """Show how far a campaign is; now and then a line of text where stderr is no terminal."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        with _live_view(console) as watch:
            yield watch
    else:
        yield _line_view(console)


@contextmanager
def _live_view(console: Console) -> Iterator[Callable[[CampaignState], None]]:
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )
    tasks: dict[str, Any] = {}
    said: set[str] = set()

    def watch(state: CampaignState) -> None:
        _say_once(console, state, said)
        if state.step not in tasks:
            tasks[state.step] = bars.add_task(state.step, total=state.total)
        bars.update(tasks[state.step], completed=state.done, total=state.total)
        if state.step == "runs":
            grid = Table.grid()
            grid.add_row(bars)
            grid.add_row(_sentence(state))
            live.update(grid)

    with Live(bars, console=console, transient=True, refresh_per_second=4) as live:
        yield watch


def _line_view(console: Console) -> Callable[[CampaignState], None]:
    said: set[str] = set()
    spoken = time.monotonic()
    waiting: str | None = None

    def watch(state: CampaignState) -> None:
        nonlocal spoken, waiting
        _say_once(console, state, said)
        if state.waiting and state.waiting != waiting:
            console.print(state.waiting)
        waiting = state.waiting
        if state.step == "runs" and time.monotonic() - spoken > _SECONDS_BETWEEN_LINES:
            console.print(f"{state.done} of {state.total} runs, {_sentence(state)}")
            spoken = time.monotonic()

    return watch


def _say_once(console: Console, state: CampaignState, said: set[str]) -> None:
    """Print what is damaged, and the dashboard; a cluster that was lost may come with another."""
    _warn(console, [sentence for sentence in state.damaged if sentence not in said])
    said.update(state.damaged)
    if state.dashboard and state.dashboard not in said:
        said.add(state.dashboard)
        console.print(f"dashboard: {state.dashboard}")


def _sentence(state: CampaignState) -> str:
    left = "unknown" if state.seconds_left is None else _duration(state.seconds_left)
    accuracy = "-" if state.best_accuracy is None else f"{100 * state.best_accuracy:.1f} %"
    cycles = "-" if state.lowest_cycles is None else f"{state.lowest_cycles:,.0f} cycles"
    waiting = f"{state.waiting}; " if state.waiting else ""
    return (
        f"{waiting}{state.failed} failed, {state.runs_per_hour:.0f} runs/h, time left {left}; "
        f"best accuracy {accuracy}, lowest latency {cycles}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _show_campaign(console: Console, report: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in report["status"].items())
    console.print(f"{report['runs']} runs: {counts}; in {report['folder']}")
    for run_id, reason in list(report["reasons"].items())[:_SHOWN_REASONS]:
        console.print(Text(f"{run_id[:12]}: {reason}"))
    if report["stale"]:
        console.print(f"{report['stale']} rows of older versions are kept, marked stale")
    if report["damaged"]:
        _warn(console, [*report["damaged"], "damaged rows are set aside, their runs done again"])
    if missing := report["runs"] - sum(report["status"].values()):
        _warn(console, [f"{missing} runs have no row yet; the same command does them"])


def _show_dry_run(console: Console, report: Mapping[str, Any]) -> None:
    console.print(
        f"{report['missing']} of {report['runs']} runs are to be done: about "
        f"{_duration(3600 * report['hours'])} of one core, by {report['hours_from']}"
    )
    for kind in ("datasets", "networks"):
        for name, count in sorted(report[kind].items(), key=lambda item: -item[1]):
            console.print(Text(f"  {count} {name}"))
    _warn(console, report["damaged"])


def _show_table(console: Console, report: Mapping[str, Any]) -> None:
    rows = report["table"]
    names = list(rows[0]) if rows else []
    fitting = names[: max(console.width // _CELLS_PER_COLUMN, 1)]
    if rows:
        shown = Table(*(Column(name, overflow="fold") for name in fitting))
        for row in rows:
            shown.add_row(*(_cell(name, row[name]) for name in fitting))
        console.print(shown)
    counts = ", ".join(f"{count} {name}" for name, count in report["status"].items())
    left_out = f", the first {len(rows)} shown" if len(rows) < report["rows"] else ""
    console.print(f"{report['rows']} rows: {counts or 'none'}; {report['stale']} stale{left_out}")
    if len(fitting) < len(names):
        left = len(names) - len(fitting)
        console.print(f"{left} more columns do not fit in here; --csv FILE exports them")
    for path in report["written"]:
        console.print(f"written: {path}", soft_wrap=True)
    _warn(console, report["damaged"])


def _warn(console: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        console.print(Text(f"warning: {sentence}", "yellow"), soft_wrap=True)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"[{', '.join(_cell(name, entry) for entry in value)}]"
    if name == "run_id":
        return str(value)[:12]
    return f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 100 else number(value)
