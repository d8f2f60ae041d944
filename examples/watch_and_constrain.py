"""Watch the latency of a network while it trains, then train another one to a latency budget.

    python examples/watch_and_constrain.py

Real digits, seen by a simulated event camera, and a plain snnTorch loop. Both networks end as
integers, as the hardware runs them: their cycles on the test samples are those of the RTL, one for
one. Takes less than a minute on two cores.
"""

from __future__ import annotations

import numpy as np
import snntorch as snn
import torch
from rich.console import Console
from rich.table import Table
from snntorch import functional, surrogate
from torch import Tensor, nn

from spikemeter import LatencyLoss, LatencyMonitor, from_module, predict_latency
from spikemeter.config import load_config
from spikemeter.datasets import load_splits

CONFIG = load_config(
    {
        "dataset": "digits-saccade",
        "network": "8C3-MP2-8C3-MP2-10",
        "input": {"height": 12, "width": 12, "time_steps": 6},
        "neuron": {"beta": 0.875},
        "surrogate": {"slope": 5},
        "training": {"epochs": 7, "lr": 8e-3, "batch_size": 32},
        "hardware": {"neural_cores": [8, 1, 10]},
    }
)
BUDGET_US = 120.0
TASK_LOSS = functional.mse_count_loss(correct_rate=1.0, incorrect_rate=0.0)
TEST_SAMPLES = 200
console = Console(highlight=False)


def network() -> nn.Sequential:
    """Build the network of the configuration, as tutorials write it."""

    def neuron() -> snn.Leaky:
        return snn.Leaky(beta=0.875, spike_grad=surrogate.fast_sigmoid(5), init_hidden=True)

    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), neuron(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), neuron(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 3 * 3, 10), neuron(),
    )  # fmt: skip


def run(net: nn.Sequential, frames: Tensor) -> Tensor:
    """Give the output spikes of each step; frames have shape (samples, time_steps, ...)."""
    for part in net:
        if isinstance(part, snn.Leaky):
            part.reset_mem()
    return torch.stack([net(step) for step in frames.transpose(0, 1)])


def train(title: str, penalty: LatencyLoss | None) -> nn.Sequential:
    """Train a network; `penalty` is all that the second one has besides."""
    console.print(f"\n[bold]{title}[/bold]")
    torch.manual_seed(0)
    net, splits, settings = network(), load_splits(CONFIG), CONFIG.training
    optimiser = torch.optim.Adam(net.parameters(), lr=settings.lr)
    labels = torch.tensor(splits.train.labels)
    with LatencyMonitor(net, CONFIG, gradient=penalty is not None) as monitor:
        for epoch in range(settings.epochs):
            net.train()
            for chosen in torch.randperm(len(labels)).split(settings.batch_size):
                frames = torch.tensor(splits.train.frames[chosen.numpy()]).float()
                loss = TASK_LOSS(run(net, frames), labels[chosen])
                if penalty is not None:
                    loss = loss + penalty(monitor)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            net.eval()
            with torch.no_grad():
                outputs = run(net, torch.tensor(splits.validation.frames).float())
            best = outputs.sum(0).argmax(1).numpy()
            accuracy = np.mean(best == splits.validation.labels)
            estimate = monitor.end_epoch()
            line = f"epoch {epoch + 1}: accuracy {accuracy:.3f}, {estimate.microseconds:6.1f} us"
            if penalty is None:  # forecasts are of networks that train freely
                row = monitor.rows[-1]
                low, high = row["forecast_microseconds_low"], row["forecast_microseconds_high"]
                middle = row["forecast_microseconds"]
                line += f", forecast {middle:.0f} us ({low:.0f} to {high:.0f})"
            console.print(line)
    return net


def on_hardware(net: nn.Sequential) -> tuple[float, float]:
    """Give accuracy and microseconds of the integer network, on test samples."""
    test = load_splits(CONFIG).test.frames[:TEST_SAMPLES]
    sample = torch.tensor(test).float().transpose(0, 1)
    found = from_module(net, sample, hardware=CONFIG.hardware, weight_bits=6, quantised=True)
    estimate = predict_latency(found.config, spikes=found.spikes)
    counts = found.spikes["outputs"].sum(axis=1)
    right = counts.argmax(axis=1) == load_splits(CONFIG).test.labels[:TEST_SAMPLES]
    return float(right.mean()), estimate.microseconds


def main() -> None:
    """Train both, and compare what becomes of them."""
    torch.set_num_threads(1)
    free = train("Watched", None)
    bound = train(f"Trained to {BUDGET_US:g} us", LatencyLoss(CONFIG, budget_us=BUDGET_US))
    table = Table("network", "test accuracy", "latency of the integer network, us")
    for name, net in (("free", free), (f"to {BUDGET_US:g} us", bound)):
        accuracy, microseconds = on_hardware(net)
        table.add_row(name, f"{accuracy:.3f}", f"{microseconds:.1f}")
    console.print("", table)


if __name__ == "__main__":
    main()
