"""Memory that is used again and again, and should not go back to the system in between.

Every batch of a training takes and frees the same tensors of megabytes. The C library of Linux
(glibc) returns such blocks to the system and asks for them again, and each page that comes back
costs a fault: on small networks that took longer than the arithmetic.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["kept_memory"]

# <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**30


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next batch while the block runs, then give it back.

    glibc is told once, and stays told for as long as the process lives: it does not say what its
    thresholds were, so nobody could restore them. Without glibc, and where the environment has
    settings of its own for it (``MALLOC_...``, ``glibc.malloc...``), nothing is done.
    """
    libc = None if _is_set_by_user() else _glibc()
    if libc is None:
        yield
        return
    _keep_freed_memory(libc)
    try:
        yield
    finally:
        libc.malloc_trim(0)


@cache
def _keep_freed_memory(libc: ctypes.CDLL) -> None:
    for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        libc.mallopt(parameter, _MOST)


def _is_set_by_user() -> bool:
    named = any(name.startswith("MALLOC_") for name in os.environ)
    return named or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has neither, and may allocate through something else
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
