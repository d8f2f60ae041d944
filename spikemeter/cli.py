"""The console command ``spikemeter``.

Commands load what they need when they run, so that ``--help`` is quick and predicting works
without the training and simulation packages.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from . import (
    _cli_allocate,
    _cli_campaign,
    _cli_datasets,
    _cli_explain,
    _cli_predictor,
    _cli_sweep,
    _cli_synth,
)
from ._cli_output import SAMPLES, JsonFlag, emit, progress_bars, quiet_stdout, steps
from ._cli_show import (
    BUCKETS,
    show_checks,
    show_demo,
    show_fit_timing,
    show_run,
    show_simulation,
    show_timeline,
)
from .errors import InputError, SpikemeterError, SpikeMismatchError
from .files import write_whole

if TYPE_CHECKING:
    from .config import Config
    from .rtl import Simulation

__all__ = ["app", "main"]

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

    with quiet_stdout(), progress_bars() as progress:
        report = run_demo(out, progress=steps(progress))
    emit(report, as_json, show_demo)
    _cli_campaign.refuse_mismatches(report["mismatches"], report["runs"])


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
    emit(report, as_json, show_checks)
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

    with quiet_stdout(), progress_bars() as progress:
        task = progress.add_task("training", total=settings.training.epochs)

        def on_epoch(done: int, total: int, metrics: Mapping[str, float]) -> None:
            accuracy = metrics.get("validation_accuracy", float("nan"))
            progress.update(
                task, completed=done, total=total, description=f"training, accuracy {accuracy:.3f}"
            )

        run = train_run(settings, out, on_epoch=on_epoch)
        progress.update(task, completed=settings.training.epochs)
    emit({"run": str(run.path), **run.result}, as_json, show_run)


@app.command()
def simulate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that train wrote.")],
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=f"Recorded test samples to simulate; the first {SAMPLES} by default."
        ),
    ] = None,
    runner: Annotated[
        Literal["native", "cocotb"],
        typer.Option(help="A C++ main, or cocotb with every assertion compiled in."),
    ] = "native",
    waves: Annotated[
        Path | None,
        typer.Option(metavar="FILE.fst", help="Waveform to write, for GTKWave or Surfer."),
    ] = None,
    waves_samples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Samples that it shows; the first by default."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate the RTL on a run's first test samples: cycles, and spikes against the reference.

    Example: spikemeter simulate run --samples 8 --waves run.fst
    """
    if waves is None and waves_samples is not None:
        raise InputError("waves-samples: needs --waves, the file to write")
    shown = 1 if waves_samples is None else waves_samples
    from .calibration import simulate_run
    from .models import load_run
    from .rtl import check_spikes

    trained = load_run(run)
    settings = trained.config
    if samples is None:
        samples = min(SAMPLES, len(trained.labels))
    with quiet_stdout(), progress_bars() as progress:
        progress.add_task(f"building and simulating {samples} samples", total=None)
        simulation, expected = simulate_run(
            trained, samples, runner=runner, waves=waves, waves_samples=shown
        )
    mismatch: SpikeMismatchError | None = None
    try:
        check_spikes(simulation, expected, settings.layers)
    except SpikeMismatchError as error:
        mismatch = error
    report = _simulation_report(settings, simulation, mismatch is None)
    if waves is not None:
        report["waves"] = str(waves)
    emit(report, as_json, partial(show_simulation, clock_mhz=settings.hardware.clock_mhz))
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
    from .predictor.timeline import check_trace_path, chrome_trace

    check_trace_path(out)
    trained = load_run(run)
    with quiet_stdout(), progress_bars() as progress:
        progress.add_task("simulating" if rtl else "timing", total=None)
        timelines = run_timelines(trained, sample=sample, rtl=rtl)
    write_whole(out, json.dumps(chrome_trace(trained.config, timelines)).encode())
    ends = {name: slices[-1].start + slices[-1].cycles for name, slices in timelines.items()}
    report: dict[str, Any] = {"out": str(out), "sample": sample, "cycles": ends}
    if rtl:
        report["equal"] = timelines["RTL"] == timelines["timing model"]
    emit(report, as_json, show_timeline)


app.command()(_cli_predictor.predict)
app.command()(_cli_allocate.allocate)
app.command()(_cli_explain.explain)
app.command()(_cli_synth.synth)
app.add_typer(_cli_datasets.app, name="datasets")
app.command()(_cli_campaign.calibrate)
app.command()(_cli_campaign.table)
app.command()(_cli_predictor.fit)
app.command()(_cli_predictor.evaluate)
app.command()(_cli_sweep.prune)


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
    with quiet_stdout(), progress_bars() as progress:
        if measurements is not None and out is not None:
            progress.add_task("fitting", total=None)
            report = dict(fit_to(measurements, out, test=test))
            backend = out
        if test is not None and backend is not None:
            scores = dict(score_timing(test, backend))
            report = {**scores, "fit": report} if report else scores
    emit(report, as_json, show_fit_timing)


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


def _simulation_report(
    config: Config, simulation: Simulation, spikes_match: bool
) -> dict[str, Any]:
    layers = [
        {
            "name": layer.name,
            "cycles": float(simulation.layer_cycles[:, index].mean()),
            "buckets": {
                bucket: float(simulation.buckets[bucket][:, index].mean()) for bucket in BUCKETS
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


if __name__ == "__main__":
    main()
