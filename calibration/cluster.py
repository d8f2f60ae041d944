"""Where runs are done: processes of this machine, or workers of any Dask cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ..errors import ClusterError, InputError, MissingToolError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["GPU", "check_request", "connected", "runs_at_once"]

GPU = "GPU"
"""Dask resource of which a run takes one if GPUs are asked for."""

_CONNECT_SECONDS = 60
_CLOSE_SECONDS = 5
_LAST_PORT = 65_535
_LOOK_SECONDS = 0.5
_DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")


def check_request(scheduler: str | None, *, workers: int | None = None, gpus: int = 0) -> None:
    """Refuse impossible numbers and addresses; see `connected`.

    Raises
    ------
    InputError
        Also if fewer GPUs are visible than asked for.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers: must be at least 1, got {workers}")
    if gpus < 0:
        raise InputError(f"gpus: must not be negative, got {gpus}")
    if scheduler is None:
        if gpus and workers is not None and workers > gpus:
            raise InputError(f"workers: at most one for each of {gpus} GPUs, got {workers}")
        _visible_gpus(gpus)
        return
    found = re.fullmatch(r"tcp://[^\s/:][^\s/]*:([0-9]{1,5})", scheduler)
    if found is None or not 1 <= int(found[1]) <= _LAST_PORT:
        raise InputError(
            f"scheduler: must be an address such as tcp://host:8786, got {scheduler!r}"
        )
    if workers is not None:
        raise InputError(f"workers: a scheduler has its own, got {workers}")


@contextmanager
def connected(
    scheduler: str | None, *, workers: int | None = None, gpus: int = 0
) -> Iterator[Client]:
    """Give a client of a cluster, which ends with the block if it was started here.

    Parameters
    ----------
    scheduler : str or None
        Address such as ``tcp://host:8786``; None starts processes on this machine.
    workers : int, optional
        Processes to start, with one thread each; by default one per core, or one per GPU.
    gpus : int, optional
        GPUs of this machine to share out, one per process, as the Dask resource ``GPU``. With a
        scheduler it only matters that it is not 0: its workers must offer the resource.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        If fewer GPUs are visible than asked for.
    MissingToolError
        If Dask is not installed.
    ClusterError
        If no scheduler answers at the address, or it has no worker that can do runs.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise MissingToolError(
            "campaigns run on Dask, which is not installed; "
            "install it with: pip install 'spikemeter[calibrate]'"
        ) from error
    settings = {
        "distributed.comm.timeouts.connect": _CONNECT_SECONDS,
        "distributed.worker.memory.terminate": False,  # a run has a limit of its own
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.target": False,
        # Dask would set threads and malloc in this very process; a run sees to its own
        "distributed.nanny.pre-spawn-environ": {},
    }
    with dask.config.set(settings), _quiet(), _same_environment():
        if scheduler is None:
            with _local_cluster(workers, gpus) as cluster:
                try:
                    with Client(cluster) as client:
                        yield client
                except BaseException:
                    _kill_workers(cluster)  # else they are waited for
                    raise
            return
        try:
            client = Client(scheduler, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no scheduler answers at {scheduler} within {_CONNECT_SECONDS} s"
            ) from error
        try:
            _await_worker(client, scheduler, gpus > 0)
            yield client
        finally:
            client.close(timeout=_CLOSE_SECONDS)


def runs_at_once(client: Client, *, gpu: bool) -> int:
    """Count the runs that the workers of a cluster can do at once, each with a GPU if asked for."""
    threads = client.nthreads()
    if not gpu:
        return sum(threads.values())
    workers = client.scheduler_info(n_workers=-1)["workers"]
    gpus = {address: int(worker["resources"].get(GPU, 0)) for address, worker in workers.items()}
    return sum(min(count, gpus.get(address, 0)) for address, count in threads.items())


def _await_worker(client: Client, scheduler: str, gpu: bool) -> None:
    """Wait for a worker, as they may come after their scheduler."""
    deadline = time.monotonic() + _CONNECT_SECONDS
    kind = "worker with the resource GPU" if gpu else "worker"
    while time.monotonic() < deadline:
        try:
            if runs_at_once(client, gpu=gpu):
                return
        except Exception as error:  # of any kind, once the client has closed itself
            if client.status == "closed":
                raise ClusterError(f"lost the scheduler at {scheduler}") from error
        time.sleep(_LOOK_SECONDS)
    raise ClusterError(f"the scheduler at {scheduler} had no {kind} within {_CONNECT_SECONDS} s")


def _local_cluster(workers: int | None, gpus: int) -> Any:
    """Make a cluster of processes with one thread each, which only this machine can reach."""
    from distributed import Nanny, Scheduler, SpecCluster

    count = workers or gpus or _cores()
    devices = _visible_gpus(gpus)
    spec = {}
    for number in range(count):
        options: dict[str, Any] = {
            "nthreads": 1, "memory_limit": 0, "host": "127.0.0.1", "silence_logs": "CRITICAL",
        }  # fmt: skip
        if gpus:
            options["resources"] = {GPU: 1}
            options["env"] = {"CUDA_VISIBLE_DEVICES": devices[number]}
        spec[number] = {"cls": Nanny, "options": options}
    front = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(workers=spec, scheduler={"cls": Scheduler, "options": front})


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _kill_workers(cluster: Any) -> None:
    """End the processes of a cluster at once; their children notice."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def _visible_gpus(count: int) -> list[str]:
    """Names of the GPUs to share out; a batch system may have granted only some of a machine's."""
    granted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if granted is None:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in granted.split(",")]
    visible = list(takewhile(_DEVICE.fullmatch, names))  # as CUDA does, the first other one ends it
    if len(visible) < count:
        rule = f"at most the {len(visible)} in CUDA_VISIBLE_DEVICES ({granted!r})"
        raise InputError(f"gpus: {rule}, got {count}")
    return visible[:count]


@contextmanager
def _same_environment() -> Iterator[None]:
    """Take back what Dask tells its workers by way of this process's environment."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask from telling about connections that end when a cluster does."""
    names = [
        name
        for name in logging.root.manager.loggerDict
        if name.partition(".")[0] in ("distributed", "tornado", "bokeh")
    ]
    loggers = [logging.getLogger(name) for name in {"distributed", *names}]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
