"""The configuration: training choices, network and hardware of one run, validated once.

One YAML file, dict or `Config` describes a run for every command and every function. Unknown
keys, bad types and impossible values are refused with the path of the key, the rule and the value.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from ._checks import (
    LARGEST_CORES,
    OWN_BACKENDS,
    check_hardware,
    check_input,
    check_neuron,
    check_output,
    is_fitted,
)
from ._sections import (
    HardwareConfig,
    InputConfig,
    NeuronConfig,
    Section,
    SurrogateConfig,
    TrainingConfig,
)
from .errors import ConfigError
from .network import Layer, parse_network
from .registry import DATASETS, DatasetSpec

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


_MEASURED = ("network", "input", "hardware")
"""Sections that a measured latency depends on, beside its spikes."""

NAMED_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "vgg9-quarter": {
        "network": "64C3-28C3-MP2-48C3-54C3-MP2-120C3-126C3-140C3-MP2-1064-200",
        "input": {"height": 32, "width": 32, "channels": 2, "time_steps": 4},
        "training": {"population": 20},
        "hardware": {"neural_cores": [64, 28, 48, 54, 120, 126, 140, 56, 50]},
    },
}
"""Networks that have a name, and keys that come with it unless they are given.

``vgg9-quarter`` is that of arXiv 2603.24891, for ten classes.
"""


class Config(Section):
    """One run: data, network, training and hardware.

    Every key but `network` has a default; what enters the network must be known from `dataset`,
    `input.statistics` or `spikes`.
    """

    dataset: Annotated[
        str | None,
        Field(description="a registered data set (see: spikemeter datasets), or a folder of yours"),
    ] = None
    data_root: Annotated[
        str | None,
        Field(description="folder of the recordings that you have; default: $SPIKEMETER_DATA"),
    ] = None
    network: Annotated[
        str, Field(description="for instance 16C3-MP2-32C3-MP2-10, or vgg9-quarter, by name")
    ]
    input: InputConfig = InputConfig()
    neuron: NeuronConfig = NeuronConfig()
    surrogate: SurrogateConfig = SurrogateConfig()
    training: TrainingConfig = TrainingConfig()
    hardware: HardwareConfig = HardwareConfig()
    spikes: Annotated[
        str | None, Field(description="an .npz file with inputs_i or counts_i of known spikes")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _spell_out_name(cls, content: Any) -> Any:
        """Put a network's notation in place of its name, and fill in what comes with it."""
        name = content.get("network") if isinstance(content, Mapping) else None
        if not isinstance(name, str) or name not in NAMED_NETWORKS:
            return content
        named = NAMED_NETWORKS[name]
        filled = {**content, "network": named["network"]}
        for section in set(named) - {"network"}:
            given = content.get(section, {})
            if isinstance(given, Mapping):
                filled[section] = {**named[section], **given}
        return filled

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        check_neuron(self.neuron)
        check_input(self)
        check_output(self)
        check_hardware(self)
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
        """SHA-256 of what differs from the defaults, but for where data lie; 64 hexadecimal digits.

        A key that comes later, with a default that changes nothing, leaves it as it is.
        """
        content = self.model_dump(mode="json", exclude={"data_root"}, exclude_defaults=True)
        text = json.dumps(content, sort_keys=True)
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
    A `hardware.backend` or `dataset` that is a folder is looked for beside the YAML file first,
    and becomes an absolute path.
    """
    if isinstance(source, Config):
        return source
    if isinstance(source, Mapping):
        return _validated(_located(source, Path()))
    path = Path(source)
    path = path / "config.yaml" if path.is_dir() else path
    return _validated(_located(read_yaml(path, "configuration"), path.parent))


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
        Keys and values. `network`, `input` and `hardware` matter; other keys of a configuration,
        and `hardware.backend`, are left aside.
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
    for key in content:
        if key not in Config.model_fields:
            rule = f"allowed here: {', '.join(_MEASURED)}"
            raise ConfigError(f"unknown key {str(key)!r}; {rule}")
    needed = {key: content[key] for key in _MEASURED if key in content}
    hardware = needed.get("hardware", {})
    if isinstance(hardware, Mapping):
        hardware = {**hardware, "backend": backend}
        given = hardware.get("knobs", {})
        if knobs and isinstance(given, Mapping):
            hardware["knobs"] = {**given, **knobs}
    return _validated({**needed, "hardware": hardware, "spikes": spikes})


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


def _located(content: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Find the folders of a private data set and of a fitted backend."""
    dataset, hardware = content.get("dataset"), content.get("hardware")
    if isinstance(dataset, str) and dataset not in DATASETS:
        content = {**content, "dataset": str(_beside(dataset, folder) or dataset)}
    backend = hardware.get("backend") if isinstance(hardware, Mapping) else None
    if not isinstance(hardware, Mapping) or not isinstance(backend, str):
        return content
    if backend in OWN_BACKENDS or not backend:
        return content
    found = _beside(backend, folder)
    if found is None:
        rule = "should be 'engine' or 'published', or the folder of a fitted backend"
        raise ConfigError(f"hardware.backend: {rule}, got {backend!r}")
    return {**content, "hardware": {**hardware, "backend": str(found)}}


def _beside(name: str, folder: Path) -> Path | None:
    """Find a folder: beside the configuration, or from where we are."""
    try:
        return next(path.resolve() for path in (folder / name, Path(name)) if path.is_dir())
    except (StopIteration, OSError, ValueError):  # no path may hold a null byte
        return None


def _auto_cores(layer: Layer) -> int:
    if layer.kind == "dense":
        return min(layer.out_channels, 16)
    return min(LARGEST_CORES, math.ceil(layer.out_channels / 4))


def read_yaml(path: Path, what: str) -> Mapping[str, Any]:
    """Read keys and values from a YAML file; `what` names the kind of file in errors.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, holds something else, or a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot read the {what} {str(path)!r}: {reason}") from error
    try:
        content, repeated = _parsed_yaml(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        reason = " ".join(str(error).split())
        raise ConfigError(f"the {what} {str(path)!r} is not valid YAML: {reason}") from error
    except RecursionError as error:
        raise ConfigError(f"the {what} {str(path)!r} is nested too deeply") from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ConfigError(f"the {what} {str(path)!r} must hold keys and values, got {kind}")
    if repeated is not None:
        where = f"{repeated.value!r} in line {repeated.start_mark.line + 1}"
        raise ConfigError(f"the {what} {str(path)!r} must have each key once, got another {where}")
    return content


def _parsed_yaml(text: str) -> tuple[Any, yaml.ScalarNode | None]:
    """Content of a YAML text, and the first key that a mapping in it has already."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        repeated = _repeated_key(root)  # before values that are merged in join their mappings
        return loader.construct_document(root), repeated
    finally:
        loader.dispose()


def _repeated_key(root: yaml.Node) -> yaml.ScalarNode | None:
    """First key of a YAML document that its mapping has already."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))  # an alias leads to a node again
        keys = set()
        for entry in node.value:
            key, value = entry if isinstance(node, yaml.MappingNode) else (None, entry)
            left.append(value)
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    return key
                keys.add((key.tag, key.value))
    return None


def _validated(content: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(dict(content))
    except ValidationError as error:
        raise ConfigError(error_sentence(error, Config)) from error


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
    said = first["msg"].removeprefix("Value error, ")
    if said.startswith(f"{key}."):  # a combination within a section
        return said
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
