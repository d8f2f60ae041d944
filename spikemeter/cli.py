"""The console command ``spikemeter``.

Commands load what they need when they run, so that ``--help`` is quick and predicting works
without the training and simulation packages.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from .errors import InputError, RunFolderError, SpikemeterError, SpikeMismatchError
from .files import write_whole
from .predictor.estimate import FIDELITIES

if TYPE_CHECKING:
    import pandas as pd

    from .config import Config
    from .rtl import Simulation

__all__ = ["app", "main"]

_BUCKETS = {
    "encode": ("░", "cyan"),
    "accumulate": ("█", "green"),
    "fire": ("▓", "magenta"),
    "stall": ("·", "red"),
}
_BAR_CELLS = 32
_SAMPLES = 16
"""Recorded samples that `simulate` and `predict` use unless told otherwise."""

_TYPER_INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    help="Predict the hardware latency of a spiking neural network from its training choices.",
    epilog="Start with: spikemeter doctor, then: spikemeter demo --out demo-results",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]


@dataclass(slots=True)
class _Session:
    """Global options, handed to `main` for when a command ends in an error."""

    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code: 0 done, 2 bad input, 1 everything else.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after ``spikemeter``; those of the process by default.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing half written
    session = _Session()
    words = None if arguments is None else list(arguments)
    try:
        code = app(args=words, prog_name="spikemeter", obj=session, standalone_mode=False) or 0
        code = 1 if code == _TYPER_INTERRUPTED else code
    except (KeyboardInterrupt, typer.Abort):
        code = 1
    except Exception as error:
        if session.debug:
            traceback.print_exc()
        code, message = _verdict(error)
        if message:
            print(f"spikemeter: {message}", file=sys.stderr)
    sys.exit(code)


def _verdict(error: Exception) -> tuple[int, str]:
    """Exit code of an error, and what to say about it."""
    if isinstance(error, SpikemeterError):
        return error.exit_code, str(error)
    if hasattr(error, "format_message"):  # the command line itself was wrong
        return int(getattr(error, "exit_code", 2)), str(error.format_message())
    if isinstance(error, ImportError):
        from .doctor import package_remedy

        module = (error.name or "").split(".")[0]
        if remedy := package_remedy(module):
            return 1, f"this needs {module}: {remedy}"
    kind = type(error).__name__
    return 1, f"unexpected {kind}: {error} (spikemeter --debug ... shows where)"


def _print_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Predict the hardware latency of a spiking neural network from its training choices."""
    context.obj.debug = debug


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, table and plots.")] = Path(
        "demo-results"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Go the whole way on embedded data: events, training, RTL, fit, prediction, explanation.

    Everything it prints is measured while you watch. Takes some minutes.

    Example: spikemeter demo --out demo-results
    """
    from .calibration.demo import run_demo

    with _quiet_stdout(), _progress() as progress:
        report = run_demo(out, progress=_steps(progress))
    _emit(report, as_json, _show_demo)
    _refuse_mismatches(report["mismatches"], report["runs"])


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check what this machine has: packages, compilers, simulator, cache folder, GPU.

    Exit code 0 if a full installation is there, 1 otherwise.

    Example: spikemeter doctor
    """
    from .doctor import examine

    checks = examine()
    complete = all(check.ok for check in checks if check.required)
    report = {"ok": complete, "checks": [asdict(check) for check in checks]}
    _emit(report, as_json, _show_checks)
    raise typer.Exit(0 if complete else 1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a configuration file.

    Example: spikemeter schema > spikemeter.schema.json
    """
    from .config import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder to write; new or a run.")],
    as_json: JsonFlag = False,
) -> None:
    """Train a network, turn it into integers and record its spikes in a run folder.

    Example: spikemeter train config.yaml --out run
    """
    from .config import load_config

    settings = load_config(config)
    from .models import train_run

    with _quiet_stdout(), _progress() as progress:
        task = progress.add_task("training", total=settings.training.epochs)

        def on_epoch(done: int, total: int, metrics: Mapping[str, float]) -> None:
            accuracy = metrics.get("validation_accuracy", float("nan"))
            progress.update(
                task, completed=done, total=total, description=f"training, accuracy {accuracy:.3f}"
            )

        run = train_run(settings, out, on_epoch=on_epoch)
    _emit({"run": str(run.path), **run.result}, as_json, _show_run)


@app.command()
def simulate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that train wrote.")],
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=f"Recorded test samples to simulate; the first {_SAMPLES} by default."
        ),
    ] = None,
    runner: Annotated[
        Literal["native", "cocotb"],
        typer.Option(help="A C++ main, or cocotb with every assertion compiled in."),
    ] = "native",
    as_json: JsonFlag = False,
) -> None:
    """Simulate the RTL on a run's first test samples: cycles, and spikes against the reference.

    Example: spikemeter simulate run --samples 8
    """
    from .calibration import simulate_run
    from .models import load_run
    from .rtl import check_spikes

    trained = load_run(run)
    settings = trained.config
    if samples is None:
        samples = min(_SAMPLES, len(trained.labels))
    with _quiet_stdout(), _progress() as progress:
        progress.add_task(f"building and simulating {samples} samples", total=None)
        simulation, expected = simulate_run(trained, samples, runner=runner)
    mismatch: SpikeMismatchError | None = None
    try:
        check_spikes(simulation, expected, settings.layers)
    except SpikeMismatchError as error:
        mismatch = error
    report = _simulation_report(settings, simulation, mismatch is None)
    _emit(report, as_json, partial(_show_simulation, clock_mhz=settings.hardware.clock_mhz))
    if mismatch is not None:
        raise mismatch


@app.command()
def timeline(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that train wrote.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Trace to write, as JSON.")],
    sample: Annotated[int, typer.Option(help="Recorded test sample, counted from 0.")] = 0,
    rtl: Annotated[
        bool, typer.Option("--rtl", help="Simulate the RTL too, and lay it beside the model.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write what every layer does in every cycle of an inference, for a trace viewer.

    Open the file in Perfetto (ui.perfetto.dev) or chrome://tracing.

    Example: spikemeter timeline run --out trace.json --rtl
    """
    from .calibration import run_timelines
    from .models import load_run
    from .predictor.timeline import chrome_trace

    trained = load_run(run)
    with _quiet_stdout(), _progress() as progress:
        progress.add_task("simulating" if rtl else "timing", total=None)
        timelines = run_timelines(trained, sample=sample, rtl=rtl)
    write_whole(out, json.dumps(chrome_trace(trained.config, timelines)).encode())
    ends = {name: slices[-1].start + slices[-1].cycles for name, slices in timelines.items()}
    report: dict[str, Any] = {"out": str(out), "sample": sample, "cycles": ends}
    if rtl:
        report["equal"] = timelines["RTL"] == timelines["timing model"]
    _emit(report, as_json, _show_timeline)


@app.command()
def predict(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CONFIG", help="Run folder, or YAML file of settings.")
    ],
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=f"Known samples to use; the first {_SAMPLES} of a run by default."
        ),
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
    as_json: JsonFlag = False,
) -> None:
    """Predict cycles, with an interval, by the best fidelity that the source allows.

    Example: spikemeter predict config.yaml --confidence 0.9
    """
    from .predictor import LatencyPredictor, predict_latency

    with _quiet_stdout():
        estimate = predict_latency(
            source,
            confidence=confidence,
            predictor=None if predictor is None else LatencyPredictor.load(predictor),
            fidelity=fidelity,
            samples=_first_samples(source, fidelity) if samples is None else samples,
        )
    _emit(estimate.to_dict(), as_json, _show_estimate)


