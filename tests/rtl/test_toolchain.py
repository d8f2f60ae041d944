"""The cache of compiled simulators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spikemeter.errors import SimulationError
from spikemeter.files import CACHE_VARIABLE
from spikemeter.rtl.toolchain import build_cached

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
