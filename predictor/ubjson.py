"""Universal Binary JSON as XGBoost writes it, read without trusting it.

A predictor may come from a stranger, and XGBoost's own reader takes what it is given. Here every
length is held against the bytes that are there before anything is made of it, and nesting and the
number of values are bounded.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

__all__ = ["read_ubjson", "write_ubjson"]

_MOST_NESTED = 16
_MOST_VALUES = 200_000
"""An array of one type of number is one value, whatever its length."""

_NUMBERS = {"i": "b", "U": "B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
_ARRAYS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_WORDS = {"Z": None, "T": True, "F": False}
_MARKERS = {np.dtype(form): marker for marker, form in _ARRAYS.items()}


def read_ubjson(content: bytes) -> Any:
    """Read one value.

    Parameters
    ----------
    content : bytes
        UBJSON, draft 12: objects, arrays, strings and numbers; of optimised containers the arrays
        with a length, typed or not.

    Returns
    -------
    dict, list, ndarray, str, int, float, bool or None
        Arrays of one type of number come as ndarrays.

    Raises
    ------
    ValueError
        If the bytes are anything else, end early or go on, or hold too many values.
    """
    reader = _Reader(content)
    value = reader.value(0)
    if reader.at != len(content):
        raise ValueError(f"{len(content) - reader.at} bytes follow the end")
    return value


def write_ubjson(value: Any) -> bytes:
    """Write one value, so that `read_ubjson` and XGBoost read it.

    Parameters
    ----------
    value : dict, list, ndarray, str or int
        Of these throughout; arrays have one axis and a type that XGBoost writes. Numbers become
        64-bit ones.

    Returns
    -------
    bytes
        The same for the same value.
    """
    if isinstance(value, dict):
        items = (_sized(name.encode()) + write_ubjson(each) for name, each in value.items())
        return b"{" + b"".join(items) + b"}"
    if isinstance(value, list):
        return b"[#" + write_ubjson(len(value)) + b"".join(map(write_ubjson, value))
    if isinstance(value, np.ndarray):
        big = value.astype(value.dtype.newbyteorder(">"))
        return b"[$" + _MARKERS[big.dtype].encode() + b"#" + write_ubjson(len(big)) + big.tobytes()
    if isinstance(value, str):
        return b"S" + _sized(value.encode())
    return b"L" + struct.pack(">q", value)


def _sized(text: bytes) -> bytes:
    return write_ubjson(len(text)) + text


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._values = 0
        self.at = 0

    def value(self, depth: int) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ValueError(f"there are more than {_MOST_VALUES} values")
        return self._of_type(self._marker(), depth)

    def _of_type(self, marker: str, depth: int) -> Any:
        if depth > _MOST_NESTED:
            raise ValueError(f"values are nested more than {_MOST_NESTED} deep")
        if marker == "{":
            return self._object(depth)
        if marker == "[":
            return self._array(depth)
        if marker == "S":
            return self._text()
        if marker in _NUMBERS:
            return self._number(marker)
        if marker in _WORDS:
            return _WORDS[marker]
        raise ValueError(f"{marker!r} at byte {self.at - 1} is no type")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._peek() != "}":
            name = self._text()
            if name in found:
                raise ValueError(f"the key {name[:40]!r} stands twice in an object")
            found[name] = self.value(depth + 1)
        self._marker()
        return found

    def _array(self, depth: int) -> Any:
        kind = ""
        if self._peek() == "$":
            self._marker()
            kind = self._marker()
            if self._peek() != "#":
                raise ValueError(f"an array of {kind!r} has no length")
        if self._peek() == "#":
            self._marker()
            count = self._length()
            if kind in _ARRAYS:
                size = np.dtype(_ARRAYS[kind]).itemsize
                return np.frombuffer(self._take(count * size), dtype=_ARRAYS[kind])
            if kind or count > len(self._content) - self.at:  # a value takes a byte or more
                raise ValueError(f"an array of {count} values of type {kind!r}")
            return [self.value(depth + 1) for _ in range(count)]
        items = []
        while self._peek() != "]":
            items.append(self.value(depth + 1))
        self._marker()
        return items

    def _text(self) -> str:
        try:
            return self._take(self._length()).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"text before byte {self.at} is not UTF-8") from error

    def _length(self) -> int:
        marker = self._marker()
        if marker not in "iUIlL":
            raise ValueError(f"a length of type {marker!r} at byte {self.at - 1}")
        length = self._number(marker)
        if length < 0:
            raise ValueError(f"a length of {length} before byte {self.at}")
        return int(length)

    def _number(self, marker: str) -> Any:
        form = _NUMBERS[marker]
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _marker(self) -> str:
        return chr(self._take(1)[0])

    def _peek(self) -> str:
        if self.at >= len(self._content):
            raise ValueError("the bytes end in the middle of a value")
        return chr(self._content[self.at])

    def _take(self, count: int) -> bytes:
        if count > len(self._content) - self.at:
            raise ValueError("the bytes end in the middle of a value")
        self.at += count
        return self._content[self.at - count : self.at]
