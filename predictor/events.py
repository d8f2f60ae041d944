"""Events that enter the network: known from the data set, never learned.

A predictor carries, for every data set it knows, the mean events per step and channel at some
frame sizes, with each camera and coding that it was calibrated with. Another size is estimated from
those, and the estimate says so; another camera or coding is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..config import Config, InputConfig
from ..errors import PredictorError
from .machine import tap_bounds
from .timing import even_taps

__all__ = [
    "InputStatistics",
    "KnownInput",
    "TapRatios",
    "coding_of",
    "expected_counts",
    "expected_taps",
    "input_events",
]

Coding = Mapping[str, str | float]

_CODING = {
    key: InputConfig.model_fields[key].default
    for key in (
        "encoding", "gain", "time_window_ms", "denoise_ms", "values",
        "camera_threshold", "camera_mismatch", "camera_leak_hz",
    )
}  # fmt: skip
"""Keys of `input` that change what a data set looks like to the network, with their defaults."""

# Where nothing else is known: halving the bins or the pixels of a frame makes its pixels and bins
# denser, but by less than a factor of two, because events that meet in one bin count once.
_PRIOR_EXPONENTS = (-0.5, -0.7)
_SMALLEST = 1e-9
_LARGEST_SIDE = 4096
_LARGEST_LOG_FACTOR = 50.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputStatistics:
    """Mean events of one data set at one frame size.

    Attributes
    ----------
    height, width, time_steps : int
        Size of the frames.
    events : ndarray of float, shape (time_steps, channels)
        Mean events (pixels that spike) per step and channel.
    coding : mapping
        Camera and coding as `coding_of` gives them.
    tap_ratio : float
        Kernel taps inside the frame per event, relative to events spread evenly.
    """

    height: int
    width: int
    time_steps: int
    events: NDArray[np.float64]
    coding: Coding = field(default_factory=dict)
    tap_ratio: float = 1.0

    def __post_init__(self) -> None:
        events = self.events
        if not (1 <= self.height <= _LARGEST_SIDE and 1 <= self.width <= _LARGEST_SIDE):
            rule = f"frames must have 1 to {_LARGEST_SIDE} rows and columns"
            raise ValueError(f"{rule}, got {self.height} and {self.width}")
        if events.ndim != 2 or not events.size:
            raise ValueError("statistics need events per step and channel")
        if unknown := sorted(set(self.coding) - set(_CODING)):
            raise ValueError(f"coding must be of {', '.join(_CODING)}; got {unknown[0]!r}")
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

    def of(self, layers: int) -> list[float]:
        """Ratio of each layer of a network."""
        return [self.input] + [self.hidden] * (layers - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownInput:
    """What enters a network.

    Attributes
    ----------
    events : ndarray of float, shape (time_steps, channels)
        Mean events per step and channel.
    tap_ratio : float
        Kernel taps inside the frame per event, relative to events spread evenly.
    warning : str or None
        A sentence if the events had to be estimated from another frame size.
    """

    events: NDArray[np.float64]
    tap_ratio: float = 1.0
    warning: str | None = None

    @property
    def estimated(self) -> bool:
        """Whether nobody has measured these events."""
        return self.warning is not None


_REMEDY = "give input.statistics, which 'spikemeter datasets measure CONFIG' prints"


def input_events(
    config: Config, known: Mapping[str, Sequence[InputStatistics]], usual_tap_ratio: float = 1.0
) -> KnownInput:
    """Mean events per step and channel that enter the network of a configuration.

    Parameters
    ----------
    config : Config
        Its ``input.statistics`` come first, then what is known of its data set.
    known : mapping
        Statistics of data sets by name.
    usual_tap_ratio : float, optional
        `TapRatios.input`, for ``input.statistics``, which say nothing of places.

    Returns
    -------
    KnownInput

    Raises
    ------
    PredictorError
        If nothing is known of the data set, or not with this camera or coding.

    Notes
    -----
    For an unknown frame size the nearest known one gives the course over time, stretched to the
    new number of steps. Its density (events per pixel and step) is scaled by powers of the pixels
    and of the steps, which are fitted to all known sizes as far as those vary.
    """
    if config.input.statistics is not None:
        events = np.array(config.input.statistics, dtype=np.float64)
        return KnownInput(events=events, tap_ratio=usual_tap_ratio)
    if config.dataset is None:
        raise PredictorError(
            "dataset: required before training unless input.statistics is given; spikes are of no "
            "use to hyperparameters"
        )
    name, coding = config.dataset, coding_of(config)
    entries = [
        entry for entry in known.get(name, ()) if entry.events.shape[1] == config.input.channels
    ]
    if not entries:
        listed = ", ".join(sorted(known)) or "none"
        raise PredictorError(
            f"dataset: this predictor knows the statistics of {listed}, not of {name!r} with "
            f"{config.input.channels} channels; {_REMEDY}"
        )
    choices = [entry for entry in entries if entry.coding == coding]
    if not choices:
        raise PredictorError(_unknown_coding(name, coding, entries))
    size = (config.input.height, config.input.width, config.input.time_steps)
    for entry in choices:
        if entry.size == size:
            return KnownInput(events=entry.events, tap_ratio=entry.tap_ratio)
    return _estimated(size, choices, entries, name)


def coding_of(config: Config) -> dict[str, str | float]:
    """Give the keys of `input` on which the events of a data set depend, where not the default."""
    values = ((key, getattr(config.input, key)) for key in _CODING)
    return {key: value for key, value in values if value != _CODING[key]}


def expected_counts(
    config: Config,
    events: NDArray[np.float64],
    input_rates: Sequence[float],
    courses: NDArray[np.float64] | None = None,
) -> list[NDArray[np.float64]]:
    """Spread the spikes that enter each layer evenly over its channels.

    Parameters
    ----------
    config : Config
    events : ndarray of float, shape (time_steps, channels)
        What enters the first layer; it keeps its course over time.
    input_rates : sequence of float
        Spikes per input line and step of every layer but the first.
    courses : ndarray of float, shape (layers - 1, time_steps), optional
        How these spikes are spread over steps, relative to their mean; evenly by default. No
        step gets more than one spike a line.

    Returns
    -------
    list of ndarray of float, shape (time_steps, channels)
        Expected spikes that enter each weighted layer.
    """
    steps = config.input.time_steps
    counts = [events]
    for index, (layer, rate) in enumerate(zip(config.layers[1:], input_rates, strict=True)):
        pixels = layer.in_height * layer.in_width
        count = np.empty((steps, layer.in_channels))
        if courses is None:
            count[:] = rate * pixels
        else:
            count.T[:] = np.minimum(rate * courses[index], 1.0) * pixels
        counts.append(count)
    return counts


def expected_taps(
    config: Config, counts: Sequence[NDArray[np.float64]], ratios: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Kernel taps inside the frame of expected spikes, in the shapes of `counts`.

    Parameters
    ----------
    config : Config
    counts : sequence of ndarray of float, shape (..., time_steps, channels)
        Spikes that enter each weighted layer.
    ratios : sequence of float
        Taps per spike of each layer, relative to spikes spread evenly.
    """
    taps = []
    for layer, count, ratio in zip(config.layers, counts, ratios, strict=True):
        fewest, most = tap_bounds(layer)
        taps.append(count * min(max(even_taps(layer) * ratio, fewest), most))
    return taps


