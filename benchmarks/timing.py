"""How well and how fast the timing model speaks for the RTL.

    PYTHONPATH=tests/support python benchmarks/timing.py [--out FILE] [--published] [--calibrate]

Accuracy: networks drawn at random and networks trained on digits, each random sample at its own
sparsity, through the RTL (native runner), and through `predict_latency` fed with spike trains, with
counts and taps, with counts per channel, and with counts per layer; beside the errors, the share of
latencies inside the 90 % intervals. Speed: the model beside the native runner on the same samples,
builds and start-up excluded. ``--published`` adds the network of arXiv 2603.24891, whose simulator
takes minutes to build.

``--calibrate`` instead measures the errors that the intervals rest on, on other networks and with
spike trains for the RTL (the two are equal to the cycle), and writes them beside the predictor.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.events import expected_taps
from spikemeter.predictor.intervals import STATISTICS_ERRORS, StatisticsErrors
from spikemeter.predictor.timing import spike_taps, timing_model
from spikemeter.rtl import simulate

SAMPLES = 16
SEED = 2026
PUBLISHED = "64C3-28C3-MP2-48C3-54C3-MP2-120C3-126C3-140C3-MP2-1064-200"
# Inferred from the one sample that is published; see docs/engine.md
PUBLISHED_CORES = [64, 7, 8, 9, 8, 9, 10, 8, 2]
LEVELS = {
    "trace": "trace",
    "taps": "counts and taps",
    "channels": "counts per channel",
    "layers": "counts per layer",
}
GROUPS = ("random, with convolutions", "random, dense alone", "trained", "all")

RANDOM = (
    "8C3-MP2-10", "16C3-MP2-32C3-MP2-10", "6C5-MP2-24-10", "12C3v-8C3-MP4-10",
    "8C1-16C3-MP2-16C3-10", "4C3-8C3-8C3-MP2-12C3-20-10", "64-10", "128-64-10",
)  # fmt: skip
TRAINED = (
    ("8C3-MP2-10", 0.3, 0.9), ("8C3-MP2-16C3-MP2-10", 1.0, 0.9),
    ("8C3-MP2-16C3-MP2-10", 2.0, 0.5), ("12C5-MP2-32-10", 0.5, 0.7),
    ("16C3-MP2-32C3-MP2-10", 1.0, 0.95), ("64-10", 1.0, 0.9),
)  # fmt: skip
# Others, for calibration: no network of it is in the lists above
OTHER_SEED = 7
OTHER_RANDOM = (
    "6C3-10", "12C3-MP2-24C3-MP2-10", "10C5-MP4-10", "6C3v-12C3-MP2-16-10", "5C3-MP2-5C5-MP2-40-10",
    "24-10", "96-10", "48-32-10",
)  # fmt: skip
OTHER_TRAINED = tuple(
    (network, threshold, beta)
    for network in ("12C3-MP2-10", "6C3-MP2-12C3-MP2-10", "8C5-MP2-24-10", "10C3-20C3-MP4-10",
                    "48-10", "6C3-MP2-32-10")
    for threshold, beta in ((0.4, 0.6), (0.8, 0.95), (1.5, 0.8))
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A network with samples to run through it, and the spikes that enter its layers."""

    group: str
    config: Config
    network: IntegerNetwork
    frames: NDArray[np.bool_]
    trains: tuple[NDArray[np.bool_], ...]


def random_subjects(notations: Sequence[str], count: int, seed: int) -> Iterator[Subject]:
    """Random weights; every sample has its own density, from 0.1 % to 40 %."""
    for index in range(count):
        rng = np.random.default_rng((seed, index))
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
        network = random_network(config, rng)
        yield Subject(
            group=GROUPS["C" not in config.network],
            config=config,
            network=network,
            frames=frames,
            trains=network_spikes(network, frames).inputs,
        )


