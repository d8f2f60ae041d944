"""A cache of simulators for one worker of a script that builds many and needs each one once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from spikemeter.files import CACHE_VARIABLE


def own_cache(folder: Path) -> None:
    """Give this process a cache of its own below a folder."""
    os.environ[CACHE_VARIABLE] = str(folder / str(os.getpid()))


def tidy_cache() -> None:
    """Remove the simulators of this process, but not the library that they share."""
    for build in Path(os.environ[CACHE_VARIABLE], "rtl").iterdir():
        if build.is_dir() and not (build / "libverilated.a").exists():
            shutil.rmtree(build)
