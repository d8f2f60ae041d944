"""Frozen splits: which rows to learn from and which to score on, the same for everybody.

A row's side follows from its configuration alone, by a hash, so no later row moves an earlier one:

- ``random``: a fifth of the points; seeds of one point stay together.
- ``unseen_topology``, ``unseen_surrogate``, ``unseen_dataset``, ``unseen_hardware``: all rows with
  some values of that key. A plan may name the values (`Plan.held_out`); else a hash chooses about
  a quarter of those that the plan has, at least one. A data set is its recordings or pictures,
  whatever camera or coding shows them to the network; hardware is what it comes to, ``auto``
  resolved.

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
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ..config import Config
from ..errors import ConfigError, InputError
from ..files import write_whole
from .plan import Plan
from .table import SPLITS

__all__ = [
    "SPLITS",
    "SPLITS_FILE",
    "Splits",
    "choose_splits",
    "freeze_splits",
    "is_held_out",
    "read_splits",
    "split_columns",
]

SPLITS_FILE = "splits.json"
"""Beside the rows of a campaign."""

Split = Literal["unseen_topology", "unseen_surrogate", "unseen_dataset", "unseen_hardware"]

_TEST_SHARE = 0.2
_HELD_OUT_SHARE = 0.25
_VERSION: Literal[2] = 2
_RENAMED: tuple[Split, ...] = ("unseen_dataset", "unseen_hardware")
"""Splits whose values were written otherwise in version 1."""


class Splits(BaseModel):
    """Values whose rows are the test part, by the name of the split; ``random`` has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1, 2] = _VERSION
    held_out: dict[Split, list[str]]

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        for name in _RENAMED:
            if self.schema_version < _VERSION and self.held_out.get(name):
                raise ValueError(f"held_out.{name} is of schema_version 1, which named them "
                                 "otherwise; begin a new folder")  # fmt: skip
        return self


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
    return any(split == name and _value(config, split) in held
               for name, held in splits.held_out.items())  # fmt: skip


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
        If the plan names values to hold out that none or all of its runs have, or others than were
        chosen before.
    InputError
        If the file cannot be written or read, or is gone although there are rows.
    """
    path = folder / SPLITS_FILE
    chosen = choose_splits(plan, folder)
    if not path.exists():
        text = json.dumps(chosen.model_dump(), indent=1)
        _write_once(path, f"{text}\n".encode())
    return choose_splits(plan, folder)  # another process may have been first


def choose_splits(plan: Plan, folder: Path) -> Splits:
    """Give the splits that `freeze_splits` would, and write nothing; the errors are the same."""
    path = folder / SPLITS_FILE
    has_rows = any((folder / "rows").glob("*.parquet"))  # looked for first: they come after it
    if not path.exists():
        if has_rows:
            raise InputError(
                f"cannot read the splits {str(path)!r}: there is no such file, though there are "
                "rows on its sides; put it back, or begin a new folder"
            )
        return Splits(held_out={name: _held_out(plan, name) for name in get_args(Split)})
    splits = read_splits(folder)
    for name, named in plan.held_out.items():
        frozen = splits.held_out.get(name, [])
        if sorted(named) != frozen:
            rule = f"must be what {str(path)!r} has, {', '.join(frozen) or 'nothing'}"
            raise ConfigError(f"held_out.{name}: {rule}; got {', '.join(named)}")
    return splits


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
    "unseen_dataset": ("dataset",),
    "unseen_hardware": ("hardware", "network"),
}
"""Keys of a configuration on which the value of a split depends."""


def _held_out(plan: Plan, split: Split) -> list[str]:
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
        return str(config.dataset)
    hardware = config.hardware
    cores = ",".join(map(str, config.neural_cores))
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
