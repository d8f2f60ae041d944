"""cocotb side of step.py: runs one step of a layer and writes down its signals, cycle by cycle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cocotb
from bench_cycles import Cycles, job

JOB = job()


@cocotb.test()
async def record(dut: Any) -> None:
    """Load a network, wait until the layer is idle, and watch one step."""
    bench = Cycles(dut)
    await bench.reset(
        cfg_we_i=0, cfg_space_i=0, cfg_core_i=0, cfg_addr_i=0, cfg_data_i=0, in_step_valid_i=0,
        in_word_i=0, out_free_i=1,
    )  # fmt: skip
    await bench.next()
    bench.drive(cfg_we_i=1)
    for _, space, core, address, data in JOB["writes"]:
        bench.drive(cfg_space_i=space, cfg_core_i=core, cfg_addr_i=address)
        bench.drive(cfg_data_i=data & 0xFFFF_FFFF)
        await bench.next()
    bench.drive(cfg_we_i=0)
    while not int(dut.idle_o.value):
        await bench.next()
    words, asked, done, cycles = list(JOB["words"]), False, False, []
    while not done:
        bench.drive(in_step_valid_i=1, in_word_i=words.pop(0) if asked else 0)
        await bench.settle()
        asked, done = bool(int(dut.in_next_o.value)), bool(int(dut.step_done_o.value))
        cycles.append([int(_signal(dut, path).value) for path in JOB["signals"]])
        await bench.next()
    Path(JOB["out"]).write_text(json.dumps(cycles))


def _signal(dut: Any, path: str) -> Any:
    for name in path.split("."):
        dut = getattr(dut, name)
    return dut
