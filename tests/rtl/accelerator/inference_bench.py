"""Inferences through registers and streams, at any pace of the host, right to the bit and cycle."""

from __future__ import annotations

from functools import partial
from typing import Any

import cocotb
import pytest
from accelerator_host import (
    CONFIG,
    CYCLES,
    INPUTS,
    INTERVALS,
    JOB,
    LONGEST,
    NETWORK,
    PIPELINED,
    SAMPLES,
    SIZES,
    WORDS,
    Host,
)
from axi_host import Pace

from spikemeter.config import load_config
from spikemeter.errors import EngineError
from spikemeter.rtl.driver import EngineDriver
from spikemeter.rtl.registers import (
    FIELDS,
    ControlBit,
    InterruptEnableBit,
    InterruptStatusBit,
    ModeBit,
    RegisterAddress,
    pack_fields,
)


@cocotb.test()
@cocotb.parametrize(
    pace=[Pace(), Pace(source=0.6, sink=0.6), Pace(bus=0.5, source=0.05, sink=0.95)]
)
async def inferences_through_the_registers_are_right_to_the_bit_and_cycle(
    dut: Any, pace: Pace
) -> None:
    host = await Host(dut, pace, pace).configured()
    await host.infers(*range(SAMPLES))
    assert await host.read(RegisterAddress.INFERENCES) == SAMPLES


@cocotb.test()
async def the_registers_tell_what_the_engine_is(dut: Any) -> None:
    host = Host(dut)
    await host.begin()
    assert await host.driver.sizes() == SIZES
    for register, fields in FIELDS.items():
        known = {"network", "input_words", "output_words", "config_writes", "layer", "status"}
        if register.name.lower() not in known | {"select"}:
            reset = sum(field.reset << field.lsb for field in fields.values())
            assert await host.read(register) == reset, register
    await host.until(idle=1)
    assert set((await host.driver.status()).values()) == {0, 1}
    assert sum((await host.driver.status()).values()) == 1


@cocotb.test()
async def a_stored_field_reads_as_it_was_written(dut: Any) -> None:
    host = Host(dut)
    await host.begin()
    for register, written, mask in (
        (RegisterAddress.INTERRUPT_ENABLE, 0xFFFF_FFFF, 0b11),
        (RegisterAddress.INPUT_TIMEOUT, 0x89AB_CDEF, 0xFFFF_FFFF),
        (RegisterAddress.CONFIG_SELECT, 0xFFFF_FFFF, 0xFFFF_03FF),
        (RegisterAddress.CONFIG_ADDRESS, 0x1234_5678, 0xFFFF_FFFF),
        (RegisterAddress.SELECT, pack_fields(RegisterAddress.SELECT, bucket=3), 0x3FF),
    ):
        await host.write(register, written)
        assert await host.read(register) == written & mask, register
    await host.driver.check()


@cocotb.test()
async def a_start_is_dispatched_in_the_third_cycle_after_its_write(dut: Any) -> None:
    host = await Host(dut).configured()
    await host.write(RegisterAddress.INTERRUPT_ENABLE, InterruptEnableBit.DONE)
    await host.driver.load(INPUTS[0])
    # The words are on their way to the engine
    await host.cycles(2 * SIZES.input_words)
    writer = cocotb.start_soon(host.command(ControlBit.START))
    await host._until(dut.s_axil_awready)
    cycles = 0
    while not int(dut.irq.value):
        await host.cycles(1)
        cycles += 1
    await writer
    assert cycles == 3 + CYCLES[0]


