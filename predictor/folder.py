"""A predictor on disk: a folder of plain files that are checked before they are believed.

``manifest.json`` describes the rest: schema version, calibrated domain, errors on unseen runs, and
size and SHA-256 of every other file. ``<head>.ubj`` are the models as XGBoost's UBJSON, one for
each of `HEADS` and for forecasts; ``datasets.json`` the statistics of known data sets;
``table.parquet`` the runs that it was calibrated on. Nothing is unpickled, and nothing outside the
folder is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import FailFast, Field, TypeAdapter, ValidationError

from ..errors import PredictorError, in_one_line
from ..files import new_folder, read_plain, write_whole
from .ensemble import Ensemble, read_ensemble
from .events import InputStatistics, TapRatios
from .features import CATEGORICAL_KEYS, feature_names
from .forecast import FEATURES as FORECAST_FEATURES
from .forecast import PROGRESS, Forecaster
from .intervals import MOST_WIDENING, OF_NAME, UNSEEN, Domain, Residuals
from .profile import Profile
from .sparsity import HEADS, SparsityModel
from .strict import (
    MOST_NAMES,
    Few,
    Names,
    Numbers,
    Shallow,
    Strict,
    Wholes,
    first_problem,
    parsed,
    version_problem,
)

__all__ = [
    "RESIDUALS",
    "SCHEMA_VERSION",
    "PredictorParts",
    "estimation_doubt",
    "read_folder",
    "write_folder",
]

SCHEMA_VERSION = 4
"""Raised when the files or the features change so that older folders cannot be read."""

_MANIFEST = "manifest.json"
_MANIFEST_BYTES = 8 * 2**20
_LARGEST_BYTES = {
    "datasets.json": 4 * 2**20,
    **{f"{head}.ubj": 16 * 2**20 for head in (*HEADS, "forecast")},
    "table.parquet": 64 * 2**20,
}
_LONGEST_NAME = 1000

RESIDUALS = ("hyperparameters", "accuracy", "statistics")
"""What errors on unseen runs are of: log cycles, log odds of accuracy, log cycles from rates."""

_UNTRIED = (
    "input: on this predictor's runs nobody could try what estimating costs, so the interval is "
    "wider"
)
_ESTIMATED = "estimated inputs"
_FORECASTS = tuple(f"forecast after {progress:g}" for progress in PROGRESS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictorParts:
    """Everything that calibration finds and a predictor needs.

    Attributes
    ----------
    model : SparsityModel
        Rates from feature rows.
    profile : Profile
        How spikes are spread over steps.
    forecaster : Forecaster
        From rates while training.
    domain : Domain
        What it was calibrated on.
    residuals : mapping
        Errors on unseen runs, by `RESIDUALS`; the first are divided by the predicted spread.
    estimated : Residuals or None
        How far log cycles moved where the events that enter were estimated from other frames; a
        group is a frame. None if no run allowed it.
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
    profile: Profile
    forecaster: Forecaster
    domain: Domain
    residuals: Mapping[str, Residuals]
    estimated: Residuals | None
    tap_ratios: TapRatios
    statistics: Mapping[str, tuple[InputStatistics, ...]]
    table: bytes
    scores: Mapping[str, Any]

    def with_scores(self, scores: Mapping[str, Any]) -> PredictorParts:
        """Add what was measured at fitting."""
        return replace(self, scores=scores)


_MOST_NETWORKS = 20_000
_Networks = Annotated[tuple[str, ...], FailFast(), Field(min_length=1, max_length=_MOST_NETWORKS)]


class _File(Strict):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class _Errors(Strict):
    error: Numbers
    group: Wholes


class _TapRatios(Strict):
    input: Annotated[float, Field(gt=0, lt=100)]
    hidden: Annotated[float, Field(gt=0, lt=100)]


class _Profile(Strict):
    mean: Numbers
    components: Annotated[list[Numbers], FailFast()]


