"""A cluster without processes: jobs are done when they are given out, or as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from spikemeter.calibration.worker import Job
from spikemeter.config import load_config
from spikemeter.predictor.features import row_from_config

OK = {
    "status": "ok",
    "samples": 3,
    "samples.rtl": 3,
    "cycles.mean": 7.0,
    "accuracy.integer.test": 0.5,
    "spikes_match": True,
}

HELD = object()
"""Outcome of a run that never ends."""


@dataclass(slots=True)
class FakeFuture:
    key: str
    outcome: Any

    def result(self) -> dict[str, Any]:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def add_done_callback(self, callback: Callable[[FakeFuture], None]) -> None:
        if self.outcome is not None and self.outcome is not HELD:
            callback(self)


@dataclass(slots=True)
class FakeCluster:
    """Stands in for `connected`.

    Outcomes are measured columns or an exception, by beta, or a list of them, one for each try;
    with None the connection is lost instead, with `HELD` nothing comes.
    """

    outcomes: dict[float, Any] = field(default_factory=dict)
    given: list[float] = field(default_factory=list)
    resources: list[Any] = field(default_factory=list)
    connections: int = 0
    workers: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"one": {"nthreads": 1, "resources": {"GPU": 1.0}}}
    )
    status: str = "running"
    dashboard_link: str = "http://nowhere"

    @contextmanager
    def connected(self, scheduler: str | None, **_: Any) -> Iterator[FakeCluster]:
        self.connections += 1
        self.status = "running"
        yield self

    def nthreads(self) -> dict[str, int]:
        return {name: worker["nthreads"] for name, worker in self.workers.items()}

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": self.workers}

    def submit(self, runner: Any, job: Job, *, key: str, resources: Any, pure: bool) -> FakeFuture:
        config = load_config(job.config)
        beta = config.neuron.beta
        self.given.append(beta)
        self.resources.append(resources)
        outcome = self.outcomes.get(beta, OK)
        if isinstance(outcome, list):
            outcome = outcome.pop(0)
        if outcome is None:
            self.status = "closed"
        if isinstance(outcome, dict):
            own = {"run_id": job.run_id, **row_from_config(config), **job.versions, **job.splits}
            outcome = own | {"samples": job.samples, "samples.rtl": job.simulated} | outcome
        return FakeFuture(key, outcome)
