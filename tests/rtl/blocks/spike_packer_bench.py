"""The spike packer against pooling and packing in plain Python, under spikes with gaps."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from bench_cycles import Cycles, job

JOB = job()
CHANNELS, CORES, POOL, LINE = (JOB[name] for name in ("Channels", "Cores", "Pool", "LineWidth"))
HEIGHT, BREADTH = JOB["Height"], JOB["Width"]
PHASES = -(-CHANNELS // CORES)
STEPS = 12

Frame = list[list[list[bool]]]
"""Spikes by row, column and channel."""


class Packer:
    """Which line is due after which spikes."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.bits: list[bool] = []

    def after(self, row: int, column: int, phase: int) -> int | None:
        """Take the spikes that all cores fire at once; return the line that they fill."""
        if (row + 1) % POOL or (column + 1) % POOL:
            return None
        for channel in range(phase * CORES, min((phase + 1) * CORES, CHANNELS)):
            square = [
                self.frame[row - y][column - x][channel] for y in range(POOL) for x in range(POOL)
            ]
            self.bits.append(any(square))
        return self.line() if len(self.bits) >= LINE else None

    def flushed(self) -> int | None:
        """Return the incomplete line, if there is one."""
        return self.line() if self.bits else None

    def line(self) -> int:
        """Take a line, first spike in the lowest bit."""
        taken, self.bits = self.bits[:LINE], self.bits[LINE:]
        return sum(1 << index for index, spike in enumerate(taken) if spike)


class Bench(Cycles):
    """The packer, and the line that is due in a cycle."""

    def __init__(self, dut: Any) -> None:
        super().__init__(dut)
        self.due: int | None = None

    async def cycle(
        self, *, valid: bool, spikes: int, flush: bool = False, due: int | None = None
    ) -> None:
        """Run one cycle; `due` is the line that must leave in the next one, and in no other."""
        self.drive(spk_valid_i=valid, spk_i=spikes, flush_i=flush)
        await self.settle()
        assert int(self.dut.line_valid_o.value) == (self.due is not None)
        if self.due is not None:
            assert int(self.dut.line_o.value) == self.due
        self.due = due
        await self.next()


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.5])
async def lines_hold_the_pooled_spikes_in_order(dut: Any, idle: float) -> None:
    rng = random.Random(idle)
    bench = Bench(dut)
    for dirty in (True, False):
        await bench.reset(spk_valid_i=0, spk_i=0, flush_i=0)
        for _ in range(rng.randrange(HEIGHT * BREADTH * PHASES) if dirty else 0):
            bench.drive(spk_valid_i=1, spk_i=1)
            await bench.next()
    for _ in range(STEPS):
        rate = rng.choice([0.0, 0.03, 0.2, 1.0])
        frame = [
            [[rng.random() < rate for _ in range(CHANNELS)] for _ in range(BREADTH)]
            for _ in range(HEIGHT)
        ]
        packer = Packer(frame)
        for row in range(HEIGHT):
            for column in range(BREADTH):
                for phase in range(PHASES):
                    while rng.random() < idle:
                        await bench.cycle(valid=False, spikes=rng.getrandbits(CORES))
                    fired = frame[row][column][phase * CORES : (phase + 1) * CORES]
                    spikes = sum(1 << core for core, fires in enumerate(fired) if fires)
                    due = packer.after(row, column, phase)
                    await bench.cycle(valid=True, spikes=spikes, due=due)
        while rng.random() < idle:
            await bench.cycle(valid=False, spikes=rng.getrandbits(CORES))
        await bench.cycle(
            valid=False, spikes=rng.getrandbits(CORES), flush=True, due=packer.flushed()
        )
    await bench.cycle(valid=False, spikes=0)
