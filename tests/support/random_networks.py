"""Networks drawn at random: geometry, hardware, constants and spikes, from one seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spikemeter.config import Config, load_config
from spikemeter.models.integer import (
    FACTOR_FRACTION_BITS,
    IntegerLayer,
    IntegerNetwork,
    SpikeTrains,
    layer_spikes,
    membrane_bound,
    neuron_decay,
    quantised_decay,
)
from spikemeter.network import Layer, banks, pixels_at_once

FEATURES = (
    "LIF", "Lapicque", "negative decay", "reset by subtraction", "reset to zero",
    "layer_serial", "step_pipelined", "one time step", "several time steps",
    "convolution 1x1", "convolution 3x3", "convolution 5x5", "padding none", "pooling 2",
    "pooling 4", "pooling drops rows or columns", "dense into dense",
    "1 weighted layer", "2 weighted layers", "3 weighted layers", "4 weighted layers",
    "5 weighted layers", "6 weighted layers",
    "cores do not divide channels", "one core", "a core for every channel",
    "cores wider than a word", "encoder width 8 to 15", "encoder width 16 to 63",
    "encoder width 64 to 128", "word that is not full", "weights of 2 bits", "weights of 8 bits",
    "saturation that changes spikes", "input empty", "input full", "input in between",
    "one neuron", "frame of 64 or more",
)  # fmt: skip
"""What a case can exercise, by the names that `case_features` gives."""
BANKED_FEATURES = (
    "nine banks", "nine banks, padding none", "nine banks, pooling 2", "nine banks, pooling 4",
    "nine banks, tiles beyond the frame", "nine banks, a map of one tile",
    "nine banks, one phase", "nine banks, cores do not divide channels",
    "1 pixel at once", "3 pixels at once", "9 pixels at once", "pixels of several rows at once",
    "a strip that waits", "strips of one step that overlap", "nine banks beside one",
)  # fmt: skip
"""What a case with nine taps per cycle can exercise beside that."""

_SEARCHES = 7  # thresholds that are tried for a layer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A network with spikes to run through it."""

    config: Config
    network: IntegerNetwork
    inputs: NDArray[np.bool_]


def random_case(
    seed: int,
    *,
    samples: int = 3,
    size: Literal["small", "large"] = "small",
    taps_per_cycle: Literal[1, 9] = 1,
) -> Case:
    """Draw a network, its hardware, its constants and its input spikes, from empty to full.

    Thresholds are searched such that, as far as the spikes allow, some neurons of a layer fire
    and some do not; now and then a layer is left silent or without rest. Where nine taps can be
    served per cycle, most convolutions are 3x3.
    """
    rng = np.random.default_rng(seed)
    config = _random_config(rng, size, taps_per_cycle)
    frames = config.input
    shape = (samples, frames.time_steps, frames.channels, frames.height, frames.width)
    inputs = _random_spikes(rng, shape)
    layers, spikes = [], inputs
    for geometry in config.layers:
        maps = (geometry.in_channels, geometry.in_height, geometry.in_width)
        spikes = spikes.reshape(*spikes.shape[:2], *maps)
        layer = _random_layer(rng, geometry, config)
        layers.append(_with_firing(rng, layer, spikes))
        spikes, _ = layer_spikes(layers[-1], spikes)
    return Case(config=config, network=IntegerNetwork(layers=tuple(layers)), inputs=inputs)


