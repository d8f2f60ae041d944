"""Latency in the loss of a training: as a penalty, or as a constraint that is to be met.

With c, the mean cycles of a batch (`TorchTiming`), a penalty of weight w adds ``w c / c0`` to the
loss, c0 being the cycles of the first batch. A budget b is the constraint ``g = log(c / b) <= 0``,
and adds the augmented Lagrangian of Powell, Hestenes and Rockafellar [1]_,

    (max(0, m + r g)^2 - m^2) / (2 r)

whose gradient is ``max(0, m + r g)`` times that of g: nothing once the budget is met with room to
spare. After every so many batches, with G the mean of g over them, multiplier and penalty move:

    m <- clip(m + r G / 10, 0, 1000)   if G < 0, or G has not fallen by a tenth since last time
    r <- min(2 r, 100)                 if G > 0.01, and it has not

As in the safeguarded method of [2]_, r never falls, m and r are bounded, and r grows only where the
violation stalls, and is of more than batches differ by: else chance would raise it for ever. A
multiplier that moves whenever the violation is falling anyway would wind up and silence the
network; so it waits, as the method waits for a minimum, and its steps are short [3]_.

References
----------
.. [1] R. T. Rockafellar, "The multiplier method of Hestenes and Powell applied to convex
   programming", J. Optim. Theory Appl. 12, 555-562 (1973).
.. [2] R. Andreani, E. G. Birgin, J. M. Martinez, M. L. Schuverdt, "On augmented Lagrangian methods
   with general lower-level constraints", SIAM J. Optim. 18, 1286-1309 (2007), algorithm 3.1.
.. [3] D. P. Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods", Academic Press
   (1982), section 2.2: steps other than r.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from ..config import Config, HardwareConfig, error_sentence, load_config
from ..errors import ConfigError, PredictorError
from .differentiable import TorchTiming

__all__ = ["Hardware", "LatencyLoss", "checked_hardware"]

Hardware = Config | HardwareConfig | Mapping[str, Any] | str | Path
"""A whole configuration, its keys or its file; or its section ``hardware``, or the keys of that."""

_FIRST_PENALTY, _LARGEST_PENALTY, _GROWTH = 1.0, 100.0, 2.0
_LARGEST_MULTIPLIER, _STEP = 1000.0, 0.1
_PROGRESS = 0.9
"""A violation has stalled if more than this share of it is left."""
_TOLERANCE = 0.01
"""Of the logarithm of cycles: within a percent of the budget, chance decides on which side."""


class Watched(Protocol):
    """What holds the spikes of a batch: a `LatencyMonitor`."""

    @property
    def config(self) -> Config:
        """The network."""
        ...

    def spikes(self) -> list[Tensor]:
        """Give the spikes that entered each weighted layer, time first."""
        ...


class LatencyLoss(nn.Module):
    """Adds the cycles of a batch to the loss, with a gradient for every spike.

    Parameters
    ----------
    hardware : Config, HardwareConfig, mapping, str or Path
        The section ``hardware`` of a configuration, or a whole one or its file, which spikes that
        come without a monitor need.
    weight : float, optional
        Of the penalty, relative to the cycles of the first batch; above 0.
    budget_us : float, optional
        Mean latency to be reached, in microseconds; above 0. Give this or `weight`; the one that
        is given may be changed between batches.
    temperature : float or None, optional
        Of the gradient; see `TorchTiming`. The value is of the exact cycles whatever it is.
    update_every : int, optional
        Batches between two updates of the multiplier.

    Attributes
    ----------
    cycles : Tensor
        Exact mean cycles of the last batch, without gradient, on its device.

    Raises
    ------
    ConfigError
        If an argument is of no use, or set to such a value later.

    Notes
    -----
    Multiplier, penalty and the cycles of the first batch stand in the state dict, as numbers of
    their own: neither ``half()`` nor ``to()`` touches them. Nothing is read back from the device
    after the first batch.

    Examples
    --------
    >>> latency = LatencyLoss({"neural_cores": [4, 8, 10]}, budget_us=300)
    >>> monitor = LatencyMonitor(net, hardware, gradient=True)  # doctest: +SKIP
    >>> loss = task_loss(net(frames), labels) + latency(monitor)  # doctest: +SKIP
    """

    def __init__(
        self,
        hardware: Hardware,
        *,
        weight: float | None = None,
        budget_us: float | None = None,
        temperature: float | None = 8.0,
        update_every: int = 10,
    ) -> None:
        super().__init__()
        if (weight is None) == (budget_us is None):
            given = "neither" if weight is None else "both"
            raise ConfigError(f"LatencyLoss: needs either weight or budget_us, got {given}")
        if temperature is not None:
            temperature = _above_0("temperature", temperature)
        if type(update_every) is not int or update_every < 1:
            rule = "must be a whole number above 0"
            raise ConfigError(f"update_every: {rule}, got {update_every!r}")
        self._mode = "weight" if budget_us is None else "budget_us"
        self._value = _above_0(self._mode, weight if budget_us is None else budget_us)
        self.temperature, self.update_every = temperature, update_every
        self.cycles = torch.tensor(math.nan)
        self._hardware = checked_hardware(hardware)
        self._timing: TorchTiming | None = None
        self._seen: Config | None = None
        self._state = {
            "multiplier": torch.tensor(0.0),
            "penalty": torch.tensor(_FIRST_PENALTY),
            "reference_cycles": torch.tensor(math.nan),
            "violation": torch.tensor(math.inf),
            "sum": torch.tensor(0.0),
        }
        self._batches, self._clock_mhz, self._least_cycles = 0, math.nan, math.nan

    @property
    def weight(self) -> float | None:
        """Of the penalty; None with a budget."""
        return self._value if self._mode == "weight" else None

    @weight.setter
    def weight(self, value: float) -> None:
        self._set("weight", value)

    @property
    def budget_us(self) -> float | None:
        """Mean latency to be reached, in microseconds; None with a weight."""
        return self._value if self._mode == "budget_us" else None

    @budget_us.setter
    def budget_us(self, value: float) -> None:
        self._set("budget_us", value)

    @property
    def multiplier(self) -> float:
        """Lagrange multiplier of the budget; reads it back from the device."""
        return float(self._state["multiplier"])

    def forward(self, given: Watched | Sequence[Tensor]) -> Tensor:
        """Give what to add to the loss of the task.

        Parameters
        ----------
        given : LatencyMonitor or sequence of Tensor
            A monitor of the module, made with ``gradient=True``, which has just seen the batch. Or
            the spikes that entered each weighted layer, shape (time_steps, batch, ...).

        Returns
        -------
        Tensor
            A number, on the device of the spikes.

        Raises
        ------
        ConfigError
            If the hardware has no place for the network, the configuration has other time steps,
            or spikes come with a section alone; if no training can reach the budget.
        PredictorError
            If `given` is neither, the monitor holds no spikes, or they are on several devices.
        ValueError
            If spikes do not fit their layers.
        """
        spikes = _spikes_of(given)
        devices = {each.device for each in spikes}
        if len(devices) > 1:
            found = " and ".join(sorted(map(str, devices)))
            raise PredictorError(f"spikes: must all be on one device, got {found}")
        timing = self._timing_of(given, spikes)
        self._state = {key: each.to(spikes[0].device) for key, each in self._state.items()}
        cycles = self._mean_cycles(timing, spikes)
        self.cycles = cycles.detach()
        reference = self._state["reference_cycles"]
        reference = torch.where(reference.isfinite(), reference, self.cycles)
        self._state["reference_cycles"] = reference
        if self._mode == "weight":
            penalty: Tensor = self._value * cycles / reference
            return penalty
        return self._constraint(torch.log(cycles / self._budget_cycles()))

    def get_extra_state(self) -> dict[str, Any]:
        """Give multiplier, penalty and what else changes, for the state dict."""
        numbers = {key: float(each) for key, each in self._state.items()}
        return {**numbers, "batches": self._batches, "mode": self._mode}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_extra_state` gave.

        Raises
        ------
        PredictorError
            If it is not that, or of a loss with a budget where this has a weight, or the reverse.
        """
        try:
            mode, batches = state["mode"], int(state["batches"])
            numbers = {key: torch.tensor(float(state[key])) for key in self._state}
        except (KeyError, TypeError, ValueError) as error:
            rule = "must be what get_extra_state of a LatencyLoss gave"
            raise PredictorError(f"state: {rule}, got {state!r}") from error
        if mode != self._mode:
            raise PredictorError(f"state: must be of a loss with {self._mode}, got one with {mode}")
        self._state, self._batches = numbers, batches

    def _set(self, key: str, value: float) -> None:
        if key != self._mode:
            rule = f"cannot be set, for this loss was made with {self._mode}"
            raise ConfigError(f"{key}: {rule}; got {value!r}")
        self._value = _above_0(key, value)

    def _timing_of(
        self, given: Watched | Sequence[Tensor], spikes: Sequence[Tensor]
    ) -> TorchTiming:
        """Give the timing of what was seen last, or begin anew if it is another network."""
        seen = None if isinstance(given, Sequence) else given.config
        if self._timing is None or seen != self._seen:
            self._begin(self._config_of(given), spikes)
            self._seen = seen
        assert self._timing is not None
        return self._timing.to(spikes[0].device)

    def _begin(self, config: Config, spikes: Sequence[Tensor]) -> None:
        """Get to know the network, and the least cycles that it can have."""
        steps = config.input.time_steps
        if spikes[0].dim() and len(spikes[0]) != steps:
            rule = f"must be those of the batch, {len(spikes[0])}"
            raise ConfigError(f"input.time_steps: {rule}; got {steps}")
        timing = TorchTiming(config, time_first=True).to(spikes[0].device)
        with torch.no_grad():
            least = timing([spikes[0], *(torch.zeros_like(each) for each in spikes[1:])]).mean()
        self._least_cycles, self._clock_mhz = float(least), config.hardware.clock_mhz
        self._timing = timing

    def _budget_cycles(self) -> float:
        budget = self._value * self._clock_mhz
        if self._least_cycles > budget:
            us = self._least_cycles / self._clock_mhz
            rule = f"must be above the {us:.6g} us that inputs take when no neuron fires"
            raise ConfigError(f"budget_us: {rule}, got {self._value:g}")
        return budget

    def _config_of(self, given: Watched | Sequence[Tensor]) -> Config:
        hardware = self._hardware
        if isinstance(given, Sequence):
            if isinstance(hardware, Config):
                return hardware
            rule = "must be a whole configuration to take spikes without a monitor"
            raise ConfigError(f"hardware: {rule}; got the section alone")
        found = given.config
        if not isinstance(hardware, Config):
            return load_config({**found.model_dump(), "hardware": hardware})
        if hardware.layers != found.layers:
            rule = f"must be that of the module, {found.network}"
            raise ConfigError(f"network: {rule}; got {hardware.network}")
        return hardware

    def _mean_cycles(self, timing: TorchTiming, spikes: Sequence[Tensor]) -> Tensor:
        """Exact cycles with the gradient of the smooth ones."""
        timing.temperature = None
        if self.temperature is None:
            exact: Tensor = timing(spikes).mean()
            return exact
        with torch.no_grad():
            exact = timing(spikes).mean()
        timing.temperature = self.temperature
        smooth = timing(spikes).mean()
        cycles: Tensor = smooth + (exact - smooth).detach()
        return cycles

    def _constraint(self, violation: Tensor) -> Tensor:
        state = self._state
        m, r = state["multiplier"], state["penalty"]
        loss = (torch.relu(m + r * violation) ** 2 - m**2) / (2 * r)
        if violation.requires_grad:
            state["sum"] = state["sum"] + violation.detach()
            self._batches += 1
            if self._batches >= self.update_every:
                self._update()
        return loss

    def _update(self) -> None:
        """Move the multiplier, and the penalty where that did not help; nothing is read back."""
        state = self._state
        m, r, mean = state["multiplier"], state["penalty"], state["sum"] / self._batches
        stalled = mean > _PROGRESS * state["violation"].clamp(min=0)
        moved = (m + _STEP * r * mean).clamp(0, _LARGEST_MULTIPLIER)
        state["multiplier"] = torch.where(stalled | (mean < 0), moved, m)
        grown = (_GROWTH * r).clamp(max=_LARGEST_PENALTY)
        state["penalty"] = torch.where(stalled & (mean > _TOLERANCE), grown, r)
        state["violation"], state["sum"] = mean, torch.zeros_like(mean)
        self._batches = 0


