"""Recordings of real event cameras, as users have them, read by tonic.

tonic (GPL-3.0) is imported here alone, and only when recordings are read or fetched. Its own
constructors download what they do not find; the loaders made here never do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import DATASETS
from ..errors import InputError, MissingToolError, SpikemeterError
from .catalogue import CATALOGUE, ROOT_VARIABLE, File, fashion_folder, how_to_get
from .partition import Indices, official_split, split_indices, user_split

__all__ = ["RecordedSet", "checked_events", "fetch", "open_recordings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """How tonic names a data set, and how it is split."""

    loader: str
    suffix: str
    least: int  # files of a folder from which on tonic takes it for unpacked
    splits: tuple[bool, ...]  # what its argument `train` may be; nothing: there is no such split


_FORMATS = {
    "nmnist": _Format(loader="NMNIST", suffix=".bin", least=10_000, splits=(True, False)),
    "dvs128-gesture": _Format(loader="DVSGesture", suffix=".npy", least=100, splits=(True, False)),
    "cifar10-dvs": _Format(loader="CIFAR10DVS", suffix=".aedat4", least=1_000, splits=()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSet:
    """All recordings of a data set, in the order of their names.

    Attributes
    ----------
    paths : tuple of Path
        One file for each recording.
    names : tuple of str
        The same below the root folder: the same for everybody.
    labels : ndarray of int64, shape (recordings,)
        Classes.
    split : tuple of ndarray of int64
        Numbers of the recordings in train, validation and test.
    read : callable
        Gives the events of recording i, ordered by time, in microseconds.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    split: Indices
    read: Callable[[int], NDArray[np.void]]


def open_recordings(name: str, root: Path | None) -> RecordedSet:
    """Find the recordings of a data set; nothing is read yet, and nothing ever downloaded.

    Parameters
    ----------
    name : str
        ``nmnist``, ``dvs128-gesture`` or ``cifar10-dvs``.
    root : Path or None
        Folder that holds the folder which tonic names after its loader.

    Returns
    -------
    RecordedSet
        An archive that is there and was not unpacked is checked and unpacked first.

    Raises
    ------
    InputError
        If files are missing or damaged; says which, how large they are and where they go.
    MissingToolError
        If tonic is not installed.
    """
    if root is None:
        raise InputError(
            f"{name}: needs the folder of your recordings, as data_root or in {ROOT_VARIABLE}; "
            f"got neither; {how_to_get(name, Path('ROOT'))}"
        )
    loaders = [_silent(name, root, part) for part in _parts(name)]
    found = [
        (Path(path).relative_to(root).as_posix(), loader, index)
        for loader in loaders
        for index, path in enumerate(loader.data)
    ]
    found.sort(key=lambda entry: entry[0])
    if not found:
        raise InputError(_missing(name, root))
    names = tuple(entry[0] for entry in found)
    labels = np.array([loader.targets[index] for _, loader, index in found], dtype=np.int64)
    classes = DATASETS[name].classes
    if labels.min() < 0 or labels.max() >= classes:
        wrong = names[int(np.argmax((labels < 0) | (labels >= classes)))]
        raise InputError(f"{name}: classes must be 0 to {classes - 1}; got the file {wrong!r}")

    def read(number: int) -> NDArray[np.void]:
        path, loader, index = found[number]
        try:
            events, _ = loader[index]
        except ImportError as error:
            raise MissingToolError(
                f"reading {path!r} needs {error.name}, which is not installed; "
                "install it with: pip install 'spikemeter[train]'"
            ) from error
        except Exception as error:  # damaged bytes raise almost anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"cannot read the recording {str(root / path)!r}: {reason}") from error
        spec = DATASETS[name]
        return checked_events(events, root / path, (spec.height, spec.width), spec.channels)

    return RecordedSet(
        paths=tuple(root / path for path in names),
        names=names,
        labels=labels,
        split=_split(name, names, labels, found),
        read=read,
    )


def fetch(name: str, root: Path | None) -> Path | None:
    """Download a data set by tonic, check it and unpack it.

    Parameters
    ----------
    name : str
        A registered data set.
    root : Path or None
        Folder to put it into.

    Returns
    -------
    Path or None
        The folder; None if the data set comes with a Python package and nothing is needed.

    Raises
    ------
    InputError
        If the data set is unknown or no folder is named.
    MissingToolError
        If the package that carries it, or tonic, is not installed.
    SpikemeterError
        If the download fails; says what to put where by hand.
    """
    if name not in CATALOGUE:
        raise InputError(f"NAME: must be one of {', '.join(CATALOGUE)}; got {name!r}")
    if CATALOGUE[name].module:
        return None
    if root is None:
        raise InputError(f"--root: name the folder to put it into, there or in {ROOT_VARIABLE}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write the folder {str(root)!r}: {error.strerror}") from error
    files = CATALOGUE[name].files
    if name in _FORMATS:
        loader = _loader(name)
        gets = [partial(loader, str(root), **part) for part in _parts(name)]
    elif fashion_folder(root) is not None:
        gets = []
    else:
        gets = [partial(_fetch_fashion, root / file.path) for file in files]
    for file, get in zip(files, gets, strict=False):
        path = root / file.path
        was_there = path.is_file()
        try:
            get()
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            if not was_there:  # the beginning of a file would be taken for all of it
                path.unlink(missing_ok=True)
            cause = getattr(error, "reason", error)  # of an URLError: what went wrong below it
            reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())
            raise SpikemeterError(
                f"{name}: cannot be downloaded: {reason}; {how_to_get(name, root, fetch=False)}"
            ) from error
    return root


