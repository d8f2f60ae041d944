"""Campaigns that are killed, starved and damaged, and what is left of them; see ``make faults``.

Every check runs real campaigns in real processes, does its harm, goes on with ``--resume``, and
compares the table with that of a campaign that was left alone: row by row, durations aside.
Checks that mount file systems need root, and say so where they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from rich.console import Console

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from campaigns import (  # noqa: E402
    busy_child,
    differences,
    family,
    finish,
    is_at_a_run,
    kill_at,
    rows,
    rows_on_disk,
    started,
    wait_for,
    write_plan,
)

from spikemeter.calibration import plan_of  # noqa: E402
from spikemeter.calibration.splits import read_splits  # noqa: E402
from spikemeter.calibration.store import read_store  # noqa: E402
from spikemeter.files import CACHE_VARIABLE, cache_folder  # noqa: E402
from spikemeter.models import load_run  # noqa: E402

FULL_DISK = "400k"
OUTAGE_SECONDS = 30
SIMULATOR = """#!/bin/sh
mv {deeds} {deeds}.$$ 2> /dev/null && deed=$(cat {deeds}.$$)
case "$deed" in
  kill) kill -9 $$ ;;
  hang) exec sleep 100000 ;;
esac
exec {real} "$@"
"""


class LeftOutError(Exception):
    """A check that this machine does not allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What checks share: a plan, its undisturbed table, and a simulator that does as it is told."""

    place: Path
    plan: Path
    expected: list[dict[str, Any]]
    rng: random.Random
    kills: int
    say: Callable[[str], None]

    def folder(self, name: str) -> Path:
        return self.place / name

    def tell_simulator(self, deed: str) -> None:
        """Let the next simulation be killed, or hang."""
        (self.place / "deeds").write_text(deed)

    def check(self, out: Path) -> None:
        """Refuse a table that is not the undisturbed one."""
        found = differences(rows(out), self.expected)
        assert not found, "; ".join(found[:3])

    def resume(self, out: Path) -> None:
        """Go on with a campaign, and refuse rows that are not the undisturbed ones, each once."""
        code, said = finish(out)
        assert code == 0, said
        self.check(out)
        assert rows_on_disk(out) == len(self.expected), "rows are on the disk twice"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; return 0 if all hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of the driver (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--only", choices=CHECKS, action="append", help="may be repeated")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    chosen = given.only or list(CHECKS)
    with tempfile.TemporaryDirectory(prefix="spikemeter-faults-") as place:
        scene = set_up(Path(place), random.Random(given.seed), given.kills, console.print)
        verdicts = [run_check(name, scene, console) for name in chosen]
    return 0 if all(verdicts) else 1


def run_check(name: str, scene: Scene, console: Console) -> bool:
    began = time.monotonic()
    try:
        CHECKS[name](scene)
        verdict, good = "holds", True
    except LeftOutError as reason:
        verdict, good = f"LEFT OUT: {reason}", True
    except Exception as error:
        traceback.print_exc()
        verdict, good = f"FAILED: {error}", False
    console.print(f"{name}: {verdict} ({time.monotonic() - began:.0f} s)")
    return good


def set_up(place: Path, rng: random.Random, kills: int, say: Callable[[str], None]) -> Scene:
    """Run a campaign that nobody disturbs, with a simulator that can be told to fail."""
    frames = cache_folder() / "datasets"
    os.environ[CACHE_VARIABLE] = str(place / "cache")
    if frames.is_dir():
        shutil.copytree(frames, place / "cache" / "datasets")
    plan = write_plan(place)
    code, said = finish(place / "undisturbed", plan)
    assert code == 0, said
    (real,) = (place / "cache" / "rtl").glob("*/obj/engine")
    real.rename(real.with_name("engine.real"))
    real.write_text(SIMULATOR.format(deeds=place / "deeds", real=real.with_name("engine.real")))
    real.chmod(0o755)
    expected = rows(place / "undisturbed")
    assert {row["status"] for row in expected} <= {"ok", "silent"}, expected
    say(f"undisturbed: {len(expected)} rows")
    return Scene(place=place, plan=plan, expected=expected, rng=rng, kills=kills, say=say)


def driver_killed(scene: Scene) -> None:
    """SIGKILL at random moments, again and again until the campaign is done, then from anew."""
    began = time.monotonic()
    code, said = finish(scene.folder("timed"), scene.plan)
    assert code == 0, said
    longest = time.monotonic() - began
    killed, folders, out, words = 0, 1, scene.folder("driver-1"), (scene.plan,)
    while killed < scene.kills:
        with started(out, *words) as process:
            hit = kill_at(process, scene.rng.uniform(0.1, longest))
        if hit:
            killed += 1
            check_nothing_is_half(out)
            words = ("--resume",) if (out / "plan.yaml").exists() else (scene.plan,)
        else:
            scene.resume(out)
            folders += 1
            out, words = scene.folder(f"driver-{folders}"), (scene.plan,)
    if (out / "plan.yaml").exists():
        scene.resume(out)
    scene.say(f"  {killed} kills within {longest:.0f} s each, {folders} campaigns")


def check_nothing_is_half(out: Path) -> None:
    """See that every file which a killed campaign has left can be read."""
    if (out / "plan.yaml").exists():
        plan_of(out)
    if (out / "splits.json").exists():
        read_splits(out)
    if (out / "index.parquet").exists():
        pq.read_table(out / "index.parquet", page_checksum_verification=True)
    if (out / "rows").is_dir():
        assert read_store(out).damaged == {}
    for folder in out.glob("runs/[!.]*"):
        if folder.suffix != ".partial":
            load_run(folder)


def worker_killed(scene: Scene) -> None:
    """SIGKILL of a worker while it is at a run: its nanny starts another."""
    out = scene.folder("worker")
    with started(out, scene.plan) as process:
        wait_for(lambda: is_at_a_run(out))
        child = busy_child(process)
        assert child is not None
        child.parent().kill()
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert len(said.splitlines()) == 1, said  # the dashboard, and no word of Dask's
    scene.resume(out)


def child_killed(scene: Scene) -> None:
    """SIGKILL of the process that does a run: it is tried again."""
    out = scene.folder("child")
    with started(out, scene.plan) as process:
        wait_for(lambda: is_at_a_run(out))
        child = busy_child(process)
        assert child is not None
        child.kill()
        _, said = process.communicate()
        assert process.returncode == 0, said
    scene.resume(out)


def simulator_killed(scene: Scene) -> None:
    """SIGKILL of a simulation: its run is tried again."""
    scene.tell_simulator("kill")
    out = scene.folder("simulator")
    code, said = finish(out, scene.plan)
    assert code == 0, said
    assert not (scene.place / "deeds").exists()
    scene.resume(out)


def simulator_hangs(scene: Scene) -> None:
    """A simulation that never ends is a row with that reason; the others go on."""
    scene.tell_simulator("hang")
    plan = write_plan(scene.folder("hanging-plan"), limits={"seconds": 60})
    out = scene.folder("hanging")
    code, said = finish(out, plan)
    assert code == 0, said
    found = [row for row in rows(out) if row["status"] == "timeout"]
    assert [row["reason"] for row in found] == ["took more than 60 s"], found
    code, said = finish(out, "--resume", "--retry-failed")
    assert code == 0, said
    scene.resume(out)


def bad_runs(scene: Scene) -> None:
    """Runs that never spike, or take too long or too much, are rows; the others go on."""
    vary = {"neuron.threshold": [1.0, 100.0], "training.epochs": [1, 10_000]}
    plan = write_plan(scene.folder("bad"), vary=vary, limits={"seconds": 45})
    code, said = finish(scene.folder("bad-out"), plan)
    assert code == 0, said
    found = sorted(row["status"] for row in rows(scene.folder("bad-out")))
    assert found == ["ok", "silent", "timeout", "timeout"], found
    plan = write_plan(scene.folder("small"), limits={"gibibytes": 0.05})
    code, said = finish(scene.folder("small-out"), plan)
    assert code == 0, said
    reasons = {(row["status"], row["reason"]) for row in rows(scene.folder("small-out"))}
    assert reasons == {("memory", "took more than 0.05 GiB")}, reasons


@contextmanager
def mounted(*words: str, on: Path) -> Iterator[None]:
    on.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, str(on)], capture_output=True, text=True)
    if done.returncode:
        raise LeftOutError(f"cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(on)], check=True)


def full_disk(scene: Scene) -> None:
    """A full file system ends the campaign with one sentence; with room it goes on."""
    out = scene.folder("full")
    with mounted("-t", "tmpfs", "-o", f"size={FULL_DISK}", "none", on=out):
        filler = out / "filler"
        filler.write_bytes(bytes(200 * 1024))
        code, said = finish(out, scene.plan, "--workers", "1")
        assert code == 2, (code, said)
        assert "No space left on device" in said.splitlines()[-1], said
        assert "Traceback" not in said, said
        kept = rows(out) if (out / "rows").is_dir() else []
        ids = {row["run_id"] for row in kept}
        assert kept == [row for row in scene.expected if row["run_id"] in ids], "rows changed"
        scene.say(f"  {len(kept)} rows were finished; {said.splitlines()[-1]}")
        subprocess.run(["mount", "-o", "remount,size=100m", str(out)], check=True)
        if not (out / "plan.yaml").exists():
            shutil.copy(scene.plan, out / "plan.yaml")
        scene.resume(out)


def read_only(scene: Scene) -> None:
    """A folder that cannot be written is refused; made writable, the campaign goes on."""
    out = scene.folder("read-only")
    with started(out, scene.plan) as process:
        wait_for(lambda: list(out.glob("rows/*.parquet")))
        kill_at(process, 0.01)
    before = rows(out)
    with mounted("--bind", str(out), on=out):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(out)], check=True)
        code, said = finish(out)
        assert code == 2, (code, said)
        assert "Read-only file system" in said, said
        assert len(said.strip().splitlines()) == 1, said
        assert rows(out) == before
        scene.say(f"  {said.strip()}")
    scene.resume(out)


def damaged_rows(scene: Scene) -> None:
    """Cut and flipped files are named and set aside, and their runs done again."""
    for name, harm in {"cut": cut, "flipped": flip}.items():
        out = scene.folder(f"damaged-{name}")
        shutil.copytree(scene.folder("undisturbed"), out)
        (path,) = out.glob("rows/*.parquet")
        harm(path)
        with subprocess.Popen(
            [sys.executable, "-m", "spikemeter.cli", "calibrate", "--resume", "--out", str(out)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            told, said = process.communicate()
        assert process.returncode == 0, said
        assert path.name in told, told
        assert path.name in said.splitlines()[0], said
        assert (out / "damaged" / path.name).exists()
        scene.resume(out)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


@dataclass(slots=True)
class Cluster:
    """A scheduler and two workers on different loopback addresses, started by hand."""

    port: int
    processes: list[psutil.Popen]

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def scheduler(self) -> psutil.Popen:
        return self.processes[0]

    def start(self) -> None:
        """Start what does not run."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if not self.processes or self.processes[0].poll() is not None:
                self.processes[:1] = [
                    self._part("scheduler", "--host", "127.0.0.1", "--port", str(self.port),
                               "--no-dashboard")
                ]  # fmt: skip
        for place, host in enumerate(("127.0.0.1", "127.0.0.2"), start=1):
            if len(self.processes) <= place or self.processes[place].poll() is not None:
                self.processes[place : place + 1] = [
                    self._part("worker", self.address, "--host", host, "--nthreads", "1",
                               "--no-dashboard")
                ]  # fmt: skip

    def _part(self, name: str, *words: str) -> psutil.Popen:
        module = f"distributed.cli.dask_{name}"
        return psutil.Popen(
            [sys.executable, "-m", module, *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def cluster() -> Iterator[Cluster]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Cluster(port, [])
    made.start()
    try:
        yield made
    finally:
        for process in made.processes:
            for member in [*family(process), process]:
                with contextlib.suppress(psutil.Error):
                    member.kill()
            process.wait()


def by_hand(scene: Scene) -> None:
    """A scheduler and workers on two addresses do a campaign."""
    out = scene.folder("by-hand")
    with cluster() as made:
        code, said = finish(out, scene.plan, "--scheduler", made.address)
        assert code == 0, said
    scene.resume(out)
    assert len(list((out / "runs").iterdir())) == len(scene.expected)


def scheduler_pauses(scene: Scene) -> None:
    """A scheduler that does not answer for a while: the campaign goes on."""
    out = scene.folder("pause")
    with cluster() as made, started(out, scene.plan, "--scheduler", made.address) as process:
        wait_for(lambda: is_at_a_run(out))
        made.scheduler.send_signal(signal.SIGSTOP)
        time.sleep(OUTAGE_SECONDS)
        made.scheduler.send_signal(signal.SIGCONT)
        settle(scene, made, process, out)


def scheduler_restarts(scene: Scene) -> None:
    """A scheduler that is killed and comes back at the same address: the campaign goes on."""
    out = scene.folder("restart")
    with cluster() as made, started(out, scene.plan, "--scheduler", made.address) as process:
        wait_for(lambda: is_at_a_run(out))
        made.scheduler.kill()
        made.scheduler.wait()
        time.sleep(OUTAGE_SECONDS)
        made.start()
        settle(scene, made, process, out)


def scheduler_gone(scene: Scene) -> None:
    """A scheduler that never comes back: the campaign ends with one sentence, and resumes."""
    out = scene.folder("gone")
    with cluster() as made, started(out, scene.plan, "--scheduler", made.address) as process:
        wait_for(lambda: is_at_a_run(out))
        for member in made.processes:
            member.kill()
        _, said = process.communicate()
        assert process.returncode == 1, said
        assert "Traceback" not in said, said
        scene.say(f"  {said.splitlines()[-1]}")
    scene.resume(out)


def settle(scene: Scene, made: Cluster, process: psutil.Popen, out: Path) -> None:
    """See a campaign that had an outage to its end, which it must come to by itself."""
    while True:
        made.start()  # a supervisor would start workers that have ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, said = process.communicate(timeout=2)
            break
    assert process.returncode == 0, said
    scene.resume(out)


def two_at_once(scene: Scene) -> None:
    """Two campaigns into one folder leave every row once."""
    out = scene.folder("two")
    words = (scene.plan, "--workers", "1")
    with started(out, *words) as one, started(out, *words) as other:
        ends = [process.communicate() for process in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0], ends
    scene.resume(out)


CHECKS: dict[str, Callable[[Scene], None]] = {
    "driver-killed": driver_killed,
    "worker-killed": worker_killed,
    "child-killed": child_killed,
    "simulator-killed": simulator_killed,
    "simulator-hangs": simulator_hangs,
    "bad-runs": bad_runs,
    "full-disk": full_disk,
    "read-only": read_only,
    "damaged-rows": damaged_rows,
    "by-hand": by_hand,
    "scheduler-pauses": scheduler_pauses,
    "scheduler-restarts": scheduler_restarts,
    "scheduler-gone": scheduler_gone,
    "two-at-once": two_at_once,
}

if __name__ == "__main__":
    sys.exit(main())
