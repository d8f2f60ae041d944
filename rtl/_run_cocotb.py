"""A process of its own around cocotb's runner, which reads and writes the environment.

``python -m spikemeter.rtl._run_cocotb build DIR RTL`` compiles ``DIR/snn_top.sv`` with the modules
in ``RTL``; ``... test DIR JOB`` runs a job on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .generator import LINT_WAIVERS, source_files

BUILD_ARGS = ("--assert", "-Wall", "-O3", "--x-assign", "fast", "--x-initial", "fast")


def main(verb: str, build_dir: Path, given: Path) -> None:
    """Build a simulator of the modules in a folder, or run a job on it."""
    from cocotb_tools.runner import VerilatorControlFile, get_runner

    runner = get_runner("verilator")
    if verb == "build":
        waivers, modules = given / LINT_WAIVERS.name, source_files(given)
        runner.build(
            sources=[VerilatorControlFile(waivers), *modules, build_dir / "snn_top.sv"],
            hdl_toplevel="snn_top",
            build_args=list(BUILD_ARGS),
            build_dir=build_dir,
        )
    else:
        runner.test(
            hdl_toplevel="snn_top",
            hdl_toplevel_lang="verilog",
            test_module="spikemeter.rtl.testbench",
            build_dir=build_dir,
            test_dir=given.parent,
            results_xml=str(given.parent / "results.xml"),
        )


if __name__ == "__main__":
    main(sys.argv[1], *(Path(argument) for argument in sys.argv[2:]))
