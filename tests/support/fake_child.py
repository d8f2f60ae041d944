"""A worker's child whose runs do what the network of their configuration says.

The training seed chooses; see `DEEDS`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import spikemeter.calibration.measure
from spikemeter.calibration import worker
from spikemeter.config import Config
from spikemeter.errors import InputError, MissingToolError, SpikeMismatchError, TimingMismatchError

DEEDS = (
    "work", "hang", "grow", "die", "die once", "chatter", "full disk", "no tool", "wrong spikes",
    "wrong cycles", "break", "hoard", "refuse",
)  # fmt: skip
OK = {"status": "ok"}
KEPT: list[bytes] = []


def measure(config: Config, folder: Path, samples: int, *, simulated: int) -> dict[str, Any]:
    deed = DEEDS[config.training.seed]
    if deed == "hang":
        own = subprocess.Popen(["sleep", "1000"])
        half = folder.with_name(".half")
        half.mkdir(parents=True)
        (folder.parent.parent / "pids").write_text(f"{os.getpid()} {own.pid}")
        try:
            time.sleep(1000)
        finally:
            half.rmdir()
    if deed == "grow":
        hoard = []
        while True:
            hoard.append(b"x" * 2**24)
            time.sleep(0.005)
    if deed == "hoard":
        KEPT.append(b"x" * 2**28)
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "die once":
        tried = folder.parent.parent / "tried"
        if not tried.exists():
            tried.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if deed == "chatter":
        print("noise on stdout")
        assert sys.stdin.read() == ""
    if deed == "full disk":
        raise InputError("cannot write 'x': No space left on device")
    if deed == "no tool":
        raise MissingToolError("no g++")
    if deed == "wrong spikes":
        raise SpikeMismatchError("layer 0")
    if deed == "wrong cycles":
        raise TimingMismatchError("3 cycles", difference_cycles=3)
    if deed == "break":
        raise ZeroDivisionError("oh")
    if deed == "refuse":
        raise InputError("cannot use this")
    return OK | {"samples": samples, "samples.rtl": simulated, "reason": str(folder)}


if __name__ == "__main__":
    spikemeter.calibration.measure.measure = measure
    worker.main()
