"""Hardware that we have no RTL of: fit a timing model to a user's own measured latencies.

`fit_timing` reads a table of measurements, finds the machine that explains them and writes a
backend that ``hardware.backend`` names; `score_timing` holds a backend against other measurements.
Every error that it reports, and every interval that the backend gives, rests on networks and
hardware that the costs had not seen.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..predictor.backend import read_backend, write_backend
from ..predictor.costs import INFERENCE, PARTS, Structure
from ..predictor.fitted import (
    SLACK,
    Backend,
    FittedTiming,
    amount_names,
    amounts,
    check_knobs,
    residual_features,
)
from ..predictor.intervals import Residuals, checked_confidence
from .measurements import Measurements, read_measurements
from .search import Candidate, Problem, find_structure, folds

if TYPE_CHECKING:
    import xgboost

__all__ = ["MIN_ROWS", "FitTimingReport", "TimingScores", "fit_timing", "score_timing"]

MIN_ROWS = 10
"""A backend needs at least this many measurements."""

_CONFIDENCE = 0.9
_ROUNDS = 60
_RESIDUAL_PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 2,
    "eta": 0.1,
    "min_child_weight": 3,
    "lambda": 2.0,
    "nthread": 1,
    "seed": 0,
}
_WORTH_A_RESIDUAL = 0.005
"""Errors of log cycles below this are not worth a residual model."""

_Floats = NDArray[np.float64]


class TimingScores(TypedDict):
    """How a backend met measurements: relative errors, and the share inside the interval.

    ``p99`` is the 99th percentile of the absolute relative error, ``coverage`` the share of
    latencies inside their 90 % interval, ``in_domain`` the share of rows that the backend's
    measurements vouch for.
    """

    backend: str
    rows: int
    mape: float
    p99: float
    coverage: float
    in_domain: float
    by_group: list[dict[str, Any]]


class FitTimingReport(TypedDict):
    """What was found; plain values, ready for JSON.

    ``mape``, ``p99``, ``coverage`` and ``by_group`` are of groups (one network on one hardware)
    that the costs had not seen. ``terms`` give a cost in cycles for its unit, and its mean share of
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


def fit_timing(measurements: str | Path, out: str | Path) -> FitTimingReport:
    """Fit a backend to measured latencies and write its folder.

    Parameters
    ----------
    measurements : str or Path
        CSV or Parquet table with columns ``config``, ``spikes``, ``latency``, ``unit`` and
        ``hw_NAME``; see `read_measurements`.
    out : str or Path
        Backend folder to write, whole or not at all; an older one is replaced.

    Returns
    -------
    FitTimingReport

    Raises
    ------
    InputError
        If the table is not sound or has fewer than `MIN_ROWS` rows, or the folder cannot be
        written.
    """
    table = read_measurements(measurements)
    if len(table.cycles) < MIN_ROWS:
        raise InputError(
            f"measurements: must hold at least {MIN_ROWS} rows, got {len(table.cycles)}"
        )
    problem = _problem(table)
    found = find_structure(problem)
    model = problem.model(found.structure)
    costs, _ = problem.solve(found.structure, found.kept, np.arange(len(table.cycles)))
    errors, booster, residual = _with_residual(problem, found, costs)
    values = problem.rows_of(amounts(model))
    backend = Backend(
        structure=found.structure,
        costs={
            term.name: float(cost)
            for term, cost in zip(found.terms, costs, strict=True)
            if cost > 0
        },
        knobs=problem.knobs,
        low=values.min(axis=0),
        high=values.max(axis=0),
        residuals=Residuals(error=errors, group=problem.groups),
        booster=booster,
        report={},
    )
    report = _report(table, problem, found, costs, backend, residual, str(out))
    kept = {key: value for key, value in report.items() if key not in ("backend", "by_group")}
    write_backend(replace(backend, report=kept), Path(out))
    return report


