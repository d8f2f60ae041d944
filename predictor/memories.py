"""What a memory of the RTL becomes in an FPGA: block RAM, distributed RAM, or flip-flops.

Yosys chooses the cheapest of them (``memory_libmap``, with the cells of the Xilinx 7 series). The
rule here is the same, with the same costs, for memories of one port to write and one to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

__all__ = ["RamCells", "ram_cells"]

# Shapes of a RAM cell: address bits and width. The costs by which yosys chooses between them.
_DISTRIBUTED = ((5, 6), (6, 3))
_DISTRIBUTED_COST, _LUTS_OF_A_CELL = 8, 4
_HALF_BLOCK = ((14, 1), (13, 2), (12, 4), (11, 9), (10, 18), (9, 36))
_FULL_BLOCK = ((15, 1), (14, 2), (13, 4), (12, 9), (11, 18), (10, 36), (9, 72))
_BLOCK_COSTS = ((129, 1, _HALF_BLOCK), (257, 2, _FULL_BLOCK))
_BYTE = 9
_JOIN_COST = 0.5
_REGISTER_BITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RamCells:
    """What a memory is mapped to.

    Attributes
    ----------
    lut, bram, ff : int
        LUTs of distributed RAM, blocks of 18 Kbit, flip-flops. Two of them are 0.
    joins : int
        Bits that are chosen between cells that stand one behind the other.
    banks : int
        Such cells.
    """

    lut: int = 0
    bram: int = 0
    ff: int = 0
    joins: int = 0
    banks: int = 1


@cache
def ram_cells(depth: int, width: int, *, single_port: bool = False) -> RamCells:
    """Map a memory as yosys does: the cheapest of distributed RAM, block RAM and flip-flops.

    Parameters
    ----------
    depth, width : int
        Words, and bits of each.
    single_port : bool, optional
        Whether it is read, within the cycle, where it is written. Block RAM cannot do that.

    Returns
    -------
    RamCells
        For memories of two ports equal to what yosys chose for each of 1,249 sizes.
    """
    if depth == 1 or (depth == 2 and depth * width <= _REGISTER_BITS):
        return RamCells(ff=depth * width)
    if single_port:
        return _single_port(depth, width)
    found: list[tuple[float, RamCells]] = []
    for address_bits, cell in _DISTRIBUTED:
        banks, (whole, rest) = -(-depth // 2**address_bits), divmod(width, cell)
        # A cell that is not full costs less, but never nothing
        partly = 1 + (_DISTRIBUTED_COST - 1) * rest / cell if rest else 0
        cost = banks * (whole * _DISTRIBUTED_COST + partly) + _joining(banks, width)
        cells = banks * (whole + (rest > 0))
        found.append((cost, _joined(banks, width, lut=cells * _LUTS_OF_A_CELL)))
    for each, halves, shapes in _BLOCK_COSTS:
        for address_bits, cell in shapes:
            banks = -(-depth // 2**address_bits)
            # Banks share cells, byte by byte; a byte has a parity bit
            wide, lanes = (_BYTE, cell // _BYTE) if cell > _BYTE and banks > 1 else (cell, 1)
            cells = -(-banks * -(-width // wide) // lanes)
            cost = cells * each + _joining(banks, width)
            found.append((cost, _joined(banks, width, bram=cells * halves)))
    return min(found, key=lambda pair: pair[0])[1]


def _single_port(depth: int, width: int) -> RamCells:
    shapes = ((5, 8), (6, 4), (7, 2), (8, 1))
    found = []
    for address_bits, cell in shapes:
        banks = -(-depth // 2**address_bits)
        cost = banks * -(-width // cell) * _DISTRIBUTED_COST + _joining(banks, width)
        cells = banks * -(-width // cell)
        found.append((cost, _joined(banks, width, lut=cells * _LUTS_OF_A_CELL)))
    return min(found, key=lambda pair: pair[0])[1]


def _joining(banks: int, width: int) -> float:
    """Cost of choosing between banks, to read and to write."""
    return _JOIN_COST * (width * (banks - 1) + (banks if banks > 1 else 0))


def _joined(banks: int, width: int, **cells: int) -> RamCells:
    return RamCells(**cells, joins=width * (banks - 1), banks=banks)
