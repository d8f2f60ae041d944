"""Reader of value changes (VCD) as Verilator writes them, block by block.

Verilator writes two-valued signals, and vectors at their full width; so the text of a block becomes
arrays without a loop over its lines.

References
----------
.. [1] IEEE 1800, value change dump files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .fst import Changes, Scope, Variable

__all__ = ["Declarations", "read_changes", "read_declarations"]

_BLOCK_BYTES = 1 << 24
_LONGEST_CODE = 5
_FIRST, _LETTERS = ord("!"), 94
"""Of the codes of signals: numbers of printable letters, the lowest first."""
_BIT = np.uint8(1)
"""By which the letters 0 and 1 differ."""


class Declarations(NamedTuple):
    """What stands before the changes.

    `root` has the names; `widths` the bits of each signal; `signals` the number of a signal by the
    number of its code, or -1.
    """

    root: Scope
    widths: list[int]
    signals: NDArray[np.int64]


def read_declarations(stream: IO[bytes]) -> Declarations | None:
    """Read the names of signals; None if the stream ends within them."""
    stack = [Scope(name="")]
    codes: dict[str, int] = {}
    widths: list[int] = []
    for line in stream:
        words = line.decode().split() if line.endswith(b"\n") else []
        if not words:
            continue
        if words[0] == "$scope":
            scope = Scope(name=words[2])
            stack[-1].scopes.append(scope)
            stack.append(scope)
        elif words[0] == "$upscope":
            stack.pop()
        elif words[0] == "$var":
            width, code, name = words[2], words[3], " ".join(words[4:-1])
            signal = codes.setdefault(code, len(widths))
            if signal == len(widths):
                widths.append(int(width))
            stack[-1].variables.append(Variable(name=name, signal=signal))
        elif words[0] == "$enddefinitions":
            return Declarations(root=stack[0], widths=widths, signals=_by_code(codes))
    return None


def read_changes(
    stream: IO[bytes], declared: Declarations, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[NDArray[np.int64], list[Changes]]]:
    """Read what follows the declarations.

    Parameters
    ----------
    stream : IO of bytes
        A time that is cut off at its end is left out.
    declared : Declarations
        From the same stream.
    block_bytes : int, optional
        About how much text becomes one block.

    Yields
    ------
    times : ndarray of int64
        Times of a block, rising.
    changes : list of Changes
        By signal.
    """
    rest = b""
    while text := stream.read(block_bytes):
        # What stands before the first time is blank, and times begin lines
        text = (rest + text).lstrip()
        end = text.rfind(b"\n#") + 1
        rest = text[end:]
        if end:
            yield _changes(text[:end], declared)
    if rest.endswith(b"\n"):
        yield _changes(rest, declared)


def _by_code(codes: dict[str, int]) -> NDArray[np.int64]:
    letters = np.zeros((len(codes), _LONGEST_CODE), dtype=np.int64)
    for row, code in zip(letters, codes, strict=True):
        row[: len(code)] = [ord(letter) - _FIRST + 1 for letter in code]
    numbers = letters @ (_LETTERS ** np.arange(_LONGEST_CODE))
    signals = np.full(int(numbers.max(initial=0)) + 1, -1, dtype=np.int64)
    signals[numbers] = list(codes.values())
    return signals


def _changes(text: bytes, declared: Declarations) -> tuple[NDArray[np.int64], list[Changes]]:
    """Turn the text of whole times into arrays."""
    letters = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    kinds = letters[starts]
    is_time, is_vector = kinds == ord("#"), kinds == ord("b")
    times = [
        int(text[start + 1 : end])
        for start, end in zip(starts[is_time].tolist(), ends[is_time].tolist(), strict=True)
    ]
    steps = np.cumsum(is_time) - 1
    code_starts = starts + 1
    code_starts[is_vector] = np.flatnonzero(letters == ord(" ")) + 1
    changed = is_vector | (kinds == ord("0")) | (kinds == ord("1"))
    signals = _signals(letters, code_starts[changed], ends[changed], declared.signals)
    order = np.argsort(signals.astype(np.min_scalar_type(len(declared.widths))), kind="stable")
    steps, values = steps[changed][order], (starts + is_vector)[changed][order]
    return np.array(times), list(
        _by_signal(letters, signals[order], steps, values, declared.widths)
    )


def _signals(
    letters: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    by_code: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Signal of every line, by its code."""
    numbers = np.zeros(len(starts), dtype=np.int64)
    for place in range(int((ends - starts).max(initial=0))):
        has = starts + place < ends
        letter = letters[starts[has] + place].astype(np.int64) - _FIRST + 1
        numbers[has] += letter * _LETTERS**place
    return by_code[numbers]


def _by_signal(
    letters: NDArray[np.uint8],
    signals: NDArray[np.int64],
    steps: NDArray[np.int64],
    values: NDArray[np.int64],
    widths: Sequence[int],
) -> Iterator[Changes]:
    """Split what is sorted by signal; `values` are where the bits of a change begin."""
    firsts = np.flatnonzero(np.diff(signals, prepend=-1))
    for first, past in zip(firsts, [*firsts[1:], len(signals)], strict=True):
        signal = int(signals[first])
        words = sliding_window_view(letters, widths[signal])[values[first:past]]
        yield Changes(signal, steps[first:past], words & _BIT)
