"""How fast an epoch of training is, beside a plain snnTorch loop over time steps.

    python benchmarks/training.py [--out FILE] [--repeats N]

The plain loop is what tutorials write: in each step a convolution, batch normalisation, a
`snntorch.Leaky` neuron and max pooling per layer. It has the same network, samples, batches, loss,
optimiser and threads as ours. Two comparisons, each like with like: float weights under batch
normalisation (our first phase) and weights quantised by the same Brevitas layers without it (our
second). Each side has a process of its own; epochs of both alternate, and each side counts with its
fastest; the ratio of medians is beside it. Speed depends on shapes, not on what the frames show, so
they are noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import snntorch as snn
import torch
import torch.nn.functional as F
from brevitas.quant import Int8WeightPerTensorFloat
from rich.console import Console
from rich.table import Table
from snntorch import functional, surrogate
from torch import Tensor, nn

from spikemeter.config import Config, load_config
from spikemeter.datasets import DataSplits, EventFrames
from spikemeter.models._memory import kept_memory
from spikemeter.models.training import Trainer
from spikemeter.network import Layer

SAMPLES = 320
DENSITY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network and what enters it."""

    network: str
    side: int
    time_steps: int

    def config(self, *, batch_norm: bool) -> Config:
        """Settings that train it, for longer than anyone waits."""
        size = {"height": self.side, "width": self.side, "time_steps": self.time_steps}
        statistics = [[0.0, 0.0]] * self.time_steps
        return load_config(
            {
                "network": self.network,
                "input": {**size, "statistics": statistics},
                "training": {"epochs": 10_000, "batch_norm": batch_norm},
            }
        )


SUBJECTS = (
    Subject(network="16C3-MP2-32C3-MP2-10", side=16, time_steps=8),
    Subject(network="8C3-MP2-16C3-MP2-10", side=16, time_steps=8),
    Subject(network="16C3-MP2-32C3-MP2-128-10", side=32, time_steps=4),
    Subject(network="256-128-10", side=16, time_steps=8),
)


class PlainNetwork(nn.Module):
    """The network as a tutorial writes it."""

    def __init__(self, config: Config, *, quantised: bool) -> None:
        super().__init__()
        bits = config.training.weight_bits
        self.geometry = config.layers
        self.weighted = nn.ModuleList(
            _weighted(layer, bits if quantised else None) for layer in config.layers
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(layer.out_channels)
            if layer.kind == "conv" and not quantised
            else nn.Identity()
            for layer in config.layers
        )
        gradient = surrogate.fast_sigmoid(slope=config.surrogate.steepness)
        self.neurons = nn.ModuleList(
            snn.Leaky(beta=0.9, spike_grad=gradient) for _ in config.layers
        )

    def forward(self, frames: Tensor) -> Tensor:
        mems = [neuron.reset_mem() for neuron in self.neurons]
        outputs = []
        for step in range(frames.shape[1]):
            spikes = frames[:, step]
            for index, layer in enumerate(self.geometry):
                incoming = spikes.flatten(1) if layer.kind == "dense" else spikes
                current = self.norms[index](self.weighted[index](incoming))
                spikes, mems[index] = self.neurons[index](current, mems[index])
                if layer.pool > 1:
                    spikes = F.max_pool2d(spikes, layer.pool)
            outputs.append(spikes)
        return torch.stack(outputs)


def _weighted(layer: Layer, bits: int | None) -> nn.Module:
    conv, linear, more = nn.Conv2d, nn.Linear, {}
    if bits is not None:
        conv, linear = qnn.QuantConv2d, qnn.QuantLinear
        more = {"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": bits}
    if layer.kind == "dense":
        return linear(layer.inputs, layer.neurons, bias=True, **more)
    return conv(
        layer.in_channels, layer.out_channels, layer.kernel, padding=layer.padding, bias=True,
        **more,
    )  # fmt: skip


