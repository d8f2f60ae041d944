"""Combinations of keys that a configuration refuses: one sentence with key, rule and value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._sections import InputConfig, NeuronConfig
from .errors import ConfigError
from .network import banks, packed_words, pixels_at_once
from .registry import dataset_spec

if TYPE_CHECKING:
    from .config import Config

__all__ = [
    "LARGEST_CORES",
    "OWN_BACKENDS",
    "check_hardware",
    "check_input",
    "check_neuron",
    "check_output",
    "is_fitted",
]

OWN_BACKENDS = ("engine", "published")
"""Machines that the package knows by itself; any other backend is the folder of a fitted one."""

_FRAME_LIMITS = {"height": 128, "width": 128, "channels": 1024, "time_steps": 1024}
LARGEST_CORES = 1024
_ENCODER_WIDTHS = (8, 128)
_MOST_LAYERS = 32
_TAPS_PER_CYCLE = {"engine": (1, 9), "published": (1,)}
MOST_WRITTEN = 2**11
"""256 words, for which the host's port has addresses, of the narrowest encoder."""
_MOST_LINES = 2**30


def is_fitted(config: Config) -> bool:
    """Whether the hardware is a backend fitted to measurements, whose limits nobody knows."""
    return config.hardware.backend not in OWN_BACKENDS


def check_neuron(neuron: NeuronConfig) -> None:
    """Hold the keys of a neuron against its model."""
    if neuron.model == "lif":
        for key in ("R", "C"):
            if getattr(neuron, key) is not None:
                rule = "is for neuron.model lapicque, not lif"
                raise ConfigError(f"neuron.{key}: {rule}; got {getattr(neuron, key):g}")
        if neuron.match != "none":
            raise ConfigError(
                f"neuron.match: is for neuron.model lapicque, not lif; got {neuron.match!r}"
            )
        if neuron.beta is None:
            raise ConfigError("neuron.beta: required for neuron.model lif, got null")
    elif neuron.beta is None:
        _check_circuit(neuron)
    else:
        for key in ("R", "C"):
            if getattr(neuron, key) is not None:
                rule = "must be absent where beta is given (R and C replace it)"
                raise ConfigError(f"neuron.{key}: {rule}, got {getattr(neuron, key):g}")
        if neuron.beta == 1 and neuron.gain == 0:
            rule = "must be below 1 for a Lapicque neuron whose gain is ln(1/beta)"
            raise ConfigError(f"neuron.beta: {rule}, got {neuron.beta:g}")
        if neuron.decay < -1:
            rule = "must be at least exp(-2) = 0.1353 for a Lapicque neuron whose membrane decays "
            rule += "by 1 + ln(beta), or it grows without bound"
            raise ConfigError(f"neuron.beta: {rule}; got {neuron.beta:g}")
        if neuron.match == "both" and neuron.reset == "zero":
            rule = "must be subtract with neuron.match both: at a reset to zero a Lapicque neuron "
            rule += "forgets the whole step, and a LIF neuron only the one before"
            raise ConfigError(f"neuron.reset: {rule}; got zero")


def _check_circuit(neuron: NeuronConfig) -> None:
    """Hold R and C against each other and against `match`."""
    for key in ("R", "C"):
        if getattr(neuron, key) is None:
            rule = "a Lapicque neuron needs R and C, or beta"
            raise ConfigError(f"neuron.{key}: {rule}; got null")
    if neuron.match != "none":
        rule = "must be none where R and C are given: only beta names the LIF neuron to match"
        raise ConfigError(f"neuron.match: {rule}; got {neuron.match!r}")
    if neuron.decay < -1:
        rule = "R C must be at least 0.5, or the membrane grows without bound"
        raise ConfigError(f"neuron.R: {rule}; got R {neuron.R:g} and C {neuron.C:g}")


def check_input(config: Config) -> None:
    """Hold the frames against the data set, or against what is said of them."""
    size, statistics = config.input, config.input.statistics
    if config.dataset is None and statistics is None and config.spikes is None:
        rule = "required unless input.statistics or spikes is given"
        raise ConfigError(f"dataset: {rule}, got none of them")
    if config.dataset is not None:
        _check_dataset(config, config.dataset)
    if statistics is not None:
        shape = (size.time_steps, size.channels)
        if len(statistics) != shape[0] or any(len(row) != shape[1] for row in statistics):
            got = f"{len(statistics)} rows of {sorted({len(row) for row in statistics})}"
            rule = f"must be {shape[0]} rows (time steps) of {shape[1]} (channels)"
            raise ConfigError(f"input.statistics: {rule}, got {got}")
        largest = max(max(row) for row in statistics)
        if largest > size.height * size.width:
            rule = f"must be at most the {size.height * size.width} pixels of a frame"
            raise ConfigError(f"input.statistics: {rule}, got {largest:g}")


def _check_dataset(config: Config, name: str) -> None:
    spec, size = dataset_spec(name), config.input
    if spec is None:
        return
    coded = size.encoding != "events"
    if coded and not spec.simulated:
        rule = f"must be events for {name}, which has no still images"
        raise ConfigError(f"input.encoding: {rule}; got {size.encoding!r}")
    channels = 1 if coded else spec.channels
    if size.channels != channels:
        of = f"{name} with input.encoding {size.encoding}" if coded else name
        raise ConfigError(f"input.channels: must be {channels} for {of}, got {size.channels}")
    for key, side, limit in (
        ("height", size.height, spec.height),
        ("width", size.width, spec.width),
    ):
        if side > limit:
            rule = f"must be at most the sensor's {limit} of {name}"
            raise ConfigError(f"input.{key}: {rule}, got {side}")
    if coded or not spec.simulated:
        for key in ("camera_threshold", "camera_mismatch", "camera_leak_hz"):
            _refuse_if_given(size, key, "is for a simulated camera")
    if coded:
        for key in ("time_window_ms", "denoise_ms"):
            _refuse_if_given(size, key, f"is for input.encoding events, not {size.encoding}")
    if size.encoding != "rate":
        _refuse_if_given(size, "gain", f"is for input.encoding rate, not {size.encoding}")


