"""Files and folders that appear whole or not at all, and the folder of the cache."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import InputError, MissingToolError

__all__ = [
    "CACHE_VARIABLE",
    "cache_folder",
    "lock_folder",
    "new_folder",
    "read_plain",
    "write_whole",
]

CACHE_VARIABLE = "SPIKEMETER_CACHE"
"""Environment variable that names another folder for the cache."""

# Not on every system: follow no link, and do not wait for who writes into a pipe.
_PLAINLY = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_PLAINLY |= getattr(os, "O_BINARY", 0)


def cache_folder() -> Path:
    """Folder of recorded events and compiled simulators; it need not exist yet.

    Returns
    -------
    Path
        The user's cache, unless the environment names another folder.

    Raises
    ------
    MissingToolError
        If neither the environment nor platformdirs can tell.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise MissingToolError(
            "finding the cache folder needs platformdirs, which is not installed; install it with: "
            f"pip install 'spikemeter[train]', or name a folder in {CACHE_VARIABLE}"
        ) from error
    return user_cache_path("spikemeter")


def write_whole(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name beside it, then put it in place.

    Parameters
    ----------
    path : Path
        An older file there stays as it is until the new one is whole. Folders are made.
    content : bytes or callable
        What to write, or what writes it into the open file.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    temporary = _temporary(path)
    with _refusing(path, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())  # a name must not outlive its content in a power cut
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_plain(path: Path, largest: int, refusal: Callable[[str], Exception]) -> bytes:
    """Read a file that is no link and not too large.

    Parameters
    ----------
    path : Path
    largest : int
        Bytes that it may have.
    refusal : callable
        Makes the error to raise from a reason.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise refusal(f"it holds no plain file {path.name}")
        # From here on it is one file, whatever may take its name in the meantime.
        with os.fdopen(os.open(path, _PLAINLY), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise refusal(f"it holds no plain file {path.name}")
            if status.st_size > largest:
                rule = f"must have at most {largest} bytes, got {status.st_size}"
                raise refusal(f"{path.name} {rule}")
            return file.read(status.st_size)
    except OSError as error:
        raise refusal(f"{path.name}: {error.strerror}") from error


@contextmanager
def new_folder(
    path: Path, files: Collection[str], *, refusal: type[InputError] = InputError
) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its place when the block ends well.

    An older folder stays until then. What a killed process left behind for the same `path` is
    removed; what a living one still writes is not.

    Parameters
    ----------
    path : Path
        New or empty folder, or one that holds nothing but `files`.
    files : collection of str
        Names that may be there and are then replaced.
    refusal : type of InputError, optional
        The error to raise.

    Yields
    ------
    Path
        Folder to write into; it is removed if the block raises.

    Raises
    ------
    InputError
        If `path` holds something else, or cannot be written.
    """
    path = path.resolve()
    _refuse_foreign(path, files, refusal)
    temporary = _temporary(path)
    with _refusing(path, refusal):
        temporary.mkdir(parents=True)
    handle = lock_folder(temporary)
    try:
        _sweep(path)
        yield temporary
        _refuse_foreign(path, files, refusal)
        with _refusing(path, refusal):
            _put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


@contextmanager
def _refusing(path: Path, refusal: type[InputError]) -> Iterator[None]:
    """Turn errors of the file system into one sentence."""
    try:
        yield
    except OSError as error:
        raise refusal(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def _refuse_foreign(path: Path, files: Collection[str], refusal: type[InputError]) -> None:
    """Refuse a place whose content would be lost."""
    if not path.exists():
        return
    if not path.is_dir():
        raise refusal(f"cannot write the folder {str(path)!r}: a file has that name")
    with _refusing(path, refusal):
        entries = sorted(path.iterdir())
    foreign = [entry.name for entry in entries if entry.name not in files or entry.is_dir()]
    if foreign:
        raise refusal(
            f"cannot write the folder {str(path)!r}: it holds {foreign[0]!r}, which would be lost; "
            "name a new or empty folder"
        )


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a folder to its name; between two renames there is neither, never half."""
    if not path.exists():
        temporary.replace(path)
        return
    older = path.with_name(f"{temporary.name}.older")
    path.replace(older)
    try:
        temporary.replace(path)
    except OSError:
        older.replace(path)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove temporary folders for `path` whose process is gone."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        ours = re.fullmatch(r"[0-9a-f]{32}", leftover.name.rpartition(".")[2])
        if ours and leftover.is_dir() and (handle := lock_folder(leftover)) is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(handle)


def lock_folder(folder: Path) -> int | None:
    """Lock a folder until the handle is closed or its process ends; None if that cannot be."""
    try:
        import fcntl  # not on every system; without it nothing is locked and nothing swept

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
