"""A predictor on disk: a folder of plain files that are checked before they are believed.

``manifest.json`` describes the rest: schema version, calibrated domain, errors on unseen runs, and
size and SHA-256 of every other file. ``firing_rate.ubj`` and ``output_rate.ubj`` are the models
as XGBoost's UBJSON, ``datasets.json`` the statistics of known data sets, ``table.parquet`` the
runs that it was calibrated on. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import PredictorError
from ..files import new_folder, read_plain, write_whole
from .events import InputStatistics, TapRatios
from .features import CATEGORICAL_KEYS, feature_names
from .intervals import Domain, Residuals
from .sparsity import SparsityModel, load_booster, sparsity_model

__all__ = ["SCHEMA_VERSION", "PredictorParts", "read_folder", "write_folder"]

SCHEMA_VERSION = 1
"""Raised when the files or the features change so that older folders cannot be read."""

_MANIFEST = "manifest.json"
_MANIFEST_BYTES = 16 * 2**20
_LARGEST_BYTES = {
    "datasets.json": 16 * 2**20,
    "firing_rate.ubj": 64 * 2**20,
    "output_rate.ubj": 64 * 2**20,
    "table.parquet": 256 * 2**20,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictorParts:
    """Everything that calibration finds and a predictor needs.

    Attributes
    ----------
    model : SparsityModel
        Rates from feature rows.
    domain : Domain
        What it was calibrated on.
    residuals : mapping
        Errors on unseen runs for ``"hyperparameters"`` and ``"statistics"``.
    tap_ratios : TapRatios
        Where spikes sit in their frames, measured.
    statistics : mapping
        Input statistics of known data sets by name.
    table : bytes
        The slim calibration table as Parquet.
    scores : mapping
        What was measured at fitting, for the record.
    """

    model: SparsityModel
    domain: Domain
    residuals: Mapping[str, Residuals]
    tap_ratios: TapRatios
    statistics: Mapping[str, tuple[InputStatistics, ...]]
    table: bytes
    scores: Mapping[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _File(_Strict):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class _Errors(_Strict):
    error: list[float]
    group: list[int]


class _TapRatios(_Strict):
    input: Annotated[float, Field(gt=0, lt=100)]
    hidden: Annotated[float, Field(gt=0, lt=100)]


class _Manifest(_Strict):
    schema_version: int
    spikemeter: str
    feature_names: tuple[str, ...]
    low: list[float]
    high: list[float]
    categories: dict[str, tuple[str, ...]]
    datasets: tuple[str, ...]
    slopes: dict[str, tuple[float, float]]
    tap_ratios: _TapRatios
    residuals: dict[str, _Errors]
    scores: dict[str, Any]
    files: dict[str, _File]


class _Statistics(_Strict):
    height: int
    width: int
    time_steps: int
    events: list[list[float]]


_DATASETS = TypeAdapter(dict[str, list[_Statistics]])


def write_folder(parts: PredictorParts, path: Path) -> None:
    """Write a predictor folder, whole or not at all.

    Parameters
    ----------
    parts : PredictorParts
    path : Path
        Folder to make; an older predictor there is replaced.

    Raises
    ------
    InputError
        If something else than a predictor lies there, or it cannot be written.
    """
    files = _contents(parts)
    manifest = json.dumps(_manifest(parts, files).model_dump(mode="json"), indent=1)
    names = {*_LARGEST_BYTES, _MANIFEST}
    with new_folder(path, names, refusal=PredictorError) as folder:
        for name, content in {**files, _MANIFEST: manifest.encode()}.items():
            write_whole(folder / name, content)


def read_folder(path: Path) -> PredictorParts:
    """Read a predictor folder and check everything in it.

    Parameters
    ----------
    path : Path
        Folder written by `write_folder`.

    Returns
    -------
    PredictorParts

    Raises
    ------
    PredictorError
        If a file is missing, is no plain file, is too large or was changed, or if the folder was
        written for another version.
    """
    if not path.is_dir():
        raise PredictorError(f"there is no predictor folder {str(path)!r}")
    manifest = _read_manifest(path)
    if set(manifest.files) != set(_LARGEST_BYTES):
        listed = ", ".join(sorted(_LARGEST_BYTES))
        raise _refusal(path, f"{_MANIFEST} must list {listed}, got {sorted(manifest.files)}")
    files = {name: _read_file(path, name, entry) for name, entry in manifest.files.items()}
    try:
        return _parts(manifest, files)
    except ValidationError as error:
        raise _refusal(path, _sentence("datasets.json", error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _refusal(path, f"its content does not fit together: {error}") from error


def _contents(parts: PredictorParts) -> dict[str, bytes]:
    firing, output = parts.model.save()
    datasets = {
        name: [
            {
                "height": entry.height,
                "width": entry.width,
                "time_steps": entry.time_steps,
                "events": entry.events.tolist(),
            }
            for entry in entries
        ]
        for name, entries in parts.statistics.items()
    }
    return {
        "datasets.json": json.dumps(datasets).encode(),
        "firing_rate.ubj": firing,
        "output_rate.ubj": output,
        "table.parquet": parts.table,
    }


def _manifest(parts: PredictorParts, files: Mapping[str, bytes]) -> _Manifest:
    domain = parts.domain
    return _Manifest(
        schema_version=SCHEMA_VERSION,
        spikemeter=version("spikemeter"),
        feature_names=domain.feature_names,
        low=domain.low.tolist(),
        high=domain.high.tolist(),
        categories=dict(domain.categories),
        datasets=domain.datasets,
        slopes=dict(domain.slopes),
        tap_ratios=_TapRatios(input=parts.tap_ratios.input, hidden=parts.tap_ratios.hidden),
        residuals={
            name: _Errors(error=entry.error.tolist(), group=entry.group.tolist())
            for name, entry in parts.residuals.items()
        },
        scores=dict(parts.scores),
        files={
            name: _File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
            for name, content in files.items()
        },
    )


def _read_manifest(path: Path) -> _Manifest:
    content = read_plain(path / _MANIFEST, _MANIFEST_BYTES, partial(_refusal, path))
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"{_MANIFEST} is not valid JSON") from error
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found != SCHEMA_VERSION:
        rule = f"its schema version must be {SCHEMA_VERSION}, got {found!r}; fit it again"
        raise _refusal(path, rule)
    try:
        return _Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _refusal(path, _sentence(_MANIFEST, error)) from error


def _read_file(path: Path, name: str, entry: _File) -> bytes:
    content = read_plain(path / name, _LARGEST_BYTES[name], partial(_refusal, path))
    if len(content) != entry.bytes:
        raise _refusal(path, f"{name} must have {entry.bytes} bytes, got {len(content)}")
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise _refusal(path, f"{name} is not the file that the manifest describes")
    return content


def _parts(manifest: _Manifest, files: Mapping[str, bytes]) -> PredictorParts:
    if set(manifest.categories) != set(CATEGORICAL_KEYS):
        raise ValueError(f"categories must be of {', '.join(CATEGORICAL_KEYS)}")
    if manifest.feature_names != feature_names(manifest.categories):
        raise ValueError("the features are not those of this version; fit it again")
    count = len(manifest.feature_names)
    if not len(manifest.low) == len(manifest.high) == count:
        raise ValueError(f"ranges must be {count}, one per feature")
    if set(manifest.residuals) != {"hyperparameters", "statistics"}:
        raise ValueError("residuals must be of hyperparameters and statistics")
    model = sparsity_model(
        load_booster(files["firing_rate.ubj"]), load_booster(files["output_rate.ubj"])
    )
    if model.features_read > count:
        raise ValueError(f"the models read {model.features_read} features, there are {count}")
    statistics = _DATASETS.validate_json(files["datasets.json"])
    return PredictorParts(
        model=model,
        domain=Domain(
            feature_names=manifest.feature_names,
            low=np.array(manifest.low),
            high=np.array(manifest.high),
            categories=manifest.categories,
            datasets=manifest.datasets,
            slopes=manifest.slopes,
        ),
        residuals={
            name: Residuals(
                error=np.array(entry.error, dtype=np.float64),
                group=np.array(entry.group, dtype=np.int64),
            )
            for name, entry in manifest.residuals.items()
        },
        tap_ratios=TapRatios(input=manifest.tap_ratios.input, hidden=manifest.tap_ratios.hidden),
        statistics={
            name: tuple(
                InputStatistics(
                    height=entry.height,
                    width=entry.width,
                    time_steps=entry.time_steps,
                    events=np.array(entry.events, dtype=np.float64),
                )
                for entry in entries
            )
            for name, entries in statistics.items()
        },
        table=files["table.parquet"],
        scores=manifest.scores,
    )


def _sentence(name: str, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{name}: {where}: {first['msg']}"


def _refusal(path: Path, reason: str) -> PredictorError:
    return PredictorError(f"cannot use the predictor {str(path)!r}: {reason}")
