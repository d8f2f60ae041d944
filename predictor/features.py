"""What the sparsity model sees of a configuration: one row of numbers per weighted layer.

A row describes one layer and the training choices around it, so depth and width are free: a
network of any number of layers is that many rows. Features that are knobs carry the flat key of
the configuration (``neuron.beta``), so that an explanation reads as the knobs that one can turn.
Trees see only the order of a feature, so no feature stands here twice in another scale.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from ..config import Config, load_config
from ..network import Layer

__all__ = [
    "CATEGORICAL_KEYS",
    "FLAT_KEYS",
    "KNOB_PREFIX",
    "POOL_COLUMN",
    "categories_of",
    "category",
    "config_from_row",
    "feature_names",
    "group_key",
    "knob_of",
    "layer_features",
    "row_from_config",
]

CATEGORICAL_KEYS = ("neuron.model", "neuron.reset", "surrogate.name", "training.loss")
"""Choices among names that change spikes; each calibrated name becomes one feature."""

KNOB_PREFIX = "hardware.knobs."
"""Columns that begin so hold a knob of a fitted backend."""

_NOT_FLAT = ("data_root", "hardware.knobs", "input.statistics", "spikes")

_RUN_FEATURES: dict[str, Callable[[Config], float]] = {
    "neuron.beta": lambda config: config.neuron.decay,
    "neuron.threshold": lambda config: config.neuron.threshold,
    "surrogate.slope": lambda config: config.surrogate.steepness,
    "surrogate.width": lambda config: config.surrogate.half_width,
    "training.lr": lambda config: config.training.lr,
    "training.epochs": lambda config: config.training.epochs,
    "training.batch_size": lambda config: config.training.batch_size,
    "training.weight_bits": lambda config: config.training.weight_bits,
    "training.batch_norm": lambda config: config.training.batch_norm,
    "training.dropout": lambda config: config.training.dropout,
    "training.population": lambda config: config.training.population,
    "input.time_steps": lambda config: config.input.time_steps,
}

_LAYER_FEATURES = (
    "input.density",
    "layer.position",
    "layer.position_from_output",
    "layer.is_dense",
    "layer.fan_in",
    "layer.neurons",
    "layer.kernel",
    "layer.pool",
)

POOL_COLUMN = _LAYER_FEATURES.index("layer.pool")
"""Column of a feature row that holds the side of the max pooling behind the layer."""


def _flat_keys() -> tuple[str, ...]:
    keys = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys += [f"{name}.{inner}" for inner in section.model_fields]
        else:
            keys.append(name)
    return tuple(key for key in keys if key not in _NOT_FLAT)


FLAT_KEYS = _flat_keys()
"""Every key of a configuration with its section, as the columns of a table name them."""


def config_from_row(row: Mapping[Any, Any]) -> Config:
    """Read a configuration from the columns of a table: the inverse of `row_from_config`.

    Parameters
    ----------
    row : mapping
        Values by flat key; anything but these, knobs and ``input.events`` is left aside. A key that
        is absent, None or NaN takes its default. Without a data set, ``input.events`` (flat, steps
        first) becomes ``input.statistics``.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        If a value is not allowed.

    Examples
    --------
    >>> row = {"dataset": "nmnist-saccade", "network": "10", "neuron.beta": 0.5}
    >>> config_from_row(row).neuron.beta
    0.5
    """
    nested: dict[str, Any] = {}
    for key in FLAT_KEYS:
        value = _plain(row.get(key))
        if value is not None:
            section, _, inner = key.rpartition(".")
            if section:
                nested.setdefault(section, {})[inner] = value
            else:
                nested[inner] = value
    for key in row:
        if str(key).startswith(KNOB_PREFIX) and (value := _plain(row[key])) is not None:
            knobs = nested.setdefault("hardware", {}).setdefault("knobs", {})
            knobs[str(key).removeprefix(KNOB_PREFIX)] = value
    events = _plain(row.get("input.events"))
    if "dataset" not in nested and events is not None:
        channels = int(nested.get("input", {}).get("channels", 2))
        steps = np.asarray(events, dtype=np.float64).reshape(-1, channels)
        nested.setdefault("input", {})["statistics"] = steps.tolist()
    return load_config(nested)


def row_from_config(config: Config) -> dict[str, Any]:
    """Flat keys and values of a configuration, with the neural cores resolved."""
    dump = config.model_dump(mode="python")
    row = {}
    for key in FLAT_KEYS:
        section, _, inner = key.rpartition(".")
        row[key] = dump[section][inner] if section else dump[inner]
    return row | {"hardware.neural_cores": list(config.neural_cores)}


def group_key(config: Config) -> str:
    """Text that is equal for runs which differ in nothing but their seed and their hardware.

    Such runs spike alike but for chance, so they stand on one side of every split.
    """
    training = config.training.model_dump(exclude={"seed"})
    rest = config.model_dump(mode="json", exclude={"training", "hardware", "spikes", "data_root"})
    return repr((sorted(training.items()), sorted(rest.items())))


def categories_of(configs: Sequence[Config]) -> dict[str, tuple[str, ...]]:
    """Names that occur for every categorical key, sorted."""
    return {
        key: tuple(sorted({category(config, key) for config in configs}))
        for key in CATEGORICAL_KEYS
    }


def category(config: Config, key: str) -> str:
    """Value of a categorical key such as ``surrogate.name``."""
    section, _, inner = key.partition(".")
    return str(getattr(getattr(config, section), inner))


def feature_names(categories: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names of the columns of `layer_features`."""
    named = [f"{key}={name}" for key in CATEGORICAL_KEYS for name in categories[key]]
    return (*_LAYER_FEATURES, *_RUN_FEATURES, *named)


