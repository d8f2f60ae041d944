"""Everything that a host can do wrong: reported, without a hang, and without harm to what follows.

After each of them the same engine runs inferences that are right to the bit and the cycle.
"""

from __future__ import annotations

import random
from typing import Any

import cocotb
import pytest
from accelerator_host import (
    CONFIG,
    INPUTS,
    JOB,
    LONGEST,
    NETWORK,
    SAMPLES,
    SHORTEST,
    SIZES,
    WIDTH,
    WORDS,
    Host,
)
from axi_host import Pace, RefusedError

from spikemeter.errors import EngineError
from spikemeter.rtl.packing import SPACE_BIAS, SPACE_CONSTANT, SPACE_WEIGHT
from spikemeter.rtl.registers import ControlBit, ErrorBit, ModeBit, RegisterAddress, pack_fields


@cocotb.test()
async def a_start_too_early_is_refused(dut: Any) -> None:
    host = Host(dut)
    await host.begin()
    await host.command(ControlBit.START)
    assert await host.errors() == ErrorBit.START_UNCONFIGURED | ErrorBit.START_NO_INPUT
    await host.driver.load(INPUTS[0])
    await host.command(ControlBit.START)
    assert await host.errors() == ErrorBit.START_UNCONFIGURED
    await host.mode(ModeBit.CONTINUOUS)
    assert await host.errors() == ErrorBit.START_UNCONFIGURED
    await host.mode(0)
    await host.driver.configure(NETWORK)
    await host.runs(0)
    await host.result_is(0)
    await host.command(ControlBit.START)
    assert await host.errors() == ErrorBit.START_NO_INPUT
    with pytest.raises(EngineError, match=r"START_NO_INPUT: `start` without a whole input"):
        await host.driver.start()
    await host.infers(1)


@cocotb.test()
async def continuous_mode_set_too_early_begins_with_the_commit(dut: Any) -> None:
    host = Host(dut)
    await host.begin()
    await host.driver.load(INPUTS[0])
    await host.driver.configure(NETWORK)
    await host.command(ControlBit.UNLOAD)
    await host.mode(ModeBit.CONTINUOUS)
    assert await host.errors() == ErrorBit.START_UNCONFIGURED
    await host.cycles(SHORTEST)
    await host.until(inputs=1, busy=0, configured=0)
    # The driver sets the modes, then the network
    await host.driver.configure(NETWORK)
    await host.mode(ModeBit.CONTINUOUS)
    await host.result_is(0)
    await host.driver.check()


