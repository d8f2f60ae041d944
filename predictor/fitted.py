"""Hardware that is known by measurements alone: a fitted backend and its timing.

A backend is a machine's structure, what it pays (`spikemeter.predictor.costs`), what it was
measured on and how far it was off there. `spikemeter.calibration.fit_timing` finds one and writes
its folder; ``hardware.backend`` names the folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ConfigError
from .costs import CostModel, StepCycles, cost_model
from .intervals import OUTSIDE_FACTOR, Residuals
from .machine import BUCKETS, Timing, check_counts, check_trains
from .structure import Structure
from .timing import spike_taps
from .workload import workload

if TYPE_CHECKING:
    import xgboost

__all__ = [
    "Backend",
    "FittedTiming",
    "amount_names",
    "amounts",
    "check_knobs",
    "fitted_timing",
    "residual_features",
    "times_beyond",
]

_SMALLEST_SHARE = 0.1
"""No half width of log cycles is below this by the number of measured groups."""

MANY_GROUPS = 40
"""An interval from fewer measured groups comes with a warning."""

SLACK = 1.25
"""What was measured vouches for this factor beyond it."""

_AMOUNTS = (
    "layers",
    "steps",
    "words scanned",
    "events",
    "events x phases",
    "events x taps x phases",
    "neurons of a core",
)
_LARGEST_CYCLES = 1e300

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backend:
    """A machine as measurements show it.

    Attributes
    ----------
    structure : Structure
        What it does.
    costs : mapping of str to float
        Cycles for each term of the structure by its name; absent terms cost nothing.
    knobs : mapping of str to float
        Knobs that it was fitted with, each with the value at which its scale is one.
    low, high : ndarray of float, shape (amounts,)
        Smallest and largest of each of `amount_names` in a measurement.
    residuals : Residuals
        Errors of log cycles for measurements that the fit had not seen.
    booster : xgboost.Booster or None
        What it is off by, from `residual_features`, if that was worth learning.
    report : mapping
        What the fit found, for the record.
    """

    structure: Structure
    costs: Mapping[str, float]
    knobs: Mapping[str, float]
    low: _Floats
    high: _Floats
    residuals: Residuals
    booster: xgboost.Booster | None
    report: Mapping[str, Any]

    def half_width(self, confidence: float, *, outside: bool = False) -> tuple[float, str | None]:
        """Half width of the interval of log cycles, and a warning if measurements are few for it.

        Notes
        -----
        The conformal half width of errors on groups that the whole fit had not seen, and never
        nothing: what few groups agree on may still be wrong. Outside of the measurements it is
        `OUTSIDE_FACTOR` times as wide.
        """
        half_width, warning = self.residuals.half_width(confidence)
        groups = self.residuals.groups
        if warning is None and groups < MANY_GROUPS:
            warning = (
                f"confidence: the backend rests on {groups} groups of measurements, and an "
                f"interval from fewer than {MANY_GROUPS} may be too narrow"
            )
        half_width = max(half_width, _SMALLEST_SHARE / groups)
        return half_width * (OUTSIDE_FACTOR if outside else 1.0), warning

    def cost_vector(self, model: CostModel) -> _Floats:
        """Costs in the order of a model's terms."""
        return np.array([self.costs.get(term.name, 0.0) for term in model.terms])

    def factors(self, model: CostModel, cycles: _Floats) -> _Floats:
        """Multiply the cycles of every sample by these."""
        if self.booster is None:
            return np.ones(len(cycles))
        rows = residual_features(model, cycles)
        # No further than the measurements were off
        limit = float(np.abs(self.residuals.error).max()) + np.log(2)
        learned = np.clip(self.booster.inplace_predict(rows), -limit, limit)
        factors: _Floats = np.exp(learned.astype(np.float64))
        return factors

    def outside(self, model: CostModel) -> tuple[tuple[str, ...], ...]:
        """For every sample a sentence for each amount that no measurement comes near."""
        names = amount_names(list(self.knobs))
        values = amounts(model)
        beyond = times_beyond(values, self.low, self.high, names) > 1
        return tuple(
            tuple(
                f"hardware.backend: {names[column]}: {value[column]:.4g} is outside the measured "
                f"{self.low[column]:.4g} to {self.high[column]:.4g}"
                for column in np.flatnonzero(out)
            )
            for value, out in zip(values, beyond, strict=True)
        )