@app.command()
def calibrate(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="YAML file of what to run.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for runs and table.")],
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes; one per core by default.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do failed runs again.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train and simulate every run of a plan; write one table row for each.

    Stopped anywhere, the same command goes on where it was.

    Example: spikemeter calibrate plan.yaml --out campaign
    """
    from .calibration import read_plan, run_campaign

    parsed = read_plan(plan)
    with _quiet_stdout(), _progress() as progress:
        table = run_campaign(
            parsed, out, workers=workers, retry_failed=retry_failed, progress=_steps(progress)
        )
    _emit(_campaign_report(table, out), as_json, _show_campaign)
    wrong = table[table["status"] == "mismatch"]
    _refuse_mismatches(dict(zip(wrong["run_id"], wrong["reason"], strict=True)), len(table))


@app.command()
def fit(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE|DIR", help="table.parquet, or its campaign folder.")
    ],
    out: Annotated[Path, typer.Option(metavar="PREDICTOR", help="Folder to write.")],
    as_json: JsonFlag = False,
) -> None:
    """Fit a predictor to a calibration table.

    Example: spikemeter fit campaign --out predictor
    """
    from .calibration import fit_predictor, read_table

    with _quiet_stdout():
        report = fit_predictor(read_table(table), out)
    _emit(report, as_json, _show_fit)


@app.command(name="fit-timing")
def fit_timing(
    measurements: Annotated[
        Path | None,
        typer.Argument(metavar="MEASUREMENTS", help="CSV or Parquet table to fit to."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="BACKEND", help="Folder to write the fit to.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Other measurements, to score the fit.")
    ] = None,
    backend: Annotated[
        Path | None, typer.Option(metavar="BACKEND", help="Score this one, without a new fit.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit a timing model to your own measured latencies: hardware without RTL here.

    The folder is what hardware.backend of a configuration may name. Columns of a table: config
    (YAML file or JSON text), spikes (.npz), latency, unit (cycles, us, ms), hw_NAME.

    Example: spikemeter fit-timing measurements.csv --out my-board
    """
    _check_fit_timing(measurements, out, test, backend)
    from .calibration import fit_timing as fit_to
    from .calibration import score_timing

    report: dict[str, Any] = {}
    with _quiet_stdout(), _progress() as progress:
        if measurements is not None and out is not None:
            progress.add_task("fitting", total=None)
            report = dict(fit_to(measurements, out))
            backend = out
        if test is not None and backend is not None:
            scores = dict(score_timing(test, backend))
            report = {**scores, "fit": report} if report else scores
    _emit(report, as_json, _show_fit_timing)


