"""The command `explain`: which knobs drive sparsity and latency, and what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._cli_output import JsonFlag, emit, progress_bars, quiet_stdout, steps
from .errors import InputError

if TYPE_CHECKING:
    from .calibration.explanation import VerifiedChange
    from .predictor.explanation import LatencyExplanation

__all__ = ["explain"]

_KNOBS_SHOWN = 8
_SIZES = ("mean_abs", "low", "high")
_MOST_CHANGES = 5


def explain(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG", help="YAML file of settings, or run folder; else one is chosen."
        ),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="SPACE", help="Compare with points of this space; else with calibrated runs."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report, one HTML file.")
    ] = None,
    verify: Annotated[
        int,
        typer.Option(
            metavar="K", help="Train and simulate the first K changes, of those that there are."
        ),
    ] = 0,
    predictor: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Fitted predictor; else the one shipped.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Share of intervals that hold the truth, between 0 and 1.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the configurations drawn to compare with.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Explain which knobs drive the latency of a network, by how much, and what to change.

    The report is one file that opens in any browser: plots, their numbers, and knobs to turn.

    Example: spikemeter explain examples/digits.yaml --out report.html
    """
    _check(verify, seed, source)
    if out is not None:
        from .predictor.report import check_report_path

        check_report_path(out)
        for given in (source, space):
            if given is not None and out.exists() and given.exists() and out.samefile(given):
                raise InputError(f"--out: must be another file than what is read, got {str(out)!r}")
    from .predictor import LatencyPredictor
    from .predictor.explanation import explain_latency

    asked = LatencyPredictor.default() if predictor is None else LatencyPredictor.load(predictor)
    with quiet_stdout(), progress_bars() as progress:
        report_step = steps(progress)
        explanation = explain_latency(
            source,
            space=space,
            predictor=asked,
            confidence=confidence,
            seed=seed,
            progress=report_step,
        )
        report = explanation.to_dict()
        verified: tuple[VerifiedChange, ...] = ()
        if verify:
            if count := min(verify, len(explanation.changes)):
                from .calibration.explanation import verify_changes

                verified = verify_changes(explanation, count, progress=report_step)
            report["verified"] = [change.to_dict() for change in verified]
        if out is not None:
            from .predictor.report import write_report

            report_step("report", 0, 1)
            written = write_report(explanation, out, predictor=asked, verified=verified)
            report["report"] = str(written)
            report_step("report", 1, 1)
    emit(report, as_json, partial(_show, explanation=explanation, verified=verified))


def _check(verify: int, seed: int, source: Path | None) -> None:
    if not 0 <= verify <= _MOST_CHANGES:
        rule = f"must be a number of changes, 0 to {_MOST_CHANGES}"
        raise InputError(f"--verify: {rule}; got {verify}")
    if seed < 0:
        raise InputError(f"--seed: must be 0 or more, got {seed}")
    if verify and source is not None:
        from .calibration.explanation import check_verification
        from .config import load_config

        check_verification(load_config(source))


def _show(
    console: Console,
    report: Mapping[str, Any],
    *,
    explanation: LatencyExplanation,
    verified: Sequence[VerifiedChange],
) -> None:
    estimate, config = explanation.estimate, explanation.config
    low, high = estimate.interval_cycles
    if explanation.chosen:
        console.print(Text(explanation.chosen))
    console.print(
        Text(f"{config.network} on {config.dataset or 'input statistics'}: ")
        + Text(
            f"{estimate.cycles:,.0f} cycles = {estimate.microseconds:,.1f} us, "
            f"{100 * estimate.confidence:g} % interval {low:,.0f} to {high:,.0f} cycles"
        )
    )
    if estimate.accuracy is not None and estimate.interval_accuracy is not None:
        worst, best = (f"{100 * share:.0f}" for share in estimate.interval_accuracy)
        console.print(f"accuracy {100 * estimate.accuracy:.0f} % ({worst} to {best} %)")
    console.print(Text(f"compared with: {explanation.scope}"))
    _show_knobs(console, explanation)
    _show_changes(console, explanation)
    if verified:
        _show_verified(console, verified)
    for sentence in (*explanation.warnings, *estimate.warnings):
        console.print(Text(f"warning: {sentence}", "yellow"))
    if "report" in report:
        console.print(f"report: {report['report']}", soft_wrap=True, markup=False)


def _show_knobs(console: Console, explanation: LatencyExplanation) -> None:
    estimate, local = explanation.estimate, explanation.local
    ranked = explanation.cycles.importance(estimate.confidence)[:_KNOBS_SHOWN]
    places = {knob.name: place for place, knob in enumerate(local.knobs)}
    shown = local.display().iloc[0]
    title = f"what moves cycles, {100 * estimate.confidence:g} % intervals"
    table = Table("knob", "here", "effect here", "mean effect", title=title)
    for row in ranked.to_dict("records"):
        knob, here, moved = row["knob"], "", ""
        if knob in places:
            here, moved = _value(shown[knob]), _effect(float(local.values[0, places[knob]]))
        mean, low, high = (f"{100 * math.expm1(row[key]):.1f}" for key in _SIZES)
        table.add_row(Text(knob), Text(here), moved, Text(f"{mean} % [{low}, {high}]"))
    console.print(table)


def _show_changes(console: Console, explanation: LatencyExplanation) -> None:
    if explanation.changes:
        table = Table("change", "cycles", "accuracy, points", title="cheapest changes")
        for change in explanation.changes:
            table.add_row(
                Text(f"{change.knob} {change.before} -> {change.after}"),
                _share(change.cycles) + _range(change.interval_cycles),
                _points(change.accuracy) + _range(change.interval_accuracy),
            )
        console.print(table)
    console.print(Text(explanation.changes_note))


def _show_verified(console: Console, verified: Sequence[VerifiedChange]) -> None:
    title = f"trained and simulated, {verified[0].samples} samples"
    table = Table(
        "change", "cycles: predicted", "measured", "accuracy: predicted", "measured", "",
        title=title,
    )  # fmt: skip
    for each in verified:
        change = each.change
        table.add_row(
            Text(f"{change.knob} {change.before} -> {change.after}"),
            _share(change.cycles) + _range(change.interval_cycles),
            _share(each.cycles),
            _points(change.accuracy) + _range(change.interval_accuracy),
            _points(each.accuracy),
            "held" if each.held else Text("outside the interval", "yellow"),
        )
    console.print(table)


def _share(share: float) -> Text:
    return Text(f"{100 * share:+.1f} % ")


def _points(share: float) -> Text:
    return Text(f"{100 * share:+.1f} ")


def _range(ends: tuple[float, float]) -> Text:
    return Text(f"[{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]")


def _effect(logs: float) -> str:
    return f"{round(100 * math.expm1(logs), 1) + 0.0:+.1f} %"  # no minus before nothing


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
