import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_child
import psutil
import pytest

from spikemeter.calibration import worker
from spikemeter.calibration.cluster import check_request, connected, runs_at_once
from spikemeter.calibration.store import stage_versions
from spikemeter.calibration.worker import Job, died, run_job
from spikemeter.config import load_config
from spikemeter.errors import ClusterError, InputError, MissingToolError

RUN_ID = "0123456789abcdef" * 4
CHILD = (sys.executable, fake_child.__file__)


@pytest.fixture(autouse=True)
def children(monkeypatch):
    """Let children do as they are told, and end those that a test leaves."""
    monkeypatch.setattr(worker, "_CHILD", CHILD)
    yield
    child = getattr(worker._of_thread, "child", None)
    if child is not None:
        child.end()
        del worker._of_thread.child


def job(folder, deed, **changes):
    seed = fake_child.DEEDS.index(deed)
    config = load_config(
        {"dataset": "nmnist-saccade", "network": "10", "training": {"seed": seed}}
    ).model_dump(mode="json")
    (folder / "campaign-1").touch()
    content = {
        "run_id": RUN_ID, "config": config, "versions": stage_versions(),
        "splits": {"test.random": True}, "samples": 3, "simulated": 1, "folder": str(folder),
        "mark": "campaign-1", "seconds": 60.0, "gibibytes": 4.0,
    }  # fmt: skip
    return Job(**(content | changes))


def test_a_run_is_a_row_and_the_next_has_the_same_process(tmp_path):
    row = run_job(job(tmp_path, "work"))
    assert row["status"] == "ok"
    assert row["run_id"] == RUN_ID
    assert (row["samples"], row["samples.rtl"], row["test.random"]) == (3, 1, True)
    assert row["network"] == "10"
    assert row["version.rtl"] == stage_versions()["version.rtl"]
    assert row["reason"] == str(tmp_path / "runs" / RUN_ID)
    first = worker._of_thread.child
    run_job(job(tmp_path, "chatter"))
    assert worker._of_thread.child is first


def test_a_process_that_keeps_much_memory_is_replaced(tmp_path):
    assert run_job(job(tmp_path, "hoard", gibibytes=0.6))["status"] == "ok"
    hoarder = worker._of_thread.child
    assert run_job(job(tmp_path, "work", gibibytes=0.6))["status"] == "ok"
    assert worker._of_thread.child is not hoarder


@pytest.mark.parametrize(
    ("deed", "changes", "status", "reason"),
    [
        ("hang", {"seconds": 6.0}, "timeout", "took more than 6 s"),
        ("grow", {"gibibytes": 0.6}, "memory", "took more than 0.6 GiB"),
        ("wrong spikes", {}, "mismatch", "layer 0"),
        ("wrong cycles", {}, "mismatch", "3 cycles"),
        ("break", {}, "failed", "ZeroDivisionError: oh"),
    ],
)
def test_a_run_that_fails_is_a_row_and_the_next_one_works(tmp_path, deed, changes, status, reason):
    run_job(job(tmp_path, "work"))  # a child that has started: what it imports takes time too
    row = run_job(job(tmp_path, deed, **changes))
    assert (row["status"], row["reason"]) == (status, reason)
    assert (row["network"], row["samples"], row["samples.rtl"]) == ("10", 3, 1)
    assert run_job(job(tmp_path, "work"))["status"] == "ok"
    if deed == "hang":
        assert list((tmp_path / "runs").iterdir()) == []
        wait_for_end(tmp_path)


def test_agreement_is_told_apart(tmp_path):
    assert run_job(job(tmp_path, "wrong spikes"))["spikes_match"] is False
    row = run_job(job(tmp_path, "wrong cycles"))
    assert (row["spikes_match"], row["timing.difference_cycles"]) == (True, 3)


def test_a_run_whose_process_is_killed_is_tried_again(tmp_path):
    assert run_job(job(tmp_path, "die once"))["status"] == "ok"
    row = run_job(job(tmp_path, "die"))
    assert (row["status"], row["reason"]) == ("crashed", "its process was killed, again and again")
    assert died(job(tmp_path, "work"), "no more").keys() == row.keys()


