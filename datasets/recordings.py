"""Recordings of real event cameras, as users have them, read by tonic.

tonic (GPL-3.0) is imported here alone, and only when recordings are read or fetched. Its own
constructors download what they do not find; the loaders made here never do.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import DATASETS
from ..errors import InputError, MissingToolError, SpikemeterError
from ..files import lock_folder
from .catalogue import (
    CATALOGUE,
    ROOT_VARIABLE,
    File,
    fashion_folder,
    how_to_get,
    is_usable,
    unpacked_recordings,
)
from .folders import is_file
from .partition import Indices, official_split, split_indices, user_split

__all__ = ["RecordedSet", "checked_events", "fetch", "open_recordings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """How tonic names a data set, and how it is split."""

    loader: str
    splits: tuple[bool, ...]  # what its argument `train` may be; nothing: there is no such split


_FORMATS = {
    "nmnist": _Format(loader="NMNIST", splits=(True, False)),
    "dvs128-gesture": _Format(loader="DVSGesture", splits=(True, False)),
    "cifar10-dvs": _Format(loader="CIFAR10DVS", splits=()),
}

_DAMAGE = (  # what unpacking raises; the errors of zip and tar archives have no base of their own
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
)


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
        An archive that is there and was not wholly unpacked is checked and unpacked first.

    Raises
    ------
    InputError
        If files are missing, damaged or too many; says which, how large and where they go.
    MissingToolError
        If tonic is not installed.
    """
    if root is None:
        raise InputError(
            f"{name}: needs the folder of your recordings, as data_root or in {ROOT_VARIABLE}; "
            f"got neither; {how_to_get(name, Path('ROOT'))}"
        )
    files = CATALOGUE[name].files
    if missing := [file for file in files if not is_usable(file, root)]:
        for file in missing:
            if (count := unpacked_recordings(file, root)) > file.recordings:
                raise _miscounted(file, root, count)
        raise InputError(_missing(name, root, missing))
    found = [
        entry
        for file, part in zip(files, _parts(name), strict=True)
        for entry in _found(name, root, file, part)
    ]
    found.sort(key=lambda entry: entry[0])
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
        If the data set is unknown, no folder is named, or it cannot be unpacked there.
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
        gets = [
            partial(_loader(name, root, file, fetches=True), str(root), **part)
            for file, part in zip(files, _parts(name), strict=True)
        ]
    elif fashion_folder(root) is not None:
        gets = []
    else:
        gets = [partial(_fetch_fashion, root / file.path) for file in files]
    for file, get in zip(files, gets, strict=False):
        path = root / file.path
        was_there = is_file(path)
        try:
            get()
        except InputError:
            raise
        except _DAMAGE as error:
            if not was_there:  # the beginning of a file would be taken for all of it
                with suppress(OSError):
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


def _found(name: str, root: Path, file: File, part: dict[str, bool]) -> list[tuple[str, Any, int]]:
    """Name the recordings of one split, each with the loader that reads it and its number there."""
    try:
        loader = _loader(name, root, file)(str(root), **part)
    except InputError:
        raise
    except (*_DAMAGE, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: cannot use the files in {str(root)!r}: {reason}") from error
    paths = [Path(path).relative_to(root) for path in loader.data]
    found = [
        (path.as_posix(), loader, index)
        for index, path in enumerate(paths)
        if not any(step.startswith(".") for step in path.parts)
    ]
    if len(found) != file.recordings:
        raise _miscounted(file, root, len(found))
    return found


def _loader(name: str, root: Path, file: File, *, fetches: bool = False) -> Any:
    """Tonic's loader, which unpacks what is there; it downloads the rest if it is to, at most."""
    try:
        # numpy loads this part of itself only when asked, and tonic relies on it
        import numpy.lib.recfunctions  # noqa: F401
        import tonic.datasets
    except ImportError as error:
        raise MissingToolError(
            "reading recordings needs tonic, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error
    base = getattr(tonic.datasets, _FORMATS[name].loader)

    def check_exists(_: Any) -> bool:
        if (count := unpacked_recordings(file, root)) > file.recordings:
            raise _miscounted(file, root, count)
        return count == file.recordings

    def download(self: Any) -> None:
        from tonic.download_utils import check_integrity, download_url

        archive = root / file.path
        if fetches:
            download_url(self.url, self.location_on_system, self.filename, self.file_md5)
        elif not check_integrity(str(archive), self.file_md5):
            raise InputError(
                f"{str(archive)!r} must have the MD5 sum {self.file_md5}, got another: it is "
                "damaged or not whole; get it again"
            )
        _unpack(archive)
        if (count := unpacked_recordings(file, root)) != file.recordings:
            raise _miscounted(file, root, count)

    changed = {
        "_check_exists": check_exists,
        "download": download,
        "data_filename": [],  # archives within the archive, which `download` has unpacked, too
    }
    # Of the same name, because tonic names the folder after the class
    return type(base.__name__, (base,), changed)


def _unpack(archive: Path) -> None:
    """Unpack an archive beside itself; killed anywhere, this leaves no half file in place."""
    from tonic.download_utils import extract_archive

    try:
        with _workplace(archive) as folder:
            extract_archive(str(archive), str(folder))
            for inner in sorted(folder.glob("*.zip")):
                extract_archive(str(inner), str(folder))
                inner.unlink()
            made = sorted(folder.rglob("*"))
            targets = {path: archive.parent / path.relative_to(folder) for path in made}
            for path in filter(Path.is_dir, made):
                targets[path].mkdir(exist_ok=True)
            # What another program may have left half first, lest it stay when all are counted
            for path in sorted(made, key=lambda path: not targets[path].exists()):
                if not path.is_dir():
                    path.replace(targets[path])
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot unpack {str(archive)!r}: {reason}") from error


@contextmanager
def _workplace(archive: Path) -> Iterator[Path]:
    """Give a temporary folder beside an archive; those of processes that are gone are removed."""
    folder = Path(tempfile.mkdtemp(prefix=f".{archive.name}.", dir=archive.parent))
    handle = lock_folder(folder)
    try:
        for leftover in archive.parent.glob(f".{archive.name}.*"):
            if (gone := lock_folder(leftover)) is not None:
                shutil.rmtree(leftover, ignore_errors=True)
                os.close(gone)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _miscounted(file: File, root: Path, count: int) -> InputError:
    rule = f"must be {file.recordings:,} recordings, no more and no fewer"
    return InputError(f"{str(root / file.unpacked)!r} {rule}; got {count:,}")


def _missing(name: str, root: Path, files: list[File]) -> str:
    there = ", ".join(_of_it(file, root) for file in files)
    return (
        f"{name}: not all its recordings are in {str(root)!r}: {there}; "
        f"{how_to_get(name, root, files)}"
    )


def _of_it(file: File, root: Path) -> str:
    count = unpacked_recordings(file, root)
    if count == 0:
        return f"no {file.path}"
    return f"no {file.path} and only {count:,} of {file.recordings:,} {file.unpacked}"


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
