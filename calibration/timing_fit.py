"""Hardware that we have no RTL of: fit a timing model to a user's own measured latencies.

`fit_timing` reads a table of measurements, finds the machine that explains them and writes a
backend that ``hardware.backend`` names; `score_timing` holds a backend against other measurements.
Every error that it reports, and every interval that the backend gives, rests on networks that the
whole fit, search and all, had not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..predictor.backend import read_backend, write_backend
from ..predictor.fitted import Backend, FittedTiming, amounts, check_knobs
from ..predictor.intervals import Residuals, checked_confidence
from ..predictor.structure import Structure
from .measurements import Measurements, read_measurements
from .residual import Fit, fit_rows
from .timing_problem import Problem
from .timing_report import FitTimingReport, error_by_group, relative_errors, report_of

__all__ = ["MIN_ROWS", "FitTimingReport", "TimingScores", "fit_timing", "score_timing"]

MIN_ROWS = 10
"""A backend needs at least this many measurements."""

_MIN_GROUPS = 5
"""Fewer networks are split further: by hardware, then row by row."""

_CONFIDENCE = 0.9
_FOLDS = 5
_WORST = 20.0

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


def fit_timing(
    measurements: str | Path, out: str | Path, *, test: str | Path | None = None
) -> FitTimingReport:
    """Fit a backend to measured latencies and write its folder.

    Parameters
    ----------
    measurements : str or Path
        CSV or Parquet table with columns ``config``, ``spikes``, ``latency``, ``unit`` and
        ``hw_NAME``; see `read_measurements`.
    out : str or Path
        Backend folder to write, whole or not at all; an older one is replaced.
    test : str or Path, optional
        Other measurements that `score_timing` is to be asked about: if the backend could not
        score them, nothing is written.

    Returns
    -------
    FitTimingReport

    Raises
    ------
    InputError
        If a table is not sound or the first has fewer than `MIN_ROWS` rows, or the folder cannot
        be written.
    """
    table = read_measurements(measurements)
    if len(table.cycles) < MIN_ROWS:
        raise InputError(
            f"measurements: must hold at least {MIN_ROWS} rows, got {len(table.cycles)}"
        )
    others = None if test is None else read_measurements(test)
    if others is not None:
        _check_knobs(others, table.knobs, Structure())
    problem, warnings = _problem(table)
    fit = fit_rows(problem)
    backend = _backend(problem, fit, unseen_errors(problem))
    if others is not None:
        _check_knobs(others, table.knobs, backend.structure)
    report = report_of(table, problem, fit, backend, warnings=warnings, out=str(out))
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
    _check_knobs(table, list(fitted.knobs), fitted.structure)
    errors, held, inside = [], [], []
    for config, known, cycles in zip(table.configs, table.spikes, table.cycles, strict=True):
        machine = FittedTiming(backend=fitted, config=config)
        timing = machine.statistics(known.counts, known.taps)
        outside = max(timing.outside, key=len, default=())
        half_width, _ = machine.doubt(confidence, outside)
        errors.append(float(np.log(cycles / timing.cycles.mean())))
        held.append(abs(errors[-1]) <= half_width)
        inside.append(not outside)
    relative = relative_errors(np.array(errors))
    return TimingScores(
        backend=str(backend),
        rows=len(relative),
        mape=float(relative.mean()),
        p99=float(np.quantile(relative, 0.99)),
        coverage=float(np.mean(held)),
        in_domain=float(np.mean(inside)),
        by_group=error_by_group(table, table.machines, relative),
    )


def unseen_errors(problem: Problem) -> _Floats:
    """Repeat the whole fit without each fold: log(measured) - log(predicted) of what it left out.

    The search of the structure is repeated, too, as it would flatter the errors that it chose by.
    """
    errors = np.empty(len(problem.rows))
    for held_out in problem.folds(_FOLDS):
        seen = problem.part(np.delete(problem.rows, held_out))
        predicted = fit_rows(seen).predicted(problem)
        left = problem.rows[held_out]
        errors[held_out] = np.log(problem.cycles[left] / predicted[left])
    return np.clip(errors, -_WORST, _WORST)


def _problem(table: Measurements) -> tuple[Problem, list[str]]:
    """Measurements as a problem, and what its groups cannot tell."""
    work = table.work()
    typical = np.median(work.knobs, axis=0)
    groups, warnings = _groups(table)
    problem = Problem(
        work=work,
        owner=table.owner,
        cycles=table.cycles,
        groups=groups,
        knobs={
            name: float(value) if value > 0 else 1.0
            for name, value in zip(table.knobs, typical, strict=True)
        },
        rows=np.arange(len(table.cycles)),
    )
    return problem, warnings


def _groups(table: Measurements) -> tuple[NDArray[np.int64], list[str]]:
    """Group rows by network, or by less where there are too few of them."""
    networks = table.networks
    number = int(networks.max()) + 1
    if number >= _MIN_GROUPS:
        return networks, []
    few = "all rows are of one network" if number == 1 else f"the rows are of {number} networks"
    machines = table.machines
    if machines.max() + 1 >= _MIN_GROUPS:
        return machines, [f"{few}: errors are those on other hardware, not on other networks"]
    return np.arange(len(networks)), [
        f"{few} and hardly more hardware: errors are those on other spikes of the same networks"
    ]


def _backend(problem: Problem, fit: Fit, errors: _Floats) -> Backend:
    found = fit.found
    values = problem.rows_of(amounts(problem.model(found.structure)))
    return Backend(
        structure=found.structure,
        costs={
            term.name: float(cost)
            for term, cost in zip(found.terms, found.costs, strict=True)
            if cost > 0
        },
        knobs=problem.knobs,
        low=values.min(axis=0),
        high=values.max(axis=0),
        residuals=Residuals(error=errors, group=problem.groups),
        booster=fit.booster,
        report={},
    )


def _check_knobs(table: Measurements, knobs: Sequence[str], structure: Structure) -> None:
    for number, config in enumerate(table.configs, 1):
        try:
            check_knobs(config, knobs, structure)
        except InputError as error:
            raise InputError(f"row {number}, config: {error}") from error
