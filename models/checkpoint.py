"""Checkpoints: what an interrupted training left, so that it goes on from its last whole epoch.

A checkpoint is one file of tensors, numbers and names, written whole or not at all and read without
trust: PyTorch loads it with ``weights_only``, which runs no code. It lies in a hidden folder beside
the run that it belongs to, under the key of all that decides the training.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..config import Config
from ..datasets import DATA_VERSION, DataSplits
from ..files import write_whole
from .folder import TRAIN_VERSION

__all__ = ["Checkpoint", "run_checkpoint"]

_KEY_DIGITS = 16
_NAME = re.compile(rf"\.?[0-9a-f]{{{_KEY_DIGITS}}}\.pt(\..+)?")
"""Checkpoints of runs: whole, set aside, or half written by a process that was killed."""


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """Where a training keeps its state.

    Attributes
    ----------
    path : Path
        File; it need not exist.
    key : str
        Says what is trained; a file with another one is not used.
    warnings : list of str
        Filled by `load` with what could not be used, and why.
    """

    path: Path
    key: str
    warnings: list[str] = field(default_factory=list)

    def load(self) -> dict[str, Any] | None:
        """Read the state, or None where there is none; what cannot be used is set aside."""
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            key, state = content["key"], dict(content["state"])
        except Exception:  # damage surfaces from zipfile, pickle, struct, torch, ...
            self.set_aside("it is damaged")
            return None
        if key != self.key:
            self.set_aside("it belongs to another training")
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write the state in place of an older one."""
        content = {"key": self.key, "state": state}
        write_whole(self.path, lambda file: torch.save(content, file))

    def set_aside(self, reason: str) -> None:
        """Rename the file, so that it is not used and not lost before the end, and say so."""
        self.path.replace(self._aside)
        self.warnings.append(
            f"training started anew: the checkpoint {str(self.path)!r} cannot be used, {reason}"
        )

    def remove(self) -> None:
        """Remove the file and what earlier trainings of the same run left beside it.

        The folder goes too, unless something that is no checkpoint lies there.
        """
        folder = self.path.parent
        own = (self.path.name, self._aside.name)
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name in own or _NAME.fullmatch(entry.name):
                entry.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    @property
    def _aside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.unused")


def run_checkpoint(out: Path, config: Config, splits: DataSplits) -> Checkpoint:
    """Give the checkpoint of a run: ``.NAME.partial/KEY.pt`` beside its folder.

    The key covers what decides the weights: all settings but the hardware, the data themselves,
    versions, and the device.

    Parameters
    ----------
    out : Path
        Folder of the run.
    config : Config
        Settings.
    splits : DataSplits
        Samples that are trained on and chosen by.

    Returns
    -------
    Checkpoint
        It need not exist.
    """
    settings = config.model_dump(mode="json", exclude={"data_root", "hardware", "spikes"})
    versions = [DATA_VERSION, TRAIN_VERSION, torch.__version__, torch.cuda.is_available()]
    digest = hashlib.sha256(json.dumps([settings, versions], sort_keys=True).encode())
    for split in (splits.train, splits.validation):
        digest.update(repr(split.frames.shape).encode())
        for sample in split.frames:  # one at a time: frames may lie in a file
            digest.update(sample.tobytes())
        digest.update(split.labels.tobytes())
    out, key = Path(out).resolve(), digest.hexdigest()
    return Checkpoint(
        path=out.with_name(f".{out.name}.partial") / f"{key[:_KEY_DIGITS]}.pt", key=key
    )
