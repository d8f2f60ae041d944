"""How well and how fast the timing model speaks for the RTL.

    PYTHONPATH=tests/support python benchmarks/timing.py [--out FILE] [--published]

Accuracy: networks drawn at random and networks trained on digits, each sample at its own sparsity,
through the RTL (native runner), and through the timing model fed with spike trains, with counts and
taps, with counts per channel, and with counts per layer. Speed: the model beside the native runner
on the same samples, builds and start-up excluded. ``--published`` adds the network of arXiv
2603.24891, whose simulator takes minutes to build.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from random_networks import random_network
from rich.console import Console
from rich.table import Table

from spikemeter import predict_latency
from spikemeter.config import Config, load_config
from spikemeter.models import IntegerNetwork, load_run, network_spikes, train_run
from spikemeter.predictor.timing import spike_taps, timing_model
from spikemeter.rtl import simulate

SAMPLES = 16
PUBLISHED = "64C3-28C3-MP2-48C3-54C3-MP2-120C3-126C3-140C3-MP2-1064-200"
# Inferred from the one sample that is published; see docs/engine.md
PUBLISHED_CORES = [64, 7, 8, 9, 8, 9, 10, 8, 2]
LEVELS = ("trace", "counts and taps", "counts per channel", "counts per layer")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A network with samples to run through it."""

    group: str
    config: Config
    network: IntegerNetwork
    frames: NDArray[np.bool_]


def random_subjects() -> Iterator[Subject]:
    """Random weights; every sample has its own density, from 0.1 % to 40 %."""
    rng = np.random.default_rng(2026)
    notations = [
        "8C3-MP2-10", "16C3-MP2-32C3-MP2-10", "6C5-MP2-24-10", "12C3v-8C3-MP4-10",
        "8C1-16C3-MP2-16C3-10", "4C3-8C3-8C3-MP2-12C3-20-10", "64-10", "128-64-10",
    ]  # fmt: skip
    for index in range(16):
        side, steps = int(rng.choice([12, 16, 28])), int(rng.choice([4, 8]))
        config = load_config(
            {
                "network": notations[index % len(notations)],
                "input": {
                    "height": side, "width": side, "time_steps": steps,
                    "statistics": [[0.0, 0.0]] * steps,
                },
                "neuron": {"model": "lapicque" if index % 3 == 2 else "lif"},
                "hardware": {
                    "encoder_width": int(rng.choice([16, 32, 64])),
                    "schedule": "step_pipelined" if index % 2 else "layer_serial",
                },
            }
        )  # fmt: skip
        density = np.geomspace(0.001, 0.4, SAMPLES).reshape(-1, 1, 1, 1, 1)
        frames = rng.random((SAMPLES, steps, 2, side, side)) < density
        dense = "C" not in config.network
        yield Subject(
            group="random, dense alone" if dense else "random, with convolutions",
            config=config,
            network=random_network(config, rng),
            frames=frames,
        )


