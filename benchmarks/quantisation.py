"""How far rounding a float network moves its latency.

    python benchmarks/quantisation.py [--networks 63] [--out FILE]

Trains snnTorch networks in floating point, as people do before they think of hardware, and imports
each with `spikemeter.from_module` at several weight widths. The cycles of its float spikes and of
the spikes of its integer network, on the same test samples, are both exact; their ratio is what
rounding does. Writes ``predictor/quantisation_errors.json``, which intervals of float networks
include, and prints a table of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import snntorch as snn
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from snntorch import functional, surrogate, utils
from torch import nn

from spikemeter import from_module, predict_latency
from spikemeter.config import Config, load_config
from spikemeter.datasets import DataSplits, load_splits
from spikemeter.predictor.intervals import DEPTHS

ROOT = Path(__file__).resolve().parents[1]
BITS = (2, 3, 4, 5, 6, 7, 8)
SAMPLES = 48
NETWORKS = (
    "8C3-MP2-10",
    "8C3-MP2-16C3-MP2-10",
    "8C3-MP2-16C3-MP2-16C3-10",
    "32-10",
    "8C3-MP4-32-10",
    "6C3-8C3-MP2-8C3-16C3-MP2-32-10",
    "32-24-10",
)
INPUTS = (("digits-saccade", 16), ("digits-saccade", 12), ("nmnist-saccade", 12))
EPOCHS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=63, help="networks to train")
    parser.add_argument("--out", type=Path, default=ROOT / "predictor/quantisation_errors.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(highlight=False)
    shifts = [shift(number) for number in track(range(given.networks), console=console)]
    report = {
        "networks": [each["about"] for each in shifts],
        "layers": [each["layers"] for each in shifts],
        "behind": [each["behind"] for each in shifts],
        "bits": {str(bits): [each["error"][bits] for each in shifts] for bits in BITS},
    }
    given.out.write_text(f"{json.dumps(report, indent=1)}\n")
    show(console, report)


def shift(number: int) -> dict[str, Any]:
    """Train one network, and compare its float spikes with those at every weight width."""
    rng = np.random.default_rng(number)
    torch.manual_seed(number)
    name, side = INPUTS[number % len(INPUTS)]
    config = load_config(
        {
            "dataset": name,
            "network": NETWORKS[number % len(NETWORKS)],
            "input": {"height": side, "width": side, "time_steps": int(rng.choice([4, 8, 12]))},
            "neuron": {
                "beta": round(float(rng.uniform(0.4, 0.98)), 3),
                "threshold": round(float(rng.uniform(0.4, 1.6)), 3),
            },
            "surrogate": {"slope": round(float(np.exp(rng.uniform(0.5, 3.5))), 2)},
            "training": {"batch_norm": bool(rng.random() < 0.7), "epochs": EPOCHS},
        }
    )
    splits = load_splits(config)
    module = trained(config, splits)
    sample = torch.tensor(splits.test.frames[:SAMPLES]).float().transpose(0, 1)
    before = from_module(module, sample)
    estimate = predict_latency(before.config, spikes=before.spikes)
    cycles = estimate.cycles
    error = {}
    for bits in BITS:
        after = from_module(module, sample, weight_bits=bits, quantised=True)
        error[bits] = float(
            np.log(predict_latency(after.config, spikes=after.spikes).cycles / cycles)
        )
    about = f"{name} {side}x{side}x{config.input.time_steps} {config.network} beta "
    about += f"{config.neuron.beta:g} threshold {config.neuron.threshold:g}"
    behind = 1 - estimate.layers[0].cycles / cycles
    return {"about": about, "layers": len(config.layers), "behind": behind, "error": error}


def trained(config: Config, splits: DataSplits) -> nn.Module:
    """A plain snnTorch module, after some epochs of a plain loop."""
    module = build(config)
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    loss_function = functional.ce_count_loss()
    size = 32
    for _ in range(config.training.epochs):
        order = torch.randperm(len(splits.train)).numpy()
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            frames = torch.tensor(splits.train.frames[chosen]).float().transpose(0, 1)
            utils.reset(module)
            outputs = torch.stack([module(step) for step in frames])
            loss = loss_function(outputs, torch.tensor(splits.train.labels[chosen]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return module.eval()


def build(config: Config) -> nn.Module:
    neuron = config.neuron
    parts: list[nn.Module] = []
    for index, layer in enumerate(config.layers):
        if layer.kind == "conv":
            parts.append(nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel,
                                   padding=layer.padding))  # fmt: skip
            if config.training.batch_norm:
                parts.append(nn.BatchNorm2d(layer.out_channels))
        else:
            if index == 0 or config.layers[index - 1].kind == "conv":
                parts.append(nn.Flatten())
            parts.append(nn.Linear(layer.inputs, layer.neurons))
        gradient = surrogate.fast_sigmoid(slope=config.surrogate.steepness)
        parts.append(snn.Leaky(beta=neuron.beta, threshold=neuron.threshold, spike_grad=gradient,
                               init_hidden=True))  # fmt: skip
        if layer.pool > 1:
            parts.append(nn.MaxPool2d(layer.pool))
    return nn.Sequential(*parts)


def show(console: Console, report: dict[str, Any]) -> None:
    table = Table("layers", "weight bits", "median shift", "90 % of networks within", "largest")
    depths = np.searchsorted(DEPTHS, report["layers"])
    for depth, name in enumerate((*(f"up to {most}" for most in DEPTHS), "more")):
        for bits, errors in report["bits"].items():
            shifts = np.array(errors)[depths == depth]
            if not len(shifts):
                continue
            sizes = np.abs(shifts)
            table.add_row(
                name,
                bits,
                f"{np.expm1(np.median(shifts)):+.1%}",
                f"{np.expm1(np.quantile(sizes, 0.9)):.1%}",
                f"{np.expm1(sizes.max()):.1%}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
