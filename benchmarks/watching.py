"""What a `LatencyMonitor` and a `LatencyLoss` cost a training loop.

    python benchmarks/watching.py [--out FILE] [--epochs N]

Two copies of a plain snnTorch network train side by side in one thread, one as it is, the other
watched: each batch is trained on by both, in an order drawn by lot, so that whatever else the
machine does meets both alike. The watched one's clock stands still while the other has its turn. An
epoch's overhead is what the batches took longer, and `end_epoch`, over what they took; differences
beyond half a batch are cut, for those are not of the monitor. It is reported with the interval that
holds it in 90 % of bootstrap samples of batches. The first batch, before which the monitor finds
the network, is told apart, and the first epoch, at whose end the predictor is loaded, left out. As
a control, two copies that nobody watches are compared in the same way. Times are CPU times of the
thread, so that whatever else the machine does changes little.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import snntorch as snn
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from snntorch import functional, surrogate
from torch import Tensor, nn

from spikemeter.config import Config, load_config
from spikemeter.predictor import hooks
from spikemeter.predictor.training import LatencyLoss, LatencyMonitor

ROOT = Path(__file__).resolve().parents[1]
BATCH = 64
DENSITY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network, what enters it, and how it is watched."""

    network: str
    side: int
    time_steps: int
    batches: int = 100
    """Of an epoch: about six seconds."""
    how: str = "watched"
    mixed: bool = False

    def config(self) -> Config:
        size = {"height": self.side, "width": self.side, "time_steps": self.time_steps}
        statistics = [[DENSITY * self.side**2] * 2] * self.time_steps
        return load_config({"network": self.network, "input": {**size, "statistics": statistics}})


SMALL = {"network": "16C3-MP2-32C3-MP2-10", "side": 16, "time_steps": 8}
SUBJECTS = (
    Subject(**SMALL, how="control"),
    Subject(**SMALL),
    Subject(**SMALL, mixed=True),
    Subject(network="16C3-MP2-32C3-MP2-128-10", side=32, time_steps=4, batches=50),
    Subject(network="256-128-10", side=16, time_steps=8, batches=400),
    Subject(**SMALL, how="every batch"),
    Subject(**SMALL, how="loss"),
)


def build(config: Config) -> nn.Sequential:
    """What tutorials write, with hidden states."""
    parts: list[nn.Module] = []
    for index, layer in enumerate(config.layers):
        if layer.kind == "conv":
            parts.append(nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel,
                                   padding=layer.padding))  # fmt: skip
        else:
            if index == 0 or config.layers[index - 1].kind == "conv":
                parts.append(nn.Flatten())
            parts.append(nn.Linear(layer.inputs, layer.neurons))
        gradient = surrogate.fast_sigmoid(slope=25)
        parts.append(snn.Leaky(beta=0.9, spike_grad=gradient, init_hidden=True))
        if layer.pool > 1:
            parts.append(nn.MaxPool2d(layer.pool))
    return nn.Sequential(*parts)


class Clock:
    """Time of the watched side: wall time in its turn, of which only CPU time is kept.

    Reading the CPU time is slow, so that it must not be read inside.
    """

    def __init__(self) -> None:
        self.passed, self.start = 0.0, None

    def perf_counter(self) -> float:
        return self.passed + (0.0 if self.start is None else time.perf_counter() - self.start)

    @contextmanager
    def turn(self) -> Iterator[None]:
        begin, self.start = time.thread_time(), time.perf_counter()
        yield
        self.passed, self.start = self.passed + time.thread_time() - begin, None


class Side:
    """One of the two copies, its optimiser and who watches it."""

    def __init__(self, net: nn.Module, subject: Subject, *, watched: bool) -> None:
        self.net, self.subject, self.clock = net, subject, Clock()
        self.optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        self.monitor: LatencyMonitor | None = None
        self.penalty: LatencyLoss | None = None
        if watched and subject.how != "control":
            hooks.time = self.clock
            config, loss = subject.config(), subject.how == "loss"
            every = 1 if subject.how == "every batch" else None
            self.monitor = LatencyMonitor(net, config.hardware, every=every, gradient=loss)
            self.penalty = LatencyLoss(config.hardware, weight=0.1) if loss else None

    def step(self, frames: Tensor, labels: Tensor) -> float:
        """Train on a batch; the seconds that it took."""
        begin = time.thread_time()
        with self.clock.turn():
            for part in self.net.modules():
                if isinstance(part, snn.Leaky):
                    part.reset_mem()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.subject.mixed):
                outputs = torch.stack([self.net(step) for step in frames])
            loss = functional.ce_count_loss()(outputs.float(), labels)
            if self.penalty is not None:
                loss = loss + self.penalty(self.monitor)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return time.thread_time() - begin

    def end_epoch(self) -> float:
        """End an epoch; the seconds that it took."""
        begin = time.thread_time()
        if self.monitor is not None:
            self.monitor.end_epoch()
        return time.thread_time() - begin


