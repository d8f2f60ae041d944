"""Everything that is made from ``rtl/registers.rdl``: ``python -m spikemeter.rtl.write_registers``.

The description is SystemRDL; systemrdl-compiler reads it. Of the language this uses constants,
values that hardware gives, stored fields, commands (`singlepulse`), errors (`hwset` with `woclr`),
an address that counts (`counter`) and registers whose writes are told (`swmod`).
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import MissingToolError
from ..files import write_whole
from .generator import RTL_FOLDER

if TYPE_CHECKING:
    from systemrdl.node import FieldNode, RegNode

__all__ = ["Field", "Register", "generated_files", "main", "read_registers"]

DESCRIPTION = RTL_FOLDER / "registers.rdl"
"""The one source of the registers."""
TABLE_FILE = "registers.md"
"""Page of the documentation that holds the table."""
TABLE_BEGIN, TABLE_END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
"""Lines between which the table stands."""
ADDRESS_BITS = 7
"""Bits of a register's address in bytes."""

_TEMPLATES = ("control_registers.sv", "registers.h", "registers.py")
_WIDTH = 100

Kind = Literal["constant", "input", "stored", "command", "sticky", "counter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Some bits of a register, as the templates want them.

    Attributes
    ----------
    name, register, description : str
        Its own name and that of its register, and what it means.
    kind : str
        Who changes it: nobody, the hardware, the host; a command is never stored, a sticky bit is
        set by the hardware and cleared by the host, a counter counts what it was written.
    msb, lsb : int
        Its bits.
    reset : int
        Value after reset; 0 where the hardware gives it.
    """

    name: str
    register: str
    description: str
    kind: Kind
    msb: int
    lsb: int
    reset: int

    @property
    def width(self) -> int:
        """Bits."""
        return self.msb - self.lsb + 1

    @property
    def port(self) -> str:
        """Name of its ports, without their direction."""
        return self.register if self.name == "value" else f"{self.register}_{self.name}"

    @property
    def label(self) -> str:
        """Name in an assertion."""
        return self.port.title().replace("_", "")

    @property
    def slice(self) -> str:
        """Its bits of a word in SystemVerilog."""
        if self.width == 32:
            return ""
        return f"[{self.lsb}]" if self.width == 1 else f"[{self.msb}:{self.lsb}]"

    @property
    def bits(self) -> str:
        """Its bits in a table."""
        return str(self.lsb) if self.width == 1 else f"{self.msb}:{self.lsb}"

    @property
    def reset_literal(self) -> str:
        """Value after reset in SystemVerilog."""
        return f"{self.width}'h{self.reset:X}" if self.reset else f"{self.width}'d0"

    @property
    def value(self) -> str:
        """What a read gives in SystemVerilog."""
        if self.kind == "constant":
            return self.reset_literal
        return f"{self.port}_{'i' if self.kind == 'input' else 'o'}"

    @property
    def ports(self) -> list[tuple[str, int, str]]:
        """Direction, width and name of its ports."""
        extra = {"sticky": "set", "counter": "incr"}.get(self.kind)
        ports = [] if extra is None else [("input", 1, f"{self.port}_{extra}_i")]
        if self.kind == "input":
            ports.append(("input", self.width, f"{self.port}_i"))
        elif self.kind != "constant":
            ports.append(("output", self.width, f"{self.port}_o"))
        return ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One word of the map.

    Attributes
    ----------
    name, title : str
        Its name and what it is.
    address : int
        In bytes.
    fields : tuple of Field
        The lowest bits first.
    written : bool
        Whether the hardware is told of every write.
    """

    name: str
    title: str
    address: int
    fields: tuple[Field, ...]
    written: bool

    @property
    def writable(self) -> bool:
        """Whether the host may write it."""
        return any(field.kind not in ("constant", "input") for field in self.fields)

    @property
    def label(self) -> str:
        """Its name as a class."""
        return self.name.title().replace("_", "")

    @property
    def flags(self) -> bool:
        """Whether it is made of single bits alone."""
        return all(field.width == 1 for field in self.fields)

    @property
    def access(self) -> str:
        """What the host may do, in a word."""
        kinds = {field.kind for field in self.fields}
        if kinds == {"command"}:
            return "write"
        if kinds == {"sticky"}:
            return "read, write 1 to clear"
        return "read, write" if self.writable else "read"

    @property
    def literal(self) -> str:
        """Its address in SystemVerilog."""
        return f"{ADDRESS_BITS}'h{self.address:02X}"

    @property
    def shown(self) -> list[Field]:
        """Fields that a read gives, if they are not always zero."""
        return [
            field
            for field in self.fields
            if field.kind != "command" and (field.kind != "constant" or field.reset)
        ]

    @property
    def ports(self) -> list[str]:
        """Declarations of all ports in SystemVerilog."""
        ports = [port for field in self.fields for port in field.ports]
        if self.written:
            ports.append(("output", 1, f"{self.name}_written_o"))
        return [
            f"{way:<6} logic {'' if width == 1 else f'[{width - 1}:0]':<6} {name}"
            for way, width, name in ports
        ]


def read_registers(path: Path = DESCRIPTION) -> tuple[Register, ...]:
    """Read the registers from their description.

    Parameters
    ----------
    path : Path
        SystemRDL source of one address map.

    Returns
    -------
    tuple of Register
        By address.

    Raises
    ------
    MissingToolError
        If systemrdl-compiler is not installed.
    systemrdl.RDLCompileError
        If the description is not SystemRDL.
    """
    try:
        from systemrdl.compiler import RDLCompiler
    except ImportError as error:
        raise MissingToolError(
            "reading the registers needs systemrdl-compiler, which is not installed; install it "
            "with: pip install systemrdl-compiler"
        ) from error
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    top = compiler.elaborate().top
    return tuple(sorted(map(_register, top.registers()), key=lambda register: register.address))


def generated_files(folder: Path, table: Path) -> dict[Path, str]:
    """Write out all that is made from the description, without touching a file.

    Parameters
    ----------
    folder : Path
        Where the RTL, the C header and the Python map belong.
    table : Path
        Page that holds the table; what stands around it stays.

    Returns
    -------
    dict of Path to str
        What each file is to contain.
    """
    registers = read_registers()
    files = {folder / name: _rendered(f"{name}.j2", registers) for name in _TEMPLATES}
    page = table.read_text()
    before, _, rest = page.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    files[table] = "".join([before, TABLE_BEGIN, _table(registers), TABLE_END, after])
    return files


def main(repository: Path = RTL_FOLDER.parent) -> int:
    """Write every file that is made from the description."""
    for path, content in generated_files(
        repository / "rtl", repository / "docs" / TABLE_FILE
    ).items():
        write_whole(path, content.encode())
        print(path)
    return 0


def _register(node: RegNode) -> Register:
    fields = sorted(node.fields(), key=lambda field: field.lsb)
    return Register(
        name=node.inst_name,
        title=node.get_property("name"),
        address=node.absolute_address,
        fields=tuple(_field(field, node.inst_name) for field in fields),
        written=any(field.get_property("swmod") for field in fields),
    )


def _field(node: FieldNode, register: str) -> Field:
    reset = node.get_property("reset")
    return Field(
        name=node.inst_name,
        register=register,
        description=" ".join((node.get_property("desc") or "").split()),
        kind=_kind(node),
        msb=node.msb,
        lsb=node.lsb,
        reset=reset if isinstance(reset, int) else 0,
    )


def _kind(node: FieldNode) -> Kind:
    if node.get_property("singlepulse"):
        return "command"
    if node.get_property("onwrite") is not None:
        return "sticky"
    if node.get_property("counter"):
        return "counter"
    if node.is_sw_writable:
        return "stored"
    return "input" if node.is_hw_writable else "constant"


def _rendered(template: str, registers: tuple[Register, ...]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(RTL_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is source code
    )
    environment.filters["filled"] = _filled
    environment.filters["literal"] = _literal
    flags = [register for register in registers if register.flags]
    classes = ["BitField", "RegisterAddress", *(f"{register.label}Bit" for register in flags)]
    return environment.get_template(template).render(
        registers=registers,
        addr_width=ADDRESS_BITS,
        enables=[f"{register.name}_we" for register in registers if register.writable],
        flags=flags,
        names=["FIELDS", "MEANINGS", *sorted(classes), "pack_fields", "unpack_fields"],
    )


def _filled(text: str, indent: int, first: int | None = None) -> str:
    """Break a text into lines; the first begins at its own column."""
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * (indent if first is None else first),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
    return "\n".join(lines).lstrip()


def _literal(text: str, indent: int, first: int, after: int) -> str:
    """Write a text as a Python string, in parentheses if it takes several lines."""
    quoted = f'"{text}"'
    if first + len(quoted) + after <= _WIDTH:
        return quoted
    lines = textwrap.wrap(text, _WIDTH - indent - 7, break_on_hyphens=False)
    pad = " " * (indent + 4)
    body = "\n".join(f'{pad}"{line}{" " if line is not lines[-1] else ""}"' for line in lines)
    return f"(\n{body}\n{' ' * indent})"


def _table(registers: tuple[Register, ...]) -> str:
    lines = [
        "| address | register | bits | field | after reset | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for register in registers:
        lines.append(
            f"| `0x{register.address:02X}` | **`{register.name}`** | | | | {register.title}; "
            f"{register.access} |"
        )
        for field in register.fields:
            reset = f"`0x{field.reset:X}`" if field.reset else "0"
            shown = "" if field.kind in ("input", "command") else reset
            lines.append(f"| | | {field.bits} | `{field.name}` | {shown} | {field.description} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
