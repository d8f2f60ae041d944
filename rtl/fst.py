"""Writer of FST, the compressed waveform format that GTKWave and Surfer open.

Python alone, for two-valued signals: what changed is handed over block by block, as arrays, so that
a long simulation needs no more memory than a short one. A file of the same content is the same
bytes.

References
----------
.. [1] GTKWave, ``fstapi.c``: the blocks and their coding.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Changes", "FstWriter", "Scope", "Variable"]

_HEADER, _GEOMETRY, _HIERARCHY, _CHANGES = 0, 3, 4, 8
_MODULE, _PARAMETER, _WIRE = 0, 2, 16
_SCOPE, _UPSCOPE, _ATTRIBUTE = 254, 255, 252
_ENUM_TABLE = 7
_LEVEL = 4
"""Of zlib: higher ones take longer and save little."""
_EULER = 2.7182818284590452354
"""By which a reader tells the order of the bytes of real numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A name of a signal; a signal may have many.

    Attributes
    ----------
    name : str
        With the range of a vector, as in ``step_q [2:0]``.
    signal : int
        Number of the signal.
    constant : bool
        Whether it is a parameter.
    values : tuple of (str, str)
        Names of its values and their bits, where a viewer shall show names.
    """

    name: str
    signal: int
    constant: bool = False
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scope:
    """An instance: what a viewer shows as a folder."""

    name: str
    variables: list[Variable] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)

    def __iter__(self) -> Iterator[Scope]:
        """Give this scope and all below it."""
        yield self
        for scope in self.scopes:
            yield from scope


class Changes(NamedTuple):
    """When a signal changed within a block, and to what.

    `steps` are positions in the times of the block, rising, shape (changes,); `bits` has shape
    (changes, width), the highest bit first.
    """

    signal: int
    steps: NDArray[np.int64]
    bits: NDArray[np.uint8]


class FstWriter:
    """Writes one file: `write`, again and again, and `finish`.

    Parameters
    ----------
    file : IO of bytes
        Empty, and open for seeking.
    root : Scope
        Names of the signals; what has no name is left out.
    widths : sequence of int
        Bits of each signal.
    exponent : int
        Of the unit of time: -12 for picoseconds.
    writer : str
        Name and version of what writes.
    """

    def __init__(
        self, file: IO[bytes], root: Scope, widths: Sequence[int], *, exponent: int, writer: str
    ) -> None:
        self._file = file
        self._exponent = exponent
        self._writer = writer
        # A reader numbers signals in the order in which they are named first
        named = [variable.signal for scope in root for variable in scope.variables]
        self._handles = {signal: handle for handle, signal in enumerate(dict.fromkeys(named))}
        self._counts = (sum(1 for _ in root), len(named), len(self._handles))
        ordered = np.array([widths[signal] for signal in self._handles])
        self._starts = np.concatenate([[0], np.cumsum(ordered)])
        self._frame = np.full(self._starts[-1], ord("x"), dtype=np.uint8)
        self._span: tuple[int, int] | None = None
        self._blocks = 0
        self._write_header()
        self._write_geometry(ordered)
        self._write_names(root, widths)

    def write(self, times: NDArray[np.int64], changes: Iterable[Changes]) -> None:
        """Write a block.

        Parameters
        ----------
        times : ndarray of int64
            When anything changed: rising, and later than all times before.
        changes : iterable of Changes
            By signal. Signals begin unknown: the first block says at its first time what they are.
        """
        before = self._frame.tobytes()
        chains: dict[int, bytes] = {}
        for signal, steps, bits in changes:
            if signal not in self._handles:
                continue
            handle = self._handles[signal]
            place = slice(self._starts[handle], self._starts[handle + 1])
            self._frame[place] = bits[-1] + ord("0")
            chains[handle] = _chain(steps, bits)
        first, last = int(times[0]), int(times[-1])
        count = len(self._handles)
        packed_frame = _smaller(before)
        stored, table = _stored(chains, count)
        deltas = _varints(np.diff(times, prepend=0)).tobytes()
        packed_times = _smaller(deltas)
        self._write_block(
            _CHANGES,
            struct.pack(">3Q", first, last, sum(map(len, chains.values()))),
            *(_varint(size) for size in (len(before), len(packed_frame), count)),
            packed_frame,
            _varint(count) + b"Z",
            *stored,
            table + struct.pack(">Q", len(table)),
            packed_times,
            struct.pack(">3Q", len(deltas), len(packed_times), len(times)),
        )
        self._span = (first if self._span is None else self._span[0], last)
        self._blocks += 1

    def finish(self) -> None:
        """Complete the file."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        first, last = self._span or (0, 0)
        text = struct.pack(">b128s119s", self._exponent, self._writer.encode(), b"")
        self._write_block(
            _HEADER,
            struct.pack(">2Q", first, last) + struct.pack("<d", _EULER),
            struct.pack(">5Q", 0, *self._counts, self._blocks),
            text + struct.pack(">Bq", 0, 0),
        )

    def _write_geometry(self, widths: NDArray[np.int64]) -> None:
        coded = _varints(widths).tobytes()
        self._write_block(_GEOMETRY, struct.pack(">2Q", len(coded), len(widths)), _smaller(coded))

    def _write_names(self, root: Scope, widths: Sequence[int]) -> None:
        names = b"".join(_Names(self._handles, widths).entries(root))
        packed = gzip.compress(names, _LEVEL, mtime=0)
        self._write_block(_HIERARCHY, struct.pack(">Q", len(names)), packed)

    def _write_block(self, kind: int, *parts: bytes) -> None:
        self._file.write(struct.pack(">BQ", kind, 8 + sum(map(len, parts))))
        self._file.writelines(parts)


