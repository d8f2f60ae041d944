"""Events that enter the network: known from the data set, never learned.

A predictor carries, for every data set it knows, the mean events per step and channel at some
frame sizes. Another size is estimated from those, and the estimate says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import Config, InputConfig
from ..errors import PredictorError
from .machine import tap_bounds
from .timing import even_taps

__all__ = ["InputStatistics", "TapRatios", "expected_counts", "expected_taps", "input_events"]

# Where nothing else is known: halving the bins or the pixels of a frame makes its pixels and bins
# denser, but by less than a factor of two, because events that meet in one bin count once.
_PRIOR_EXPONENTS = (-0.5, -0.7)
_SMALLEST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputStatistics:
    """Mean events of one data set at one frame size.

    Attributes
    ----------
    height, width, time_steps : int
        Size of the frames.
    events : ndarray of float, shape (time_steps, channels)
        Mean events (pixels that spike) per step and channel.
    """

    height: int
    width: int
    time_steps: int
    events: NDArray[np.float64]

    def __post_init__(self) -> None:
        events = self.events
        if self.height < 1 or self.width < 1 or events.ndim != 2 or not events.size:
            raise ValueError("statistics need a positive size and events per step and channel")
        if events.shape[0] != self.time_steps:
            raise ValueError(f"events must have {self.time_steps} steps, got {events.shape[0]}")
        if not (np.isfinite(events).all() and events.min() >= 0):
            raise ValueError("events must be finite and not negative")
        if events.max() > self.pixels:
            raise ValueError(f"events must be at most {self.pixels} pixels, got {events.max():g}")
        events.setflags(write=False)

    @property
    def pixels(self) -> int:
        """Pixels of one channel."""
        return self.height * self.width

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and time steps."""
        return self.height, self.width, self.time_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class TapRatios:
    """Kernel taps inside the frame per spike, relative to spikes spread evenly.

    Above 1 where spikes keep to the middle of a frame, as those of a centred digit do.

    Attributes
    ----------
    input, hidden : float
        For the events that enter the network, and for the spikes between its layers.
    """

    input: float = 1.0
    hidden: float = 1.0


_CODING = (
    "encoding", "gain", "time_window_ms", "denoise_ms", "values",
    "camera_threshold", "camera_mismatch", "camera_leak_hz",
)  # fmt: skip
_REMEDY = "give input.statistics, which 'spikemeter datasets measure CONFIG' prints"


def input_events(
    config: Config, known: Mapping[str, Sequence[InputStatistics]]
) -> tuple[NDArray[np.float64], str | None]:
    """Mean events per step and channel that enter the network of a configuration.

    Parameters
    ----------
    config : Config
        Its ``input.statistics`` come first, then what is known of its data set.
    known : mapping
        Statistics of data sets by name.

    Returns
    -------
    events : ndarray of float, shape (time_steps, channels)
    warning : str or None
        A sentence if the events had to be estimated from another frame size.

    Raises
    ------
    PredictorError
        If nothing is known of the data set.

    Notes
    -----
    For an unknown frame size the nearest known one gives the course over time, stretched to the
    new number of steps. Its density (events per pixel and step) is scaled by powers of the pixels
    and of the steps, which are fitted to all known sizes as far as those vary.
    """
    if config.input.statistics is not None:
        return np.array(config.input.statistics, dtype=np.float64), None
    if config.dataset is None:
        raise PredictorError(
            "dataset: required before training unless input.statistics is given; spikes are of no "
            "use to hyperparameters"
        )
    name = config.dataset
    choices = [
        entry for entry in known.get(name, ()) if entry.events.shape[1] == config.input.channels
    ]
    if not choices:
        listed = ", ".join(sorted(known)) or "none"
        raise PredictorError(
            f"dataset: this predictor knows the statistics of {listed}, not of {name!r} with "
            f"{config.input.channels} channels; {_REMEDY}"
        )
    for key in _CODING:
        value = getattr(config.input, key)
        if value != InputConfig.model_fields[key].default:
            raise PredictorError(
                f"input.{key}: this predictor knows {name} with its own camera, coding and time "
                f"bins alone, not with {value}; {_REMEDY}"
            )
    size = (config.input.height, config.input.width, config.input.time_steps)
    for entry in choices:
        if entry.size == size:
            return entry.events, None
    return _estimated(size, choices, name)


def expected_counts(
    config: Config, events: NDArray[np.float64], input_rates: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Spread the spikes that enter each layer evenly over steps and channels.

    Parameters
    ----------
    config : Config
    events : ndarray of float, shape (time_steps, channels)
        What enters the first layer; it keeps its course over time.
    input_rates : sequence of float
        Spikes per input line and step of every layer but the first.

    Returns
    -------
    list of ndarray of float, shape (time_steps, channels)
        Expected spikes that enter each weighted layer.
    """
    counts = [events]
    for layer, rate in zip(config.layers[1:], input_rates, strict=True):
        shape = (config.input.time_steps, layer.in_channels)
        counts.append(np.full(shape, rate * layer.in_height * layer.in_width))
    return counts


def expected_taps(
    config: Config, counts: Sequence[NDArray[np.float64]], ratios: TapRatios
) -> list[NDArray[np.float64]]:
    """Kernel taps inside the frame of expected spikes, in the shapes of `counts`."""
    taps = []
    for index, (layer, count) in enumerate(zip(config.layers, counts, strict=True)):
        ratio = ratios.hidden if index else ratios.input
        fewest, most = tap_bounds(layer)
        taps.append(count * min(max(even_taps(layer) * ratio, fewest), most))
    return taps


def _estimated(
    size: tuple[int, int, int], known: Sequence[InputStatistics], name: str
) -> tuple[NDArray[np.float64], str]:
    height, width, steps = size
    target = np.log([height * width, steps])
    at = np.log([[entry.pixels, entry.time_steps] for entry in known])
    nearest = int(np.abs(at - target).sum(axis=1).argmin())
    source = known[nearest]
    exponents = _density_exponents(at, known)
    factor = math.exp(float((target - at[nearest]) @ exponents))
    profile = _stretched(source.events / source.pixels, steps)
    events = np.minimum(profile * factor, 1.0) * (height * width)
    warning = (
        f"input: {height}x{width} frames of {steps} steps of {name} were not measured; their "
        f"events are estimated from {source.height}x{source.width} frames of "
        f"{source.time_steps} steps"
    )
    return events, warning


def _density_exponents(
    at: NDArray[np.float64], known: Sequence[InputStatistics]
) -> NDArray[np.float64]:
    """Fit log density as a line over log pixels and log steps.

    Directions without data keep the prior: least squares of smallest norm moves nothing there.
    """
    density = np.log([max(float(entry.events.mean()) / entry.pixels, _SMALLEST) for entry in known])
    prior = np.array(_PRIOR_EXPONENTS)
    centred = at - at.mean(axis=0)
    rest = density - density.mean() - centred @ prior
    correction: NDArray[np.float64] = np.linalg.lstsq(centred, rest, rcond=1e-6)[0]
    return prior + correction


def _stretched(profile: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Average a course over time (time_steps, channels) into another number of steps."""
    edges = np.linspace(0, 1, len(profile) + 1)
    wanted = np.linspace(0, 1, steps + 1)
    total = np.vstack([np.zeros(profile.shape[1]), np.cumsum(profile, axis=0)]) / len(profile)
    columns = [np.diff(np.interp(wanted, edges, column)) * steps for column in total.T]
    return np.stack(columns, axis=1)
