"""A toy data set whose classes are told apart by where events happen, and a finished run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spikemeter.config import Config, load_config
from spikemeter.datasets import DataSplits, EventFrames
from spikemeter.models import run as run_module
from spikemeter.models.folder import Run
from spikemeter.models.run import train_run

MakeConfig = Callable[..., Config]


def build_config(**sections: Any) -> Config:
    """Give a small configuration; sections replace single keys."""
    content: dict[str, Any] = {
        "dataset": "nmnist-saccade",
        "network": "4C3-MP2-10",
        "input": {"height": 8, "width": 8, "time_steps": 4},
        "surrogate": {"slope": 2},
        "training": {"epochs": 4, "lr": 0.02, "batch_size": 32},
    }
    for key, value in sections.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    return load_config(content)


def toy_frames(samples: int, seed: int, shape: tuple[int, ...] = (4, 2, 8, 8)) -> EventFrames:
    """Class k lights up rows and columns around a place of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples, dtype=np.int64) % 10
    rate = np.full((samples, *shape), 0.03)
    for index, label in enumerate(labels):
        row, column = 1 + 3 * (label // 4), 2 * (label % 4)
        rate[index, :, label % 2, row - 1 : row + 2, column : column + 2] = 0.7
    return EventFrames(frames=rng.random(rate.shape) < rate, labels=labels)


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    return build_config


@pytest.fixture(scope="session")
def splits() -> DataSplits:
    return DataSplits(
        train=toy_frames(400, seed=1), validation=toy_frames(100, 2), test=toy_frames(100, 3)
    )


@pytest.fixture(scope="module")  # later folders of tests train on real data sets
def toy_data(splits: DataSplits) -> Any:
    """Let training find the toy data set under the registered name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "load_splits", lambda config: splits)
        yield splits


@pytest.fixture(scope="module")
def finished_run(toy_data: DataSplits, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_run(build_config(), tmp_path_factory.mktemp("runs") / "run")
