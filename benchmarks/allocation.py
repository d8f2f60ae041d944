"""What the best allocation of cores saves on trained networks, and what it takes to find it.

    python benchmarks/allocation.py [--out FILE] [--runs DIR] [--image FILE]

Networks are trained on digits seen by an event camera. Each gets as many cores as `auto` gives it,
and half of them, under both schedules and for both objectives: shared out by the search, evenly,
and as `auto` does. All are costed by the spike trains of 16 test samples, whose cycles are those of
the RTL; so is what the search finds that knows the hyperparameters alone.

The answers for the smaller networks are held against all their allocations, costed one by one by
the timing model. `search` times nine layers, the network of arXiv 2603.24891, and thirteen equal
ones, with random spikes. By the time of one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from spikemeter import LatencyPredictor, load_config, predict_latency
from spikemeter.config import Config
from spikemeter.models import load_run, train_run
from spikemeter.predictor.allocation import (
    OBJECTIVES,
    AllocationPoint,
    allocate_cores,
    with_cores,
)
from spikemeter.predictor.allocation_plot import plot_allocation
from spikemeter.predictor.allocation_search import TOLERANCE
from spikemeter.predictor.timing import timing_model

SAMPLES = 16
SCHEDULES = ("layer_serial", "step_pipelined")
NETWORKS = ("8C3-MP2-16C3-MP2-10", "16C3-MP2-32C3-MP2-10", "8C3-12C3-MP2-16C3-24C3-MP2-32-10")
PICTURED = NETWORKS[2]
PUBLISHED = "64C3-28C3-MP2-48C3-54C3-MP2-120C3-126C3-140C3-MP4-1064-200"
SEARCHED = {PUBLISHED: (32, (50, 200, 1000)), "32C3-" * 12 + "10": (8, (50, 150))}
"""Networks with random spikes: side of the frame, budgets."""
KEYS = {"latency": "cycles", "interval": "initiation_interval_cycles"}
MOST_BRUTE_FORCE = 20_000
OUT = Path(__file__).parent / "results" / "allocation.json"


def main() -> None:
    """Measure, write the figures, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--runs", type=Path, help="keep trained networks here, and use those there")
    parser.add_argument("--image", type=Path, help="draw the front of the deepest network")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs or Path(folder)
        rows = [row for network in NETWORKS for row in trained_rows(network, runs, options.image)]
    report = {"trained": rows, "search": searched_rows()}
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    show(report)


