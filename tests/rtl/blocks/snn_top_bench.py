"""The engine between a host that offers late, takes late and changes its mind about going on.

The parts of the host are generators: each gives its inputs for a cycle, and gets what the engine
answered in that cycle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import cocotb
from bench_cycles import Cycles, job

JOB = job()
LAYERS, STEPS = JOB["layers"], JOB["time_steps"]
INPUTS, OUTPUTS = JOB["inputs"], JOB["outputs"]
SAMPLES, WORDS = len(INPUTS), len(INPUTS[0])
LONG = 2000
"""More cycles than the engine takes for one inference."""


@dataclass(frozen=True)
class Answer:
    """What the engine shows in one cycle."""

    in_ready: int
    out_valid: int
    peek_word: int
    busy: int
    done: int


Part = Generator[dict[str, int], Answer, None]


class Engine(Cycles):
    """The engine with the parts of a host, and what must hold in every cycle.

    Attributes
    ----------
    accepted, started, finished, taken : int
        Words that entered, inferences that layer 0 began and that the last layer ended, and steps
        that the host took.
    results : list of list of int
        Words of each result, in order.
    overlapped : bool
        Two layers were in an inference at once.
    """

    def __init__(self, dut: Any) -> None:
        super().__init__(dut)
        self.accepted = self.started = self.finished = self.taken = 0
        self.results: list[list[int]] = []
        self.overlapped = False
        self.parts: list[Part] = []
        self.answer = Answer(0, 0, 0, busy=2**LAYERS - 1, done=0)
        self.go = [0, 0, 0]

    async def begin(self, pipelined: bool, rng: random.Random) -> None:
        """Reset, work a little, reset in the middle of it, and load the network."""
        idle = {
            f"{port}_i": 0
            for port in (
                "go", "cfg_we", "in_valid", "in_word", "out_ready", "peek_valid", "peek_buffer",
                "peek_line", "peek_sub", "perf_layer", "perf_bucket",
            )
        }  # fmt: skip
        await self.reset(**idle, pipelined_i=pipelined)
        await self.next()
        await self._load()
        self.drive(go_i=1, in_valid_i=1, in_word_i=1)
        for _ in range(rng.randrange(6 * WORDS)):
            await self.next()
        await self.reset(**idle)
        self.drive(peek_buffer_i=LAYERS)

    async def _load(self) -> None:
        self.drive(cfg_we_i=1)
        for layer, space, core, address, data in JOB["writes"]:
            self.drive(cfg_layer_i=layer, cfg_space_i=space, cfg_core_i=core)
            self.drive(cfg_addr_i=address, cfg_data_i=data & 0xFFFF_FFFF)
            await self.next()
        self.drive(cfg_we_i=0)

    def start(self, *parts: Part) -> None:
        """Add parts of the host; they begin with the next cycle."""
        self.parts += parts
        for part in parts:
            self.drive(**next(part))

    async def run(self, until: Callable[[], bool], limit: int = 50 * LONG) -> None:
        """Run until something holds.

        Raises
        ------
        TimeoutError
            If it does not within `limit` cycles.
        """
        for _ in range(limit):
            if until():
                return
            await self.cycle()
        raise TimeoutError(f"accepted {self.accepted} words, finished {self.finished} inferences")

    def has(self, **counts: int) -> bool:
        """Whether these counts stand where they are said to."""
        return all(getattr(self, name) == count for name, count in counts.items())

    async def rest(self) -> None:
        """Run until nothing has gone on for long."""
        since, before = 0, (-1, -1, -1)

        def is_quiet() -> bool:
            nonlocal since, before
            now = (self.accepted, self.started, self.finished)
            if now != before:
                since, before = self.count, now
            return self.count - since == LONG

        await self.run(is_quiet)

    async def cycle(self) -> None:
        """Run one cycle, and count what happens in it."""
        dut = self.dut
        before = self.answer
        await self.settle()
        self.go = [*self.go[1:], int(dut.go_i.value)]
        self.answer = answer = Answer(
            *(
                int(getattr(dut, f"{name}_o").value)
                for name in ("in_ready", "out_valid", "peek_word", "busy", "done")
            )
        )
        if int(dut.in_valid_i.value) and answer.in_ready:
            self.accepted += 1
        resident = self.finished - self.taken // STEPS
        assert answer.out_valid == (resident > 0)
        if resident == 2:
            assert not answer.busy >> LAYERS - 1, "a third result while two are resident"
        # Layer 0 is dispatched in the cycle before it is busy, by go_i of the cycle before that
        if answer.busy & ~before.busy & 1:
            assert self.go[0], "an inference started without go_i"
            assert self.started or answer.busy == 1, "a layer was still clearing its currents"
            self.started += 1
        self.overlapped |= self.started > 0 and answer.busy.bit_count() > 1
        if int(dut.out_ready_i.value) and answer.out_valid:
            self.taken += 1
        self.finished += answer.done
        await self.next()
        for part in list(self.parts):
            try:
                self.drive(**part.send(answer))
            except StopIteration:
                self.parts.remove(part)


def feed(rng: random.Random, hesitation: float) -> Part:
    """Offer all inputs, word by word; an offer holds until it is taken."""
    for word in (word for words in INPUTS for word in words):
        while rng.random() < hesitation:
            yield {"in_valid_i": 0, "in_word_i": rng.getrandbits(8)}
        answer = yield {"in_valid_i": 1, "in_word_i": word}
        while not answer.in_ready:
            answer = yield {}
    yield {"in_valid_i": 0}


def look(half: int, words: list[int]) -> Part:
    """Read the result in one half of the output, word by word."""
    for line, sub in JOB["addresses"][half]:
        yield {"peek_valid_i": 1, "peek_line_i": line, "peek_sub_i": sub}
        answer = yield {"peek_valid_i": 0}
        words.append(answer.peek_word)


def take(engine: Engine, rng: random.Random, hesitation: float) -> Part:
    """Read each result as it is offered, then take its steps."""
    while True:
        answer = yield {"out_ready_i": 0}
        if answer.out_valid:
            words: list[int] = []
            yield from look(len(engine.results) % 2, words)
            engine.results.append(words)
            for _ in range(STEPS):
                while rng.random() < hesitation:
                    yield {"out_ready_i": 0}
                yield {"out_ready_i": 1}


def change_mind(rng: random.Random) -> Part:
    """Raise and lower ``go_i``, for a cycle or for long."""
    while True:
        for value in (0, 1):
            for _ in range(rng.choice([1, 2, 30, 300])):
                yield {"go_i": value}


async def looked(engine: Engine, half: int) -> list[int]:
    """Read the result in one half of the output."""
    words: list[int] = []
    engine.start(look(half, words))
    await engine.run(lambda: len(words) == len(JOB["addresses"][half]))
    return words


@cocotb.test()
@cocotb.parametrize(
    pipelined=[False, True],
    pace=[(0.0, 0.0, False), (0.0, 0.0, True), (0.97, 0.0, False), (0.0, 0.995, True)],
)
async def hesitation_changes_no_result(
    dut: Any, pipelined: bool, pace: tuple[float, float, bool]
) -> None:
    rng = random.Random(f"{pipelined} {pace}")
    late_input, late_taking, unsteady = pace
    engine = Engine(dut)
    await engine.begin(pipelined, rng)
    engine.drive(go_i=1)
    engine.start(feed(rng, late_input), take(engine, rng, late_taking))
    if unsteady:
        engine.start(change_mind(rng))
    await engine.run(lambda: engine.taken == SAMPLES * STEPS)
    assert engine.results == OUTPUTS
    await engine.rest()
    assert engine.finished == engine.started == SAMPLES


@cocotb.test()
@cocotb.parametrize(pipelined=[False, True])
async def without_go_the_inference_under_way_finishes_and_none_starts(
    dut: Any, pipelined: bool
) -> None:
    rng = random.Random(pipelined)
    engine = Engine(dut)
    await engine.begin(pipelined, rng)
    engine.drive(out_ready_i=1)
    engine.start(feed(rng, 0.0))
    for number in range(SAMPLES):
        for _ in range(LONG // 10):
            await engine.cycle()
        assert engine.started == engine.finished == number
        assert engine.accepted == min(number + 2, SAMPLES) * WORDS
        assert not engine.answer.busy
        engine.drive(go_i=1)
        await engine.run(partial(engine.has, started=number + 1))
        for _ in range(rng.randrange(WORDS + 6)):
            await engine.cycle()
        engine.drive(go_i=0)
        await engine.run(partial(engine.has, finished=number + 1))
        # The words stay where they are until the inference after the next one
        assert await looked(engine, number % 2) == OUTPUTS[number]
    assert engine.overlapped == (pipelined and STEPS > 1)


@cocotb.test()
@cocotb.parametrize(pipelined=[False, True])
async def a_host_that_takes_nothing_stalls_the_engine_and_loses_nothing(
    dut: Any, pipelined: bool
) -> None:
    rng = random.Random(pipelined)
    engine = Engine(dut)
    await engine.begin(pipelined, rng)
    engine.drive(go_i=1)
    engine.start(feed(rng, 0.0))
    for taken in (0, 1):
        await engine.rest()
        # Every buffer is full: two inferences in each, of which two are results
        assert engine.finished == 2 + taken
        assert engine.accepted == (2 * (LAYERS + 1) + taken) * WORDS
        assert not engine.answer.in_ready
        assert not engine.answer.busy
        for number in (taken, taken + 1):
            assert await looked(engine, number % 2) == OUTPUTS[number]
        if not taken:
            engine.drive(out_ready_i=1)
            for _ in range(STEPS):
                await engine.cycle()
            engine.drive(out_ready_i=0)
            engine.results.append(OUTPUTS[0])
    engine.start(take(engine, rng, 0.5))
    await engine.run(lambda: len(engine.results) == SAMPLES)
    assert engine.results == OUTPUTS
