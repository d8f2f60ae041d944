"""Frozen splits: which rows to learn from and which to score on, the same for everybody.

A row's side follows from its configuration alone, by a hash, so no later row moves an earlier one:

- ``random``: a fifth of the points; seeds of one point stay together.
- ``unseen_topology``, ``unseen_surrogate``, ``unseen_dataset``, ``unseen_hardware``: all rows with
  some values of that key. A plan may name the values (`Plan.held_out`); else a hash chooses about
  a quarter of those that the plan has, at least one. A data set is what enters the network: its
  name with the coding and the camera that saw it.

``splits.json`` of a campaign keeps what was chosen when it was first run; its rows say in
``test.<split>`` on which side they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..config import Config
from ..errors import ConfigError, InputError
from ..files import write_whole
from .plan import Plan
from .table import SPLITS

__all__ = [
    "SPLITS",
    "SPLITS_FILE",
    "Splits",
    "freeze_splits",
    "is_held_out",
    "read_splits",
    "split_columns",
]

SPLITS_FILE = "splits.json"
"""Beside the rows of a campaign."""

_TEST_SHARE = 0.2
_HELD_OUT_SHARE = 0.25


class Splits(BaseModel):
    """Values whose rows are the test part, by the name of the split; ``random`` has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: int = 1
    held_out: dict[str, list[str]]


def is_held_out(config: Config, split: str, splits: Splits) -> bool:
    """Whether a row belongs to the test part of a split.

    Parameters
    ----------
    config : Config
        Its configuration.
    split : str
        One of `SPLITS`.
    splits : Splits
        Of its campaign.

    Raises
    ------
    InputError
        If there is no such split.
    """
    if split not in SPLITS:
        raise InputError(f"split: must be one of {', '.join(SPLITS)}; got {split!r}")
    if split == "random":
        return _share(f"random:{_point(config)}") < _TEST_SHARE
    return _value(config, split) in splits.held_out.get(split, [])


def split_columns(config: Config, splits: Splits) -> dict[str, bool]:
    """Say for every split whether a row is in its test part, as the columns of the table."""
    return {f"test.{name}": is_held_out(config, name, splits) for name in SPLITS}


def freeze_splits(plan: Plan, folder: Path) -> Splits:
    """Choose the splits of a campaign, unless that was done before.

    Parameters
    ----------
    plan : Plan
        What its runs are.
    folder : Path
        Of the campaign; ``splits.json`` is written there once, and never again.

    Returns
    -------
    Splits

    Raises
    ------
    ConfigError
        If the plan names values to hold out that none or all of its runs have.
    InputError
        If the file cannot be written or read.
    """
    path = folder / SPLITS_FILE
    if not path.exists():
        held_out = {name: _held_out(plan, name) for name in SPLITS[1:]}
        text = json.dumps(Splits(held_out=held_out).model_dump(), indent=1)
        _write_once(path, f"{text}\n".encode())
    return read_splits(folder)


def read_splits(folder: Path) -> Splits:
    """Read the splits of a campaign; `InputError` if that cannot be."""
    path = folder / SPLITS_FILE
    try:
        return Splits.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the splits {str(path)!r}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"cannot use the splits {str(path)!r}: {first['msg']}") from error


def _point(config: Config) -> str:
    """Text that is equal for seeds of one point, also when a key with a default has come since."""
    dump = config.model_dump(
        mode="json", exclude_defaults=True, exclude={"hardware", "spikes", "data_root"}
    )
    dump["training"] = {**dump.get("training", {}), "seed": None}
    return json.dumps(dump, sort_keys=True)


_KEYS = {
    "unseen_topology": ("network",),
    "unseen_surrogate": ("surrogate.name",),
    "unseen_dataset": ("dataset", "input"),
    "unseen_hardware": ("hardware", "network"),
}
"""Keys of a configuration on which the value of a split depends."""


def _held_out(plan: Plan, split: str) -> list[str]:
    """Values of a plan that a split holds out: those that it names, or about a quarter by hash."""
    values = {_value(plan.config(number), split) for number in plan.examples(*_KEYS[split])}
    named = next((held for key, held in plan.held_out.items() if key == split), None)
    if named is None:
        return _chosen(split, values)
    for value in named:
        if value not in values:
            rule = f"must be one that the plan has ({', '.join(sorted(values)[:8])})"
            raise ConfigError(f"held_out.{split}: {rule}, got {value!r}")
    if values <= set(named):
        raise ConfigError(f"held_out.{split}: must leave some to learn from, got all of them")
    return sorted(named)


def _write_once(path: Path, content: bytes) -> None:
    """Write a file that stays as the first of several processes has written it."""
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    write_whole(own, content)
    try:
        os.link(own, path)  # unlike a rename it does not replace
    except FileExistsError:
        pass
    except OSError:  # not every file system has links
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)


def _value(config: Config, split: str) -> str:
    """Give the value of which a split holds out some."""
    if split == "unseen_topology":
        return config.network
    if split == "unseen_surrogate":
        return config.surrogate.name
    if split == "unseen_dataset":
        size = config.input
        if size.encoding != "events":
            gain = f" {size.gain:g}" if size.encoding == "rate" else ""
            return f"{config.dataset} {size.encoding}{gain}"
        camera = "" if size.camera_threshold is None else f" {size.camera_threshold:g}"
        return f"{config.dataset}{camera}"
    hardware = config.hardware
    cores = hardware.neural_cores if hardware.neural_cores == "auto" else config.neural_cores
    return f"{cores} {hardware.encoder_width} {hardware.taps_per_cycle} {hardware.schedule}"


def _chosen(split: str, values: Iterable[str]) -> list[str]:
    """About a quarter of some values, by hash; none if there is no other to learn from."""
    ordered = sorted(values, key=lambda value: _share(f"{split}:{value}"))
    if len(ordered) < 2:
        return []
    return sorted(ordered[: math.ceil(_HELD_OUT_SHARE * len(ordered))])


def _share(text: str) -> float:
    """Turn a text into a number in [0, 1)."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12
