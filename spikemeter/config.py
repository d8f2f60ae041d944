"""The configuration: training choices, network and hardware of one run, validated once.

One YAML file, dict or `Config` describes a run for every command and every function. Unknown
keys, bad types and impossible values are refused with the path of the key, the rule and the value.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from .errors import ConfigError
from .network import Layer, packed_words, parse_network

__all__ = [
    "DATASETS",
    "OWN_BACKENDS",
    "Config",
    "DatasetSpec",
    "HardwareConfig",
    "InputConfig",
    "NeuronConfig",
    "SurrogateConfig",
    "TrainingConfig",
    "is_fitted",
    "json_schema",
    "load_config",
    "measured_config",
    "require_rtl",
]

OWN_BACKENDS = ("engine", "published")
"""Machines that the package knows by itself; any other backend is the folder of a fitted one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """What must be known of a data set before anything is loaded.

    Attributes
    ----------
    classes : int
        Number of labels.
    channels, height, width : int
        Sensor size; polarities are channels.
    """

    classes: int
    channels: int
    height: int
    width: int


DATASETS: dict[str, DatasetSpec] = {
    "nmnist-saccade": DatasetSpec(classes=10, channels=2, height=34, width=34),
}
"""Registered data sets by name; `spikemeter.datasets` holds one loader for each."""


class _Section(BaseModel):
    # Numbers may come as text, because YAML 1.1 reads "1e-3" as text.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        if info.field_name == "knobs" and isinstance(value, Mapping):
            items = list(value.values())
        allowed = cls.model_fields[str(info.field_name)].annotation is bool
        items = [
            *items,
            *(part for item in items if isinstance(item, list | tuple) for part in item),
        ]
        if not allowed and any(isinstance(item, bool) for item in items):
            raise ValueError("should not be true or false")
        return value


class InputConfig(_Section):
    """Frames that enter the network."""

    height: Annotated[int, Field(ge=1, le=4096, description="rows of a frame")] = 16
    width: Annotated[int, Field(ge=1, le=4096, description="columns of a frame")] = 16
    channels: Annotated[int, Field(ge=1, le=65_536, description="channels; 2 are ON and OFF")] = 2
    time_steps: Annotated[int, Field(ge=1, le=65_536, description="time bins of a recording")] = 8
    statistics: Annotated[
        tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] | None,
        Field(description="mean events (pixels that spike) per step and channel, steps first"),
    ] = None


class NeuronConfig(_Section):
    """Neuron model: U[t] = decay U[t-1] + gain I[t] - threshold R[t], R[t] = U[t-1] > threshold.

    LIF decays by beta and has a gain of 1. Lapicque's RC circuit decays by 1 - 1/(R C) and has a
    gain of 1/C; from beta alone R is 1 and C is 1/ln(1/beta), as in snnTorch. `match` sets one or
    both to those of the LIF neuron with the same beta.
    """

    model: Annotated[
        Literal["lif", "lapicque"],
        Field(description="leaky integrate-and-fire, or Lapicque's RC circuit"),
    ] = "lif"
    beta: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="membrane decay per step of a LIF neuron; null with R and C"),
    ] = 0.9
    R: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="resistance of a Lapicque neuron, with C instead of beta"),
    ] = None
    C: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        Field(description="capacitance of a Lapicque neuron, in time steps per unit of R"),
    ] = None
    match: Annotated[
        Literal["none", "decay", "gain", "both"],
        Field(description="what a Lapicque neuron of a given beta takes from LIF"),
    ] = "none"
    threshold: Annotated[float, Field(gt=0, le=100, description="fires above this")] = 1.0
    reset: Annotated[
        Literal["subtract", "zero"],
        Field(description="one step after a spike: subtract the threshold, or forget the membrane"),
    ] = "subtract"

    @model_validator(mode="before")
    @classmethod
    def _let_r_and_c_stand_for_beta(cls, content: Any) -> Any:
        given = content if isinstance(content, Mapping) else {}
        if "beta" not in given and (given.get("R") is not None or given.get("C") is not None):
            return {**given, "beta": None}
        return content

    @property
    def decay(self) -> float:
        """Share of the membrane that stays for the next step, before quantisation."""
        if self.R is not None and self.C is not None:
            return 1 - 1 / (self.R * self.C)
        assert self.beta is not None
        free = self.model == "lapicque" and self.match in ("none", "gain")
        return 1 + math.log(self.beta) if free else self.beta

    @property
    def gain(self) -> float:
        """Share of the input current that reaches the membrane."""
        if self.C is not None:
            return 1 / self.C
        assert self.beta is not None
        free = self.model == "lapicque" and self.match in ("none", "decay")
        return -math.log(self.beta) if free else 1.0


