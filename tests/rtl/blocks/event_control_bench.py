"""The event control against its header: every operation, and the cycle that it falls in."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import cocotb
from bench_cycles import Cycles, job

JOB = job()
STEPS, PHASES, WIDTH = JOB["TimeSteps"], JOB["Phases"], JOB["EncoderWidth"]
CHANNELS, HEIGHT, BREADTH = JOB["InChannels"], JOB["InHeight"], JOB["InWidth"]
INPUTS = CHANNELS * HEIGHT * BREADTH
WORDS = -(-INPUTS // WIDTH)
BANKS = JOB["Banks"]
SIDE = 3 if BANKS == 9 else 1
"""Neurons are interleaved by their row and column, each modulo this."""
TILE_ROWS, TILE_COLS = -(-JOB["OutHeight"] // SIDE), -(-JOB["OutWidth"] // SIDE)
NEURONS = TILE_ROWS * TILE_COLS * PHASES
"""Addresses of a bank."""
DRAIN = JOB["FireLatency"] + 3 + JOB["WriteBackCycles"]
FIRST_SERVICE = 8
"""Cycle from the dispatch in which the first event of word 0 is in service."""
AFTER_SCAN = 3
"""Cycles from the last word until a step without events fires, the dispatch included."""
INFERENCES = 8


@dataclass(frozen=True)
class Operation:
    """What the cores are told in one cycle; the neuron, and lane, of every bank that it is for."""

    kind: str
    neurons: dict[int, int]
    phase: int
    weight: int | None = None
    lanes: dict[int, int] | None = None


@dataclass(frozen=True)
class Step:
    """What one step does in each cycle from its dispatch on.

    The operation register delays operations by a cycle: the one in service in cycle c stands at
    the cores in cycle c + 1.
    """

    operations: dict[int, Operation]
    buckets: list[str]


def in_all_banks(neuron: int) -> dict[int, int]:
    """One neuron of every bank, at the same address."""
    return dict.fromkeys(range(BANKS), neuron)


def service(flat: int) -> list[Operation]:
    """Operations of one event: owned channel by owned channel, tap by tap inside the frame.

    With nine banks those of a channel are one operation.
    """
    if JOB["Dense"]:
        return [Operation("accumulate", {0: p}, p, flat * PHASES + p) for p in range(PHASES)]
    pixel, channel = divmod(flat, CHANNELS)
    row, column = divmod(pixel, BREADTH)
    operations = []
    for phase in range(PHASES):
        neurons, lanes = {}, {}
        for ky in range(JOB["Kernel"]):
            for kx in range(JOB["Kernel"]):
                y, x = row + JOB["Padding"] - ky, column + JOB["Padding"] - kx
                if not (0 <= y < JOB["OutHeight"] and 0 <= x < JOB["OutWidth"]):
                    continue
                tap = ky * JOB["Kernel"] + kx
                neuron = (y // SIDE * TILE_COLS + x // SIDE) * PHASES + phase
                if BANKS == 9:
                    neurons[y % 3 * 3 + x % 3], lanes[y % 3 * 3 + x % 3] = neuron, tap
                else:
                    weight = (channel * JOB["Kernel"] ** 2 + tap) * PHASES + phase
                    operations.append(Operation("accumulate", {0: neuron}, phase, weight))
        if BANKS == 9:
            word = channel * PHASES + phase
            operations.append(Operation("accumulate", neurons, phase, word, lanes))
    return operations


def expected(words: list[int]) -> Step:
    """Lay out a step, cycle by cycle."""
    operations = {}
    buckets = Counter[int]()
    clock = 0
    for k, word in enumerate(words):
        for bit in range(WIDTH):
            if word >> bit & 1:
                clock = max(clock, FIRST_SERVICE + k)
                for operation in service(k * WIDTH + bit):
                    operations[clock + 1] = operation
                    buckets[clock] = 1
                    clock += 1
    fire = max(clock, WORDS + AFTER_SCAN)
    for neuron in range(NEURONS):
        fired = Operation("fire", in_all_banks(neuron), neuron % PHASES)
        operations[fire + neuron + 1] = fired
    names = ["accumulate" if buckets[cycle] else "encode" for cycle in range(1, fire)]
    return Step(operations, ["stall", *names, *["fire"] * (NEURONS + DRAIN)])


def by_bank(port: Any) -> list[int]:
    """Values of a port that has one for every bank."""
    width = len(port) // BANKS
    value = int(port.value)
    return [value >> bank * width & (1 << width) - 1 for bank in range(BANKS)]


def random_words(rng: random.Random) -> list[int]:
    """Draw the words of a step: empty, full, sparse, or with one event."""
    kind = rng.choice(["empty", "full", "half", "sparse", "one"])
    if kind == "one":
        spikes = 1 << rng.randrange(INPUTS)
    else:
        rate = {"empty": 0.0, "full": 1.0, "half": 0.5, "sparse": 0.08}[kind]
        spikes = sum(1 << index for index in range(INPUTS) if rng.random() < rate)
    return [spikes >> k * WIDTH & (1 << WIDTH) - 1 for k in range(WORDS)]


class Bench(Cycles):
    """The event control with a buffer that answers a cycle later, and the checks of a cycle."""

    def __init__(self, dut: Any, rng: random.Random) -> None:
        super().__init__(dut)
        self.rng = rng
        self.requested: int | None = None

    async def cycle(
        self,
        *,
        valid: bool,
        free: bool,
        operation: Operation | None = None,
        bucket: str | None = None,
        request: int | None = None,
        **flags: bool,
    ) -> None:
        """Run one cycle with these inputs, in which exactly these outputs are expected.

        `request` is the word that the block must ask for; it gets it a cycle later, and anything
        when it has asked for none.
        """
        dut, rng = self.dut, self.rng
        word = rng.getrandbits(WIDTH) if self.requested is None else self.requested
        self.drive(in_step_valid_i=valid, out_free_i=free, in_word_i=word)
        self.requested = request
        await self.settle()
        assert int(dut.in_next_o.value) == (request is not None)
        for name in ("clear", "accumulate", "fire"):
            active = operation is not None and operation.kind == name
            assert int(getattr(dut, f"op_{name}_o").value) == active, (name, operation)
        if operation:
            neurons, reached = by_bank(dut.op_neuron_o), by_bank(dut.op_reached_o)
            assert {bank: neurons[bank] for bank in operation.neurons} == operation.neurons
            if operation.kind == "accumulate":
                assert {bank for bank in range(BANKS) if reached[bank]} == set(operation.neurons)
        if operation and operation.lanes is not None:
            lanes = by_bank(dut.op_lane_o)
            assert {bank: lanes[bank] for bank in operation.lanes} == operation.lanes
        if operation and operation.kind != "clear":
            assert int(dut.op_phase_o.value) == operation.phase
        if operation and operation.weight is not None:
            assert int(dut.op_weight_o.value) == operation.weight
        for name in ("encode", "accumulate", "fire", "stall"):
            assert int(getattr(dut, f"perf_{name}_o").value) == (bucket == name), (name, bucket)
        for name in ("idle", "start", "flush", "step_done", "done"):
            assert int(getattr(dut, f"{name}_o").value) == flags.get(name, False), name
        if (first := flags.get("first_step")) is not None:
            assert int(dut.op_first_step_o.value) == first
        await self.next()

    async def cleared(self) -> None:
        """See all input currents cleared after the reset; nothing may start meanwhile."""
        for cycle in range(NEURONS + 1):
            operation = Operation("clear", in_all_banks(cycle - 1), 0) if cycle else None
            ready = cycle < NEURONS and self.rng.random() < 0.5
            await self.cycle(valid=ready, free=ready, operation=operation, idle=cycle == NEURONS)

    async def wait(self, step: int, late_input: int, late_room: int) -> None:
        """Let the input of a step come late, and the room for its output."""
        for cycle in range(max(late_input, late_room)):
            await self.cycle(
                valid=cycle >= late_input,
                free=cycle >= late_room,
                bucket="stall" if step else None,
                idle=step == 0,
            )

    async def step(self, step: int, words: list[int]) -> None:
        """See a step through, from its dispatch on; once it runs, room may come and go."""
        plan = expected(words)
        last = len(plan.buckets) - 1
        for cycle, bucket in enumerate(plan.buckets):
            request = words[cycle - 1] if 1 <= cycle <= WORDS else None
            await self.cycle(
                valid=True,
                free=cycle == 0 or self.rng.random() < 0.5,
                operation=plan.operations.get(cycle),
                bucket=bucket,
                request=request,
                idle=cycle == 0 and step == 0,
                start=cycle == 0 and step == 0,
                flush=cycle == last - 1,
                step_done=cycle == last,
                done=cycle == last and step == STEPS - 1,
                first_step=step == 0,
            )


@cocotb.test()
@cocotb.parametrize(latest=[0, 9])
async def operations_and_cycles_are_those_of_the_header(dut: Any, latest: int) -> None:
    """Inputs and room come up to `latest` cycles late."""
    rng = random.Random(latest)
    bench = Bench(dut, rng)
    await bench.reset(in_step_valid_i=1, in_word_i=1, out_free_i=1)
    for _ in range(rng.randint(0, 2 * NEURONS + WORDS)):
        await bench.next()
    # A reset in the middle of anything is as good as the first one
    await bench.reset(in_step_valid_i=0, in_word_i=0, out_free_i=0)
    await bench.cleared()
    for _ in range(INFERENCES):
        for step in range(STEPS):
            await bench.wait(step, rng.randint(0, latest), rng.randint(0, latest))
            await bench.step(step, random_words(rng))
