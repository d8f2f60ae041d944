"""A fitted backend on disk: a folder of plain files that are checked before they are believed.

``manifest.json`` holds the schema version, a checksum and what was fitted; ``residual.ubj``, where
it won, XGBoost's own format. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ..errors import PredictorError, in_one_line
from ..files import new_folder, read_plain, write_whole
from .ensemble import read_ensemble
from .fitted import Backend, amount_names
from .intervals import Residuals
from .strict import Few, Numbers, Shallow, Strict, Wholes, first_problem, parsed, version_problem
from .structure import Structure, structure_terms

__all__ = ["MANIFEST", "SCHEMA_VERSION", "read_backend", "write_backend"]

SCHEMA_VERSION = 1
"""Raised when the files or the terms change so that older folders cannot be read."""

MANIFEST = "manifest.json"
_RESIDUAL = "residual.ubj"
_MANIFEST_BYTES = 8 * 2**20
_LARGEST_BYTES = 16 * 2**20

_Knob = Annotated[float, Field(gt=0)]


class _Content(Strict):
    structure: Annotated[dict[str, Any], Few, Shallow]
    costs: Annotated[dict[str, Annotated[float, Field(ge=0)]], Few]
    knobs: Annotated[dict[str, _Knob], Few]
    ranges: Annotated[dict[str, tuple[float, float]], Few]
    error: Numbers
    group: Wholes
    residual_sha256: str | None
    report: Annotated[dict[str, Any], Few, Shallow]


class _Manifest(Strict):
    schema_version: int
    spikemeter: str
    sha256: str
    content: _Content


_STRUCTURE = TypeAdapter(Structure)


def write_backend(backend: Backend, path: Path) -> None:
    """Write a backend folder, whole or not at all.

    Parameters
    ----------
    backend : Backend
    path : Path
        Folder to make; an older backend there is replaced.

    Raises
    ------
    InputError
        If something else than a backend lies there, or it cannot be written.
    """
    residual = None if backend.booster is None else bytes(backend.booster.save_raw("ubj"))
    names = amount_names(list(backend.knobs))
    content = _Content(
        structure=asdict(backend.structure),
        costs=dict(backend.costs),
        knobs=dict(backend.knobs),
        ranges={
            name: (float(low), float(high))
            for name, low, high in zip(names, backend.low, backend.high, strict=True)
        },
        error=backend.residuals.error.tolist(),
        group=backend.residuals.group.tolist(),
        residual_sha256=None if residual is None else hashlib.sha256(residual).hexdigest(),
        report=dict(backend.report),
    )
    manifest = _Manifest(
        schema_version=SCHEMA_VERSION,
        spikemeter=version("spikemeter"),
        sha256=_checksum(content),
        content=content,
    )
    files = {MANIFEST: json.dumps(manifest.model_dump(mode="json"), indent=1).encode()}
    if residual is not None:
        files[_RESIDUAL] = residual
    for name, most in ((MANIFEST, _MANIFEST_BYTES), (_RESIDUAL, _LARGEST_BYTES)):
        if len(files.get(name, b"")) > most:
            rule = f"{name} must have at most {most} bytes, got {len(files[name])}"
            raise PredictorError(f"cannot write the backend {str(path)!r}: {rule}")
    with new_folder(path, {MANIFEST, _RESIDUAL}, refusal=PredictorError) as folder:
        for name, data in files.items():
            write_whole(folder / name, data)


def read_backend(path: Path) -> Backend:
    """Read a backend folder and check everything in it.

    Parameters
    ----------
    path : Path
        Folder written by `write_backend`.

    Returns
    -------
    Backend

    Raises
    ------
    PredictorError
        If a file is missing, is no plain file, is too large or was changed, or if the folder was
        written for another version.
    """
    if not path.is_dir():
        raise PredictorError(f"there is no backend folder {str(path)!r}")
    content = _read_manifest(path)
    try:
        return _backend(content, _read_residual(path, content))
    except ValidationError as error:
        raise _refusal(path, first_problem("structure", error)) from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, PredictorError):
            raise
        raise _refusal(path, f"its content does not fit together: {error}") from error


def _checksum(content: _Content) -> str:
    text = json.dumps(content.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(path: Path) -> _Content:
    data = read_plain(path / MANIFEST, _MANIFEST_BYTES, partial(_refusal, path))
    try:
        raw = parsed(data, MANIFEST)
    except ValueError as error:
        raise _refusal(path, str(error)) from error
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if problem := version_problem(found, SCHEMA_VERSION):
        raise _refusal(path, problem)
    try:
        manifest = _Manifest.model_validate(raw)
    except ValidationError as error:
        raise _refusal(path, first_problem(MANIFEST, error)) from error
    if _checksum(manifest.content) != manifest.sha256:
        raise _refusal(path, f"{MANIFEST} was changed, its checksum does not fit")
    return manifest.content


def _read_residual(path: Path, content: _Content) -> bytes | None:
    if content.residual_sha256 is None:
        return None
    data = read_plain(path / _RESIDUAL, _LARGEST_BYTES, partial(_refusal, path))
    if hashlib.sha256(data).hexdigest() != content.residual_sha256:
        raise _refusal(path, f"{_RESIDUAL} is not the file that the manifest describes")
    return data


def _backend(content: _Content, residual: bytes | None) -> Backend:
    structure = _STRUCTURE.validate_python(content.structure)
    if json.loads(json.dumps(asdict(structure))) != content.structure:
        raise ValueError(f"structure must have the keys {', '.join(asdict(Structure()))} alone")
    named = [structure.cores, structure.width, *(role.knob for role in structure.roles)]
    for setting in named:
        if isinstance(setting, str) and setting not in content.knobs:
            raise ValueError(f"it has no knob {setting!r}")
        if isinstance(setting, int) and setting < 1:
            raise ValueError("cores and width must be at least 1")
    unknown = set(content.costs) - {term.name for term in structure_terms(structure)}
    if unknown:
        raise ValueError(f"the structure has no term {sorted(unknown)[0]!r}")
    names = amount_names(list(content.knobs))
    if tuple(content.ranges) != names:
        raise ValueError("the measured ranges are not those of this version; fit it again")
    low, high = np.array([content.ranges[name] for name in names], dtype=np.float64).T
    ensemble = None if residual is None else read_ensemble(residual)
    if ensemble is not None and ensemble.features != len(names) + 1:
        rule = f"{_RESIDUAL} must read {len(names) + 1} features"
        raise ValueError(f"{rule}, got {ensemble.features}")
    return Backend(
        structure=structure,
        costs=content.costs,
        knobs=content.knobs,
        low=low,
        high=high,
        residuals=Residuals(
            error=np.array(content.error, dtype=np.float64),
            group=np.array(content.group, dtype=np.int64),
        ),
        booster=None if ensemble is None else ensemble.booster(),
        report=content.report,
    )


def _refusal(path: Path, reason: str) -> PredictorError:
    return PredictorError(f"cannot use the backend {str(path)!r}: {in_one_line(reason)}")
