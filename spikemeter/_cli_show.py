"""What commands print for people: one function per report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._cli_output import number, percent

BUCKETS = {
    "encode": ("░", "cyan"),
    "accumulate": ("█", "green"),
    "fire": ("▓", "magenta"),
    "stall": ("·", "red"),
}
_BAR_CELLS = 32


def show_fit(console: Console, report: Mapping[str, Any]) -> None:
    scores = report["scores"]
    measures = list(next(iter(scores.values())))
    table = Table("cycles of unseen runs", *measures, title=f"fitted to {report['runs']} runs")
    for name, values in scores.items():
        table.add_row(name, *(number(values[measure]) for measure in measures))
    console.print(table)
    for key, value in report.items():
        if not isinstance(value, Mapping):
            absent = "no repeats" if key == "noise_floor_log" else "none"
            console.print(f"{key}: {absent if value is None else number(value)}")


_SCORES = ("rmse_log", "r2_log", "mape", "spearman")


def show_evaluation(console: Console, report: Mapping[str, Any]) -> None:
    title = f"{report['split']}: {report['rows']} rows, learned from {report['rows_learned_from']}"
    table = Table("log cycles", *_SCORES, title=title)
    table.add_row("spikemeter", *(number(report[score]) for score in _SCORES))
    for name, values in report["baselines"].items():
        table.add_row(name, *(number(values[score]) for score in _SCORES))
    if report["noise_floor_log"] is not None:
        ceilings = ("noise_floor_log", "r2_log_ceiling", None, "spearman_ceiling")
        cells = ["" if key is None else number(report[key]) for key in ceilings]
        table.add_row("what the noise of seeds leaves", *cells)
    console.print(table)
    console.print(
        f"{percent(report['coverage'])} of the 90 % intervals hold; they are "
        f"{percent(report['mean_width'])} wide on average; {percent(report['in_domain'])} of the "
        f"rows lie in the domain; {percent(report['within_10_percent'])} within 10 %"
    )
    console.print(
        f"accuracy: {100 * report['accuracy_mae']:.1f} points off on average, "
        f"{percent(report['accuracy_coverage'])} of its intervals hold"
    )
    for key, of in (("by_dataset", "data set"), ("by_network", "network")):
        parts = Table(of, "rows", *_SCORES, "coverage")
        for name, values in report[key].items():
            cells = [number(values[score]) for score in _SCORES]
            parts.add_row(Text(name), str(values["rows"]), *cells, percent(values["coverage"]))
        console.print(parts)


_GROUPS_SHOWN = 5


def show_fit_timing(console: Console, report: Mapping[str, Any]) -> None:
    fitted = report.get("fit", report)
    if "terms" in fitted:
        show_backend(console, fitted)
    if "in_domain" in report:
        console.print(
            f"{report['rows']} other measurements: {percent(report['mape'])} off on average, "
            f"99 % within {percent(report['p99'])}; {percent(report['coverage'])} inside their "
            f"90 % interval, {percent(report['in_domain'])} in the domain of {report['backend']}"
        )
        show_groups(console, report["by_group"], "worst of the other measurements")


def show_backend(console: Console, report: Mapping[str, Any]) -> None:
    table = Table("part", "cycles", "for each", "share", title=f"fitted: {report['backend']}")
    for term in report["terms"]:
        cost, share = f"{term['cycles']:.4g}", percent(term["share"])
        table.add_row(Text(term["name"]), cost, term["unit"], share)
    console.print(table)
    for sentence in report["summary"]:
        console.print(f"- {sentence}")
    residual = report["residual"]
    if residual["error_with"] is not None:
        verdict = "kept" if residual["won"] else "left out"
        console.print(
            f"A residual model is {verdict}: {percent(residual['error_without'])} off without, "
            f"{percent(residual['error_with'])} with it"
        )
    console.print(
        f"{report['rows']} measurements of {report['groups']} groups; unseen ones "
        f"are {percent(report['mape'])} off on average, 99 % within {percent(report['p99'])}"
    )
    show_groups(console, report["by_group"], "worst when unseen")
    following = report["next"]
    console.print(
        f"Worth measuring next: more like row {following['row']} ({following['network']}); "
        f"{following['why']}"
    )
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", "yellow"))


def show_groups(console: Console, groups: Sequence[Mapping[str, Any]], title: str) -> None:
    table = Table("network", "cores", "rows", "off by", title=title)
    for group in groups[:_GROUPS_SHOWN]:
        cores = ", ".join(map(str, group["neural_cores"]))
        table.add_row(group["network"], cores, str(group["rows"]), percent(group["mape"]))
    console.print(table)


def show_checks(console: Console, report: Mapping[str, Any]) -> None:
    table = Table("needed for", "what", "state", "found, or how to get it")
    for check in report["checks"]:
        state = Text("ok", "green") if check["ok"] else Text("missing", "red")
        if not check["ok"] and check["needed_for"] == "speed":
            state = Text("optional", "yellow")
        found = Text(check["found"] or check["remedy"], overflow="fold")
        table.add_row(check["needed_for"], check["name"], state, found)
    console.print(table)
    console.print("Everything is there." if report["ok"] else "Something is missing.")


def show_run(console: Console, report: Mapping[str, Any]) -> None:
    if report["status"] == "diverged":
        console.print(
            f"{report['run']}: diverged, a loss or gradient was not finite, so there is no network "
            "to simulate; try a lower training.lr.",
            soft_wrap=True,
        )
        return
    if report.get("stopped_at_epoch"):
        console.print(f"stopped after epoch {report['stopped_at_epoch']}")
    for warning in report.get("warnings", []):
        console.print(Text(f"warning: {warning}", "yellow"))
    accuracy = report["accuracy"]
    table = Table("accuracy", "validation", "test", title=f"{report['run']}: {report['status']}")
    for kind in ("float", "integer"):
        values = accuracy[kind]
        table.add_row(kind, *(f"{100 * values[split]:.1f} %" for split in ("validation", "test")))
    console.print(table)
    rates = Table("layer", "spikes in, per line and step", "spikes out, per neuron and step")
    for layer in report["layers"]:
        rates.add_row(layer["name"], f"{layer['input_rate']:.4f}", f"{layer['firing_rate']:.4f}")
    console.print(rates)


def show_timeline(console: Console, report: Mapping[str, Any]) -> None:
    for name, cycles in report["cycles"].items():
        console.print(f"{name}: {cycles:,} cycles")
    if "equal" in report:
        console.print("equal in every cycle" if report["equal"] else "[red]not equal[/]")
    console.print(f"written to {report['out']}; open it in Perfetto (ui.perfetto.dev)")


def show_simulation(console: Console, report: Mapping[str, Any], *, clock_mhz: float) -> None:
    cycles, interval = report["cycles"], report["initiation_interval_cycles"]
    console.print(
        f"{cycles:,.0f} cycles = {cycles / clock_mhz:,.1f} us, mean of the first "
        f"{len(report['samples']['cycles'])} samples; one more every {interval:,.0f} cycles"
    )
    show_layers(console, report["layers"])
    verdict = "equal the reference" if report["spikes_match"] else "DIFFER from the reference"
    speed = report["simulated_cycles_per_second"]
    console.print(f"Spikes {verdict}. {report['simulator']}, {speed:,.0f} cycles per second.")
    if "waves" in report:
        console.print(f"Waves: {report['waves']}", markup=False)


_LEVELS = {
    "taps": "counts per channel, with taps",
    "channels": "counts per channel, without taps",
    "layers": "counts per layer and step",
}


def show_estimate(console: Console, report: Mapping[str, Any]) -> None:
    cycles, microseconds = report["cycles"], report["microseconds"]
    low, high = report["interval_cycles"]
    console.print(
        f"{cycles:,.0f} cycles = {microseconds:,.1f} us, "
        f"{100 * report['confidence']:g} % interval {low:,.0f} to {high:,.0f} cycles"
    )
    known = _LEVELS.get(report["statistics_level"])
    console.print(
        f"fidelity {report['fidelity']}{f' ({known})' if known else ''}; "
        f"one more sample every {report['initiation_interval_cycles']:,.0f} cycles"
    )
    if report.get("accuracy") is not None:
        worst, best = report["interval_accuracy"]
        console.print(
            f"accuracy after training {100 * report['accuracy']:.0f} %, "
            f"interval {100 * worst:.0f} to {100 * best:.0f} %"
        )
    if report["samples"]["cycles"]:
        console.print(
            f"mean of the first {len(report['samples']['cycles'])} samples, "
            f"the slowest takes {report['worst_case_cycles']:,.0f} cycles"
        )
    show_layers(console, report["layers"])
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", "yellow"))


def show_layers(console: Console, layers: Sequence[Mapping[str, Any]]) -> None:
    rates = any(layer.get("input_rate") is not None for layer in layers)
    headings = ["layer", *(["spikes in"] if rates else []), "cycles"]
    legend = Text.assemble(
        *((f"{glyph} {name}  ", colour) for name, (glyph, colour) in BUCKETS.items())
    )
    table = Table(*headings)
    table.add_column(legend)
    longest = max((layer["cycles"] for layer in layers), default=0.0) or 1.0
    for layer in layers:
        cells: list[str | Text] = [layer["name"]]
        if rates:
            cells.append(f"{layer['input_rate']:.4f}")
        cells.append(f"{layer['cycles']:,.0f}")
        table.add_row(*cells, _bar(layer["buckets"], longest))
    console.print(table)


def _bar(buckets: Mapping[str, float], longest: float) -> Text:
    """Cycles by bucket, drawn to the scale of the longest layer."""
    bar, drawn, total = Text(), 0, 0.0
    for name, (glyph, colour) in BUCKETS.items():
        total += buckets[name]
        end = round(_BAR_CELLS * total / longest)
        bar.append(glyph * (end - drawn), colour)
        drawn = max(drawn, end)
    return bar


def show_demo(console: Console, report: Mapping[str, Any]) -> None:
    from .calibration.demo import show_demo

    show_demo(console, report)
