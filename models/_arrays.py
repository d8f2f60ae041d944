"""Arrays in ``.npz`` files: written whole or not at all, read without trust."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ..errors import RunFolderError

__all__ = ["read_arrays", "write_arrays"]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write named arrays, compressed, under a temporary name first."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    """Read the named arrays; `RunFolderError` if the file lacks one or is damaged."""
    try:
        # From memory, because numpy leaves a damaged file open.
        archive = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ValueError("it is not an .npz archive")
        with archive:
            return {name: archive[name] for name in names}
    except Exception as error:  # damage surfaces from zipfile, zlib, struct, tokenize, numpy, ...
        reason = getattr(error, "strerror", None) or str(error).strip("'\"") or repr(error)
        raise RunFolderError(f"cannot read {str(path)!r}: {reason}") from error
