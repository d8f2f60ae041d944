"""Cycles of the engine beside the published one, on the same spikes and with as many cores.

    make bench NAME=engine [ARGS="--runs FOLDER --samples 16 --skip-published"]

Networks of two, four and six weighted layers are trained on nmnist-saccade; their cores are those
of `auto`. The published network (`vgg9-quarter`, with its cores) gets random weights, and every
layer a threshold such that its spikes are as many as in the published sample. `published` is the
formula of `spikemeter.predictor.published`. The engine is simulated in RTL: one tap per cycle and
nine, layer after layer and pipelined. Every sample must have the cycles of the timing model, and
the spikes of the integer reference.

Writes ``benchmarks/results/engine.json``; networks that are trained lie in `--runs`.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from random_networks import random_network
from rich.console import Console
from rich.table import Table

from spikemeter.config import Config, load_config
from spikemeter.files import write_whole
from spikemeter.models import load_run, network_spikes, train_run
from spikemeter.models.integer import IntegerLayer, IntegerNetwork, layer_spikes
from spikemeter.predictor.timing import timing_model
from spikemeter.rtl import check_spikes, simulate

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks/results/engine.json"
NETWORKS = ("8C3-MP2-10", "8C3-8C3-MP2-16C3-MP2-10", "6C3-8C3-MP2-8C3-16C3-MP2-32-10")
VARIANTS = {
    "1 tap, layer_serial": {"taps_per_cycle": 1, "schedule": "layer_serial"},
    "9 taps, layer_serial": {"taps_per_cycle": 9, "schedule": "layer_serial"},
    "9 taps, step_pipelined": {"taps_per_cycle": 9, "schedule": "step_pipelined"},
}
PUBLISHED_INPUT = 6_722 / 8_192
"""Share of the input lines that spike, by the cycles of the first layer of the published sample."""
PUBLISHED_SPIKES = (10_431, 2_338, 2_112, 813, 831, 535, 471, 7)
"""That enter its other layers, in all four steps."""
_LARGEST_THRESHOLD = 2**22
_MEMBRANE_BITS = 24

_Spikes = NDArray[np.bool_]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "build/engine")
    parser.add_argument("--samples", type=int, default=16, help="of each trained network")
    parser.add_argument("--skip-published", action="store_true", help="trained networks alone")
    parser.add_argument("--out", type=Path, default=OUT)
    given, console = parser.parse_args(), Console(highlight=False, width=160)
    cases = trained_cases(given.runs, given.samples)
    rows = [measured(*case, console) for case in cases]
    if not given.skip_published:
        rows.append(measured("vgg9-quarter", *published_case(), console))
    show(rows, console)
    write_whole(given.out, f"{json.dumps(rows, indent=1)}\n".encode())


def trained_cases(
    runs: Path, samples: int
) -> Iterator[tuple[str, Config, IntegerNetwork, _Spikes]]:
    """Train each network, or find it trained."""
    for network in NETWORKS:
        config = load_config(
            {
                "dataset": "nmnist-saccade",
                "network": network,
                "input": {"height": 16, "width": 16, "time_steps": 8},
                "surrogate": {"slope": 5},
                "training": {"epochs": 6, "lr": 3e-3, "batch_size": 32},
                "hardware": {"encoder_width": 32},
            }
        )
        path = runs / network
        run = load_run(path) if path.exists() else train_run(config, path)
        frames = run.inputs[0][:samples]
        yield network, config, run.network, frames


def published_case() -> tuple[Config, IntegerNetwork, _Spikes]:
    """Give the published network the spikes of its published sample, layer by layer."""
    config = load_config(
        {
            "dataset": "nmnist-saccade",
            "network": "vgg9-quarter",
            "neuron": {"beta": 0.15, "threshold": 0.5},
            "training": {"weight_bits": 4},
            "hardware": {"encoder_width": 32},
        }
    )
    rng, size = np.random.default_rng(0), config.input
    frames = rng.random((1, size.time_steps, size.channels, size.height, size.width))
    spikes = inputs = frames < PUBLISHED_INPUT
    layers = []
    for number, layer in enumerate(random_network(config, rng).layers):
        geometry = layer.geometry
        maps = (geometry.in_channels, geometry.in_height, geometry.in_width)
        spikes = spikes.reshape(1, size.time_steps, *maps)
        wide = replace(layer, bias=np.zeros_like(layer.bias), membrane_bits=_MEMBRANE_BITS)
        wanted = PUBLISHED_SPIKES[number] if number < len(PUBLISHED_SPIKES) else 20
        layers.append(with_spikes(wide, spikes, wanted))
        spikes, _ = layer_spikes(layers[-1], spikes)
    return config, IntegerNetwork(layers=tuple(layers)), inputs


def with_spikes(layer: IntegerLayer, spikes: _Spikes, wanted: int) -> IntegerLayer:
    """Give a layer the lowest threshold at which no more than so many spikes leave it."""
    low, high = 1, _LARGEST_THRESHOLD
    while low < high:
        middle = (low + high) // 2
        fired, _ = layer_spikes(replace(layer, threshold=middle), spikes)
        low, high = (middle + 1, high) if fired.sum() > wanted else (low, middle)
    return replace(layer, threshold=low)


def measured(
    name: str, config: Config, network: IntegerNetwork, frames: _Spikes, console: Console
) -> dict[str, Any]:
    """Time the published formula, and the engine in RTL; means over the samples."""
    spikes = network_spikes(network, frames)
    published = timing_model(on(config, backend="published", taps_per_cycle=1)).trace(spikes.inputs)
    row = {
        "name": name,
        "network": config.network,
        "layers": [layer.name for layer in config.layers],
        "neural_cores": list(config.neural_cores),
        "samples": len(frames),
        "spikes": [float(train.sum() / len(frames)) for train in spikes.inputs],
        "published": {
            "cycles": float(published.cycles.mean()),
            "layers": published.layer_cycles.mean(axis=0).tolist(),
        },
    }
    for variant, changes in VARIANTS.items():
        machine = on(config, **changes)
        simulation = simulate(machine, network, frames)
        check_spikes(simulation, spikes, machine.layers)
        timing = timing_model(machine).trace(spikes.inputs)
        difference = max(
            np.abs(simulation.cycles - timing.cycles).max(),
            np.abs(simulation.layer_cycles - timing.layer_cycles).max(),
        )
        row[variant] = {
            "cycles": float(simulation.cycles.mean()),
            "layers": simulation.layer_cycles.mean(axis=0).tolist(),
            "difference_cycles": float(difference),
            "build_seconds": simulation.build_seconds,
            "simulated_cycles_per_second": simulation.simulated_cycles_per_second,
            # The compiler's or simulator's: the largest process so far that has ended
            "peak_gibibytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
        }
        console.print(f"{name}, {variant}: {simulation.cycles.mean():,.0f} cycles in RTL")
    return row


def on(config: Config, **hardware: Any) -> Config:
    """Put a network on other hardware, with the same cores."""
    content = config.model_dump()
    content["hardware"] |= {"neural_cores": list(config.neural_cores), **hardware}
    return load_config(content)


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Cycles, and how many times fewer they are than published."""
    table = Table("network", "weighted layers", "published formula", *VARIANTS)
    for row in rows:
        base = row["published"]["cycles"]
        cells = [
            f"{row[name]['cycles']:,.0f} ({base / row[name]['cycles']:.2f}x)" for name in VARIANTS
        ]
        table.add_row(row["name"], str(len(row["layers"])), f"{base:,.0f}", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