def _unknown_coding(name: str, coding: Coding, known: Sequence[InputStatistics]) -> str:
    """Sentence that names the first key without a known value, or all keys together."""
    for key, default in _CODING.items():
        value = coding.get(key, default)
        values = {entry.coding.get(key, default) for entry in known}
        if value not in values:
            listed = ", ".join(sorted("its own" if each is None else str(each) for each in values))
            given = "its own" if value is None else value
            return f"input.{key}: this predictor knows {name} with {listed}, not {given}; {_REMEDY}"
    given = ", ".join(f"{key} {value}" for key, value in coding.items()) or "its own camera"
    return f"input: this predictor does not know {name} with {given} together; {_REMEDY}"


def _estimated(
    size: tuple[int, int, int],
    choices: Sequence[InputStatistics],
    entries: Sequence[InputStatistics],
    name: str,
) -> KnownInput:
    """Estimate a size from `choices`, and how density goes with size from all `entries`."""
    height, width, steps = size
    target = np.log([height * width, steps])
    at = _log_sizes(choices)
    nearest = int(np.abs(at - target).sum(axis=1).argmin())
    source = choices[nearest]
    log_factor = float((target - at[nearest]) @ _density_exponents(entries))
    factor = math.exp(min(log_factor, _LARGEST_LOG_FACTOR))  # no frame gets fuller than full
    profile = _stretched(source.events / source.pixels, steps)
    events = np.minimum(profile * factor, 1.0) * (height * width)
    warning = (
        f"input: {height}x{width} frames of {steps} steps of {name} were not measured; their "
        f"events are estimated from {source.height}x{source.width} frames of "
        f"{source.time_steps} steps"
    )
    return KnownInput(events=events, tap_ratio=source.tap_ratio, warning=warning)


def _log_sizes(entries: Sequence[InputStatistics]) -> NDArray[np.float64]:
    """Logarithms of pixels and steps, shape (entries, 2)."""
    sizes: NDArray[np.float64] = np.log([[entry.pixels, entry.time_steps] for entry in entries])
    return sizes


def _density_exponents(known: Sequence[InputStatistics]) -> NDArray[np.float64]:
    """Fit log density as a line over log pixels and log steps, at another height for each coding.

    Directions without data keep the prior: least squares of smallest norm moves nothing there.
    """
    at = _log_sizes(known)
    density = np.log([max(float(entry.events.mean()) / entry.pixels, _SMALLEST) for entry in known])
    prior = np.array(_PRIOR_EXPONENTS)
    codings = np.array([repr(sorted(entry.coding.items())) for entry in known])
    for coding in np.unique(codings):
        alike = codings == coding
        at[alike] -= at[alike].mean(axis=0)
        density[alike] -= density[alike].mean()
    correction: NDArray[np.float64] = np.linalg.lstsq(at, density - at @ prior, rcond=1e-6)[0]
    return prior + correction


def _stretched(profile: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Average a course over time (time_steps, channels) into another number of steps."""
    edges = np.linspace(0, 1, len(profile) + 1)
    wanted = np.linspace(0, 1, steps + 1)
    total = np.vstack([np.zeros(profile.shape[1]), np.cumsum(profile, axis=0)]) / len(profile)
    columns = [np.diff(np.interp(wanted, edges, column)) * steps for column in total.T]
    return np.stack(columns, axis=1)
