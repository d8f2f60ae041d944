"""Fewer cycles at equal accuracy: `LatencyLoss` beside penalties on spikes and on SynOps.

    make bench NAME=latency_aware [ARGS="--work FOLDER --seeds 3 4 5 --rtl-samples 32"]

Each network is trained once without any penalty. From there every method goes on for the same
epochs, with the same batches and learning rates: plain with the loss of the task alone; `spikes`,
`synops` and `latency` with a weight times their penalty, which is relative to its value in the
first batch; and `budget`, a `LatencyLoss` to half the cycles of the plain network. Weights are the
same for all. `spikes` counts what all neurons fire but those of the output, `synops` the synapses
that these spikes reach. Both know nothing of hardware, `latency` is trained for each schedule.

A weight is chosen on the validation part, one for a data set, network and method: the fewest cycles
whose accuracy, a mean over the seeds, is at most a point below plain. If there is none, plain
stands. Accuracies are of the integer network on the whole test part. The cycles of what was chosen
are measured in RTL, on the first test samples; those of all networks on all samples are by the
exact timing, which every simulated sample holds to account.

A network that is done is a file in the work folder; the same command goes on where it was stopped.
Writes ``benchmarks/results/latency_aware.json`` and ``docs/images/latency_aware.png``.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from rich.console import Console
from scipy.stats import gmean, sem
from torch import Tensor

from spikemeter.config import Config, load_config
from spikemeter.datasets import DataSplits, load_splits
from spikemeter.files import write_whole
from spikemeter.models import network_spikes
from spikemeter.models._memory import kept_memory
from spikemeter.models.export import export_network
from spikemeter.models.integer import class_accuracy, load_network, save_network
from spikemeter.models.network import SpikingNetwork
from spikemeter.models.training import count_loss, train
from spikemeter.network import taps_inside
from spikemeter.predictor.timing import timing_model
from spikemeter.predictor.training import LatencyLoss, LatencyMonitor
from spikemeter.rtl import check_spikes, simulate

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = {"digits-saccade": (12, 12), "nmnist-saccade": (10, 12)}
"""Without any penalty, and after that."""
NETWORKS = ("8C3-MP2-16C3-16C3-MP2-10", "8C3-8C3-MP2-16C3-MP2-10")
CORES = (8, 4, 1, 10)
SCHEDULES = ("layer_serial", "step_pipelined")
WEIGHTS = (0.3, 0.6, 1.2)
BUDGET = 0.5
"""Share of the cycles of the plain network."""
TOLERANCE = 1.0
"""Points of accuracy."""
LR, BATCH = 1e-2, 32
PENALTIES = {"spikes": "#9aa5b1", "synops": "#d1495b", "latency": "#2a78b5"}
"""And their colors."""

Penalty = Callable[[LatencyMonitor, Sequence[Tensor]], Tensor]
"""From what a monitor holds, and what each layer fired, shape (time_steps, batch, ...)."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a network is trained, and for which schedule."""

    dataset: str
    network: str
    seed: int
    method: str = "plain"
    weight: float = 0.0
    schedule: str = SCHEDULES[0]

    def config(self, schedule: str | None = None) -> Config:
        epochs = EPOCHS[self.dataset][0]
        return load_config(
            {
                "dataset": self.dataset,
                "network": self.network,
                "input": {"height": 12, "width": 12, "time_steps": 8},
                "neuron": {"beta": 0.875},
                "surrogate": {"slope": 2},
                "training": {"epochs": epochs, "lr": LR, "batch_size": BATCH,
                             "loss": "ce_count", "seed": self.seed},
                "hardware": {"neural_cores": CORES, "schedule": schedule or self.schedule},
            }
        )  # fmt: skip

    @property
    def key(self) -> str:
        """Names the files of the network; changes with all that decides it."""
        config = self.config().model_dump(mode="json")
        settings = digest([config, asdict(self), EPOCHS[self.dataset], BUDGET])
        return f"{self.dataset}.{self.network}.{self.seed}.{self.method}.{settings}"

    @property
    def start(self) -> str:
        """Names the file of the network that it starts from."""
        config = replace(self, schedule=SCHEDULES[0]).config().model_dump(mode="json")
        return f"{self.dataset}.{self.network}.{self.seed}.{digest(config)}"


def digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def trials_of(dataset: str, network: str, seed: int) -> list[Trial]:
    """Everything that starts from one network; the plain one first."""
    place: dict[str, Any] = {"dataset": dataset, "network": network, "seed": seed}
    found = [Trial(**place)]
    for weight in WEIGHTS:
        blind = [Trial(**place, method=name, weight=weight) for name in ("spikes", "synops")]
        latency = Trial(**place, method="latency", weight=weight)
        found += [*blind, *(replace(latency, schedule=schedule) for schedule in SCHEDULES)]
    return found + [Trial(**place, method="budget", schedule=schedule) for schedule in SCHEDULES]


def count_penalty(trial: Trial) -> Penalty:
    """Spikes or SynOps, relative to the first batch, as the penalty of `LatencyLoss` is."""
    reached: list[Tensor] = []
    first: list[Tensor] = []
    for layer in trial.config().layers[1:]:
        rows, columns = (torch.tensor(side, dtype=torch.float32) for side in taps_inside(layer))
        reached.append(layer.out_channels * torch.outer(rows, columns).flatten())

    def penalty(monitor: LatencyMonitor, fired: Sequence[Tensor]) -> Tensor:
        if trial.method == "spikes":
            counts = [spikes.sum() for spikes in fired[:-1]]
        else:
            pairs = zip(monitor.spikes()[1:], reached, strict=True)
            counts = [(spikes.reshape(-1, len(taps)) * taps).sum() for spikes, taps in pairs]
        value = torch.stack(counts).sum()
        first.extend([] if first else [value.detach()])
        return trial.weight * value / first[0]

    return penalty


def penalty_of(trial: Trial, budget_cycles: float) -> Penalty:
    config = trial.config()
    if trial.method == "plain":
        return lambda monitor, fired: torch.zeros(())
    if trial.method in ("spikes", "synops"):
        return count_penalty(trial)
    if trial.method == "latency":
        loss = LatencyLoss(config, weight=trial.weight)
    else:
        loss = LatencyLoss(config, budget_us=budget_cycles / config.hardware.clock_mhz)
    return lambda monitor, fired: loss(monitor)


def start_of(trial: Trial, splits: DataSplits, work: Path) -> dict[str, Tensor]:
    """Weights from which all methods go on; trained if they are not there yet."""
    path = work / f"start/{trial.start}.pt"
    if not path.exists():
        state = train(trial.config(), splits).network.state_dict()
        write_whole(path, lambda file: torch.save(state, file))
    return dict(torch.load(path, weights_only=True))


