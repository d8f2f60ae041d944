"""How fast predictions are: one, many, and much hardware; and the trees beside XGBoost's own code.

    python benchmarks/predict.py [--out FILE] [PART ...]

`one`: an estimate of a validated configuration (three weighted layers, eight steps), from counts
with taps and from hyperparameters. By the time of one thread.

`trees`: all heads of that configuration's layers, beside `XGBRegressor.predict` and
`inplace_predict` row by row on the same trees. XGBoost adds leaves in single precision: the largest
difference is given relative to the largest value of a head, and, of the leaves that it says a row
reaches, added in double precision, relative to the value itself.

`many`: different configurations of three weighted layers through `LatencyPredictor.predict`, on
hardware of their own, beside some of them one by one. Of 20 networks, with peak memory in a process
of its own; and of so many networks that there are never more than a hundred alike.

`hardware`: 1,000 of them on 1,000 sections of hardware each, and as a table of all pairs; beside
some pairs one by one.

`cold`: first answer of a fresh process, in parts.

Seconds are those of the wall; beside them are those of the processors, which other work on the
machine does not lengthen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from spikemeter.config import load_config
from spikemeter.predictor import LatencyPredictor, predict_latency
from spikemeter.predictor.events import input_events
from spikemeter.predictor.features import config_from_row, layer_features
from spikemeter.predictor.sparsity import HEADS

NETWORK = "16C3-MP2-32C3-MP2-10"
FEW = tuple(f"{a}C3-MP2-{b}C3-MP2-10" for a in (8, 12, 16, 24, 32) for b in (16, 24, 32, 48))
MANY = tuple(f"{a}C3-MP2-{b}C3-MP2-10" for a in range(8, 72) for b in range(16, 80))
AIMS = {"statistics_us": 100, "hyperparameters_us": 300, "many_s": 30, "hardware_s": 5, "cold_s": 1}
ONE_BY_ONE = 300

Times = dict[str, float]

COLD = """
import time
began = time.perf_counter()
from spikemeter.predictor import LatencyPredictor, predict_latency
imported = time.perf_counter()
predictor = LatencyPredictor.default()
loaded = time.perf_counter()
predict_latency({"dataset": "nmnist-saccade", "network": "16C3-MP2-32C3-MP2-10"})
print(imported - began, loaded - imported, time.perf_counter() - loaded)
"""


def one() -> dict[str, Any]:
    """Least and median time of an estimate, each over 20 of them."""
    config = load_config({"dataset": "nmnist-saccade", "network": NETWORK})
    rng = np.random.default_rng(1)
    known = {}
    for index, layer in enumerate(config.layers):
        count = rng.integers(0, 5, (config.input.time_steps, layer.in_channels))
        known[f"counts_{index}"] = count
        known[f"taps_{index}"] = count * (1 if layer.kernel == 1 else 6)
    return {
        "statistics": microseconds(partial(predict_latency, config, spikes=known)),
        "hyperparameters": microseconds(partial(predict_latency, config)),
    }


def trees() -> dict[str, Any]:
    """Evaluate the heads of three layers, by us and by XGBoost, and compare 3,000 such rows."""
    import xgboost

    predictor = LatencyPredictor.default()
    model = predictor.parts.model
    rows = features_of(predictor, configurations(1000, FEW))
    boosters = [model.ensembles[name].booster() for name in HEADS]
    regressors = []
    for name in HEADS:
        regressor = xgboost.XGBRegressor(n_jobs=1)
        regressor.load_model(bytearray(model.ensembles[name].content))
        regressors.append(regressor)
    three = rows[:3]

    def row_by_row(evaluate: Sequence[Callable[[Any], Any]]) -> None:
        for number in range(len(three)):
            for head in evaluate:
                head(three[number : number + 1])

    us = {
        "ours": microseconds(partial(model.heads, three)),
        "inplace_predict": microseconds(
            partial(row_by_row, [each.inplace_predict for each in boosters]), number=2
        ),
        "XGBRegressor": microseconds(
            partial(row_by_row, [each.predict for each in regressors]), number=1
        ),
    }
    few = np.concatenate([model.heads(rows[at : at + 3]) for at in range(0, len(rows), 3)])
    theirs = np.stack([each.inplace_predict(rows) for each in boosters], axis=1)
    exact = np.stack([in_double_precision(model.ensembles[name], rows) for name in HEADS], axis=1)
    size = np.abs(theirs).max(axis=0)
    return {
        "trees": {name: len(model.ensembles[name].trees) for name in HEADS},
        "us": us,
        "times_faster": {
            name: us[name]["least"] / us["ours"]["least"] for name in us if name != "ours"
        },
        "largest_difference_of_heads": float((np.abs(few - theirs).max(axis=0) / size).max()),
        "largest_difference_in_double_precision": float(np.abs(few / exact - 1).max()),
        "largest_difference_of_many": float(np.abs(model.heads(rows) - few).max()),
    }


def in_double_precision(ensemble: Any, rows: Any) -> Any:
    """Add the leaves that XGBoost says are reached."""
    import xgboost

    reached = ensemble.booster().predict(xgboost.DMatrix(rows), pred_leaf=True).astype(int)
    leaves = [tree.condition[reached[:, number]] for number, tree in enumerate(ensemble.trees)]
    return np.sum(leaves, axis=0, dtype=np.float64) + ensemble.bias


def features_of(predictor: LatencyPredictor, rows: pd.DataFrame) -> Any:
    """Rows of all layers of some configurations."""
    parts = predictor.parts
    configs = [config_from_row(row) for row in rows.to_dict("records")]
    return np.concatenate(
        [
            layer_features(
                config, input_events(config, parts.statistics).events, parts.domain.categories
            )
            for config in configs
        ]
    )


def many() -> dict[str, Any]:
    """A million configurations, with the memory that they take."""
    return {
        "few_networks": in_its_own_process(partial(predict_table, 1_000_000, FEW)),
        "many_networks": in_its_own_process(partial(predict_table, 1_000_000, MANY)),
    }


def predict_table(count: int, networks: Sequence[str]) -> dict[str, Any]:
    """Predict a table on hardware of each row, and some rows one by one."""
    predictor = LatencyPredictor.default()
    rows = configurations(count, networks)
    cores = np.random.default_rng(2).integers(1, [9, 17, 11], (count, 3))
    rows["hardware.neural_cores"] = list(map(tuple, cores.tolist()))
    predictor.predict(rows[:100])
    before = peak_gib()
    seconds, found = timed(partial(predictor.predict, rows))
    peak = peak_gib()
    some = rows.sample(ONE_BY_ONE, random_state=0)
    alone = one_by_one(predictor, some, found.loc[some.index])
    return {
        "configurations": count,
        "networks": len(networks),
        "different_latencies": int(found["cycles"].nunique()),
        "in_domain": float(found["in_domain"].mean()),
        **seconds,
        "peak_memory_gib": peak,
        "peak_memory_before_gib": before,
        **alone,
        "times_faster_than_one_by_one": alone["one_by_one_cpu_seconds"] * count
        / seconds["cpu_seconds"],
    }  # fmt: skip


def much_hardware() -> dict[str, Any]:
    """A thousand points on a thousand sections of hardware."""
    return {
        "few_networks": in_its_own_process(partial(predict_hardware, 1000, FEW)),
        "many_networks": in_its_own_process(partial(predict_hardware, 1000, MANY)),
    }


def predict_hardware(count: int, networks: Sequence[str]) -> dict[str, Any]:
    """Predict points on hardware, the pairs as a table, and some pairs one by one."""
    predictor = LatencyPredictor.default()
    rows = configurations(count, networks)
    rows = rows.drop(columns=[name for name in rows.columns if name.startswith("hardware.")])
    rng = np.random.default_rng(3)
    hardware = [
        {
            "neural_cores": [int(cores) for cores in rng.integers(1, [9, 17, 11])],
            "encoder_width": int(rng.choice([8, 16, 32, 64, 128])),
            "clock_mhz": float(rng.uniform(50, 300)),
            "schedule": str(rng.choice(["layer_serial", "step_pipelined"])),
        }
        for _ in range(1000)
    ]
    predictor.predict(rows[:10], hardware=hardware[:10])
    before = peak_gib()
    seconds, found = timed(partial(predictor.predict, rows, hardware=hardware))
    peak = peak_gib()
    pairs = rows.loc[rows.index.repeat(len(hardware))].reset_index(drop=True)
    for key in hardware[0]:
        pairs[f"hardware.{key}"] = [section[key] for section in hardware] * count
    as_table, same = timed(partial(predictor.predict, pairs))
    assert (same["cycles"].to_numpy() == found["cycles"].to_numpy()).all()
    some = pairs.sample(ONE_BY_ONE, random_state=0)
    alone = one_by_one(predictor, some, same.loc[some.index])
    return {
        "points": count,
        "networks": int(rows["network"].nunique()),
        "hardware": len(hardware),
        **seconds,
        "peak_memory_gib": peak,
        "peak_memory_before_gib": before,
        "as_table": as_table,
        **alone,
        "times_faster_than_one_by_one": alone["one_by_one_cpu_seconds"] * len(pairs)
        / seconds["cpu_seconds"],
    }  # fmt: skip


def one_by_one(predictor: LatencyPredictor, rows: pd.DataFrame, found: pd.DataFrame) -> Times:
    """Seconds of a row from its cells to its estimate, and how far those are from the table's."""
    configs = [config_from_row(row) for row in rows.to_dict("records")]
    validated, estimates = timed(lambda: [predictor.estimate(config) for config in configs])
    seconds, _ = timed(
        lambda: [predictor.estimate(config_from_row(row)) for row in rows.to_dict("records")]
    )
    cycles = np.array([estimate.cycles for estimate in estimates])
    return {
        "one_by_one_cpu_seconds": seconds["cpu_seconds"] / len(rows),
        "one_by_one_validated_cpu_seconds": validated["cpu_seconds"] / len(rows),
        "largest_difference": float(np.abs(found["cycles"].to_numpy() / cycles - 1).max()),
    }


