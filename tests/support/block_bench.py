"""One block of the engine under cocotb: builds it, runs a bench on it, and shows what failed.

Building and simulating happen in a process of their own, as in ``rtl/_run_cocotb.py``, because
cocotb's runner reads and writes the environment:

    python block_bench.py build TOP PARAMETERS SOURCE...
    python block_bench.py run TOP FOLDER BENCH
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spikemeter.config import Config
from spikemeter.models.integer import IntegerNetwork
from spikemeter.rtl.accelerator import accelerator_files, accelerator_source
from spikemeter.rtl.generator import LINT_WAIVERS, RTL_FOLDER, source_files, top_source
from spikemeter.rtl.toolchain import build_cached, runtime_variables, tool_environment

RTL_VARIABLE = "SPIKEMETER_BENCH_RTL"
"""Environment variable that names another folder of RTL to test, a broken copy for instance."""
JOB_VARIABLE = "SPIKEMETER_BENCH_JOB"
"""Environment variable that names the file with what a bench is to do."""

_BUILD_ARGS = ("--assert", "-Wall")
_LOG_LINES = 40


def rtl_folder() -> Path:
    """Folder of the RTL under test."""
    return Path(os.environ.get(RTL_VARIABLE) or RTL_FOLDER)


def check_block(
    block: str, parameters: Mapping[str, int], bench: Path, job: Mapping[str, Any] | None = None
) -> None:
    """Run every cocotb test of a bench on one block; fail if one of them fails.

    Parameters
    ----------
    block : str
        Module of the RTL.
    parameters : mapping of str to int
        Its parameters; the bench finds them in its job.
    bench : Path
        Python file with the cocotb tests.
    job : mapping, optional
        What else the bench is told.
    """
    sources = _with_instances(block)
    values = json.dumps(dict(parameters))
    command = [sys.executable, __file__, "build", block, values, *map(str, sources)]
    _check(block, {}, sources, command, bench, {**parameters, **(job or {})})


def check_engine(
    config: Config, network: IntegerNetwork, bench: Path, job: Mapping[str, Any]
) -> None:
    """Run every cocotb test of a bench on the engine of a network; see `check_block`."""
    top = top_source(config, network, rtl_folder())
    sources = list(source_files(rtl_folder()))
    command = [sys.executable, __file__, "build", "snn_top", "{}", *map(str, sources), "snn_top.sv"]
    _check("snn_top", {"snn_top.sv": top}, sources, command, bench, job)


def check_accelerator(
    config: Config, network: IntegerNetwork, bench: Path, job: Mapping[str, Any]
) -> None:
    """Run every cocotb test of a bench on the engine behind its registers; see `check_block`."""
    generated = {
        "snn_top.sv": top_source(config, network, rtl_folder()),
        "snn_accelerator.sv": accelerator_source(config, network, rtl_folder()),
    }
    sources = list(accelerator_files(rtl_folder()))
    command = [sys.executable, __file__, "build", "snn_accelerator", "{}"]
    command += [*map(str, sources), *generated]
    _check("snn_accelerator", generated, sources, command, bench, job)


def _check(
    top: str,
    generated: dict[str, str],
    sources: list[Path],
    command: list[str],
    bench: Path,
    job: Mapping[str, Any],
) -> None:
    files = [rtl_folder() / LINT_WAIVERS.name, *sources, Path(__file__)]
    folder, _ = build_cached(generated, files, command, runtime_variables(below_cache=1))
    with tempfile.TemporaryDirectory(prefix="spikemeter-") as name:
        work = Path(name)
        path = work / "job.json"
        path.write_text(json.dumps(job))
        result = subprocess.run(
            [sys.executable, __file__, "run", top, str(folder), str(bench)],
            cwd=work,
            env=tool_environment() | {JOB_VARIABLE: str(path), "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if result.returncode:
        log = "\n".join(result.stdout.splitlines()[-_LOG_LINES:])
        pytest.fail(f"{bench.stem} on {top} with {dict(job)!s:.300}:\n{log}", pytrace=False)


def _with_instances(block: str) -> list[Path]:
    """Files of a block and of all that it instantiates."""
    folder = rtl_folder()
    found, waiting = [], [block]
    while waiting:
        path = folder / f"{waiting.pop()}.sv"
        if path in found:
            continue
        found.append(path)
        instances = re.findall(r"^\s*(\w+)\s+(?:#\(|u_\w+)", path.read_text(), re.MULTILINE)
        waiting += [name for name in instances if (folder / f"{name}.sv").exists()]
    return found


def main(verb: str, top: str, *arguments: str) -> int:
    """Build a simulator in the working directory, or run a bench there; return a status."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import VerilatorControlFile, get_runner

    runner = get_runner("verilator")
    here = Path.cwd()
    if verb == "build":
        parameters, *sources = arguments
        runner.build(
            sources=[VerilatorControlFile(rtl_folder() / LINT_WAIVERS.name), *sources],
            hdl_toplevel=top,
            parameters=json.loads(parameters),
            build_args=list(_BUILD_ARGS),
            build_dir=here,
        )
        return 0
    folder, bench = (Path(argument) for argument in arguments)
    sys.path.insert(0, str(bench.parent))
    results = runner.test(
        hdl_toplevel=top,
        hdl_toplevel_lang="verilog",
        test_module=bench.stem,
        build_dir=folder,
        test_dir=here,
        results_xml=str(here / "results.xml"),
        seed=0,
    )
    tests, failed = get_results(results)
    return int(failed > 0 or tests == 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
