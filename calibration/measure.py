"""One run of a campaign: trained, quantised, simulated, checked, and turned into a row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError, RunFolderError, TimingMismatchError
from ..predictor.machine import BUCKETS, Timing
from ..predictor.timing import spike_taps, timing_model
from .table import PACKAGES, SPREAD

if TYPE_CHECKING:
    from ..models import Run, SpikeTrains
    from ..rtl import Simulation

__all__ = ["measure", "simulate_run"]

_Floats = NDArray[np.float64]


def measure(
    config: Config, folder: Path, samples: int, *, simulated: int | None = None
) -> dict[str, Any]:
    """Train a configuration if its run folder is not there yet, measure it, and check it.

    Parameters
    ----------
    config : Config
        What to train.
    folder : Path
        Run folder.
    samples : int
        Test samples to measure, from the first on.
    simulated : int, optional
        How many of them run through the RTL; by default all. The cycles of the others are those
        of the timing model, which the simulated ones hold to account.

    Returns
    -------
    dict
        Status and measured columns of a row.

    Raises
    ------
    SpikemeterError
        If training or simulation fails, or RTL, reference and timing model disagree.
    """
    from ..models import load_run, network_spikes, train_run
    from ..rtl import check_spikes

    begin = time.perf_counter()
    try:
        run = load_run(folder)
    except RunFolderError:
        run = train_run(config, folder)
    if run.status == "diverged":
        return {"status": run.status, "reason": "a loss or gradient was not finite"}
    start = time.perf_counter()
    in_rtl = samples if simulated is None else simulated
    simulation, expected = simulate_run(run, in_rtl)
    seconds = time.perf_counter() - start - simulation.build_seconds
    check_spikes(simulation, expected, config.layers)
    spikes = expected if in_rtl == samples else network_spikes(run.network, _frames(run, samples))
    timing = timing_model(config).trace(spikes.inputs)
    difference = _largest_difference(simulation, timing)
    if difference:
        raise TimingMismatchError(
            f"RTL and timing model differ by {difference} cycles", difference_cycles=difference
        )
    return {
        "status": run.status,
        **_training_columns(run),
        **_spike_columns(config, spikes),
        **_cycle_columns(timing),
        **_data_columns(config),
        "initiation_interval_cycles": float(np.mean(timing.initiation_interval_cycles)),
        "samples": samples,
        "samples.rtl": in_rtl,
        "timing.difference_cycles": difference,
        "spikes_match": True,
        "seconds.simulate": seconds,
        "seconds.total": time.perf_counter() - begin,
        **_package_columns(),
    }


def simulate_run(
    run: Run,
    samples: int,
    *,
    runner: Literal["native", "cocotb"] = "native",
    waves: Path | None = None,
    waves_samples: int = 1,
) -> tuple[Simulation, SpikeTrains]:
    """Simulate the RTL of a run on its first recorded samples.

    Parameters
    ----------
    run : Run
        Trained.
    samples : int
        How many of its samples, from the first on.
    runner : {"native", "cocotb"}, optional
        What drives the RTL; see `spikemeter.rtl.simulate`.
    waves : Path, optional
        FST file to write, of the first `waves_samples` samples; see `spikemeter.rtl.simulate`.
    waves_samples : int, optional
        How many samples it shows.

    Returns
    -------
    Simulation
        Cycles and spikes of the RTL.
    SpikeTrains
        What the integer reference spikes, for `spikemeter.rtl.check_spikes`.

    Raises
    ------
    InputError
        If the run has fewer samples, its configuration names a machine without RTL, or `waves`
        cannot be written.
    RunFolderError
        If its recorded spikes are not those of its network.
    SpikemeterError
        If a tool is missing, or the simulation fails.
    """
    from ..models import network_spikes
    from ..rtl import simulate

    recorded = run.inputs[0]
    if not 1 <= samples <= len(recorded):
        rule = f"must be 1 to {len(recorded)}, the samples recorded in {str(run.path)!r}"
        raise InputError(f"samples: {rule}; got {samples}")
    frames = _frames(run, samples)
    expected = network_spikes(run.network, frames)
    _check_trace(run, expected)
    simulation = simulate(
        run.config, run.network, frames, runner=runner, waves=waves, waves_samples=waves_samples
    )
    return simulation, expected


def _check_trace(run: Run, expected: SpikeTrains) -> None:
    """Refuse recorded spikes that another network left: predictions from them would be wrong."""
    names = [*(f"inputs_{index}" for index in range(len(run.inputs))), "outputs"]
    computed = (*expected.inputs, expected.outputs)
    for name, recorded, spikes in zip(names, (*run.inputs, run.outputs), computed, strict=True):
        wrong = (recorded[: len(spikes)].reshape(spikes.shape) != spikes).reshape(len(spikes), -1)
        if wrong.any():
            raise RunFolderError(
                f"cannot use {str(run.path / 'trace.npz')!r}: {name} must be what network.npz "
                f"spikes, it differs in sample {int(wrong.any(axis=1).argmax())}; train again"
            )


def _largest_difference(simulation: Simulation, timing: Timing) -> int:
    """Cycles by which RTL and timing model differ at most, over layers and buckets."""
    count = len(simulation.cycles)
    pairs = [
        (simulation.cycles, timing.cycles[:count]),
        (simulation.layer_cycles, timing.layer_cycles[:count]),
        *((simulation.buckets[name], timing.buckets[name][:count]) for name in BUCKETS),
    ]
    return int(max(np.abs(measured - modelled).max() for measured, modelled in pairs))


def _training_columns(run: Run) -> dict[str, Any]:
    accuracy = run.result["accuracy"]
    return {
        "seconds.train": float(run.result["seconds"]),
        "epochs.firing_rate": run.result["firing_rate_per_epoch"],
        "epochs.accuracy": run.result["accuracy_per_epoch"],
        **{
            f"accuracy.{kind}.{split}": accuracy[kind][split]
            for kind in ("float", "integer")
            for split in ("validation", "test")
        },
    }


@cache
def _package_columns() -> dict[str, str]:
    return {f"package.{name}": version(name) for name in PACKAGES}


def _data_columns(config: Config) -> dict[str, Any]:
    """Say what entered the network while it was trained."""
    from ..datasets import input_statistics, load_splits

    train = load_splits(config).train
    return {
        "input.train_events": input_statistics(train).ravel().tolist(),
        "samples.train": len(train),
    }


def _frames(run: Run, samples: int) -> NDArray[np.bool_]:
    """First recorded samples, shape (samples, time_steps, channels, height, width)."""
    size = run.config.input
    shape = (samples, size.time_steps, size.channels, size.height, size.width)
    return np.asarray(run.inputs[0][:samples]).reshape(shape)


def _spike_columns(config: Config, spikes: SpikeTrains) -> dict[str, Any]:
    """Rates, counts and taps of every layer, means over the measured samples."""
    size = config.input
    events = (len(spikes.inputs[0]), size.time_steps, size.channels, -1)
    leaving = (*spikes.inputs[1:], spikes.outputs)
    counts = [train.reshape(*train.shape[:2], -1).sum(axis=2) for train in spikes.inputs]
    taps = [
        spike_taps(layer, train).sum(axis=2)
        for layer, train in zip(config.layers, spikes.inputs, strict=True)
    ]
    return {
        "layers.name": [layer.name for layer in config.layers],
        "layers.input_rate": [float(train.mean()) for train in spikes.inputs],
        "layers.firing_rate": [float(fired.mean()) for fired in spikes.fired],
        "layers.output_rate": [float(train.mean()) for train in leaving],
        "layers.taps": [
            float(tap.sum()) / max(int(count.sum()), 1)
            for tap, count in zip(taps, counts, strict=True)
        ],
        "layers.step_counts": [count.mean(axis=0).tolist() for count in counts],
        "layers.step_taps": [tap.mean(axis=0).tolist() for tap in taps],
        "input.events": spikes.inputs[0].reshape(events).sum(axis=3).mean(axis=0).ravel().tolist(),
    }


def _cycle_columns(timing: Timing) -> dict[str, Any]:
    """Spread over samples of all cycles, and of every layer's and bucket's."""
    columns: dict[str, Any] = {
        f"cycles.{name}": value for name, value in _spread(timing.cycles[:, None]).items()
    }
    columns = {name: value[0] for name, value in columns.items()}
    for what, values in {"cycles": timing.layer_cycles, **timing.buckets}.items():
        columns |= {f"layers.{what}.{name}": value for name, value in _spread(values).items()}
    return columns


def _spread(values: _Floats) -> Mapping[str, list[float | None]]:
    """Spread over samples, shape (samples, layers); the keys are those of `SPREAD`.

    One sample has no standard deviation.
    """
    many = len(values) > 1
    found = (
        values.mean(axis=0),
        values.std(axis=0, ddof=1) if many else np.full(values.shape[1], None),
        values.min(axis=0),
        np.median(values, axis=0),
        np.quantile(values, 0.95, axis=0),
        values.max(axis=0),
    )
    return {name: value.tolist() for name, value in zip(SPREAD, found, strict=True)}