def checked_events(
    events: NDArray[np.void], path: Path, sensor: tuple[int, int], channels: int
) -> NDArray[np.void]:
    """Hold events against their sensor and put them in the order of time.

    Parameters
    ----------
    events : ndarray with fields x, y, t and p, shape (events,)
        In any order of fields; without `p` all are of channel 0.
    path : Path
        Where they come from.
    sensor : tuple of (height, width)
        In pixels.
    channels : int
        Values of `p`, from 0.

    Returns
    -------
    ndarray with int64 fields x, y, t and p, shape (events,)
        A copy.

    Raises
    ------
    InputError
        If a field is missing, is not of whole numbers, or lies outside the sensor.
    """
    dtype = [(field, np.int64) for field in ("x", "y", "t", "p")]
    checked = np.zeros(events.size, dtype)
    limits = {"x": sensor[1], "y": sensor[0], "t": 2**53, "p": channels}
    names = events.dtype.names or ()
    for field, limit in limits.items():
        if field not in names:
            if field == "p" and channels == 1:
                continue
            got = ", ".join(names) or "none"
            raise InputError(f"{str(path)!r}: events must have a field {field!r}, got {got}")
        values = events[field]
        if values.dtype.kind not in "iub" or values.ndim != 1:
            rule = "must hold one whole number for each event"
            raise InputError(f"{str(path)!r}: field {field!r} {rule}, got {values.dtype}")
        if values.size and (values.min() < 0 or values.max() >= limit):
            wrong = values.min() if values.min() < 0 else values.max()
            rule = f"must be 0 to {limit - 1}"
            raise InputError(f"{str(path)!r}: field {field!r} {rule}, got {wrong}")
        checked[field] = values
    return checked[np.argsort(checked["t"], kind="stable")]


def _split(
    name: str, names: tuple[str, ...], labels: NDArray[np.int64], found: list[tuple[str, Any, int]]
) -> Indices:
    if not _FORMATS[name].splits:
        return split_indices(name, labels, names)
    is_test = np.array([not loader.train for _, loader, _ in found])
    if name != "dvs128-gesture":
        return official_split(name, labels, is_test, names)
    users = np.array([loader.users[index] for _, loader, index in found], dtype=np.int64)
    try:
        return user_split(name, users, is_test, names)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _parts(name: str) -> list[dict[str, bool]]:
    """Arguments of tonic's loader for each of its splits, in the order of the archives."""
    return [{"train": train} for train in _FORMATS[name].splits] or [{}]


def _loader(name: str) -> Any:
    try:
        # numpy loads this part of itself only when asked, and tonic relies on it
        import numpy.lib.recfunctions  # noqa: F401
        import tonic.datasets
    except ImportError as error:
        raise MissingToolError(
            "reading recordings needs tonic, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error
    return getattr(tonic.datasets, _FORMATS[name].loader)


def _silent(name: str, root: Path, part: dict[str, bool]) -> Any:
    """Open tonic's loader, which unpacks what is there; what it would download is an error."""
    form, base = _FORMATS[name], _loader(name)

    def check_exists(self: Any) -> bool:
        enough = self._folder_contains_at_least_n_files_of_type
        return bool(base._check_exists(self) or enough(form.least, form.suffix))

    def download(self: Any) -> None:
        from tonic.download_utils import check_integrity, extract_archive

        archive = Path(self.location_on_system, self.filename)
        if not archive.is_file():
            raise InputError(_missing(name, root))
        if not check_integrity(str(archive), self.file_md5):
            raise InputError(
                f"{str(archive)!r} must have the MD5 sum {self.file_md5}, got another: it is "
                "damaged or not whole; get it again"
            )
        extract_archive(str(archive), self.location_on_system)

    # Of the same name, because tonic names the folder after the class
    changed = {"_check_exists": check_exists, "download": download}
    loader = type(base.__name__, (base,), changed)
    try:
        return loader(str(root), **part)
    except InputError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: cannot use the files in {str(root)!r}: {reason}") from error


def _missing(name: str, root: Path) -> str:
    files = [file for file in CATALOGUE[name].files if not (root / file.path).is_file()]
    there = ", ".join(_found(root, file, name) for file in files)
    return (
        f"{name}: not all its recordings are in {str(root)!r}: {there}; "
        f"{how_to_get(name, root, files)}"
    )


def _found(root: Path, file: File, name: str) -> str:
    count = sum(1 for _ in root.glob(file.unpacked))
    if count == 0:
        return f"no {file.path}"
    least = f"{_FORMATS[name].least:,} or more {file.unpacked}"
    return f"no {file.path} and only {count:,} of {least}"


_FASHION_SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def _fetch_fashion(target: Path) -> None:
    try:
        from tonic.download_utils import download_url
    except ImportError as error:
        raise MissingToolError(
            "downloading needs tonic, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error
    url = _FASHION_SOURCE + target.name
    download_url(url, str(target.parent), target.name, _FASHION_MD5[target.name])
