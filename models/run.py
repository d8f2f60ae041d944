"""Train a configuration and write its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..datasets import DATA_VERSION, EventFrames, load_splits, require_binary
from ..errors import ConfigError
from ..network import Layer, taps_inside
from .checkpoint import run_checkpoint
from .export import export_network
from .folder import (
    QUANTISE_VERSION,
    TRACE_SAMPLES,
    TRAIN_VERSION,
    Run,
    load_run,
    new_run_folder,
    write_activity,
    write_network_and_trace,
    write_result,
)
from .integer import IntegerNetwork, class_accuracy, network_spikes
from .training import Training, evaluate, train

__all__ = ["Activity", "integer_activity", "train_run", "training_warnings"]

_REFERENCE_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activity:
    """What an integer network does on a set of samples.

    Attributes
    ----------
    accuracy : float
        Share of samples whose class spikes most.
    input_rate, firing_rate, output_rate : ndarray of float, shape (layers,)
        Spikes per time step that enter, per input line; that neurons emit, per neuron; and that
        leave after pooling, per output line.
    counts, taps : tuple of ndarray of float, shape (time_steps, in_channels)
        Spikes that enter each layer, per sample, and their kernel taps that lie inside the frame.
    """

    accuracy: float
    input_rate: NDArray[np.float64]
    firing_rate: NDArray[np.float64]
    output_rate: NDArray[np.float64]
    counts: tuple[NDArray[np.float64], ...]
    taps: tuple[NDArray[np.float64], ...]


def train_run(
    config: Config,
    out: Path,
    *,
    on_epoch: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> Run:
    """Train, quantise and measure a configuration, and write the run folder.

    A training that was killed goes on after its last whole epoch when it is called again, and ends
    as if nothing had happened.

    Parameters
    ----------
    config : Config
        With a registered data set.
    out : Path
        New or empty folder, or one that holds an older run, which is replaced at the end.
    on_epoch : callable, optional
        Progress, as in `spikemeter.models.training.train`.

    Returns
    -------
    Run
        As read back from `out`. A run that diverged has a status and no network.

    Raises
    ------
    ConfigError
        If the configuration names no data set, or its `hardware.membrane_bits` cannot hold the
        network that was found.
    RunFolderError
        If `out` cannot be written.
    """
    if config.dataset is None:
        raise ConfigError("dataset: required for training, got nothing")
    require_binary(config)
    warnings = training_warnings(config)
    with new_run_folder(out) as folder:
        splits = load_splits(config)
        checkpoint = run_checkpoint(out, config, splits)
        training = train(config, splits, on_epoch=on_epoch, checkpoint=checkpoint)
        start = time.perf_counter()
        result = _training_result(training, [*warnings, *checkpoint.warnings])
        if training.status != "diverged":
            network = export_network(training.network, config)
            test = splits.test
            activity = integer_activity(network, test, config.classes)
            validation = integer_activity(network, splits.validation, config.classes)
            result["accuracy"] = {
                "float": {
                    "validation": evaluate(
                        training.network, splits.validation, config.classes
                    ).accuracy,
                    "test": evaluate(training.network, test, config.classes).accuracy,
                },
                "integer": {"validation": validation.accuracy, "test": activity.accuracy},
            }
            result["layers"] = _layer_results(config, activity)
            trace = network_spikes(network, test.frames[:TRACE_SAMPLES])
            write_network_and_trace(folder, network, trace, test.labels[:TRACE_SAMPLES])
            write_activity(folder, activity.counts, activity.taps)
        result["seconds"] = training.seconds + time.perf_counter() - start
        write_result(folder, config, result)
    checkpoint.remove()
    return load_run(out) if training.status != "diverged" else _diverged(config, out, result)


def training_warnings(config: Config) -> list[str]:
    """Say what a configuration allows but rarely wants, one sentence each.

    Parameters
    ----------
    config : Config
        Before it is trained.

    Returns
    -------
    list of str
        Empty if there is nothing to say.
    """
    neuron = config.neuron
    if neuron.decay >= 0:
        return []
    cause = (
        f"neuron.beta: {neuron.beta:g} makes 1 + ln(beta)"
        if neuron.beta is not None
        else f"neuron.R: {neuron.R:g} with C {neuron.C:g} makes 1 - 1/(R C)"
    )
    advice = "take beta above 0.368 or R C above 1, or match the decay of LIF"
    return [
        f"{cause}, the share of a Lapicque neuron's membrane that stays, {neuron.decay:.3g}: the "
        f"membrane changes sign from step to step; {advice}"
    ]


def integer_activity(network: IntegerNetwork, frames: EventFrames, classes: int) -> Activity:
    """Run the integer reference over a whole split.

    Parameters
    ----------
    network : IntegerNetwork
        Layers in order.
    frames : EventFrames
        Samples with labels.
    classes : int
        Classes that the output layer tells apart.

    Returns
    -------
    Activity
        Accuracy, spike rates, counts and taps over all samples.
    """
    samples = len(frames.labels)
    outputs = []
    rates = np.zeros((3, len(network.layers)))
    layers = [layer.geometry for layer in network.layers]
    maps: list[NDArray[np.int64] | int] = [0] * len(layers)  # spikes of each step and input
    for start in range(0, samples, _REFERENCE_BATCH):
        trains = network_spikes(network, frames.frames[start : start + _REFERENCE_BATCH])
        entering = [spikes.mean() for spikes in trains.inputs]
        fired = [share.mean() for share in trains.fired]
        leaving = [*entering[1:], trains.outputs.mean()]
        rates += np.array([entering, fired, leaving]) * len(trains.outputs)
        maps = [count + x.sum(axis=0) for count, x in zip(maps, trains.inputs, strict=True)]
        outputs.append(trains.outputs)
    input_rate, firing_rate, output_rate = rates / samples
    return Activity(
        accuracy=class_accuracy(np.concatenate(outputs), frames.labels, classes),
        input_rate=input_rate,
        firing_rate=firing_rate,
        output_rate=output_rate,
        counts=tuple(np.sum(count, axis=(2, 3)) / samples for count in maps),
        taps=tuple(
            _taps(layer, count) / samples for layer, count in zip(layers, maps, strict=True)
        ),
    )


def _taps(layer: Layer, spikes: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Kernel taps inside the frame of spikes (time_steps, channels, height, width), per channel."""
    rows, columns = (np.array(side, dtype=np.float64) for side in taps_inside(layer))
    taps: NDArray[np.float64] = (np.asarray(spikes, dtype=np.float64) @ columns) @ rows
    return taps


def _training_result(training: Training, warnings: list[str]) -> dict[str, Any]:
    return {
        "status": training.status,
        "accuracy_per_epoch": [epoch.accuracy for epoch in training.epochs],
        "firing_rate_per_epoch": [list(epoch.firing_rate) for epoch in training.epochs],
        "stopped_at_epoch": training.stopped_at_epoch,
        "warnings": warnings,
        "versions": {"data": DATA_VERSION, "train": TRAIN_VERSION, "quantise": QUANTISE_VERSION},
    }


def _layer_results(config: Config, activity: Activity) -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "input_rate": float(activity.input_rate[index]),
            "firing_rate": float(activity.firing_rate[index]),
            "output_rate": float(activity.output_rate[index]),
        }
        for index, layer in enumerate(config.layers)
    ]


def _diverged(config: Config, out: Path, result: dict[str, Any]) -> Run:
    """Give a run that has a status but nothing to simulate."""
    return Run(
        path=Path(out),
        config=config,
        network=IntegerNetwork(layers=()),
        inputs=(),
        outputs=np.zeros((0, config.input.time_steps, config.layers[-1].neurons), dtype=bool),
        labels=np.zeros(0, dtype=np.int64),
        result=result,
    )
