"""The strip packer against pooling and packing in plain Python, under tiles with gaps."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from bench_cycles import Cycles, job

JOB = job()
CHANNELS, CORES, POOL, LINE = (JOB[name] for name in ("Channels", "Cores", "Pool", "LineWidth"))
HEIGHT, BREADTH, PIXELS = JOB["Height"], JOB["Width"], JOB["Pixels"]
PHASES = -(-CHANNELS // CORES)
TILE_ROWS, TILE_COLS = -(-HEIGHT // 3), -(-BREADTH // 3)
ROWS, COLUMNS = HEIGHT // POOL, BREADTH // POOL
STEPS = 8
AFTER_READ = 2
"""Cycles from the read of pixels until the line that they fill leaves."""

Frame = list[list[list[bool]]]
"""Spikes by row, column and channel; rows and columns of whole tiles."""


def random_frame(rng: random.Random) -> Frame:
    rate = rng.choice([0.0, 0.03, 0.2, 1.0])
    return [
        [[rng.random() < rate for _ in range(CHANNELS)] for _ in range(3 * TILE_COLS)]
        for _ in range(3 * TILE_ROWS)
    ]


def packed(frame: Frame, row: int, column: int) -> list[bool]:
    """Channels of a pooled pixel."""
    return [
        any(frame[row * POOL + y][column * POOL + x][c] for y in range(POOL) for x in range(POOL))
        for c in range(CHANNELS)
    ]


class Model:
    """Which line leaves in which cycle, if strips are read as soon as they are whole."""

    def __init__(self) -> None:
        self.due: dict[int, int] = {}
        self.free_at = 0
        self.bits: list[bool] = []

    def strip(self, frame: Frame, first: int, end: int, cycle: int) -> None:
        """Read pooled rows that are whole with the tile of this cycle."""
        pixels = [(row, column) for row in range(first, end) for column in range(COLUMNS)]
        self.free_at = max(self.free_at, cycle + 1)
        for at in range(0, len(pixels), PIXELS):
            for pixel in pixels[at : at + PIXELS]:
                self.bits += packed(frame, *pixel)
            if len(self.bits) >= LINE:
                self.due[self.free_at + AFTER_READ] = self.line()
            self.free_at += 1

    def flush(self, cycle: int) -> None:
        """Let the incomplete line leave, if there is one."""
        if self.bits:
            self.due[cycle + 1] = self.line()

    def line(self) -> int:
        """Take a line, first spike in the lowest bit."""
        taken, self.bits = self.bits[:LINE], self.bits[LINE:]
        return sum(1 << index for index, spike in enumerate(taken) if spike)


class Bench(Cycles):
    """The packer, and the lines that are due."""

    def __init__(self, dut: Any, rng: random.Random) -> None:
        super().__init__(dut)
        self.rng = rng
        self.model = Model()

    async def cycle(self, *, spikes: int | None = None, flush: bool = False) -> None:
        """Run one cycle in which the line leaves that is due, and no other."""
        noise = self.rng.getrandbits(9 * CORES)
        self.drive(
            spk_valid_i=spikes is not None,
            spk_i=noise if spikes is None else spikes,
            flush_i=flush,
        )
        await self.settle()
        due = self.model.due.pop(self.count, None)
        assert int(self.dut.line_valid_o.value) == (due is not None), self.count
        if due is not None:
            assert int(self.dut.line_o.value) == due
        await self.next()

    async def step(self, frame: Frame, idle: float) -> None:
        """Fire a frame tile by tile, phase by phase, and end the step when all is read."""
        rng, model, whole = self.rng, self.model, 0
        for tile_row in range(TILE_ROWS):
            for tile_col in range(TILE_COLS):
                for phase in range(PHASES):
                    while rng.random() < idle:
                        await self.cycle()
                    last = (tile_col, phase) == (TILE_COLS - 1, PHASES - 1)
                    ends = tile_row + 1 == TILE_ROWS or (tile_row + 1) % POOL == 0
                    if last and ends:
                        rows = min(ROWS, 3 * (tile_row // POOL + 1))
                        model.strip(frame, whole, rows, self.count)
                        whole = rows
                    await self.cycle(spikes=fired(frame, tile_row, tile_col, phase))
        # The last pixels are read, and packed in the cycle after
        while self.count <= model.free_at or rng.random() < idle:
            await self.cycle()
        model.flush(self.count)
        await self.cycle(flush=True)


def fired(frame: Frame, tile_row: int, tile_col: int, phase: int) -> int:
    """Spikes of a tile in a phase: of each neuron, row by row, those of all cores."""
    spikes = 0
    for bank in range(9):
        channels = frame[3 * tile_row + bank // 3][3 * tile_col + bank % 3]
        for core, fires in enumerate(channels[phase * CORES : (phase + 1) * CORES]):
            spikes |= int(fires) << bank * CORES + core
    return spikes


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.4])
async def lines_hold_the_pooled_spikes_in_order(dut: Any, idle: float) -> None:
    rng = random.Random(idle)
    bench = Bench(dut, rng)
    for dirty in (True, False):
        await bench.reset(spk_valid_i=0, spk_i=0, flush_i=0)
        for _ in range(rng.randrange(TILE_COLS * PHASES) if dirty else 0):
            bench.drive(spk_valid_i=1, spk_i=1)
            await bench.next()
    for _ in range(STEPS):
        await bench.step(random_frame(rng), idle)
    await bench.cycle()
    assert not bench.model.due