def measure(subject: Subject, epochs: int, tick: Callable[[], object]) -> dict[str, Any]:
    """Train both copies side by side."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shape = (subject.time_steps, BATCH, 2, subject.side, subject.side)
    few = [((torch.rand(shape) < DENSITY).float(), torch.randint(10, (BATCH,))) for _ in range(8)]
    net = build(subject.config())
    copy_of_net = copy.deepcopy(net)
    sides = [Side(net, subject, watched=False), Side(copy_of_net, subject, watched=True)]
    first = [side.step(*few[0]) for side in sides]
    for side in sides:
        side.step(*few[1])
        side.end_epoch()
    seconds, ends = np.empty((epochs, subject.batches, 2)), np.empty(epochs)
    for epoch in range(epochs):
        for batch in range(subject.batches):
            for index in rng.permutation(2):
                seconds[epoch, batch, index] = sides[index].step(*few[batch % len(few)])
        ends[epoch] = sides[1].end_epoch()
        tick()
    if sides[1].monitor is not None:
        sides[1].monitor.detach()
    return row_of(subject, seconds, ends) | {"finding_seconds": first[1] - first[0]}


def row_of(subject: Subject, seconds: np.ndarray, ends: np.ndarray) -> dict[str, Any]:
    """Turn seconds of shape (epochs, batches, 2) into what is reported."""
    plain = float(np.median(seconds[:, :, 0]))
    longer = np.clip(seconds[:, :, 1] - seconds[:, :, 0], -0.5 * plain, 0.5 * plain)
    share = (longer + float(np.median(ends)) / subject.batches).ravel() / plain
    means = np.random.default_rng(0).choice(share, size=(2000, len(share))).mean(1)
    return {
        "network": subject.network,
        "input": f"{subject.side}x{subject.side}, {subject.time_steps} steps",
        "precision": "bfloat16 autocast" if subject.mixed else "float32",
        "how": subject.how,
        "epochs": len(ends),
        "batches": subject.batches,
        "batch_milliseconds": 1e3 * plain,
        "end_epoch_milliseconds": 1e3 * float(np.median(ends)),
        "overhead": float(share.mean()),
        "overhead_interval": np.quantile(means, [0.05, 0.95]).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/watching.json")
    parser.add_argument("--epochs", type=int, default=4, help="of each subject")
    parser.add_argument("--subjects", type=int, nargs="+", default=[*range(len(SUBJECTS))])
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=140, highlight=False)
    chosen = [SUBJECTS[index] for index in given.subjects]
    with Progress(console=console) as progress:
        task = progress.add_task("training", total=len(chosen) * given.epochs)
        rows = [measure(each, given.epochs, lambda: progress.advance(task)) for each in chosen]
    content = {"torch": torch.__version__, "batch": BATCH, "rows": rows}
    given.out.write_text(f"{json.dumps(content, indent=1)}\n")
    show(console, rows)


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"Batches of {BATCH}, one thread")
    for name in ("network", "input", "precision", "how", "batches", "batch, ms", "end_epoch, ms"):
        table.add_column(name)
    for name in ("finding, s", "overhead", "90 % interval"):
        table.add_column(name)
    for row in rows:
        low, high = row["overhead_interval"]
        table.add_row(
            row["network"], row["input"], row["precision"], row["how"], str(row["batches"]),
            f"{row['batch_milliseconds']:.1f}", f"{row['end_epoch_milliseconds']:.1f}",
            f"{row['finding_seconds']:.2f}", f"{row['overhead']:+.1%}",
            f"{low:+.1%} to {high:+.1%}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
