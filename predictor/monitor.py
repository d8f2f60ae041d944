"""The latency of a network while it trains: watched, logged after each epoch, and forecast."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import snntorch as snn
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import Config
from ..errors import ConfigError, PredictorError, SpikemeterError
from .epochs import EpochLog
from .estimate import LatencyEstimate
from .hooks import Hooks, unwatched
from .latency_loss import Hardware, checked_hardware
from .predict import LatencyPredictor, predict_latency
from .watching import Watch

if TYPE_CHECKING:
    from optuna.trial import Trial

    from .training import FoundNetwork

__all__ = ["LatencyMonitor"]


class LatencyMonitor:
    """Watches a spiking module in a training loop, and says what its latency is right now.

    Right before the module runs for the first time, it is run on a few samples of that batch to
    find its layers, as by `from_module`. From then on hooks count spikes, where the module is;
    nothing is read back before somebody asks.

    Parameters
    ----------
    module : nn.Module
        What your loop calls: snnTorch neurons with hidden or explicit states, over whole samples
        or step by step; or a `SpikingNetwork` of this package. Its neurons must start each batch
        from a fresh state.
    hardware : Config, HardwareConfig, mapping, str or Path
        The section ``hardware`` of a configuration; or a whole one, or its file, whose network the
        module must be. `forecast` and a `SpikingNetwork` need a whole one.
    every : int, optional
        Counts one batch in so many. Default: as many as take half a percent of the time.
        The first batch of an epoch, and of training or evaluation in it, is always counted.
    samples : int, optional
        An estimate is of so many samples, rounded up to batches: the last that were counted.
        Training and evaluation are not mixed, and neither are epochs.
    gradient : bool, optional
        Hold the spikes of the last batch, for a `LatencyLoss`.
    predictor : LatencyPredictor, optional
        Default: the one that ships with the package.
    csv : str or Path, optional
        File with a row for each epoch, written anew after each.
    tensorboard : SummaryWriter, str or Path, optional
        Gets the same numbers: a writer of yours, or the folder of a new one.

    Attributes
    ----------
    firing_rates : list of list of float
        Spikes per neuron and step of every layer, of each epoch so far.

    Raises
    ------
    ConfigError
        If an argument is of no use or nothing in the module spikes; from the first batch, if the
        hardware has no place for a part of the module.
    MissingToolError
        If TensorBoard is wanted and not installed.

    Notes
    -----
    What is counted are the spikes that enter each weighted layer, of every sample, step and
    channel, with their kernel taps inside the frame. Counts are exact, under autocast too.
    `nn.Dropout` right in front of a layer is seen through: hardware drops nothing. Copies and
    pickles of a watched module are not watched.
    """

    def __init__(
        self,
        module: nn.Module,
        hardware: Hardware,
        *,
        every: int | None = None,
        samples: int = 256,
        gradient: bool = False,
        predictor: LatencyPredictor | None = None,
        csv: str | Path | None = None,
        tensorboard: Any = None,
    ) -> None:
        from .training import own_network

        for key, value in (("every", every), ("samples", samples)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{key}: must be a whole number above 0, got {value!r}")
        _check_module(module)
        self.firing_rates: list[list[float]] = []
        self._given = checked_hardware(hardware)
        self._settings: dict[str, Any] = {"every": every, "samples": samples, "gradient": gradient}
        self._predictor, self._has_warned = predictor, False
        self._module: nn.Module | None = module
        self._hooks = Hooks()
        self._network: FoundNetwork | None = None
        self._found: tuple[int, Config] | None = None
        self._watch: Watch | None = None
        self._last: _Seen | None = None
        own = own_network(module, self._given)
        self._log = EpochLog(csv, tensorboard)
        if own is not None:
            self._attach(module, own)
        else:
            self._await_first_call(module)

    @property
    def rows(self) -> list[dict[str, float]]:
        """What was logged of each epoch: ``epoch``, and microseconds as in `EpochLog`."""
        return self._log.rows

    @property
    def config(self) -> Config:
        """The network as it was found, on this hardware.

        Raises
        ------
        PredictorError
            If no batch has run yet.
        """
        if isinstance(self._given, Config):
            return self._given
        if self._watch is not None and self._network is not None:
            steps = self._watch.known_steps()
            if steps is not None and (self._found is None or self._found[0] != steps):
                self._found = steps, self._network.over_steps(steps)
            if steps is not None and self._found is not None:
                return self._found[1]
        if self._last is None:
            raise PredictorError("monitor: no batch has run yet, so the network is not known")
        return self._last.config

    def estimate(self, *, confidence: float = 0.9) -> LatencyEstimate:
        """Say what the latency is, from the spikes that were counted last.

        Parameters
        ----------
        confidence : float, optional
            As in `predict_latency`.

        Returns
        -------
        LatencyEstimate
            Of the fidelity ``statistics``, with taps and all firing rates; not `quantised` if the
            module computes in floating point.

        Raises
        ------
        PredictorError
            If nothing has been counted yet.
        """
        seen = self._latest()
        estimate = predict_latency(
            seen.config, spikes=seen.spikes, confidence=confidence, predictor=self._predictor
        )
        pairs = zip(estimate.layers, seen.firing_rates, strict=True)
        layers = tuple(replace(layer, firing_rate=rate) for layer, rate in pairs)
        return replace(estimate, layers=layers)

    def counts(self) -> dict[str, NDArray[np.generic]]:
        """Give what was counted last, of as many samples as an estimate is of.

        Returns
        -------
        dict of str to ndarray
            ``counts_i`` and ``taps_i``, shape (samples, time_steps, channels), and ``quantised``:
            the `spikes` of `predict_latency`, or of a file.

        Raises
        ------
        PredictorError
            If nothing has been counted yet.
        """
        return dict(self._latest().spikes)

    def end_epoch(self, *, confidence: float = 0.9) -> LatencyEstimate:
        """End an epoch: keep its firing rates, and log its latency.

        With a whole configuration the forecast is logged too.

        Parameters
        ----------
        confidence : float, optional
            As in `predict_latency`.

        Returns
        -------
        LatencyEstimate
            As `estimate` gives it: of evaluation, if that is what ran last.

        Raises
        ------
        PredictorError
            If nothing has been counted in this epoch.
        InputError
            If the CSV file cannot be written.
        """
        if self._module is None:
            raise PredictorError("monitor: is detached, so that no epoch can end")
        if self._watch is None or not self._watch.end_epoch():
            rule = "no batch has been counted in this epoch"
            raise PredictorError(f"monitor: {rule}; run the module while it is watched")
        estimate = self.estimate(confidence=confidence)
        self.firing_rates.append([layer.firing_rate or 0.0 for layer in estimate.layers])
        epochs = len(self.firing_rates)
        # More epochs than planned are no reason to stop a training
        planned = isinstance(self._given, Config) and epochs <= self._given.training.epochs
        try:
            forecast = self.forecast(confidence=confidence) if planned else None
            self._log.add(epochs, estimate, forecast)
        except BaseException:
            self.firing_rates.pop()
            raise
        return estimate

    def forecast(self, *, confidence: float = 0.9) -> LatencyEstimate:
        """Predict the latency of the finished network, from the epochs so far.

        Parameters
        ----------
        confidence : float, optional
            As in `predict_latency`.

        Returns
        -------
        LatencyEstimate
            Of the fidelity ``forecast``; see `LatencyPredictor.forecast`. It has learned from
            networks that were trained without a `LatencyLoss`. Outside of the calibrated domain it
            says so, and the first one also warns.

        Raises
        ------
        PredictorError
            If no epoch has ended, if there were more than the configuration says, or if the
            monitor was given the section ``hardware`` alone.
        """
        if not isinstance(self._given, Config):
            rule = "needs a whole configuration, for what comes depends on all training choices"
            raise PredictorError(f"forecast: {rule}; the monitor was given hardware alone")
        if not self.firing_rates:
            raise PredictorError("forecast: no epoch has ended yet; call end_epoch after each")
        predictor = self._predictor or LatencyPredictor.default()
        forecast = predictor.forecast(self._given, self.firing_rates, confidence=confidence)
        if not forecast.in_domain and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"forecasts are not to be trusted: {forecast.warnings[0]}; their intervals are "
                "twice as wide",
                stacklevel=2,
            )
        return forecast

    def report(self, trial: Trial, *, confidence: float = 0.9) -> LatencyEstimate:
        """Tell an Optuna trial the forecast, for a `LatencyPruner` to judge; see `forecast`."""
        from .trials import report_forecast

        forecast = self.forecast(confidence=confidence)
        report_forecast(trial, forecast, epoch=len(self.firing_rates))
        return forecast

    def spikes(self) -> list[Tensor]:
        """Hand over the spikes of the last batch, with their gradients, once.

        Returns
        -------
        list of Tensor, shape (time_steps, batch, ...)
            What entered each weighted layer, as a `TorchTiming` with `time_first` takes it.

        Raises
        ------
        PredictorError
            If the monitor does not hold spikes, or the module has not run with gradients since.
        """
        if not self._settings["gradient"]:
            raise PredictorError("monitor: must be made with gradient=True to hold spikes")
        if self._module is None:
            raise PredictorError("monitor: is detached, so it holds no spikes")
        held = [] if self._watch is None else self._watch.spikes()
        if not held:
            rule = "the module has not run, with gradients, since spikes were last taken"
            raise PredictorError(f"monitor: {rule}; run it first")
        return held

    def forget(self) -> None:
        """Leave aside what was counted last: a trial run before training, for instance."""
        if self._watch is not None:
            self._watch.forget()

    def detach(self) -> None:
        """Take off all hooks and let go of the module; the last estimate can still be had."""
        try:
            with suppress(ConfigError):  # which an estimate would have said
                self._last = self._seen() or self._last
        finally:
            self._hooks.remove()
            if self._watch is not None:
                self._watch.detach()
            self._module = self._network = self._watch = None
            self._log.close()

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed training needs: the epochs so far, as plain numbers."""
        rates = [list(each) for each in self.firing_rates]
        return {"firing_rates": rates, "rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.firing_rates = [list(each) for each in state["firing_rates"]]
        self._log.rows = [dict(row) for row in state["rows"]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def _latest(self) -> _Seen:
        latest = self._seen() or self._last
        if latest is None:
            why = "no batch has been counted yet; run the module while it is watched"
            if self._module is None:
                why = "was detached before any batch was counted"
            raise PredictorError(f"monitor: {why}")
        return latest

    def _seen(self) -> _Seen | None:
        """Fetch what the watch has counted; None if there is none, or it has not."""
        if self._watch is None or self._network is None or self._module is None:
            return None
        counted = self._watch.counts()
        if counted is None:
            return None
        spikes = {"quantised": np.array(self._network.is_quantised(self._module))}
        for index, (counts, taps) in enumerate(zip(counted.counts, counted.taps, strict=True)):
            spikes |= {f"counts_{index}": counts, f"taps_{index}": taps}
        return _Seen(config=self.config, spikes=spikes, firing_rates=counted.firing_rates)

    def _await_first_call(self, module: nn.Module) -> None:
        """Find out what the module is right before it runs for the first time."""

        def before(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            from .training import found_network

            self._hooks.remove()
            try:
                with unwatched():
                    network = found_network(module, self._given, args, kwargs)
                self._attach(module, network)
            except SpikemeterError:
                self.detach()
                raise
            except BaseException:  # of the module itself, which may be called again
                self._await_first_call(module)
                raise

        def outside(part: nn.Module, args: Any, kwargs: Any) -> None:
            self.detach()
            name = type(module).__name__
            rule = f"parts of {name} run, but not {name} itself"
            raise ConfigError(f"module: {rule}; watch what is called")

        self._hooks.before(module, before)
        for part in module.modules():
            if isinstance(part, snn.SpikingNeuron):
                self._hooks.before(part, outside)

    def _attach(self, module: nn.Module, network: FoundNetwork) -> None:
        self._network = network
        self._watch = Watch(network.places, module, time_steps=network.time_steps, **self._settings)
        self._watch.attach()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """What was counted, of which network."""

    config: Config
    spikes: dict[str, NDArray[Any]]
    firing_rates: list[float]


def _check_module(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise ConfigError(f"module: must be a torch.nn.Module, got {type(module).__name__}")
    if not any(isinstance(part, snn.SpikingNeuron) for part in module.modules()):
        rule = "must hold neurons of snnTorch, snn.Leaky or snn.Lapicque"
        raise ConfigError(f"module: {rule}; {type(module).__name__} has none")
    devices = {str(each.device) for each in module.parameters()}
    if len(devices) > 1:
        raise ConfigError(f"module: must be on one device, got {' and '.join(sorted(devices))}")
