"""The neural cores against the reference's integers: operations in any order, with gaps."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import reduce
from operator import and_, or_
from typing import Any

import cocotb
from bench_cycles import Cycles, job

from spikemeter.models.integer import decay_terms, quantised_decay

JOB = job()
CORES, NEURONS, WEIGHTS, PHASES = (JOB[name] for name in ("Cores", "Neurons", "Weights", "Phases"))
BANKS = JOB["Banks"]
LANE_WIDTH, NEURON_WIDTH = (max(1, (size - 1).bit_length()) for size in (BANKS, NEURONS))
LAPICQUE = bool(JOB["Lapicque"])
FRACTION_BITS = 16 if LAPICQUE else 8
LATENCY = 4 if LAPICQUE else 3
"""Cycles from a fire operation until its spikes leave."""
LIMIT = 2 ** (JOB["MembraneBits"] - 1)
LARGEST_CURRENT = 2 ** (JOB["CurrentBits"] - 1) - 1
LARGEST_WEIGHT = 2 ** (JOB["WeightBits"] - 1) - 1
ROUNDS, STEPS, OPERATIONS = 10, 4, 60


@dataclass
class Layer:
    """Constants of a round, and the weights and biases of each core; words of a weight per bank."""

    threshold: int
    gain: int
    decay: int
    reset_zero: bool
    weights: list[list[list[int]]]
    biases: list[list[int]]


@dataclass
class Core:
    """The equations of ``models/integer.py`` for the neurons of one bank of a core."""

    layer: Layer
    index: int
    currents: list[int] = field(default_factory=lambda: [0] * NEURONS)
    membranes: list[int] = field(default_factory=lambda: [0] * NEURONS)

    def fire(self, neuron: int, first_step: bool) -> bool:
        """Update a neuron and forget its current; return whether it fires."""
        layer = self.layer
        old = 0 if first_step else self.membranes[neuron]
        drive = (self.currents[neuron] << layer.gain) + layer.biases[self.index][neuron % PHASES]
        reset = old > layer.threshold
        if not reset or not layer.reset_zero:
            new = (old * layer.decay >> FRACTION_BITS) + drive - reset * layer.threshold
        else:
            new = 0 if LAPICQUE else drive
        self.membranes[neuron] = min(max(new, -LIMIT), LIMIT - 1)
        self.currents[neuron] = 0
        return self.membranes[neuron] > layer.threshold


def owned(core: int, neuron: int) -> bool:
    """Whether a core has the channel of a neuron."""
    return core < JOB["LastCores"] or neuron % PHASES != PHASES - 1


def random_layer(rng: random.Random, reset_zero: bool) -> Layer:
    """Draw constants under which neurons fire, rest and saturate."""
    gain = rng.choice([0, 1, 4, 15])
    reach = max(2, min(LIMIT - 1, (LARGEST_WEIGHT << gain) * rng.randint(1, 4)))

    def draw(largest: int, count: int) -> list[int]:
        return [rng.randint(-largest, largest) for _ in range(count)]

    decay = quantised_decay(rng.uniform(0.01, 1.0))
    if LAPICQUE:
        decay = rng.choice([-65536, 65536, rng.randint(-65536, 65536)])
    return Layer(
        threshold=rng.randint(1, reach - 1),
        gain=gain,
        decay=decay,
        reset_zero=reset_zero,
        weights=[[draw(LARGEST_WEIGHT, BANKS) for _ in range(WEIGHTS)] for _ in range(CORES)],
        biases=[draw(reach // 2, PHASES) for _ in range(CORES)],
    )


def decay_port(decay: int) -> int:
    """Decay as the layer is told it."""
    if LAPICQUE:
        return decay & 0x3FFFF
    terms = enumerate(decay_terms(decay))
    return sum((0b100000 | (sign < 0) << 4 | shift) << 6 * k for k, (sign, shift) in terms)


class Bench(Cycles):
    """The cores with one operation per cycle, and the spikes that are due."""

    def __init__(self, dut: Any, rng: random.Random) -> None:
        super().__init__(dut)
        self.rng = rng
        self.due: dict[int, int] = {}
        self.fired_at = [-LATENCY] * NEURONS

    async def operation(
        self,
        kind: str = "",
        neuron: int | None = None,
        reached: dict[int, tuple[int, int]] | None = None,
        weight: int | None = None,
    ) -> None:
        """Give one operation, or none, and check the spikes of this cycle.

        An accumulation reaches some banks: each at a neuron, and with a lane of the weights. What
        the others are told must not matter.
        """
        rng = self.rng
        if neuron is None:
            neuron = rng.randrange(NEURONS)
        told = [(neuron, rng.randrange(BANKS)) for _ in range(BANKS)]
        if reached is not None:
            told = [(rng.randrange(NEURONS), rng.randrange(BANKS)) for _ in range(BANKS)]
            told = [reached.get(bank, other) for bank, other in enumerate(told)]
        self.drive(
            op_clear_i=kind == "clear",
            op_accumulate_i=kind == "accumulate",
            op_fire_i=kind == "fire",
            op_neuron_i=sum(place << NEURON_WIDTH * b for b, (place, _) in enumerate(told)),
            op_lane_i=sum(lane << LANE_WIDTH * b for b, (_, lane) in enumerate(told)),
            op_reached_i=sum(1 << bank for bank in reached or ()),
            op_weight_i=rng.randrange(WEIGHTS) if weight is None else weight,
            op_phase_i=neuron % PHASES,
        )
        await self.settle()
        spikes = self.due.pop(self.count, None)
        assert int(self.dut.spk_valid_o.value) == (spikes is not None)
        assert spikes is None or int(self.dut.spk_o.value) == spikes
        await self.next()

    async def drained(self) -> None:
        """Wait until the last spikes have left."""
        for _ in range(LATENCY + 1):
            await self.operation()

    async def load(self, layer: Layer) -> None:
        """Write weights and biases, and set the constants."""
        for core in self.rng.sample(range(CORES), CORES):
            self.drive(cfg_core_i=core, cfg_weight_we_i=1)
            for address, word in enumerate(layer.weights[core]):
                for lane, weight in enumerate(word):
                    self.drive(cfg_weight_i=address, cfg_lane_i=lane, cfg_data_i=weight)
                    await self.operation()
            self.drive(cfg_weight_we_i=0, cfg_bias_we_i=1)
            for phase, bias in enumerate(layer.biases[core]):
                self.drive(cfg_phase_i=phase, cfg_data_i=bias)
                await self.operation()
            self.drive(cfg_bias_we_i=0)
        self.drive(
            threshold_i=layer.threshold,
            gain_i=layer.gain,
            decay_i=decay_port(layer.decay),
            reset_zero_i=layer.reset_zero,
        )


class Driver:
    """Chooses operations, and gives each to the cores and to their models."""

    def __init__(self, bench: Bench, layer: Layer, rng: random.Random) -> None:
        self.bench, self.rng = bench, rng
        self.cores = [[Core(layer, index) for _ in range(BANKS)] for index in range(CORES)]
        self.neurons = [0] * BANKS

    async def accumulate(self) -> None:
        """Add weights, as often to the same neurons as to others, unless a sum would wrap."""
        rng = self.rng
        self.neurons = [rng.choice([each, rng.randrange(NEURONS)]) for each in self.neurons]
        word, lanes = rng.randrange(WEIGHTS), rng.sample(range(BANKS), BANKS)
        reached: dict[int, tuple[int, int]] = {}
        for bank in rng.sample(range(BANKS), rng.randint(1, BANKS)):
            neuron, lane = self.neurons[bank], lanes[bank]
            sums = [
                banks[bank].currents[neuron] + banks[bank].layer.weights[core][word][lane]
                for core, banks in enumerate(self.cores)
            ]
            if max(map(abs, sums)) > LARGEST_CURRENT:
                continue
            reached[bank] = neuron, lane
            for banks, current in zip(self.cores, sums, strict=True):
                banks[bank].currents[neuron] = current
        await self.bench.operation("accumulate" if reached else "", None, reached, word)

    async def fire(self, neuron: int, first_step: bool) -> None:
        """Fire a neuron whose last update has been stored."""
        bench = self.bench
        while bench.count < bench.fired_at[neuron] + LATENCY:
            await bench.operation()
        bench.fired_at[neuron] = bench.count
        fired = [[bank.fire(neuron, first_step) for bank in banks] for banks in self.cores]
        bench.due[bench.count + LATENCY] = sum(
            1 << bank * CORES + core
            for core, banks in enumerate(fired)
            for bank, fires in enumerate(banks)
            if fires and owned(core, neuron)
        )
        self.neurons = [neuron] * BANKS
        await bench.operation("fire", neuron)

    async def step(self, first_step: bool, idle: float) -> None:
        """Run a step: accumulations first, then all neurons in any order, with more between."""
        rng, bench = self.rng, self.bench
        await bench.operation()
        bench.drive(op_first_step_i=first_step)
        for _ in range(OPERATIONS):
            await (bench.operation() if rng.random() < idle else self.accumulate())
        for neuron in rng.sample(range(NEURONS), NEURONS):
            while rng.random() < idle:
                await bench.operation()
            if rng.random() < 0.3:
                await self.accumulate()
            await self.fire(neuron, first_step)


@cocotb.test()
@cocotb.parametrize(reset_zero=[False, True], idle=[0.0, 0.4])
async def spikes_are_those_of_the_reference(dut: Any, reset_zero: bool, idle: float) -> None:
    rng = random.Random(f"{reset_zero} {idle}")
    bench = Bench(dut, rng)
    await bench.reset(
        cfg_weight_we_i=0, cfg_bias_we_i=0, cfg_core_i=0, cfg_weight_i=0, cfg_lane_i=0,
        cfg_phase_i=0, cfg_data_i=0, threshold_i=1, gain_i=0, decay_i=0, reset_zero_i=0,
        op_clear_i=0, op_accumulate_i=0, op_fire_i=0, op_first_step_i=1, op_neuron_i=0,
        op_reached_i=0, op_lane_i=0, op_weight_i=0, op_phase_i=0,
    )  # fmt: skip
    seen: set[int] = set()
    for _ in range(ROUNDS):
        layer = random_layer(rng, reset_zero)
        await bench.drained()
        await bench.load(layer)
        driver = Driver(bench, layer, rng)
        for neuron in range(NEURONS):
            await bench.operation("clear", neuron)
        for step in range(STEPS):
            await driver.step(step == 0, idle)
            seen |= set(bench.due.values())
    await bench.drained()
    assert not bench.due
    # Every core fires, and every core rests
    assert reduce(or_, seen) == 2 ** (CORES * BANKS) - 1
    assert reduce(and_, seen) == 0
