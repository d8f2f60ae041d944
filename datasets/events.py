"""Recordings of an event camera: who saw a change, when, and in which direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EVENT_DTYPE", "Recordings", "join"]

EVENT_DTYPE = np.dtype([("x", np.uint8), ("y", np.uint8), ("t", np.uint32), ("p", np.bool_)])
"""One event: column, row, microseconds since the start, True for ON (brighter)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recordings:
    """Events of many recordings, one behind the other.

    Attributes
    ----------
    events : ndarray of EVENT_DTYPE, shape (events,)
        Ordered by time within each recording.
    offsets : ndarray of int64, shape (recordings + 1,)
        Recording i holds ``events[offsets[i]:offsets[i + 1]]``.
    """

    events: NDArray[np.void]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.events.ndim != 1 or self.events.dtype != EVENT_DTYPE:
            raise ValueError(f"events must be 1-D of {EVENT_DTYPE}, got {self.events.dtype}")
        offsets = self.offsets
        if offsets.ndim != 1 or offsets.dtype != np.int64 or offsets.size == 0:
            raise ValueError(f"offsets must be 1-D of int64, got shape {offsets.shape}")
        if offsets[0] != 0 or offsets[-1] != self.events.size or np.any(np.diff(offsets) < 0):
            raise ValueError(f"offsets must rise from 0 to the {self.events.size} events")
        for array in (self.events, self.offsets):
            array.setflags(write=False)

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, index: int) -> NDArray[np.void]:
        if not 0 <= index < len(self):
            raise IndexError(f"recording must be in 0..{len(self) - 1}, got {index}")
        return self.events[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        return (self[index] for index in range(len(self)))


def join(parts: Sequence[Recordings]) -> Recordings:
    """Put recordings one behind the other, in the order given."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Recordings(events=np.concatenate([part.events for part in parts]), offsets=offsets)
