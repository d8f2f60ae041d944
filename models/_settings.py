"""PyTorch's settings, for as long as results must not depend on what the caller has set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch

__all__ = ["reproducible"]

_LOCK = threading.RLock()
_T = TypeVar("_T")


@contextmanager
def reproducible() -> Iterator[None]:
    """Compute in one order and in full precision, and give the caller's settings back.

    One thread, cuDNN's fixed kernels, single precision that is neither rounded nor doubled,
    gradients, and tensors on the CPU unless they are moved. Settings and random generators belong
    to the process, so that one thread at a time may be in here; the same one may come back. On a
    CPU one thread costs a campaign nothing, since its workers run side by side.
    """
    cudnn = torch.backends.cudnn
    with _LOCK, _full_precision(), _on_cpu(), torch.inference_mode(False), torch.enable_grad():
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        flags = cudnn.deterministic, cudnn.benchmark
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            cudnn.deterministic, cudnn.benchmark = flags


@contextmanager
def _full_precision() -> Iterator[None]:
    """Round no factor to fewer bits (TF32, bfloat16).

    PyTorch has an older interface to this and, from 2.9 on, a newer one. Each refuses to be read
    where the other has said something else; so both are set to the same.
    """
    cudnn, scopes = torch.backends.cudnn, _precision_scopes()
    matmul = _or_default(torch.get_float32_matmul_precision, "highest")
    allow_tf32 = _or_default(lambda: cudnn.allow_tf32, True)
    own = []
    for scope in scopes:
        own.append(scope.fp32_precision)
        scope.fp32_precision = "none"  # so that those below tell their own and not this one
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    for scope in scopes:
        scope.fp32_precision = "ieee"
    try:
        with _autocast_off("cpu"), _autocast_off("cuda"):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32 = allow_tf32
        for scope, precision in zip(scopes, own, strict=True):
            scope.fp32_precision = precision


def _precision_scopes() -> list[Any]:
    """Give what has an `fp32_precision`; what others inherit from comes first.

    Not ``mkldnn`` as a whole: up to PyTorch 2.13 at least, setting it sets that of everything.
    """
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    cudnn, onednn = backends.cudnn, backends.mkldnn
    operations = [cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn]
    return [backends, cudnn, backends.cuda.matmul, *operations]


def _on_cpu() -> AbstractContextManager[object]:
    """Undo another default device; where there is none, cost nothing."""
    elsewhere = torch.get_default_device().type != "cpu"
    return torch.device("cpu") if elsewhere else nullcontext()


def _autocast_off(device: str) -> torch.autocast:
    """Cast only where it is asked for in here.

    Without the cache of cast weights: inside another context it outlives a step, and its weights
    with it.
    """
    return torch.autocast(device, enabled=False, cache_enabled=False)


def _or_default(read: Callable[[], _T], default: _T) -> _T:
    """Read a setting of the older interface; its default where the newer one was used."""
    try:
        return read()
    except RuntimeError:
        return default
