"""The callback in real trainers of Lightning, on digits."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch
import optuna
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from sklearn.datasets import load_digits
from spiking_modules import leaky
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spikemeter.errors import ConfigError, MissingToolError
from spikemeter.predictor.latency_loss import LatencyLoss
from spikemeter.predictor.lightning import LatencyCallback
from spikemeter.predictor.monitor import LatencyMonitor
from spikemeter.predictor.trials import FORECAST, LatencyPruner

STEPS = 4
WHOLE = {
    "dataset": "digits-saccade",
    "network": "4C3-MP2-10",
    "input": {"height": 8, "width": 8, "time_steps": STEPS},
    "neuron": {"beta": 0.875},
    "training": {"epochs": 5, "batch_norm": False},
}
SIZES = {"train": 96, "val": 32}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, padding=1), leaky(init_hidden=True), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64, 10), leaky(init_hidden=True),
        )  # fmt: skip

    def counts(self, batch: Tensor) -> Tensor:
        for part in (self[1], self[-1]):
            part.reset_mem()
        return torch.stack([self(step) for step in batch.transpose(0, 1)]).sum(0)


def module_of(package: Any, penalty: LatencyLoss | None = None) -> Any:
    """A LightningModule of one of the two packages."""

    class Module(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.seen: list[float] = []

        def setup(self, stage: str) -> None:
            if penalty is not None:
                self.monitor = LatencyMonitor(self.net, WHOLE, gradient=True)

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.net.counts(batch[0]), batch[1])
            if penalty is not None:
                extra = penalty(self.monitor)
                self.seen.append(extra.item())
                loss = loss + extra
            return loss

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            self.net.counts(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.net.parameters(), lr=1e-3)

    return Module()


def loaders() -> dict[str, DataLoader]:
    found = load_digits()
    rates = 0.7 * torch.tensor(found.images[:128] / 16, dtype=torch.float32)
    chance = torch.rand(128, STEPS, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    frames, labels = (chance < rates[:, None, None]).float(), torch.tensor(found.target[:128])
    parts = {"train": slice(0, 96), "val": slice(96, 128)}
    return {
        f"{name}_dataloaders" if name == "val" else "train_dataloaders": DataLoader(
            TensorDataset(frames[part], labels[part]), batch_size=16
        )
        for name, part in parts.items()
    }


def trainer_of(package: Any, folder: Path, callbacks: list[Any], **settings: Any) -> Any:
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **settings}
    return package.Trainer(
        accelerator="cpu", callbacks=callbacks, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, **options,
    )  # fmt: skip


def fit(package: Any, folder: Path, callback: Any, penalty: Any = None, **settings: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = module_of(package, penalty)
        trainer_of(package, folder, [callback], **settings).fit(module, **loaders())
    return module


def test_each_epoch_goes_to_every_logger(tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path, name="csv"), TensorBoardLogger(tmp_path, name="board")]
    callback = LatencyCallback(WHOLE, every=1, csv=tmp_path / "own.csv")
    module = fit(lightning.pytorch, tmp_path, callback, logger=loggers)
    monitor = callback.monitor
    assert monitor is not None
    assert len(monitor.rows) == 2
    assert len(monitor.counts()["counts_0"]) == SIZES["val"]  # of validation, no sanity check
    own = list(csv.DictReader((tmp_path / "own.csv").read_text().splitlines()))
    path = next(tmp_path.rglob("metrics.csv"))
    logged = [
        row for row in csv.DictReader(path.read_text().splitlines()) if row["latency/microseconds"]
    ]
    board = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent))
    board.Reload()
    for name in ("microseconds", "microseconds_low", "forecast_microseconds"):
        expected = [row[name] for row in monitor.rows]
        assert [float(row[name]) for row in own] == expected
        assert [float(row[f"latency/{name}"]) for row in logged] == pytest.approx(expected)
        scalars = board.Scalars(f"latency/{name}")
        assert [each.value for each in scalars] == pytest.approx(expected)
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


def test_the_older_package_will_do(tmp_path: Path) -> None:
    callback = LatencyCallback(WHOLE, module="net")
    fit(pytorch_lightning, tmp_path, callback)
    assert callback.monitor is not None
    assert [row["epoch"] for row in callback.monitor.rows] == [1, 2]


def loaded_anew() -> ModuleType:
    """The module of the callback, as it is when it is first imported."""
    spec = importlib.util.find_spec("spikemeter.predictor.lightning")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_callback_is_one_of_the_package_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert issubclass(loaded_anew().LatencyCallback, lightning.pytorch.Callback)
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    assert issubclass(loaded_anew().LatencyCallback, pytorch_lightning.Callback)
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert issubclass(loaded_anew().LatencyCallback, pytorch_lightning.Callback)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    with pytest.raises(MissingToolError, match=r"lightning is not .*; install spikemeter\[loop\]$"):
        loaded_anew()


def test_epochs_are_part_of_a_checkpoint(tmp_path: Path) -> None:
    path, callback = tmp_path / "last.ckpt", LatencyCallback(WHOLE)
    module = module_of(lightning.pytorch)
    trainer = trainer_of(lightning.pytorch, tmp_path, [callback], max_epochs=1)
    trainer.fit(module, **loaders())
    trainer.save_checkpoint(path, weights_only=False)
    assert callback.monitor is not None
    first = callback.monitor.rows
    callback = LatencyCallback(WHOLE)
    trainer = trainer_of(lightning.pytorch, tmp_path, [callback])
    trainer.fit(module, ckpt_path=path, weights_only=True, **loaders())
    assert callback.monitor is not None
    assert [row["epoch"] for row in callback.monitor.rows] == [1, 2]
    assert callback.monitor.rows[:1] == first
    assert len(callback.monitor.firing_rates) == 2


def test_a_loss_in_a_module_is_trained_on(tmp_path: Path) -> None:
    penalty = LatencyLoss(WHOLE, weight=0.5)
    module = fit(lightning.pytorch, tmp_path, LatencyCallback(WHOLE), penalty)
    assert len(module.seen) == 2 * SIZES["train"] // 16
    assert module.seen[0] == pytest.approx(0.5)


def test_a_trial_that_is_hopeless_is_pruned(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        callback = LatencyCallback(WHOLE, trial=trial)
        fit(lightning.pytorch, tmp_path, callback)
        assert callback.monitor is not None
        return callback.monitor.rows[-1]["microseconds"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    for budget, expected in ((0.01, "PRUNED"), (1e6, "COMPLETE")):
        study = optuna.create_study(storage=storage, pruner=LatencyPruner(budget))
        study.optimize(objective, n_trials=1)
        assert study.trials[0].state.name == expected


def test_epochs_beyond_the_plan_are_not_reported(tmp_path: Path) -> None:
    trial = optuna.create_study(pruner=LatencyPruner(1e6)).ask()
    short = {**WHOLE, "training": {"epochs": 4, "batch_norm": False}}
    callback = LatencyCallback(short, trial=trial)
    fit(lightning.pytorch, tmp_path, callback, max_epochs=5)
    assert callback.monitor is not None
    assert len(callback.monitor.rows) == 5
    assert trial.user_attrs[FORECAST]["epoch"] == 4


def test_a_trial_of_no_use_is_refused_at_once() -> None:
    trial = optuna.create_study().ask()
    with pytest.raises(ConfigError, match=r"^trial: needs a whole configuration to forecast from"):
        LatencyCallback({"neural_cores": [1, 2]}, trial=trial)
    several = optuna.create_study(directions=["maximize", "minimize"]).ask()
    with pytest.raises(ConfigError, match=r"^trial: must be of a study with one objective.* 2$"):
        LatencyCallback(WHOLE, trial=several)


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^module: must name a part of Module, got 'nett'$"):
        fit(lightning.pytorch, tmp_path, LatencyCallback(WHOLE, module="nett"))
