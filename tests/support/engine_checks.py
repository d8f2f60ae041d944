"""One verdict on a network in RTL: spikes equal to the integer reference, cycles to the model."""

from __future__ import annotations

from dataclasses import astuple
from itertools import zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from random_networks import Case

from spikemeter.models.integer import SpikeTrains, network_spikes
from spikemeter.predictor.timeline import engine_timeline
from spikemeter.predictor.timing import BUCKETS, timing_model
from spikemeter.rtl import Simulation, check_spikes, simulate, simulated_spans
from spikemeter.rtl.runners import DEFAULT_BUILD, Build


class CycleMismatchError(AssertionError):
    """The RTL took other cycles than the timing model says."""


def check_case(
    case: Case,
    runner: Literal["native", "cocotb"] = "native",
    build: Build = DEFAULT_BUILD,
    expected: SpikeTrains | None = None,
) -> Simulation:
    """Hold a case in RTL against the integer reference and the timing model.

    Parameters
    ----------
    case : Case
        Network and spikes.
    runner : {"native", "cocotb"}
        What simulates.
    build : Build
        Sources and options of the simulator.
    expected : SpikeTrains, optional
        What the reference says of the case, if it is known already.

    Returns
    -------
    Simulation
        What the RTL did.

    Raises
    ------
    SpikeMismatchError
        If a spike differs, alone or in the stream.
    CycleMismatchError
        If latency, a layer, a bucket, the initiation interval or, with the native runner, any
        single cycle of the first sample differs.
    SimulationError
        If an assertion fails, or the RTL does not finish.
    """
    expected = expected or network_spikes(case.network, case.inputs)
    timing = timing_model(case.config).trace(expected.inputs)
    simulation = simulate(case.config, case.network, case.inputs, runner=runner, build=build)
    check_spikes(simulation, expected, case.config.layers)
    for bucket in BUCKETS:
        _check_equal(f"bucket {bucket}", simulation.buckets[bucket], timing.buckets[bucket], case)
    _check_equal("cycles", simulation.layer_cycles, timing.layer_cycles, case)
    _check_equal("latency", simulation.cycles, timing.cycles, case)
    interval = timing.initiation_interval_cycles.mean()
    if abs(simulation.initiation_interval_cycles - interval) > 1e-9 * interval:
        raise CycleMismatchError(
            f"initiation interval: {simulation.initiation_interval_cycles} cycles in RTL, "
            f"{interval} in the timing model"
        )
    if runner == "native":
        _check_timeline(case, expected, build)
    return simulation


def _check_timeline(case: Case, expected: SpikeTrains, build: Build) -> None:
    """Hold what every layer does in every cycle of the first sample against the model."""
    spans = simulated_spans(case.config, case.network, case.inputs[:1], build=build)
    slices = engine_timeline(case.config, [spikes[:1] for spikes in expected.inputs])
    for span, piece in zip_longest(spans, map(astuple, slices)):
        if span != piece:
            raise CycleMismatchError(
                f"timeline: {span} in RTL, {piece} in the timing model (layer, step, bucket, "
                "first cycle, cycles)"
            )


def _check_equal(name: str, rtl: NDArray[np.int64], model: NDArray[np.float64], case: Case) -> None:
    differs = np.argwhere(rtl != model)
    if len(differs):
        first = tuple(differs[0])
        where = f"sample {first[0]}"
        if len(first) > 1:
            where = f"layer {case.config.layers[first[1]].name}, {where}"
        raise CycleMismatchError(
            f"{name} of {where}: {rtl[first]} cycles in RTL, {model[first]:g} in the timing model "
            f"({len(differs)} differences)"
        )
