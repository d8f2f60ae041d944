"""How far a prediction may be off, and whether it may be asked at all.

Intervals are conformal: the errors that the same chain made on runs it had not seen say how wide
an interval must be, without assuming a distribution. Errors are those of log cycles, so an
interval is a factor up and down. Nothing calibrated vouches for a question outside the domain:
there the interval widens by a stated factor, and the estimate says why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import PredictorError
from ..network import Layer, served_by_tap
from .features import CATEGORICAL_KEYS, category
from .machine import Timing, mean_of_samples

__all__ = [
    "DEPTHS",
    "FAMILIES",
    "MOST_WIDENING",
    "OF_NAME",
    "OUTSIDE_FACTOR",
    "QUANTISATION_ERRORS",
    "STATISTICS_ERRORS",
    "TOO_FEW_FACTOR",
    "UNSEEN",
    "WIDEST",
    "Domain",
    "Residuals",
    "StatisticsErrors",
    "checked_confidence",
    "fit_domain",
    "quantisation_errors",
    "statistics_errors",
]

OUTSIDE_FACTOR = 2.0
"""The interval of log cycles is this much wider outside the calibrated domain.

For names in place of the calibrated ones it is measured instead, where that could be done."""

TOO_FEW_FACTOR = 1.5
"""With too few runs for a confidence, the widest error seen times this is the interval."""

UNSEEN = ("network", "surrogate.name", "dataset")
"""Keys under which somebody else's configuration may well have another name than all runs."""

MOST_WIDENING = 100.0
"""Largest factor by which a name that is new makes an interval wider."""

WIDEST = 50.0
"""Largest half width of an interval of log cycles: such an interval says nothing at all."""

QUANTISATION_ERRORS = "quantisation_errors.json"
"""File beside this module: how far rounding weights moved log cycles, by their bits."""

STATISTICS_ERRORS = "statistics_errors.json"
"""File beside this module: errors of the engine's cycles from counts."""

DEPTHS = (2, 3)
"""Rounding is taken to move networks alike that have up to so many weighted layers, or more."""

FAMILIES = ("random", "trained")
"""Networks whose errors from counts were measured: spikes spread evenly, and those of digits."""

_LARGEST_ERROR = 1e6
_LEAST_VARIANCE = 1.0
"""Of a latency from counts, in cycles squared, whatever is known of it."""

# A little beyond the calibrated range is still inside: a share of the value, or an amount.
_SHARE_OF_SLACK = 0.25
_SHARED = frozenset(
    (
        "input.density",
        "input.time_steps",
        "layer.fan_in",
        "layer.neurons",
        "neuron.drive",
        "neuron.threshold",
        "surrogate.slope",
        "surrogate.width",
        "training.batch_size",
        "training.epochs",
        "training.lr",
    )
)
_AMOUNTS = {"neuron.beta": 0.02, "training.dropout": 0.05}
_WITHOUT_RANGE = (
    "input.lateness", "input.unevenness", "surrogate.at_rest", "surrogate.height", "training.travel"
)  # fmt: skip
"""Follow from keys that have ranges."""

OF_NAME = {
    "neuron.beta": "neuron.model",
    "neuron.drive": "neuron.model",
    "surrogate.slope": "surrogate.name",
    "surrogate.width": "surrogate.name",
}
"""Features that mean something else under each name of a key, and so have a range for each."""

