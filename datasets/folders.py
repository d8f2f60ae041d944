"""Looking at the user's folders; what the file system refuses is said in one sentence."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

__all__ = ["entries", "expanded", "fingerprint", "is_file", "is_folder"]

_END_BYTES = 4096
"""Read from the beginning and from the end of a file to tell it from others."""


def is_folder(path: Path) -> bool:
    """Whether there is a folder; refuses what cannot be told."""
    with _reading(path):
        return path.is_dir()


def is_file(path: Path) -> bool:
    """Whether there is a file; refuses what cannot be told."""
    with _reading(path):
        return path.is_file()


def entries(folder: Path) -> list[Path]:
    """List what a folder holds, in the order of names, but nothing that begins with a dot."""
    with _reading(folder):
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def expanded(named: str | Path) -> Path:
    """Replace ``~`` by the home folder that it stands for."""
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        rule = "must begin with a folder or the home of a user of this machine"
        raise InputError(f"the folder of your recordings {rule}; got {str(named)!r}") from error


def fingerprint(path: Path) -> tuple[int, int, str]:
    """Tell a file from others of its name.

    Parameters
    ----------
    path : Path
        A file.

    Returns
    -------
    tuple of int, int and str
        Its bytes, when it was last written (ns), and a hash of its first and last 4 KiB, which
        sees other content even where times are kept or made equal.
    """
    with _reading(path), path.open("rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        ends = file.read(_END_BYTES) or b""
        if state.st_size > _END_BYTES:
            file.seek(max(_END_BYTES, state.st_size - _END_BYTES))
            ends += file.read(_END_BYTES) or b""
    return state.st_size, state.st_mtime_ns, hashlib.sha256(ends).hexdigest()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: no system has such a name
        reason = getattr(error, "strerror", None) or "no file can have that name"
        raise InputError(f"cannot read {str(path)!r}: {reason}") from error