class _Manifest(Strict):
    schema_version: int
    spikemeter: str
    feature_names: Names
    low: Numbers
    high: Numbers
    categories: Annotated[dict[str, Names], Few]
    datasets: Names
    networks: _Networks
    unseen: dict[str, Annotated[float, Field(ge=1, le=MOST_WIDENING)]]
    of_name: Annotated[dict[str, Annotated[dict[str, tuple[float, float]], Few]], Few]
    profile: _Profile
    tap_ratios: _TapRatios
    residuals: Annotated[dict[str, _Errors], Few]
    scores: Annotated[dict[str, Any], Few, Shallow]
    files: Annotated[dict[str, _File], Few]


class _Statistics(Strict):
    height: int
    width: int
    time_steps: int
    events: Annotated[list[Numbers], FailFast()]
    coding: Annotated[dict[str, str | float], Few]
    tap_ratio: Annotated[float, Field(gt=0, lt=100)]


_Entries = Annotated[list[_Statistics], FailFast(), Field(max_length=MOST_NAMES)]
_DATASETS = TypeAdapter(Annotated[dict[str, _Entries], Few])


def estimation_doubt(parts: PredictorParts, confidence: float) -> tuple[float | None, str | None]:
    """How far log cycles may move where what enters was estimated.

    Returns
    -------
    half_width : float or None
        None where nobody has tried what estimating costs.
    warning : str or None
    """
    if parts.estimated is None:
        return None, _UNTRIED
    return parts.estimated.half_width(confidence)


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
        If something else than a predictor lies there, or it cannot be written, or a file would be
        larger than `read_folder` reads.
    """
    files = _contents(parts)
    manifest = json.dumps(_manifest(parts, files).model_dump(mode="json"), indent=1)
    files[_MANIFEST] = manifest.encode()
    most = {**_LARGEST_BYTES, _MANIFEST: _MANIFEST_BYTES}
    for name, content in files.items():
        if len(content) > most[name]:
            rule = f"{name} must have at most {most[name]} bytes, got {len(content)}"
            raise PredictorError(f"cannot write the predictor {str(path)!r}: {rule}")
    with new_folder(path, set(files), refusal=PredictorError) as folder:
        for name, content in files.items():
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
    if not _is_folder(path):
        raise PredictorError(f"there is no predictor folder {str(path)!r}")
    manifest = _read_manifest(path)
    if set(manifest.files) != set(_LARGEST_BYTES):
        listed = ", ".join(sorted(_LARGEST_BYTES))
        raise _refusal(path, f"{_MANIFEST} must list {listed}, got {sorted(manifest.files)}")
    files = {name: _read_file(path, name, entry) for name, entry in manifest.files.items()}
    try:
        return _parts(manifest, files)
    except ValidationError as error:
        raise _refusal(path, first_problem("datasets.json", error)) from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise _refusal(path, f"its content does not fit together: {error}") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or above it a folder that may not be read
        return False


def _contents(parts: PredictorParts) -> dict[str, bytes]:
    datasets = {
        name: [
            {
                "height": entry.height,
                "width": entry.width,
                "time_steps": entry.time_steps,
                "events": entry.events.tolist(),
                "coding": dict(entry.coding),
                "tap_ratio": entry.tap_ratio,
            }
            for entry in entries
        ]
        for name, entries in parts.statistics.items()
    }
    return {
        "datasets.json": json.dumps(datasets).encode(),
        **{f"{name}.ubj": parts.model.ensembles[name].content for name in HEADS},
        "forecast.ubj": parts.forecaster.ensemble.content,
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
        networks=domain.networks,
        unseen=dict(domain.unseen),
        of_name={feature: dict(ranges) for feature, ranges in domain.of_name.items()},
        profile=_Profile(
            mean=parts.profile.mean.tolist(), components=parts.profile.components.tolist()
        ),
        tap_ratios=_TapRatios(input=parts.tap_ratios.input, hidden=parts.tap_ratios.hidden),
        residuals={
            name: _Errors(error=entry.error.tolist(), group=entry.group.tolist())
            for name, entry in (
                *parts.residuals.items(),
                *([(_ESTIMATED, parts.estimated)] if parts.estimated else []),
                *zip(_FORECASTS, parts.forecaster.residuals, strict=True),
            )
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
        raw = parsed(content, _MANIFEST)
    except ValueError as error:
        raise _refusal(path, str(error)) from error
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if problem := version_problem(found, SCHEMA_VERSION):
        raise _refusal(path, problem)
    try:
        return _Manifest.model_validate(raw)
    except ValidationError as error:
        raise _refusal(path, first_problem(_MANIFEST, error)) from error


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
    if unknown := set(manifest.unseen) - set(UNSEEN):
        raise ValueError(f"unseen must be of {', '.join(UNSEEN)}, got {min(unknown)!r}")
    count = len(manifest.feature_names)
    if not len(manifest.low) == len(manifest.high) == count:
        raise ValueError(f"ranges must be {count}, one per feature")
    if set(manifest.residuals) - {_ESTIMATED} != {*RESIDUALS, *_FORECASTS}:
        raise ValueError(f"residuals must be of {', '.join((*RESIDUALS, *_FORECASTS))}")
    heads = {name: _read_head(files, name, count) for name in HEADS}
    forecast = _read_head(files, "forecast", len(FORECAST_FEATURES))
    statistics = _DATASETS.validate_python(parsed(files["datasets.json"], "datasets.json"))
    _check_names(manifest, statistics)
    return PredictorParts(
        model=SparsityModel(ensembles=heads),
        profile=Profile(
            mean=np.array(manifest.profile.mean, dtype=np.float64),
            components=np.array(manifest.profile.components, dtype=np.float64),
        ),
        forecaster=Forecaster(
            ensemble=forecast,
            residuals=tuple(_residuals(manifest.residuals[name]) for name in _FORECASTS),
        ),
        domain=Domain(
            feature_names=manifest.feature_names,
            low=np.array(manifest.low),
            high=np.array(manifest.high),
            categories=manifest.categories,
            datasets=manifest.datasets,
            networks=manifest.networks,
            of_name=manifest.of_name,
            unseen=manifest.unseen,
        ),
        residuals={name: _residuals(manifest.residuals[name]) for name in RESIDUALS},
        estimated=(
            replace(_residuals(manifest.residuals[_ESTIMATED]), of="measured frames")
            if _ESTIMATED in manifest.residuals
            else None
        ),
        tap_ratios=TapRatios(input=manifest.tap_ratios.input, hidden=manifest.tap_ratios.hidden),
        statistics={
            name: tuple(
                InputStatistics(
                    height=entry.height,
                    width=entry.width,
                    time_steps=entry.time_steps,
                    events=np.array(entry.events, dtype=np.float64),
                    coding=entry.coding,
                    tap_ratio=entry.tap_ratio,
                )
                for entry in entries
            )
            for name, entries in statistics.items()
        },
        table=files["table.parquet"],
        scores=manifest.scores,
    )


def _check_names(manifest: _Manifest, statistics: Mapping[str, list[_Statistics]]) -> None:
    """Hold what estimates and errors will say to text that can be shown."""
    codings = [entry.coding for entries in statistics.values() for entry in entries]
    names = [
        *manifest.datasets,
        *manifest.networks,
        *statistics,
        *(name for names in manifest.categories.values() for name in names),
        *(value for coding in codings for value in coding.values() if isinstance(value, str)),
    ]
    if not all(name.isprintable() and len(name) <= _LONGEST_NAME for name in names):
        raise ValueError(f"names must be printable, with at most {_LONGEST_NAME} characters")
    wanted = {feature: set(manifest.categories[key]) for feature, key in OF_NAME.items()}
    if {feature: set(ranges) for feature, ranges in manifest.of_name.items()} != wanted:
        raise ValueError(f"of_name must give {', '.join(OF_NAME)} for every calibrated name")


def _read_head(files: Mapping[str, bytes], name: str, features: int) -> Ensemble:
    try:
        ensemble = read_ensemble(files[f"{name}.ubj"])
    except ValueError as error:
        raise ValueError(f"{name}.ubj: {error}") from error
    if ensemble.features != features:
        raise ValueError(f"{name}.ubj: it must read {features} features, got {ensemble.features}")
    return ensemble


def _residuals(entry: _Errors) -> Residuals:
    return Residuals(
        error=np.array(entry.error, dtype=np.float64), group=np.array(entry.group, dtype=np.int64)
    )


def _refusal(path: Path, reason: str) -> PredictorError:
    return PredictorError(f"cannot use the predictor {str(path)!r}: {in_one_line(reason)}")
