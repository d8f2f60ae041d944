"""What the sparsity model sees of a configuration: one row of numbers per weighted layer.

A row describes one layer and the training choices around it, so depth and width are free: a
network of any number of layers is that many rows. Features that are knobs carry the flat key of
the configuration (``neuron.beta``), so that an explanation reads as the knobs that one can turn.
Trees see only the order of a feature, so no feature stands here twice in another scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from ..config import Config, SurrogateConfig, load_config
from ..network import Layer

__all__ = [
    "CATEGORICAL_KEYS",
    "FLAT_KEYS",
    "KNOB_PREFIX",
    "LAYER_COLUMNS",
    "POOL_COLUMN",
    "categories_of",
    "category",
    "config_from_row",
    "feature_names",
    "group_key",
    "input_features",
    "knob_of",
    "layer_columns",
    "layer_features",
    "layer_sizes",
    "plain_cell",
    "row_from_config",
    "run_features",
]

CATEGORICAL_KEYS = ("neuron.model", "neuron.reset", "surrogate.name", "training.loss")
"""Choices among names that change spikes; each calibrated name becomes one feature."""

KNOB_PREFIX = "hardware.knobs."
"""Columns that begin so hold a knob of a fitted backend."""

_NOT_FLAT = ("data_root", "hardware.knobs", "input.statistics", "spikes")

_LAYER_FEATURES = (
    "input.density",
    "input.lateness",
    "input.unevenness",
    "layer.position",
    "layer.position_from_output",
    "layer.is_dense",
    "layer.fan_in",
    "layer.channels",
    "layer.neurons",
    "layer.kernel",
    "layer.pool",
)

_RUN_FEATURES = (
    "neuron.beta",
    "neuron.threshold",
    "neuron.drive",
    "surrogate.slope",
    "surrogate.width",
    "surrogate.height",
    "surrogate.at_rest",
    "training.lr",
    "training.epochs",
    "training.batch_size",
    "training.travel",
    "training.weight_bits",
    "training.batch_norm",
    "training.dropout",
    "training.population",
    "input.time_steps",
)

_KNOB_OF = {
    "input.density": "dataset",
    "input.lateness": "dataset",
    "input.unevenness": "dataset",
    "neuron.drive": "neuron.threshold",
    "surrogate.at_rest": "surrogate.slope",
    "surrogate.height": "surrogate.slope",
    "surrogate.width": "surrogate.slope",
    "training.travel": "training.lr",
}
"""Features that no key names, by the key that moves them first."""

_INPUT_FEATURES = 3
"""Columns of `_LAYER_FEATURES` that tell of the input; the others are sizes of the layer."""

LAYER_COLUMNS = slice(_INPUT_FEATURES, len(_LAYER_FEATURES))
"""Columns of a feature row that are sizes of the layer."""

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
        Values by flat key; anything but these, knobs, ``input.statistics`` (a list for each step)
        and ``input.events`` is left aside. A key that is absent, None or NaN takes its default.
        Without a data set, ``input.events`` (measured; flat, steps first) becomes
        ``input.statistics``.

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
        value = plain_cell(row.get(key))
        if value is not None:
            section, _, inner = key.rpartition(".")
            if section:
                nested.setdefault(section, {})[inner] = value
            else:
                nested[inner] = value
    for key in row:
        if str(key).startswith(KNOB_PREFIX) and (value := plain_cell(row[key])) is not None:
            knobs = nested.setdefault("hardware", {}).setdefault("knobs", {})
            knobs[str(key).removeprefix(KNOB_PREFIX)] = value
    events, given = plain_cell(row.get("input.events")), plain_cell(row.get("input.statistics"))
    if given is not None:
        nested.setdefault("input", {})["statistics"] = given
    elif "dataset" not in nested and events is not None:
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
    return _KNOB_OF.get(feature, feature.partition("=")[0])


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
    inputs = input_features(events, config.input.height * config.input.width)
    sizes = layer_sizes(config.layers)
    run = run_features(config, categories)
    rows = np.empty((len(sizes), len(_LAYER_FEATURES) + len(run)), dtype=np.float32)
    rows[:, :_INPUT_FEATURES] = inputs
    rows[:, _INPUT_FEATURES : len(_LAYER_FEATURES)] = sizes
    rows[:, len(_LAYER_FEATURES) :] = run
    return rows


def layer_columns(
    inputs: NDArray[np.float64], sizes: NDArray[np.float32], run: Sequence[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Put the features of many networks side by side, column by column.

    Parameters
    ----------
    inputs : ndarray of float, shape (points, input features)
        From `input_features`.
    sizes : ndarray of float, shape (points, layers, sizes)
        From `layer_sizes`.
    run : sequence of ndarray of float, shape (points,)
        From `run_features`.

    Returns
    -------
    ndarray of float32, shape (features, layers, points)
        Those of one point are the rows of `layer_features`.
    """
    points, layers, _ = sizes.shape
    columns = np.empty((len(_LAYER_FEATURES) + len(run), layers, points), dtype=np.float32)
    columns[:_INPUT_FEATURES] = inputs.T[:, None]
    columns[_INPUT_FEATURES : len(_LAYER_FEATURES)] = sizes.T
    for column, values in zip(columns[len(_LAYER_FEATURES) :], run, strict=True):
        column[:] = values
    return columns


