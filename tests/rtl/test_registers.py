"""The map of registers: one description, and what is made from it."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from spikemeter.config import load_config
from spikemeter.errors import EngineError, MissingToolError
from spikemeter.rtl.driver import EngineDriver
from spikemeter.rtl.generator import RTL_FOLDER
from spikemeter.rtl.registers import (
    FIELDS,
    MEANINGS,
    ErrorBit,
    RegisterAddress,
    pack_fields,
    unpack_fields,
)
from spikemeter.rtl.write_registers import TABLE_FILE, generated_files, read_registers

RTL = RTL_FOLDER.resolve()
TABLE = RTL.parent / "docs" / TABLE_FILE


def test_what_is_made_from_the_description_is_up_to_date() -> None:
    files = generated_files(RTL, TABLE)
    assert {path.name for path in files} == {
        "control_registers.sv", "registers.h", "registers.py", "registers.md"
    }  # fmt: skip
    for path, content in files.items():
        assert path.read_text() == content, f"{path.name} is stale: make registers"


def test_no_bits_overlap_and_every_one_is_described() -> None:
    registers = read_registers()
    addresses = [register.address for register in registers]
    assert addresses == sorted(set(addresses))
    assert not any(address % 4 for address in addresses)
    for register in registers:
        for lower, upper in itertools.pairwise(register.fields):
            assert lower.msb < upper.lsb, (register.name, lower.name, upper.name)
        assert all(field.description.endswith(".") for field in register.fields)


@pytest.mark.rtl
def test_the_c_header_says_the_same_as_the_python_map(tmp_path: Path) -> None:
    lines = ['extern "C" {', '#include "registers.h"', "}"]
    for register, fields in FIELDS.items():
        lines.append(f"static_assert(SPIKEMETER_{register.name}_OFFSET == {int(register)}u);")
        for name, field in fields.items():
            macro = f"SPIKEMETER_{register.name}" + ("" if name == "value" else f"_{name.upper()}")
            mask = (1 << field.width) - 1 << field.lsb
            lines.append(f"static_assert({macro}_LSB == {field.lsb} && {macro}_MASK == {mask}u);")
            if field.reset:
                lines.append(f"static_assert({macro}_RESET == {field.reset}u);")
    source = tmp_path / "same.cpp"
    source.write_text("\n".join(lines))
    command = ["g++", "-std=c++17", "-Wall", "-Werror", "-fsyntax-only", "-I", str(RTL)]
    subprocess.run([*command, str(source)], check=True)


def test_fields_come_out_of_a_word_as_they_went_in() -> None:
    for register, fields in FIELDS.items():
        largest = {name: (1 << field.width) - 1 for name, field in fields.items()}
        assert unpack_fields(register, pack_fields(register, **largest)) == largest
        assert unpack_fields(register, 0) == dict.fromkeys(fields, 0)


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"SELECT.layer must be 0 to 255, got 256"):
        pack_fields(RegisterAddress.SELECT, layer=256)
    with pytest.raises(ValueError, match=r"SELECT.layer must be 0 to 255, got -1"):
        pack_fields(RegisterAddress.SELECT, layer=-1)
    with pytest.raises(ValueError, match=r"SELECT has the fields layer, bucket, got core"):
        pack_fields(RegisterAddress.SELECT, core=1)


def test_every_error_has_a_meaning() -> None:
    assert list(MEANINGS) == list(ErrorBit)


def test_a_missing_compiler_of_descriptions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "systemrdl.compiler", None)
    with pytest.raises(MissingToolError, match=r"pip install systemrdl-compiler"):
        read_registers()


class Emptiness:
    """A bus on which nothing answers; it waits for no clock."""

    async def read(self, address: int) -> int:
        return 0xFFFF_FFFF

    async def write(self, address: int, word: int) -> None:
        pass

    async def send(self, words: Sequence[int]) -> None:
        pass

    async def receive(self) -> list[int]:
        return []


def test_the_driver_needs_no_simulator_and_no_board() -> None:
    config = load_config(
        {
            "network": "3",
            "input": {
                "height": 1, "width": 1, "channels": 1, "time_steps": 1, "statistics": [[0.0]]
            },
        }
    )  # fmt: skip
    driver = EngineDriver(Emptiness(), config)
    with pytest.raises(EngineError, match=r"id must be 0x53504B4D of an engine, got 0xFFFFFFFF"):
        asyncio.run(driver.sizes())
    with pytest.raises(EngineError, match=r"a result must have 1 words, got 0"):
        asyncio.run(driver.receive())