_CALLED = {
    ("neuron.beta", "lif"): "neuron.beta: {:.4g}",
    ("neuron.beta", "lapicque"): "neuron.R, neuron.C or beta: a decay of {:.4g}",
    ("neuron.drive", "lapicque"): "neuron.threshold over the gain: {:.4g}",
    ("surrogate.width", "spike_rate_escape"): "surrogate.width: {:.4g}",
}
"""How a value is told of, by its keys. What is told of none follows from another key."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residuals:
    """Errors of log cycles on runs that the model had not seen.

    Attributes
    ----------
    error : ndarray of float, shape (runs,)
        log(measured cycles) - log(predicted cycles).
    group : ndarray of int, shape (runs,)
        Runs of one group are repetitions of one point (other seeds): together they weigh as
        much as any other point.
    of : str
        What groups are, in the plural, for a sentence.
    """

    error: NDArray[np.float64]
    group: NDArray[np.int64]
    of: str = "calibrated points"

    def __post_init__(self) -> None:
        if self.error.ndim != 1 or self.error.shape != self.group.shape or not self.error.size:
            raise ValueError("residuals need one group per error, and at least one")
        if not np.abs(self.error).max() <= _LARGEST_ERROR:  # nor NaN
            raise ValueError(f"residuals must lie within {_LARGEST_ERROR:g} of 0")
        self.error.setflags(write=False)
        self.group.setflags(write=False)

    @property
    def groups(self) -> int:
        """Distinct points."""
        return len(np.unique(self.group))

    def half_width(self, confidence: float) -> tuple[float, str | None]:
        """Half width of the interval of log cycles that holds with a confidence.

        Parameters
        ----------
        confidence : float
            In (0, 1).

        Returns
        -------
        half_width : float
        warning : str or None
            A sentence if there are too few points for this confidence; then the widest error
            times `TOO_FEW_FACTOR` stands in.

        Notes
        -----
        The quantile of the absolute error, where each of the n points weighs 1/(n+1), shared by
        its runs, and the missing 1/(n+1) lies at infinity. With one run per point this is the
        ceil((n+1) confidence)-th smallest error of split conformal prediction. The errors here are
        cross-validated: each comes from a model that had not seen its point, while the prediction
        comes from one fitted to all points, so the guarantee of the split form holds approximately.

        References
        ----------
        .. [1] Lei et al., "Distribution-free predictive inference for regression", JASA 2018.
        .. [2] Lee, Barber, Willett, "Distribution-free inference with hierarchical data", 2023.
        """
        return _half_width(self, confidence)


@lru_cache(maxsize=256)
def _half_width(residuals: Residuals, confidence: float) -> tuple[float, str | None]:
    _, member, sizes = np.unique(residuals.group, return_inverse=True, return_counts=True)
    size = np.abs(residuals.error)
    order = np.argsort(size, kind="stable")
    covered = np.cumsum(1 / sizes[member][order]) / (len(sizes) + 1)
    reached = np.searchsorted(covered, confidence - 1e-12)
    if reached < len(size):
        return float(size[order[reached]]), None
    needed = int(np.ceil(confidence / (1 - confidence) - 1e-9))
    warning = (
        f"confidence: {confidence:g} needs {needed} {residuals.of}, there are "
        f"{len(sizes)}; the interval is the largest error seen, times {TOO_FEW_FACTOR:g}"
    )
    return float(size.max()) * TOO_FEW_FACTOR, warning


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatisticsErrors:
    """How far the engine's cycles from counts were off its cycles from spike trains.

    Attributes
    ----------
    tap_deviation : float
        Root mean square of the share by which the taps of a layer were off the expected ones.
    misfit : float
        Root mean square of the errors of single samples of trained networks, in units of
        `Chance.unevenness`. Their spikes are not spread evenly, and every sample's alike.
    formula_share : float
        Root mean square of the error that is left in the mean over many places of the same spikes,
        in units of the standard deviation over these places.
    mean_share : float
        Root mean square of the errors of cycles from mean counts, in units of `Chance.convexity`.
    of_level : mapping of str to tuple of Residuals
        For each level of counts the errors of log cycles, in units of `deviation`, of each of
        `FAMILIES`; a group is a network.
    """

    tap_deviation: float
    misfit: float
    formula_share: float
    mean_share: float
    of_level: Mapping[str, tuple[Residuals, ...]]

    def half_width(self, level: str, confidence: float) -> tuple[float, str | None]:
        """Deviations that hold with a confidence, whichever family the spikes are like.

        See `Residuals.half_width`; the warning is that of the wider family.
        """
        widths = [family.half_width(confidence) for family in self.of_level[level]]
        return max(widths, key=lambda width: width[0])

    def deviation(
        self,
        layers: Sequence[Layer],
        timing: Timing,
        *,
        taps_known: bool,
        taps_per_cycle: int = 1,
    ) -> float:
        """Share by which the engine's mean cycles from counts are expected to be off.

        Parameters
        ----------
        layers : sequence of Layer
            The network.
        timing : Timing
            Cycles from counts, with their chance.
        taps_known : bool
            Whether taps were counted; else, those of kernels with a choice were expected.
        taps_per_cycle : int
            Of the engine; where it serves all taps of a spike at once, no one asks for them.

        Notes
        -----
        Chance strikes each sample anew, so that the mean over n of them has 1/n of its variance.
        Everything else moves all samples the same way, and stays.
        """
        chance = timing.chance
        if chance is None:
            raise ValueError("timing must come from counts")
        random = float(mean_of_samples(chance.variance))
        variance = random * (1 / len(chance.variance) + self.formula_share**2) + _LEAST_VARIANCE
        variance += (self.misfit * float(mean_of_samples(chance.unevenness))) ** 2
        if chance.convexity is not None:
            variance += (self.mean_share * float(mean_of_samples(chance.convexity))) ** 2
        if not taps_known:
            accumulate = mean_of_samples(timing.buckets["accumulate"]).tolist()
            uncertain = sum(
                cycles
                for layer, cycles in zip(layers, accumulate, strict=True)
                if served_by_tap(layer, taps_per_cycle)
            )
            variance += (self.tap_deviation * uncertain) ** 2
        return math.sqrt(variance) / float(mean_of_samples(timing.cycles))


@cache
def statistics_errors() -> StatisticsErrors:
    """Read the errors that ship with the package; ``benchmarks/timing.py --calibrate`` wrote them.

    Raises
    ------
    PredictorError
        If this installation has none.
    """
    content = _shipped(STATISTICS_ERRORS)
    return StatisticsErrors(
        tap_deviation=content["tap_deviation"],
        misfit=content["misfit"],
        formula_share=content["formula_share"],
        mean_share=content["mean_share"],
        of_level={
            level: tuple(
                Residuals(
                    error=np.array(families[name]["error"], dtype=np.float64),
                    group=np.array(families[name]["group"], dtype=np.int64),
                    of="networks whose counts were timed",
                )
                for name in FAMILIES
            )
            for level, families in content["levels"].items()
        },
    )


@cache
def quantisation_errors(weight_bits: int, layers: int) -> Residuals:
    """Read how far rounding moved latencies; ``benchmarks/quantisation.py`` wrote it.

    Parameters
    ----------
    weight_bits : int
        2 to 8.
    layers : int
        Weighted layers. Every layer passes its shift on to the next, so that deep networks move
        more: errors are those of networks on the same side of each of `DEPTHS`.

    Returns
    -------
    Residuals
        Log of the cycles of the integer network over those of the float one, over the share of
        cycles behind the first layer, whose input rounding does not touch; a group is a network.

    Raises
    ------
    PredictorError
        If this installation has none.
    """
    shipped = _shipped(QUANTISATION_ERRORS)
    alike = np.searchsorted(DEPTHS, shipped["layers"]) == np.searchsorted(DEPTHS, layers)
    errors = np.array(shipped["bits"][str(weight_bits)]) / np.array(shipped["behind"])
    errors = errors[alike]
    return Residuals(error=errors, group=np.arange(len(errors)), of="rounded networks")


def _shipped(name: str) -> Any:
    """Read a file of measured errors that ships with the package."""
    try:
        return json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise PredictorError(f"predictor: this installation lacks {name}") from error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Domain:
    """What a predictor was calibrated on.

    Attributes
    ----------
    feature_names : tuple of str
        Columns of the feature rows.
    low, high : ndarray of float, shape (features,)
        Calibrated range of each feature.
    categories : mapping
        Calibrated names of each categorical key.
    datasets, networks : tuple of str
        Calibrated data sets and networks.
    of_name : mapping
        Calibrated ranges of the features of `OF_NAME` under each name of their key.
    unseen : mapping of str to float
        For some of `UNSEEN`: how much wider an interval is where the name is none of the calibrated
        ones, measured on names that were left out.
    """

    feature_names: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    categories: Mapping[str, tuple[str, ...]]
    datasets: tuple[str, ...]
    networks: tuple[str, ...]
    of_name: Mapping[str, Mapping[str, tuple[float, float]]]
    unseen: Mapping[str, float]
    _limits: tuple[NDArray[np.float64], NDArray[np.float64]] = field(init=False, repr=False)
    _spans: tuple[str, ...] = field(init=False, repr=False)
    _named: tuple[tuple[int, str, str, Mapping[str, tuple[float, float]]], ...] = field(
        init=False, repr=False
    )

    def __post_init__(self) -> None:
        pairs = [pair for ranges in self.of_name.values() for pair in ranges.values()]
        largest = np.finfo(np.float32).max  # of a feature
        lows = np.concatenate([self.low, [low for low, _ in pairs]])
        highs = np.concatenate([self.high, [high for _, high in pairs]])
        if not np.all((-largest <= lows) & (lows <= highs) & (highs <= largest)):
            raise ValueError("a calibrated range must be finite, and end after its beginning")
        # Names have a rule of their own.
        free = np.array(
            ["=" in name or name in (*_WITHOUT_RANGE, *OF_NAME) for name in self.feature_names]
        )
        ranges = list(zip(self.feature_names, self.low.tolist(), self.high.tolist(), strict=True))
        low, high = np.array([_with_slack(*each) for each in ranges]).T
        limits_of_rows = np.where(free, -np.inf, low), np.where(free, np.inf, high)
        object.__setattr__(self, "_limits", limits_of_rows)
        spans = tuple(
            f"is outside the calibrated {low:.4g} to {high:.4g}" for _, low, high in ranges
        )
        object.__setattr__(self, "_spans", spans)
        named = tuple(
            (self.feature_names.index(feature), feature, key, self.of_name[feature])
            for feature, key in OF_NAME.items()
        )
        object.__setattr__(self, "_named", named)

    def excursions(self, config: Config, features: NDArray[np.float32]) -> dict[str, str]:
        """Say where a configuration leaves the calibrated domain.

        Parameters
        ----------
        config : Config
        features : ndarray of float, shape (layers, features)
            Its rows, as `layer_features` gives them.

        Returns
        -------
        dict of str to str
            A sentence for each key or feature; empty inside the domain. The hardware is never part
            of it: its timing is computed.
        """
        found = self.unknown_names(config.dataset, config) | self.strange_network(config.network)
        for _, feature, sentence in self.named_excursions(config, features[:1]):
            found[feature] = sentence
        outside = self.outside(features)
        if outside.any():
            for column in np.flatnonzero(outside.any(axis=0)).tolist():
                layer = int(outside[:, column].argmax())
                value = float(features[layer, column])
                sentence = self.range_sentence(column, config.layers[layer].name, value)
                found[self.feature_names[column]] = sentence
        return found

    def widening(self, network: str, outside: Iterable[str]) -> float:
        """How much wider the interval of a configuration is than that of a calibrated one.

        Parameters
        ----------
        network : str
        outside : iterable of str
            Keys and features by which it leaves the domain.

        Returns
        -------
        float
            1 inside. Names that are new widen by what was measured of such, several by the product;
            whatever else is outside widens by `OUTSIDE_FACTOR`, once.
        """
        keys = set(outside) if network in self.networks else {*outside, "network"}
        others = OUTSIDE_FACTOR if keys - set(self.unseen) else 1.0
        return others * math.prod(self.unseen[key] for key in keys & set(self.unseen))

    def strange_network(self, network: str) -> dict[str, str]:
        """Say that a network was not calibrated, if nobody knows what that costs.

        Where it was measured on networks that were left out, one whose layers are in range counts
        as inside, with a wider interval.
        """
        if "network" in self.unseen or network in self.networks:
            return {}
        known = ", ".join(self.networks)
        return {"network": f"network: {network!r} was not calibrated (calibrated: {known})"}

    def unknown_names(self, dataset: str | None, config: Config) -> dict[str, str]:
        """Sentences about a data set, and the names that a configuration chooses, if not known."""
        found = {}
        if dataset not in self.datasets:
            what = "a private data set" if dataset is None else repr(dataset)
            known = ", ".join(self.datasets) or "none by name"
            found["dataset"] = f"dataset: {what} was not calibrated (calibrated: {known})"
        for key in CATEGORICAL_KEYS:
            value = category(config, key)
            if value not in self.categories[key]:
                known = ", ".join(self.categories[key])
                found[key] = f"{key}: {value!r} was not calibrated (calibrated: {known})"
        return found

    def named_excursions(
        self, config: Config, features: NDArray[np.float32]
    ) -> Iterator[tuple[int, str, str]]:
        """Find rows out of the ranges that depend on a name.

        Parameters
        ----------
        config : Config
            Has the names, which are those of all rows.
        features : ndarray of float, shape (rows, features)
            A row of each question.

        Yields
        ------
        row : int
        feature, sentence : str
        """
        for column, feature, key, ranges in self._named:
            name = category(config, key)
            told = feature == "surrogate.slope" or (feature, name) in _CALLED
            if told and name in ranges:
                low, high = _with_slack(feature, *ranges[name])
                values = features[:, column]
                for row in np.flatnonzero((values < low) | (values > high)).tolist():
                    value = float(values[row])
                    yield row, feature, _named_sentence(feature, name, value, ranges[name])

    def outside(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Mark features, in the last axis, that are out of their calibrated range."""
        low, high = self._limits
        outside: NDArray[np.bool_] = (features < low) | (features > high)
        return outside

    def range_sentence(self, column: int, layer: str, value: float) -> str:
        """Say that a feature is outside; `layer` names the first layer where it is."""
        name = self.feature_names[column]
        if name == "input.density":
            return f"input: {value:.4g} events per pixel and step {self._spans[column]}"
        if not name.startswith("layer."):
            return f"{name}: {value:.4g} {self._spans[column]}"
        what = name.removeprefix("layer.").replace("_", " ")
        return f"network: {what} {value:.4g} of {layer} {self._spans[column]}"


