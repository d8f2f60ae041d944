"""A layer between a buffer that is late and one that is full, with one network after another."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from bench_cycles import Cycles, job

JOB = job()
ENCODE, ACCUMULATE, FIRE, STALL = range(4)


class Bench(Cycles):
    """The layer with a buffer that answers a cycle later."""

    def __init__(self, dut: Any, rng: random.Random) -> None:
        super().__init__(dut)
        self.rng = rng
        self.waiting: list[int] = []
        self.requested = False

    async def load(self, writes: list[list[int]]) -> None:
        """Write weights, biases and constants."""
        self.drive(cfg_we_i=1)
        for _, space, core, address, data in writes:
            self.drive(cfg_space_i=space, cfg_core_i=core, cfg_addr_i=address)
            self.drive(cfg_data_i=data & 0xFFFF_FFFF)
            await self.next()
        self.drive(cfg_we_i=0)

    async def cycle(self, *, valid: bool, free: bool) -> None:
        """Run one cycle up to its end, with words as they are asked for."""
        word = self.waiting.pop(0) if self.requested else self.rng.getrandbits(JOB["EncoderWidth"])
        self.drive(in_step_valid_i=valid, out_free_i=free, in_word_i=word)
        await self.settle()
        self.requested = bool(int(self.dut.in_next_o.value))

    async def step(self, words: list[int], *, begins: bool, ends: bool) -> tuple[int, list[int]]:
        """Run a step that is dispatched at once; return its cycles and lines."""
        dut, count, lines = self.dut, 0, []
        self.waiting = list(words)
        while True:
            await self.cycle(valid=True, free=count == 0 or self.rng.random() < 0.5)
            assert int(dut.start_o.value) == (begins and count == 0)
            count += 1
            if int(dut.out_line_valid_o.value):
                lines.append(int(dut.out_line_o.value))
            done = int(dut.step_done_o.value)
            assert int(dut.done_o.value) == (done and ends)
            await self.next()
            if done:
                assert not self.waiting
                return count, lines

    async def wait(self, late_input: int, late_room: int) -> int:
        """Let the input come late, and the room for the output; return the cycles waited."""
        longest = max(late_input, late_room)
        for cycle in range(longest):
            await self.cycle(valid=cycle >= late_input, free=cycle >= late_room)
            assert not int(self.dut.start_o.value)
            assert not int(self.dut.out_line_valid_o.value)
            await self.next()
        return longest

    async def inference(
        self, words: list[list[int]], lines: list[list[int]], buckets: list[list[int]], latest: int
    ) -> None:
        """Run the steps of an inference and hold all that they give against what is expected."""
        totals = [0] * 4
        for step, expected in enumerate(buckets):
            waited = await self.wait(self.rng.randint(0, latest), self.rng.randint(0, latest))
            begins, ends = step == 0, step == len(buckets) - 1
            count, packed = await self.step(words[step], begins=begins, ends=ends)
            assert packed == lines[step]
            assert count == sum(expected)
            totals = [total + cycles for total, cycles in zip(totals, expected, strict=True)]
            totals[STALL] += waited if step else 0
        counts = int(self.dut.bucket_cnt_o.value)
        assert [counts >> 32 * bucket & 0xFFFF_FFFF for bucket in range(4)] == totals


@cocotb.test()
@cocotb.parametrize(latest=[0, 12])
async def spikes_and_cycles_are_those_of_the_models(dut: Any, latest: int) -> None:
    """Inputs and room come up to `latest` cycles late; networks follow without a reset."""
    rng = random.Random(latest)
    bench = Bench(dut, rng)
    await bench.reset(
        cfg_we_i=0, cfg_space_i=0, cfg_core_i=0, cfg_addr_i=0, cfg_data_i=0, in_step_valid_i=0,
        in_word_i=0, out_free_i=0,
    )  # fmt: skip
    await bench.next()
    for network in JOB["networks"]:
        await bench.load(network["writes"])
        while not int(dut.idle_o.value):
            await bench.next()
        for words, lines, buckets in zip(
            network["words"], network["lines"], network["buckets"], strict=True
        ):
            await bench.inference(words, lines, buckets, latest)
        assert int(dut.idle_o.value)
        bench.drive(in_step_valid_i=0)
        await bench.next()