def configurations(count: int, networks: Sequence[str]) -> pd.DataFrame:
    """Draw configurations of which no two are alike, on two frames that the predictor knows.

    On two, so that it is `networks` that says how many are of one shape.
    """
    rng = np.random.default_rng(1)
    known = LatencyPredictor.default().parts.statistics
    frames = pd.DataFrame(
        [
            {
                "dataset": name, "input.height": entry.height, "input.width": entry.width,
                "input.time_steps": entry.time_steps,
            }
            for name, entries in known.items()
            for entry in entries
            if not entry.coding and entry.events.shape == (8, 2)
        ]
    ).head(2)  # fmt: skip
    choices = {
        "network": networks,
        "neuron.model": ("lif", "lapicque"),
        "surrogate.name": ("fast_sigmoid", "atan", "spike_rate_escape"),
        "training.batch_size": (32, 64, 128),
        "training.weight_bits": (4, 8),
        "hardware.encoder_width": (16, 32, 64),
        "hardware.schedule": ("layer_serial", "step_pipelined"),
    }
    ranges = {
        "neuron.beta": (0.6, 0.95),
        "neuron.threshold": (0.7, 1.5),
        "surrogate.slope": (2, 25),
        "training.lr": (5e-4, 5e-3),
        "hardware.clock_mhz": (50, 300),
    }
    rows = frames.iloc[rng.integers(0, len(frames), count)].reset_index(drop=True)
    for key, values in choices.items():
        rows[key] = np.array(values)[rng.integers(0, len(values), count)]
    for key, (low, high) in ranges.items():
        rows[key] = rng.uniform(low, high, count)
    return rows


