"""A run in a process of its own, so that nothing it does can harm the campaign.

The worker of a cluster keeps one child process, which imports torch once and does one run after
the other. The parent watches it: a run that takes too long or too much memory, or whose process
dies, ends as a row with that reason, and the next run gets a new child. They talk in lines of
JSON. A child whose parent is gone tidies up and ends, with every process that it started.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from ..config import load_config
from ..errors import (
    ClusterError,
    InputError,
    MissingToolError,
    SpikemeterError,
    SpikeMismatchError,
    TimingMismatchError,
    ToolKilledError,
)
from ..predictor.features import row_from_config
from .table import MISMATCH

__all__ = [
    "CRASHED",
    "FAILED",
    "MARK",
    "MEMORY",
    "MISMATCH",
    "TIMEOUT",
    "Job",
    "died",
    "run_job",
]

FAILED = "failed"
"""Status of a run that ended in an error; its reason says which."""

TIMEOUT = "timeout"
"""Status of a run that took longer than the plan allows."""

MEMORY = "memory"
"""Status of a run that took more memory than the plan allows."""

CRASHED = "crashed"
"""Status of a run whose process was killed, again and again; another try may mend it."""

MARK = "campaign-"
"""Begins the name of an empty file by which a folder is known to be that of the campaign."""

_CHILD = (sys.executable, "-m", "spikemeter.calibration.worker")
_ATTEMPTS = 3
_POLL_SECONDS = 0.5
_KEPT_SHARE = 0.5
_TIDY_SECONDS = 20.0
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Errors of the place, not of the run: every other run would fail alike
_PLACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run that is to be done; plain values, to be sent anywhere.

    Attributes
    ----------
    run_id : str
        Names its row.
    config : dict
        Its configuration.
    versions : dict
        Versions of the stages.
    splits : dict
        Whether it is held out, by column of the table.
    samples, simulated : int
        Test samples to measure, and how many of them in RTL.
    folder : str
        Folder of the campaign; its run folder is kept there if this machine sees it.
    mark : str
        Name of an empty file in it, by which it is known to be the same.
    seconds, gibibytes : float
        What the run may take.
    """

    run_id: str
    config: dict[str, Any]
    versions: dict[str, int]
    splits: dict[str, bool]
    samples: int
    simulated: int
    folder: str
    mark: str
    seconds: float
    gibibytes: float


def run_job(job: Job) -> dict[str, Any]:
    """Do a run in the child process of this thread; the task of a cluster's worker.

    Parameters
    ----------
    job : Job

    Returns
    -------
    dict
        Its row, whatever came of it.

    Raises
    ------
    MissingToolError
        If this machine lacks a package or compiler.
    ClusterError
        If it has another version of a stage.
    InputError
        If it cannot write, or lacks the recordings. All three would make every run fail alike.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        measured = _child().run(job)
        _raise_if_futile(measured)
        if measured["status"] != CRASHED or attempt == _ATTEMPTS:
            break
    return _row(job, measured)


def died(job: Job, reason: str) -> dict[str, Any]:
    """Row of a run whose process was killed."""
    return _row(job, {"status": CRASHED, "reason": reason})


def _row(job: Job, measured: dict[str, Any]) -> dict[str, Any]:
    """Row of a run; one that was not measured has the samples that it was asked for."""
    config = row_from_config(load_config(job.config))
    asked = {"samples": job.samples, "samples.rtl": job.simulated}
    return {"run_id": job.run_id, **config, **job.versions, **job.splits, **asked, **measured}


_TRIM, _TRIM_OF_DASK = "MALLOC_TRIM_THRESHOLD_", "65536"
"""What Dask tells a worker's allocator; training keeps its memory and is faster without."""


class _Child:
    """The process that does the runs of one thread."""

    def __init__(self) -> None:
        environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, "1")
        if environment.get(_TRIM) == _TRIM_OF_DASK:
            del environment[_TRIM]
        self.process = subprocess.Popen(  # noqa: S603 - this very module
            _CHILD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # so that what it starts ends with it
            text=True,
        )

    def run(self, job: Job) -> dict[str, Any]:
        """Do a run and return what was measured, or how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer: list[str] = []
        reader = threading.Thread(target=_read_line, args=(self.process.stdout, answer))
        reader.start()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(asdict(job)) + "\n")
            self.process.stdin.flush()
        ended = self._watch(reader, job)
        if ended is None and answer and answer[0].endswith("\n"):
            measured: dict[str, Any] = json.loads(answer[0])
            if _memory_gib(self.process.pid) > _KEPT_SHARE * job.gibibytes:
                self.end()  # what a run leaves behind must not count against the next
            return measured
        self.end()
        reader.join()
        return ended or {"status": CRASHED, "reason": "its process was killed, again and again"}

    def _watch(self, reader: threading.Thread, job: Job) -> dict[str, Any] | None:
        """Wait for the answer; say what ends the run before it comes."""
        deadline = time.monotonic() + job.seconds
        while reader.is_alive():
            reader.join(min(_POLL_SECONDS, max(deadline - time.monotonic(), 0.01)))
            if not reader.is_alive():
                break
            if time.monotonic() > deadline:
                return {"status": TIMEOUT, "reason": f"took more than {job.seconds:g} s"}
            if _memory_gib(self.process.pid) > job.gibibytes:
                return {"status": MEMORY, "reason": f"took more than {job.gibibytes:g} GiB"}
        return None

    def end(self) -> None:
        """End it and all that it started; it may remove first what it has half written."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_TIDY_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


