"""Memory that is used again and again, and should not go back to the system in between.

Every batch of a training takes and frees the same tensors of megabytes. The C library of Linux
(glibc) returns such blocks to the system and asks for them again, and each page that comes back
costs a fault: on small networks that took longer than the arithmetic.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_memory"]

# <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**30
# What glibc itself reaches at most, as it adjusts to a program that frees large blocks.
_USUAL = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next batch while the block runs, then give it back.

    Without glibc it does nothing.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    for parameter in _USUAL:
        libc.mallopt(parameter, _MOST)
    try:
        yield
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has neither, and may allocate through something else
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
