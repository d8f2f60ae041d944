"""What a campaign costs beside its runs, on rows that are made up.

    python benchmarks/campaign.py [--rows 100000] [--runs 2000] [--out FILE]

A store is filled with rows as wide as real ones. Opening, filtering and resuming it are then timed,
each in a process of its own whose memory is noted, and so is a campaign whose runs do nothing:
what scheduling and storing take per run. So are batches of one row, as long runs leave them, that
come after a file which is half full. Figures go to the screen and to FILE.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from spikemeter.calibration.campaign import CampaignState, plan_of, run_campaign
from spikemeter.calibration.drive import drive
from spikemeter.calibration.plan import Plan
from spikemeter.calibration.runs import DONE_COLUMNS, done_runs, run_numbers
from spikemeter.calibration.splits import freeze_splits
from spikemeter.calibration.store import (
    BATCHES_TO_MERGE,
    FULL_BATCH_ROWS,
    append_rows,
    merge_batches,
    read_store,
    stage_versions,
)
from spikemeter.calibration.table import SPREAD
from spikemeter.calibration.view import read_rows_where
from spikemeter.calibration.worker import Job
from spikemeter.predictor.features import row_from_config
from spikemeter.predictor.machine import BUCKETS

BATCH_ROWS = 64
SINGLE_ROWS = 1024
EPOCHS = 10
PLAN = {
    "base": {"dataset": "nmnist-saccade", "input": {"time_steps": 8}},
    "vary": {
        "network": ["8C3-MP2-16C3-MP2-10", "16C3-MP2-32C3-MP2-10"],
        "surrogate.name": ["fast_sigmoid", "atan"],
        "surrogate.slope": {"low": 1, "high": 100, "log": True},
        "neuron.beta": {"low": 0.3, "high": 0.99},
        "neuron.threshold": {"low": 0.3, "high": 2.0},
        "training.lr": {"low": 3.0e-4, "high": 2.0e-2, "log": True},
        "training.weight_bits": [2, 4, 8],
    },
    "sampler": "sobol",
    "samples": 16,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows in the store")
    parser.add_argument("--runs", type=int, default=2_000, help="runs that do nothing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/campaign.json"))
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps(measured(MEASURES[given.measure], given.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as place:
        report = benchmark(given.rows, given.runs, Path(place))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(f"{json.dumps(report, indent=1)}\n")
    show(report)


def benchmark(rows: int, runs: int, place: Path) -> dict[str, Any]:
    plan = Plan.model_validate(PLAN | {"runs": rows})
    folder = place / "full"
    validating, _ = timed(lambda: plan.digests)
    prepare(plan, folder)
    storing, _ = timed(lambda: fill(plan, folder))
    figures = {name: in_process(name, folder) for name in MEASURES}
    scheduling = idle_campaign(runs, place / "idle")
    single = single_rows(place / "single")
    files = list((folder / "rows").glob("*.parquet"))
    return {
        "rows": rows,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "store": {"files": len(files), "bytes": sum(file.stat().st_size for file in files)},
        "validating_ms_per_run": 1000 * validating / rows,
        "storing_ms_per_run": 1000 * storing / rows,
        **figures,
        "idle_runs": runs,
        "scheduling_and_storing_ms_per_run": scheduling,
        "storing_single_rows_ms_per_run": single,
    }


def prepare(plan: Plan, folder: Path) -> None:
    """Leave a folder as a campaign does before its first run."""
    folder.mkdir()
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False))
    run_numbers(plan, folder)
    freeze_splits(plan, folder)


def fill(plan: Plan, folder: Path) -> None:
    """Write a row for every run, in batches that are merged now and then."""
    rows: list[dict[str, Any]] = []
    for written, row in enumerate(made_up_rows(plan, folder), start=1):
        rows.append(row)
        if len(rows) == BATCH_ROWS:
            append_rows(folder, rows)
            rows = []
        if written % (BATCH_ROWS * BATCHES_TO_MERGE) == 0:
            merge_batches(folder)
    append_rows(folder, rows)
    merge_batches(folder, least=2, whole=True)


def single_rows(folder: Path) -> float:
    """Milliseconds for a row that is a batch of its own, merges included."""
    first = FULL_BATCH_ROWS // 2
    plan = Plan.model_validate(PLAN | {"runs": first + SINGLE_ROWS})
    prepare(plan, folder)
    rows = list(made_up_rows(plan, folder))
    append_rows(folder, rows[:first])
    seconds, _ = timed(lambda: append_single(folder, rows[first:]))
    assert read_store(folder, ["status"]).table.num_rows == len(rows)
    return 1000 * seconds / SINGLE_ROWS


def append_single(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    for written, row in enumerate(rows, start=1):
        append_rows(folder, [row])
        if written % BATCHES_TO_MERGE == 0:
            merge_batches(folder)


def made_up_rows(plan: Plan, folder: Path) -> Iterator[dict[str, Any]]:
    versions = stage_versions()
    for run_id, number in run_numbers(plan, folder).items():
        config = plan.config(number)
        measured = made_up(int(run_id[:8], 16), len(config.layers), config.input.time_steps)
        yield {"run_id": run_id, **row_from_config(config), **versions, **measured}


def made_up(seed: int, layers: int, steps: int) -> dict[str, Any]:
    """Columns of a measured run, as wide as real ones and no easier to compress."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Any:
        return rng.gamma(2.0, 100.0, shape).tolist()

    return {
        "status": "ok",
        **{f"accuracy.{kind}.{split}": float(rng.random())
           for kind in ("float", "integer") for split in ("validation", "test")},
        "layers.name": [f"{layer}:layer" for layer in range(layers)],
        **{f"layers.{name}": rng.random(layers).tolist()
           for name in ("input_rate", "firing_rate", "output_rate", "taps")},
        "layers.step_counts": numbers(layers, steps),
        "layers.step_taps": numbers(layers, steps),
        "epochs.firing_rate": rng.random((EPOCHS, layers)).tolist(),
        "epochs.accuracy": rng.random(EPOCHS).tolist(),
        "input.events": numbers(steps * 2),
        **{f"cycles.{name}": float(rng.gamma(2.0, 1e4)) for name in SPREAD},
        **{f"layers.{what}.{name}": numbers(layers)
           for what in ("cycles", *BUCKETS) for name in SPREAD},
        "initiation_interval_cycles": float(rng.gamma(2.0, 1e4)),
        "samples": 16, "samples.rtl": 16, "timing.difference_cycles": 0, "spikes_match": True,
        "seconds.train": 60.0, "seconds.simulate": 1.0, "seconds.total": 62.0,
    }  # fmt: skip


