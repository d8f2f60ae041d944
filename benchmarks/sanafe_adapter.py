"""Measure small networks on SANA-FE's Loihi model and write tables that `fit-timing` reads.

    python benchmarks/sanafe_adapter.py --out loihi

Each draw gets a folder of its number with `measurements.csv` and, of three and four layers,
`unseen.csv`.

SANA-FE [1]_ is GPL-3.0 and no dependency of Spikemeter: it is imported here alone, and only when
this runs (``pip install sanafe``). Networks are drawn at random, mapped to its Loihi example as
Spikemeter counts cores (core j of N owns output channels j, j + N, ...) and given random events;
what their layers spike is recorded beside the simulated latency in microseconds.

References
----------
.. [1] Boyle et al., "SANA-FE: Simulating Advanced Neuromorphic Architectures for Fast
   Exploration", IEEE TCAD 44(8), 2025.
"""

from __future__ import annotations

import argparse
import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikemeter.config import Config, measured_config
from spikemeter.network import Layer

NEURONS_OF_A_CORE = 1024
LARGEST_CORES = 16
SYNAPSES = {"conv": "loihi_conv_synapse", "dense": "loihi_dense_synapse"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and spikes")
    parser.add_argument("--draws", type=int, default=3, help="pairs of tables")
    parser.add_argument("--rows", type=int, default=50, help="of measurements.csv")
    parser.add_argument("--unseen", type=int, default=30, help="rows of unseen.csv")
    arguments = parser.parse_args()
    for draw in range(arguments.draws):
        folder = arguments.out / str(draw)
        write_table(folder, "measurements", arguments.rows, seed=2 * draw, deep=False)
        write_table(folder, "unseen", arguments.unseen, seed=2 * draw + 1, deep=True)


def write_table(folder: Path, name: str, rows: int, *, seed: int, deep: bool) -> None:
    """Measure networks and write a table with their spikes; more rows begin with the same ones."""
    rng = np.random.default_rng(seed)
    (folder / "spikes").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(rows):
        content = random_content(rng, deep=deep)
        spikes, microseconds = simulate(measured_config(content, spikes="-"), rng)
        file = f"spikes/{name}-{number}.npz"
        arrays = {f"inputs_{index}": train for index, train in enumerate(spikes)}
        np.savez_compressed(folder / file, **arrays)
        lines.append((json.dumps(content), file, f"{microseconds:.6f}", "us"))
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("config", "spikes", "latency", "unit"))
        writer.writerows(lines)
    print(f"{rows} measurements in {path}")


def random_content(rng: np.random.Generator, *, deep: bool) -> dict[str, Any]:
    """Draw a network of up to two convolutions and two dense layers, and its cores."""
    height, width = (int(side) for side in rng.integers(5, 11, size=2))
    convs = int(rng.integers(1 if deep else 0, 3))
    denses = int(rng.integers(max(0 if convs else 1, 3 - convs if deep else 0), 3))
    tokens, sizes = [], []
    for _ in range(convs):
        channels, kernel = int(rng.integers(2, 13)), int(rng.choice([3, 3, 5]))
        tokens.append(f"{channels}C{kernel}")
        sizes.append(channels)
    for _ in range(denses):
        features = int(rng.integers(5, 61))
        tokens.append(str(features))
        sizes.append(features)
    return {
        "network": "-".join(tokens),
        "input": {
            "height": height,
            "width": width,
            "channels": int(rng.integers(1, 4)),
            "time_steps": int(rng.integers(3, 11)),
        },
        "hardware": {
            "neural_cores": [int(rng.integers(1, min(n, LARGEST_CORES) + 1)) for n in sizes],
            "clock_mhz": 1000,
        },
    }


