"""Campaigns: every run of a plan is trained, simulated, checked and measured once.

    out/plan.yaml              the plan as it was run
    out/runs/<run_id>/         run folders
    out/rows/<run_id>.parquet  one row, written whole as soon as its run is finished
    out/table.parquet          the rows of the plan, in the order of the plan

A run is known by what decides its outcome: its configuration and the versions of the stages. So a
campaign that was stopped goes on where it was, and a plan that grew only does what is new.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError, MissingToolError, RunFolderError, SpikeMismatchError
from ..files import write_whole
from ..network import Layer
from ..predictor.features import row_from_config
from ..predictor.timing import spike_taps
from .plan import Plan
from .table import TABLE_NAME, read_rows, table_of, write_table

if TYPE_CHECKING:
    import pandas as pd

    from ..models import Run, SpikeTrains
    from ..rtl import Simulation

__all__ = [
    "FAILED",
    "MISMATCH",
    "measure",
    "run_campaign",
    "run_id_of",
    "simulate_run",
    "stage_versions",
]

FAILED = "failed"
"""Status of a run that ended in an error; its reason says which."""

MISMATCH = "mismatch"
"""Status of a run whose RTL does not spike like the reference."""

CRASHED = "crashed"
"""Status of a run whose process died."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, what is done of it, and how much there is."""

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_campaign(
    plan: Plan,
    out: str | Path,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Do every run of a plan that has no row yet, and write the table.

    Parameters
    ----------
    plan : Plan
        Validated as a whole before anything runs.
    out : str or Path
        Folder of the campaign; the same folder again goes on where it was.
    workers : int, optional
        Processes, with one thread each; one per core by default.
    retry_failed : bool
        Do runs again that failed before.
    progress : callable, optional
        Told about the steps ``events`` and ``runs``.

    Returns
    -------
    DataFrame
        The table: one row per run, in the order of the plan. A run that failed is a row with its
        status and reason.

    Raises
    ------
    ConfigError
        If a run of the plan is no valid configuration.
    InputError
        If `out` cannot be a folder, or there are no workers.
    MissingToolError
        If a compiler or package is missing, which would fail every run alike.
    """
    from ..rtl.toolchain import tool_environment

    if workers is not None and workers < 1:
        raise InputError(f"workers: must be at least 1, got {workers}")
    report = progress or (lambda step, done, total: None)
    out = Path(out)
    versions = stage_versions()
    configs = {run_id_of(config, versions): config for config in plan.configs}
    missing = {
        run_id: config
        for run_id, config in configs.items()
        if not _is_done(_row_path(out, run_id), plan.samples, retry_failed)
    }
    if missing:
        tool_environment()  # says now what is missing, not after the first training
    _prepare(plan, out)
    report("runs", len(configs) - len(missing), len(configs))
    if missing:
        _warm_data(missing.values(), report)
        jobs = [
            _Job(run_id=run_id, config=config, out=out, samples=plan.samples, versions=versions)
            for run_id, config in missing.items()
        ]
        done = len(configs) - len(missing)
        for count, _ in enumerate(_finish(jobs, workers or os.cpu_count() or 1), start=done + 1):
            report("runs", count, len(configs))
    table = pa.concat_tables([read_rows(_row_path(out, run_id)) for run_id in configs])
    write_table(table, out / TABLE_NAME)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def run_id_of(config: Config, versions: Mapping[str, int]) -> str:
    """SHA-256 of a configuration and the versions of the stages that turn it into a row."""
    content = {"config": config.model_dump(mode="json"), "versions": dict(versions)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stage_versions() -> dict[str, int]:
    """Versions of the stages data, train, quantise and rtl, as the columns name them."""
    from ..datasets import DATA_VERSION
    from ..models import QUANTISE_VERSION, TRAIN_VERSION
    from ..rtl import RTL_VERSION

    return {
        "version.data": DATA_VERSION,
        "version.train": TRAIN_VERSION,
        "version.quantise": QUANTISE_VERSION,
        "version.rtl": RTL_VERSION,
    }


def measure(config: Config, folder: Path, samples: int) -> dict[str, Any]:
    """Train a configuration if its run folder is not there yet, simulate it, and check it.

    Parameters
    ----------
    config : Config
        What to train.
    folder : Path
        Run folder.
    samples : int
        Test samples to simulate, from the first on.

    Returns
    -------
    dict
        Status and measured columns of a row.

    Raises
    ------
    SpikemeterError
        If training or simulation fails, or RTL and reference disagree.
    """
    from ..models import load_run, train_run
    from ..rtl import check_spikes

    try:
        run = load_run(folder)
    except RunFolderError:
        run = train_run(config, folder)
    if run.status == "diverged":
        return {"status": run.status, "reason": "a loss or gradient was not finite"}
    start = time.perf_counter()
    simulation, spikes = simulate_run(run, samples)
    seconds = time.perf_counter() - start - simulation.build_seconds
    check_spikes(simulation, spikes, config.layers)
    return {
        "status": run.status,
        **_training_columns(run),
        **_spike_columns(config, spikes),
        **_cycle_columns(simulation),
        "seconds.simulate": seconds,
    }


def simulate_run(
    run: Run, samples: int, *, runner: Literal["native", "cocotb"] = "native"
) -> tuple[Simulation, SpikeTrains]:
    """Simulate the RTL of a run on its first recorded samples.

    Parameters
    ----------
    run : Run
        Trained.
    samples : int
        How many of its samples, from the first on.
    runner : {"native", "cocotb"}, optional
        What drives the RTL; see `spikemeter.rtl.simulate`.

    Returns
    -------
    Simulation
        Cycles and spikes of the RTL.
    SpikeTrains
        What the integer reference spikes, for `spikemeter.rtl.check_spikes`.

    Raises
    ------
    InputError
        If the run has fewer samples, or its configuration names a machine without RTL.
    RunFolderError
        If its recorded spikes are not those of its network.
    SpikemeterError
        If a tool is missing, or the simulation fails.
    """
    from ..models import network_spikes
    from ..rtl import simulate

    recorded = run.inputs[0]
    if not 1 <= samples <= len(recorded):
        rule = f"must be 1 to {len(recorded)}, the samples recorded in {str(run.path)!r}"
        raise InputError(f"samples: {rule}; got {samples}")
    size = run.config.input
    shape = (samples, size.time_steps, size.channels, size.height, size.width)
    frames = recorded[:samples].reshape(shape)
    expected = network_spikes(run.network, frames)
    _check_trace(run, expected)
    return simulate(run.config, run.network, frames, runner=runner), expected


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One run that is to be done."""

    run_id: str
    config: Config
    out: Path
    samples: int
    versions: Mapping[str, int]


def _check_trace(run: Run, expected: SpikeTrains) -> None:
    """Refuse recorded spikes that another network left: predictions from them would be wrong."""
    names = [*(f"inputs_{index}" for index in range(len(run.inputs))), "outputs"]
    computed = (*expected.inputs, expected.outputs)
    for name, recorded, spikes in zip(names, (*run.inputs, run.outputs), computed, strict=True):
        wrong = (recorded[: len(spikes)].reshape(spikes.shape) != spikes).reshape(len(spikes), -1)
        if wrong.any():
            raise RunFolderError(
                f"cannot use {str(run.path / 'trace.npz')!r}: {name} must be what network.npz "
                f"spikes, it differs in sample {int(wrong.any(axis=1).argmax())}; train again"
            )


def _start_worker() -> None:
    """Print to stderr, since stdout is for results, and end at once when told to while idle."""
    os.dup2(2, 1)
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _interrupt_once(*_: object) -> NoReturn:
    """Interrupt, and let no further signal interrupt the tidying up."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, lambda *_: None)  # SIG_IGN fails if one is already on its way
    raise KeyboardInterrupt


@contextmanager
def _tidy_ending() -> Iterator[None]:
    """Let a worker that is told to end remove first what it has half written."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, _interrupt_once)
    try:
        yield
    except KeyboardInterrupt:
        os._exit(1)  # not raised: the pool would report it and give this process the next run
    finally:
        for number in _ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def _run_job(job: _Job) -> None:
    """Do one run and write its row, whatever comes of it; the body of a worker process."""
    try:
        with _tidy_ending():
            measured = measure(job.config, job.out / "runs" / job.run_id, job.samples)
    except (MissingToolError, ImportError):
        raise  # no fault of this run: every other one would fail alike
    except SpikeMismatchError as error:
        measured = {"status": MISMATCH, "reason": str(error), "spikes_match": False}
    except Exception as error:
        measured = {"status": FAILED, "reason": f"{type(error).__name__}: {error}"}
    _write_row(job, measured)


def _write_row(job: _Job, measured: Mapping[str, Any]) -> None:
    row = {"run_id": job.run_id, **row_from_config(job.config), **job.versions, **measured}
    write_table(table_of([row]), _row_path(job.out, job.run_id))


def _finish(jobs: Sequence[_Job], workers: int) -> Iterator[_Job]:
    """Run jobs side by side and yield each when its row is written.

    A process that dies takes its pool with it and does not say which job it had. So what is then
    left runs one by one, and the job that kills its own process becomes a row too.
    """
    left = {job.run_id: job for job in jobs}
    try:
        for job in _finish_in_pool(jobs, min(workers, len(jobs))):
            del left[job.run_id]
            yield job
    except BrokenProcessPool:
        for job in list(left.values()):
            try:
                yield from _finish_in_pool([job], 1)
            except BrokenProcessPool:
                reason = "its process died; out of memory?"
                _write_row(job, {"status": CRASHED, "reason": reason})
                yield job


def _finish_in_pool(jobs: Sequence[_Job], workers: int) -> Iterator[_Job]:
    others = multiprocessing.active_children()
    with _single_threaded_children():
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
        )
        try:
            futures = {pool.submit(_run_job, job): job for job in jobs}
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:  # no row will come of what still runs, so do not wait for it
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let numerical libraries of child processes use one thread each."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _prepare(plan: Plan, out: Path) -> None:
    """Make the folder and note the plan in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: cannot make the folder {str(out)!r}: {error.strerror}") from error
    text = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False)
    write_whole(out / "plan.yaml", text.encode())


def _row_path(out: Path, run_id: str) -> Path:
    return out / "rows" / f"{run_id}.parquet"


def _is_done(path: Path, samples: int, retry_failed: bool) -> bool:
    """Tell whether a run has its row, measured on as many samples as asked for."""
    try:
        row = read_rows(path).to_pylist()[0]
    except InputError:
        return False
    if row["samples"] is None:
        return not retry_failed or row["status"] not in (FAILED, MISMATCH, CRASHED)
    return bool(row["samples"] == samples)


def _warm_data(configs: Iterable[Config], report: Progress) -> None:
    """Record events once, before several processes would each do it."""
    from ..datasets import load_splits

    for config in {(config.dataset, config.input): config for config in configs}.values():
        load_splits(config, on_progress=lambda done, total: report("events", done, total))


def _training_columns(run: Run) -> dict[str, Any]:
    accuracy = run.result["accuracy"]
    return {
        "seconds.train": float(run.result["seconds"]),
        **{
            f"accuracy.{kind}.{split}": accuracy[kind][split]
            for kind in ("float", "integer")
            for split in ("validation", "test")
        },
    }


def _spike_columns(config: Config, spikes: SpikeTrains) -> dict[str, Any]:
    """Rates of every layer, means over the simulated samples."""
    leaving = (*spikes.inputs[1:], spikes.outputs)
    frames = spikes.inputs[0]
    return {
        "layers.name": [layer.name for layer in config.layers],
        "layers.input_rate": [float(entering.mean()) for entering in spikes.inputs],
        "layers.firing_rate": [float(fired.mean()) for fired in spikes.fired],
        "layers.output_rate": [float(spikes.mean()) for spikes in leaving],
        "layers.taps": [
            _taps_per_spike(layer, entering)
            for layer, entering in zip(config.layers, spikes.inputs, strict=True)
        ],
        "input.events": frames.sum(axis=(3, 4)).mean(axis=0).ravel().tolist(),
        "samples": len(frames),
    }


def _taps_per_spike(layer: Layer, spikes: NDArray[np.bool_]) -> float:
    """Mean kernel taps inside the frame per spike; 0 without spikes."""
    return float(spike_taps(layer, spikes).sum()) / max(int(spikes.sum()), 1)


def _cycle_columns(simulation: Simulation) -> dict[str, Any]:
    cycles = simulation.cycles.astype(np.float64)
    return {
        "layers.cycles": simulation.layer_cycles.mean(axis=0).tolist(),
        "cycles.mean": float(cycles.mean()),
        "cycles.sd": float(cycles.std(ddof=1)) if len(cycles) > 1 else 0.0,
        "cycles.min": float(cycles.min()),
        "cycles.max": float(cycles.max()),
        "initiation_interval_cycles": float(simulation.initiation_interval_cycles),
        "spikes_match": True,
    }
