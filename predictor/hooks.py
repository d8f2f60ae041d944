"""Hooks in a PyTorch module: they come off together, and no copy of it takes them along."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Hooks", "Pace", "first_tensor", "unwatched"]

_SHARE = 0.0025
"""Of the time that passes, what may be on the clock: the hooks around it take as much again."""
_IS_WATCHED = ContextVar("_IS_WATCHED", default=True)


class Hooks:
    """Hooks that go together; in a copy or a pickle of the module they do nothing."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def __bool__(self) -> bool:
        return bool(self._handles)

    def before(self, part: nn.Module, call: Callable[..., None]) -> None:
        """Call with (part, args, kwargs) before each forward of a part."""
        self._handles.append(part.register_forward_pre_hook(_Hook(call), with_kwargs=True))

    def after(self, part: nn.Module, call: Callable[..., None]) -> None:
        """Call with (part, args, kwargs, output) after each forward of a part."""
        self._handles.append(part.register_forward_hook(_Hook(call), with_kwargs=True))

    def remove(self) -> None:
        """Take all of them off; may be called again."""
        while self._handles:
            self._handles.pop().remove()


class _Hook:
    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> None:
        if _IS_WATCHED.get():
            self._call(*args)

    def __reduce__(self) -> tuple[type[_Hook], tuple[Callable[..., None]]]:
        return _Hook, (_nothing,)


def _nothing(*args: Any) -> None:
    """Stand in a copy for what watched the original."""


@contextmanager
def unwatched() -> Iterator[None]:
    """Let a module run without any monitor taking notice."""
    token = _IS_WATCHED.set(False)
    try:
        yield
    finally:
        _IS_WATCHED.reset(token)


class Pace:
    """Says which inferences to count: the first, and then not too many.

    Parameters
    ----------
    every : int or None
        One in so many; None: as many as take half a percent of the time.
    """

    def __init__(self, every: int | None) -> None:
        self.every = every
        self._inferences, self._spent, self._since = 0, 0.0, 0.0

    def start(self) -> None:
        """Begin again: what passes between epochs is no time of training."""
        self._inferences = 0

    def is_due(self) -> bool:
        """Tell whether to count the inference that begins."""
        number, self._inferences = self._inferences, self._inferences + 1
        if self.every is not None:
            return number % self.every == 0
        if number == 0:
            self._spent, self._since = 0.0, time.perf_counter()
        return self.has_time()

    def has_time(self) -> bool:
        """Tell whether counting has taken less than its share so far."""
        return self._spent <= _SHARE * (time.perf_counter() - self._since)

    @contextmanager
    def clocked(self, device: torch.device) -> Iterator[None]:
        """Count: without gradients, in full precision, and on the clock."""
        start = time.perf_counter()
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
        self._spent += time.perf_counter() - start


def first_tensor(*values: Any) -> Tensor | None:
    """Find the first tensor among arguments or outputs, nested or not."""
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, tuple | list | dict):
            inner = value.values() if isinstance(value, dict) else value
            found = first_tensor(*inner)
            if found is not None:
                return found
    return None
