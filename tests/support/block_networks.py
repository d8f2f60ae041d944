"""Small networks for the benches of layers and engines, chosen so that mistakes show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from random_networks import random_network

from spikemeter.config import Config, load_config
from spikemeter.models.integer import IntegerNetwork, SpikeTrains, network_spikes

_MEMBRANE_BITS = 20
_SEEDS = range(1000)


def small_config(
    network: str,
    maps: tuple[int, int, int],
    *,
    time_steps: int,
    cores: tuple[int, ...],
    width: int,
    model: str = "lif",
    reset: str = "subtract",
    taps_per_cycle: int = 1,
) -> Config:
    """Configure a network on (channels, height, width) of input."""
    channels, height, breadth = maps
    return load_config(
        {
            "network": network,
            "input": {
                "height": height,
                "width": breadth,
                "channels": channels,
                "time_steps": time_steps,
                "statistics": [[0.0] * channels] * time_steps,
            },
            "neuron": {"model": model, "reset": reset},
            "hardware": {
                "neural_cores": cores, "encoder_width": width, "taps_per_cycle": taps_per_cycle
            },
        }
    )  # fmt: skip


def spikes_of_all_kinds(
    config: Config, samples: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw inputs from empty to full, shape (samples, time_steps, channels, height, width)."""
    size = config.input
    shape = (samples, size.time_steps, size.channels, size.height, size.width)
    density = rng.permutation(np.linspace(0, 0.9, samples)).reshape(-1, 1, 1, 1, 1)
    spikes: NDArray[np.bool_] = rng.random(shape) < density
    return spikes


def telling_network(
    config: Config, inputs: NDArray[np.bool_], *, start: int = 0
) -> tuple[IntegerNetwork, SpikeTrains]:
    """Draw networks until one answers every sample with other spikes.

    So no result can be taken for another, lost or doubled without notice. All networks of one
    configuration have the same widths, and so the same simulator.
    """
    for seed in _SEEDS[start:]:
        rng = np.random.default_rng(seed)
        network = random_network(config, rng, membrane_bits=_MEMBRANE_BITS)
        trains = network_spikes(network, inputs)
        if len({sample.tobytes() for sample in trains.outputs}) == len(inputs):
            return network, trains
    raise AssertionError("no network tells the samples apart")