@cocotb.test()
async def a_write_waits_until_the_answer_to_the_one_before_is_taken(dut: Any) -> None:
    host = Host(dut)
    await host.begin()
    for port in (dut.s_axil_awvalid, dut.s_axil_wvalid):
        port.value = 1
    dut.s_axil_wstrb.value = 0b1111
    dut.s_axil_awaddr.value = int(RegisterAddress.INPUT_TIMEOUT)
    dut.s_axil_wdata.value = 1
    await host._until(dut.s_axil_awready)
    await host.cycles(1)
    dut.s_axil_wdata.value = 2
    await host.cycles(5)
    assert await host.read(RegisterAddress.INPUT_TIMEOUT) == 1
    await host._take(dut.s_axil_bvalid, dut.s_axil_bready, ())
    await host._until(dut.s_axil_awready)
    await host.cycles(1)
    for port in (dut.s_axil_awvalid, dut.s_axil_wvalid):
        port.value = 0
    await host._take(dut.s_axil_bvalid, dut.s_axil_bready, ())
    assert await host.read(RegisterAddress.INPUT_TIMEOUT) == 2


@cocotb.test()
async def inputs_queue_up_and_results_come_in_order(dut: Any) -> None:
    host = await Host(dut).configured()
    for sample in range(3):
        await host.driver.load(INPUTS[sample])
    await host.until(inputs=3)
    feeder = cocotb.start_soon(host.send(WORDS[3]))
    await host.cycles(2 * len(WORDS[3]))
    assert not feeder.done(), "a fourth input was taken"
    for sample in range(4):
        await host.runs(sample)
        await host.result_is(sample)
    await host.until(inputs=0, results=0, output_waiting=0, idle=1)
    await host.driver.check()


@cocotb.test()
async def a_slow_reader_delays_the_next_inference_and_changes_no_cycle(dut: Any) -> None:
    host = await Host(dut).configured()
    # Two results wait in the engine, and four words in the queue of the stream
    most = 2 + 4 // SIZES.output_words
    order = [number % SAMPLES for number in range(most + 1)]
    for sample in order[:-1]:
        await host.driver.load(INPUTS[sample])
        await host.runs(sample)
    await host.driver.load(INPUTS[order[-1]])
    await host.driver.start()
    await host.cycles(2 * LONGEST)
    status = await host.driver.status()
    assert (status["busy"], status["done"], status["results"], status["inputs"]) == (1, 0, 2, 1)
    assert await host.read(RegisterAddress.INFERENCES) == most
    await host.result_is(order[0])
    await host.driver.wait()
    await host.counters_are(order[-1])
    host.pace = Pace(sink=0.9)
    for sample in order[1:]:
        await host.result_is(sample)


@cocotb.test()
@cocotb.parametrize(pace=[Pace(), Pace(source=0.02, sink=0.02)])
async def continuous_inferences_overlap_and_keep_their_interval(dut: Any, pace: Pace) -> None:
    host = await Host(dut, pace, pace).configured()
    await host.mode(ModeBit.CONTINUOUS)
    count = 2 * SIZES.layers + 4
    for sample in (0, 1):

        async def feed(words: list[int]) -> None:
            for _ in range(count):
                await host.send(words)

        feeder = cocotb.start_soon(feed(WORDS[sample]))
        for _ in range(count):
            await host.result_is(sample)
        await feeder
        if pace == Pace():
            assert await host.read(RegisterAddress.INTERVAL) == INTERVALS[sample]
    await host.driver.check()
    # Switched off, inputs wait again
    await host.mode(0)
    await host.driver.load(INPUTS[2])
    await host.cycles(2 * LONGEST)
    await host.until(inputs=1, busy=0)
    await host.runs(2)
    await host.result_is(2)


@cocotb.test()
async def a_change_of_schedule_waits_for_the_inference_under_way(dut: Any) -> None:
    host = await Host(dut).configured()
    for sample in range(3):
        await host.driver.load(INPUTS[sample])
    await host.until(inputs=3)
    other = 0 if PIPELINED else ModeBit.PIPELINED
    await host.driver.start()
    await host.write(RegisterAddress.MODE, other)
    await host.driver.wait()
    await host.counters_are(0)
    await host.driver.start()
    await host.driver.wait()
    assert await host.read(RegisterAddress.LATENCY) == JOB["other_cycles"][1]
    await host.mode(0)
    await host.result_is(0)
    await host.runs(2)
    await host.result_is(1)
    await host.result_is(2)