def opening(folder: Path) -> int:
    """Read what says which runs are done."""
    return int(read_store(folder, DONE_COLUMNS).table.num_rows)


def filtering(folder: Path) -> int:
    """Choose rows and some columns, as `spikemeter table --where` does."""
    conditions = ["status=ok", "neuron.beta>=0.9", "cycles.mean<20000"]
    columns = ["network", "accuracy.integer.test", "layers.cycles.mean"]
    return int(read_rows_where(folder, columns, conditions).table.num_rows)


def resuming(folder: Path) -> int:
    """Start a campaign that has nothing left to do."""
    return sum(run_campaign(plan_of(folder), folder)["status"].values())


MEASURES: dict[str, Callable[[Path], int]] = {
    "opening": opening,
    "filtering": filtering,
    "resuming": resuming,
}


def timed(verb: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = verb()
    return time.perf_counter() - began, found


def measured(verb: Callable[[Path], int], folder: Path) -> dict[str, float]:
    seconds, rows = timed(lambda: verb(folder))
    return {"seconds": seconds, "peak_gib": peak_gib(), "rows": rows}


def peak_gib() -> float:
    """Most memory that this process has held; what getrusage tells may be that of its parent."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 2**20


def in_process(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, "--folder", str(folder)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True).stdout
    )
    return found


def do_nothing(job: Job) -> dict[str, Any]:
    row = row_from_config(load_job(job))
    layers, steps = len(row["hardware.neural_cores"]), row["input.time_steps"]
    return {"run_id": job.run_id, **row, **job.versions,
            **made_up(int(job.run_id[:8], 16), layers, steps)}  # fmt: skip


def load_job(job: Job) -> Any:
    from spikemeter.config import load_config

    return load_config(job.config)


def idle_campaign(runs: int, folder: Path) -> float:
    """Milliseconds that a run takes which does nothing, after the cluster has started."""
    plan = Plan.model_validate(PLAN | {"runs": runs})
    prepare(plan, folder)
    moments: list[float] = []
    jobs = (
        Job(run_id=run_id, config=plan.config(number).model_dump(mode="json"),
            versions=stage_versions(), splits={}, samples=1, simulated=1, folder=str(folder),
            mark="none", seconds=1.0, gibibytes=1.0)
        for run_id, number in run_numbers(plan, folder).items()
    )  # fmt: skip
    drive(
        jobs, folder, CampaignState(step="runs", done=0, total=runs),
        lambda state: moments.append(time.perf_counter()),
        known=(), done_runs=lambda table: done_runs(plan, table), runner=do_nothing,
    )  # fmt: skip
    warm = len(moments) // 10  # workers import what they need first
    ended = time.perf_counter()
    assert read_store(folder, ["status"]).table.num_rows == runs
    return 1000 * (ended - moments[warm]) / (len(moments) - warm)


def show(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table("of the rows", "seconds", "memory", "rows found")
    for name in MEASURES:
        found = report[name]
        table.add_row(
            name, f"{found['seconds']:.2f}", f"{found['peak_gib']:.2f} GiB", f"{found['rows']:,}"
        )
    console.print(f"{report['rows']:,} rows, {report['store']['bytes'] / 2**20:.0f} MiB in "
                  f"{report['store']['files']} files")  # fmt: skip
    console.print(table)
    console.print(
        f"validating a plan: {report['validating_ms_per_run']:.2f} ms a run; storing: "
        f"{report['storing_ms_per_run']:.2f} ms a run; scheduling and storing: "
        f"{report['scheduling_and_storing_ms_per_run']:.1f} ms a run; storing rows one by one: "
        f"{report['storing_single_rows_ms_per_run']:.0f} ms a run"
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