def input_features(events: NDArray[np.float64], pixels: int) -> tuple[float, float, float]:
    """Density of the input, its centre in time, and how its steps and channels differ.

    Parameters
    ----------
    events : ndarray of float, shape (time_steps, channels)
        Mean events per step and channel.
    pixels : int
        Pixels of a frame.

    Returns
    -------
    density : float
        Events per pixel, channel and step.
    lateness : float
        Mean time of an event, from 0 to 1.
    unevenness : float
        Standard deviation over steps of the events, over their mean.
    """
    steps = events.sum(axis=1)
    total = float(steps.sum())
    density = total / events.size / pixels
    if not total:
        return density, 0.5, 0.0
    count = len(steps)
    lateness = float(steps @ _middles(count)) / total
    spread = float(steps @ steps) / count - (total / count) ** 2
    return density, lateness, math.sqrt(max(spread, 0.0)) * count / total


@cache
def _middles(steps: int) -> NDArray[np.float64]:
    return (np.arange(steps) + 0.5) / steps


def run_features(config: Config, categories: Mapping[str, Sequence[str]]) -> list[Any]:
    """Training choices in the order of the features: numbers first, then names.

    They follow from neuron, surrogate, training and the time steps alone. A number of those may be
    an array, of many that share all their names; then so are the features that follow from it.
    """
    neuron, surrogate, training = config.neuron, config.surrogate, config.training
    threshold = neuron.threshold
    named = [(category(config, key), categories[key]) for key in CATEGORICAL_KEYS]
    return [
        neuron.decay,
        threshold,
        threshold / neuron.gain,
        surrogate.steepness,
        surrogate.half_width,
        gradient_at(surrogate, 0.0),
        gradient_at(surrogate, -threshold),
        training.lr,
        training.epochs,
        training.batch_size,
        training.lr * training.epochs / training.batch_size,
        training.weight_bits,
        training.batch_norm,
        training.dropout,
        training.population,
        config.input.time_steps,
        *[value == name for value, names in named for name in names],
    ]


def gradient_at(surrogate: SurrogateConfig, x: Any) -> Any:
    """Surrogate gradient at x = U - threshold, not above 0; that of ``sso`` is 0 on average there.

    The formulas are those of `spikemeter.models.surrogates`; x and the slope may be arrays.
    """
    k = surrogate.steepness
    if surrogate.name == "fast_sigmoid":
        fall = 1 - k * x
        return 1 / (fall * fall)
    if surrogate.name == "atan":
        angle = math.pi * k * x / 2
        return k / 2 / (1 + angle * angle)
    if surrogate.name == "sigmoid":
        fall = np.exp(k * x)
        return k * fall / ((1 + fall) * (1 + fall))
    if surrogate.name == "triangular":
        return np.maximum(0.0, 1 + k * x)
    if surrogate.name == "spike_rate_escape":
        return k * np.exp(math.log(2) / surrogate.half_width * (x - 1))
    return surrogate.name == "straight_through" or x == 0


@lru_cache(maxsize=1024)
def layer_sizes(layers: tuple[Layer, ...]) -> NDArray[np.float32]:
    """Sizes of every layer, shape (layers, features)."""
    last = len(layers) - 1
    return np.array(
        [
            (
                index,
                last - index,
                layer.kind == "dense",
                layer.fan_in,
                layer.out_channels,
                layer.neurons,
                layer.kernel,
                layer.pool,
            )
            for index, layer in enumerate(layers)
        ],
        dtype=np.float32,
    )


def plain_cell(value: Any) -> Any:
    """Turn a table cell into plain Python; None for an empty one."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    missing = isinstance(value, (float, np.floating)) and math.isnan(value)
    # pandas marks missing text with its own NA, which is equal to nothing, not even itself.
    return None if missing or type(value).__name__ == "NAType" else value