class _Names:
    """The entries of the hierarchy; the names of values are tables, each written once."""

    def __init__(self, handles: Mapping[int, int], widths: Sequence[int]) -> None:
        self._handles = handles
        self._widths = widths
        self._seen: set[int] = set()
        self._tables: dict[tuple[tuple[str, str], ...], int] = {}

    def entries(self, scope: Scope) -> Iterator[bytes]:
        yield struct.pack("2B", _SCOPE, _MODULE) + _text(scope.name) + _text("")
        for variable in scope.variables:
            if variable.values:
                yield from self._table(variable.values)
            signal = variable.signal
            known = self._handles[signal] + 1 if signal in self._seen else 0
            self._seen.add(signal)
            kind = _PARAMETER if variable.constant else _WIRE
            yield struct.pack("2B", kind, 0) + _text(variable.name)
            yield _varint(self._widths[signal]) + _varint(known)
        for inner in scope.scopes:
            yield from self.entries(inner)
        yield bytes([_UPSCOPE])

    def _table(self, values: tuple[tuple[str, str], ...]) -> Iterator[bytes]:
        attribute = struct.pack("3B", _ATTRIBUTE, 0, _ENUM_TABLE)
        number = self._tables.get(values)
        if number is None:
            number = self._tables[values] = len(self._tables) + 1
            names, bits = zip(*values, strict=True)
            text = " ".join([f"values{number}", str(len(names)), *names, *bits])
            yield attribute + _text(text) + _varint(number)
        yield attribute + _text("") + _varint(number)


def _chain(steps: NDArray[np.int64], bits: NDArray[np.uint8]) -> bytes:
    """Code the changes of one signal: how many times later, and the bits."""
    later = np.diff(steps, prepend=0)
    if bits.shape[1] == 1:
        return _varints(later << 2 | bits[:, 0].astype(np.int64) << 1).tobytes()
    return _varints(later << 1, np.packbits(bits, axis=1)).tobytes()


def _stored(chains: dict[int, bytes], signals: int) -> tuple[list[bytes], bytes]:
    """Chains, each compressed if that helps, and the table of where they begin."""
    stored: list[bytes] = []
    table: list[bytes] = []
    silent, gap = 0, 1  # the first chain begins behind the byte that names the compression
    for signal in range(signals):
        chain = chains.get(signal)
        if chain is None:
            silent += 1
            continue
        if silent:
            table.append(_varint(silent << 1))
            silent = 0
        table.append(_signed_varint(gap << 1 | 1))
        packed = zlib.compress(chain, _LEVEL)
        smaller = len(packed) < len(chain)
        stored.append(_varint(len(chain)) + packed if smaller else _varint(0) + chain)
        gap = len(stored[-1])
    if silent:
        table.append(_varint(silent << 1))
    return stored, b"".join(table)


def _smaller(content: bytes) -> bytes:
    """Compress, unless that makes it no shorter: readers tell by the length."""
    packed = zlib.compress(content, _LEVEL)
    return packed if len(packed) < len(content) else content


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    coded = bytearray()
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    return bytes([*coded, value])


def _signed_varint(value: int) -> bytes:
    """As `_varint`, with room for a sign, which is positive here."""
    coded = bytearray()
    while value > 63:
        coded.append(value & 127 | 128)
        value >>= 7
    return bytes([*coded, value])


def _varints(
    values: NDArray[np.int64], payloads: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Code many numbers as `_varint`, each followed by its payload, shape (values, bytes)."""
    sizes = np.ones(len(values), dtype=np.int64)
    for bits in range(7, 64, 7):
        more = values >> bits > 0
        if not more.any():
            break
        sizes += more
    extra = 0 if payloads is None else payloads.shape[1]
    starts = np.cumsum(sizes + extra) - (sizes + extra)
    coded = np.empty(int((sizes + extra).sum()), dtype=np.uint8)
    for place in range(int(sizes.max())):
        has = sizes > place
        low = values[has] >> (7 * place) & 127
        coded[starts[has] + place] = low | (sizes[has] > place + 1) << 7
    if payloads is not None:
        places = (starts + sizes)[:, None] + np.arange(extra)
        coded[places] = payloads
    return coded
