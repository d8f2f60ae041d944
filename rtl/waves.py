"""What every signal of the RTL does, as a waveform file with names that a reader knows.

Verilator writes value changes; here scopes get the names of layers, states and buckets the names
of their values, and times the period of the clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from .fst import Changes, FstWriter, Scope, Variable
from .vcd import Declarations, read_changes, read_declarations

__all__ = ["BUCKET_VALUES", "check_waves", "value_names", "write_waves"]

BUCKET_VALUES = (
    ("idle", "0000"),
    ("encode", "0001"),
    ("accumulate", "0010"),
    ("fire", "0100"),
    ("stall", "1000"),
)
"""Names of what a layer does in a cycle, and the bits of its ``bucket_o``."""

_Values = Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]]

_PICOSECONDS = 1_000_000
"""Of a microsecond."""
_CYCLE_BITS = 32
_FST_BEGIN = bytes([0]) + (329).to_bytes(8, "big")
_ENUM = re.compile(r"typedef enum logic \[(\d+):0\] \{([\w\s,]+)\} (\w+);")
_DECLARED = r"^\s*{}\s+([\w\s,]+);"
_BLOCK = re.compile(r"gen_(\w+?)(?:\[(\d+)\])?")
_OF_LAYER = (
    ("step", "event_control", "step_q"),
    ("state", "event_control", "state_q"),
    ("bucket", None, "bucket_o"),
)
"""What the overview shows of a layer: its name there, and the instance and signal that it is."""


def check_waves(path: Path, shown: int, *, samples: int, runner: str) -> None:
    """Refuse waves that cannot be written, before anything is built.

    Parameters
    ----------
    path : Path
        File to write.
    shown, samples : int
        Samples that it shall show, and samples there are.
    runner : str
        What simulates them.

    Raises
    ------
    InputError
        If the file does not end in .fst, its folder is missing, or it is there and is no FST file;
        or if runner or samples do not allow it.
    """
    if runner != "native":
        raise InputError(f"runner: must be native to record waves, got {runner!r}")
    if not 1 <= shown <= samples:
        rule = f"must be 1 to {samples}, the samples that are simulated"
        raise InputError(f"waves_samples: {rule}; got {shown}")
    if path.suffix != ".fst":
        raise InputError(f"waves: must be a file that ends in .fst, got {str(path)!r}")
    if not path.parent.is_dir():
        raise InputError(f"waves: must be in a folder that exists, got {str(path)!r}")
    if path.exists() and not path.is_file():
        raise InputError(f"waves: must be a plain file, got {str(path)!r}")
    if path.exists():
        with path.open("rb") as file:
            begin = file.read(len(_FST_BEGIN))
        if begin != _FST_BEGIN:
            rule = "must not exist, or be a waveform, since what it holds would be lost"
            raise InputError(f"waves: {rule}; got {str(path)!r}")


def value_names(modules: Mapping[str, str]) -> _Values:
    """Read the names of states from SystemVerilog.

    Parameters
    ----------
    modules : mapping of str to str
        Source of each module.

    Returns
    -------
    dict of str to dict of str to tuple of (str, str)
        By module and variable, the names of its values and their bits.
    """
    named: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {}
    for module, source in modules.items():
        for high, names, kind in _ENUM.findall(source):
            values = tuple(
                (name.strip(), format(value, f"0{int(high) + 1}b"))
                for value, name in enumerate(names.split(","))
            )
            for variables in re.findall(_DECLARED.format(kind), source, flags=re.MULTILINE):
                for variable in variables.split(","):
                    named.setdefault(module, {})[variable.strip()] = values
    return named


def write_waves(
    stream: IO[bytes], file: IO[bytes], config: Config, values: _Values, *, writer: str
) -> None:
    """Turn value changes into a waveform, while they arrive.

    A stream that ends before its names leaves nothing; what wrote it then says why.

    Parameters
    ----------
    stream : IO of bytes
        What ``rtl/native_main.cpp`` writes; its time counts half cycles.
    file : IO of bytes
        Empty, and open for seeking.
    config : Config
        Names the layers and gives the clock.
    values : mapping
        From `value_names`.
    writer : str
        Name and version of what simulates.
    """
    declared = read_declarations(stream)
    if declared is None:
        return
    top = _named(declared, config, values)
    cycle = len(declared.widths)
    widths = [*declared.widths, _CYCLE_BITS]
    fst = FstWriter(file, top, widths, exponent=-12, writer=writer)
    for halves, changes in read_changes(stream, declared):
        times = np.rint(halves * (_PICOSECONDS / 2 / config.hardware.clock_mhz))
        fst.write(times.astype(np.int64), [*changes, _cycles(cycle, halves)])
    fst.finish()


def _cycles(signal: int, halves: NDArray[np.int64]) -> Changes:
    """Count cycles, from the rising edge in which the first inference begins."""
    edges = np.flatnonzero(halves % 2 == 0)
    counted = (halves[edges] // 2).astype(">u4").view(np.uint8).reshape(-1, _CYCLE_BITS // 8)
    return Changes(signal, edges, np.unpackbits(counted, axis=1))


def _named(declared: Declarations, config: Config, values: _Values) -> Scope:
    """Lay out what Verilator names by instance: an overview, then layers and buffers."""
    found = declared.root.scopes[0].scopes[0]  # within what Verilator calls TOP
    of_layers = [layer.name.partition(":")[2] for layer in config.layers]
    names = {"u_buffer_0": "buffer0_input"}
    for index, of_layer in enumerate(of_layers):
        names[f"u_layer_{index}"] = f"layer{index}_{of_layer}"
        names[f"u_buffer_{index + 1}"] = f"buffer{index + 1}_{of_layer}"
    top = _tidy(found, found.name, {}, values, names)
    cycle = Variable(name=f"cycle [{_CYCLE_BITS - 1}:0]", signal=len(declared.widths))
    overview = Scope(name="overview", variables=[_alias(top, "clk_i", "clk"), cycle])
    for index in range(len(of_layers)):
        layer = _inner(top, names[f"u_layer_{index}"])
        for label, instance, signal in reversed(_OF_LAYER):
            owner = layer if instance is None else _inner(layer, instance)
            layer.variables.insert(0, _alias(owner, signal, label))
        overview.variables.extend(
            replace(variable, name=f"{layer.name}_{variable.name}")
            for variable in layer.variables[: len(_OF_LAYER)]
        )
    overview.variables.append(_alias(top, "done_o", "done"))
    top.scopes.insert(0, overview)
    return top


def _tidy(
    found: Scope,
    name: str,
    values_here: Mapping[str, tuple[tuple[str, str], ...]],
    values: _Values,
    names: Mapping[str, str],
) -> Scope:
    """Copy a scope under another name; generate blocks become part of what they stand in."""
    scope = Scope(name=name)
    for variable in found.variables:
        base = _base(variable)
        if not base.startswith("unused_"):
            constant, values_of = base[0].isupper(), values_here.get(base, ())
            scope.variables.append(replace(variable, constant=constant, values=values_of))
    for inner in found.scopes:
        block = _BLOCK.fullmatch(inner.name)
        if block is None:
            plain = inner.name.removeprefix("u_")
            here = values.get(plain, {})
            scope.scopes.append(_tidy(inner, names.get(inner.name, plain), here, values, names))
            continue
        tidied = _tidy(inner, f"{block[1]}{block[2] or ''}", values_here, values, names)
        if block[2] is None:
            _absorb(scope, tidied)
            continue
        if len(tidied.scopes) == 1:  # one of many instances
            _absorb(tidied, tidied.scopes.pop())
        scope.scopes.append(tidied)
    return scope


def _absorb(scope: Scope, inner: Scope) -> None:
    """Take over what a scope holds, if no two things then have one name."""
    taken, new = (
        {*map(_base, each.variables), *(within.name for within in each.scopes)}
        for each in (scope, inner)
    )
    if taken & new:
        scope.scopes.append(inner)
        return
    scope.variables.extend(inner.variables)
    scope.scopes.extend(inner.scopes)


def _alias(scope: Scope, signal: str, name: str) -> Variable:
    """Another name for a signal; the range stays."""
    variable = next(each for each in scope.variables if _base(each) == signal)
    values = BUCKET_VALUES if name == "bucket" else variable.values
    return replace(variable, name=name + variable.name[len(signal) :], values=values)


def _inner(scope: Scope, name: str) -> Scope:
    return next(each for each in scope.scopes if each.name == name)


def _base(variable: Variable) -> str:
    return variable.name.split(" ")[0]
