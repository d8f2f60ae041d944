"""A simulated event camera that looks at still images while it moves, as N-MNIST was recorded.

Each pixel follows the standard model of a dynamic vision sensor. It remembers a level of the
logarithm of the light; whenever the light has moved from it by the contrast threshold, the memory
follows by one threshold and the pixel sends an event (ON for brighter, OFF for darker), unless it
sent one less than the refractory period ago. A leak lets the memory drift, so that a pixel which
sees no change sends ON events at a low rate; where in that drift it stands when a recording starts
is random.

Everything is computed with additions, multiplications and table look-ups in a fixed order, so that
every machine sees the same events (vectorised logarithms differ in their last bit).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .events import EVENT_DTYPE, Recordings, join

__all__ = ["SaccadeCamera", "camera_path", "record"]

_BATCH = 16  # images whose working arrays stay together in the second-level cache
_GREYS = 2**14  # steps of the logarithm's table; an error below 0.001 of the threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class SaccadeCamera:
    """Settings of the camera and of its movement.

    Attributes
    ----------
    height, width : int
        Sensor size in pixels, at most 256.
    path_px : tuple of (x, y)
        Points that the image's upper left corner visits on the sensor, in straight lines; x to the
        right, y down, not negative.
    saccade_us : int
        Time from one point to the next in microseconds; the speed is a raised cosine.
    step_us : int
        Time between two looks at the image in microseconds; light changes linearly between.
    black_level : float
        Light of a full stroke, where the screen around it has 1; in (0, 1).
    blur_px : float
        Standard deviation of the optics' blur in pixels, at most 0.7: a kernel of three taps.
    threshold : float
        Change of the natural logarithm of the light that makes an event.
    mismatch : float
        Standard deviation of the threshold over pixels, relative, fixed for the sensor.
    refractory_us : float
        Time after an event in which a pixel sends no other, in microseconds.
    leak_hz : float
        Rate of ON events of a pixel that sees no change.
    seed : int
        The sensor's mismatch comes from `seed`, the noise of image i from (`seed`, i).

    Notes
    -----
    The defaults imitate N-MNIST [1]_: a dark digit on a bright screen seen by a 34 x 34 sensor in
    three saccades. The blur, and that light goes on moving the memory in the refractory period,
    were chosen so that intervals between events resemble those of one genuine recording: without
    blur they come out a fifth too short. What resembles that recording is thus fitted, not found.

    References
    ----------
    .. [1] Orchard, Jayawant, Cohen, Thakor, "Converting static image datasets to spiking
       neuromorphic datasets using saccades", Frontiers in Neuroscience 9:437, 2015.
    .. [2] Lichtsteiner, Posch, Delbruck, "A 128x128 120 dB 15 us latency asynchronous temporal
       contrast vision sensor", IEEE Journal of Solid-State Circuits 43(2), 2008.
    """

    height: int = 34
    width: int = 34
    path_px: tuple[tuple[float, float], ...] = ((0.0, 0.0), (3.5, 7.0), (7.0, 0.0), (0.0, 0.0))
    saccade_us: int = 105_000
    step_us: int = 1_000
    black_level: float = 0.1
    blur_px: float = 0.5
    threshold: float = 0.38
    mismatch: float = 0.05
    refractory_us: float = 1_700.0
    leak_hz: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        _require(1 <= self.height <= 256, "height", "in 1..256", self.height)
        _require(1 <= self.width <= 256, "width", "in 1..256", self.width)
        _require(len(self.path_px) >= 2, "path_px", "two points or more", self.path_px)
        _require(min(map(min, self.path_px)) >= 0, "path_px", "not negative", self.path_px)
        whole = self.step_us > 0 and self.saccade_us > 0 and self.saccade_us % self.step_us == 0
        _require(whole, "step_us", f"a divisor of saccade_us, {self.saccade_us}", self.step_us)
        _require(0 < self.black_level < 1, "black_level", "in (0, 1)", self.black_level)
        _require(0 <= self.blur_px <= 0.7, "blur_px", "in 0..0.7", self.blur_px)
        _require(self.threshold > 0, "threshold", "positive", self.threshold)
        _require(0 <= self.mismatch < 0.2, "mismatch", "in [0, 0.2)", self.mismatch)
        _require(self.refractory_us >= 0, "refractory_us", "not negative", self.refractory_us)
        _require(self.leak_hz >= 0, "leak_hz", "not negative", self.leak_hz)
        _require(self.seed >= 0, "seed", "not negative", self.seed)


def camera_path(camera: SaccadeCamera) -> NDArray[np.float64]:
    """Where the image stands on the sensor at every step.

    Parameters
    ----------
    camera : SaccadeCamera
        Settings.

    Returns
    -------
    ndarray of float64, shape (steps + 1, 2)
        x and y of the image's upper left corner in pixels, from the start to the end.
    """
    steps = camera.saccade_us // camera.step_us
    done = [k / steps - math.sin(2 * math.pi * k / steps) / (2 * math.pi) for k in range(steps)]
    share = np.array(done)[:, None]
    points = np.array(camera.path_px)
    legs = [start + share * (end - start) for start, end in pairwise(points)]
    return np.concatenate([*legs, points[-1:]]).round(6)


def record(
    camera: SaccadeCamera,
    images: NDArray[np.uint8],
    numbers: Sequence[int] | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Recordings:
    """Show every image to the moving camera.

    Parameters
    ----------
    camera : SaccadeCamera
        Settings.
    images : ndarray of uint8, shape (images, height, width)
        Grey values; 0 is the bright screen, 255 a full stroke.
    numbers : sequence of int, optional
        Number of each image in its collection, which chooses its noise; by default 0, 1, 2...
    on_progress : callable, optional
        Called with (images done, images).

    Returns
    -------
    Recordings
        One for each image, in their order; independent of which images are recorded together.

    Raises
    ------
    ValueError
        If `images` is not a stack of 8-bit images or `numbers` does not number each of them.
    """
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be 3-D of uint8, got {images.ndim}-D of {images.dtype}")
    total = len(images)
    numbers = range(total) if numbers is None else numbers
    if len(numbers) != total:
        raise ValueError(f"numbers must number the {total} images, got {len(numbers)}")
    parts = [Recordings(events=np.empty(0, EVENT_DTYPE), offsets=np.zeros(1, np.int64))]
    for start in range(0, total, _BATCH):
        batch = slice(start, start + _BATCH)
        parts.append(_record_batch(camera, images[batch], numbers[batch]))
        if on_progress is not None:
            on_progress(min(start + _BATCH, total), total)
    return join(parts)


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} of the camera must be {rule}, got {value}")


def _record_batch(
    camera: SaccadeCamera, images: NDArray[np.uint8], numbers: Sequence[int]
) -> Recordings:
    """Record images side by side, as one large sensor."""
    levels = _levels(camera, images)
    leak = camera.leak_hz * camera.step_us * 1e-6  # drift per step, in thresholds
    before = next(levels).copy()
    pixels = _Pixels(
        memory=(before - _phases(camera, numbers)).ravel(), refractory=camera.refractory_us
    )
    for step, after in enumerate(levels):
        after += np.float32(leak * (step + 1))
        pixels.advance(before.ravel(), after.ravel(), step * camera.step_us, camera.step_us)
        np.copyto(before, after)
    return _sorted_recordings(camera, len(images), *pixels.sent())


def _phases(camera: SaccadeCamera, numbers: Sequence[int]) -> NDArray[np.float32]:
    """Share of the threshold that the leak has already used up when the recording starts."""
    size = (camera.height, camera.width)
    seeds = (np.random.SeedSequence(camera.seed, spawn_key=(number,)) for number in numbers)
    return np.stack([np.random.default_rng(seed).random(size, np.float32) for seed in seeds])


def _levels(camera: SaccadeCamera, images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """Logarithm of the light on every pixel at every step, in units of the pixel's threshold.

    The image is moved by parts of a pixel with bilinear interpolation. Yields the same array, of
    shape (images, height, width), again and again.
    """
    path = camera_path(camera)
    margin = math.ceil(path.max()) + 2
    side = margin + max(camera.height, camera.width, *images.shape[1:]) + 1
    canvas = np.zeros((len(images), side, side), np.float32)
    canvas[:, margin:, margin:][:, : images.shape[1], : images.shape[2]] = images
    canvas *= np.float32((_GREYS - 1) / 255)
    _blur(canvas, np.float32(camera.blur_px**2 / 2))
    light = 1 - (1 - camera.black_level) * np.arange(_GREYS) / (_GREYS - 1)
    table = np.log(light).astype(np.float32)
    spread = np.random.default_rng(camera.seed).standard_normal((camera.height, camera.width))
    gain = (1 / (camera.threshold * (1 + camera.mismatch * spread))).astype(np.float32)

    rows = np.empty((len(images), camera.height, camera.width + 1), np.float32)
    row_part = np.empty_like(rows)
    grey = np.empty((len(images), camera.height, camera.width), np.float32)
    index = np.empty(grey.shape, np.intp)
    level = np.empty_like(grey)
    for x, y in path:
        left, top = math.ceil(x), math.ceil(y)
        part_x, part_y = np.float32(left - x), np.float32(top - y)
        window = canvas[:, margin - top :, margin - left :]
        upper = window[:, : camera.height, : camera.width + 1]
        lower = window[:, 1 : camera.height + 1, : camera.width + 1]
        np.subtract(lower, upper, out=row_part)
        np.multiply(row_part, part_y, out=row_part)
        np.add(row_part, upper, out=rows)
        np.subtract(rows[:, :, 1:], rows[:, :, :-1], out=grey)
        np.multiply(grey, part_x, out=grey)
        np.add(grey, rows[:, :, :-1], out=grey)
        np.rint(grey, out=index, casting="unsafe")
        np.take(table, index, out=level, mode="clip")
        np.multiply(level, gain, out=level)
        yield level


def _blur(canvas: NDArray[np.float32], share: np.float32) -> None:
    """Give `share` of every pixel's grey to each neighbour: down and up, then right and left."""
    for axis in (1, 2):
        flow = share * np.diff(canvas, axis=axis)
        ahead, behind = (
            (slice(None),) * axis + (slice(1, None),),
            (slice(None),) * axis + (slice(-1),),
        )
        canvas[behind] += flow
        canvas[ahead] -= flow


