"""Two ways to run a job on the same Verilated model: a C++ main, and cocotb.

cocotb verifies: it is built with every assertion and driven by a bench that people can read. The
native runner does the same in the same cycles without Python in the loop, for campaigns. A test
holds the two to identical cycles and spikes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SimulationError
from .generator import LINT_WAIVERS, RTL_FOLDER, source_files
from .packing import ConfigWrite
from .toolchain import (
    build_cached,
    log_excerpt,
    run_tool,
    runtime_variables,
    tool_environment,
    verilator_path,
)

__all__ = ["RUNNERS", "Build", "Job", "Measured", "UnfinishedError", "run_native"]

JOB_VARIABLE = "SPIKEMETER_JOB"
"""Environment variable that names the job of the cocotb bench."""
RESULT_NAME = "measured.json"
"""File beside the job that takes what the cocotb bench measured."""

_HERE = Path(__file__).parent
_NATIVE_MAIN = _HERE / "native_main.cpp"
_NATIVE_WAVES = _HERE / "native_waves.h"
_COCOTB_FILES = (_HERE / "_run_cocotb.py",)
_BUCKETS = 4
_WAVE_OPTIONS = ("--trace-vcd", "--trace-max-array", "32")
"""Of Verilator: every signal, but no memory of more words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How a simulator is built.

    Attributes
    ----------
    folder : Path
        Holds the modules (`source_files`) and waivers; the top module is given as text.
    checked : bool
        Of the native runner: assertions are compiled in, and registers that have no reset power
        up with anything. cocotb always compiles assertions in.
    coverage : Path, optional
        Folder in which every native run leaves a file of the lines and bits that it exercised.
    """

    folder: Path = RTL_FOLDER
    checked: bool = False
    coverage: Path | None = None


DEFAULT_BUILD = Build()
"""For speed, of the engine as it is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a bench drives: one network, samples one by one, then a stream of them.

    Attributes
    ----------
    layers, time_steps, encoder_width : int
        Sizes of the engine.
    pipelined : bool
        Whether the schedule is ``step_pipelined``.
    traced : bool
        Whether the native bench records what the first sample does in every cycle.
    recorded : int
        Samples, from the first on, of which the native bench writes waves; 0 unless it has a sink.
    limit_cycles : int
        Cycles after which an inference is given up.
    writes : list of ConfigWrite
        The network.
    samples : list of list of int
        Packed input words of each sample.
    stream : list of int
        Sample numbers that enter back to back.
    addresses : list of list of list of tuple
        For each buffer and half, line and word of every packed word.
    """

    layers: int
    time_steps: int
    encoder_width: int
    pipelined: bool
    traced: bool
    recorded: int
    limit_cycles: int
    writes: list[ConfigWrite]
    samples: list[list[int]]
    stream: list[int]
    addresses: list[list[list[tuple[int, int]]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What a bench read.

    Attributes
    ----------
    cycles : list of int
        Latency of each sample.
    buckets : list of list of list of int
        By sample, layer and bucket.
    words : list of list of list of int
        By sample and buffer, every packed word.
    done_cycles : list of int
        Cycle in which each inference of the stream was done.
    stream_words : list of list of list of int
        Every packed word of the last two inferences of the stream, by inference and buffer.
    cycles_per_second : float
        Simulated cycles per second, loading the network excluded.
    build_seconds : float
        Time to build the simulator; 0 if it was in the cache.
    simulator : str
        Name and version.
    trace : list of list of int
        Changes during the first sample: cycle, layer, bit mask of the bucket, and step; empty
        where it was not asked for.
    """

    cycles: list[int]
    buckets: list[list[list[int]]]
    words: list[list[list[int]]]
    done_cycles: list[int]
    stream_words: list[list[list[int]]]
    cycles_per_second: float
    build_seconds: float
    simulator: str
    trace: list[list[int]] = field(default_factory=list)


class UnfinishedError(Exception):
    """An inference exceeded its cycles.

    Attributes
    ----------
    limit_cycles : int
        The cycles that it had.
    busy : int
        Mask of the layers that were in an inference then.
    """

    def __init__(self, limit_cycles: int, busy: int) -> None:
        super().__init__(limit_cycles, busy)
        self.limit_cycles = limit_cycles
        self.busy = busy