def _refuse_if_given(size: InputConfig, key: str, rule: str) -> None:
    """Refuse a value that would have no effect, unless it is the default."""
    value = getattr(size, key)
    if value != InputConfig.model_fields[key].default:
        raise ConfigError(f"input.{key}: {rule}; got {value:g}")


def check_output(config: Config) -> None:
    """Hold the output layer against the classes."""
    last, population = config.layers[-1], config.training.population
    if last.kind != "dense":
        if config.dataset is not None:
            rule = f"must end in a dense layer to tell the classes of {config.dataset} apart"
            raise ConfigError(f"network: {rule}; got {config.network!r}")
        return
    features = last.out_channels
    if features % population:
        rule = f"must divide the {features} output neurons of {config.network}"
        raise ConfigError(f"training.population: {rule}, got {population}")
    spec = None if config.dataset is None else dataset_spec(config.dataset)
    if spec is not None:
        classes = spec.classes
        if config.classes != classes:
            rule = f"must end in {classes * population} neurons, {population} for each of the "
            rule += f"{classes} classes of {config.dataset}"
            raise ConfigError(f"network: {rule}; got {features} in {config.network!r}")


def check_hardware(config: Config) -> None:
    """Hold the machine against the network."""
    cores = config.neural_cores
    if len(cores) != len(config.layers):
        rule = f"must name {len(config.layers)} numbers, one per weighted layer of {config.network}"
        raise ConfigError(f"hardware.neural_cores: {rule}; got {list(cores)}")
    if is_fitted(config):
        return
    _check_engine(config)
    if config.hardware.backend == "published":
        _check_published(config)


def _check_engine(config: Config) -> None:
    """Refuse what our own engine cannot do, and the published one neither."""
    hardware = config.hardware
    for key, limit in _FRAME_LIMITS.items():
        if getattr(config.input, key) > limit:
            rule = f"must be at most {limit} with hardware.backend {hardware.backend}"
            raise ConfigError(f"input.{key}: {rule}, got {getattr(config.input, key)}")
    for index, (layer, cores) in enumerate(zip(config.layers, config.neural_cores, strict=True)):
        if cores > layer.out_channels:
            rule = f"must be at most the {layer.out_channels} output channels of {layer.name}"
            raise ConfigError(f"hardware.neural_cores.{index}: {rule}, got {cores}")
        if cores > LARGEST_CORES:
            rule = f"must be at most {LARGEST_CORES} with hardware.backend {hardware.backend}"
            raise ConfigError(f"hardware.neural_cores.{index}: {rule}, got {cores}")
    low, high = _ENCODER_WIDTHS
    if not low <= hardware.encoder_width <= high:
        rule = f"must be {low} to {high} with hardware.backend {hardware.backend}"
        raise ConfigError(f"hardware.encoder_width: {rule}, got {hardware.encoder_width}")
    _check_taps(config)
    if len(config.layers) > _MOST_LAYERS:
        rule = f"must have at most {_MOST_LAYERS} weighted layers"
        raise ConfigError(
            f"network: {rule} with hardware.backend {hardware.backend}; got {len(config.layers)}"
        )
    for layer in config.layers:
        words = 2 * config.input.time_steps * packed_words(layer.inputs, hardware.encoder_width)
        if words > _MOST_LINES:
            rule = f"the buffer before {layer.name} must have at most {_MOST_LINES} words of "
            rule += "hardware.encoder_width bits for all input.time_steps, twice"
            raise ConfigError(f"network: {rule}; got {words}")
    for name, value in hardware.knobs.items():
        rule = f"is for a fitted backend, not for {hardware.backend}"
        raise ConfigError(f"hardware.knobs.{name}: {rule}; got {value:g}")


def _check_taps(config: Config) -> None:
    """Refuse taps per cycle that the machine does not have, and lines that it cannot write."""
    hardware = config.hardware
    allowed = _TAPS_PER_CYCLE[hardware.backend]
    if hardware.taps_per_cycle not in allowed:
        rule = f"must be {' or '.join(map(str, allowed))} with hardware.backend {hardware.backend}"
        raise ConfigError(f"hardware.taps_per_cycle: {rule}, got {hardware.taps_per_cycle}")
    for layer, cores in zip(config.layers, config.neural_cores, strict=True):
        if banks(layer, hardware.taps_per_cycle) > 1:
            pixels = pixels_at_once(layer.pool, -(-layer.out_channels // cores))
            spikes = pixels * layer.out_channels
            if spikes > MOST_WRITTEN:
                rule = f"must be 1 where {layer.name} on {cores} cores would write more than "
                rule += f"{MOST_WRITTEN} neurons at once"
                raise ConfigError(f"hardware.taps_per_cycle: {rule}; got 9, for {spikes} neurons")


def _check_published(config: Config) -> None:
    """Refuse what the published engine cannot do; see `spikemeter.predictor.published`."""
    for layer in config.layers:
        if layer.kind == "conv" and (layer.kernel, layer.padding) != (3, 1):
            rule = "must have padded 3x3 kernels (nC3) with hardware.backend published"
            raise ConfigError(f"network: {rule}; got {layer.name!r} in {config.network!r}")
    if config.hardware.schedule != "layer_serial":
        rule = "must be layer_serial with hardware.backend published, whose layers do not overlap"
        raise ConfigError(f"hardware.schedule: {rule}; got {config.hardware.schedule!r}")
