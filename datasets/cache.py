"""Files that save work, rebuilt when they are damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import CACHE_VARIABLE, write_whole

__all__ = ["cached"]

Arrays = Mapping[str, NDArray[Any]]
Content = TypeVar("Content")


def cached(path: Path, read: Callable[[Arrays], Content], build: Callable[[], Arrays]) -> Content:
    """Read a file of arrays; build and write it if it is missing or damaged.

    Two processes may do this at once: each writes a file of its own and moves it into place, and
    the later one replaces equal content.

    Parameters
    ----------
    path : Path
        An ``.npz`` file. Its folder is made if need be.
    read : callable
        Turns the arrays by name into the content; raises any exception if they do not fit.
    build : callable
        Makes the arrays.

    Returns
    -------
    object
        What `read` returns.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    content = _read(path, read)
    if content is None:
        arrays = build()
        _write(path, arrays)
        content = read(arrays)
    return content


def _read(path: Path, read: Callable[[Arrays], Content]) -> Content | None:
    try:
        # numpy leaves a file that it opened itself open when the end of it is missing.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return read(arrays)
    except Exception:  # damaged bytes raise almost anything, from BadZipFile to MemoryError
        return None


def _write(path: Path, arrays: Arrays) -> None:
    try:
        write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
    except InputError as error:
        raise InputError(
            f"{error}; set {CACHE_VARIABLE} to a folder that can be written"
        ) from error
