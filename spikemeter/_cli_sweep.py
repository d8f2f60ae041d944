"""The command `prune`: a search space before a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._cli_output import JsonFlag, emit, percent, progress_bars, quiet_stdout

__all__ = ["prune"]

_BAR_CELLS = 48
_SHOWN_CHOICES = 4


def prune(
    space: Annotated[
        Path,
        typer.Argument(metavar="SPACE", help="YAML file of base and vary; a plan is one, too."),
    ],
    budget_us: Annotated[
        float, typer.Option(metavar="X", help="Mean latency that is allowed, in microseconds.")
    ],
    confidence: Annotated[
        float,
        typer.Option(help="Of the intervals, between 0 and 1; higher keeps more, and loses less."),
    ] = 0.9,
    min_accuracy: Annotated[
        float | None, typer.Option(metavar="A", help="Test accuracy asked for, between 0 and 1.")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(metavar="N", help="Points to judge; the runs of SPACE by default, or 65536."),
    ] = None,
    seconds_per_run: Annotated[
        float | None,
        typer.Option(metavar="S", help="Mean training time of a point, to tell the hours saved."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV file of the kept points to write.")
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Fitted predictor; else the one shipped.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove the points of a search space that cannot meet a latency budget, before any training.

    A point is kept if the lower end of its interval meets the budget, and the upper end of its
    accuracy what is asked for. Prints how many are kept, how many good ones to expect among the
    removed, and what is left of each knob. If nothing meets the budget, it says what comes nearest.

    Example: spikemeter prune space.yaml --budget-us 500 --min-accuracy 0.9 --out kept.csv

    with space.yaml, for instance:

    base: {dataset: digits-saccade, training: {epochs: 6}}

    vary: {network: [8C3-MP2-10, 16C3-MP2-10], neuron.beta: {low: 0.5, high: 0.99}}
    """
    from .predictor import LatencyPredictor
    from .predictor.pruning import prune_space

    asked = None if predictor is None else LatencyPredictor.load(predictor)
    with quiet_stdout(), progress_bars() as progress:
        task = progress.add_task("judging candidates", total=None)
        pruned = prune_space(
            space,
            budget_us=budget_us,
            confidence=confidence,
            min_accuracy=min_accuracy,
            candidates=candidates,
            seconds_per_run=seconds_per_run,
            out=out,
            most_rows=0,
            predictor=asked,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    emit(asdict(pruned.report), as_json, _show)


def _show(console: Console, report: Mapping[str, Any]) -> None:
    wanted = f"{report['budget_us']:g} us"
    if report["min_accuracy"] is not None:
        wanted += f" and {percent(report['min_accuracy'])} accuracy"
    invalid = f", {report['invalid']:,} are not valid" if report["invalid"] else ""
    console.print(
        f"{report['kept']:,} of {report['candidates']:,} candidates may reach {wanted}, "
        f"{report['removed']:,} cannot{invalid}"
    )
    console.print(_bar(report))
    console.print(
        f"truly good ones expected among the removed: {report['expected_loss']:,.3g} of "
        f"{report['expected_good']:,.3g} ({percent(report['expected_loss_share'])})"
    )
    hours = report["training_hours_saved"]
    spelled = f", {hours:,.3g} hours" if hours is not None else ""
    console.print(f"training saved: {percent(report['training_share_saved'])}{spelled}")
    if report["tightened"]:
        table = Table("knob", "before", "after")
        for name, ends in report["tightened"].items():
            table.add_row(*(Text(part) for part in (name, *map(_spelled, ends.values()))))
        console.print(table)
    _show_best(console, report)
    if report["invalid_reason"] is not None:
        console.print(Text(f"not valid: {report['invalid_reason']}", "yellow"))
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", "yellow"))
    if report["out"] is not None:
        console.print(f"written: {report['out']}", soft_wrap=True)


def _show_best(console: Console, report: Mapping[str, Any]) -> None:
    best = report["best"]
    low, high = best["interval_microseconds"]
    worst, most = best["interval_accuracy"]
    what = "most accurate of these" if report["kept"] else "none; nearest to it"
    console.print(
        f"{what}: candidate {best['candidate']}, {best['microseconds']:,.4g} us "
        f"({low:,.4g} to {high:,.4g}), accuracy {percent(best['accuracy'])} "
        f"({percent(worst)} to {percent(most)})"
    )
    knobs = ", ".join(f"{name} {_value(value)}" for name, value in best["knobs"].items())
    console.print(Text(f"  {knobs}"))


def _bar(report: Mapping[str, Any]) -> Text:
    """Kept, removed and invalid candidates, to scale."""
    bar, done, drawn = Text(), 0, 0
    for key, glyph, color in (
        ("kept", "█", "green"),
        ("removed", "░", ""),
        ("invalid", "·", "red"),
    ):
        done += report[key]
        end = round(_BAR_CELLS * done / report["candidates"])
        bar.append(glyph * (end - drawn), color)
        drawn = end
    return bar


def _spelled(ends: Mapping[str, Any]) -> str:
    if "choices" not in ends:
        return f"{_value(ends['low'])} to {_value(ends['high'])}"
    choices = list(dict.fromkeys(map(_value, ends["choices"])))
    more = len(choices) - _SHOWN_CHOICES
    shown = ", ".join(choices[:_SHOWN_CHOICES])
    return f"{shown} and {more} more" if more > 0 else shown


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_value(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
