"""Small campaigns in processes of their own, and what became of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml

from spikemeter.calibration import read_table

PLAN = {
    "base": {
        "dataset": "nmnist-saccade",
        "network": "4C3-MP4-10",
        "input": {"height": 10, "width": 10, "time_steps": 3},
        "training": {"epochs": 1},
    },
    "vary": {"neuron.beta": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]},
    "sampler": "grid",
    "samples": 3,
}
PATIENCE = 300.0


def write_plan(place: Path, **changes: Any) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    path = place / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | changes, sort_keys=False))
    return path


def command(out: Path, *words: str | Path) -> list[str]:
    """Words of `calibrate` on a folder, with further ones."""
    start = [sys.executable, "-m", "spikemeter.cli", "calibrate"]
    return [*start, *map(str, words), "--out", str(out)]


@contextmanager
def started(out: Path, *words: str | Path) -> Iterator[psutil.Popen]:
    """Start a campaign; what is left of it ends with the block."""
    with psutil.Popen(
        command(out, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, text=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finish(out: Path, *words: str | Path) -> tuple[int, str]:
    """Go on with a campaign to its end; its exit code and what it said on stderr."""
    with started(out, *(words or ("--resume",))) as process:
        _, said = process.communicate(timeout=4 * PATIENCE)
        return process.returncode, said


def rows(out: Path) -> list[dict[str, Any]]:
    """Rows of a campaign without durations, in the order of their ids."""
    table = read_table(out)
    kept = [name for name in table.columns if not name.startswith("seconds.")]
    found = (
        table[kept].sort_values("run_id").to_json(orient="records", lines=True, double_precision=15)
    )
    return [json.loads(line) for line in found.splitlines()]


def rows_on_disk(out: Path) -> int:
    """Count the rows of all batches, those that reading leaves out too."""
    return sum(pq.read_metadata(path).num_rows for path in out.glob("rows/*.parquet"))


def family(process: psutil.Process) -> list[psutil.Process]:
    """Every process that a campaign has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def busy_child(process: psutil.Process) -> psutil.Process | None:
    """Process that does the runs of a worker, once there is one."""
    for member in family(process):
        with contextlib.suppress(psutil.Error):
            if "spikemeter.calibration.worker" in member.cmdline():
                return member
    return None


def wait_for(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until something is there, and give it."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def is_at_a_run(out: Path) -> bool:
    """Tell whether a run is being written just now."""
    return any(out.glob("runs/.*"))


def wait_for_end(processes: list[psutil.Process], patience: float = PATIENCE) -> None:
    """Wait until processes have ended by themselves."""
    _, alive = psutil.wait_procs(processes, timeout=patience)
    left = [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"these are still there: {left}"


def kill_at(process: psutil.Popen, delay: float) -> bool:
    """Kill a campaign after a while, if it still runs, and see that all it started ends."""
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(delay)
        return False
    members = family(process)
    process.kill()
    process.wait()
    wait_for_end(members)
    return True


def differences(found: list[Mapping[str, Any]], expected: list[Mapping[str, Any]]) -> list[str]:
    """Say what two tables do not have in common; nothing if they are equal."""
    if [row["run_id"] for row in found] != [row["run_id"] for row in expected]:
        return [f"{len(found)} rows, not the {len(expected)} expected ones"]
    return [
        f"{mine['run_id'][:8]} {key}: {mine[key]!r}, expected {other[key]!r}"
        for mine, other in zip(found, expected, strict=True)
        for key in other
        if mine[key] != other[key]
    ]
