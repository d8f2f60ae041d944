"""Data sets by name: what must be known of one before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigError

__all__ = ["DATASETS", "SPEC_FILE", "DatasetSpec", "dataset_spec", "is_private"]

SPEC_FILE = "dataset.yaml"
"""File in the folder of a private data set that says what `DatasetSpec` holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """What must be known of a data set before anything is loaded.

    Attributes
    ----------
    classes : int
        Number of labels.
    channels, height, width : int
        Sensor size; polarities are channels.
    simulated : bool
        Made from still images, whose camera can be set and which can be coded otherwise.
    """

    classes: int
    channels: int
    height: int
    width: int
    simulated: bool = False


DATASETS: dict[str, DatasetSpec] = {
    "nmnist-saccade": DatasetSpec(classes=10, channels=2, height=34, width=34, simulated=True),
    "digits-saccade": DatasetSpec(classes=10, channels=2, height=28, width=28, simulated=True),
    "fashion-saccade": DatasetSpec(classes=10, channels=2, height=34, width=34, simulated=True),
    "nmnist": DatasetSpec(classes=10, channels=2, height=34, width=34),
    "dvs128-gesture": DatasetSpec(classes=11, channels=2, height=128, width=128),
    "cifar10-dvs": DatasetSpec(classes=10, channels=2, height=128, width=128),
}
"""Registered data sets; `spikemeter.datasets` holds a loader for each."""


class _SpecFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    classes: Annotated[int, Field(ge=1, le=100_000)]
    channels: Annotated[int, Field(ge=1, le=65_536)] = 2
    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]


def is_private(name: str) -> bool:
    """Whether a data set is a folder of the user's: a path, not one of the names."""
    return name not in DATASETS and (_is_folder(name) or Path(name).name != name)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long, a null byte, or a folder that may not be read
        return False


def dataset_spec(name: str) -> DatasetSpec | None:
    """Look up a data set.

    Parameters
    ----------
    name : str
        A registered name, or the folder of a private data set.

    Returns
    -------
    DatasetSpec or None
        None for a folder that is not here now: it may be on another machine.

    Raises
    ------
    ConfigError
        If the name is unknown, or the folder's ``dataset.yaml`` is missing or wrong.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not is_private(name):
        known = ", ".join(DATASETS)
        rule = f"must be one of {known}, or a folder with {SPEC_FILE}"
        raise ConfigError(f"dataset: {rule}; got {name!r}")
    if not _is_folder(name):
        return None
    path = Path(name) / SPEC_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = _SpecFile.model_validate(content)
    except OSError as error:
        raise ConfigError(f"dataset: cannot read {str(path)!r}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            raise ConfigError(f"dataset: {str(path)!r} must hold keys and values") from error
        key = ".".join(str(part) for part in first["loc"])
        got = f"{key}: {first['msg']}, got {first['input']!r}"
        raise ConfigError(f"dataset: {str(path)!r}: {got}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"dataset: {str(path)!r} is not valid YAML: {reason}") from error
    return DatasetSpec(**spec.model_dump())