def amount_names(knobs: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of `amounts`."""
    kinds = ("convolutions", "dense layers")
    return (
        *(f"{amount} of {kind}" for kind in kinds for amount in _AMOUNTS),
        *(f"knob {name}" for name in knobs),
    )


def amounts(model: CostModel) -> _Floats:
    """Count what decides whether measurements vouch for a sample, shape (samples, amounts)."""
    counted = model.counted()
    dense = model.work.dense[:, None]
    both = np.concatenate([counted * ~dense, counted * dense], axis=1)
    totals = np.add.reduceat(both, model.work.starts, axis=0)
    return np.concatenate([totals, model.work.knobs], axis=1)


def times_beyond(values: _Floats, low: _Floats, high: _Floats, names: Sequence[str]) -> _Floats:
    """How far amounts lie beyond what was measured, in times of what that still vouches for.

    Parameters
    ----------
    values : ndarray of float, shape (..., amounts)
    low, high : ndarray of float, shape (amounts,)
        Smallest and largest that was measured.
    names : sequence of str
        As `amount_names` gives them; a knob vouches for nothing beyond it.

    Returns
    -------
    ndarray of float, shape (..., amounts)
        Above 1 outside.
    """
    tiny = 1e-9
    slack = np.where([name.startswith("knob ") for name in names], 1 + tiny, SLACK)
    out = (values > high * slack) | (values * slack < low)
    ratio = np.maximum((values + tiny) / (high + tiny), (low + tiny) / (values + tiny)) / slack
    times: _Floats = np.where(out, np.maximum(ratio, 1 + tiny), np.clip(ratio, 0.0, 1.0))
    return times


def residual_features(model: CostModel, cycles: _Floats) -> NDArray[np.float32]:
    """Describe every sample to a residual model: its mixture of work, as logs."""
    values = np.concatenate([amounts(model), cycles[:, None]], axis=1)
    knobs = model.work.knobs.shape[1]
    values[:, : values.shape[1] - 1 - knobs] = np.log1p(values[:, : values.shape[1] - 1 - knobs])
    values[:, -1] = np.log1p(values[:, -1])
    return values.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedTiming:
    """Timing of a fitted backend.

    Attributes
    ----------
    backend : Backend
        What was fitted.
    config : Config
        Network, time steps and hardware.
    """

    backend: Backend
    config: Config

    def trace(self, inputs: Sequence[NDArray[np.bool_]]) -> Timing:
        """Cycles from spike trains, which are counted with their taps; see `TimingModel.trace`."""
        layers = self.config.layers
        check_trains(layers, self.config.input.time_steps, inputs)
        counts = [
            train.reshape(*train.shape[:2], layer.in_channels, -1).sum(axis=3, dtype=np.float64)
            for layer, train in zip(layers, inputs, strict=True)
        ]
        taps = [spike_taps(layer, train) for layer, train in zip(layers, inputs, strict=True)]
        return self._timing(counts, taps)

    def statistics(
        self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None = None
    ) -> Timing:
        """Cycles from spike counts; see `TimingModel.statistics`.

        Counts of all channels together are taken to spike alike. Means give a lower bound where
        the machine takes the longer of two costs.
        """
        layers, steps = self.config.layers, self.config.input.time_steps
        check_counts(layers, steps, "counts", counts)
        if taps is not None:
            check_counts(layers, steps, "taps", taps, counts)
        return self._timing(counts, taps)

    def doubt(
        self, confidence: float, outside: Sequence[str] = ()
    ) -> tuple[float, tuple[str, ...]]:
        """Conformal half width from measurements that the fit had not seen.

        Parameters
        ----------
        confidence : float
            Share of cases in which the timing shall be off by no more.
        outside : sequence of str, optional
            From `Timing.outside`; see `Backend.half_width`.
        """
        half_width, warning = self.backend.half_width(confidence, outside=bool(outside))
        return half_width, (*outside, *((warning,) if warning else ()))

    def _timing(self, counts: Sequence[_Floats], taps: Sequence[_Floats] | None) -> Timing:
        backend = self.backend
        work = workload(self.config, counts, taps, list(backend.knobs))
        model = cost_model(work, backend.structure, backend.knobs)
        costs = backend.cost_vector(model)
        found = model.cycles(costs)
        factors = backend.factors(model, found.cycles)
        cycles = np.clip(found.cycles * factors, 1e-9, _LARGEST_CYCLES)
        return Timing(
            cycles=cycles,
            **_by_layer(found, factors, float(costs[-1])),
            # Latencies do not tell how inferences overlap
            initiation_interval_cycles=cycles.copy(),
            outside=backend.outside(model),
        )


def fitted_timing(config: Config) -> FittedTiming:
    """Read the fitted backend that a configuration names, once, for its timing.

    Raises
    ------
    PredictorError
        If its folder cannot be used.
    ConfigError
        If a knob is missing, unknown or impossible.
    """
    from .backend import MANIFEST

    path = Path(config.hardware.backend)
    try:
        state = (path / MANIFEST).stat()
        backend = _cached(path.resolve(), state.st_mtime_ns, state.st_size)
    except OSError:
        backend = _cached(path, 0, 0)  # refuses it with a sentence
    check_knobs(config, list(backend.knobs), backend.structure)
    return FittedTiming(backend=backend, config=config)


def check_knobs(config: Config, names: Sequence[str], structure: Structure) -> None:
    """Refuse knobs that are missing, unknown, or impossible in their role.

    Raises
    ------
    ConfigError
        Names the knob, the rule and the value.
    """
    given = config.hardware.knobs
    listed = ", ".join(names) or "none"
    for name in names:
        if name not in given:
            rule = f"required, the backend was fitted with the knobs {listed}"
            raise ConfigError(f"hardware.knobs.{name}: {rule}; got nothing")
    for name, value in given.items():
        if name not in names:
            rule = f"unknown, the backend was fitted with the knobs {listed}"
            raise ConfigError(f"hardware.knobs.{name}: {rule}; got {value:g}")
    for setting in (structure.cores, structure.width):
        if isinstance(setting, str) and given[setting] < 1:
            rule = "must be at least 1, this backend counts something in it"
            raise ConfigError(f"hardware.knobs.{setting}: {rule}; got {given[setting]:g}")
    for role in structure.roles:
        if given[role.knob] < 0 or (role.inverse and given[role.knob] == 0):
            rule = "must be positive, this backend's costs scale with it"
            raise ConfigError(f"hardware.knobs.{role.knob}: {rule}; got {given[role.knob]:g}")


@lru_cache(maxsize=16)
def _cached(path: Path, modified_ns: int, size: int) -> Backend:
    from .backend import read_backend

    return read_backend(path)


def _by_layer(found: StepCycles, factors: _Floats, inference: float) -> dict[str, Any]:
    """Cycles and buckets of every layer; the fixed cost of an inference stalls its first layer."""
    layer_cycles = found.finish[:, :, -1] - found.start[:, :, 0]
    layer_cycles[:, 0] += inference
    layer_cycles = layer_cycles * factors[:, None]
    buckets = {
        name: getattr(found, name).sum(axis=2) * factors[:, None]
        for name in ("encode", "accumulate", "fire")
    }
    used = np.sum(list(buckets.values()), axis=0)
    buckets["stall"] = np.maximum(layer_cycles - used, 0.0)
    return {
        "layer_cycles": used + buckets["stall"],
        "buckets": {name: buckets[name] for name in BUCKETS},
    }
