"""A synthetic calibration table: made up by a smooth law, but of the shape of a measured one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spikemeter.config import Config, load_config
from spikemeter.predictor.events import expected_counts
from spikemeter.predictor.features import row_from_config
from spikemeter.predictor.timing import even_taps, timing_model

NETWORKS = ("8C3-MP2-10", "8C3-MP2-12C3-MP2-10", "6C5-MP2-24-10", "12C3v-8C3-MP4-10")


def synthetic_table(
    points: int = 24,
    *,
    seeds: int = 2,
    noise: float = 0.15,
    seed: int = 0,
    networks: Sequence[str] = NETWORKS,
) -> pd.DataFrame:
    """Draw points at random; `noise` is that of the log odds of a rate between seeds."""
    rng = np.random.default_rng(seed)
    rows = []
    for point in range(points):
        content = random_content(rng, networks)
        for repetition in range(seeds):
            content["training"]["seed"] = repetition
            name = f"run{point}-{repetition}"
            rows.append(synthetic_row(load_config(content), rng, noise) | {"run_id": name})
    return pd.DataFrame(rows)


def random_content(rng: np.random.Generator, networks: Sequence[str] = NETWORKS) -> dict[str, Any]:
    """Draw the keys of a configuration."""
    surrogate = str(rng.choice(["fast_sigmoid", "atan"]))
    slopes = (5, 25, 50) if surrogate == "fast_sigmoid" else (1, 2, 5)
    return {
        "dataset": "nmnist-saccade",
        "network": str(rng.choice(networks)),
        "input": {"time_steps": int(rng.choice([6, 8]))},
        "neuron": {
            "beta": float(rng.choice([0.5, 0.7, 0.9, 0.95])),
            "threshold": float(rng.choice([0.5, 1.0, 1.5])),
        },
        "surrogate": {"name": surrogate, "slope": float(rng.choice(slopes))},
        "training": {"lr": float(rng.choice([5e-4, 1e-3, 4e-3])), "epochs": 4},
    }


def synthetic_events(time_steps: int) -> NDArray[np.float64]:
    """Events of 16 x 16 frames that come and go, shape (time_steps, 2)."""
    course = np.sin(np.linspace(0.3, 2.8, time_steps))
    return np.stack([9 * course, 8 * course], axis=1)


def synthetic_train_events(time_steps: int) -> NDArray[np.float64]:
    """Events of the training split, which has a little more of them than the measured samples."""
    return 1.02 * synthetic_events(time_steps)


def synthetic_courses(config: Config) -> NDArray[np.float64]:
    """How spikes that enter the layers but the first go over time: membranes fill before they fire.

    Shape (layers - 1, time_steps); the mean over steps is 1.
    """
    step = np.arange(1, config.input.time_steps + 1)
    pace = 4 * (1 - config.neuron.decay) / np.arange(1, len(config.layers))
    rising = 1 - 0.8 * np.exp(-pace[:, None] * step)
    return np.asarray(rising / rising.mean(axis=1, keepdims=True))


def synthetic_row(config: Config, rng: np.random.Generator, noise: float) -> dict[str, Any]:
    """Make up what a run of this configuration would have measured."""
    steps = config.input.time_steps
    events = synthetic_events(steps)
    firing, output = _rates(config, rng, noise)
    counts = expected_counts(config, events, output[:-1], synthetic_courses(config))
    timing = timing_model(config).statistics([layer[None] for layer in counts])
    odds = 2.0 - math.log(config.neuron.threshold) + 0.3 * noise * rng.normal()
    # Rates fall to their last value while a network trains.
    start = np.linspace(1.4, 1.0, config.training.epochs)[:, None]
    return row_from_config(config) | {
        "status": "ok",
        "reason": None,
        "layers.name": [layer.name for layer in config.layers],
        "layers.input_rate": [float(events.mean()) / 256, *output[:-1]],
        "layers.firing_rate": firing,
        "layers.output_rate": output,
        "layers.taps": [even_taps(layer) for layer in config.layers],
        "layers.step_counts": [layer.sum(axis=1).tolist() for layer in counts],
        "layers.cycles.mean": timing.layer_cycles[0].tolist(),
        "epochs.firing_rate": np.minimum(start * firing, 1.0).tolist(),
        "accuracy.integer.test": 1 / (1 + math.exp(-odds)),
        "input.events": events.ravel().tolist(),
        "input.train_events": synthetic_train_events(steps).ravel().tolist(),
        "samples": 64,
        "cycles.mean": float(timing.cycles[0]) * math.exp(0.01 * rng.normal()),
        "spikes_match": True,
    }


def _rates(
    config: Config, rng: np.random.Generator, noise: float
) -> tuple[list[float], list[float]]:
    """Firing and output rates of every layer: a smooth law and the noise of a seed."""
    common = (
        -1.6
        - 1.1 * math.log(config.neuron.threshold)
        + 1.5 * (config.neuron.beta - 0.8)
        - 0.3 * math.log(config.surrogate.half_width * 10)
        + 0.15 * math.log(config.training.lr / 1e-3)
        + noise * rng.normal()
    )
    firing, output = [], []
    for index, layer in enumerate(config.layers):
        rate = 1 / (1 + math.exp(0.35 * index - common - 0.3 * noise * rng.normal()))
        firing.append(rate)
        output.append(1 - (1 - rate) ** (layer.pool**1.3))
    return firing, output
