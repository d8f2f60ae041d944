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
from ..datasets import DATA_VERSION, EventFrames, load_splits
from ..errors import ConfigError
from .export import export_network
from .folder import (
    QUANTISE_VERSION,
    TRACE_SAMPLES,
    TRAIN_VERSION,
    Run,
    load_run,
    new_run_folder,
    write_network_and_trace,
    write_result,
)
from .integer import IntegerNetwork, class_accuracy, network_spikes
from .training import evaluate, train

__all__ = ["Activity", "integer_activity", "train_run"]

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
    """

    accuracy: float
    input_rate: NDArray[np.float64]
    firing_rate: NDArray[np.float64]
    output_rate: NDArray[np.float64]


def train_run(
    config: Config,
    out: Path,
    *,
    on_epoch: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> Run:
    """Train, quantise and measure a configuration, and write the run folder.

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
    with new_run_folder(out) as folder:
        splits = load_splits(config)
        start = time.perf_counter()
        training = train(config, splits, on_epoch=on_epoch)
        result: dict[str, Any] = {
            "status": training.status,
            "accuracy_per_epoch": [epoch.accuracy for epoch in training.epochs],
            "firing_rate_per_epoch": [list(epoch.firing_rate) for epoch in training.epochs],
            "versions": {
                "data": DATA_VERSION,
                "train": TRAIN_VERSION,
                "quantise": QUANTISE_VERSION,
            },
        }
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
        result["seconds"] = time.perf_counter() - start
        write_result(folder, config, result)
    return load_run(out) if training.status != "diverged" else _diverged(config, out, result)


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
        Accuracy and spike rates over all samples.
    """
    samples = len(frames.labels)
    outputs = []
    rates = np.zeros((3, len(network.layers)))
    for start in range(0, samples, _REFERENCE_BATCH):
        trains = network_spikes(network, frames.frames[start : start + _REFERENCE_BATCH])
        entering = [spikes.mean() for spikes in trains.inputs]
        fired = [share.mean() for share in trains.fired]
        leaving = [*entering[1:], trains.outputs.mean()]
        rates += np.array([entering, fired, leaving]) * len(trains.outputs)
        outputs.append(trains.outputs)
    input_rate, firing_rate, output_rate = rates / samples
    return Activity(
        accuracy=class_accuracy(np.concatenate(outputs), frames.labels, classes),
        input_rate=input_rate,
        firing_rate=firing_rate,
        output_rate=output_rate,
    )


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
