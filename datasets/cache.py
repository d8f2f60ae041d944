"""Files that save work: written whole or not at all, and rebuilt when they are damaged."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingToolError

__all__ = ["CACHE_VARIABLE", "cache_folder", "cached"]

CACHE_VARIABLE = "SPIKEMETER_CACHE"
"""Environment variable that names another folder for the cache."""

Arrays = Mapping[str, NDArray[Any]]
Content = TypeVar("Content")


def cache_folder() -> Path:
    """Folder of the cached data: the user's cache, unless the environment names another."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise MissingToolError(
            "caching data needs platformdirs, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error
    return user_cache_path("spikemeter")


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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write the data cache {str(path)!r}: {error.strerror}; "
            f"set {CACHE_VARIABLE} to a folder that can be written"
        ) from error