def _check_fit_timing(
    measurements: Path | None, out: Path | None, test: Path | None, backend: Path | None
) -> None:
    """Refuse arguments that do not say whether to fit or to score."""
    if measurements is None:
        if test is None or backend is None or out is not None:
            rule = "give MEASUREMENTS and --out to fit, or --test and --backend to score"
            raise InputError(f"fit-timing: {rule}")
    elif out is None or backend is not None:
        raise InputError("fit-timing: MEASUREMENTS need --out, and no --backend")


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Keep stdout for results: whatever libraries print meanwhile goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _progress() -> Progress:
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


def _steps(progress: Progress) -> Callable[[str, int, int], None]:
    """One bar per named step, for functions that report (step, done, total)."""
    tasks: dict[str, Any] = {}

    def report(step: str, done: int, total: int) -> None:
        if step not in tasks:
            tasks[step] = progress.add_task(step, total=total)
        progress.update(tasks[step], completed=done, total=total)

    return report


def _emit(
    report: Mapping[str, Any], as_json: bool, show: Callable[[Console, Mapping[str, Any]], None]
) -> None:
    if as_json:
        print(json.dumps(report, indent=2, allow_nan=False, default=_plain))
    else:
        show(Console(highlight=False), report)


def _plain(value: Any) -> Any:
    """JSON form of a path or of a numpy scalar or array."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _simulation_report(
    config: Config, simulation: Simulation, spikes_match: bool
) -> dict[str, Any]:
    layers = [
        {
            "name": layer.name,
            "cycles": float(simulation.layer_cycles[:, index].mean()),
            "buckets": {
                bucket: float(simulation.buckets[bucket][:, index].mean()) for bucket in _BUCKETS
            },
        }
        for index, layer in enumerate(config.layers)
    ]
    return {
        "cycles": float(simulation.cycles.mean()),
        "samples": {"cycles": simulation.cycles.tolist()},
        "layers": layers,
        "initiation_interval_cycles": simulation.initiation_interval_cycles,
        "spikes_match": spikes_match,
        "simulated_cycles_per_second": simulation.simulated_cycles_per_second,
        "simulator": simulation.simulator,
    }


def _campaign_report(table: pd.DataFrame, out: Path) -> dict[str, Any]:
    counts = {str(status): int(count) for status, count in table["status"].value_counts().items()}
    failed = table[table["reason"].notna()]
    return {
        "table": str(out / "table.parquet"),
        "runs": len(table),
        "status": counts,
        "reasons": dict(zip(failed["run_id"], failed["reason"], strict=True)),
    }


def _refuse_mismatches(reasons: Mapping[str, str], runs: int) -> None:
    """Name the first of the runs (reasons by run_id) whose RTL spikes otherwise."""
    for run_id, reason in reasons.items():
        raise SpikeMismatchError(
            f"RTL and reference disagree in {len(reasons)} of {runs} runs; "
            f"run {run_id[:12]}: {reason}"
        )


def _first_samples(source: Path, fidelity: str | None) -> int | None:
    """As many samples of a run folder as `simulate` takes by default; None where none are read."""
    trace = source / "trace.npz"
    if fidelity == "hyperparameters" or not trace.is_file():
        return None
    from .config import load_config
    from .predictor.spikes import read_spikes

    known = read_spikes(trace, load_config(source), refusal=RunFolderError)
    return min(_SAMPLES, known.samples)


def _show_fit(console: Console, report: Mapping[str, Any]) -> None:
    scores = report["scores"]
    measures = list(next(iter(scores.values())))
    table = Table("cycles of unseen runs", *measures, title=f"fitted to {report['runs']} runs")
    for name, values in scores.items():
        table.add_row(name, *(_number(values[measure]) for measure in measures))
    console.print(table)
    for key, value in report.items():
        if not isinstance(value, Mapping):
            absent = "no repeats" if key == "noise_floor_log" else "none"
            console.print(f"{key}: {absent if value is None else _number(value)}")


_GROUPS_SHOWN = 5
_NO_SHARE = 1e-9  # of rounding


def _show_fit_timing(console: Console, report: Mapping[str, Any]) -> None:
    fitted = report.get("fit", report)
    if "terms" in fitted:
        _show_backend(console, fitted)
    if "in_domain" in report:
        console.print(
            f"{report['rows']} other measurements: {_percent(report['mape'])} off on average, "
            f"99 % within {_percent(report['p99'])}; {_percent(report['coverage'])} inside their "
            f"90 % interval, {_percent(report['in_domain'])} in the domain of {report['backend']}"
        )
        _show_groups(console, report["by_group"], "worst of the other measurements")


def _show_backend(console: Console, report: Mapping[str, Any]) -> None:
    table = Table("part", "cycles", "for each", "share", title=f"fitted: {report['backend']}")
    for term in report["terms"]:
        cost, share = f"{term['cycles']:.4g}", _percent(term["share"])
        table.add_row(Text(term["name"]), cost, term["unit"], share)
    console.print(table)
    for sentence in report["summary"]:
        console.print(f"- {sentence}")
    residual = report["residual"]
    if residual["error_with"] is not None:
        verdict = "kept" if residual["won"] else "left out"
        console.print(
            f"A residual model is {verdict}: {_percent(residual['error_without'])} off without, "
            f"{_percent(residual['error_with'])} with it"
        )
    console.print(
        f"{report['rows']} measurements of {report['groups']} networks and machines; unseen ones "
        f"are {_percent(report['mape'])} off on average, 99 % within {_percent(report['p99'])}"
    )
    _show_groups(console, report["by_group"], "worst when unseen")
    following = report["next"]
    console.print(
        f"Worth measuring next: more like row {following['row']} ({following['network']}); "
        f"{following['why']}"
    )
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", "yellow"))


def _show_groups(console: Console, groups: Sequence[Mapping[str, Any]], title: str) -> None:
    table = Table("network", "cores", "rows", "off by", title=title)
    for group in groups[:_GROUPS_SHOWN]:
        cores = ", ".join(map(str, group["neural_cores"]))
        table.add_row(group["network"], cores, str(group["rows"]), _percent(group["mape"]))
    console.print(table)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share > _NO_SHARE else "0 %"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _show_checks(console: Console, report: Mapping[str, Any]) -> None:
    table = Table("needed for", "what", "state", "found, or how to get it")
    for check in report["checks"]:
        state = Text("ok", "green") if check["ok"] else Text("missing", "red")
        if not check["ok"] and check["needed_for"] == "speed":
            state = Text("optional", "yellow")
        found = Text(check["found"] or check["remedy"], overflow="fold")
        table.add_row(check["needed_for"], check["name"], state, found)
    console.print(table)
    console.print("Everything is there." if report["ok"] else "Something is missing.")


def _show_run(console: Console, report: Mapping[str, Any]) -> None:
    if report["status"] == "diverged":
        console.print(
            f"{report['run']}: diverged, a loss or gradient was not finite, so there is no network "
            "to simulate; try a lower training.lr.",
            soft_wrap=True,
        )
        return
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


def _show_timeline(console: Console, report: Mapping[str, Any]) -> None:
    for name, cycles in report["cycles"].items():
        console.print(f"{name}: {cycles:,} cycles")
    if "equal" in report:
        console.print("equal in every cycle" if report["equal"] else "[red]not equal[/]")
    console.print(f"written to {report['out']}; open it in Perfetto (ui.perfetto.dev)")


def _show_simulation(console: Console, report: Mapping[str, Any], *, clock_mhz: float) -> None:
    cycles, interval = report["cycles"], report["initiation_interval_cycles"]
    console.print(
        f"{cycles:,.0f} cycles = {cycles / clock_mhz:,.1f} us, mean of the first "
        f"{len(report['samples']['cycles'])} samples; one more every {interval:,.0f} cycles"
    )
    _show_layers(console, report["layers"])
    verdict = "equal the reference" if report["spikes_match"] else "DIFFER from the reference"
    speed = report["simulated_cycles_per_second"]
    console.print(f"Spikes {verdict}. {report['simulator']}, {speed:,.0f} cycles per second.")


def _show_estimate(console: Console, report: Mapping[str, Any]) -> None:
    cycles, microseconds = report["cycles"], report["microseconds"]
    low, high = report["interval_cycles"]
    console.print(
        f"{cycles:,.0f} cycles = {microseconds:,.1f} us, "
        f"{100 * report['confidence']:g} % interval {low:,.0f} to {high:,.0f} cycles"
    )
    console.print(
        f"fidelity {report['fidelity']}; "
        f"one more sample every {report['initiation_interval_cycles']:,.0f} cycles"
    )
    if report["samples"]["cycles"]:
        console.print(
            f"mean of the first {len(report['samples']['cycles'])} samples, "
            f"the slowest takes {report['worst_case_cycles']:,.0f} cycles"
        )
    _show_layers(console, report["layers"])
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", "yellow"))


def _show_layers(console: Console, layers: Sequence[Mapping[str, Any]]) -> None:
    rates = any(layer.get("input_rate") is not None for layer in layers)
    headings = ["layer", *(["spikes in"] if rates else []), "cycles"]
    legend = Text.assemble(
        *((f"{glyph} {name}  ", colour) for name, (glyph, colour) in _BUCKETS.items())
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
    for name, (glyph, colour) in _BUCKETS.items():
        total += buckets[name]
        end = round(_BAR_CELLS * total / longest)
        bar.append(glyph * (end - drawn), colour)
        drawn = max(drawn, end)
    return bar


def _show_campaign(console: Console, report: Mapping[str, Any]) -> None:
    states = ", ".join(f"{count} {status}" for status, count in report["status"].items())
    console.print(f"{report['runs']} runs ({states}) in {report['table']}")
    for run_id, reason in report["reasons"].items():
        console.print(Text(f"{run_id[:12]}: {reason}", "yellow"))


def _show_demo(console: Console, report: Mapping[str, Any]) -> None:
    from .calibration.demo import show_demo

    show_demo(console, report)


if __name__ == "__main__":
    main()
