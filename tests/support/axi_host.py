"""A host for ``snn_accelerator`` in cocotb: AXI4-Lite and both streams, at a pace of its own.

Inputs change on the falling edge; whether an offer is taken is read when all has settled, before
the rising edge that ends the cycle.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, Timer

PERIOD_NS = 10
LIMIT_CYCLES = 100_000
"""Cycles after which a handshake counts as hanging."""


class RefusedError(Exception):
    """The bus answered with SLVERR."""


@dataclass(frozen=True)
class Pace:
    """How often each part of the host does nothing for a cycle, as a probability."""

    bus: float = 0.0
    source: float = 0.0
    sink: float = 0.0


class AxiHost:
    """A `spikemeter.rtl.driver.Transport` on the ports of the design.

    Attributes
    ----------
    pace : Pace
        May be changed at any time.
    """

    def __init__(self, dut: Any, rng: random.Random, pace: Pace | None = None) -> None:
        self.dut = dut
        self.rng = rng
        self.pace = pace or Pace()
        self.falling = FallingEdge(dut.aclk)

    async def begin(self) -> None:
        """Start the clock and reset."""
        dut = self.dut
        for port in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            getattr(dut, f"s_axil_{port}").value = 0
        dut.s_axis_tvalid.value = 0
        dut.m_axis_tready.value = 0
        dut.aresetn.value = 0
        await Timer(PERIOD_NS, unit="ns")
        Clock(dut.aclk, PERIOD_NS, unit="ns", impl="gpi").start()
        await self.cycles(2)
        dut.aresetn.value = 1
        await self.cycles(1)

    async def cycles(self, count: int) -> None:
        """Let cycles pass."""
        for _ in range(count):
            await self.falling

    async def read(self, address: int) -> int:
        """Read a register."""
        dut = self.dut
        await self._rest(self.pace.bus)
        dut.s_axil_araddr.value = address
        await self._offer(dut.s_axil_arvalid, dut.s_axil_arready)
        await self._rest(self.pace.bus)
        answer = await self._take(
            dut.s_axil_rvalid, dut.s_axil_rready, (dut.s_axil_rresp, dut.s_axil_rdata)
        )
        _require_okay(answer[0], address)
        return answer[1]

    async def write(self, address: int, word: int, strobe: int = 0b1111) -> None:
        """Write a register; address and data are offered in either order."""
        dut = self.dut
        await self._rest(self.pace.bus)
        dut.s_axil_awaddr.value = address
        dut.s_axil_wdata.value = word
        dut.s_axil_wstrb.value = strobe
        offers = [dut.s_axil_awvalid, dut.s_axil_wvalid]
        self.rng.shuffle(offers)
        offers[0].value = 1
        await self._rest(self.pace.bus)
        offers[1].value = 1
        await self._until(dut.s_axil_awready)
        assert int(dut.s_axil_wready.value), "address and data are taken in one cycle"
        await self.falling
        for offer in offers:
            offer.value = 0
        await self._rest(self.pace.bus)
        answer = await self._take(dut.s_axil_bvalid, dut.s_axil_bready, (dut.s_axil_bresp,))
        _require_okay(answer[0], address)

    async def send(self, words: Sequence[int], *, last: bool = True) -> None:
        """Send words, by default as a whole packet."""
        dut = self.dut
        for index, word in enumerate(words):
            await self._rest(self.pace.source)
            dut.s_axis_tdata.value = word
            dut.s_axis_tlast.value = int(last and index == len(words) - 1)
            await self._offer(dut.s_axis_tvalid, dut.s_axis_tready)

    async def receive(self) -> list[int]:
        """Receive one packet."""
        dut = self.dut
        words: list[int] = []
        while True:
            await self._rest(self.pace.sink)
            word, last = await self._take(
                dut.m_axis_tvalid, dut.m_axis_tready, (dut.m_axis_tdata, dut.m_axis_tlast)
            )
            words.append(word)
            if last:
                return words

    async def _rest(self, share: float) -> None:
        while self.rng.random() < share:
            await self.falling

    async def _offer(self, valid: Any, ready: Any) -> None:
        valid.value = 1
        await self._until(ready)
        await self.falling
        valid.value = 0

    async def _take(self, valid: Any, ready: Any, values: Sequence[Any]) -> list[int]:
        ready.value = 1
        await self._until(valid)
        taken = [int(value.value) for value in values]
        await self.falling
        ready.value = 0
        return taken

    async def _until(self, flag: Any) -> None:
        """Wait for a cycle in which a flag is high, and stay before the edge that ends it."""
        for _ in range(LIMIT_CYCLES):
            await ReadOnly()
            if int(flag.value):
                return
            await self.falling
        raise TimeoutError(f"{flag._name} stayed low for {LIMIT_CYCLES} cycles")


def _require_okay(response: int, address: int) -> None:
    if response:
        raise RefusedError(f"access to 0x{address:02X}")
