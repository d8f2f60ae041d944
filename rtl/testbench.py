"""cocotb side: loads a network, runs samples one by one and in a stream, reads everything back.

Runs inside the simulator. The job is a JSON file named by the environment; what was measured goes
into another one beside it. The bench only drives and reads: `simulate` judges.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, First, RisingEdge, Timer
from cocotb.utils import get_sim_time

from .runners import JOB_VARIABLE, RESULT_NAME

PERIOD_NS = 10


class Bench:
    """The engine with its host ports driven."""

    def __init__(self, dut: Any, job: dict[str, Any]) -> None:
        self.dut = dut
        self.job = job
        self.edge = FallingEdge(dut.clk_i)

    async def start(self) -> None:
        """Start the clock, reset, and load the network."""
        dut = self.dut
        dut.rst_ni.value = 0
        for port in ("go", "pipelined", "cfg_we", "in_valid", "out_ready", "peek_valid"):
            getattr(dut, f"{port}_i").value = 0
        await Timer(PERIOD_NS, unit="ns")
        Clock(dut.clk_i, PERIOD_NS, unit="ns", impl="gpi").start()
        await self.edge
        await self.edge
        dut.rst_ni.value = 1
        dut.pipelined_i.value = int(self.job["pipelined"])
        await self.edge
        await self._load_network()

    async def _load_network(self) -> None:
        dut = self.dut
        ports = [getattr(dut, f"cfg_{name}_i") for name in ("layer", "space", "core", "addr")]
        held: list[int | None] = [None] * len(ports)
        dut.cfg_we_i.value = 1
        for *address, data in self.job["writes"]:
            for index, (port, value) in enumerate(zip(ports, address, strict=True)):
                if held[index] != value:
                    port.value = held[index] = value
            dut.cfg_data_i.value = data & 0xFFFF_FFFF
            await self.edge
        dut.cfg_we_i.value = 0

    async def load(self, words: list[int]) -> None:
        """Write the input of one inference, one word per cycle while there is room."""
        dut = self.dut
        for word in words:
            if not int(dut.in_ready_o.value):
                dut.in_valid_i.value = 0
                await RisingEdge(dut.in_ready_o)
                await self.edge
            dut.in_word_i.value = word
            dut.in_valid_i.value = 1
            await self.edge
        dut.in_valid_i.value = 0

    async def done(self, limit_cycles: int) -> int:
        """Wait for the end of an inference; return its cycle.

        Raises
        ------
        TimeoutError
            If it takes longer than `limit_cycles`; its arguments are the limit and a mask of the
            layers that are busy.
        """
        dut = self.dut
        limit = Timer(limit_cycles * PERIOD_NS, unit="ns")
        if await First(RisingEdge(dut.done_o), limit) is limit:
            raise TimeoutError(limit_cycles, int(dut.busy_o.value))
        await self.edge
        await self.edge
        return int(dut.done_cycle_o.value)

    async def run_one(self, words: list[int], inference: int) -> dict[str, Any]:
        """Run one sample on an idle engine and read back its cycles and spikes."""
        dut = self.dut
        await self.load(words)
        dut.go_i.value = 1
        dut.out_ready_i.value = 0
        done = await self.done(self.job["limit_cycles"])
        dut.go_i.value = 0
        cycles = (done - int(dut.start_cycle_o.value)) % 2**32 + 1
        measured = {
            "cycles": cycles,
            "buckets": await self._buckets(),
            "words": await self.read_buffers(inference % 2),
        }
        dut.out_ready_i.value = 1
        for _ in range(self.job["time_steps"]):
            await self.edge
        dut.out_ready_i.value = 0
        return measured

    async def run_stream(self, samples: list[list[int]]) -> list[int]:
        """Run samples back to back; return the cycle in which each one is done."""
        dut = self.dut
        dut.go_i.value = 1
        dut.out_ready_i.value = 1

        async def feed() -> None:
            for words in samples:
                await self.load(words)

        feeder = cocotb.start_soon(feed())
        done = [await self.done(self.job["limit_cycles"]) for _ in samples]
        await feeder
        return done

    async def read_buffers(self, half: int) -> list[list[int]]:
        """Read every packed word of one half of every buffer."""
        return [
            await self._words(buffer, halves[half])
            for buffer, halves in enumerate(self.job["addresses"])
        ]

    async def _buckets(self) -> list[list[int]]:
        counts: list[list[int]] = []
        for layer in range(self.job["layers"]):
            self.dut.perf_layer_i.value = layer
            counts.append([])
            for bucket in range(4):
                self.dut.perf_bucket_i.value = bucket
                await self.edge
                counts[-1].append(int(self.dut.perf_cnt_o.value))
        return counts

    async def _words(self, buffer: int, addresses: list[list[int]]) -> list[int]:
        dut = self.dut
        dut.peek_valid_i.value = 1
        dut.peek_buffer_i.value = buffer
        words = []
        for line, sub in addresses:
            dut.peek_line_i.value = line
            dut.peek_sub_i.value = sub
            await self.edge
            words.append(int(dut.peek_word_o.value))
        dut.peek_valid_i.value = 0
        return words


@cocotb.test()  # type: ignore[untyped-decorator]  # cocotb gives it no type
async def run_job(dut: Any) -> None:
    """Run the job that the environment names."""
    path = Path(os.environ[JOB_VARIABLE])
    job = json.loads(path.read_text())
    bench = Bench(dut, job)
    await bench.start()
    began, first = time.perf_counter(), get_sim_time("ns")
    try:
        samples = [await bench.run_one(words, index) for index, words in enumerate(job["samples"])]
        done = await bench.run_stream([job["samples"][index] for index in job["stream"]])
        inferences = len(samples) + len(done)
        last_two = [await bench.read_buffers(number % 2) for number in range(inferences)[-2:]]
    except TimeoutError as error:
        path.with_name(RESULT_NAME).write_text(json.dumps({"unfinished": error.args}))
        return
    cycles = (get_sim_time("ns") - first) / PERIOD_NS
    result = {key: [sample[key] for sample in samples] for key in ("cycles", "buckets", "words")}
    result["done_cycles"] = done
    result["stream_words"] = last_two
    result["cycles_per_second"] = cycles / (time.perf_counter() - began)
    path.with_name(RESULT_NAME).write_text(json.dumps(result))