def trained_subjects() -> Iterator[Subject]:
    """Digits, under choices that make networks spike seldom and often."""
    choices = [
        ("8C3-MP2-10", 0.3, 0.9), ("8C3-MP2-16C3-MP2-10", 1.0, 0.9),
        ("8C3-MP2-16C3-MP2-10", 2.0, 0.5), ("12C5-MP2-32-10", 0.5, 0.7),
        ("16C3-MP2-32C3-MP2-10", 1.0, 0.95), ("64-10", 1.0, 0.9),
    ]  # fmt: skip
    for number, (notation, threshold, beta) in enumerate(choices):
        config = load_config(
            {
                "dataset": "nmnist-saccade",
                "network": notation,
                "neuron": {"threshold": threshold, "beta": beta},
                "training": {"epochs": 2},
                "hardware": {"schedule": "step_pipelined" if number % 2 else "layer_serial"},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            train_run(config, Path(folder) / "run")
            run = load_run(Path(folder) / "run")
        size = config.input
        shape = (-1, size.time_steps, size.channels, size.height, size.width)
        frames = run.inputs[0].reshape(shape)[:SAMPLES]
        yield Subject(group="trained", config=config, network=run.network, frames=frames)


def errors(subject: Subject) -> dict[str, NDArray[np.float64]]:
    """Relative errors of latency against the RTL, by level, one per sample."""
    config = subject.config
    measured = simulate(config, subject.network, subject.frames).cycles
    trains = network_spikes(subject.network, subject.frames).inputs
    model, layers = timing_model(config), config.layers
    counts = [train.sum(axis=(3, 4)).astype(np.float64) for train in trains]
    taps = [spike_taps(layer, train) for layer, train in zip(layers, trains, strict=True)]
    together = [count.sum(axis=2, keepdims=True) for count in counts]
    timings = {
        "trace": model.trace(trains),
        "counts and taps": model.statistics(counts, taps),
        "counts per channel": model.statistics(counts),
        "counts per layer": model.statistics(together),
    }
    return {name: timing.cycles / measured - 1 for name, timing in timings.items()}


def accuracy() -> dict[str, Any]:
    """Errors by group and level."""
    found: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for subject in (*random_subjects(), *trained_subjects()):
        by_level = errors(subject)
        for group in (subject.group, "all"):
            of_group = found.setdefault(group, {level: [] for level in LEVELS})
            for level, values in by_level.items():
                of_group[level].append(np.abs(values))
        print(f"{subject.config.network}: {len(subject.frames)} samples", flush=True)
    return {
        group: {
            level: {
                "pairs": int(np.concatenate(values).size),
                "mape": float(np.concatenate(values).mean()),
                "p99": float(np.quantile(np.concatenate(values), 0.99)),
            }
            for level, values in of_group.items()
        }
        for group, of_group in found.items()
    }


def best_seconds(call: Callable[[], object], repeats: int) -> float:
    """Least time of some calls."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def trace_speed(config: Config, samples: int, simulated: int, density: float) -> dict[str, Any]:
    """Inferences per second of the timing model on traces, and of the native runner."""
    rng = np.random.default_rng(1)
    size = config.input
    shape = (simulated, size.time_steps, size.channels, size.height, size.width)
    network = random_network(config, rng, membrane_bits=24)
    simulation = simulate(config, network, rng.random(shape) < density)
    trains = [
        rng.random((samples, size.time_steps, *maps)) < density
        for maps in ((x.in_channels, x.in_height, x.in_width) for x in config.layers)
    ]
    model = timing_model(config)
    seconds = best_seconds(lambda: model.trace(trains), 5) / samples
    cycles = float(model.trace(trains).cycles.mean())
    by_rtl = cycles / simulation.simulated_cycles_per_second
    return {
        "network": config.network,
        "cycles": cycles,
        "rtl_cycles_per_second": simulation.simulated_cycles_per_second,
        "rtl_seconds_per_inference": by_rtl,
        "model_seconds_per_inference": seconds,
        "times_faster": by_rtl / seconds,
    }


def statistics_speed() -> dict[str, float]:
    """One estimate through `predict_latency`, and many at once."""
    config = load_config({"dataset": "nmnist-saccade", "network": "16C3-MP2-32C3-MP2-10"})
    rng = np.random.default_rng(1)
    counts = {
        f"counts_{index}": rng.integers(0, 5, (config.input.time_steps, layer.in_channels))
        for index, layer in enumerate(config.layers)
    }
    taps = {name.replace("counts", "taps"): 3 * array for name, array in counts.items()}
    taps[f"taps_{len(config.layers) - 1}"] = counts[f"counts_{len(config.layers) - 1}"]
    arrays = counts | taps

    def thousand() -> None:
        for _ in range(1000):
            predict_latency(config, spikes=arrays)

    many = [np.repeat(array[None].astype(np.float64), 20_000, axis=0) for array in counts.values()]
    model = timing_model(config)
    return {
        "one_us": best_seconds(thousand, 5) * 1e3,
        "batched_per_second": 20_000 / best_seconds(lambda: model.statistics(many), 5),
    }


def published_speed() -> dict[str, Any]:
    """The published network: ratio to the RTL, and 1,000 inferences with their memory."""
    config = load_config(
        {
            "network": PUBLISHED,
            "input": {
                "height": 32, "width": 32, "time_steps": 4, "statistics": [[0.0, 0.0]] * 4
            },
            "hardware": {"neural_cores": PUBLISHED_CORES},
        }
    )  # fmt: skip
    report = trace_speed(config, 64, 1, 0.02)
    rng = np.random.default_rng(1)
    model, packs = timing_model(config), []
    for layer in config.layers:
        maps = (layer.in_channels, layer.in_height, layer.in_width)
        packs.append(rng.random((100, 4, *maps)) < 0.02)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    for _ in range(10):
        model.trace(packs)
    report["seconds_of_1000_inferences"] = time.perf_counter() - began
    report["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report["peak_memory_before_gib"] = before / 2**20
    return report


def show(report: dict[str, Any]) -> None:
    """Print what was found as tables."""
    console = Console(width=110)
    table = Table("pairs of network and sample", *LEVELS, title="latency against RTL: mean, p99")
    for group, of_group in report["accuracy"].items():
        cells = [f"{100 * x['mape']:.2f} %, {100 * x['p99']:.2f} %" for x in of_group.values()]
        table.add_row(f"{of_group['trace']['pairs']} {group}", *cells)
    console.print(table)
    for speed in report["trace_speed"]:
        console.print(
            f"{speed['network']}: {1e3 * speed['model_seconds_per_inference']:.3f} ms for a trace, "
            f"{speed['times_faster']:,.0f} times as fast as the native runner "
            f"({speed['rtl_cycles_per_second'] / 1e6:.2f} million cycles/s)"
        )
    one = report["statistics_speed"]
    console.print(
        f"an estimate from counts takes {one['one_us']:.0f} us; "
        f"batched {one['batched_per_second']:,.0f} per second"
    )


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/timing.json"))
    parser.add_argument("--published", action="store_true")
    arguments = parser.parse_args()
    small = load_config(
        {"network": "16C3-MP2-32C3-MP2-10", "input": {"statistics": [[0.0, 0.0]] * 8}}
    )
    report: dict[str, Any] = {
        "statistics_speed": statistics_speed(),
        "trace_speed": [trace_speed(small, 256, 16, 0.1)],
        "accuracy": accuracy(),
    }
    if arguments.published:
        report["trace_speed"].append(published_speed())
    show(report)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
