"""Frames: what a network sees, one image per time step and channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ConfigError

__all__ = [
    "Binning",
    "DataSplits",
    "EventFrames",
    "bin_events",
    "denoised",
    "input_statistics",
    "require_binary",
]

COUNT_DTYPE = np.uint16
_MOST_EVENTS = np.iinfo(COUNT_DTYPE).max


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventFrames:
    """Labelled samples; a pixel says whether anything happened there in that step, or how often.

    Attributes
    ----------
    frames : ndarray of bool or uint16, shape (samples, time_steps, channels, height, width)
        Spikes, or numbers of events where `input.values` is ``counts``. Of two channels, 0 is OFF
        (darker) and 1 is ON (brighter).
    labels : ndarray of int64, shape (samples,)
        Class of each sample, from 0.
    """

    frames: NDArray[Any]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.frames.ndim != 5 or self.frames.dtype not in (np.bool_, COUNT_DTYPE):
            got = f"{self.frames.ndim}-D of {self.frames.dtype}"
            raise ValueError(f"frames must be 5-D of bool or uint16, got {got}")
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


def require_binary(config: Config) -> None:
    """Refuse a configuration whose frames are no spikes.

    Raises
    ------
    ConfigError
        If `input.values` is ``counts``: an accelerator takes spikes, and a network that was
        trained on anything else would not run there.
    """
    if config.input.values != "binary":
        rule = "must be binary to train or simulate, because hardware takes spikes"
        raise ConfigError(f"input.values: {rule}; got {config.input.values!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binning:
    """How the events of a recording become frames.

    Attributes
    ----------
    sensor, size : tuple of (height, width)
        Size of the sensor and of a frame, in pixels.
    channels : int
        Values of `p`, from 0.
    time_steps : int
        Frames of a recording.
    window_us : int or None
        Length of a bin in microseconds; None: `time_steps` bins of equal length share a recording.
    denoise_us : float
        Events without a neighbour in so many microseconds are dropped first; 0 keeps all.
    counts : bool
        Whether a pixel says how many events it had (at most 65,535), or only whether it had any.
    """

    sensor: tuple[int, int]
    size: tuple[int, int]
    channels: int = 2
    time_steps: int
    window_us: int | None = None
    denoise_us: float = 0.0
    counts: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the frames of one recording."""
        return (self.time_steps, self.channels, *self.size)


def bin_events(events: NDArray[np.void], binning: Binning) -> NDArray[Any]:
    """Turn one recording into frames.

    Coordinates are scaled to the frame by whole numbers (``x * width // sensor_width``). The first
    bin begins with the first event. Without a window, the time to the last event is divided into
    bins of equal whole microseconds, and what the division leaves over at the end belongs to no
    bin; with one, what comes after the last bin is left out and bins without events are empty.

    Parameters
    ----------
    events : ndarray with fields x, y, t and p, shape (events,)
        Ordered by time; `t` in microseconds.
    binning : Binning
        Settings.

    Returns
    -------
    ndarray of bool or uint16, shape (time_steps, channels, height, width)
        A recording without events has empty frames.

    Notes
    -----
    The frames are those of tonic's ``Denoise`` and ``ToFrame(n_time_bins=...)``, whose loops over
    single events take many times as long.
    """
    if binning.denoise_us > 0:
        events = denoised(events, binning.denoise_us)
    dtype = COUNT_DTYPE if binning.counts else np.bool_
    if events.size == 0:
        return np.zeros(binning.shape, dtype)
    time = events["t"].astype(np.int64)
    time -= time[0]
    window = binning.window_us
    if window is None:
        window = int(time[-1]) // binning.time_steps
    if window == 0:  # shorter than one microsecond per bin
        return np.zeros(binning.shape, dtype)
    kept = slice(int(np.searchsorted(time, window * binning.time_steps)))
    (sensor_height, sensor_width), (height, width) = binning.sensor, binning.size
    place = time[kept] // window
    for position, length in (
        (events["p"][kept].astype(np.int64), binning.channels),
        (events["y"][kept].astype(np.int64) * height // sensor_height, height),
        (events["x"][kept].astype(np.int64) * width // sensor_width, width),
    ):
        place = place * length + position
    counts = np.bincount(place, minlength=int(np.prod(binning.shape))).reshape(binning.shape)
    return np.minimum(counts, _MOST_EVENTS).astype(COUNT_DTYPE) if binning.counts else counts > 0


def denoised(events: NDArray[np.void], filter_us: float) -> NDArray[np.void]:
    """Drop events whose four neighbours were silent for some time before them.

    Parameters
    ----------
    events : ndarray with fields x, y and t, shape (events,)
        Ordered by time; `t` in microseconds.
    filter_us : float
        How long ago a neighbour's last event may be, in microseconds; this long is too long.

    Returns
    -------
    ndarray
        The events that stay.

    Notes
    -----
    The same events as tonic's ``Denoise``, without a loop: there, too, every pixel inside the
    rectangle of all events counts as having sent one at time 0.
    """
    x, y, time = (events[name].astype(np.int64) for name in ("x", "y", "t"))
    if x.size == 0:
        return events
    rows, columns, total = int(y.max()) + 1, int(x.max()) + 1, x.size
    stride = columns + 1  # a column where nothing happens parts the rows
    number = np.arange(total)
    key = (y * stride + x) * total + number  # orders events by pixel, then by time
    order = np.argsort(key)
    key = key[order]
    stays = np.zeros(total, dtype=np.bool_)
    for step_y, step_x in ((0, -1), (0, 1), (-1, 0), (1, 0)):
        there = key + (step_y * stride + step_x) * total
        # The last event of that neighbour before this one, if there is any
        before = np.searchsorted(key, there) - 1
        found = (before >= 0) & (key[before] // total == there // total)
        neighbour_y, neighbour_x = y[order] + step_y, x[order] + step_x
        inside = (neighbour_y >= 0) & (neighbour_y < rows)
        inside &= (neighbour_x >= 0) & (neighbour_x < columns)
        last = np.where(found, time[order[before]], 0)
        stays[order] |= inside & (last + filter_us > time[order])
    return events[stays]


def input_statistics(frames: EventFrames) -> NDArray[np.float64]:
    """Mean events that enter the network, as `input.statistics` of a configuration.

    Parameters
    ----------
    frames : EventFrames
        Samples, at least one.

    Returns
    -------
    ndarray of float64, shape (time_steps, channels)
        Mean number of pixels of a sample that had an event.
    """
    if len(frames) == 0:
        raise ValueError("frames must hold at least one sample, got none")
    mean: NDArray[np.float64] = np.count_nonzero(frames.frames, axis=(3, 4)).mean(axis=0)
    return mean