def plain_epoch(config: Config, split: EventFrames, *, quantised: bool) -> Callable[[], object]:
    """Give an epoch of the plain loop, to be called."""
    torch.manual_seed(0)
    network = PlainNetwork(config, quantised=quantised).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=config.training.lr)
    loss_function = functional.mse_count_loss(correct_rate=1, incorrect_rate=0)

    def epoch() -> None:
        permutation = torch.randperm(len(split.labels)).numpy()
        for start in range(0, len(permutation), config.training.batch_size):
            chosen = permutation[start : start + config.training.batch_size]
            frames = torch.tensor(split.frames[chosen]).float()
            labels = torch.tensor(split.labels[chosen])
            optimiser.zero_grad()
            loss = loss_function(network(frames), labels)
            loss.backward()
            optimiser.step()
            loss.item()

    return epoch


def our_epoch(config: Config, split: EventFrames, *, quantised: bool) -> Callable[[], object]:
    """Give an epoch of our training, to be called."""
    trainer = Trainer(config, DataSplits(train=split, validation=split, test=split))
    if quantised and trainer.network.warming_up:
        trainer.network.fold()
    return trainer.train_epoch


SIDES = {"plain": plain_epoch, "ours": our_epoch}


def work(side: str, subject: Subject, quantised: bool, threads: int, link: Connection) -> None:
    """Train an epoch whenever asked, and tell the seconds."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    shape = (SAMPLES, subject.time_steps, 2, subject.side, subject.side)
    labels = np.arange(SAMPLES, dtype=np.int64) % 10
    split = EventFrames(frames=rng.random(shape) < DENSITY, labels=labels)
    epoch = SIDES[side](subject.config(batch_norm=not quantised), split, quantised=quantised)
    with kept_memory() if side == "ours" else nullcontext():  # as `train` does
        while link.recv():
            start = time.perf_counter()
            epoch()
            link.send(time.perf_counter() - start)


def measure(subject: Subject, *, quantised: bool, threads: int, repeats: int) -> dict[str, Any]:
    """Time epochs of both by turns."""
    context, links = get_context("spawn"), {}
    for side in SIDES:
        links[side], end = context.Pipe()
        arguments = (side, subject, quantised, threads, end)
        context.Process(target=work, args=arguments, daemon=True).start()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(repeats + 1):
        for side, link in links.items():
            link.send(True)
            taken = link.recv()
            if turn:  # the first warms up
                seconds[side].append(taken)
    for link in links.values():
        link.send(False)
    plain, ours = (min(seconds[side]) for side in SIDES)
    medians = [statistics.median(seconds[side]) for side in SIDES]
    return {
        "network": subject.network,
        "input": f"{subject.side}x{subject.side}, {subject.time_steps} steps",
        "weights": "quantised" if quantised else "float, batch norm",
        "threads": threads,
        "plain_seconds": plain,
        "our_seconds": ours,
        "ratio": plain / ours,
        "ratio_of_medians": medians[0] / medians[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=7, help="epochs of each side")
    parser.add_argument("--subjects", type=int, nargs="+", default=[*range(len(SUBJECTS))])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    table = Table(title=f"Seconds per epoch of {SAMPLES} samples, batches of 64, fastest of each")
    for column in ("network", "input", "weights", "threads", "plain", "ours", "ratio", "medians"):
        table.add_column(column)
    rows = []
    for threads in options.threads:
        for subject in [SUBJECTS[index] for index in options.subjects]:
            # Without a convolution ours has no float phase to compare.
            for quantised in (False, True) if "C" in subject.network else (True,):
                row = measure(
                    subject, quantised=quantised, threads=threads, repeats=options.repeats
                )
                rows.append(row)
                print(json.dumps(row), flush=True)
                table.add_row(
                    row["network"], row["input"], row["weights"], str(threads),
                    f"{row['plain_seconds']:.3f}", f"{row['our_seconds']:.3f}",
                    f"{row['ratio']:.2f}", f"{row['ratio_of_medians']:.2f}",
                )  # fmt: skip
    Console(width=140).print(table)
    if options.out:
        options.out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
