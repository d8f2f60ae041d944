"""A report in a few plain sentences with numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .configuration import OVERLAP, largest_steps
from .style import amount, effect, listed, percent

if TYPE_CHECKING:
    from ..changes import Change
    from ..explanation import LatencyExplanation

__all__ = ["bare_percent", "bare_points", "change_sentence", "summary_sentences"]

_STRONG = 3
"""Knobs that a sentence names."""
_LEAST_EFFECT = 0.0005
"""Share of cycles; a smaller effect is written as 0 %."""


def summary_sentences(explanation: LatencyExplanation) -> tuple[str, ...]:
    """Say in a few sentences what is predicted, why, what to change, and how sure that is."""
    return (
        *([explanation.chosen] if explanation.chosen else []),
        _predicted(explanation),
        _spent(explanation),
        _driven(explanation),
        _advised(explanation),
        _trusted(explanation),
    )


def _predicted(explanation: LatencyExplanation) -> str:
    estimate, clock = explanation.estimate, explanation.config.hardware.clock_mhz
    low, high = estimate.interval_cycles
    text = (
        f"One inference is predicted to take {amount(estimate.cycles)} cycles, "
        f"{amount(estimate.microseconds)} µs at {clock:g} MHz; {percent(estimate.confidence)} "
        f"interval {amount(low)} to {amount(high)} cycles."
    )
    if estimate.accuracy is not None and estimate.interval_accuracy is not None:
        worst, best = estimate.interval_accuracy
        text += (
            f" Of test samples {percent(estimate.accuracy)} are expected to be right "
            f"({percent(worst)} to {percent(best)})."
        )
    return text


def _spent(explanation: LatencyExplanation) -> str:
    estimate = explanation.estimate
    layers = estimate.layers
    total = sum(layer.cycles for layer in layers)
    most = max(layers, key=lambda layer: layer.cycles)
    sums: dict[str, float] = {}
    for layer in layers:
        for kind, cycles in layer.buckets.items():
            sums[kind] = sums.get(kind, 0.0) + cycles
    kind = max(sums, key=lambda each: sums[each])
    pipelined = total > estimate.cycles * OVERLAP
    overlap = (
        f" Layers overlap: a result leaves every {amount(estimate.initiation_interval_cycles)} "
        "cycles, and what they spend adds up to more than an inference takes."
    )
    return (
        f"Layer {most.name} takes {percent(most.cycles / total)} of the cycles of all layers; of "
        f"the cycles of all layers, {percent(sums[kind] / total)} are {kind} cycles."
        f"{overlap if pipelined else ''}"
    )


def _driven(explanation: LatencyExplanation) -> str:
    ranked = explanation.cycles.importance(explanation.estimate.confidence)[:_STRONG]
    ranked = ranked[ranked["mean_abs"] >= _LEAST_EFFECT]
    if not len(ranked):
        return "Nothing that varies among the configurations compared moves cycles."
    sizes = [np.expm1(ranked[name].to_numpy(dtype=float)) for name in ("mean_abs", "low", "high")]
    leading = [
        f"{knob} by {percent(mean)} [{bare_percent(low)}, {bare_percent(high)}]"
        for knob, mean, low, high in zip(ranked["knob"], *sizes, strict=True)
    ]
    here = [
        f"{name} ({effect(step)})"
        for name, step, _ in largest_steps(explanation.local, _STRONG)
        if abs(step) >= _LEAST_EFFECT
    ]
    text = (
        f"Over the configurations compared, these move cycles most, up or down: {listed(leading)}."
    )
    return f"{text} Here it is mostly {listed(here)}, against their average." if here else text


def _advised(explanation: LatencyExplanation) -> str:
    if not explanation.changes:
        return explanation.changes_note
    best = explanation.changes[0]
    doubt = "" if best.certain else "; its interval reaches above zero, so it may save nothing"
    return f"The cheapest change: {change_sentence(best)}{doubt}."


def change_sentence(change: Change) -> str:
    """Write a change: knob, both values, and what it does to cycles and to accuracy."""
    low, high = (bare_percent(share, signed=True) for share in change.interval_cycles)
    worst, best = map(bare_points, change.interval_accuracy)
    return (
        f"{change.knob} {change.before} → {change.after}: {percent(change.cycles, signed=True)} "
        f"cycles [{low}, {high}], accuracy {bare_points(change.accuracy)} points [{worst}, {best}]"
    )


def _trusted(explanation: LatencyExplanation) -> str:
    runs = explanation.runs
    predicted, measured = (runs[key].to_numpy(dtype=float) for key in ("predicted", "measured"))
    known = np.isfinite(predicted) & np.isfinite(measured)
    off = np.abs(predicted[known] / measured[known] - 1)
    inside = (
        "This configuration lies in the calibrated domain"
        if explanation.estimate.in_domain
        else "This configuration lies outside the calibrated domain, so its interval is wider"
    )
    if not known.any():
        return f"{inside}. How far off it was on runs that it had not seen is not known."
    return (
        f"{inside}. Of {int(known.sum()):,} calibrated runs, each predicted without having been "
        f"seen, half were within {percent(float(np.median(off)))} of the measured cycles and "
        f"{percent(float((off <= 0.1).mean()))} within {percent(0.1)}."
    )


def bare_percent(share: float, *, signed: bool = False) -> str:
    """Write percent without the unit, which stands beside."""
    return percent(share, signed=signed).removesuffix("\N{NO-BREAK SPACE}%")


def bare_points(share: float) -> str:
    """Write percentage points with their sign, without the unit."""
    return percent(share, signed=True).removesuffix("\N{NO-BREAK SPACE}%")