def random_network(
    config: Config, rng: np.random.Generator, *, membrane_bits: int | None = None
) -> IntegerNetwork:
    """Draw weights and constants of a given configuration, without knowing its spikes."""
    layers = []
    for geometry in config.layers:
        bits = config.training.weight_bits
        largest = 2 ** (bits - 1) - 1
        gain_shift = int(rng.integers(0, 6))
        weight = rng.integers(-largest, largest + 1, geometry.weight_shape).astype(np.int8)
        scale = largest * 2**gain_shift
        threshold = int(rng.integers(1, 3 * scale + 2))
        bias = rng.integers(-scale // 4, scale // 2 + 1, geometry.out_channels).astype(np.int32)
        neuron = config.neuron.model_copy(update={"beta": float(rng.uniform(0.14, 0.999))})
        layer = IntegerLayer(
            geometry=geometry,
            weight=weight,
            bias=bias,
            threshold=threshold,
            gain_shift=gain_shift,
            decay=neuron_decay(neuron),
            membrane_bits=32,
            weight_bits=bits,
            neuron=neuron.model,
            reset=neuron.reset,
        )
        layers.append(replace(layer, membrane_bits=membrane_bits or _needed_bits(layer)))
    return IntegerNetwork(layers=tuple(layers))


def case_features(case: Case, trains: SpikeTrains) -> frozenset[str]:
    """Name what a case exercises; `trains` is what the integer reference says of it."""
    config = case.config
    width, cores = config.hardware.encoder_width, config.neural_cores
    pairs = list(zip(config.layers, cores, strict=True))
    convs = [layer for layer in config.layers if layer.kind == "conv"]
    density = case.inputs.mean(axis=(1, 2, 3, 4))
    side = max(config.input.height, config.input.width)
    found = {
        "LIF": config.neuron.model == "lif",
        "Lapicque": config.neuron.model == "lapicque",
        "negative decay": any(layer.decay < 0 for layer in case.network.layers),
        "reset by subtraction": config.neuron.reset == "subtract",
        "reset to zero": config.neuron.reset == "zero",
        config.hardware.schedule: True,
        "one time step": config.input.time_steps == 1,
        "several time steps": config.input.time_steps > 1,
        "padding none": any(layer.kernel > 1 and not layer.padding for layer in convs),
        "pooling drops rows or columns": any(
            layer.out_height % layer.pool or layer.out_width % layer.pool for layer in convs
        ),
        "dense into dense": len(pairs) - len(convs) > 1,
        f"{len(pairs)} weighted layer{'s' if len(pairs) > 1 else ''}": True,
        "cores do not divide channels": any(layer.out_channels % n for layer, n in pairs),
        "one core": any(layer.out_channels > 1 == n for layer, n in pairs),
        "a core for every channel": any(layer.out_channels == n > 1 for layer, n in pairs),
        "cores wider than a word": any(n > width for n in cores),
        "encoder width 8 to 15": width < 16,
        "encoder width 16 to 63": 16 <= width < 64,
        "encoder width 64 to 128": width >= 64,
        "word that is not full": any(layer.inputs % width for layer in config.layers),
        "weights of 2 bits": config.training.weight_bits == 2,
        "weights of 8 bits": config.training.weight_bits == 8,
        "saturation that changes spikes": _saturates(case.network, trains),
        "input empty": bool((density == 0).any()),
        "input full": bool((density == 1).any()),
        "input in between": bool(((density > 0) & (density < 1)).any()),
        "one neuron": [layer.neurons for layer in config.layers] == [1],
        "frame of 64 or more": side >= 64,
    }
    for layer in convs:
        found[f"convolution {layer.kernel}x{layer.kernel}"] = True
        found[f"pooling {layer.pool}"] = layer.pool > 1
    return _banked_features(config) | {name for name, holds in found.items() if holds}


def _banked_features(config: Config) -> frozenset[str]:
    """Name what the layers with nine banks exercise."""
    found = set[str]()
    taps = config.hardware.taps_per_cycle
    kinds = {banks(layer, taps) for layer in config.layers if layer.kind == "conv"}
    for layer, cores in zip(config.layers, config.neural_cores, strict=True):
        if banks(layer, taps) == 1:
            continue
        phases = -(-layer.out_channels // cores)
        pixels = pixels_at_once(layer.pool, phases)
        rows, columns = -(-layer.out_height // 3), -(-layer.out_width // 3)
        strips = -(-rows // layer.pool)
        late = -(-3 * layer.pooled_width // pixels)
        late -= (rows - (strips - 1) * layer.pool) * columns * phases
        holds = {
            "nine banks": True,
            "nine banks, padding none": not layer.padding,
            "nine banks, pooling 2": layer.pool == 2,
            "nine banks, pooling 4": layer.pool == 4,
            "nine banks, tiles beyond the frame": layer.out_height % 3 > 0 < layer.out_width % 3,
            "nine banks, a map of one tile": rows == columns == 1,
            "nine banks, one phase": phases == 1,
            "nine banks, cores do not divide channels": layer.out_channels % cores > 0,
            f"{pixels} pixel{'s' if pixels > 1 else ''} at once": True,
            "pixels of several rows at once": layer.pooled_width % pixels > 0,
            "a strip that waits": strips > 1 and late > 0,
            "strips of one step that overlap": strips > 1,
            "nine banks beside one": kinds == {1, 9},
        }
        found |= {name for name, held in holds.items() if held}
    return frozenset(found)


def _saturates(network: IntegerNetwork, trains: SpikeTrains) -> bool:
    """Whether a layer fires otherwise than it would with a membrane that holds everything."""
    outputs = (*trains.inputs[1:], trains.outputs)
    for layer, spikes, fired in zip(network.layers, trains.inputs, outputs, strict=True):
        if layer.membrane_bits < _needed_bits(layer):
            wide, _ = layer_spikes(replace(layer, membrane_bits=32), spikes)
            if (wide.reshape(fired.shape) != fired).any():
                return True
    return False


def _needed_bits(layer: IntegerLayer) -> int:
    """Bits of a membrane that never saturates, at least 16 and at most 32."""
    return min(32, max(16, membrane_bound(layer).bit_length() + 1))


def _random_spikes(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Draw samples from empty to full; some keep to one part of the frame."""
    density = rng.choice([0.0, 0.01, 0.05, 0.2, 0.5, 0.9, 1.0], size=shape[0])
    spikes = rng.random(shape) < density.reshape(-1, 1, 1, 1, 1)
    for sample, full in zip(spikes, density == 1, strict=True):
        if rng.random() < 0.3 and not full:
            first, end = np.sort(rng.integers(0, shape[-2] + 1, size=2))
            sample[:, :, :first] = False
            sample[:, :, end:] = False
    return spikes


def _random_layer(rng: np.random.Generator, geometry: Layer, config: Config) -> IntegerLayer:
    bits = config.training.weight_bits
    largest = 2 ** (bits - 1) - 1
    weight = rng.integers(-largest, largest + 1, geometry.weight_shape).astype(np.int8)
    gain_shift = int(rng.integers(0, 7) if rng.random() < 0.9 else rng.integers(7, 16))
    scale = largest * 2**gain_shift
    # Most that one step can bring, and the widest membrane that this still saturates
    most = int(np.abs(weight.astype(int)).reshape(len(weight), -1).sum(axis=1).max()) << gain_shift
    narrow = int(rng.integers(8, min(32, max(8, most.bit_length())) + 1))
    membrane_bits = narrow if rng.random() < 0.35 else 32
    limit = 2 ** (membrane_bits - 1) - 1
    bias = rng.integers(-scale // 4, scale // 2 + 1, geometry.out_channels)
    layer = IntegerLayer(
        geometry=geometry,
        weight=weight,
        bias=np.clip(bias, -limit, limit).astype(np.int32),
        threshold=1,
        gain_shift=gain_shift,
        decay=_random_decay(rng, config.neuron.model),
        membrane_bits=membrane_bits,
        weight_bits=bits,
        neuron=config.neuron.model,
        reset=config.neuron.reset,
    )
    return layer if membrane_bits < 32 else replace(layer, membrane_bits=_needed_bits(layer))


def _random_decay(rng: np.random.Generator, model: str) -> int:
    if model == "lif":
        return quantised_decay(
            float(rng.choice([1 - rng.random(), 1.0, 2**-8], p=[0.9, 0.05, 0.05]))
        )
    one = 2**FACTOR_FRACTION_BITS
    return int(rng.choice([rng.integers(-one, one + 1), one, -one, 0, -1], p=[0.8, *[0.05] * 4]))


def _with_firing(
    rng: np.random.Generator, layer: IntegerLayer, spikes: NDArray[np.bool_]
) -> IntegerLayer:
    """Search a threshold at which a drawn share of the neurons fires."""
    wanted = float(rng.choice([rng.uniform(0.02, 0.6), 0.0, 1.0], p=[0.9, 0.05, 0.05]))
    low, high = 0.0, float(layer.membrane_bits - 1)
    tried = []
    for _ in range(_SEARCHES):
        middle = (low + high) / 2
        candidate = replace(layer, threshold=max(1, int(2**middle) - 1))
        share = float(layer_spikes(candidate, spikes)[1].mean())
        tried.append((abs(share - wanted), candidate.threshold))
        low, high = (middle, high) if share > wanted else (low, middle)
    return replace(layer, threshold=min(tried)[1])


def _random_config(
    rng: np.random.Generator, size: Literal["small", "large"], taps_per_cycle: int
) -> Config:
    large = size == "large"
    height, width = (int(side) for side in rng.integers(1, 25 if large else 14, size=2))
    channels, steps = (
        int(rng.integers(1, 5 if large else 4)),
        int(rng.integers(1, 7 if large else 6)),
    )
    tokens, outputs = [], []
    convs, denses = int(rng.integers(0, 5)), int(rng.integers(1, 3))
    most_channels, most_features = (24, 64) if large else (11, 40)
    if large and rng.random() < 0.06:
        # One thin layer on a large frame
        height, width = (int(side) for side in rng.integers(64, 129, size=2))
        channels, steps, convs, denses, most_channels = 1, int(rng.integers(1, 4)), 1, 1, 3
    elif rng.random() < 0.03:
        height, width, channels, convs, denses, most_features = 1, 1, 1, 0, 1, 1
    sides = [height, width]
    for _ in range(convs):
        kernel = int(rng.choice([1, 3, 5] if taps_per_cycle == 1 else [1, 3, 3, 3, 5]))
        valid = bool(rng.random() < 0.3) and min(sides) > kernel
        outputs.append(int(rng.integers(1, most_channels + 1)))
        tokens.append(f"{outputs[-1]}C{kernel}{'v' if valid else ''}")
        sides = [side - (kernel - 1 if valid else 0) for side in sides]
        pool = int(rng.choice([1, 2, 4])) if max(sides) < 64 else 4
        if 1 < pool <= min(sides):
            tokens.append(f"MP{pool}")
            sides = [side // pool for side in sides]
    for _ in range(denses):
        outputs.append(int(rng.integers(1, most_features + 1)))
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
            "neuron": {
                "model": str(rng.choice(["lif", "lapicque"])),
                "reset": str(rng.choice(["subtract", "zero"])),
            },
            "training": {"weight_bits": int(rng.integers(2, 9))},
            "hardware": {
                "neural_cores": [_random_cores(rng, output) for output in outputs],
                "encoder_width": int(
                    rng.choice([8, 13, 16, 32, 64, 128, int(rng.integers(8, 129))])
                ),
                "schedule": str(rng.choice(["layer_serial", "step_pipelined"])),
                "taps_per_cycle": taps_per_cycle,
            },
        }
    )


def _random_cores(rng: np.random.Generator, outputs: int) -> int:
    return int(rng.choice([int(rng.integers(1, outputs + 1)), 1, outputs], p=[0.7, 0.15, 0.15]))