class _Section(BaseModel):
    hardware: HardwareConfig


def checked_hardware(given: Hardware) -> Config | HardwareConfig | Mapping[str, Any]:
    """Read a whole configuration, or hold its section against the rules.

    Raises
    ------
    ConfigError
        If it is refused.
    """
    if isinstance(given, HardwareConfig):
        return given
    if isinstance(given, Config | str | Path) or (
        isinstance(given, Mapping) and "network" in given
    ):
        return load_config(given)
    if not isinstance(given, Mapping):
        rule = "must be a configuration or its section of that name"
        raise ConfigError(f"hardware: {rule}, got {given!r}")
    try:
        _Section.model_validate({"hardware": given})
    except ValidationError as error:
        raise ConfigError(error_sentence(error, _Section)) from error
    return given


def _spikes_of(given: object) -> list[Tensor]:
    """Give the spikes that were handed over, or that a monitor holds."""
    found = given.spikes() if hasattr(given, "spikes") else given
    if not isinstance(found, Sequence) or not all(isinstance(each, Tensor) for each in found):
        rule = "must come from a LatencyMonitor, or be a list of tensors, one for each layer"
        raise PredictorError(f"spikes: {rule}; got {type(given).__name__}")
    if not found:
        raise PredictorError("spikes: must be a tensor for each weighted layer, got none")
    return list(found)


def _above_0(key: str, value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        raise ConfigError(f"{key}: must be a number above 0, got {value!r}")
    return float(value)
