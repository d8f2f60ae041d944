"""The command `allocate`: how to share out neural cores among the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._cli_output import JsonFlag, emit, percent, progress_bars, quiet_stdout, steps
from ._cli_predictor import _first_samples
from ._cli_show import show_layers
from .errors import InputError, TimingMismatchError
from .predictor.estimate import FIDELITIES

__all__ = ["allocate"]

_FRONT_SHOWN = 12


def allocate(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CONFIG", help="Run folder, or YAML file of settings.")
    ],
    cores: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Most neural cores in total; by default as many as are configured, or with --luts "
            "or --brams as many as fit.",
        ),
    ] = None,
    objective: Annotated[
        Literal["latency", "interval"],
        typer.Option(help="Make the latency least, or the initiation interval."),
    ] = "latency",
    luts: Annotated[
        int | None, typer.Option(metavar="N", help="Most LUTs of an FPGA, as estimated.")
    ] = None,
    brams: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most block RAMs of 18 Kbit, as estimated."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Known samples to use; of a run the first 16 by default."),
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option(metavar="|".join(FIDELITIES), help="Use less than the source would allow."),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Share of intervals that hold the truth, between 0 and 1.")
    ] = 0.9,
    predictor: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Fitted predictor; else the one shipped.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the front: a .png or .svg file.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Simulate the allocation and two neighbours; needs a RUN."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Share out neural cores among the layers such that the network is fastest.

    Also gives the best for every smaller number of cores, and compares with the cores that are
    configured and with an even share. LUTs and block RAMs come from a model that was fitted to
    synthesised layers (see spikemeter synth), with its error.

    Example: spikemeter allocate run --cores 24 --plot front.png --verify
    """
    from .predictor.allocation import allocate_cores

    run = _simulatable(source) if verify else None
    if plot is not None:
        from .predictor.allocation_plot import check_plot_path

        check_plot_path(plot)
    from .predictor import LatencyPredictor

    asked = None if predictor is None else LatencyPredictor.load(predictor)
    known = _first_samples(source, fidelity) if samples is None else samples
    report: dict[str, Any] = {}
    with quiet_stdout(), progress_bars() as progress:
        task = progress.add_task("searching", total=1)
        found = allocate_cores(
            source,
            cores,
            objective,
            luts=luts,
            brams=brams,
            predictor=asked,
            confidence=confidence,
            fidelity=fidelity,
            samples=known,
        )
        progress.update(task, completed=1)
        report = found.to_dict()
        if run is not None:
            from .calibration.allocation import verify_allocation

            verified = verify_allocation(run, found, samples=known, progress=steps(progress))
            report["verified"] = [asdict(point) for point in verified]
        if plot is not None:
            from .predictor.allocation_plot import plot_allocation

            report["plot"] = str(plot_allocation(found, plot))
    emit(report, as_json, _show)
    _refuse_differences(report.get("verified", []))


def _simulatable(source: Path) -> Any:
    """Load a run whose machine has RTL."""
    if not source.is_dir():
        rule = "needs a run folder, whose network can be simulated"
        raise InputError(f"--verify: {rule}; got {str(source)!r}")
    from .config import require_rtl
    from .models import load_run

    run = load_run(source)
    require_rtl(run.config)
    return run


def _refuse_differences(verified: Sequence[Mapping[str, Any]]) -> None:
    for point in verified:
        if point["difference_cycles"]:
            difference = point["difference_cycles"]
            raise TimingMismatchError(
                f"RTL and timing model differ by {difference:g} cycles on {_cores(point)} cores",
                difference_cycles=round(difference),
            )


