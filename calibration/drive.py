"""Having runs done by a cluster, and their rows written.

The cluster holds a few more runs than it can do at once; what is finished is written in batches.
A scheduler that is lost takes the runs that it held with it, so they are given to the next one.
"""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..errors import ClusterError, InputError, SpikemeterError
from .cluster import GPU, connected, runs_at_once
from .runs import DONE_COLUMNS
from .store import append_rows, merge_batches, read_store
from .table import USABLE
from .worker import Job, died, run_job

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["CampaignState", "Progress", "drive"]

_BATCH_ROWS = 64
_BATCH_SECONDS = 5.0
_BATCHES_BETWEEN_MERGES = 64
_RECONNECTS = 3
"""Times in a row that a scheduler may be lost before any run is done."""

_LOOK_SECONDS = 5.0
_POLL_SECONDS = 1.0
_SILENT_SECONDS = 60.0
"""So long a cluster may be without workers before that is said."""

_WAIT_SECONDS = 1800.0
"""So long it may be without any before the campaign ends."""

_HELD_PER_THREAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignState:
    """How far a campaign is.

    Attributes
    ----------
    step : {"data", "runs"}
        Whether frames are being made, or runs done.
    done, total : int
        Steps or runs.
    failed : int
        Rows of its runs with a reason instead of measurements.
    started : int
        Runs that were there when the campaign began, or that another one has done meanwhile.
    seconds : float
        Since then.
    best_accuracy, lowest_cycles : float or None
        Of the rows of its runs so far: integer test accuracy, and mean cycles where the network
        spikes at its outputs.
    waiting : str or None
        What the campaign waits for, if nothing goes on.
    damaged : tuple of str
        A sentence for every batch of rows that was found damaged; its runs are done again.
    dashboard : str or None
        Address of Dask's dashboard.
    """

    step: str
    done: int
    total: int
    failed: int = 0
    started: int = 0
    seconds: float = 0.0
    best_accuracy: float | None = None
    lowest_cycles: float | None = None
    waiting: str | None = None
    damaged: tuple[str, ...] = ()
    dashboard: str | None = None

    @property
    def runs_per_hour(self) -> float:
        """Rate since the campaign began; 0 before the first run is done."""
        return 3600 * (self.done - self.started) / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time that the rest takes at that rate; None before the first run is done."""
        rate = self.runs_per_hour
        return (self.total - self.done) / rate * 3600 if rate else None


Progress = Callable[[CampaignState], None]
Runner = Callable[[Job], dict[str, Any]]
DoneRuns = Callable[[pa.Table], set[str]]


def drive(
    jobs: Iterable[Job],
    out: Path,
    state: CampaignState,
    progress: Progress,
    *,
    known: Iterable[str],
    done_runs: DoneRuns,
    scheduler: str | None = None,
    workers: int | None = None,
    gpus: int = 0,
    runner: Runner = run_job,
) -> None:
    """Have jobs done and write their rows.

    Parameters
    ----------
    jobs : iterable of Job
        Drawn from as the cluster has room.
    out : Path
        Folder of the campaign.
    state : CampaignState
        Where it stands.
    progress : callable
        Told the state whenever it changes.
    known : iterable of str
        Batches of rows that were there when the jobs were chosen.
    done_runs : callable
        Says which runs of later ones, of other campaigns, need not be done.
    scheduler, workers, gpus
        See `spikemeter.calibration.cluster.connected`.
    runner : callable, optional
        What turns a job into a row, on a worker.

    Raises
    ------
    ClusterError
        If the cluster is lost for good, has had no worker for half an hour, or one that cannot do
        runs.
    InputError, MissingToolError
        If rows cannot be written here, or what would fail every run alike was found by one.
    """
    book = _Book(folder=out, state=state, progress=progress, done_runs=done_runs, known=set(known))
    backlog = _Backlog(jobs=iter(jobs))
    losses, done_before = 0, -1
    try:
        while True:
            try:
                with connected(scheduler, workers=workers, gpus=gpus) as client:
                    book.state = replace(book.state, dashboard=client.dashboard_link)
                    progress(book.state)
                    _Desk(client=client, runner=runner, gpu=gpus > 0).work_off(backlog, book)
                return
            except _LostError as error:
                losses = 1 + (losses if book.state.done == done_before else 0)
                done_before = book.state.done
                if scheduler is None or losses > _RECONNECTS:
                    raise ClusterError(
                        f"lost the cluster: {error}; finished rows are kept, and the same command "
                        "goes on"
                    ) from error
                backlog.take_back()
                book.flush()
    finally:
        book.flush()


class _LostError(Exception):
    """The scheduler is gone, and with it what it was told."""


@dataclass(slots=True, kw_only=True)
class _Backlog:
    """Jobs that are to be done, and those that a cluster has."""

    jobs: Iterator[Job]
    returned: deque[Job] = field(default_factory=deque)
    given: dict[str, Job] = field(default_factory=dict)

    def give(self) -> Job | None:
        """Take the next job out; it stays noted until its row is booked."""
        job = self.returned.popleft() if self.returned else next(self.jobs, None)
        if job is not None:
            self.given[job.run_id] = job
        return job

    def take_back(self) -> None:
        """Have everything that was given out, and has no row, given out again."""
        self.returned.extend(self.given.values())
        self.given.clear()


@dataclass(slots=True, kw_only=True)
class _Book:
    """Rows on their way into the store, and what has come so far."""

    folder: Path
    state: CampaignState
    progress: Progress
    done_runs: DoneRuns
    known: set[str]
    began: float = field(default_factory=time.monotonic)
    written: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)
    rows: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    flushed: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Take a finished row; write what there is if it is time."""
        self.rows.append(row)
        state = self.state
        accuracy = row.get("accuracy.integer.test")
        cycles = row.get("cycles.mean") if row["status"] == "ok" else None
        best, lowest = state.best_accuracy, state.lowest_cycles
        self._advance(
            failed=state.failed + (row["status"] not in USABLE),
            best_accuracy=best if accuracy is None else max(accuracy, best or 0.0),
            lowest_cycles=lowest if cycles is None else min(cycles, lowest or cycles),
        )
        if len(self.rows) >= _BATCH_ROWS:
            self.flush()

    def flush_if_late(self) -> None:
        """Write what has come, if the last batch was a while ago."""
        if time.monotonic() - self.written > _BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has come since the last batch."""
        name = append_rows(self.folder, self.rows)
        self.rows = []
        self.written = time.monotonic()
        if name is None:
            return
        self.flushed += 1
        self.known.add(name)
        if self.flushed % _BATCHES_BETWEEN_MERGES == 0:
            with contextlib.suppress(InputError):  # rows are safe; it can be done another time
                merge_batches(self.folder)

    def is_done_elsewhere(self, run_id: str) -> bool:
        """Tell whether another campaign has done a run meanwhile, and count it."""
        if time.monotonic() - self.looked > _LOOK_SECONDS:
            found = read_store(self.folder, DONE_COLUMNS, skip=self.known, failures=True)
            self.elsewhere |= self.done_runs(found.table)
            self.known.update(found.batches)
            self.looked = time.monotonic()
        if run_id not in self.elsewhere:
            return False
        self._advance(started=self.state.started + 1)
        return True

    def tell_waiting(self, reason: str | None) -> None:
        """Show what the campaign waits for, or that it goes on."""
        if reason != self.state.waiting:
            self.state = replace(self.state, waiting=reason)
            self.progress(self.state)

    def _advance(self, **changes: Any) -> None:
        seconds = time.monotonic() - self.began
        self.state = replace(self.state, done=self.state.done + 1, seconds=seconds, **changes)
        self.progress(self.state)


@dataclass(slots=True, kw_only=True)
class _Desk:
    """Gives jobs to one cluster and takes its answers."""

    client: Client
    runner: Runner
    gpu: bool
    held: dict[str, Future] = field(default_factory=dict)
    finished: queue.SimpleQueue[Future] = field(default_factory=queue.SimpleQueue)
    threads: int = 0
    looked: float = 0.0
    manned: float = field(default_factory=time.monotonic)

    def work_off(self, backlog: _Backlog, book: _Book) -> None:
        """Have the backlog done; `_LostError` if the scheduler goes away."""
        self._fill(backlog, book)
        while self.held:
            try:
                future = self.finished.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if self.client.status != "running":
                    raise _LostError(f"its connection is {self.client.status}") from None
            else:
                run_id = future.key.partition("-")[0]
                row = self._row(future, backlog.given[run_id])
                del self.held[run_id], backlog.given[run_id]
                book.add(row)
            book.flush_if_late()
            self._fill(backlog, book)
            self._look_for_workers(book)

    def _fill(self, backlog: _Backlog, book: _Book) -> None:
        """Give out jobs until the cluster has a few more than it can do at once."""
        while len(self.held) < self._room() and (job := backlog.give()) is not None:
            if book.is_done_elsewhere(job.run_id):
                del backlog.given[job.run_id]
                continue
            try:
                future = self.client.submit(
                    self.runner,
                    job,
                    key=f"{job.run_id}-{uuid.uuid4().hex[:8]}",
                    resources={GPU: 1} if self.gpu else None,
                    pure=False,
                )
            except Exception as error:  # of any kind, once the client has closed itself
                raise _LostError(str(error) or type(error).__name__) from error
            self.held[job.run_id] = future
            future.add_done_callback(self.finished.put)

    def _look_for_workers(self, book: _Book) -> None:
        """Say that there are none left, and end with `ClusterError` if it stays so."""
        self._room()
        now = time.monotonic()
        if self.threads:
            self.manned = now
        minutes = f"{_WAIT_SECONDS / 60:.0f} min"
        kind = f"worker with the resource {GPU}" if self.gpu else "worker"
        silent = now - self.manned > _SILENT_SECONDS
        book.tell_waiting(f"no {kind} is left; waiting up to {minutes} for one" if silent else None)
        if now - self.manned > _WAIT_SECONDS:
            raise ClusterError(
                f"the cluster has had no {kind} for {minutes}; finished rows are kept, and the "
                "same command goes on"
            )

    def _room(self) -> int:
        """Count the jobs to give out at most; the cluster may grow and shrink."""
        if time.monotonic() - self.looked > _LOOK_SECONDS or not self.threads:
            try:
                self.threads = runs_at_once(self.client, gpu=self.gpu)
            except Exception as error:
                raise _LostError(str(error) or type(error).__name__) from error
            self.looked = time.monotonic()
        return _HELD_PER_THREAD * max(self.threads, 1)

    def _row(self, future: Future, job: Job) -> dict[str, Any]:
        from concurrent.futures import CancelledError as CancelledByPool

        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        try:
            row: dict[str, Any] = future.result()
        except SpikemeterError:
            raise
        except KilledWorker:
            return died(job, "its worker died, again and again")
        except (CancelledError, CancelledByPool, CommClosedError) as error:
            raise _LostError(str(error) or type(error).__name__) from error
        except Exception as error:
            if isinstance(error, OSError) and self.client.status != "running":
                raise _LostError(str(error) or type(error).__name__) from error
            raise ClusterError(
                f"a worker of the cluster cannot do runs: {type(error).__name__}: {error}; "
                "it needs the same version of spikemeter[calibrate]"
            ) from error
        return row
