"""The simulator's side of a bench: one cycle at a time, and the job that it was given.

Inputs change on the falling edge; what a block answers in that cycle is read when all has settled,
before the rising edge that ends the cycle.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from block_bench import JOB_VARIABLE
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, Timer

PERIOD_NS = 10


def job() -> dict[str, Any]:
    """Parameters of the block, and what else its bench was told."""
    content: dict[str, Any] = json.loads(Path(os.environ[JOB_VARIABLE]).read_text())
    return content


class Cycles:
    """The clock and reset of a block.

    Attributes
    ----------
    count : int
        Cycles since the end of the reset.
    """

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.count = 0
        self._falling = FallingEdge(dut.clk_i)
        self._runs = False

    async def reset(self, **inputs: int) -> None:
        """Reset for two cycles with the inputs as given; the first time, start the clock too."""
        self.dut.rst_ni.value = 0
        self.drive(**inputs)
        if not self._runs:
            await Timer(PERIOD_NS, unit="ns")
            Clock(self.dut.clk_i, PERIOD_NS, unit="ns", impl="gpi").start()
            self._runs = True
        await self._falling
        await self._falling
        self.dut.rst_ni.value = 1
        self.count = 0

    def drive(self, **inputs: int) -> None:
        """Set inputs for this cycle and those after it."""
        for name, value in inputs.items():
            getattr(self.dut, name).value = value

    async def settle(self) -> None:
        """Wait until the outputs of this cycle have their values."""
        await ReadOnly()

    async def next(self) -> None:
        """Go on to the next cycle."""
        await self._falling
        self.count += 1