_of_thread = threading.local()


def _child() -> _Child:
    """Child process of this thread; a new one if the last one died."""
    child: _Child | None = getattr(_of_thread, "child", None)
    if child is None or child.process.poll() is not None:
        child = _of_thread.child = _Child()
    return child


def _read_line(pipe: IO[str], answer: list[str]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed meanwhile
        answer.append(pipe.readline())


def _memory_gib(pid: int) -> float:
    """Resident memory of a process and of those that it started."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return float(total / 2**30)


_FUTILE = {kind.__name__: kind for kind in (MissingToolError, ClusterError, InputError)}


def _raise_if_futile(measured: dict[str, Any]) -> None:
    """Raise what a child found to be wrong with this machine."""
    if kind := measured.get("futile"):
        raise _FUTILE[kind](f"{measured['reason']} (on {socket.gethostname()})")


def main() -> None:
    """Do the runs that come as lines on standard input; the body of the child."""
    # What a run starts gets no input, and what it prints goes to stderr: these are for the parent
    lines, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_take_jobs, args=(lines, jobs), daemon=True).start()
    while True:
        job = Job(**json.loads(jobs.get()))
        with _tidy_ending():
            measured = _measured(job)
        answers.write(json.dumps(measured) + "\n")
        answers.flush()


def _take_jobs(lines: IO[str], jobs: queue.SimpleQueue[str]) -> NoReturn:
    """Take jobs until the parent is gone; then end: tidily if that goes fast, else at once."""
    for line in lines:
        jobs.put(line)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_TIDY_SECONDS)
    os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _measured(job: Job) -> dict[str, Any]:
    """Measure a run, or say why that cannot be."""
    from .measure import measure
    from .store import stage_versions

    if (found := stage_versions()) != job.versions:
        return _futile(ClusterError, f"a worker has other versions: {found}, not {job.versions}")
    try:
        with _run_folder(job) as folder:
            config = load_config(job.config)
            return measure(config, folder, job.samples, simulated=job.simulated)
    except (MissingToolError, ImportError) as error:
        return _futile(MissingToolError, str(error))
    except SpikeMismatchError as error:
        return {"status": MISMATCH, "reason": str(error), "spikes_match": False}
    except TimingMismatchError as error:
        difference = {"timing.difference_cycles": error.difference_cycles}
        return {"status": MISMATCH, "reason": str(error), "spikes_match": True, **difference}
    except ToolKilledError as error:
        return {"status": CRASHED, "reason": str(error)}
    except MemoryError as error:
        return {"status": MEMORY, "reason": f"took more than there is: {error}"}
    except Exception as error:
        if any(os.strerror(number) in str(error) for number in _PLACE_ERRORS):
            return _futile(InputError, str(error))
        if isinstance(error, InputError) and (reason := _missing_data(job)):
            return _futile(InputError, reason)
        return {"status": FAILED, "reason": f"{type(error).__name__}: {error}"}


def _missing_data(job: Job) -> str | None:
    """Say why the data of a run cannot be loaded on this machine, if that is so."""
    from ..datasets import load_splits

    try:
        load_splits(load_config(job.config))
    except SpikemeterError as error:
        return str(error)
    except Exception:  # whatever else it is, the run has met it first
        return None
    return None


def _futile(kind: type[Exception], reason: str) -> dict[str, Any]:
    return {"status": FAILED, "futile": kind.__name__, "reason": reason}


@contextlib.contextmanager
def _run_folder(job: Job) -> Iterator[Path]:
    """Give the run folder in the campaign, or a temporary one.

    The latter where the campaign is out of sight, or if another process is at the same run: two
    campaigns may have it, or a worker that lost its scheduler.
    """
    place = Path(job.folder)
    if (place / job.mark).is_file():
        with (place / job.mark).open("r+b") as mark:
            if _lock_byte(mark, int(job.run_id[:15], 16)):
                yield place / "runs" / job.run_id
                return
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as folder:
        yield Path(folder) / job.run_id


def _lock_byte(file: IO[bytes], place: int) -> bool:
    """Lock a byte of a file, which need not have it, until it is closed or the process ends."""
    import fcntl

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)  # where nothing locks, go ahead
    return True


def _interrupt_once(*_: object) -> NoReturn:
    """Interrupt, and let no further signal interrupt the tidying up."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, lambda *_: None)  # SIG_IGN fails if one is already on its way
    raise KeyboardInterrupt


@contextlib.contextmanager
def _tidy_ending() -> Iterator[None]:
    """Let a child that is told to end remove first what it has half written."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, _interrupt_once)
    try:
        yield
    except KeyboardInterrupt:
        os.killpg(os.getpgrp(), signal.SIGKILL)  # a simulator may still run; this process with it
    finally:
        for number in _ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