def cold() -> dict[str, Any]:
    """Five fresh processes: median seconds of each part, and from start to end."""
    parts, whole = [], []
    for _ in range(5):
        began = time.perf_counter()
        found = subprocess.run(
            [sys.executable, "-c", COLD], capture_output=True, text=True, check=True
        )
        whole.append(time.perf_counter() - began)
        parts.append([float(text) for text in found.stdout.split()])
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    names = ("import_seconds", "load_seconds", "answer_seconds")
    medians = (statistics.median(times) for times in zip(*parts, strict=True))
    return {
        **dict(zip(names, medians, strict=True)),
        "seconds": statistics.median(map(sum, parts)),
        "seconds_with_the_interpreter": statistics.median(whole),
        "cpu_seconds_with_the_interpreter": (children.ru_utime + children.ru_stime) / 5,
    }


def microseconds(call: Callable[[], object], number: int = 20, repeats: int = 200) -> Times:
    """Least and median time of one thread for a call, each over a number of them."""
    call()
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        for _ in range(number):
            call()
        times.append((time.thread_time() - began) / number * 1e6)
    return {"least": min(times), "median": statistics.median(times)}


def timed(call: Callable[[], Any]) -> tuple[Times, Any]:
    """Seconds of a call, and what it gives."""
    began, cpu = time.perf_counter(), time.process_time()
    result = call()
    seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    return seconds, result