@cocotb.test()
async def a_start_while_busy_is_ignored(dut: Any) -> None:
    host = await Host(dut).configured()
    await host.driver.load(INPUTS[0])
    await host.driver.load(INPUTS[1])
    await host.driver.start()
    for _ in range(4):
        await host.command(ControlBit.START)
        assert await host.errors() == ErrorBit.START_BUSY
        await host.cycles(max(1, SHORTEST // 5 - 20))
    await host.driver.wait()
    await host.counters_are(0)
    await host.result_is(0)
    await host.cycles(2 * LONGEST)
    await host.until(idle=1, inputs=1, results=0)
    await host.runs(1)
    await host.result_is(1)
    await host.mode(ModeBit.CONTINUOUS)
    await host.command(ControlBit.START)
    assert await host.errors() == ErrorBit.START_BUSY


@cocotb.test()
async def configuration_while_busy_is_dropped(dut: Any) -> None:
    host = await Host(dut).configured()
    await host.driver.load(INPUTS[0])
    await host.driver.start()
    for space in (SPACE_WEIGHT, SPACE_BIAS, SPACE_CONSTANT):
        await host.configures(0, space, 0, 0, 0x55)
        assert await host.errors() == ErrorBit.CONFIG_BUSY
    assert await host.read(RegisterAddress.CONFIG_COUNT) == SIZES.config_writes
    await host.driver.wait()
    await host.counters_are(0)
    await host.result_is(0)
    await host.infers(1, 2)


@cocotb.test()
async def configuration_of_what_is_not_there_is_dropped(dut: Any) -> None:
    host = await Host(dut).configured()
    last = SIZES.layers - 1
    cores = CONFIG.neural_cores
    weights, biases = (
        1 + max(write[3] for write in JOB["writes"] if write[:2] == [0, space])
        for space in (SPACE_WEIGHT, SPACE_BIAS)
    )
    wrong = [
        (SIZES.layers, SPACE_CONSTANT, 0, 0),
        (255, SPACE_BIAS, 0, 0),
        (0, 3, 0, 0),
        (0, SPACE_WEIGHT, cores[0], 0),
        (last, SPACE_BIAS, cores[last], 0),
        (0, SPACE_WEIGHT, 0, weights),
        (0, SPACE_BIAS, 0, biases),
        (0, SPACE_BIAS, 0, 0xFFFF_FFFF),
        (last, SPACE_CONSTANT, 0, 4),
    ]
    for layer, space, core, address in wrong:
        await host.configures(layer, space, core, address, 1)
        assert await host.errors() == ErrorBit.CONFIG_RANGE, (layer, space, core, address)
    for shift in (0, 6, 12):
        if CONFIG.neuron.model == "lif":
            await host.configures(last, SPACE_CONSTANT, 0, 2, 9 << shift)
            assert await host.errors() == ErrorBit.CONFIG_RANGE, shift
    assert await host.read(RegisterAddress.CONFIG_COUNT) == SIZES.config_writes
    layer = pack_fields(RegisterAddress.SELECT, layer=SIZES.layers)
    await host.write(RegisterAddress.SELECT, layer)
    assert await host.errors() == ErrorBit.CONFIG_RANGE
    assert await host.read(RegisterAddress.CYCLES) == 0
    assert await host.read(RegisterAddress.LAYER) == 0
    await host.infers(0, 1)


@cocotb.test()
async def an_incomplete_network_cannot_be_committed(dut: Any) -> None:
    host = await Host(dut).configured()
    await host.driver.load(INPUTS[0])
    await host.command(ControlBit.UNLOAD)
    assert await host.read(RegisterAddress.CONFIG_COUNT) == 0
    await host.until(configured=0)
    for write in JOB["writes"][:-1]:
        await host.configures(*write)
    await host.command(ControlBit.COMMIT)
    assert await host.errors() == ErrorBit.CONFIG_INCOMPLETE
    await host.command(ControlBit.START)
    assert await host.errors() == ErrorBit.START_UNCONFIGURED
    await host.driver.configure(NETWORK)
    # One value more, and the network has to be committed again
    await host.configures(*JOB["writes"][0])
    await host.command(ControlBit.START)
    assert await host.errors() == ErrorBit.START_UNCONFIGURED
    await host.command(ControlBit.COMMIT)
    await host.runs(0)
    await host.result_is(0)


@cocotb.test()
@cocotb.parametrize(pace=[Pace(), Pace(source=0.5)])
async def a_packet_that_is_no_inference_is_dropped(dut: Any, pace: Pace) -> None:
    host = await Host(dut, pace, pace).configured()
    words = WORDS[0]
    short = [words[:length] for length in {1, len(words) // 2, len(words) - 1} - {0, len(words)}]
    long = [[*words, *words[:extra]] for extra in (1, len(words) // 2 + 1, 2 * len(words))]
    for packets, error in ((short, ErrorBit.INPUT_SHORT), (long, ErrorBit.INPUT_LONG)):
        for packet in packets:
            await host.send(packet)
            assert await host.errors() == error
            await host.until(input_partial=0, input_ready=0)
            await host.command(ControlBit.START)
            assert await host.errors() == ErrorBit.START_NO_INPUT
        await host.infers(1)
    # Between two good ones, while the engine works
    await host.driver.load(INPUTS[2])
    await host.driver.start()
    await host.send(long[0])
    await host.driver.load(INPUTS[3])
    assert await host.errors() == ErrorBit.INPUT_LONG
    await host.driver.wait()
    await host.counters_are(2)
    await host.runs(3)
    await host.result_is(2)
    await host.result_is(3)


@cocotb.test()
async def a_stream_that_stops_is_given_up(dut: Any) -> None:
    host = await Host(dut).configured()
    words = WORDS[0]
    if len(words) == 1:
        return
    await host.write(RegisterAddress.INPUT_TIMEOUT, 40)
    for part, over in ((1, False), (len(words) - 1, False), (len(words), True)):
        await host.send([*words[:part], *words[:over]], last=False)
        await host.until(input_partial=1)
        assert not await host.errors() & ~ErrorBit.INPUT_LONG
        await host.cycles(45)
        assert await host.errors() == ErrorBit.INPUT_STOPPED
        await host.until(input_partial=0, input_ready=0)
        await host.infers(1)
    # The rest of it, should it still come, is no inference either
    await host.send(words[:1], last=False)
    await host.cycles(45)
    assert await host.errors() == ErrorBit.INPUT_STOPPED
    await host.send(words[1:])
    # The words no longer stand where the steps end
    assert await host.errors() & ~ErrorBit.INPUT_PADDING == ErrorBit.INPUT_SHORT
    # Pauses that are shorter cost nothing, and without a limit none is too long
    for limit, pause in ((40, 36), (0, 400)):
        await host.write(RegisterAddress.INPUT_TIMEOUT, limit)
        await host.send(words[:1], last=False)
        await host.cycles(pause)
        await host.send(words[1:])
        await host.runs(0)
        await host.result_is(0)
    await host.driver.check()


@cocotb.test()
async def bits_beyond_the_input_are_ignored(dut: Any) -> None:
    host = await Host(dut).configured()
    spare = -CONFIG.layers[0].inputs % WIDTH
    words = list(WORDS[0])
    step_words = len(words) // CONFIG.input.time_steps
    for last in range(step_words - 1, len(words), step_words):
        words[last] |= (1 << WIDTH) - (1 << WIDTH - spare)
    await host.send(words)
    assert await host.errors() == (ErrorBit.INPUT_PADDING if spare else 0)
    await host.runs(0)
    await host.result_is(0)


@cocotb.test()
async def a_reset_at_any_time_leaves_a_good_engine(dut: Any) -> None:
    host = await Host(dut).configured()
    # Half an input on the stream, others waiting, one under way
    for queued in range(4):
        for sample in range(queued):
            await host.driver.load(INPUTS[sample])
        if queued:
            await host.driver.start()
        await host.cycles(host.rng.randrange(SHORTEST))
        await host.send(WORDS[3][: len(WORDS[3]) // 2], last=False)
        await host.driver.reset()
        await host.until(busy=0, inputs=0, results=0, output_waiting=0, input_partial=0, done=0)
        assert await host.read(RegisterAddress.INFERENCES) == 0
        await host.driver.check()
        await host.infers(queued)
    # In the middle of a result
    await host.driver.load(INPUTS[0])
    await host.driver.start()
    await host.driver.wait()
    await host._take(dut.m_axis_tvalid, dut.m_axis_tready, ())
    await host.driver.reset()
    await host.until(output_waiting=0, results=0)
    await host.infers(1, 2)
    # In continuous mode, which stays
    await host.mode(ModeBit.CONTINUOUS)
    await host.driver.load(INPUTS[0])
    await host.driver.load(INPUTS[1])
    await host.cycles(host.rng.randrange(SHORTEST))
    await host.driver.reset()
    await host.driver.load(INPUTS[2])
    await host.result_is(2)
    await host.driver.check()


@cocotb.test()
async def what_the_bus_cannot_do_is_refused(dut: Any) -> None:
    host = await Host(dut).configured()

    async def refused(access: Any) -> None:
        with pytest.raises(RefusedError):
            await access
        assert await host.errors() == ErrorBit.BUS

    for address in (0x1C, 0x21, 0x7C):
        await refused(host.read(address))
        await refused(host.write(address, 1))
    for register in (RegisterAddress.ID, RegisterAddress.STATUS, RegisterAddress.LATENCY):
        await refused(host.write(register, 1))
    await host.driver.load(INPUTS[0])
    await refused(host.write(RegisterAddress.CONTROL, ControlBit.START, strobe=0b0001))
    await refused(host.write(RegisterAddress.INPUT_TIMEOUT, 0, strobe=0b0111))
    assert await host.read(RegisterAddress.INPUT_TIMEOUT) == 0x0010_0000
    await host.until(idle=1, inputs=1)
    await host.runs(0)
    await host.result_is(0)


@cocotb.test()
async def errors_stay_until_they_are_cleared_one_by_one(dut: Any) -> None:
    host = await Host(dut).configured()
    await host.command(ControlBit.START)
    await host.command(ControlBit.UNLOAD)
    await host.command(ControlBit.COMMIT)
    await host.write(RegisterAddress.SELECT, 0xFF)
    await host.send([*WORDS[0], 0])
    with pytest.raises(RefusedError):
        await host.read(0x7C)
    left = ErrorBit.START_NO_INPUT | ErrorBit.CONFIG_INCOMPLETE | ErrorBit.CONFIG_RANGE
    left |= ErrorBit.INPUT_LONG | ErrorBit.BUS
    assert await host.read(RegisterAddress.ERROR) == left
    for bit in left:
        # Neither a zero nor a reset of the engine clears one
        await host.write(RegisterAddress.ERROR, 0)
        await host.driver.reset()
        await host.write(RegisterAddress.ERROR, bit)
        left &= ~bit
        assert await host.read(RegisterAddress.ERROR) == left


@cocotb.test()
@cocotb.parametrize(pace=[Pace(), Pace(source=0.1, sink=0.3), Pace(bus=0.2, sink=0.9)])
async def of_any_mixture_of_packets_the_good_ones_are_answered_in_order(
    dut: Any, pace: Pace
) -> None:
    host = await Host(dut, pace, pace).configured()
    await host.write(RegisterAddress.INPUT_TIMEOUT, 60)
    await host.mode(ModeBit.CONTINUOUS)
    rng = random.Random(f"packets {pace}")
    packets = [rng.choice(["good", "good", "short", "long", "stopped"]) for _ in range(40)]
    samples = [rng.randrange(SAMPLES) for _ in packets]

    async def feed() -> None:
        for packet, sample in zip(packets, samples, strict=True):
            words = WORDS[sample]
            part = rng.randrange(1, len(words)) if len(words) > 1 else 0
            if packet == "good":
                await host.send(words)
            elif packet == "long":
                await host.send([*words, *words[: part + 1]])
            elif part:
                await host.send(words[:part], last=packet == "short")
                if packet == "stopped":
                    await host.cycles(70)

    feeder = cocotb.start_soon(feed())
    for packet, sample in zip(packets, samples, strict=True):
        if packet == "good":
            await host.result_is(sample)
    await feeder
    expected = ErrorBit(0)
    for packet in packets:
        if packet != "good":
            expected |= ErrorBit[f"INPUT_{packet.upper()}"]
    assert await host.errors() & ~ErrorBit.INPUT_PADDING == expected
    await host.until(input_partial=0, busy=0, results=0, output_waiting=0)
    assert await host.read(RegisterAddress.INFERENCES) == packets.count("good")