class SurrogateConfig(_Section):
    """Gradient that stands in for the derivative of the spike while training."""

    name: Annotated[Literal["fast_sigmoid", "atan"], Field(description="as in snnTorch")] = (
        "fast_sigmoid"
    )
    slope: Annotated[
        float, Field(gt=0, le=1e4, description="steepness, in the surrogate's own parameter")
    ] = 25.0


class TrainingConfig(_Section):
    """How the weights are found."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    lr: Annotated[float, Field(gt=0, le=10, description="learning rate of Adam")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    weight_bits: Annotated[int, Field(ge=2, le=8, description="signed, symmetric, per layer")] = 4
    batch_norm: Annotated[bool, Field(description="after convolutions, folded into them")] = True
    dropout: Annotated[float, Field(ge=0, lt=1, description="before each dense layer")] = 0.0
    loss: Annotated[
        Literal["mse_count"], Field(description="squared error of the output spike counts")
    ] = "mse_count"
    population: Annotated[int, Field(ge=1, le=1000, description="output neurons per class")] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class HardwareConfig(_Section):
    """The accelerator that runs the network."""

    backend: Annotated[
        str,
        Field(
            min_length=1,
            description="engine: Spikemeter's own; published: the one of arXiv 2603.24891 as a "
            "formula; anything else: the folder of a backend that fit-timing wrote",
        ),
    ] = "engine"
    clock_mhz: Annotated[float, Field(gt=0, le=10_000)] = 100.0
    neural_cores: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | Literal["auto"],
        Field(description="cores per weighted layer; auto: a quarter of the channels of a "
              "convolution, at most 16 for a dense layer"),
    ] = "auto"  # fmt: skip
    encoder_width: Annotated[
        int, Field(ge=1, description="input lines scanned per cycle; 8 to 128 for the engine")
    ] = 32
    taps_per_cycle: Annotated[
        int, Field(ge=1, description="kernel taps per cycle and core; 1 for the engine")
    ] = 1
    membrane_bits: Annotated[
        Annotated[int, Field(ge=8, le=32)] | Literal["auto"],
        Field(description="auto: wide enough that nothing saturates"),
    ] = "auto"
    schedule: Annotated[
        Literal["layer_serial", "step_pipelined"],
        Field(description="a layer starts when the one before has finished all steps, or one"),
    ] = "layer_serial"
    knobs: Annotated[
        dict[str, float],
        Field(description="further numbers that a fitted backend knows: its columns hw_NAME"),
    ] = {}

    @model_serializer(mode="wrap")
    def _leave_out_knobs_where_there_are_none(
        self, serialise: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        if not self.knobs:
            content.pop("knobs", None)
        return content


class Config(_Section):
    """One run: data, network, training and hardware.

    Every key but `network` has a default; what enters the network must be known from `dataset`,
    `input.statistics` or `spikes`.
    """

    dataset: Annotated[str | None, Field(description="a registered data set")] = None
    network: Annotated[str, Field(description="for instance 16C3-MP2-32C3-MP2-10")]
    input: InputConfig = InputConfig()
    neuron: NeuronConfig = NeuronConfig()
    surrogate: SurrogateConfig = SurrogateConfig()
    training: TrainingConfig = TrainingConfig()
    hardware: HardwareConfig = HardwareConfig()
    spikes: Annotated[
        str | None, Field(description="an .npz file with inputs_i or counts_i of known spikes")
    ] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        _check_neuron(self.neuron)
        _check_input(self)
        _check_output(self)
        _check_hardware(self)
        return self

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Weighted layers with their sizes."""
        size = self.input
        return parse_network(
            self.network,
            channels=size.channels,
            height=size.height,
            width=size.width,
            any_machine=is_fitted(self),
        )

    @cached_property
    def neural_cores(self) -> tuple[int, ...]:
        """Cores of each weighted layer, with ``auto`` resolved."""
        cores = self.hardware.neural_cores
        return cores if cores != "auto" else tuple(_auto_cores(layer) for layer in self.layers)

    @cached_property
    def classes(self) -> int:
        """Classes that the output layer tells apart."""
        return self.layers[-1].out_channels // self.training.population

    @cached_property
    def digest(self) -> str:
        """SHA-256 of every setting, as 64 hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """Every setting, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(source: Config | Mapping[str, Any] | str | Path) -> Config:
    """Read and validate a configuration.

    Parameters
    ----------
    source : Config, mapping, str or Path
        A configuration, its keys as a mapping, a YAML file, or a folder with ``config.yaml``.

    Returns
    -------
    Config
        Validated; a `Config` is returned as it is.

    Raises
    ------
    ConfigError
        If the file cannot be read or a key, type, value or combination is not allowed.

    Notes
    -----
    A `hardware.backend` that is a folder is looked for beside the YAML file first.
    """
    if isinstance(source, Config):
        return source
    if isinstance(source, Mapping):
        return _validated(_with_backend(source, Path()))
    path = Path(source)
    path = path / "config.yaml" if path.is_dir() else path
    return _validated(_with_backend(read_yaml(path, "configuration"), path.parent))


