"""Data sets of the user's own: a folder of events or frames, and no code.

The layout is that of ``docs/datasets.md``. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..registry import SPEC_FILE, DatasetSpec
from .folders import entries, is_file, is_folder
from .frames import COUNT_DTYPE, Binning, bin_events
from .partition import Indices, official_split, split_indices
from .recordings import checked_events

__all__ = ["PrivateSet", "open_private"]

_SPLITS = ("train", "validation", "test")
_SUFFIXES = (".npy", ".npz")
_MEMBERS = ("events", "frames")
_MOST_COUNT = np.iinfo(COUNT_DTYPE).max


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSet:
    """All samples of a folder, in the order of their names.

    Attributes
    ----------
    paths : tuple of Path
        One file for each sample.
    names : tuple of str
        The same below the folder.
    labels : ndarray of int64, shape (samples,)
        Classes.
    split : tuple of ndarray of int64
        Numbers of the samples in train, validation and test.
    read : callable
        Gives the frames of sample i, for a `Binning`.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    split: Indices
    read: Callable[[int, Binning], NDArray[Any]]


def open_private(folder: Path, spec: DatasetSpec) -> PrivateSet:
    """Find the samples of a private data set; nothing is read yet.

    Parameters
    ----------
    folder : Path
        Holds ``dataset.yaml`` and ``<split>/<class>/`` or ``<class>/`` folders.
    spec : DatasetSpec
        What ``dataset.yaml`` says.

    Returns
    -------
    PrivateSet

    Raises
    ------
    InputError
        If a file or folder is not where or what it should be.
    """
    given = [name for name in _SPLITS if is_folder(folder / name)]
    for name in ("train", "test"):
        if given and name not in given:
            rule = f"a folder with {given[0]!r} must have 'train' and 'test', too"
            raise InputError(f"{str(folder)!r}: {rule}; got no {name!r}")
    found = [
        (split, label, path)
        for split in (given or [""])
        for label, path in _class_files(folder / split)
    ]
    if given and (extra := sorted(_folder_names(folder) - set(_SPLITS))):
        rule = "must hold no other folders than train, validation and test"
        raise InputError(f"{str(folder)!r} {rule}; got {extra[0]!r}")
    found.sort(key=lambda sample: sample[2].relative_to(folder).as_posix())
    if not found:
        rule = "must hold samples as <split>/<class>/*.npy or <class>/*.npy (or .npz)"
        raise InputError(f"{str(folder)!r} {rule}; got none")
    numbers = _class_numbers(folder, {label for _, label, _ in found}, spec.classes)
    labels = np.array([numbers[label] for _, label, _ in found], dtype=np.int64)
    names = tuple(path.relative_to(folder).as_posix() for _, _, path in found)
    paths = tuple(path for _, _, path in found)
    return PrivateSet(
        paths=paths,
        names=names,
        labels=labels,
        split=_split([split for split, _, _ in found], labels, names),
        read=lambda number, binning: _frames(paths[number], binning),
    )


def _folder_names(folder: Path) -> set[str]:
    return {entry.name for entry in entries(folder) if is_folder(entry)}