def trained_subjects(choices: Sequence[tuple[str, float, float]]) -> Iterator[Subject]:
    """Digits, under choices (network, threshold, beta): networks that spike seldom and often."""
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
        yield Subject(
            group="trained",
            config=config,
            network=run.network,
            frames=frames,
            trains=network_spikes(run.network, frames).inputs,
        )


def known_spikes(subject: Subject, sample: int) -> dict[str, dict[str, NDArray[Any]]]:
    """What is told of one sample at each level."""
    layers = subject.config.layers
    trains = [train[sample : sample + 1] for train in subject.trains]
    counts = [
        train.reshape(*train.shape[:2], layer.in_channels, -1).sum(axis=3)
        for layer, train in zip(layers, trains, strict=True)
    ]
    taps = [spike_taps(layer, train) for layer, train in zip(layers, trains, strict=True)]

    def named(name: str, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {f"{name}_{index}": array for index, array in enumerate(arrays)}

    return {
        "trace": named("inputs", trains),
        "taps": named("counts", counts) | named("taps", taps),
        "channels": named("counts", counts),
        "layers": named("counts", [count.sum(axis=2, keepdims=True) for count in counts]),
    }


def accuracy() -> dict[str, Any]:
    """Errors and coverage by group and level, one latency at a time."""
    found = {group: {level: ([], []) for level in LEVELS} for group in GROUPS}
    for subject in (*random_subjects(RANDOM, 16, SEED), *trained_subjects(TRAINED)):
        measured = simulate(subject.config, subject.network, subject.frames).cycles
        for sample, cycles in enumerate(measured.tolist()):
            for level, spikes in known_spikes(subject, sample).items():
                estimate = predict_latency(subject.config, spikes=spikes, confidence=0.9)
                low, high = estimate.interval_cycles
                for group in (subject.group, "all"):
                    errors, held = found[group][level]
                    errors.append(abs(estimate.cycles / cycles - 1))
                    held.append(low <= cycles <= high)
        print(f"{subject.config.network}: {len(measured)} samples", flush=True)
    return {
        group: {
            level: {
                "pairs": len(errors),
                "mape": float(np.mean(errors)),
                "p99": float(np.quantile(errors, 0.99)),
                "coverage": float(np.mean(held)),
            }
            for level, (errors, held) in of_group.items()
        }
        for group, of_group in found.items()
    }


def calibrated() -> dict[str, Any]:
    """Errors from counts, in units of their expected deviation, by level and network."""
    subjects = [
        *random_subjects(OTHER_RANDOM, 24, OTHER_SEED), *trained_subjects(OTHER_TRAINED)
    ]  # fmt: skip
    tap_deviation = float(
        np.sqrt(np.mean(np.concatenate([tap_errors(subject) for subject in subjects]) ** 2))
    )
    scale = StatisticsErrors(tap_deviation=round(tap_deviation, 4), of_level={})
    ratios = LatencyPredictor.default().parts.tap_ratios
    levels = {level: {"error": [], "group": []} for level in LEVELS if level != "trace"}
    for group, subject in enumerate(subjects):
        config, model = subject.config, timing_model(subject.config)
        without_choice = all(layer.kernel == 1 for layer in config.layers)
        for sample in range(0, SAMPLES, 2):
            exact = model.trace([train[sample : sample + 1] for train in subject.trains]).cycles[0]
            known = known_spikes(subject, sample)
            for told in levels:
                # As an estimate says it: a kernel of one tap leaves nothing to count
                level = "taps" if without_choice else told
                counts, taps = (
                    [known[told].get(f"{name}_{index}") for index in range(len(config.layers))]
                    for name in ("counts", "taps")
                )
                if told != "taps":
                    taps = expected_taps(config, counts, ratios)
                timing = model.statistics(counts, taps)
                unit = scale.deviation(config.layers, timing, taps_known=level == "taps")
                error = float(np.log(exact / timing.cycles[0])) / unit
                levels[level]["error"].append(round(error, 4))
                levels[level]["group"].append(group)
    return {"tap_deviation": scale.tap_deviation, "levels": levels}


def tap_errors(subject: Subject) -> NDArray[np.float64]:
    """Share by which taps are off the expected ones, over the layers with a choice, by sample."""
    config, ratios = subject.config, LatencyPredictor.default().parts.tap_ratios
    counts = [
        train.reshape(*train.shape[:2], layer.in_channels, -1).sum(axis=3, dtype=np.float64)
        for layer, train in zip(config.layers, subject.trains, strict=True)
    ]
    exact = [spike_taps(layer, x) for layer, x in zip(config.layers, subject.trains, strict=True)]
    pairs = zip(config.layers, exact, expected_taps(config, counts, ratios), strict=True)
    sums = [
        (
            phases(config, index) * taps.sum(axis=(1, 2)),
            phases(config, index) * other.sum(axis=(1, 2)),
        )
        for index, (layer, taps, other) in enumerate(pairs)
        if layer.kernel > 1
    ]
    if not sums:
        return np.empty(0)
    found, expected = np.sum(sums, axis=0)
    return (found / expected - 1)[expected > 0]


def phases(config: Config, index: int) -> int:
    """Output channels that a core of a layer owns."""
    return -(-config.layers[index].out_channels // config.neural_cores[index])


def best_seconds(
    call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Least time of some calls."""
    call()
    times = []
    for _ in range(repeats):
        began = clock()
        call()
        times.append(clock() - began)
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
    """One estimate through `predict_latency`, and many at once: seconds of one thread."""
    config = load_config({"dataset": "nmnist-saccade", "network": "16C3-MP2-32C3-MP2-10"})
    rng = np.random.default_rng(1)
    counts = {
        f"counts_{index}": rng.integers(0, 5, (config.input.time_steps, layer.in_channels))
        for index, layer in enumerate(config.layers)
    }
    taps = {name.replace("counts", "taps"): 3 * array for name, array in counts.items()}
    taps[f"taps_{len(config.layers) - 1}"] = counts[f"counts_{len(config.layers) - 1}"]
    arrays = counts | taps

    def twenty() -> None:
        for _ in range(20):
            predict_latency(config, spikes=arrays)

    many = [np.repeat(array[None].astype(np.float64), 20_000, axis=0) for array in counts.values()]
    model = timing_model(config)
    batch = best_seconds(lambda: model.statistics(many), 10, time.thread_time)
    return {
        "one_us": best_seconds(twenty, 500, time.thread_time) * 5e4,
        "one_us_by_the_clock": best_seconds(twenty, 500) * 5e4,
        "batched_per_second": 20_000 / batch,
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
    console = Console(width=120)
    title = "latency against RTL: mean, p99; share inside the 90 % interval"
    table = Table("pairs of network and sample", *LEVELS.values(), title=title)
    for group, of_group in report["accuracy"].items():
        cells = [
            f"{100 * x['mape']:.2f} %, {100 * x['p99']:.2f} %; {100 * x['coverage']:.0f} %"
            for x in of_group.values()
        ]
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
        f"an estimate from counts takes {one['one_us']:.0f} us of one thread "
        f"({one['one_us_by_the_clock']:.0f} us by the clock); "
        f"batched {one['batched_per_second']:,.0f} per second"
    )


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/timing.json"))
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    arguments = parser.parse_args()
    if arguments.calibrate:
        path = Path("predictor") / STATISTICS_ERRORS
        path.write_text(json.dumps(calibrated()) + "\n")
        return
    small = load_config(
        {"network": "16C3-MP2-32C3-MP2-10", "input": {"statistics": [[0.0, 0.0]] * 8}}
    )
    report: dict[str, Any] = {
        "statistics_speed": statistics_speed(),
        "trace_speed": [trace_speed(small, 256, 16, 0.1)],
    }
    if arguments.published:
        report["trace_speed"].append(published_speed())
    report["accuracy"] = accuracy()
    show(report)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
