"""The cache of compiled simulators."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from spikemeter.errors import SimulationError
from spikemeter.files import CACHE_VARIABLE
from spikemeter.rtl.toolchain import build_cached, run_tool

pytestmark = pytest.mark.rtl

# Slow enough that the second process comes while the first one builds
SLOW_BUILD = "import time; open('{log}', 'a').write('built\\n'); time.sleep(1)"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_two_processes_that_need_the_same_simulator_build_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW_BUILD.format(log=tmp_path / "log")]
    program = f"""
from spikemeter.rtl.toolchain import build_cached
folder, seconds = build_cached({{"top.sv": "module top; endmodule"}}, (), {command!r})
print(folder, (folder / "complete").exists(), seconds > 0)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0][0] == said[1][0]
    assert [words[1] for words in said] == ["True", "True"]
    assert sorted(words[2] for words in said) == ["False", "True"]
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_build_that_failed_is_tried_again(tmp_path: Path) -> None:
    program = "import pathlib, sys; print('no tea'); sys.exit(not pathlib.Path('{}').exists())"
    command = [sys.executable, "-c", program.format(tmp_path / "kettle")]
    with pytest.raises(SimulationError, match="failed with status 1: no tea"):
        build_cached({}, (), command)
    (tmp_path / "kettle").touch()
    folder, seconds = build_cached({}, (), command)
    assert (folder / "complete").exists()
    assert seconds > 0


def test_what_only_the_compiler_needs_is_removed() -> None:
    program = "import pathlib; [pathlib.Path(name).touch() for name in ('a.o', 'engine')]"
    folder, _ = build_cached({}, (), [sys.executable, "-c", program])
    assert {path.name for path in folder.iterdir()} == {"engine", "build.log", "complete"}


STREAM = """
import os, sys, time
open("pid", "w").write(str(os.getpid()))
with open(int(sys.argv[1]), "wb", closefd=False) as stream:
    stream.write(b"first")
    stream.flush()
    {then}
"""


def run_stream(folder: Path, then: str, sink: Callable[[IO[bytes]], object]) -> None:
    command = [sys.executable, "-c", STREAM.format(then=then)]
    run_tool(command, folder=folder, environment={}, log=folder / "log", sink=sink)


def test_a_sink_takes_what_a_program_writes_while_it_runs(tmp_path: Path) -> None:
    found = []

    def sink(stream: IO[bytes]) -> None:
        found.append(stream.read(5))
        (tmp_path / "go").touch()  # the program waits for it
        found.append(stream.read())

    waiting = "while not os.path.exists('go'): time.sleep(0.01)\n    stream.write(b'second')"
    run_stream(tmp_path, waiting, sink)
    assert found == [b"first", b"second"]


def test_a_program_that_fails_is_quoted_although_its_sink_was_content(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"failed with status 3: it broke"):
        run_stream(tmp_path, "print('it broke', flush=True); os._exit(3)", lambda end: end.read())


def test_an_interrupted_sink_ends_its_program(tmp_path: Path) -> None:
    def sink(stream: IO[bytes]) -> None:
        stream.read(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stream(tmp_path, "time.sleep(600)", sink)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
