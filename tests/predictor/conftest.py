"""One predictor, fitted once to a synthetic table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hostile_folders import write_small
from synthetic_runs import synthetic_table

from spikemeter.calibration.fit import fit_predictor
from spikemeter.predictor import LatencyPredictor


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    return synthetic_table()


@pytest.fixture(scope="session")
def folder(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fitted") / "predictor"
    fit_predictor(table, path)
    return path


@pytest.fixture(scope="session")
def small_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a few trees of each ensemble, for tests that read it often."""
    path = tmp_path_factory.mktemp("small") / "predictor"
    write_small(folder, path)
    return path


@pytest.fixture(scope="session")
def predictor(folder: Path) -> LatencyPredictor:
    return LatencyPredictor.load(folder)
