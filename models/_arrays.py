"""Arrays in ``.npz`` files: written whole or not at all, read without trust."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import RunFolderError
from ..files import write_whole

__all__ = ["read_arrays", "write_arrays"]

_LARGEST_BYTES = 2 * 2**30


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write named arrays, compressed; `InputError` if that cannot be."""
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    """Read the named arrays; `RunFolderError` if the file lacks one or is damaged."""
    try:
        _refuse_size("it takes", path.stat().st_size)
        # From memory, because numpy leaves a damaged file open.
        content = io.BytesIO(path.read_bytes())
        if not zipfile.is_zipfile(content):
            raise ValueError("it is not an .npz archive")
        with zipfile.ZipFile(content) as archive:
            _refuse_size("its arrays take", sum(part.file_size for part in archive.infolist()))
        with np.load(content, allow_pickle=False) as arrays:
            return {name: _array(name, arrays[name]) for name in names}
    except Exception as error:  # damage surfaces from zipfile, zlib, struct, tokenize, numpy, ...
        reason = getattr(error, "strerror", None) or str(error).strip("'\"") or repr(error)
        raise RunFolderError(f"cannot read {str(path)!r}: {reason}") from error


def _refuse_size(what: str, size: int) -> None:
    if size > _LARGEST_BYTES:
        raise ValueError(f"{what} {size} bytes, at most {_LARGEST_BYTES} are allowed")


def _array(name: str, member: object) -> NDArray[np.generic]:
    """Refuse what numpy hands on as it is because it does not begin like an array."""
    if not isinstance(member, np.ndarray):
        raise ValueError(f"{name} is not an array")
    return member