class _Pixels:
    """State of all pixels of a batch, side by side, in units of each pixel's threshold."""

    def __init__(self, *, memory: NDArray[np.float32], refractory: float) -> None:
        self.memory = memory
        self.refractory = refractory
        self.blind_until = np.full(memory.size, -np.inf)
        self.change = np.empty_like(memory)
        self.events: list[tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]] = []

    def advance(
        self, before: NDArray[np.float32], after: NDArray[np.float32], start: float, duration: float
    ) -> None:
        """Let the levels go linearly from `before` to `after` and collect the events."""
        np.subtract(after, self.memory, out=self.change)
        np.abs(self.change, out=self.change)
        pixel = np.flatnonzero(self.change >= 1)
        while pixel.size:
            bright = after[pixel] > self.memory[pixel]
            crossing = self.memory[pixel] + np.where(bright, np.float32(1), np.float32(-1))
            self.memory[pixel] = crossing
            rise = (after[pixel] - before[pixel]).astype(np.float64)
            share = np.divide(
                crossing - before[pixel], rise, out=np.zeros_like(rise), where=rise != 0
            )
            time = start + duration * share.clip(0, 1)
            sees = time >= self.blind_until[pixel]
            self.blind_until[pixel[sees]] = time[sees] + self.refractory
            self.events.append((pixel[sees], time[sees], bright[sees]))
            pixel = pixel[np.abs(after[pixel] - crossing) >= 1]

    def sent(self) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]:
        """Pixel, time and polarity of all events, in no order."""
        pixel, time, bright = zip(*self.events, strict=True) if self.events else ((), (), ())
        return (
            np.concatenate([np.empty(0, np.intp), *pixel]),
            np.concatenate([np.empty(0, np.float64), *time]),
            np.concatenate([np.empty(0, np.bool_), *bright]),
        )


def _sorted_recordings(
    camera: SaccadeCamera,
    images: int,
    pixel: NDArray[np.intp],
    time: NDArray[np.float64],
    bright: NDArray[np.bool_],
) -> Recordings:
    """Order events by image, time, row and column: one sort of one number per event."""
    image, place = np.divmod(pixel, camera.height * camera.width)
    key = image << 49 | time.astype(np.int64) << 17 | place << 1 | bright
    key.sort()
    place = key >> 1 & 0xFFFF
    events = np.empty(key.size, EVENT_DTYPE)
    events["y"], events["x"] = np.divmod(place, camera.width)
    events["t"] = key >> 17 & 0xFFFFFFFF
    events["p"] = key & 1
    offsets = np.searchsorted(key >> 49, np.arange(images + 1)).astype(np.int64)
    return Recordings(events=events, offsets=offsets)