def peak_gib() -> float:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_its_own_process(call: Callable[[], Any]) -> Any:
    """Result of a call in a fresh interpreter, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call)


def show(report: dict[str, Any]) -> None:
    """Print what was found, beside the aims."""
    console = Console(width=110, highlight=False)
    for name, us in report.get("one", {}).items():
        aim = AIMS[f"{name}_us"]
        console.print(f"one from {name}: {us['least']:.0f} us, median {us['median']:.0f} ({aim})")
    if "trees" in report:
        found = report["trees"]
        for name, us in found["us"].items():
            ratio = found["times_faster"].get(name, 1)
            console.print(f"heads of three layers, {name}: {us['least']:.0f} us ({ratio:.0f} x)")
        heads, exact = (
            found[f"largest_difference_{name}"] for name in ("of_heads", "in_double_precision")
        )
        console.print(f"largest difference of a head: {heads:.1e} of its largest value;")
        console.print(f"  of leaves that are added in double precision: {exact:.1e} of the value")
    for part, aim in (("many", AIMS["many_s"]), ("hardware", AIMS["hardware_s"])):
        for name, found in report.get(part, {}).items():
            console.print(
                f"{part}, {name.replace('_', ' ')} ({found['networks']}): {found['seconds']:.1f} s "
                f"({aim}), {found['cpu_seconds']:.1f} s of processors, "
                f"{found['peak_memory_gib']:.2f} GiB, "
                f"{found['times_faster_than_one_by_one']:.0f} x as fast as one by one, "
                f"largest difference {found['largest_difference']:.0e}"
            )
            if "as_table" in found:
                console.print(f"  as a table of pairs: {found['as_table']['seconds']:.1f} s")
    if "cold" in report:
        found = report["cold"]
        console.print(
            f"first answer: import {found['import_seconds']:.2f} s, load "
            f"{found['load_seconds']:.2f} s, answer {found['answer_seconds']:.2f} s; "
            f"{found['seconds']:.2f} s ({AIMS['cold_s']}), with the interpreter "
            f"{found['seconds_with_the_interpreter']:.2f} s"
        )


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "one": one,
    "trees": trees,
    "many": many,
    "hardware": much_hardware,
    "cold": cold,
}


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/predict.json"))
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown PART {unknown[0]!r}; parts are: {', '.join(PARTS)}")
    report = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    report["cores"] = os.cpu_count()
    for part in arguments.parts or PARTS:
        report[part] = PARTS[part]()
    show(report)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
