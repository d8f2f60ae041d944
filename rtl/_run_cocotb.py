"""A process of its own around cocotb's runner, which reads and writes the environment.

``python -m spikemeter.rtl._run_cocotb build DIR`` compiles ``DIR/snn_top.sv``;
``... test DIR JOB`` runs a job on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .generator import LINT_WAIVERS, SOURCES

BUILD_ARGS = ("--assert", "-Wall", "-O3", "--x-assign", "fast", "--x-initial", "fast")


def main(verb: str, build_dir: Path, job: Path | None = None) -> None:
    """Build a simulator, or run a job on it."""
    from cocotb_tools.runner import VerilatorControlFile, get_runner

    runner = get_runner("verilator")
    if job is None:
        runner.build(
            sources=[VerilatorControlFile(LINT_WAIVERS), *SOURCES, build_dir / "snn_top.sv"],
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
            test_dir=job.parent,
            results_xml=str(job.parent / "results.xml"),
        )


if __name__ == "__main__":
    main(sys.argv[1], *(Path(argument) for argument in sys.argv[2:]))
