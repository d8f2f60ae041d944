"""Registers of ``snn_accelerator``; written by ``make registers`` from ``rtl/registers.rdl``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "FIELDS",
    "MEANINGS",
    "BitField",
    "ControlBit",
    "ErrorBit",
    "InterruptEnableBit",
    "InterruptStatusBit",
    "ModeBit",
    "RegisterAddress",
    "pack_fields",
    "unpack_fields",
]


class BitField(NamedTuple):
    """Bits of a register: the lowest one, how many, and their value after reset."""

    lsb: int
    width: int
    reset: int


class RegisterAddress(IntEnum):
    """Registers by name, with their address in bytes."""

    ID = 0x00
    VERSION = 0x04
    NETWORK = 0x08
    INPUT_WORDS = 0x0C
    OUTPUT_WORDS = 0x10
    CONFIG_WRITES = 0x14
    CONTROL = 0x20
    MODE = 0x24
    STATUS = 0x28
    ERROR = 0x2C
    INTERRUPT_ENABLE = 0x30
    INTERRUPT_STATUS = 0x34
    INPUT_TIMEOUT = 0x38
    CONFIG_SELECT = 0x40
    CONFIG_ADDRESS = 0x44
    CONFIG_DATA = 0x48
    CONFIG_COUNT = 0x4C
    INFERENCES = 0x50
    LATENCY = 0x54
    INTERVAL = 0x58
    SELECT = 0x60
    LAYER = 0x64
    CYCLES = 0x68


class ControlBit(IntFlag):
    """Commands."""

    START = 1 << 0
    COMMIT = 1 << 1
    UNLOAD = 1 << 2
    RESET = 1 << 3


class ModeBit(IntFlag):
    """Modes."""

    CONTINUOUS = 1 << 0
    PIPELINED = 1 << 1


class ErrorBit(IntFlag):
    """Errors."""

    START_BUSY = 1 << 0
    START_UNCONFIGURED = 1 << 1
    START_NO_INPUT = 1 << 2
    CONFIG_BUSY = 1 << 3
    CONFIG_RANGE = 1 << 4
    CONFIG_INCOMPLETE = 1 << 5
    INPUT_SHORT = 1 << 6
    INPUT_LONG = 1 << 7
    INPUT_STOPPED = 1 << 8
    INPUT_PADDING = 1 << 9
    BUS = 1 << 10


class InterruptEnableBit(IntFlag):
    """Interrupts that reach the pin."""

    DONE = 1 << 0
    ERROR = 1 << 1


class InterruptStatusBit(IntFlag):
    """Interrupts."""

    DONE = 1 << 0
    ERROR = 1 << 1


FIELDS: Mapping[RegisterAddress, Mapping[str, BitField]] = MappingProxyType(
    {
        RegisterAddress.ID: {
            "value": BitField(0, 32, 0x53504B4D),
        },
        RegisterAddress.VERSION: {
            "minor": BitField(0, 16, 0),
            "major": BitField(16, 16, 1),
        },
        RegisterAddress.NETWORK: {
            "layers": BitField(0, 8, 0),
            "time_steps": BitField(8, 16, 0),
            "encoder_width": BitField(24, 8, 0),
        },
        RegisterAddress.INPUT_WORDS: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.OUTPUT_WORDS: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.CONFIG_WRITES: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.CONTROL: {
            "start": BitField(0, 1, 0),
            "commit": BitField(1, 1, 0),
            "unload": BitField(2, 1, 0),
            "reset": BitField(3, 1, 0),
        },
        RegisterAddress.MODE: {
            "continuous": BitField(0, 1, 0),
            "pipelined": BitField(1, 1, 0),
        },
        RegisterAddress.STATUS: {
            "idle": BitField(0, 1, 0),
            "busy": BitField(1, 1, 0),
            "done": BitField(2, 1, 0),
            "configured": BitField(3, 1, 0),
            "input_ready": BitField(4, 1, 0),
            "input_partial": BitField(5, 1, 0),
            "output_waiting": BitField(6, 1, 0),
            "error": BitField(7, 1, 0),
            "inputs": BitField(8, 2, 0),
            "results": BitField(10, 2, 0),
        },
        RegisterAddress.ERROR: {
            "start_busy": BitField(0, 1, 0),
            "start_unconfigured": BitField(1, 1, 0),
            "start_no_input": BitField(2, 1, 0),
            "config_busy": BitField(3, 1, 0),
            "config_range": BitField(4, 1, 0),
            "config_incomplete": BitField(5, 1, 0),
            "input_short": BitField(6, 1, 0),
            "input_long": BitField(7, 1, 0),
            "input_stopped": BitField(8, 1, 0),
            "input_padding": BitField(9, 1, 0),
            "bus": BitField(10, 1, 0),
        },
        RegisterAddress.INTERRUPT_ENABLE: {
            "done": BitField(0, 1, 0),
            "error": BitField(1, 1, 0),
        },
        RegisterAddress.INTERRUPT_STATUS: {
            "done": BitField(0, 1, 0),
            "error": BitField(1, 1, 0),
        },
        RegisterAddress.INPUT_TIMEOUT: {
            "value": BitField(0, 32, 0x100000),
        },
        RegisterAddress.CONFIG_SELECT: {
            "layer": BitField(0, 8, 0),
            "space": BitField(8, 2, 0),
            "core": BitField(16, 16, 0),
        },
        RegisterAddress.CONFIG_ADDRESS: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.CONFIG_DATA: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.CONFIG_COUNT: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.INFERENCES: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.LATENCY: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.INTERVAL: {
            "value": BitField(0, 32, 0),
        },
        RegisterAddress.SELECT: {
            "layer": BitField(0, 8, 0),
            "bucket": BitField(8, 2, 0),
        },
        RegisterAddress.LAYER: {
            "cores": BitField(0, 16, 0),
            "membrane_bits": BitField(16, 6, 0),
            "weight_bits": BitField(22, 4, 0),
            "taps_per_cycle": BitField(26, 4, 0),
            "lapicque": BitField(30, 1, 0),
        },
        RegisterAddress.CYCLES: {
            "value": BitField(0, 32, 0),
        },
    }
)
"""Fields of every register by name."""

MEANINGS: Mapping[ErrorBit, str] = MappingProxyType(
    {
        ErrorBit.START_BUSY: (
            "`start` while an inference was under way or ordered, or in continuous mode; ignored."
        ),
        ErrorBit.START_UNCONFIGURED: (
            "`start`, or continuous mode switched on, without a committed network; no inference "
            "begins."
        ),
        ErrorBit.START_NO_INPUT: "`start` without a whole input; ignored.",
        ErrorBit.CONFIG_BUSY: (
            "Write to `config_data` while an inference was under way or ordered, or in continuous "
            "mode; dropped."
        ),
        ErrorBit.CONFIG_RANGE: (
            "Write to `config_data` for a layer, space, core, address or decay that does not "
            "exist, dropped; or a layer in `select` that does not exist."
        ),
        ErrorBit.CONFIG_INCOMPLETE: (
            "`commit` with fewer writes than `config_writes` since `unload`; the network stays "
            "uncommitted."
        ),
        ErrorBit.INPUT_SHORT: "TLAST before the last word of an inference; the input is dropped.",
        ErrorBit.INPUT_LONG: (
            "No TLAST on the last word of an inference; the input is dropped, up to TLAST."
        ),
        ErrorBit.INPUT_STOPPED: (
            "The input stream paused for `input_timeout` cycles inside an inference; the input is "
            "dropped."
        ),
        ErrorBit.INPUT_PADDING: "Bits set beyond the last spike of a time step; they are ignored.",
        ErrorBit.BUS: (
            "Access to an address that is not there, a write to what is read only, or a write of "
            "fewer than four bytes; answered with SLVERR."
        ),
    }
)
"""What each error says."""


def pack_fields(register: RegisterAddress, **values: int) -> int:
    """Put values into the fields of a register; the others are zero.

    Parameters
    ----------
    register : RegisterAddress
        The register.
    **values : int
        By name of the field.

    Returns
    -------
    int
        The word.

    Raises
    ------
    ValueError
        If the register has no such field, or the value does not fit it.

    Examples
    --------
    >>> hex(pack_fields(RegisterAddress.CONFIG_SELECT, layer=1, core=2))
    '0x20001'
    """
    word = 0
    for name, value in values.items():
        field = FIELDS[register].get(name)
        if field is None:
            known = ", ".join(FIELDS[register])
            raise ValueError(f"{register.name} has the fields {known}, got {name}")
        if not 0 <= value < 1 << field.width:
            rule = f"{register.name}.{name} must be 0 to {(1 << field.width) - 1}"
            raise ValueError(f"{rule}, got {value}")
        word |= value << field.lsb
    return word


def unpack_fields(register: RegisterAddress, word: int) -> dict[str, int]:
    """Take the fields of a register out of a word, by name.

    Examples
    --------
    >>> unpack_fields(RegisterAddress.CONFIG_SELECT, 0x20001)
    {'layer': 1, 'space': 0, 'core': 2}
    """
    return {
        name: word >> field.lsb & (1 << field.width) - 1 for name, field in FIELDS[register].items()
    }
