"""The spike buffer against a queue of steps, with a producer and a consumer that hesitate."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from bench_cycles import Cycles, job

JOB = job()
STEPS, WORDS = JOB["TimeSteps"], JOB["Words"]
WIDTH, LINE_WORDS = JOB["EncoderWidth"], JOB["LineWords"]
LINES = -(-WORDS // LINE_WORDS)
CYCLES = 1500


class Queue:
    """Steps that were written and not yet released, and the lines of both halves."""

    def __init__(self, pipelined: bool) -> None:
        self.pipelined = pipelined
        self.written = self.released = 0
        self.lines: list[list[list[int]]] = []

    def has_room(self) -> bool:
        """Fewer than two inferences are whole and not released."""
        return self.written // STEPS - self.released // STEPS < 2

    def is_resident(self) -> bool:
        """The next step may be read."""
        whole = self.written // STEPS * STEPS
        return (self.written if self.pipelined else whole) > self.released

    def words(self, step: int) -> list[int]:
        """Words of a step, counted from the reset; those beyond a step fill its last line."""
        return [word for line in self.lines[step] for word in line][:WORDS]

    def peeked(self, address: int, sub: int) -> int | None:
        """Word that the halves hold at an address, or None if nothing was written whole there."""
        place, line = divmod(address, LINES)
        steps = [step for step in range(self.written) if step % (2 * STEPS) == place]
        return self.lines[steps[-1]][line][sub] if steps else None


class Producer:
    """Offers lines with gaps, and ends a step with its last line or later."""

    def __init__(self, queue: Queue, rng: random.Random, eagerness: float) -> None:
        self.queue, self.rng, self.eagerness = queue, rng, eagerness
        self.offered: list[list[int]] = []

    def drive(self, bench: Cycles) -> bool:
        """Choose what to offer in this cycle; return whether it ends a step."""
        willing = self.rng.random() < self.eagerness
        valid = willing and len(self.offered) < LINES and self.queue.has_room()
        line = [self.rng.getrandbits(WIDTH) for _ in range(LINE_WORDS)]
        if valid:
            self.offered.append(line)
        done = len(self.offered) == LINES and self.rng.random() < self.eagerness
        packed = sum(word << index * WIDTH for index, word in enumerate(line))
        bench.drive(wr_valid_i=valid, wr_line_i=packed, wr_step_done_i=done)
        return done

    def end_step(self) -> None:
        """Let the queue have the step that has ended."""
        self.queue.lines.append(self.offered)
        self.queue.written += 1
        self.offered = []


class Consumer:
    """Reads the words of a step with gaps, looks elsewhere between them, then releases it."""

    def __init__(self, queue: Queue, rng: random.Random, eagerness: float) -> None:
        self.queue, self.rng, self.eagerness = queue, rng, eagerness
        self.taken = 0

    def drive(self, bench: Cycles) -> tuple[bool, int | None]:
        """Choose what to do; return whether it releases a step, and the word due a cycle later."""
        due = None
        resident, willing = self.queue.is_resident(), self.rng.random() < self.eagerness
        take = resident and willing and self.taken < WORDS
        done = not take and willing and self.taken == WORDS
        if take:
            due = self.queue.words(self.queue.released)[self.taken]
            self.taken += 1
        if done:
            self.taken = 0
        address, sub = self.rng.randrange(2 * STEPS * LINES), self.rng.randrange(LINE_WORDS)
        being_written = address // LINES == self.queue.written % (2 * STEPS)
        peek = not take and not being_written and self.rng.random() < 0.5
        if peek:
            due = self.queue.peeked(address, sub)
        bench.drive(rd_next_i=take, rd_step_done_i=done)
        bench.drive(peek_valid_i=peek, peek_line_i=address, peek_sub_i=sub)
        return done, due


async def reset(dut: Any, pipelined: bool) -> Cycles:
    bench = Cycles(dut)
    await bench.reset(
        pipelined_i=pipelined, wr_valid_i=0, wr_line_i=0, wr_step_done_i=0, rd_next_i=0,
        rd_step_done_i=0, peek_valid_i=0, peek_line_i=0, peek_sub_i=0,
    )  # fmt: skip
    return bench


@cocotb.test()
@cocotb.parametrize(
    pipelined=[False, True], pace=[(1.0, 1.0), (0.5, 0.5), (0.9, 0.15), (0.15, 0.9)]
)
async def words_come_out_in_order_and_no_sooner_than_they_may(
    dut: Any, pipelined: bool, pace: tuple[float, float]
) -> None:
    bench = await reset(dut, pipelined)
    queue, rng = Queue(pipelined), random.Random(f"{pipelined} {pace}")
    producer, consumer = Producer(queue, rng, pace[0]), Consumer(queue, rng, pace[1])
    due = None
    blocked = 0
    for _ in range(CYCLES):
        ended = producer.drive(bench)
        released, next_due = consumer.drive(bench)
        await bench.settle()
        assert int(dut.wr_free_o.value) == queue.has_room()
        assert int(dut.rd_step_valid_o.value) == queue.is_resident()
        if due is not None:
            assert int(dut.rd_word_o.value) == due
        blocked += not queue.has_room()
        due = next_due
        await bench.next()
        queue.released += released
        if ended:
            producer.end_step()
    assert queue.released > 4 * STEPS
    assert blocked or pace[0] <= pace[1]


@cocotb.test()
@cocotb.parametrize(pipelined=[False, True])
async def a_host_that_only_peeks_finds_both_halves(dut: Any, pipelined: bool) -> None:
    """The host reads the output of the network by address, and releases steps unread."""
    bench = await reset(dut, pipelined)
    queue, rng = Queue(pipelined), random.Random(0)
    producer = Producer(queue, rng, 0.7)
    for _ in range(3):
        while queue.has_room():
            ended = producer.drive(bench)
            await bench.next()
            if ended:
                producer.end_step()
        bench.drive(wr_valid_i=0, wr_step_done_i=0)
        for address in range(2 * STEPS * LINES):
            for sub in range(LINE_WORDS):
                bench.drive(peek_valid_i=1, peek_line_i=address, peek_sub_i=sub)
                await bench.next()
                assert int(dut.rd_word_o.value) == queue.peeked(address, sub)
        bench.drive(peek_valid_i=0)
        for _ in range(STEPS * rng.choice([1, 2])):
            assert int(dut.rd_step_valid_o.value)
            bench.drive(rd_step_done_i=1)
            await bench.next()
            queue.released += 1
            bench.drive(rd_step_done_i=0)
            await bench.next()
