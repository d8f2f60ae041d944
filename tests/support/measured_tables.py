"""Tables of measurements as a user would write them, from machines whose timing is known here."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikemeter.config import Config, measured_config
from spikemeter.predictor.machine import TimingModel
from spikemeter.predictor.published import PublishedTiming
from spikemeter.predictor.timing import EngineTiming

Machine = Callable[[Config], TimingModel]


def published(config: Config, *, cores: int | None = None, width: int | None = None) -> TimingModel:
    """The published formula; cores and encoder width may be its own."""
    return PublishedTiming(
        layers=config.layers,
        neural_cores=_cores(config, cores),
        encoder_width=width or config.hardware.encoder_width,
        time_steps=config.input.time_steps,
    )


def engine(
    config: Config, *, cores: int | None = None, width: int | None = None, pipelined: bool = False
) -> TimingModel:
    """Our own engine; cores and encoder width may be its own."""
    return EngineTiming(
        layers=config.layers,
        neural_cores=_cores(config, cores),
        encoder_width=width or config.hardware.encoder_width,
        time_steps=config.input.time_steps,
        pipelined=pipelined,
    )


def hidden(machine: Callable[..., TimingModel], seed: int) -> Machine:
    """Give a machine cores and an encoder width of its own, whatever a configuration says."""
    rng = np.random.default_rng([seed, 1])
    return partial(machine, cores=int(rng.integers(1, 33)), width=int(rng.integers(4, 65)))


def _cores(config: Config, hidden: int | None) -> tuple[int, ...]:
    if hidden is None:
        return config.neural_cores
    return tuple(min(hidden, layer.out_channels) for layer in config.layers)


def random_content(rng: np.random.Generator, *, whole: bool, visible: bool) -> dict[str, Any]:
    """Draw a network, or now and then a single layer, and its hardware."""
    height, width = (int(side) for side in rng.integers(6, 17, 2))
    tokens: list[str] = []
    sizes: list[int] = []
    side = min(height, width)
    single = not whole and rng.random() < 0.4
    convs = int(rng.random() < 0.6) if single else int(rng.integers(1, 4 if whole else 3))
    denses = 1 - convs if single else int(rng.integers(1, 3))
    for _ in range(convs):
        sizes.append(int(rng.integers(2, 25)))
        tokens.append(f"{sizes[-1]}C3")
        if not single and side >= 4 and rng.random() < 0.6:
            tokens.append("MP2")
            side //= 2
    for _ in range(denses):
        sizes.append(int(rng.integers(4, 65)))
        tokens.append(str(sizes[-1]))
    hardware = {
        "neural_cores": [int(rng.integers(1, min(size, 16) + 1)) for size in sizes],
        "encoder_width": int(rng.choice([8, 16, 32, 64])),
    }
    frames = {
        "height": height,
        "width": width,
        "channels": int(rng.integers(1, 4)),
        "time_steps": int(rng.integers(2, 9)),
    }
    content: dict[str, Any] = {"network": "-".join(tokens), "input": frames}
    return content | ({"hardware": hardware} if visible else {})


def random_spikes(config: Config, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    density = rng.choice([0.01, 0.03, 0.1, 0.2, 0.4])
    trains = []
    for layer in config.layers:
        shape = (config.input.time_steps, layer.in_channels, layer.in_height, layer.in_width)
        each = density * rng.uniform(0.1, 1.9, (*shape[:2], 1, 1))
        trains.append(rng.random(shape) < each)
    return trains


def write_table(
    path: Path,
    machine: Machine,
    rows: int,
    seed: int,
    *,
    whole: bool = False,
    visible: bool = True,
    unit: str = "cycles",
) -> Path:
    """Measure random networks on a machine; `whole` draws no single layers and deeper ones."""
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(rows):
        content = random_content(rng, whole=whole, visible=visible)
        config = measured_config(content, spikes="-")
        trains = random_spikes(config, rng)
        cycles = float(machine(config).trace([train[None] for train in trains]).cycles[0])
        spikes = path.with_name(f"{path.stem}-{number}.npz")
        np.savez(spikes, **{f"inputs_{index}": train for index, train in enumerate(trains)})
        scale = {"cycles": 1.0, "us": config.hardware.clock_mhz}[unit]
        lines.append([json.dumps(content), spikes.name, repr(cycles / scale), unit])
    return write_lines(path, lines)


def write_lines(path: Path, lines: Sequence[Sequence[str]], extra: Sequence[str] = ()) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["config", "spikes", "latency", "unit", *extra])
        writer.writerows(lines)
    return path
