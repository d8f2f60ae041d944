"""Verilator's lint over the engine, with every kind of layer: ``python -m spikemeter.rtl.lint``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..config import Config, load_config
from ..models.integer import IntegerLayer, IntegerNetwork
from .generator import LINT_WAIVERS, SOURCES, top_source
from .toolchain import tool_environment, verilator_path

__all__ = ["main"]

_CASES = (
    # network, (channels, height, width, time steps), cores, encoder width
    ("16C3-MP2-32C3-MP2-10", (2, 16, 16, 8), (4, 8, 10), 32),
    ("7C5v-MP4-3C1-70", (3, 13, 17, 3), (5, 2, 33), 8),
    ("3C1-1", (1, 1, 5, 2), (1, 1), 128),
    ("1", (1, 1, 1, 1), (1,), 8),
)


def main() -> int:
    """Lint all cases; return 0 if there is not one warning."""
    environment = tool_environment()
    verilator = verilator_path(environment)
    status = 0
    for notation, (channels, height, width, steps), cores, encoder_width in _CASES:
        config = load_config(
            {
                "network": notation,
                "input": {
                    "channels": channels,
                    "height": height,
                    "width": width,
                    "time_steps": steps,
                    "statistics": [[0.0] * channels] * steps,
                },
                "hardware": {"neural_cores": cores, "encoder_width": encoder_width},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder) / "snn_top.sv"
            top.write_text(top_source(config, _silent_network(config)))
            options = ["--lint-only", "-Wall", "--assert", "--top-module", "snn_top"]
            result = subprocess.run(  # noqa: S603 - fixed command, no shell
                [verilator, *options, str(LINT_WAIVERS), *map(str, SOURCES), str(top)],
                env=environment,
            )
        print(f"{'clean' if result.returncode == 0 else 'NOT CLEAN'}: {notation}")
        status |= result.returncode
    return status


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
            )
            for layer in config.layers
        )
    )


if __name__ == "__main__":
    sys.exit(main())
