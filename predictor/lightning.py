"""Watching a training of Lightning: `LatencyCallback` does what a `LatencyMonitor` does in a loop.

Both of Lightning's packages will do. If one is loaded already, the callback is one of its own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import snntorch as snn
from torch import nn

from ..config import Config
from ..errors import ConfigError, MissingToolError
from .latency_loss import Hardware, checked_hardware
from .monitor import LatencyMonitor

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from optuna.trial import Trial
else:

    def _package() -> Any:
        """Load the package that is in use, or else one that is installed."""
        names = ("lightning.pytorch", "pytorch_lightning")
        for name in sorted(names, key=lambda name: name not in sys.modules):
            try:
                return import_module(name)
            except ImportError:
                continue
        raise MissingToolError(
            "lightning is not installed, and this needs it; install spikemeter[loop]"
        )

    Callback = _package().Callback

__all__ = ["LatencyCallback"]


class LatencyCallback(Callback):
    """Logs the latency of the network after each epoch, to every logger that the trainer has.

    Metrics are ``latency/microseconds``, with ``latency/microseconds_low`` and ``_high``, the
    interval; with a whole configuration also ``latency/forecast_microseconds`` and its interval, of
    the finished network. They are metrics like any other, for `EarlyStopping` for instance.

    Parameters
    ----------
    hardware : Config, HardwareConfig, mapping, str or Path
        As for `LatencyMonitor`.
    module : str, optional
        Name of the network in the LightningModule. Default: the innermost part that holds all
        neurons and all weighted layers.
    trial : optuna.Trial, optional
        Is told each forecast, and stops the training if its pruner says so; see `LatencyPruner`.
        Needs a whole configuration and a study of one objective. Epochs beyond those that the
        configuration plans have no forecast.
    **settings
        Further arguments of `LatencyMonitor`.

    Attributes
    ----------
    monitor : LatencyMonitor or None
        From the start of a fit on; detached at its end.

    Raises
    ------
    ConfigError
        If `trial` is of no use here; when a fit starts, if `module` names no part.

    Notes
    -----
    What is logged is of evaluation, where a validation follows the epoch. Each process watches its
    own samples; the first one logs. The epochs so far are part of a checkpoint.
    """

    def __init__(
        self,
        hardware: Hardware,
        *,
        module: str | None = None,
        trial: Trial | None = None,
        **settings: Any,
    ) -> None:
        if trial is not None:
            _check_trial(trial, hardware)
        self.monitor: LatencyMonitor | None = None
        self._hardware, self._name, self._trial = hardware, module, trial
        self._settings = settings
        self._state: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        settings = dict(self._settings)
        if not trainer.is_global_zero:  # one process writes
            settings |= {"csv": None, "tensorboard": None}
        self.monitor = LatencyMonitor(self._network(pl_module), self._hardware, **settings)
        if self._state is not None:
            self.monitor.load_state_dict(self._state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the sanity check aside, which is of no epoch."""
        if self.monitor is not None:
            self.monitor.forget()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch; Lightning has validated by then."""
        assert self.monitor is not None
        self.monitor.end_epoch()
        for name, value in self.monitor.rows[-1].items():
            if name != "epoch":
                pl_module.log(f"latency/{name}", value, rank_zero_only=True)
        if self._trial is not None:
            if "forecast_microseconds" in self.monitor.rows[-1]:
                self.monitor.report(self._trial)
            if self._trial.should_prune():
                from optuna import TrialPruned

                raise TrialPruned(f"pruned after epoch {trainer.current_epoch}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the network."""
        self._detach()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let go of the network."""
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        """Give the epochs so far, for a checkpoint."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the epochs of a checkpoint."""
        self._state = state_dict or None
        if self.monitor is not None and self._state is not None:
            self.monitor.load_state_dict(self._state)

    def _detach(self) -> None:
        if self.monitor is not None:
            self.monitor.detach()

    def _network(self, module: nn.Module) -> nn.Module:
        if self._name is not None:
            parts: dict[str, nn.Module] = dict(module.named_modules())
            if self._name not in parts:
                rule = f"must name a part of {type(module).__name__}"
                raise ConfigError(f"module: {rule}, got {self._name!r}")
            return parts[self._name]
        return _innermost(module)


def _check_trial(trial: Trial, hardware: Hardware) -> None:
    """Refuse at once what would fail after the first epoch."""
    if not isinstance(checked_hardware(hardware), Config):
        rule = "needs a whole configuration to forecast from"
        raise ConfigError(f"trial: {rule}; got the section hardware alone")
    study = getattr(trial, "study", None)  # a FixedTrial is of none
    if study is not None and len(study.directions) > 1:
        rule = "must be of a study with one objective, for Optuna prunes in no other"
        raise ConfigError(f"trial: {rule}; got one with {len(study.directions)}")


def _innermost(module: nn.Module) -> nn.Module:
    """Find the innermost part that holds all neurons and weighted layers."""
    kinds = (snn.SpikingNeuron, nn.Conv2d, nn.Linear)
    wanted = {part for part in module.modules() if isinstance(part, kinds)}
    while wanted:
        inner = next((x for x in module.children() if wanted <= set(x.modules())), None)
        if inner is None or inner in wanted:
            break
        module = inner
    return module
