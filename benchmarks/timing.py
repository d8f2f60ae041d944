"""How well and how fast the timing model speaks for the RTL.

    PYTHONPATH=tests/support python benchmarks/timing.py [--out FILE] [--calibrate] [PART ...]

`accuracy`: networks drawn at random and networks trained on digits, each random sample at its own
sparsity, through the RTL (native runner), and through `predict_latency` fed with spike trains, with
counts and taps, with counts per channel, and with counts per layer; beside the errors, the share of
latencies inside the 90 % intervals and their mean half width.

`dense`: the error from counts of dense networks beside that of the mean over other places of the
same spikes, which is the least that counts allow.

`estimate`: an estimate from counts, at every level, under both schedules, and of a dense network;
and many at once. By the time of one thread.

`trace`: the model beside the native runner, builds and start-up excluded. The RTL's cycles per
second are those of a random network that runs its own spikes, the model's time is that of trains of
the same density at the input of every layer; seconds of RTL are the model's cycles at that speed.

`published`: the same for the network of arXiv 2603.24891, whose simulator takes minutes to build,
and 1,000 of its inferences through `predict_latency`, in a process of their own.

Without a PART all but `published` are measured; the file keeps the others.

``--calibrate`` instead measures the errors that the intervals rest on, on other networks and with
spike trains for the RTL (the two are equal to the cycle), and writes them beside the predictor.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from spikemeter.predictor.intervals import FAMILIES, STATISTICS_ERRORS, StatisticsErrors
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
                    "48-10", "6C3-MP2-32-10", "56-20-10", "16C3-MP4-16-10")
    for threshold, beta in ((0.5, 0.9), (1.0, 0.4), (1.6, 0.6))
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
    found = {group: {level: ([], [], []) for level in LEVELS} for group in GROUPS}
    for subject in (*random_subjects(RANDOM, 16, SEED), *trained_subjects(TRAINED)):
        measured = simulate(subject.config, subject.network, subject.frames).cycles
        for sample, cycles in enumerate(measured.tolist()):
            for level, spikes in known_spikes(subject, sample).items():
                estimate = predict_latency(subject.config, spikes=spikes, confidence=0.9)
                low, high = estimate.interval_cycles
                for group in (subject.group, "all"):
                    errors, held, widths = found[group][level]
                    errors.append(abs(estimate.cycles / cycles - 1))
                    held.append(low <= cycles <= high)
                    widths.append(np.log(high / estimate.cycles))
        print(f"{subject.config.network}: {len(measured)} samples", flush=True)
    return {
        group: {
            level: {
                "pairs": len(errors),
                "mape": float(np.mean(errors)),
                "p99": float(np.quantile(errors, 0.99)),
                "coverage": float(np.mean(held)),
                "half_width": float(np.mean(widths)),
            }
            for level, (errors, held, widths) in of_group.items()
        }
        for group, of_group in found.items()
    }


def dense_limit(draws: int = 200) -> dict[str, Any]:
    """Errors of dense networks from counts, and of the mean over other places of their spikes."""
    rng = np.random.default_rng(SEED)
    errors, least = [], []
    for subject in random_subjects(("64-10", "24-10"), 16, SEED + 1):
        model, trains = timing_model(subject.config), subject.trains
        exact = model.trace(trains).cycles
        counts, _ = counted(subject)
        maps = trains[0].reshape(*trains[0].shape[:2], subject.config.input.channels, -1)
        flat = (*trains[0].shape[:2], -1)
        others = [
            model.trace([rng.permuted(maps, axis=3).reshape(flat), *trains[1:]]).cycles
            for _ in range(draws)
        ]
        errors += np.abs(model.statistics(counts).cycles / exact - 1).tolist()
        least += np.abs(np.mean(others, axis=0) / exact - 1).tolist()
    return {
        "samples": len(errors),
        "from_counts": {"mape": float(np.mean(errors)), "p99": float(np.quantile(errors, 0.99))},
        "mean_over_places": {"mape": float(np.mean(least)), "p99": float(np.quantile(least, 0.99))},
    }


def calibrated(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Errors from counts, in units of their expected deviation, by level and network."""
    random = [subject for subject in subjects if subject.group != "trained"]
    trained = [subject for subject in subjects if subject.group == "trained"]
    scales = {
        "tap_deviation": root_mean_square(np.concatenate([tap_errors(x) for x in subjects])),
        "misfit": root_mean_square(np.concatenate([misfits(x) for x in trained])),
        "formula_share": formula_share(random),
        "mean_share": root_mean_square([error_of_the_mean(x) for x in subjects]),
    }
    scale = StatisticsErrors(**scales, of_level={})
    ratios = LatencyPredictor.default().parts.tap_ratios
    levels = {
        level: {family: {"error": [], "group": []} for family in FAMILIES}
        for level in LEVELS
        if level != "trace"
    }
    for group, subject in enumerate(subjects):
        family = "trained" if subject.group == "trained" else "random"
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
                levels[level][family]["error"].append(round(error, 4))
                levels[level][family]["group"].append(group)
    return {**scales, "levels": levels}