def score_timing(
    measurements: str | Path, backend: str | Path, *, confidence: float = _CONFIDENCE
) -> TimingScores:
    """Hold a backend against measurements that it was not fitted to.

    Parameters
    ----------
    measurements : str or Path
        Table as for `fit_timing`, of one row or more.
    backend : str or Path
        Folder that `fit_timing` wrote.
    confidence : float, optional
        Of the intervals whose coverage is counted.

    Returns
    -------
    TimingScores

    Raises
    ------
    InputError
        If the table is not sound or lacks a knob of the backend.
    PredictorError
        If the backend cannot be used.
    """
    confidence = checked_confidence(confidence)
    fitted = read_backend(Path(backend))
    table = read_measurements(measurements, backend=str(backend))
    errors, held, inside = [], [], []
    for number, (config, known, cycles) in enumerate(
        zip(table.configs, table.spikes, table.cycles, strict=True), 1
    ):
        try:
            check_knobs(config, list(fitted.knobs), fitted.structure)
        except InputError as error:
            raise InputError(f"row {number}, config: {error}") from error
        machine = FittedTiming(backend=fitted, config=config)
        timing = machine.statistics(known.counts, known.taps)
        outside = max(timing.outside, key=len, default=())
        half_width, _ = machine.doubt(confidence, outside)
        errors.append(float(np.log(cycles / timing.cycles.mean())))
        held.append(abs(errors[-1]) <= half_width)
        inside.append(not outside)
    relative = _relative(np.array(errors))
    return TimingScores(
        backend=str(backend),
        rows=len(relative),
        mape=float(relative.mean()),
        p99=float(np.quantile(relative, 0.99)),
        coverage=float(np.mean(held)),
        in_domain=float(np.mean(inside)),
        by_group=_by_group(table, relative),
    )


def _problem(table: Measurements) -> Problem:
    work = table.work()
    typical = np.median(work.knobs, axis=0)
    groups = table.groups
    return Problem(
        work=work,
        owner=table.owner,
        cycles=table.cycles,
        # With one network on one hardware, every row has to stand for itself
        groups=groups if groups.max() else np.arange(len(groups)),
        knobs={
            name: float(value) if value > 0 else 1.0
            for name, value in zip(table.knobs, typical, strict=True)
        },
    )


def _with_residual(
    problem: Problem, found: Candidate, costs: _Floats
) -> tuple[_Floats, xgboost.Booster | None, dict[str, Any]]:
    """Learn what the formula is off by, and keep it if unseen groups are predicted better.

    Returns the errors on unseen groups of what is kept, the model, and a summary.
    """
    without = problem.score(found)
    summary: dict[str, Any] = {"won": False, "error_without": without, "error_with": None}
    if without < _WORTH_A_RESIDUAL:
        return found.errors, None, summary
    errors = found.errors.copy()
    everything = np.arange(len(errors))
    for held_out in folds(problem.groups):
        seen = np.setdiff1d(everything, held_out)
        fold_costs, _ = problem.solve(found.structure, found.kept, seen)
        predicted = problem.predicted(found.structure, fold_costs)
        booster = _residual_model(problem, found.structure, predicted, seen)
        features = _row_features(problem, found.structure, predicted)
        errors[held_out] -= booster.inplace_predict(features)[held_out]
    better = Candidate(structure=found.structure, terms=found.terms, kept=found.kept, errors=errors)
    summary["error_with"] = problem.score(better)
    if problem.is_as_good(found, better):
        return found.errors, None, summary
    predicted = problem.predicted(found.structure, costs)
    summary["won"] = True
    return errors, _residual_model(problem, found.structure, predicted, everything), summary


def _residual_model(
    problem: Problem, structure: Structure, predicted: _Floats, rows: NDArray[np.int64]
) -> xgboost.Booster:
    import xgboost

    features = _row_features(problem, structure, predicted)[rows]
    target = np.log(problem.cycles / predicted)[rows]
    data = xgboost.DMatrix(features, label=target, nthread=1)
    return xgboost.train(_RESIDUAL_PARAMETERS, data, num_boost_round=_ROUNDS)


def _row_features(
    problem: Problem, structure: Structure, predicted: _Floats
) -> NDArray[np.float32]:
    """Features of every row: the mean over its samples."""
    features = residual_features(problem.model(structure), predicted[problem.owner])
    return problem.rows_of(features.astype(np.float64)).astype(np.float32)


def _report(
    table: Measurements,
    problem: Problem,
    found: Candidate,
    costs: _Floats,
    backend: Backend,
    residual: dict[str, Any],
    out: str,
) -> FitTimingReport:
    relative = _relative(backend.residuals.error)
    alone = len(np.unique(table.groups)) == 1
    return FitTimingReport(
        backend=out,
        rows=len(relative),
        groups=len(np.unique(table.groups)),
        unit=table.unit,
        mape=float(relative.mean()),
        p99=float(np.quantile(relative, 0.99)),
        coverage=_coverage(backend),
        structure=asdict(found.structure),
        summary=_summary(found.structure, table),
        terms=_terms(problem, found, costs),
        residual=residual,
        by_group=_by_group(table, relative),
        next=_next(table, problem, found, backend),
        warnings=["all rows are one network on one hardware; nothing is known of another"]
        if alone
        else [],
    )