def _class_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of all classes below a folder, with the names of their classes."""
    for label in sorted(_folder_names(folder)):
        for path in entries(folder / label):
            if path.suffix not in _SUFFIXES or not is_file(path):
                raise InputError(
                    f"{str(path)!r}: a sample must be a .npy or .npz file, got another"
                )
            yield label, path


def _class_numbers(folder: Path, names: set[str], classes: int) -> dict[str, int]:
    """Give each class its number: its name if all names are numbers, else its place in order."""
    if all(name.isascii() and name.isdigit() for name in names):
        numbers = {name: int(name) for name in names}
        largest = max(names, key=int)
        if int(largest) >= classes:
            rule = f"classes must be 0 to {classes - 1}, as {SPEC_FILE} says"
            raise InputError(f"{str(folder)!r}: {rule}; got the folder {largest!r}")
        for name, other in pairwise(sorted(sorted(names), key=int)):
            if numbers[name] == numbers[other]:
                rule = "must name every class in one way"
                got = f"got the folders {name!r} and {other!r}"
                raise InputError(f"{str(folder)!r} {rule}; {got}")
        return numbers
    if len(names) != classes:
        rule = f"must have {classes} class folders, as {SPEC_FILE} says"
        raise InputError(f"{str(folder)!r} {rule}; got {len(names)}: {', '.join(sorted(names))}")
    return {name: number for number, name in enumerate(sorted(names))}


def _split(splits: list[str], labels: NDArray[np.int64], names: tuple[str, ...]) -> Indices:
    """Take the user's splits; make what is missing of them."""
    # The same for every place and name of the folder
    if "" in splits:
        return split_indices("private", labels, names)
    part = np.array([_SPLITS.index(split) for split in splits])
    train, validation, test = official_split("private", labels, part == 2, names)
    if 1 not in part:
        return train, validation, test
    kept = np.concatenate([train, validation])
    return kept[part[kept] == 0], kept[part[kept] == 1], test


def _frames(path: Path, binning: Binning) -> NDArray[Any]:
    """Read one sample and make frames of it."""
    array = _array(path)
    if array.dtype.names is not None:
        if array.ndim != 1:
            raise InputError(f"{str(path)!r}: events must be 1-D, got {array.ndim}-D")
        events = checked_events(array, path, binning.sensor, binning.channels)
        return bin_events(events, binning)
    if binning.window_us is not None:
        rule = "is for events"
        got = f"{binning.window_us / 1000:g} for the frames in {str(path)!r}"
        raise InputError(f"input.time_window_ms: {rule}, got {got}")
    shape = (binning.time_steps, binning.channels, *binning.sensor)
    if array.shape != shape:
        rule = f"frames must be {_by(shape)} (input.time_steps, channels, height, width)"
        raise InputError(f"{str(path)!r}: {rule}, got {_by(array.shape)}")
    if array.dtype.kind not in "bui":
        raise InputError(f"{str(path)!r}: frames must hold whole numbers, got {array.dtype}")
    if array.min() < 0 or array.max() > _MOST_COUNT:
        wrong = array.min() if array.min() < 0 else array.max()
        raise InputError(f"{str(path)!r}: frames must hold 0 to {_MOST_COUNT}, got {wrong}")
    return _scaled(array.astype(np.int64), binning)


def _scaled(frames: NDArray[np.int64], binning: Binning) -> NDArray[Any]:
    """Add up the pixels that fall together, as events would."""
    for axis, old, new in (
        (2, binning.sensor[0], binning.size[0]),
        (3, binning.sensor[1], binning.size[1]),
    ):
        # The first old pixel of every new one; all are there, because frames only shrink
        starts = -(-np.arange(new) * old // new)
        frames = np.add.reduceat(frames, starts, axis=axis)
    if binning.counts:
        return np.minimum(frames, _MOST_COUNT).astype(COUNT_DTYPE)
    return frames > 0


def _array(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            with content:
                members = sorted(content.files)
                if len(members) == 1 and members[0] in _MEMBERS:
                    array: NDArray[Any] = np.asanyarray(content[members[0]])
                    if array.dtype.kind == "S":  # raw bytes: no array was stored there
                        raise ValueError("no array")
                    return array
    except OSError as error:
        reason = error.strerror or "it is damaged"
        raise InputError(f"cannot read {str(path)!r}: {reason}") from error
    except Exception as error:  # damaged bytes raise almost anything
        if "Object arrays" in str(error):
            raise InputError(f"{str(path)!r} must hold no Python objects, got some") from error
        raise InputError(f"cannot read {str(path)!r}: it is damaged or no NumPy file") from error
    rule = "must hold one array, 'events' or 'frames'"
    raise InputError(f"{str(path)!r} {rule}; got {', '.join(members) or 'none'}")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