def trained_rows(network: str, runs: Path, image: Path | None) -> list[dict[str, Any]]:
    """Train a network, or find it trained, and allocate its cores in all ways."""
    content = {
        "dataset": "nmnist-saccade",
        "network": network,
        "input": {"height": 16, "width": 16, "time_steps": 8},
        "surrogate": {"slope": 5},
        "training": {"epochs": 3, "lr": 3e-3, "batch_size": 32},
    }
    path, predictor = runs / network, LatencyPredictor.default()
    if not path.exists():
        train_run(load_config(content), path)
    run, rows = load_run(path), []
    with np.load(path / "trace.npz") as trace:
        spikes = {name: trace[name] for name in trace.files if name.startswith("inputs_")}
    for schedule, objective in itertools.product(SCHEDULES, OBJECTIVES):
        hardware = content | {"hardware": {"schedule": schedule}}
        config, key = load_config(hardware), KEYS[objective]
        budget = sum(config.neural_cores)
        known: dict[str, Any] = {"spikes": spikes, "samples": SAMPLES}
        for cores in (budget, budget // 2):
            begin = time.process_time()
            found = allocate_cores(config, cores, objective, **known)
            seconds = time.process_time() - begin
            guess = allocate_cores(config, cores, objective, predictor=predictor).neural_cores
            best = getattr(found.estimate, key)
            row = {
                "network": network, "schedule": schedule, "objective": objective,
                "accuracy": run.result["accuracy"]["integer"]["test"], "budget": cores,
                "neural_cores": found.neural_cores, "best": best,
                "even": getattr(found.compared["even"], key),
                "auto": getattr(found.compared["configured"], key) if cores == budget else None,
                "guessed": getattr(predict_latency(with_cores(config, guess), **known), key),
                "exact": found.exact, "front": len(found.front),
                "front_exact": sum(point.exact for point in found.front), "seconds": seconds,
                "brute_force": brute_force(config, known, cores, key),
            }  # fmt: skip
            if row["brute_force"] is not None:
                assert abs(best / row["brute_force"] - 1) < TOLERANCE
            rows.append(row)
            if image and (network, schedule, objective, cores) == (
                PICTURED, "step_pipelined", "latency", budget
            ):  # fmt: skip
                plot_allocation(found, image)
    return rows


def brute_force(config: Config, known: dict[str, Any], budget: int, key: str) -> float | None:
    """Try every allocation within a budget, where there are not too many."""
    phases = [
        {-(-layer.out_channels // cores): cores for cores in range(layer.out_channels, 0, -1)}
        for layer in config.layers
    ]
    if np.prod([len(each) for each in phases]) > MOST_BRUTE_FORCE:
        return None
    trains = [known["spikes"][f"inputs_{layer}"][:SAMPLES] for layer in range(len(phases))]
    model: Any = timing_model(config)
    every = [
        each for each in itertools.product(*(x.values() for x in phases)) if sum(each) <= budget
    ]
    timings = (replace(model, neural_cores=cores).trace(trains) for cores in every)
    return float(min(getattr(timing, key).mean() for timing in timings))


def searched_rows() -> list[dict[str, Any]]:
    """Time the search on networks of nine and thirteen layers, one sample and several."""
    rng, rows = np.random.default_rng(0), []
    for network, schedule, samples in itertools.product(SEARCHED, SCHEDULES, (1, SAMPLES)):
        side, budgets = SEARCHED[network]
        size = {"height": side, "width": side, "channels": 2, "time_steps": 8}
        content = {
            "network": network, "hardware": {"schedule": schedule},
            "input": size | {"statistics": [[1.0, 1.0]] * 8},
        }  # fmt: skip
        config = load_config(content)
        spikes = {}
        for index, layer in enumerate(config.layers):
            firing_rate = rng.uniform(0.02, 0.2, (samples, 8, 1, 1, 1))
            shape = (samples, 8, layer.in_channels, layer.in_height, layer.in_width)
            spikes[f"inputs_{index}"] = rng.random(shape) < firing_rate
        for objective, budget in itertools.product(OBJECTIVES, budgets):
            begin = time.process_time()
            found = allocate_cores(config, budget, objective, spikes=spikes)
            rows.append({
                "network": network, "schedule": schedule, "objective": objective,
                "samples": samples, "budget": budget, "gap": found.gap, "front": len(found.front),
                "front_exact": sum(point.exact for point in found.front),
                "largest_gap": max(1 - x.bound_cycles / value(x, objective) for x in found.front),
                "seconds": time.process_time() - begin,
            })  # fmt: skip
    return rows


def value(point: AllocationPoint, objective: str) -> float:
    """What was to be least."""
    found: float = getattr(point, KEYS[objective])
    return found


def show(report: dict[str, Any]) -> None:
    """Print how much longer the others take than the best."""
    names = ("even", "auto", "guessed")
    table = Table("network", "schedule", "least", "cores", "best", *names, "proved", "s")
    for row in report["trained"]:
        longer = [None if row[name] is None else row[name] / row["best"] - 1 for name in names]
        table.add_row(
            row["network"], row["schedule"], row["objective"], str(row["budget"]),
            f"{row['best']:,.0f}",
            *("" if share is None else f"{100 * share:+.1f} %" for share in longer),
            f"{row['front_exact']}/{row['front']}", f"{row['seconds']:.2f}",
        )  # fmt: skip
    keys = (
        "network",
        "schedule",
        "objective",
        "samples",
        "budget",
        "front_exact",
        "front",
        "largest_gap",
    )
    searched = Table(*keys, "s")
    for row in report["search"]:
        searched.add_row(*(str(row[key])[:30] for key in keys), f"{row['seconds']:.2f}")
    console = Console(width=150)
    console.print(table)
    console.print(searched)


if __name__ == "__main__":
    main()