@pytest.mark.parametrize(
    ("deed", "changes", "error", "message"),
    [
        ("full disk", {}, InputError, r"No space left on device \(on .+\)"),
        ("no tool", {}, MissingToolError, r"no g\+\+ \(on .+\)"),
        ("work", {"versions": {"version.rtl": 0}}, ClusterError, "has other versions"),
    ],
)
def test_what_would_fail_every_run_is_no_row(tmp_path, deed, changes, error, message):
    with pytest.raises(error, match=message):
        run_job(job(tmp_path, deed, **changes))


def test_recordings_that_are_missing_are_no_failed_row(tmp_path):
    asked = job(tmp_path, "refuse")
    asked.config["dataset"] = str(tmp_path / "recordings")
    with pytest.raises(InputError, match=r"dataset: must be a folder on this machine.* \(on .+\)"):
        run_job(asked)


def test_a_folder_that_another_process_uses_or_nobody_sees_is_left_alone(tmp_path):
    mine = str(tmp_path / "runs" / RUN_ID)
    with (tmp_path / "campaign-1").open("w") as mark:
        fcntl.lockf(mark, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(RUN_ID[:15], 16))
        assert run_job(job(tmp_path, "work"))["reason"] != mine
    assert run_job(job(tmp_path, "work"))["reason"] == mine
    elsewhere = run_job(job(tmp_path, "work", mark="campaign-2"))["reason"]
    assert Path(elsewhere).name == RUN_ID
    assert elsewhere != mine
    assert not Path(elsewhere).parent.exists()


PARENT = """
import sys
sys.path[:0] = [{support!r}, {here!r}]
import test_worker
from pathlib import Path
test_worker.worker._CHILD = test_worker.CHILD
test_worker.run_job(test_worker.job(Path({folder!r}), "hang"))
"""


def wait_for_end(folder):
    """Wait until the processes of a run that hung are gone."""
    deadline = time.monotonic() + 120
    for pid in map(int, (folder / "pids").read_text().split()):
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, f"{pid} is still there"
                time.sleep(0.05)


def test_a_child_whose_parent_is_killed_tidies_up_and_ends_with_what_it_started(tmp_path):
    script = PARENT.format(
        support=str(Path(fake_child.__file__).parent), here=str(Path(__file__).parent),
        folder=str(tmp_path),
    )  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        try:
            deadline = time.monotonic() + 120
            while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    wait_for_end(tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_cluster_leaves_the_environment_alone() -> None:
    before = dict(os.environ)
    with connected(None, workers=1) as client:
        (names,) = client.run(lambda: sorted(os.environ)).values()
    assert dict(os.environ) == before
    assert "PATH" in names
    assert "MALLOC_TRIM_THRESHOLD_" not in set(names) - set(before)


def test_gpus_are_shared_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    with connected(None, workers=2, gpus=2) as client:
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).values()
        assert sorted(seen) == ["3", "GPU-5a"]
        assert runs_at_once(client, gpu=True) == 2
    with connected(None, workers=1) as client:
        assert runs_at_once(client, gpu=False) == 1
        assert runs_at_once(client, gpu=True) == 0


@pytest.mark.parametrize(
    ("granted", "asked", "message"),
    [
        ("0,1", 4, r"gpus: at most the 2 in CUDA_VISIBLE_DEVICES \('0,1'\), got 4"),
        ("", 1, r"gpus: at most the 0 in CUDA_VISIBLE_DEVICES \(''\), got 1"),
        ("-1", 1, "gpus: at most the 0"),
        ("0,-1,1", 2, "gpus: at most the 1"),
        ("NoDevFiles", 1, "gpus: at most the 0"),
    ],
)
def test_more_gpus_than_are_visible_are_refused(
    monkeypatch: pytest.MonkeyPatch, granted: str, asked: int, message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", granted)
    with pytest.raises(InputError, match=message):
        check_request(None, gpus=asked)
    check_request(None)
    check_request("tcp://there:1", gpus=asked)  # what its workers see is their own affair


def test_a_run_keeps_its_memory_whatever_dask_tells_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, str]] = []

    class Started:
        def __init__(self, *_: object, env: dict[str, str], **__: object) -> None:
            told.append(env)

    monkeypatch.setattr(worker.subprocess, "Popen", Started)
    for value in ("65536", "1000"):
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", value)
        worker._Child()
    assert "MALLOC_TRIM_THRESHOLD_" not in told[0]
    assert told[1]["MALLOC_TRIM_THRESHOLD_"] == "1000"
    assert told[0]["OMP_NUM_THREADS"] == "1"