def fit_domain(
    configs: Sequence[Config],
    features: Sequence[NDArray[np.float32]],
    feature_names: tuple[str, ...],
    categories: Mapping[str, tuple[str, ...]],
    unseen: Mapping[str, float],
) -> Domain:
    """Read the calibrated domain off the runs of a table; see `Domain`."""
    stacked = np.concatenate(features).astype(np.float64)
    firsts = np.array([rows[0] for rows in features], dtype=np.float64)
    of_name: dict[str, dict[str, tuple[float, float]]] = {}
    for feature, key in OF_NAME.items():
        values = firsts[:, feature_names.index(feature)]
        names = np.array([category(config, key) for config in configs])
        of_name[feature] = {
            name: (float(values[names == name].min()), float(values[names == name].max()))
            for name in categories[key]
        }
    return Domain(
        feature_names=feature_names,
        low=stacked.min(axis=0),
        high=stacked.max(axis=0),
        categories=categories,
        datasets=tuple(sorted({config.dataset for config in configs if config.dataset})),
        networks=tuple(sorted({config.network for config in configs})),
        of_name=of_name,
        unseen=unseen,
    )


def _with_slack(feature: str, low: float, high: float) -> tuple[float, float]:
    """Widen a calibrated range of a feature by what still counts as inside."""
    share = 1 + (_SHARE_OF_SLACK if feature in _SHARED else 0.0)
    amount = _AMOUNTS.get(feature, 1e-6)
    return low / share - amount, high * share + amount


def _named_sentence(feature: str, name: str, value: float, range_: tuple[float, float]) -> str:
    said = _CALLED.get((feature, name), "surrogate.slope: {:.4g}").format(value)
    return f"{said} is outside the calibrated {range_[0]:.4g} to {range_[1]:.4g} of {name}"


def checked_confidence(confidence: float) -> float:
    """Refuse a confidence that is none."""
    if not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
        raise PredictorError(f"confidence: must be above 0 and below 1, got {confidence!r}")
    return float(confidence)