@cocotb.test()
async def interrupts_tell_of_ends_and_errors(dut: Any) -> None:
    host = await Host(dut).configured()
    enable, status = RegisterAddress.INTERRUPT_ENABLE, RegisterAddress.INTERRUPT_STATUS
    await host.infers(0)
    assert await host.read(status) == InterruptStatusBit.DONE
    assert not int(dut.irq.value)
    await host.write(enable, InterruptEnableBit.DONE)
    assert int(dut.irq.value)
    await host.write(status, InterruptStatusBit.DONE)
    await host.cycles(1)
    assert not int(dut.irq.value)
    await host.command(ControlBit.START)
    assert await host.read(status) == InterruptStatusBit.ERROR
    assert not int(dut.irq.value)
    await host.write(enable, InterruptEnableBit.DONE | InterruptEnableBit.ERROR)
    assert int(dut.irq.value)
    await host.write(status, InterruptStatusBit.ERROR)
    await host.cycles(1)
    assert not int(dut.irq.value)
    await host.errors()
    await host.driver.load(INPUTS[1])
    await host.driver.start()
    for _ in range(int(CYCLES[1]) + 100):
        if int(dut.irq.value):
            break
        await host.cycles(1)
    assert await host.read(status) == InterruptStatusBit.DONE
    assert (await host.driver.status())["done"]


@cocotb.test()
async def an_input_right_after_a_reset_waits_until_the_engine_is_clear(dut: Any) -> None:
    host = Host(dut)
    for _ in range(2):
        await host.begin()
        await host.driver.configure(NETWORK)
        await host.driver.reset()
        await host.infers(0)


@cocotb.test()
async def back_pressure_is_no_pause(dut: Any) -> None:
    host = await Host(dut).configured()
    await host.write(RegisterAddress.INPUT_TIMEOUT, 10)
    for sample in range(3):
        await host.driver.load(INPUTS[sample])
    await host.until(inputs=3)
    feeder = cocotb.start_soon(host.send(WORDS[3]))
    await host.cycles(200)
    await host.driver.check()
    for sample in range(4):
        await host.runs(sample)
        await host.result_is(sample)
    await feeder
    await host.driver.check()


@cocotb.test()
async def the_driver_knows_an_engine_of_another_network(dut: Any) -> None:
    host = Host(dut)
    await host.begin()
    content = CONFIG.model_dump()
    content["hardware"]["neural_cores"] = [1] * SIZES.layers
    content["hardware"]["schedule"] = "layer_serial"
    other = EngineDriver(host, load_config(content))
    with pytest.raises(EngineError, match=r"layer_words of the engine must be \("):
        await other.configure(NETWORK)
    host.read = partial(_answer, 0)  # type: ignore[method-assign]
    with pytest.raises(EngineError, match=r"id must be 0x53504B4D of an engine, got 0x00000000"):
        await host.driver.sizes()


async def _answer(value: int, address: int) -> int:
    return value


@cocotb.test()
async def a_change_of_schedule_takes_effect_although_inputs_keep_coming(dut: Any) -> None:
    host = await Host(dut).configured()
    await host.mode(ModeBit.CONTINUOUS)
    most_under_way = 3 * SIZES.layers + 3

    async def feed() -> None:
        for _ in range(2 * most_under_way):
            await host.send(WORDS[0])

    feeder = cocotb.start_soon(feed())
    await host.result_is(0)
    other = 0 if PIPELINED else ModeBit.PIPELINED
    await host.write(RegisterAddress.MODE, ModeBit.CONTINUOUS | other)
    for _ in range(most_under_way):
        await host.result_is(0)
    assert not feeder.done()
    assert int(dut.u_control_status.pipelined_o.value) == (not PIPELINED)
    for _ in range(most_under_way - 1):
        await host.result_is(0)
    await feeder
    await host.until(busy=0, inputs=0, results=0)
    await host.driver.check()