def measured_config(
    content: Mapping[str, Any],
    *,
    spikes: str,
    backend: str = "measured",
    knobs: Mapping[str, float] | None = None,
) -> Config:
    """Validate the configuration of a measurement, which any machine may have run.

    Parameters
    ----------
    content : mapping
        Keys and values; a data set is not needed. Its `hardware.backend` is left aside.
    spikes : str
        File of the spikes that were measured.
    backend : str, optional
        Stands for the machine; its folder need not exist.
    knobs : mapping, optional
        Further numbers of `hardware.knobs`.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        If a key, type, value or combination is not allowed.
    """
    hardware = content.get("hardware", {})
    if isinstance(hardware, Mapping):
        hardware = {**hardware, "backend": backend}
        given = hardware.get("knobs", {})
        if knobs and isinstance(given, Mapping):
            hardware["knobs"] = {**given, **knobs}
    return _validated({**content, "hardware": hardware, "spikes": spikes})


def is_fitted(config: Config) -> bool:
    """Whether the hardware is a backend fitted to measurements, whose limits nobody knows."""
    return config.hardware.backend not in OWN_BACKENDS


def require_rtl(config: Config) -> None:
    """Refuse a configuration whose machine is known by a formula alone.

    Raises
    ------
    ConfigError
        If `hardware.backend` is not the engine, the one machine that has RTL.
    """
    if config.hardware.backend != "engine":
        rule = "must be engine to simulate, no other machine has RTL here"
        raise ConfigError(f"hardware.backend: {rule}; got {config.hardware.backend!r}")


def json_schema() -> dict[str, Any]:
    """JSON Schema of a configuration file."""
    return Config.model_json_schema()


