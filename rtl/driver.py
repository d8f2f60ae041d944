"""Runs inferences on ``snn_accelerator`` through its registers and streams alone.

The driver knows no simulator and no board: it talks through a `Transport`, whose methods are
coroutines. In cocotb they wait for clock edges; on a board, where reading a mapped register waits
for nothing, ``asyncio.run(driver.infer(spikes))`` runs the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import EngineError
from ..models.integer import IntegerNetwork
from .accelerator import AcceleratorSizes, accelerator_sizes
from .packing import ConfigWrite, config_writes, pack_spikes, unpack_spikes
from .registers import (
    FIELDS,
    MEANINGS,
    ControlBit,
    ErrorBit,
    ModeBit,
    RegisterAddress,
    pack_fields,
    unpack_fields,
)

__all__ = ["BUCKETS", "EngineDriver", "EngineResult", "Transport"]

BUCKETS = ("encode", "accumulate", "fire", "stall")
"""What a layer's cycles are spent on, in the order of ``select.bucket``."""

_ID = FIELDS[RegisterAddress.ID]["value"].reset
_MAJOR = FIELDS[RegisterAddress.VERSION]["major"].reset
_POLLS = 1_000_000


class Transport(Protocol):
    """The way to an engine: its bus and its two streams."""

    async def read(self, address: int) -> int:
        """Read the register at a byte address."""

    async def write(self, address: int, word: int) -> None:
        """Write the register at a byte address."""

    async def send(self, words: Sequence[int]) -> None:
        """Send one packet, TLAST on its last word; return when that has been taken."""

    async def receive(self) -> list[int]:
        """Receive one packet, up to TLAST."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineResult:
    """What one inference gave.

    Attributes
    ----------
    outputs : ndarray of bool, shape (time_steps, features)
        Spikes of the output layer.
    cycles : int
        Latency, from the dispatch of the first layer to the end of the last one.
    buckets : dict of str to ndarray of int64, shape (layers,)
        Cycles of each layer by encode, accumulate, fire and stall.
    """

    outputs: NDArray[np.bool_]
    cycles: int
    buckets: dict[str, NDArray[np.int64]]


class EngineDriver:
    """Drives one engine.

    Parameters
    ----------
    transport : Transport
        The way to it.
    config : Config
        Network and hardware that it was built for.

    Examples
    --------
    ::

        driver = EngineDriver(transport, config)
        await driver.configure(network)
        result = await driver.infer(spikes)
        result.cycles
    """

    def __init__(self, transport: Transport, config: Config) -> None:
        self.transport = transport
        self.config = config

    async def sizes(self) -> AcceleratorSizes:
        """Read what the engine says of itself.

        Returns
        -------
        AcceleratorSizes
            To be held against `accelerator_sizes`.

        Raises
        ------
        EngineError
            If nothing answers that is an engine with a map of registers like ours.
        """
        found = await self._read(RegisterAddress.ID)
        if found != _ID:
            raise EngineError(f"register id must be 0x{_ID:08X} of an engine, got 0x{found:08X}")
        major = (await self._fields(RegisterAddress.VERSION))["major"]
        if major != _MAJOR:
            raise EngineError(f"version of the registers must be {_MAJOR}, got {major}")
        network = await self._fields(RegisterAddress.NETWORK)
        layers = []
        for layer in range(network["layers"]):
            await self._write(
                RegisterAddress.SELECT, pack_fields(RegisterAddress.SELECT, layer=layer)
            )
            layers.append(await self._read(RegisterAddress.LAYER))
        return AcceleratorSizes(
            layers=network["layers"],
            time_steps=network["time_steps"],
            encoder_width=network["encoder_width"],
            input_words=await self._read(RegisterAddress.INPUT_WORDS),
            output_words=await self._read(RegisterAddress.OUTPUT_WORDS),
            config_writes=await self._read(RegisterAddress.CONFIG_WRITES),
            layer_words=tuple(layers),
        )

    async def configure(self, network: IntegerNetwork) -> None:
        """Load a network and set the schedule of the configuration.

        Parameters
        ----------
        network : IntegerNetwork
            Weights and constants; of the sizes that the engine was built for.

        Raises
        ------
        EngineError
            If the engine was built for another network, or refuses something.
        """
        found, wanted = await self.sizes(), accelerator_sizes(self.config, network)
        for name, have, want in zip(wanted._fields, found, wanted, strict=True):
            if have != want:
                raise EngineError(
                    f"{name} of the engine must be {want} for this network, got {have}"
                )
        pipelined = self.config.hardware.schedule == "step_pipelined"
        await self._write(RegisterAddress.MODE, ModeBit.PIPELINED if pipelined else 0)
        await self._write(RegisterAddress.CONTROL, ControlBit.UNLOAD)
        for register, word in _configuration(config_writes(self.config, network)):
            await self._write(register, word)
        await self._write(RegisterAddress.CONTROL, ControlBit.COMMIT)
        await self.check()

    async def load(self, spikes: NDArray[np.bool_]) -> None:
        """Send the input of one inference; up to three may wait.

        Parameters
        ----------
        spikes : ndarray of bool, shape (time_steps, channels, height, width)
            Input spikes.

        Raises
        ------
        ValueError
            If `spikes` has another shape.
        """
        size = self.config.input
        shape = (size.time_steps, size.channels, size.height, size.width)
        if spikes.shape != shape:
            raise ValueError(f"spikes must have shape {shape}, got {spikes.shape}")
        await self.transport.send(pack_spikes(spikes, self.config.hardware.encoder_width))

    async def start(self) -> None:
        """Order one inference.

        Raises
        ------
        EngineError
            If the engine has no network or no whole input, or is busy.
        """
        await self._write(RegisterAddress.CONTROL, ControlBit.START)
        await self.check()

    async def wait(self, polls: int = _POLLS) -> None:
        """Wait until the inference that was ordered has ended.

        Parameters
        ----------
        polls : int
            Reads of the status after which it is given up; the engine goes on.

        Raises
        ------
        EngineError
            If it has not ended by then.
        """
        for _ in range(polls):
            status = await self.status()
            if status["done"]:
                return
        raise EngineError(f"the inference did not end within {polls} reads of the status: {status}")

    async def receive(self) -> NDArray[np.bool_]:
        """Receive the oldest result.

        Returns
        -------
        ndarray of bool, shape (time_steps, features)
            Spikes of the output layer.

        Raises
        ------
        EngineError
            If the packet is not a whole result.
        """
        steps, features = self.config.input.time_steps, self.config.layers[-1].out_channels
        width = self.config.hardware.encoder_width
        words, expected = await self.transport.receive(), steps * -(-features // width)
        if len(words) != expected:
            raise EngineError(f"a result must have {expected} words, got {len(words)}")
        return unpack_spikes(words, width, (steps, features, 1, 1)).reshape(steps, features)

    async def counters(self) -> tuple[int, dict[str, NDArray[np.int64]]]:
        """Read the counters of the last inference.

        Returns
        -------
        cycles : int
            Its latency.
        buckets : dict of str to ndarray of int64, shape (layers,)
            Cycles of each layer by bucket.
        """
        layers = range(len(self.config.layers))
        buckets = {}
        for index, bucket in enumerate(BUCKETS):
            counts = []
            for layer in layers:
                chosen = pack_fields(RegisterAddress.SELECT, layer=layer, bucket=index)
                await self._write(RegisterAddress.SELECT, chosen)
                counts.append(await self._read(RegisterAddress.CYCLES))
            buckets[bucket] = np.array(counts, dtype=np.int64)
        return await self._read(RegisterAddress.LATENCY), buckets

    async def infer(self, spikes: NDArray[np.bool_]) -> EngineResult:
        """Run one inference: load, start, wait, receive, read the counters.

        Parameters
        ----------
        spikes : ndarray of bool, shape (time_steps, channels, height, width)
            Input spikes.

        Returns
        -------
        EngineResult
            Output spikes and cycles.

        Raises
        ------
        ValueError
            If `spikes` has another shape.
        EngineError
            If the engine reports an error or does not end.
        """
        await self.load(spikes)
        await self.start()
        await self.wait()
        outputs = await self.receive()
        cycles, buckets = await self.counters()
        return EngineResult(outputs=outputs, cycles=cycles, buckets=buckets)

    async def status(self) -> dict[str, int]:
        """Read the fields of the status by name."""
        return await self._fields(RegisterAddress.STATUS)

    async def check(self) -> None:
        """Hold that the engine reports no error; what it reports is cleared.

        Raises
        ------
        EngineError
            Naming every error and what it means.
        """
        errors = ErrorBit(await self._read(RegisterAddress.ERROR))
        if errors:
            await self._write(RegisterAddress.ERROR, errors)
            told = " ".join(f"{bit.name}: {MEANINGS[bit]}" for bit in errors)
            raise EngineError(f"the engine reports {told}")

    async def reset(self) -> None:
        """Drop every inference, input and result; the network stays."""
        await self._write(RegisterAddress.CONTROL, ControlBit.RESET)

    async def _read(self, register: RegisterAddress) -> int:
        return await self.transport.read(register)

    async def _write(self, register: RegisterAddress, word: int) -> None:
        await self.transport.write(register, word)

    async def _fields(self, register: RegisterAddress) -> dict[str, int]:
        return unpack_fields(register, await self._read(register))


def _configuration(writes: Sequence[ConfigWrite]) -> Iterator[tuple[RegisterAddress, int]]:
    """Write a network through the registers; the address counts by itself where it can."""
    selected: tuple[int, int, int] | None = None
    following: int | None = None
    for layer, space, core, addr, data in sorted(writes):
        if selected != (layer, space, core):
            selected, following = (layer, space, core), None
            yield (
                RegisterAddress.CONFIG_SELECT,
                pack_fields(RegisterAddress.CONFIG_SELECT, layer=layer, space=space, core=core),
            )
        if following != addr:
            yield RegisterAddress.CONFIG_ADDRESS, addr
        following = addr + 1
        yield RegisterAddress.CONFIG_DATA, data & 0xFFFF_FFFF
