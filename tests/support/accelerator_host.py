"""A host of ``snn_accelerator`` that knows what the engine should answer.

Runs inside the simulator; the job of the bench names the network, its inputs and what they give.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from axi_host import AxiHost, Pace
from bench_cycles import job

from spikemeter.config import load_config
from spikemeter.models.integer import load_network
from spikemeter.rtl.accelerator import accelerator_sizes
from spikemeter.rtl.driver import BUCKETS, EngineDriver
from spikemeter.rtl.packing import pack_spikes
from spikemeter.rtl.registers import ControlBit, ErrorBit, ModeBit, RegisterAddress, pack_fields

JOB = job()
CONFIG = load_config(JOB["config"])
NETWORK = load_network(Path(JOB["folder"]) / "network.npz", CONFIG.layers)
with np.load(Path(JOB["folder"]) / "expected.npz") as arrays:
    INPUTS, OUTPUTS, CYCLES, INTERVALS = (
        arrays[name] for name in ("inputs", "outputs", "cycles", "intervals")
    )
    EXPECTED = {name: arrays[name] for name in BUCKETS}
SAMPLES = len(INPUTS)
WIDTH = CONFIG.hardware.encoder_width
WORDS = [pack_spikes(sample, WIDTH) for sample in INPUTS]
SIZES = accelerator_sizes(CONFIG, NETWORK)
PIPELINED = CONFIG.hardware.schedule == "step_pipelined"
SHORTEST, LONGEST = int(CYCLES.min()), int(CYCLES.max())


class Host(AxiHost):
    """A host with a driver, and what it expects of the engine."""

    def __init__(self, dut: Any, seed: object = 0, pace: Pace | None = None) -> None:
        super().__init__(dut, random.Random(str(seed)), pace)
        self.driver = EngineDriver(self, CONFIG)

    async def configured(self) -> Host:
        """Reset, load the network, and go on."""
        await self.begin()
        await self.driver.configure(NETWORK)
        return self

    async def command(self, command: ControlBit) -> None:
        await self.write(RegisterAddress.CONTROL, command)

    async def mode(self, mode: ModeBit | int) -> None:
        await self.write(RegisterAddress.MODE, mode | (ModeBit.PIPELINED if PIPELINED else 0))

    async def errors(self) -> ErrorBit:
        """Read the errors and clear them."""
        errors = ErrorBit(await self.read(RegisterAddress.ERROR))
        assert (await self.driver.status())["error"] == bool(errors)
        await self.write(RegisterAddress.ERROR, errors)
        assert await self.read(RegisterAddress.ERROR) == 0
        return errors

    async def result_is(self, sample: int) -> None:
        np.testing.assert_array_equal(await self.driver.receive(), OUTPUTS[sample])

    async def counters_are(self, sample: int) -> None:
        cycles, buckets = await self.driver.counters()
        assert cycles == CYCLES[sample]
        for name in BUCKETS:
            np.testing.assert_array_equal(buckets[name], EXPECTED[name][sample])

    async def runs(self, sample: int) -> None:
        """Start the inference of an input that waits, and hold its cycles."""
        await self.driver.start()
        await self.driver.wait()
        await self.counters_are(sample)

    async def configures(self, layer: int, space: int, core: int, address: int, data: int) -> None:
        """Write one place of the network."""
        place = pack_fields(RegisterAddress.CONFIG_SELECT, layer=layer, space=space, core=core)
        await self.write(RegisterAddress.CONFIG_SELECT, place)
        await self.write(RegisterAddress.CONFIG_ADDRESS, address)
        await self.write(RegisterAddress.CONFIG_DATA, data & 0xFFFF_FFFF)

    async def infers(self, *samples: int) -> None:
        """Run inferences from start to end and hold them against what they should be."""
        for sample in samples:
            result = await self.driver.infer(INPUTS[sample])
            np.testing.assert_array_equal(result.outputs, OUTPUTS[sample])
            assert result.cycles == CYCLES[sample]
            for name in BUCKETS:
                np.testing.assert_array_equal(result.buckets[name], EXPECTED[name][sample])
        await self.driver.check()

    async def until(self, **fields: int) -> None:
        """Wait until the status has these fields."""
        for _ in range(100_000):
            status = await self.driver.status()
            if all(status[name] == value for name, value in fields.items()):
                return
        raise TimeoutError(f"{fields} is not reached, {status}")
