"""The run folder: what training leaves behind for simulation and prediction.

``config.yaml``, ``network.npz`` (the integer network), ``trace.npz`` (spikes of the first test
samples), ``activity.npz`` (mean spike counts over all of them) and ``result.json``. A folder
appears whole or not at all, and nothing in it is trusted when it is read. No torch in here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import Config, load_config, read_yaml
from ..errors import ConfigError, RunFolderError
from ..files import new_folder, write_whole
from ..network import Layer
from ._arrays import read_arrays, write_arrays
from .integer import IntegerNetwork, SpikeTrains, load_network, neuron_decay, save_network

__all__ = [
    "QUANTISE_VERSION",
    "TRACE_SAMPLES",
    "TRAIN_VERSION",
    "Run",
    "load_run",
    "new_run_folder",
    "write_activity",
    "write_network_and_trace",
    "write_result",
]

TRAIN_VERSION = 1
"""Version of training; raised by hand when the weights it finds change on purpose."""

QUANTISE_VERSION = 1
"""Version of the export to integers; raised by hand when its outputs change on purpose."""

TRACE_SAMPLES = 64
"""Test samples, from the first, whose spikes are kept."""

_CONFIG, _NETWORK, _TRACE, _RESULT = "config.yaml", "network.npz", "trace.npz", "result.json"
_ACTIVITY = "activity.npz"
_FILES = frozenset({_CONFIG, _NETWORK, _TRACE, _RESULT, _ACTIVITY})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A trained run.

    Attributes
    ----------
    path : Path
        Its folder.
    config : Config
        Settings it was trained with.
    network : IntegerNetwork
        What the hardware runs; without layers if the run diverged.
    inputs : tuple of ndarray of bool
        Spikes that enter each weighted layer: (samples, time_steps, channels, height, width) for
        a convolution, (samples, time_steps, features) for a dense layer. Empty if diverged.
    outputs : ndarray of bool, shape (samples, time_steps, features)
        Spikes of the output layer.
    labels : ndarray of int64, shape (samples,)
        Classes of the samples.
    result : dict
        Content of ``result.json``.
    counts, taps : tuple of ndarray of float64, shape (time_steps, in_channels)
        Spikes that enter each weighted layer, and their kernel taps inside the frame: means over
        the test split. Empty if diverged, or if a version that did not measure them wrote the run.
    """

    path: Path
    config: Config
    network: IntegerNetwork
    inputs: tuple[NDArray[np.bool_], ...]
    outputs: NDArray[np.bool_]
    labels: NDArray[np.int64]
    result: dict[str, Any]
    counts: tuple[NDArray[np.float64], ...] = ()
    taps: tuple[NDArray[np.float64], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the training, one sentence each."""
        return tuple(self.result.get("warnings", ()))

    @property
    def status(self) -> str:
        """How training ended: ``ok``, ``diverged`` or ``silent``."""
        return str(self.result["status"])


_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    # Further keys are allowed: a newer version may write more.
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Accuracy(_Part):
    validation: _Share
    test: _Share


class _Accuracies(_Part):
    module: Annotated[_Accuracy, Field(alias="float")]
    integer: _Accuracy


class _Activity(_Part):
    name: str
    input_rate: _Share
    firing_rate: _Share
    output_rate: _Share


class _Result(_Part):
    status: Literal["ok", "silent"]
    accuracy: _Accuracies
    layers: list[_Activity]
    firing_rate_per_epoch: list[list[_Share]]
    seconds: Annotated[float, Field(ge=0)]
    versions: dict[str, int]
    stopped_at_epoch: int | None = None
    warnings: list[str] = []


def load_run(path: Path) -> Run:
    """Read a run folder and hold every file against its configuration.

    Parameters
    ----------
    path : Path
        Folder written by `train_run`.

    Returns
    -------
    Run
        Network, trace and results, all checked.

    Raises
    ------
    RunFolderError
        If the folder or a file in it is missing or damaged, does not fit the configuration, or
        belongs to a run that diverged.
    """
    path = Path(path)
    if not path.is_dir():
        found = "it is a file" if path.exists() else "there is no such folder"
        raise RunFolderError(f"{str(path)!r} is not a run folder: {found}")
    try:
        config = load_config(read_yaml(path / _CONFIG, "configuration"))
    except ConfigError as error:
        raise RunFolderError(f"{str(path)!r} is not a usable run folder: {error}") from error
    result = _read_result(path / _RESULT, config)
    network = load_network(path / _NETWORK, config.layers)
    _check_network(path / _NETWORK, network, config)
    inputs, outputs, labels = _read_trace(path / _TRACE, config)
    counts, taps = _read_activity(path / _ACTIVITY, config)
    return Run(
        path=path,
        config=config,
        network=network,
        inputs=inputs,
        outputs=outputs,
        labels=labels,
        result=result,
        counts=counts,
        taps=taps,
    )


def new_run_folder(out: Path) -> AbstractContextManager[Path]:
    """Give a temporary folder that becomes the run folder `out` when the block ends well.

    Parameters
    ----------
    out : Path
        New or empty folder, or one that holds a run and nothing else.

    Returns
    -------
    context manager of Path
        As `spikemeter.files.new_folder`; refuses with `RunFolderError`.
    """
    return new_folder(Path(out), _FILES, refusal=RunFolderError)


def write_result(folder: Path, config: Config, result: dict[str, Any]) -> None:
    """Write ``config.yaml`` and ``result.json``."""
    write_whole(folder / _CONFIG, config.to_yaml().encode())
    text = json.dumps(result, indent=2, allow_nan=False)
    write_whole(folder / _RESULT, f"{text}\n".encode())


def write_network_and_trace(
    folder: Path, network: IntegerNetwork, trains: SpikeTrains, labels: NDArray[np.int64]
) -> None:
    """Write ``network.npz`` and ``trace.npz``."""
    save_network(network, folder / _NETWORK)
    arrays: dict[str, NDArray[np.generic]] = {"outputs": trains.outputs, "labels": labels}
    for index, (layer, spikes) in enumerate(zip(network.layers, trains.inputs, strict=True)):
        shape = (*spikes.shape[:2], *_input_shape(layer.geometry))
        arrays[f"inputs_{index}"] = spikes.reshape(shape)
    write_arrays(folder / _TRACE, arrays)


def write_activity(
    folder: Path, counts: Sequence[NDArray[np.float64]], taps: Sequence[NDArray[np.float64]]
) -> None:
    """Write ``activity.npz``, which a configuration can name as its `spikes`."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, values in (("counts", counts), ("taps", taps)):
        arrays |= {f"{name}_{index}": array for index, array in enumerate(values)}
    write_arrays(folder / _ACTIVITY, arrays)


def _read_result(path: Path, config: Config) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"it is not JSON ({error})"
        raise RunFolderError(f"cannot read {str(path)!r}: {reason}") from error
    if isinstance(result, dict) and result.get("status") == "diverged":
        raise RunFolderError(
            f"{str(path.parent)!r} holds no network: its training diverged; try a lower training.lr"
        )
    try:
        checked = _Result.model_validate(result)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "content"
        raise RunFolderError(f"cannot use {str(path)!r}: {key}: {first['msg']}") from error
    names = [layer.name for layer in config.layers]
    found = [layer.name for layer in checked.layers]
    if found != names:
        raise RunFolderError(f"cannot use {str(path)!r}: layers must be {names}, got {found}")
    stopped, epochs = checked.stopped_at_epoch, config.training.epochs
    if stopped is not None:
        if config.training.patience is None or not 1 <= stopped < epochs:
            rule = f"needs training.patience and must be 1 to {epochs - 1}, got {stopped}"
            raise RunFolderError(f"cannot use {str(path)!r}: stopped_at_epoch {rule}")
        epochs = stopped
    if [len(rates) for rates in checked.firing_rate_per_epoch] != [len(names)] * epochs:
        rule = f"must be {epochs} epochs of {len(names)} layers"
        raise RunFolderError(f"cannot use {str(path)!r}: firing_rate_per_epoch {rule}")
    return dict(result)


def _check_network(path: Path, network: IntegerNetwork, config: Config) -> None:
    """Refuse constants that another configuration would give."""
    expected: dict[str, int | str] = {
        "weight_bits": config.training.weight_bits,
        "neuron": config.neuron.model,
        "reset": config.neuron.reset,
        "decay": neuron_decay(config.neuron),
    }
    if config.hardware.membrane_bits != "auto":
        expected["membrane_bits"] = config.hardware.membrane_bits
    for layer in network.layers:
        for name, value in expected.items():
            found = getattr(layer, name)
            if found != value:
                rule = f"{name} of layer {layer.geometry.name} must be {value}"
                raise RunFolderError(
                    f"cannot use the network in {str(path)!r}: {rule}, got {found}"
                )


def _read_trace(
    path: Path, config: Config
) -> tuple[tuple[NDArray[np.bool_], ...], NDArray[np.bool_], NDArray[np.int64]]:
    """Read spikes that enter each layer, spikes of the output layer, and labels."""
    names = [f"inputs_{index}" for index in range(len(config.layers))]
    arrays: dict[str, NDArray[Any]] = dict(read_arrays(path, [*names, "outputs", "labels"]))
    labels = arrays["labels"]
    samples = labels.shape[0] if labels.ndim else 0
    train = (samples, config.input.time_steps)
    _require(path, "labels", labels, np.int64, (samples,))
    for name, layer in zip(names, config.layers, strict=True):
        _require(path, name, arrays[name], np.bool_, (*train, *_input_shape(layer)))
    _require(path, "outputs", arrays["outputs"], np.bool_, (*train, config.layers[-1].neurons))
    if not samples or labels.min() < 0 or labels.max() >= config.classes:
        rule = f"must hold at least one sample, with labels 0 to {config.classes - 1}"
        raise RunFolderError(f"cannot use {str(path)!r}: it {rule}")
    return tuple(arrays[name] for name in names), arrays["outputs"], labels


_Activities = tuple[NDArray[np.float64], ...]


def _read_activity(path: Path, config: Config) -> tuple[_Activities, _Activities]:
    """Read mean counts and taps of the spikes that enter each layer, where there are any."""
    if not path.exists():
        return (), ()
    names = [(f"counts_{index}", f"taps_{index}") for index in range(len(config.layers))]
    arrays: dict[str, NDArray[Any]] = dict(read_arrays(path, [*sum(names, ())]))
    for (counts, taps), layer in zip(names, config.layers, strict=True):
        shape = (config.input.time_steps, layer.in_channels)
        _require(path, counts, arrays[counts], np.float64, shape)
        _require(path, taps, arrays[taps], np.float64, shape)
        _require_within(path, counts, arrays[counts], layer.in_height * layer.in_width)
        _require_within(path, taps, arrays[taps], layer.kernel**2 * arrays[counts])
    return tuple(arrays[name] for name, _ in names), tuple(arrays[name] for _, name in names)


def _require_within(
    path: Path, name: str, array: NDArray[Any], most: float | NDArray[np.float64]
) -> None:
    rounding = 1e-9
    if not ((array >= 0) & (array <= most * (1 + rounding))).all():
        rule = "must lie between none and all that the layer can have"
        raise RunFolderError(f"cannot use {str(path)!r}: {name} {rule}")


def _require(
    path: Path,
    name: str,
    array: NDArray[Any],
    dtype: type[np.generic],
    shape: Sequence[int],
) -> None:
    if array.dtype != dtype or array.shape != tuple(shape):
        rule = f"must be {np.dtype(dtype)} of shape {tuple(shape)}"
        raise RunFolderError(
            f"cannot use {str(path)!r}: {name} {rule}, got {array.dtype} of shape {array.shape}"
        )


def _input_shape(layer: Layer) -> tuple[int, ...]:
    """Shape of one step's spikes into a layer, as a trace keeps it."""
    if layer.kind == "dense":
        return (layer.inputs,)
    return (layer.in_channels, layer.in_height, layer.in_width)