def _relative(errors: _Floats) -> _Floats:
    """Absolute relative errors of the prediction, from errors of log cycles."""
    relative: _Floats = np.abs(np.expm1(-errors))
    return relative


def _coverage(backend: Backend) -> float:
    """Share of measurements inside the interval that the other groups give."""
    residuals = backend.residuals
    held: list[bool] = []
    for group in np.unique(residuals.group):
        own = residuals.group == group
        others = Residuals(error=residuals.error[~own], group=residuals.group[~own])
        half_width, _ = replace(backend, residuals=others).half_width(_CONFIDENCE)
        held += list(np.abs(residuals.error[own]) <= half_width)
    return float(np.mean(held))


def _terms(problem: Problem, found: Candidate, costs: _Floats) -> list[dict[str, Any]]:
    """Costs that were found, largest share first."""
    model = problem.model(found.structure)
    spent = problem.rows_of(model.features(costs)) * costs / problem.cycles[:, None]
    rows = [
        {
            "name": term.name,
            "unit": "inference" if term.part == INFERENCE else PARTS[term.part].unit,
            "cycles": float(cost),
            "share": float(share),
        }
        for term, cost, share in zip(found.terms, costs, spent.mean(axis=0), strict=True)
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


def _summary(structure: Structure, table: Measurements) -> list[str]:
    """Say in sentences what the machine does."""
    kinds = {layer.kind for config in table.configs for layer in config.layers}
    sentences = [_ORDER_WORDS[structure.order]]
    for kind, name, overlap, repeats in (
        ("conv", "convolutions", structure.conv, structure.conv_repeats),
        ("dense", "dense layers", structure.dense, structure.dense_repeats),
    ):
        if kind in kinds:
            again = ", again for every phase" if repeats else ""
            sentences.append(f"{name}: {_OVERLAP_WORDS[overlap]}{again}")
    if structure.cores is not None:
        number = f"the knob {structure.cores}" if isinstance(structure.cores, str) else "channels"
        if isinstance(structure.cores, int) and structure.cores > 1:
            number = f"{structure.cores} in every layer"
        sentences.append(
            "no cores are seen, work counts output channels"
            if number == "channels"
            else f"cores are {number}, whatever is configured"
        )
    if isinstance(structure.width, str):
        sentences.append(f"lines scanned at once are the knob {structure.width}")
    if structure.fire_overlaps:
        sentences.append("neurons are updated meanwhile")
    if structure.borders:
        sentences.append("taps outside the frame take their time, too")
    sentences += [
        f"the knob {role.knob} scales {role.group} {'down' if role.inverse else 'up'}"
        for role in structure.roles
    ]
    return sentences


def _by_group(table: Measurements, relative: _Floats) -> list[dict[str, Any]]:
    """Errors of each network and hardware, worst first."""
    groups = table.groups
    found = []
    for group in range(int(groups.max()) + 1):
        rows = np.flatnonzero(groups == group)
        found.append(
            {
                **_described(table.configs[rows[0]]),
                "rows": len(rows),
                "mape": float(relative[rows].mean()),
            }
        )
    return sorted(found, key=lambda entry: -float(entry["mape"]))


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
    """Find the row that the others vouch for least: more like it are worth measuring."""
    values = problem.rows_of(amounts(problem.model(found.structure)))
    names = amount_names(list(problem.knobs))
    ordered = np.sort(values, axis=0)
    others_high = np.where(values == ordered[-1], ordered[-2], ordered[-1])
    others_low = np.where(values == ordered[0], ordered[1], ordered[0])
    tiny = 1e-9
    beyond = np.maximum(
        (values + tiny) / (others_high + tiny), (others_low + tiny) / (values + tiny)
    )
    beyond[:, ordered[0] < 0] = 1.0  # a ratio says nothing of a knob that changes its sign
    row, column = (int(index) for index in np.unravel_index(beyond.argmax(), beyond.shape))
    outside = bool(beyond[row, column] > SLACK)
    half_width, _ = backend.half_width(_CONFIDENCE, outside=outside)
    predicted = problem.cycles[row] * np.exp(-backend.residuals.error[row])
    low, high = float(others_low[row, column]), float(others_high[row, column])
    value = float(values[row, column])
    place = "above" if value > high else "below"
    return {
        "row": row + 1,
        **_described(table.configs[row]),
        "interval_cycles": [
            float(predicted * np.exp(-half_width)),
            float(predicted * np.exp(half_width)),
        ],
        "amount": names[column],
        "value": value,
        "others": [low, high],
        "why": f"its {names[column]} ({value:.4g}) lie {place} the {low:.4g} to {high:.4g} of all "
        "other rows",
    }