def _show(console: Console, report: Mapping[str, Any]) -> None:
    estimate = report["estimate"]
    low, high = estimate["interval_cycles"]
    console.print(
        f"neural_cores: [{_cores(report)}], {report['cores']} of {report['budget']}\n"
        f"{estimate['cycles']:,.0f} cycles = {estimate['microseconds']:,.1f} us, "
        f"{100 * estimate['confidence']:g} % interval {low:,.0f} to {high:,.0f} cycles\n"
        f"fidelity {estimate['fidelity']}; one more sample every "
        f"{estimate['initiation_interval_cycles']:,.0f} cycles"
    )
    what = "latency" if report["objective"] == "latency" else "initiation interval"
    _show_resources(console, report)
    if report["exact"]:
        limits = "".join(f" and {most:,} {_UNITS[kind]}" for kind, most in report["limits"].items())
        within = f"within {report['budget']} cores{limits}"
        console.print(f"Proved: no allocation {within} has a lower {what}.")
    else:
        console.print(f"Another allocation may have a {what} lower by {percent(report['gap'])}.")
    _show_compared(console, report)
    show_layers(console, estimate["layers"])
    _show_front(console, report["front"])
    if "verified" in report:
        _show_verified(console, report["verified"])
    if "plot" in report:
        console.print(f"plot: {report['plot']}", soft_wrap=True)
    for warning in estimate["warnings"]:
        console.print(Text(f"warning: {warning}", "yellow"))


_UNITS = {"lut": "LUTs", "ff": "flip-flops", "bram": "block RAMs of 18 Kbit", "dsp": "DSPs"}


def _show_resources(console: Console, report: Mapping[str, Any]) -> None:
    resources = report["resources"]
    if resources is None:
        return
    limits, parts, tight = report["limits"], [], []
    for kind, unit in _UNITS.items():
        low, high = resources["intervals"][kind]
        around = f" ({low:,} to {high:,})" if high > low else ""
        parts.append(f"{resources[kind]:,} {unit}{around}")
        if kind in limits and high > limits[kind]:
            tight.append(f"up to {high:,} of {limits[kind]:,} {unit}")
    console.print(f"About {', '.join(parts)}: an estimate, with the 90 % interval of its error.")
    for each in tight:
        console.print(Text(f"warning: it may take {each}; spikemeter synth tells", "yellow"))


_COLUMNS = ("cores of each layer", "sum", "cycles", "one more every")


def _show_compared(console: Console, report: Mapping[str, Any]) -> None:
    key = "cycles" if report["objective"] == "latency" else "initiation_interval_cycles"
    best = report["front"][-1]
    table = Table("", *_COLUMNS, "")
    near = [("neighbour", point) for point in report["neighbours"]]
    for name, point in [("chosen", best), *report["compared"].items(), *near]:
        longer = f"{100 * (point[key] / best[key] - 1):+.1f} %"
        table.add_row(name, *_cells(point), "" if point is best else longer)
    console.print(table)


def _show_front(console: Console, front: Sequence[Mapping[str, Any]]) -> None:
    shown = np.arange(len(front))
    if len(front) > _FRONT_SHOWN:
        shown = np.unique(np.geomspace(1, len(front), _FRONT_SHOWN).round().astype(int) - 1)
    proved = sum(point["exact"] for point in front)
    title = f"best within fewer cores: {len(shown)} of {len(front)} points, {proved} proved"
    table = Table(*_COLUMNS, title=title)
    for index in shown.tolist():
        table.add_row(*_cells(front[index]))
    console.print(table)


def _show_verified(console: Console, verified: Sequence[Mapping[str, Any]]) -> None:
    title = f"RTL, {verified[0]['samples']} samples"
    table = Table("cores of each layer", "predicted", "cycles in RTL", "predicted",
                  "one more every", title=title)  # fmt: skip
    for point in verified:
        predicted = point["cycles"], point["initiation_interval_cycles"]
        measured = point["measured_cycles"], point["measured_initiation_interval_cycles"]
        pairs = zip(predicted, measured, strict=True)
        table.add_row(_cores(point), *(f"{cycles:,.1f}" for pair in pairs for cycles in pair))
    console.print(table)


def _cells(point: Mapping[str, Any]) -> tuple[str, str, str, str]:
    cycles, interval = point["cycles"], point["initiation_interval_cycles"]
    return _cores(point), str(point["cores"]), f"{cycles:,.0f}", f"{interval:,.0f}"


def _cores(point: Mapping[str, Any]) -> str:
    return ", ".join(map(str, point["neural_cores"]))
