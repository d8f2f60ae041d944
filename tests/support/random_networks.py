"""Networks drawn at random: geometry, hardware, constants and spikes, from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikemeter.config import Config, load_config
from spikemeter.models.integer import (
    IntegerLayer,
    IntegerNetwork,
    membrane_bound,
    quantised_decay,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A network with spikes to run through it."""

    config: Config
    network: IntegerNetwork
    inputs: NDArray[np.bool_]


def random_case(seed: int, *, samples: int = 3) -> Case:
    """Draw a small network, its hardware and its input spikes, from empty to full."""
    rng = np.random.default_rng(seed)
    config = _random_config(rng)
    size = config.input
    shape = (samples, size.time_steps, size.channels, size.height, size.width)
    density = rng.choice([0.0, 0.02, 0.1, 0.4, 1.0], size=samples)
    inputs = rng.random(shape) < density.reshape(-1, 1, 1, 1, 1)
    return Case(config=config, network=random_network(config, rng), inputs=inputs)


def random_network(
    config: Config, rng: np.random.Generator, *, membrane_bits: int | None = None
) -> IntegerNetwork:
    """Draw weights and constants under which some neurons fire and some do not."""
    layers = []
    for geometry in config.layers:
        bits = config.training.weight_bits
        largest = 2 ** (bits - 1) - 1
        gain_shift = int(rng.integers(0, 6))
        weight = rng.integers(-largest, largest + 1, geometry.weight_shape).astype(np.int8)
        scale = largest * 2**gain_shift
        threshold = int(rng.integers(1, 3 * scale + 2))
        bias = rng.integers(-scale // 4, scale // 2 + 1, geometry.out_channels).astype(np.int32)
        decay = quantised_decay(float(rng.uniform(0.05, 1.0)))
        bound = membrane_bound(weight, bias, threshold, gain_shift, decay)
        layers.append(
            IntegerLayer(
                geometry=geometry,
                weight=weight,
                bias=bias,
                threshold=threshold,
                gain_shift=gain_shift,
                decay=decay,
                membrane_bits=membrane_bits or max(16, bound.bit_length() + 1),
                weight_bits=bits,
            )
        )
    return IntegerNetwork(layers=tuple(layers))


def _random_config(rng: np.random.Generator) -> Config:
    height, width = (int(side) for side in rng.integers(5, 14, size=2))
    channels, steps = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    tokens, outputs, side = [], [], min(height, width)
    for _ in range(int(rng.integers(0, 3))):
        kernel = int(rng.choice([1, 3, 5]))
        valid = bool(rng.random() < 0.3) and side > kernel
        outputs.append(int(rng.integers(1, 12)))
        tokens.append(f"{outputs[-1]}C{kernel}{'v' if valid else ''}")
        side -= kernel - 1 if valid else 0
        pool = int(rng.choice([1, 2, 4]))
        if pool > 1 and side >= pool:
            tokens.append(f"MP{pool}")
            side //= pool
    for _ in range(int(rng.integers(1, 3))):
        outputs.append(int(rng.integers(1, 40)))
        tokens.append(str(outputs[-1]))
    return load_config(
        {
            "network": "-".join(tokens),
            "input": {
                "height": height,
                "width": width,
                "channels": channels,
                "time_steps": steps,
                "statistics": [[0.0] * channels] * steps,
            },
            "training": {"weight_bits": int(rng.integers(2, 9))},
            "hardware": {
                "neural_cores": [int(rng.integers(1, output + 1)) for output in outputs],
                "encoder_width": int(rng.choice([8, 13, 16, 32, 64, 128])),
                "schedule": str(rng.choice(["layer_serial", "step_pipelined"])),
            },
        }
    )
