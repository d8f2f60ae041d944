"""What a prediction says: cycles with an interval, their origin, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .spikes import StatisticsLevel

__all__ = ["FIDELITIES", "Fidelity", "LatencyEstimate", "LayerEstimate"]

Fidelity = Literal["hyperparameters", "forecast", "statistics", "trace"]

FIDELITIES: tuple[Fidelity, ...] = ("hyperparameters", "statistics", "trace")
"""What a configuration can give a prediction to rest on, from least to most exact.

A forecast rests on the firing rates of the first epochs; see `LatencyPredictor.forecast`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEstimate:
    """One weighted layer of an estimate; cycles are means over samples.

    Attributes
    ----------
    name : str
        Index and notation, for instance ``"0:16C3"``.
    input_rate : float
        Spikes that enter, per input line and step.
    firing_rate : float or None
        Spikes emitted before pooling, per neuron and step; None where the source does not say.
    cycles : float
        Clock cycles of this layer.
    buckets : mapping
        The same cycles by cause: encode, accumulate, fire, stall.
    """

    name: str
    input_rate: float
    firing_rate: float | None
    cycles: float
    buckets: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyEstimate:
    """Latency of one network on one accelerator.

    Attributes
    ----------
    cycles : float
        Mean clock cycles of an inference over test samples.
    microseconds : float
        The same at the clock of the configuration.
    interval_cycles : (float, float)
        Low and high; holds the mean with `confidence`.
    confidence : float
        As asked for.
    fidelity : {"hyperparameters", "forecast", "statistics", "trace"}
        What the estimate rests on.
    statistics_level : {"taps", "channels", "layers"} or None
        With the fidelity ``statistics``: counts per step and channel with their kernel taps inside
        the frame, the same without taps, or counts per step of every layer.
    in_domain : bool
        Whether the configuration lies where the predictor was calibrated.
    warnings : tuple of str
        One sentence for each reason to trust the estimate less.
    layers : tuple of LayerEstimate
        In the order of the network.
    initiation_interval_cycles : float
        Mean cycles between results in steady state.
    worst_case_cycles : float or None
        Largest of `sample_cycles`; None where single samples are not known.
    sample_cycles : tuple of float
        Cycles of each sample of a trace, as exact as the timing; empty otherwise.
    quantised : bool
        Whether it is of the integer network that the hardware runs. False where the spikes are
        known to be those of a network in floating point; then the interval includes how far
        rounding was found to move a latency.
    accuracy : float or None
        Test accuracy that the quantised network is expected to reach, by its hyperparameters; None
        where its spikes are known.
    interval_accuracy : (float, float) or None
        Low and high; holds that accuracy with `confidence`.
    """

    cycles: float
    microseconds: float
    interval_cycles: tuple[float, float]
    confidence: float
    fidelity: Fidelity
    statistics_level: StatisticsLevel | None
    in_domain: bool
    warnings: tuple[str, ...]
    layers: tuple[LayerEstimate, ...]
    initiation_interval_cycles: float
    worst_case_cycles: float | None
    sample_cycles: tuple[float, ...]
    quantised: bool = True
    accuracy: float | None = None
    interval_accuracy: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; keys as in the result of a simulation where both have them."""
        return {
            "cycles": self.cycles,
            "microseconds": self.microseconds,
            "interval_cycles": list(self.interval_cycles),
            "confidence": self.confidence,
            "fidelity": self.fidelity,
            "statistics_level": self.statistics_level,
            "in_domain": self.in_domain,
            "warnings": list(self.warnings),
            "samples": {"cycles": list(self.sample_cycles)},
            "layers": [asdict(layer) for layer in self.layers],
            "initiation_interval_cycles": self.initiation_interval_cycles,
            "worst_case_cycles": self.worst_case_cycles,
            "quantised": self.quantised,
            "accuracy": self.accuracy,
            "interval_accuracy": None if not self.interval_accuracy else [*self.interval_accuracy],
        }