def run_native(
    top: str,
    job: Job,
    build: Build = DEFAULT_BUILD,
    waves: Callable[[IO[bytes]], object] | None = None,
) -> Measured:
    """Run a job by the C++ main; a sink takes the waves of `recorded` samples meanwhile."""
    environment = tool_environment()
    waivers, *modules = sources = _verilog(build)
    command = [
        verilator_path(environment), "--cc", "--exe", "--build", "-Wall", *_native_options(build),
        *(_WAVE_OPTIONS if waves else ()),
        "--top-module", "snn_top", "--Mdir", "obj", "-o", "engine", "-CFLAGS", "-std=c++17",
        str(waivers), *map(str, modules), "snn_top.sv", str(_NATIVE_MAIN),
    ]  # fmt: skip
    folder, build_seconds = build_cached(
        {"snn_top.sv": top},
        (*sources, _NATIVE_MAIN, _NATIVE_WAVES),
        command,
        runtime_variables(below_cache=2),
    )
    limbs = -(-job.encoder_width // 32)
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as name:
        work = Path(name)
        job_path, result_path, log = work / "job.bin", work / "result.bin", work / "log"
        job_path.write_bytes(_job_words(job, limbs).tobytes())
        program = [str(folder / "obj" / "engine"), str(job_path), str(result_path)]
        if build.coverage is not None:
            build.coverage.mkdir(parents=True, exist_ok=True)
            program.append(str(build.coverage / f"{uuid.uuid4().hex}.dat"))
        run_tool(program, folder=work, environment=environment, log=log, sink=waves)
        result = np.fromfile(result_path, dtype="<u4")
    if len(result) == 1:
        raise UnfinishedError(job.limit_cycles, int(result[0]))
    return _native_measured(job, limbs, result, build_seconds)


def run_cocotb(top: str, job: Job, build: Build = DEFAULT_BUILD) -> Measured:
    """Run a job by the cocotb bench, with every assertion compiled in."""
    environment = tool_environment()
    command = [sys.executable, "-m", "spikemeter.rtl._run_cocotb"]
    folder, build_seconds = build_cached(
        {"snn_top.sv": top},
        (*_verilog(build), *_COCOTB_FILES),
        [*command, "build", ".", str(build.folder)],
        runtime_variables(below_cache=1),
    )
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as name:
        work = Path(name)
        path = work / "job.json"
        path.write_text(json.dumps({field: getattr(job, field) for field in Job.__slots__}))
        environment |= {JOB_VARIABLE: str(path)}
        program = [*command, "test", str(folder), str(path)]
        run_tool(program, folder=work, environment=environment, log=work / "log")
        result = work / RESULT_NAME
        if not result.exists():
            raise SimulationError(f"the simulator gave no result: {log_excerpt(work / 'log')}")
        measured: dict[str, Any] = json.loads(result.read_text())
    if "unfinished" in measured:
        raise UnfinishedError(*measured["unfinished"])
    simulator = f"cocotb {version('cocotb')} on Verilator {version('verilator')}"
    return Measured(**measured, build_seconds=build_seconds, simulator=simulator)


RUNNERS: dict[str, Callable[[str, Job, Build], Measured]] = {
    "native": run_native,
    "cocotb": run_cocotb,
}
"""Runners by name; each takes the source of ``snn_top``, a job and how to build."""


def _verilog(build: Build) -> tuple[Path, ...]:
    """Files that Verilator reads beside the top module, the waivers first."""
    return (build.folder / LINT_WAIVERS.name, *source_files(build.folder))


def _native_options(build: Build) -> list[str]:
    """Options of Verilator: for speed, or for finding what is wrong."""
    options = ["-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert"]
    optimise = "-O2"
    if build.checked:
        # Small networks are built more often than they run: little optimisation, in one file
        options = ["-O3", "--x-assign", "unique", "--x-initial", "unique", "--assert"]
        options += ["--output-split", "0", "-CFLAGS", "-DCHECKED"]
        optimise = "-O0"
    if build.coverage is not None:
        options += ["--coverage-line", "--coverage-toggle"]
    return [*options, "-MAKEFLAGS", f"OPT_FAST={optimise}"]


def _job_words(job: Job, limbs: int) -> NDArray[np.uint32]:
    """Lay a job out as ``rtl/native_main.cpp`` reads it."""
    head = [job.layers, job.time_steps, int(job.pipelined), int(job.traced), job.recorded, limbs]
    head += [job.limit_cycles & 0xFFFF_FFFF, job.limit_cycles >> 32, len(job.writes)]
    writes = np.array(job.writes, dtype=np.int64).ravel() & 0xFFFF_FFFF
    samples = [_limbs_of(words, limbs) for words in job.samples]
    reads: list[int] = []
    for halves in job.addresses:
        for half in halves:
            reads += [len(half), *(part for address in half for part in address)]
    parts = [
        np.array(head),
        writes,
        np.array([len(samples), len(samples[0])]),
        *samples,
        np.array([len(job.stream), *job.stream]),
        np.array(reads),
    ]
    return np.concatenate([part.astype("<u4") for part in parts])


def _limbs_of(words: list[int], limbs: int) -> NDArray[np.uint32]:
    raw = b"".join(word.to_bytes(4 * limbs, "little") for word in words)
    return np.frombuffer(raw, dtype="<u4")


def _native_measured(
    job: Job, limbs: int, result: NDArray[np.uint32], build_seconds: float
) -> Measured:
    counts = [len(halves[0]) * limbs for halves in job.addresses]
    sizes = [1, job.layers * _BUCKETS, *counts]
    ends = np.cumsum([len(job.samples) * sum(sizes), len(job.stream), 2 * sum(counts)])
    samples, stream, last_two, trace = np.split(result[4:], ends)
    cycles, buckets, words = [], [], []
    for sample in samples.reshape(len(job.samples), -1):
        parts = np.split(sample, np.cumsum(sizes)[:-1])
        cycles.append(int(parts[0][0]))
        buckets.append(parts[1].reshape(job.layers, _BUCKETS).tolist())
        words.append([_words_of(part, limbs) for part in parts[2:]])
    simulated, nanoseconds = (int(low) | int(high) << 32 for low, high in result[:4].reshape(2, 2))
    return Measured(
        cycles=cycles,
        buckets=buckets,
        words=words,
        done_cycles=stream.tolist(),
        stream_words=[
            [_words_of(part, limbs) for part in np.split(half, np.cumsum(counts)[:-1])]
            for half in last_two.reshape(2, -1)
        ],
        cycles_per_second=simulated / nanoseconds * 1e9,
        build_seconds=build_seconds,
        simulator=f"C++ on Verilator {version('verilator')}",
        trace=trace.reshape(-1, 4).tolist(),
    )


def _words_of(limbs_of_words: NDArray[np.uint32], limbs: int) -> list[int]:
    raw = limbs_of_words.tobytes()
    size = 4 * limbs
    return [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)]