def root_mean_square(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Of the values; rounded, as it is written down."""
    return round(float(np.sqrt(np.mean(np.square(values)))), 4)


def counted(subject: Subject) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Counts and taps of all samples, by layer."""
    layers = subject.config.layers
    counts = [
        train.reshape(*train.shape[:2], layer.in_channels, -1).sum(axis=3, dtype=np.float64)
        for layer, train in zip(layers, subject.trains, strict=True)
    ]
    return counts, [spike_taps(x, train) for x, train in zip(layers, subject.trains, strict=True)]


def misfits(subject: Subject) -> NDArray[np.float64]:
    """Errors of the samples in units of the unevenness that they leave room for."""
    model = timing_model(subject.config)
    timing = model.statistics(*counted(subject))
    error = model.trace(subject.trains).cycles - timing.cycles
    room = timing.chance.unevenness
    return error[room > 0] / room[room > 0]


def error_of_the_mean(subject: Subject) -> float:
    """Error of cycles from mean counts, in units of what a convex cost leaves room for."""
    model = timing_model(subject.config)
    counts, taps = ([x.mean(axis=0, keepdims=True) for x in both] for both in counted(subject))
    timing = model.statistics(counts, taps)
    error = model.trace(subject.trains).cycles.mean() - timing.cycles[0]
    return float(error / timing.chance.convexity[0])


def formula_share(subjects: Sequence[Subject], draws: int = 32) -> float:
    """Error of the mean over other places of the same spikes, in standard deviations."""
    rng = np.random.default_rng(3)
    shares = []
    for subject in subjects:
        model = timing_model(subject.config)
        for sample in range(0, SAMPLES, 4):
            trains = []
            for train in subject.trains:
                lines = train[sample].reshape(train.shape[1], -1)
                drawn = rng.permuted(np.repeat(lines[None], draws, axis=0), axis=2)
                trains.append(drawn.reshape(draws, *train.shape[1:]))
            other = dataclasses.replace(subject, trains=tuple(trains))
            timing = model.statistics(*counted(other))
            error = model.trace(trains).cycles - timing.cycles
            # The mean of so many draws still scatters itself
            bias = error.mean() ** 2 - error.var(ddof=1) / draws
            if timing.chance.variance.any():
                shares.append(bias / timing.chance.variance.mean())
    return round(float(np.sqrt(max(np.mean(shares), 0.0))), 4)


def tap_errors(subject: Subject) -> NDArray[np.float64]:
    """Share by which taps are off the expected ones, over the layers with a choice, by sample."""
    config, ratios = subject.config, LatencyPredictor.default().parts.tap_ratios
    counts, exact = counted(subject)
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


def example(network: str, schedule: str, most: int) -> tuple[Config, dict[str, dict[str, Any]]]:
    """A validated network, and counts below `most` that enter it, at every level."""
    config = load_config(
        {"dataset": "nmnist-saccade", "network": network, "hardware": {"schedule": schedule}}
    )
    rng = np.random.default_rng(1)
    counts, taps = {}, {}
    for index, layer in enumerate(config.layers):
        count = rng.integers(0, most, (config.input.time_steps, layer.in_channels))
        counts[f"counts_{index}"] = count
        taps[f"taps_{index}"] = count * (1 if layer.kernel == 1 else 6)
    sums = {name: count.sum(axis=1, keepdims=True) for name, count in counts.items()}
    return config, {"taps": counts | taps, "channels": counts, "layers": sums}


def estimate_speed() -> dict[str, Any]:
    """One estimate through `predict_latency`, and many at once: seconds of one thread."""
    network = "16C3-MP2-32C3-MP2-10"
    one = {
        f"{level}, {schedule}": microseconds(config, told)
        for schedule in ("layer_serial", "step_pipelined")
        for config, levels in [example(network, schedule, 5)]
        for level, told in levels.items()
    }
    dense, levels = example("64-32-10", "layer_serial", 2)
    one["64-32-10, counts of 0 and 1"] = microseconds(dense, levels["channels"])

    config, levels = example(network, "layer_serial", 5)
    many = {
        name: np.repeat(array[None].astype(np.float64), 20_000, axis=0)
        for name, array in levels["taps"].items()
    }
    model, layers = timing_model(config), range(len(config.layers))
    counts = [many[f"counts_{index}"] for index in layers]
    taps = [many[f"taps_{index}"] for index in layers]
    calls: dict[str, Callable[[], object]] = {
        "model, with taps": lambda: model.statistics(counts, taps),
        "model, without taps": lambda: model.statistics(counts),
        "predict_latency, with taps": lambda: predict_latency(config, spikes=many),
    }
    return {
        "one_us": one,
        "batched_per_second": {
            name: 20_000 / best_seconds(call, 10, time.thread_time) for name, call in calls.items()
        },
    }


def microseconds(config: Config, told: dict[str, Any]) -> dict[str, float]:
    """Least and median time of an estimate, each over 20 of them."""
    predict_latency(config, spikes=told)
    times = []
    for _ in range(300):
        began = time.thread_time()
        for _ in range(20):
            predict_latency(config, spikes=told)
        times.append((time.thread_time() - began) * 5e4)
    return {"least": min(times), "median": float(np.median(times))}


def published_config() -> Config:
    """The network of arXiv 2603.24891, with the cores that were inferred for it."""
    return load_config(
        {
            "network": PUBLISHED,
            "input": {
                "height": 32, "width": 32, "time_steps": 4, "statistics": [[0.0, 0.0]] * 4
            },
            "hardware": {"neural_cores": PUBLISHED_CORES},
        }
    )  # fmt: skip


def thousand_inferences() -> dict[str, float]:
    """1,000 different inferences of the published network, through `predict_latency`."""
    config, rng = published_config(), np.random.default_rng(1)
    trains = {}
    for index, layer in enumerate(config.layers):
        maps = (layer.in_channels, layer.in_height, layer.in_width)
        train = np.empty((1000, config.input.time_steps, *maps), dtype=np.bool_)
        for part in train.reshape(40, 25, *train.shape[1:]):
            np.less(rng.random(part.shape, dtype=np.float32), 0.02, out=part)
        trains[f"inputs_{index}"] = train if layer.kernel > 1 else train.reshape(1000, 4, -1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    estimate = predict_latency(config, spikes=trains)
    seconds = time.perf_counter() - began
    return {
        "different_latencies": len(set(estimate.sample_cycles)),
        "seconds": seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "peak_memory_before_gib": before / 2**20,
    }


def in_its_own_process(call: Callable[[], Any]) -> Any:
    """Result of a call in a fresh interpreter, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call)


def show(report: dict[str, Any]) -> None:
    """Print what was found as tables."""
    console = Console(width=120)
    title = "latency against RTL: mean, p99; share inside the 90 % interval"
    table = Table("pairs of network and sample", *LEVELS.values(), title=title)
    for group, of_group in report.get("accuracy", {}).items():
        cells = [
            f"{100 * x['mape']:.2f} %, {100 * x['p99']:.2f} %; {100 * x['coverage']:.0f} %, "
            f"+-{100 * x['half_width']:.2f} %"
            for x in of_group.values()
        ]
        table.add_row(f"{of_group['trace']['pairs']} {group}", *cells)
    console.print(table)
    if "dense" in report:
        found, least = report["dense"]["from_counts"], report["dense"]["mean_over_places"]
        console.print(
            f"{report['dense']['samples']} samples of dense networks: p99 {100 * found['p99']:.1f} "
            f"% from counts, {100 * least['p99']:.1f} % of the mean over other places"
        )
    speeds = (report.get("trace"), report.get("published", {}).get("trace"))
    for speed in filter(None, speeds):
        console.print(
            f"{speed['network']}: {1e3 * speed['model_seconds_per_inference']:.3f} ms for a trace, "
            f"{speed['times_faster']:,.0f} times as fast as the native runner "
            f"({speed['rtl_cycles_per_second'] / 1e6:.2f} million cycles/s)"
        )
    if "published" in report:
        console.print("1,000 inferences", report["published"]["thousand"])
    if "estimate" in report:
        for name, us in report["estimate"]["one_us"].items():
            console.print(f"{name}: {us['least']:.1f} us, median {us['median']:.1f} us")
        for name, each in report["estimate"]["batched_per_second"].items():
            console.print(f"batched, {name}: {each:,.0f} per second")


def published() -> dict[str, Any]:
    """The published network: ratio to the RTL, and 1,000 inferences with their memory."""
    return {
        "thousand": in_its_own_process(thousand_inferences),
        "trace": trace_speed(published_config(), 64, 1, 0.02),
    }


def small_trace() -> dict[str, Any]:
    """A network on 16x16, batched over 256 samples."""
    network = {"network": "16C3-MP2-32C3-MP2-10", "input": {"statistics": [[0.0, 0.0]] * 8}}
    return trace_speed(load_config(network), 256, 16, 0.1)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "estimate": estimate_speed,
    "trace": small_trace,
    "dense": dense_limit,
    "accuracy": accuracy,
    "published": published,
}


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/timing.json"))
    parser.add_argument("--calibrate", action="store_true")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown PART {unknown[0]!r}; parts are: {', '.join(PARTS)}")
    if arguments.calibrate:
        path = Path("predictor") / STATISTICS_ERRORS
        subjects = [
            *random_subjects(OTHER_RANDOM, 24, OTHER_SEED), *trained_subjects(OTHER_TRAINED)
        ]  # fmt: skip
        path.write_text(json.dumps(calibrated(subjects)) + "\n")
        return
    report = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    for part in arguments.parts or [part for part in PARTS if part != "published"]:
        report[part] = PARTS[part]()
    show(report)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
