"""What a fitted timing model shows: its terms, how the machine works, and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..predictor.fitted import Backend, amount_names, amounts, times_beyond
from ..predictor.intervals import Residuals
from ..predictor.structure import INFERENCE, PARTS
from .measurements import Measurements
from .residual import Fit
from .timing_problem import Candidate, Problem

__all__ = ["FitTimingReport", "error_by_group", "relative_errors", "report_of"]

_CONFIDENCE = 0.9
_SUSPICIOUS = 3.0
"""A latency that is off by this factor was probably measured or recorded wrongly."""

_Floats = NDArray[np.float64]


class FitTimingReport(TypedDict):
    """What was found; plain values, ready for JSON.

    ``mape``, ``p99``, ``coverage`` and ``by_group`` are of groups (networks, as a rule) that
    the whole fit had not seen. ``terms`` give a cost in cycles for its unit, and its mean share of
    the latency. ``residual`` says whether learning the rest was worth it. ``next`` is the row whose
    interval is widest when the others are to predict it.
    """

    backend: str
    rows: int
    groups: int
    unit: str
    mape: float
    p99: float
    coverage: float
    structure: dict[str, Any]
    summary: list[str]
    terms: list[dict[str, Any]]
    residual: dict[str, Any]
    by_group: list[dict[str, Any]]
    next: dict[str, Any]
    warnings: list[str]


def report_of(
    table: Measurements,
    problem: Problem,
    fit: Fit,
    backend: Backend,
    *,
    warnings: list[str],
    out: str,
) -> FitTimingReport:
    """Say what was found.

    Parameters
    ----------
    table : Measurements
    problem : Problem
        The same as numbers.
    fit : Fit
    backend : Backend
        With the errors on unseen groups.
    warnings : list of str
        What is to be said beside it.
    out : str
        Folder of the backend.
    """
    relative = relative_errors(backend.residuals.error)
    doubt = backend.half_width(_CONFIDENCE)[1]
    return FitTimingReport(
        backend=out,
        rows=len(relative),
        groups=backend.residuals.groups,
        unit=table.unit,
        mape=float(relative.mean()),
        p99=float(np.quantile(relative, 0.99)),
        coverage=_coverage(backend),
        structure=asdict(fit.found.structure),
        summary=_summary(fit.found, problem),
        terms=_terms(problem, fit.found),
        residual=fit.residual,
        by_group=error_by_group(table, problem.groups, relative),
        next=_next(table, problem, fit.found, backend),
        warnings=[*warnings, *_suspicions(backend.residuals.error), *([doubt] if doubt else [])],
    )


def relative_errors(errors: _Floats) -> _Floats:
    """Absolute relative errors of the prediction, from errors of log cycles."""
    relative: _Floats = np.abs(np.expm1(-errors))
    return relative


def error_by_group(
    table: Measurements, groups: NDArray[np.int64], relative: _Floats
) -> list[dict[str, Any]]:
    """Mean relative error of each group, worst first; described by its first row."""
    found = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        error = float(relative[rows].mean())
        found.append({**_described(table.configs[rows[0]]), "rows": len(rows), "mape": error})
    return sorted(found, key=lambda entry: -float(entry["mape"]))


def _coverage(backend: Backend) -> float:
    """Share of measurements inside the interval that the other groups give."""
    residuals = backend.residuals
    held: list[bool] = []
    for group in np.unique(residuals.group):
        own = residuals.group == group
        half_width, _ = _without(backend, own).half_width(_CONFIDENCE)
        held += list(np.abs(residuals.error[own]) <= half_width)
    return float(np.mean(held))


def _without(backend: Backend, own: NDArray[np.bool_]) -> Backend:
    """Leave the errors of some measurements aside."""
    residuals = backend.residuals
    others = Residuals(error=residuals.error[~own], group=residuals.group[~own])
    return replace(backend, residuals=others)


def _suspicions(errors: _Floats) -> list[str]:
    rows = np.flatnonzero(np.abs(errors) > np.log(_SUSPICIOUS)) + 1
    if not rows.size:
        return []
    which = f"row {rows[0]} lies" if len(rows) == 1 else f"rows {', '.join(map(str, rows))} lie"
    return [
        f"{which} more than {_SUSPICIOUS:g} times off what the others predict: a mistake of unit "
        "or recording, or like no other row"
    ]


def _terms(problem: Problem, found: Candidate) -> list[dict[str, Any]]:
    """Costs that were found, largest share first."""
    model = problem.model(found.structure)
    spent = problem.rows_of(model.features(found.costs)) * found.costs / problem.cycles[:, None]
    rows = [
        {
            "name": term.name,
            "unit": "inference" if term.part == INFERENCE else PARTS[term.part].unit,
            "cycles": float(cost),
            "share": float(share),
        }
        for term, cost, share in zip(found.terms, found.costs, spent.mean(axis=0), strict=True)
        if cost > 0
    ]
    return sorted(rows, key=lambda row: -row["share"])


_ORDER_WORDS = {
    "serial": "layers run one after the other",
    "lockstep": "layers run side by side, the slowest ends each step",
    "pipelined": "a layer starts a step when its input and itself are ready",
    "slowest": "layers run side by side, the slowest ends the inference",
    "schedule": "layers follow one another as hardware.schedule says",
}
_OVERLAP_WORDS = {
    "sum": "spikes are looked for, then their weights added",
    "step": "spikes are looked for while weights are added, the longer of the two counts per step",
    "map": "spikes are looked for while weights are added, the longer of the two counts per step "
    "and input map",
}


def _summary(found: Candidate, problem: Problem) -> list[str]:
    """Say in sentences what the machine does, as far as its costs show it."""
    structure, dense = found.structure, problem.work.dense
    sentences = [_ORDER_WORDS[structure.order]] if problem.work.layer.any() else []
    if not dense.all():
        sentences += [f"convolutions: {words}" for words in _work_words(found, "conv")]
    if dense.any():
        sentences += [f"dense layers: {words}" for words in _work_words(found, "dense")]
    if structure.cores is not None:
        sentences.append(_core_words(structure.cores))
    if isinstance(structure.width, str):
        sentences.append(f"lines scanned at once are the knob {structure.width}")
    elif structure.width is not None:
        sentences.append(f"{structure.width} lines are scanned at once, whatever is configured")
    if structure.borders:
        sentences.append("taps outside the frame take their time, too")
    sentences += [
        f"the knob {role.knob} scales {role.group} {'down' if role.inverse else 'up'}"
        for role in structure.roles
    ]
    return sentences


def _core_words(cores: int | str) -> str:
    if cores == 1:
        return "no cores are seen, work counts output channels"
    number = f"the knob {cores}" if isinstance(cores, str) else f"{cores} in every layer"
    return f"cores are {number}, whatever is configured"


def _work_words(found: Candidate, kind: Literal["conv", "dense"]) -> Iterator[str]:
    """Say how a kind of layers works, where every side of it costs something."""
    structure = found.structure
    overlap = structure.conv if kind == "conv" else structure.dense
    repeats = structure.conv_repeats if kind == "conv" else structure.dense_repeats
    groups = {
        PARTS[term.part].group
        for term, cost in zip(found.terms[:-1], found.costs, strict=False)
        if cost > 0 and term.kind in (kind, "all")
    }
    if {"encode", "accumulate"} <= groups:
        yield _OVERLAP_WORDS[overlap] + (", again for every phase" if repeats else "")
    elif "encode" in groups:
        again = ", again for every phase" if repeats else ""
        yield f"looking for spikes takes time{again}, adding their weights none that is seen"
    elif "accumulate" in groups:
        yield "adding weights takes time, looking for spikes none that is seen"
    if structure.fire_overlaps and overlap == "step" and "fire" in groups:
        yield "neurons are updated meanwhile"


def _described(config: Config) -> dict[str, Any]:
    size = config.input
    return {
        "network": config.network,
        "input": [size.time_steps, size.channels, size.height, size.width],
        "neural_cores": list(config.neural_cores),
        "knobs": dict(config.hardware.knobs),
    }


def _next(
    table: Measurements, problem: Problem, found: Candidate, backend: Backend
) -> dict[str, Any]:
    """Find the row whose interval is widest when the other groups are to predict it.

    Of rows with intervals as wide it is the one that lies farthest beyond the others.
    """
    values = problem.rows_of(amounts(problem.model(found.structure)))
    names = amount_names(list(problem.knobs))
    widest: tuple[float, float] = (-1.0, -1.0)
    for number, group in enumerate(problem.groups):
        own = problem.groups == group
        low, high = values[~own].min(axis=0), values[~own].max(axis=0)
        beyond = times_beyond(values[number], low, high, names)
        half_width, _ = _without(backend, own).half_width(
            _CONFIDENCE, outside=bool((beyond > 1).any())
        )
        if (half_width, beyond.max()) > widest:
            widest = (half_width, float(beyond.max()))
            row, column, others = number, int(beyond.argmax()), (low, high)
    predicted = problem.cycles[row] * np.exp(-backend.residuals.error[row])
    value, low, high = values[row, column], others[0][column], others[1][column]
    why = "its network is the one that the other rows predict with the widest interval"
    if widest[1] > 1:
        place = "above" if value > high else "below"
        why = (
            f"its {names[column]} ({value:.4g}) lie {place} the {low:.4g} to {high:.4g} of all "
            "others"
        )
    return {
        "row": row + 1,
        **_described(table.configs[row]),
        "interval_cycles": [
            float(predicted * np.exp(-widest[0])),
            float(predicted * np.exp(widest[0])),
        ],
        "amount": names[column],
        "value": float(value),
        "others": [float(low), float(high)],
        "why": why,
    }