def knob_of(feature: str) -> str:
    """Key of the configuration that moves a feature.

    Examples
    --------
    >>> knob_of("surrogate.name=atan"), knob_of("layer.fan_in"), knob_of("neuron.beta")
    ('surrogate.name', 'network', 'neuron.beta')
    """
    if feature.startswith("layer."):
        return "network"
    merged = {"surrogate.width": "surrogate.slope", "input.density": "dataset"}
    return merged.get(feature, feature.partition("=")[0])


def layer_features(
    config: Config, events: NDArray[np.float64], categories: Mapping[str, Sequence[str]]
) -> NDArray[np.float32]:
    """Describe every weighted layer of a configuration.

    Parameters
    ----------
    config : Config
        Training choices and network.
    events : ndarray of float, shape (time_steps, channels)
        Mean events that enter the network per step and channel.
    categories : mapping
        Calibrated names of every categorical key; an unknown name is in none of them.

    Returns
    -------
    ndarray of float32, shape (layers, features)
        Columns as in `feature_names`; always finite.
    """
    pixels = config.input.height * config.input.width
    density = float(events.mean()) / pixels
    run = [float(get(config)) for get in _RUN_FEATURES.values()]
    for key in CATEGORICAL_KEYS:
        value = category(config, key)
        run += [float(value == name) for name in categories[key]]
    last = len(config.layers) - 1
    rows = [
        (*_sizes(layer, index, last, density), *run) for index, layer in enumerate(config.layers)
    ]
    return np.array(rows, dtype=np.float32)


def _sizes(layer: Layer, index: int, last: int, density: float) -> tuple[float, ...]:
    return (
        density,
        index,
        last - index,
        layer.kind == "dense",
        layer.fan_in,
        layer.neurons,
        layer.kernel,
        layer.pool,
    )


def _plain(value: Any) -> Any:
    """Turn a table cell into plain Python; None for an empty one."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    missing = isinstance(value, numbers.Real) and math.isnan(value)
    # pandas marks missing text with its own NA, which is equal to nothing, not even itself.
    return None if missing or type(value).__name__ == "NAType" else value