def simulate(config: Config, rng: np.random.Generator) -> tuple[list[NDArray[np.bool_]], float]:
    """Run one inference; the spikes that enter each layer, and microseconds."""
    import sanafe

    first, steps = config.layers[0], config.input.time_steps
    chip_cores = _Cores(sanafe.load_loihi())
    network = sanafe.Network()
    events = rng.random((steps, first.inputs)) < rng.choice([0.02, 0.05, 0.1, 0.2, 0.4])
    groups = [_input_group(network, events, chip_cores)]
    for index, (layer, cores) in enumerate(zip(config.layers, config.neural_cores, strict=True)):
        group = network.create_neuron_group(
            f"layer_{index}",
            layer.neurons,
            model_attributes={
                # The last layer is read from its membranes: nobody would hear its spikes
                "threshold": float(rng.uniform(0.05, 0.3)) * layer.fan_in
                if index + 1 < len(config.layers)
                else 1e9,
                "leak_decay": 0.5,
                "force_update": True,
            },
            soma_hw_name="loihi_lif",
            default_synapse_hw_name=SYNAPSES[layer.kind],
            log_spikes=True,
        )
        owners = chip_cores.take(cores)
        for neuron in range(layer.neurons):
            channel = neuron // (layer.out_height * layer.out_width)
            group[neuron].map_to_core(owners[channel % cores])
        groups.append(group)
    for (source, target), layer in zip(pairwise(groups), config.layers, strict=True):
        pairs = _synapses(layer)
        weights = {"w": rng.random(len(pairs)).tolist()}
        source.connect_neurons_sparse(target, weights, pairs)
    chip = sanafe.SpikingChip(chip_cores.architecture)
    chip.load(network)
    # With several threads the order of messages, and so the latency, is another on each machine
    result = chip.sim(steps, spike_trace=True, processing_threads=1)
    trains = _recorded(config, groups, result["spike_trace"])
    return trains, result["sim_time"] * 1e6


class _Cores:
    """Cores of the chip, handed out one after the other; the first keeps the inputs."""

    def __init__(self, architecture: Any) -> None:
        self.architecture = architecture
        self._cores = [core for tile in architecture.tiles for core in tile.cores]
        self._used = 0

    def take(self, number: int) -> list[Any]:
        self._used += number
        return self._cores[self._used - number : self._used]


def _input_group(network: Any, events: NDArray[np.bool_], cores: _Cores) -> Any:
    group = network.create_neuron_group("inputs", events.shape[1])
    (owner,) = cores.take(1)
    assert events.shape[1] <= NEURONS_OF_A_CORE
    for line in range(events.shape[1]):
        group[line].set_attributes(
            soma_hw_name=f"loihi_inputs[{line}]",
            log_spikes=True,
            model_attributes={"spikes": [int(spike) for spike in events[:, line]]},
        )
        group[line].map_to_core(owner)
    return group


def _synapses(layer: Layer) -> list[tuple[int, int]]:
    """Connected (input line, neuron) pairs; both flattened in (channel, row, column) order."""
    if layer.kind == "dense":
        return [(line, neuron) for line in range(layer.inputs) for neuron in range(layer.neurons)]
    lines = np.arange(layer.inputs).reshape(layer.in_channels, layer.in_height, layer.in_width)
    neurons = np.arange(layer.neurons).reshape(
        layer.out_channels, layer.out_height, layer.out_width
    )
    pairs = []
    for down in range(layer.kernel):
        for across in range(layer.kernel):
            rows = np.arange(layer.out_height) + down - layer.padding
            columns = np.arange(layer.out_width) + across - layer.padding
            inside = np.ix_(
                (rows >= 0) & (rows < layer.in_height),
                (columns >= 0) & (columns < layer.in_width),
            )
            seen = lines[:, rows.clip(0, layer.in_height - 1)][
                :, :, columns.clip(0, layer.in_width - 1)
            ]
            for source in seen:
                for target in neurons:
                    pairs += zip(source[inside].flat, target[inside].flat, strict=True)
    return [(int(line), int(neuron)) for line, neuron in pairs]


def _recorded(config: Config, groups: list[Any], trace: list[list[Any]]) -> list[NDArray[np.bool_]]:
    """Spikes of every group but the last, which enter the layers."""
    layers = config.layers
    shapes = [(layer.in_channels, layer.in_height, layer.in_width) for layer in layers]
    names = {group.get_name(): index for index, group in enumerate(groups[:-1])}
    trains = [np.zeros((config.input.time_steps, layer.inputs), dtype=bool) for layer in layers]
    for step, spikes in enumerate(trace):
        for spike in spikes:
            if spike.group_name in names:
                trains[names[spike.group_name]][step, spike.neuron_offset] = True
    return [
        train if layer.kind == "dense" else train.reshape(-1, *shape)
        for train, layer, shape in zip(trains, layers, shapes, strict=True)
    ]


if __name__ == "__main__":
    main()