def trained(
    trial: Trial, splits: DataSplits, start: dict[str, Tensor], penalty: Penalty
) -> SpikingNetwork:
    """Go on from a network, with a penalty or without, and take the last state."""
    config, epochs = trial.config(), EPOCHS[trial.dataset][1]
    network = SpikingNetwork(config).train()
    network.fold()
    network.load_state_dict(start)
    frames, labels = torch.tensor(splits.train.frames), torch.tensor(splits.train.labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    batches = epochs * math.ceil(len(labels) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, batches)
    order = torch.Generator().manual_seed(trial.seed)
    with kept_memory(), LatencyMonitor(network, config, gradient=True) as monitor:
        for _ in range(epochs):
            for chosen in torch.randperm(len(labels), generator=order).split(BATCH):
                fired = network(frames[chosen])
                loss = count_loss(fired[-1], labels[chosen], config) + penalty(monitor, fired)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return network.eval()


def judged(trial: Trial, network: SpikingNetwork, splits: DataSplits, path: Path) -> Row:
    """Accuracy and cycles of the integer network, which is saved."""
    integers = export_network(network, trial.config())
    save_network(integers, path)
    row: Row = {"accuracy": {}, "cycles": {name: {} for name in SCHEDULES}}
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        spikes = network_spikes(integers, part.frames)
        row["accuracy"][name] = class_accuracy(spikes.outputs, part.labels, 10)
        for schedule, found in row["cycles"].items():
            cycles = timing_model(trial.config(schedule)).trace(spikes.inputs).cycles
            found[name] = float(cycles.mean())
    return row


def row_of(trial: Trial, work: Path, console: Console) -> Row:
    """Train a network and judge it, or read what was found of it."""
    path = work / "rows" / f"{trial.key}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    begin, splits, budget = time.process_time(), load_splits(trial.config()), math.nan
    if trial.method == "budget":
        plain = row_of(trials_of(trial.dataset, trial.network, trial.seed)[0], work, console)
        budget = BUDGET * plain["cycles"][trial.schedule]["validation"]
    start = start_of(trial, splits, work)
    network = trained(trial, splits, start, penalty_of(trial, budget))
    found = judged(trial, network, splits, work / f"networks/{trial.key}.npz")
    row = {**asdict(trial), **found, "cpu_seconds": time.process_time() - begin}
    if trial.method == "budget":
        row["budget_cycles"] = budget
    write_whole(path, json.dumps(row).encode())
    kept, cycles = found["accuracy"]["validation"], found["cycles"][trial.schedule]["validation"]
    console.print(f"{path.stem} {trial.weight:g}: accuracy {kept:.3f}, {cycles:,.0f} cycles")
    return row


def rtl_cycles(trial: Trial, schedule: str, samples: int, work: Path) -> list[int]:
    """Cycles in RTL of the first test samples, checked: spikes, and the exact timing."""
    path = work / "rtl" / f"{trial.key}.{schedule}.{samples}.json"
    if not path.exists():
        config = trial.config(schedule)
        network = load_network(work / f"networks/{trial.key}.npz", config.layers)
        frames = load_splits(config).test.frames[:samples]
        expected = network_spikes(network, frames)
        simulation = simulate(config, network, frames)
        check_spikes(simulation, expected, config.layers)
        timing = timing_model(config).trace(expected.inputs)
        assert (simulation.cycles == timing.cycles).all(), f"{path.stem}: RTL and timing differ"
        write_whole(path, json.dumps(simulation.cycles.tolist()).encode())
    return list(json.loads(path.read_text()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All that was trained for a data set and network, by trial; seen on one schedule."""

    dataset: str
    network: str
    schedule: str
    rows: dict[Trial, Row]

    def of(self, method: str, weight: float = 0.0) -> list[Trial]:
        """One trial for each seed; what knows no hardware stands for any schedule."""
        schedule = self.schedule if method in ("latency", "budget") else SCHEDULES[0]
        wanted = (method, weight, schedule)
        return [x for x in self.rows if (x.method, x.weight, x.schedule) == wanted]

    def curve(self, method: str) -> list[list[Trial]]:
        weights = (0.0,) if method == "budget" else WEIGHTS
        return [self.of("plain"), *(self.of(method, weight) for weight in weights)]

    def accuracy(self, trials: Sequence[Trial], part: str) -> Any:
        """Percent, of each seed."""
        return np.array([100 * self.rows[trial]["accuracy"][part] for trial in trials])

    def cycles(self, trials: Sequence[Trial], part: str) -> Any:
        return np.array([self.rows[trial]["cycles"][self.schedule][part] for trial in trials])

    def chosen(self, method: str) -> list[Trial]:
        """Those of the weight with the fewest validation cycles that keep the accuracy."""
        curve, part = self.curve(method), "validation"
        least = self.accuracy(curve[0], part).mean() - TOLERANCE
        allowed = [each for each in curve if self.accuracy(each, part).mean() >= least]
        return min(allowed, key=lambda each: gmean(self.cycles(each, part)))

    def points_at_budget(self, method: str) -> float:
        """Points lost on test where the curve of a method has the cycles of the budget."""
        curve = self.curve(method)
        ratio = [1 / gmean(self.cycles(each, "test")) for each in curve]
        accuracy = [self.accuracy(each, "test").mean() for each in curve]
        return float(accuracy[0] - np.interp(ratio[0] / BUDGET, ratio, accuracy))


def compared(group: Group, samples: int, work: Path) -> list[Row]:
    """What each method comes to at equal accuracy, and what a budget does."""

    def measured(trials: Sequence[Trial]) -> Any:
        cycles = [rtl_cycles(each, group.schedule, samples, work) for each in trials]
        return np.mean(cycles, axis=1)

    plain, rows = group.of("plain"), []
    for method in (*PENALTIES, "budget"):
        trials = group.of("budget") if method == "budget" else group.chosen(method)
        ratios = measured(plain) / measured(trials)
        lost = group.accuracy(plain, "test") - group.accuracy(trials, "test")
        row = {
            **{name: getattr(group, name) for name in ("schedule", "dataset", "network")},
            "method": method,
            "weight": trials[0].weight,
            "points_lost": lost.mean(),
            "points_lost_of_seeds": lost.tolist(),
            "rtl_ratio": gmean(ratios),
            "rtl_ratio_of_seeds": ratios.tolist(),
        }
        if method == "budget":
            budgets = [group.rows[trial]["budget_cycles"] for trial in trials]
            row["reached_over_budget"] = (group.cycles(trials, "test") / budgets).tolist()
        else:
            row["points_at_budget"] = group.points_at_budget(method)
        rows.append(row)
    return rows


def overall(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over data sets and networks, a geometric one of the ratio, and a standard error."""
    groups = rows.groupby(["schedule", "method"])
    means = groups[["points_lost", "points_at_budget"]].mean()
    errors = groups["points_lost_of_seeds"].agg(lambda lost: sem(np.concatenate(list(lost))))
    return means.assign(points_error=errors, rtl_ratio=groups["rtl_ratio"].agg(gmean)).reset_index()


def draw(groups: Sequence[Group], path: Path) -> None:
    """Accuracy against cycles: the median of the seeds, and their range; a row for a schedule."""
    columns = len(groups) // len(SCHEDULES)
    figure, axes = plt.subplots(len(SCHEDULES), columns, figsize=(13, 6.2), squeeze=False,
                                sharex="row", layout="constrained")  # fmt: skip
    for axis, group in zip(axes.flat, groups, strict=True):
        draw_panel(axis, group)
        axis.set_title(f"{group.dataset}, {group.schedule}\n{group.network}", fontsize=9)
    figure.supxlabel("times fewer cycles than plain (exact timing of all test samples)")
    figure.supylabel("test accuracy, %")
    axes[0][0].legend(frameon=False, fontsize=8, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def draw_panel(axis: Axes, group: Group) -> None:
    kept = group.accuracy(group.of("plain"), "test").mean() - TOLERANCE
    axis.axhline(kept, color="#22303c", linewidth=0.7, linestyle=":")
    axis.axvline(1 / BUDGET, color="#22303c", linewidth=0.7, linestyle=":")
    for method, color in {**PENALTIES, "budget": "#e09f3e"}.items():
        curve = group.curve(method)
        cycles = np.array([group.cycles(each, "test") for each in curve])
        accuracy = np.array([group.accuracy(each, "test") for each in curve])
        x, y = np.median(cycles[0] / cycles, axis=1), np.median(accuracy, axis=1)
        spread = np.abs(np.stack([accuracy.min(axis=1), accuracy.max(axis=1)]) - y)
        x, y, spread = (x[1:], y[1:], spread[:, 1:]) if method == "budget" else (x, y, spread)
        axis.errorbar(x, y, yerr=spread, color=color, marker="o", markersize=4, capsize=2,
                      linewidth=1.4, elinewidth=0.7, label=method)  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks([1, 2, 3, 4, 5], ["1x", "2x", "3x", "4x", "5x"])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--work", type=Path, default=ROOT / "build/latency_aware")
    parser.add_argument("--rtl-samples", type=int, default=32)
    parser.add_argument("--out", type=Path, default=ROOT, help="repository to write into")
    given, console = parser.parse_args(), Console(highlight=False, width=200)
    places = list(itertools.product(EPOCHS, NETWORKS))
    found: dict[tuple[str, str], dict[Trial, Row]] = {place: {} for place in places}
    for seed, place in itertools.product(given.seeds, places):  # a whole seed, then the next
        for trial in trials_of(*place, seed):
            found[place][trial] = row_of(trial, given.work, console)
    groups = [Group(dataset=place[0], network=place[1], schedule=schedule, rows=found[place])
              for schedule, place in itertools.product(SCHEDULES, places)]  # fmt: skip
    rows = [row for group in groups for row in compared(group, given.rtl_samples, given.work)]
    table = pd.DataFrame(rows)
    console.print(table.to_string(float_format="{:.3f}".format))
    console.print(overall(table).to_string(float_format="{:.3f}".format))
    report = {
        "neural_cores": CORES,
        "rtl_samples": given.rtl_samples,
        "overall": overall(table).replace(np.nan, None).to_dict("records"),
        "compared": rows,
        "rows": [row for trials in found.values() for row in trials.values()],
    }
    text = f"{json.dumps(report, indent=1)}\n"
    write_whole(given.out / "benchmarks/results/latency_aware.json", text.encode())
    draw(groups, given.out / "docs/images/latency_aware.png")


if __name__ == "__main__":
    main()