def _with_backend(content: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Find the folder of a fitted backend: beside the configuration, or from where we are."""
    hardware = content.get("hardware")
    backend = hardware.get("backend") if isinstance(hardware, Mapping) else None
    if not isinstance(hardware, Mapping) or not isinstance(backend, str):
        return content
    if backend in OWN_BACKENDS or not backend:
        return content
    try:
        found = next(path for path in (folder / backend, Path(backend)) if path.is_dir())
    except (StopIteration, OSError, ValueError) as error:  # no path may hold a null byte
        rule = "should be 'engine' or 'published', or the folder of a fitted backend"
        raise ConfigError(f"hardware.backend: {rule}, got {backend!r}") from error
    located = backend if folder == Path() else str(found.resolve())
    return {**content, "hardware": {**hardware, "backend": located}}


def _auto_cores(layer: Layer) -> int:
    if layer.kind == "dense":
        return min(layer.out_channels, 16)
    return min(_LARGEST_CORES, math.ceil(layer.out_channels / 4))


def read_yaml(path: Path, what: str) -> Mapping[str, Any]:
    """Read keys and values from a YAML file; `what` names the kind of file in errors.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot read the {what} {str(path)!r}: {reason}") from error
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        reason = " ".join(str(error).split())
        raise ConfigError(f"the {what} {str(path)!r} is not valid YAML: {reason}") from error
    except RecursionError as error:
        raise ConfigError(f"the {what} {str(path)!r} is nested too deeply") from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ConfigError(f"the {what} {str(path)!r} must hold keys and values, got {kind}")
    return content


def _validated(content: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(dict(content))
    except ValidationError as error:
        raise ConfigError(error_sentence(error, Config)) from error


def _check_neuron(neuron: NeuronConfig) -> None:
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


def _check_input(config: Config) -> None:
    size, statistics = config.input, config.input.statistics
    if config.dataset is None and statistics is None and config.spikes is None:
        rule = "required unless input.statistics or spikes is given"
        raise ConfigError(f"dataset: {rule}, got none of them")
    if config.dataset is not None:
        spec = DATASETS.get(config.dataset)
        if spec is None:
            known = ", ".join(DATASETS)
            raise ConfigError(f"dataset: must be one of {known}; got {config.dataset!r}")
        if size.channels != spec.channels:
            rule = f"must be {spec.channels} for {config.dataset}"
            raise ConfigError(f"input.channels: {rule}, got {size.channels}")
        for key, side, limit in (
            ("height", size.height, spec.height),
            ("width", size.width, spec.width),
        ):
            if side > limit:
                rule = f"must be at most the sensor's {limit} of {config.dataset}"
                raise ConfigError(f"input.{key}: {rule}, got {side}")
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


def _check_output(config: Config) -> None:
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
    if config.dataset is not None:
        classes = DATASETS[config.dataset].classes
        if config.classes != classes:
            rule = f"must end in {classes * population} neurons, {population} for each of the "
            rule += f"{classes} classes of {config.dataset}"
            raise ConfigError(f"network: {rule}; got {features} in {config.network!r}")


def _check_hardware(config: Config) -> None:
    cores = config.neural_cores
    if len(cores) != len(config.layers):
        rule = f"must name {len(config.layers)} numbers, one per weighted layer of {config.network}"
        raise ConfigError(f"hardware.neural_cores: {rule}; got {list(cores)}")
    if is_fitted(config):
        return
    _check_engine(config)
    if config.hardware.backend == "published":
        _check_published(config)


_FRAME_LIMITS = {"height": 128, "width": 128, "channels": 1024, "time_steps": 1024}
_LARGEST_CORES = 1024
_ENCODER_WIDTHS = (8, 128)
_MOST_LAYERS = 32
_MOST_LINES = 2**30


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
        if cores > _LARGEST_CORES:
            rule = f"must be at most {_LARGEST_CORES} with hardware.backend {hardware.backend}"
            raise ConfigError(f"hardware.neural_cores.{index}: {rule}, got {cores}")
    low, high = _ENCODER_WIDTHS
    if not low <= hardware.encoder_width <= high:
        rule = f"must be {low} to {high} with hardware.backend {hardware.backend}"
        raise ConfigError(f"hardware.encoder_width: {rule}, got {hardware.encoder_width}")
    if hardware.taps_per_cycle != 1:
        rule = f"must be 1 with hardware.backend {hardware.backend}"
        raise ConfigError(f"hardware.taps_per_cycle: {rule}, got {hardware.taps_per_cycle}")
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


def _check_published(config: Config) -> None:
    """Refuse what the published engine cannot do; see `spikemeter.predictor.published`."""
    for layer in config.layers:
        if layer.kind == "conv" and (layer.kernel, layer.padding) != (3, 1):
            rule = "must have padded 3x3 kernels (nC3) with hardware.backend published"
            raise ConfigError(f"network: {rule}; got {layer.name!r} in {config.network!r}")
    if config.hardware.schedule != "layer_serial":
        rule = "must be layer_serial with hardware.backend published, whose layers do not overlap"
        raise ConfigError(f"hardware.schedule: {rule}; got {config.hardware.schedule!r}")


_RULES = {
    "dict_type": "should hold keys and values",
    "model_attributes_type": "should hold keys and values",
    "model_type": "should hold keys and values",
    "too_short": "should be a list of {min_length} or more",
    "tuple_type": "should be a list",
}
"""Words for rules that pydantic explains in terms of Python, by its name for the error."""


def error_sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """One sentence for the first thing that pydantic found in `model`: key, rule, value."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # a combination of keys, which the model itself refused
        return first["msg"].removeprefix("Value error, ")
    parts = [str(part) for part in first["loc"]]
    key = ".".join(part for part in parts if not _is_union_member(part))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; allowed here: {', '.join(_allowed_keys(model, parts))}"
    if first["type"] == "missing":
        return f"{key}: required, got nothing"
    rule = _RULES.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
    rule = rule.removeprefix("Input ").removeprefix("Value error, ")
    if parts[0] == "hardware" and _is_union_member(parts[-1]):
        rule += " (or 'auto')"
    return f"{key}: {rule}, got {first['input']!r}"


def _is_union_member(part: str) -> bool:
    """Tell whether pydantic added this part to name the member of a union that it tried."""
    return "[" in part or part == "constrained-int"


def _allowed_keys(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    for part in loc[:-1]:
        field = model.model_fields.get(part)
        if field is not None and isinstance(field.annotation, type):
            model = field.annotation
    return list(model.model_fields)
