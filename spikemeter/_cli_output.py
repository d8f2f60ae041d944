"""How commands speak: JSON on stdout, tables, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

__all__ = [
    "NO_SHARE",
    "SAMPLES",
    "JsonFlag",
    "emit",
    "number",
    "percent",
    "progress_bars",
    "quiet_stdout",
    "steps",
]

NO_SHARE = 1e-9
"""A share below this is rounding."""

SAMPLES = 16
"""Recorded samples that `simulate` and `predict` use unless told otherwise."""

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Keep stdout for results: whatever libraries print meanwhile goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def progress_bars() -> Progress:
    """Progress bars on stderr; silent where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def steps(progress: Progress) -> Callable[[str, int, int], None]:
    """One bar per named step, for functions that report (step, done, total)."""
    tasks: dict[str, Any] = {}

    def report(step: str, done: int, total: int) -> None:
        if step not in tasks:
            tasks[step] = progress.add_task(step, total=total)
        progress.update(tasks[step], completed=done, total=total)

    return report


def emit(
    report: Mapping[str, Any], as_json: bool, show: Callable[[Console, Mapping[str, Any]], None]
) -> None:
    if as_json:
        print(json.dumps(report, indent=2, allow_nan=False, default=_plain))
    else:
        show(Console(highlight=False), report)


def _plain(value: Any) -> Any:
    """JSON form of a path or of a numpy scalar or array."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share > NO_SHARE else "0 %"


def number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
