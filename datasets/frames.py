"""Frames: what a network sees, one binary image per time step and polarity.

Binning is tonic's; tonic is imported here alone, and only when something is binned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingToolError
from .events import Recordings

__all__ = ["DataSplits", "EventFrames", "bin_recordings", "input_statistics"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventFrames:
    """Labelled samples; a pixel is set if anything happened there in that step.

    Attributes
    ----------
    frames : ndarray of bool, shape (samples, time_steps, channels, height, width)
        Channel 0 is OFF (darker), channel 1 is ON (brighter).
    labels : ndarray of int64, shape (samples,)
        Class of each sample, from 0.
    """

    frames: NDArray[np.bool_]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.frames.ndim != 5 or self.frames.dtype != np.bool_:
            got = f"{self.frames.ndim}-D of {self.frames.dtype}"
            raise ValueError(f"frames must be 5-D of bool, got {got}")
        if self.labels.shape != self.frames.shape[:1] or self.labels.dtype != np.int64:
            got = f"{self.labels.dtype} of shape {self.labels.shape}"
            raise ValueError(f"labels must be {len(self.frames)} numbers of int64, got {got}")
        for array in (self.frames, self.labels):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSplits:
    """Samples to learn from, to choose by, and to report on; no sample is in two of them."""

    train: EventFrames
    validation: EventFrames
    test: EventFrames


def bin_recordings(
    recordings: Recordings,
    *,
    sensor: tuple[int, int],
    size: tuple[int, int],
    time_steps: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.bool_]:
    """Turn every recording into frames.

    Coordinates are scaled to the frame by whole numbers (``x * width // sensor_width``), then
    tonic's ``ToFrame`` cuts each recording, from its first event to its last, into bins of equal
    whole microseconds. What the division leaves over at the end belongs to no bin.

    Parameters
    ----------
    recordings : Recordings
        Events.
    sensor, size : tuple of (height, width)
        Size of the sensor and of a frame, in pixels.
    time_steps : int
        Bins per recording.
    on_progress : callable, optional
        Called with (recordings done, recordings).

    Returns
    -------
    ndarray of bool, shape (recordings, time_steps, 2, height, width)
        Channel 0 is OFF, channel 1 is ON. A recording without events has empty frames.

    Raises
    ------
    MissingToolError
        If tonic is not installed.
    """
    try:
        from tonic.transforms import ToFrame
    except ImportError as error:
        raise MissingToolError(
            "binning events needs tonic, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error
    to_frame = ToFrame(sensor_size=(size[1], size[0], 2), n_time_bins=time_steps)
    frames = np.zeros((len(recordings), time_steps, 2, *size), dtype=np.bool_)
    for index, events in enumerate(recordings):
        if events.size:
            # A scaled copy, so that ToFrame may do with it what it likes.
            frames[index] = to_frame(_scaled(events, sensor, size)) > 0
        if on_progress is not None:
            on_progress(index + 1, len(recordings))
    return frames


def input_statistics(frames: EventFrames) -> NDArray[np.float64]:
    """Mean events that enter the network, as `input.statistics` of a configuration.

    Parameters
    ----------
    frames : EventFrames
        Samples, at least one.

    Returns
    -------
    ndarray of float64, shape (time_steps, channels)
        Mean number of set pixels of a sample.
    """
    if len(frames) == 0:
        raise ValueError("frames must hold at least one sample, got none")
    mean: NDArray[np.float64] = np.count_nonzero(frames.frames, axis=(3, 4)).mean(axis=0)
    return mean


_SCALED_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.bool_)])


def _scaled(
    events: NDArray[np.void], sensor: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.void]:
    """Copy events to a smaller grid, in types wide enough for the products."""
    scaled = np.empty(events.size, _SCALED_DTYPE)
    scaled["x"] = events["x"].astype(np.int64) * size[1] // sensor[1]
    scaled["y"] = events["y"].astype(np.int64) * size[0] // sensor[0]
    scaled["t"], scaled["p"] = events["t"], events["p"]
    return scaled
