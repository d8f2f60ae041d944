"""Fitting: from the table of runs to a predictor folder, and how good it is on unseen runs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..predictor.differences import UNSEEN_CYCLES
from ..predictor.ensemble import Ensemble, TreeSettings, fit_head
from ..predictor.events import InputStatistics
from ..predictor.features import categories_of, feature_names, row_from_config
from ..predictor.folder import PredictorParts, write_folder
from ..predictor.intervals import MOST_WIDENING, UNSEEN, Residuals, fit_domain
from ..predictor.sparsity import Predicted, SparsityModel, logit
from .forecasting import fit_forecaster
from .learning import (
    USUAL_RATES,
    Lessons,
    estimated_inputs,
    folds,
    frames_of,
    known_statistics,
    lessons,
    log_cycles_at_rate,
    measured_log_cycles,
    predicted_log_cycles,
    tap_ratios_of,
    teach,
    usual_rate,
    with_inputs,
)
from .observed import KEPT, Observed, observed_runs
from .table import SPLITS
from .tuning import HeadSettings, tuned

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FitReport", "Scores", "fit_predictor", "fitted_parts", "noise_floor", "scores_of"]

_FOLDS = 10
_FOLDS_OF_NAMES = 5
_FEWEST_NAMES = 5
_LEAST_WIDENING = 1.1
_AT_CONFIDENCE = 0.9
_LEAVE_ONE_OUT_UP_TO = 20
_SMALLEST_ERROR = 0.01
_FEWEST_FOR_SPREAD = 40
_SPREAD = TreeSettings(rounds=80, max_depth=2, min_child_weight=10)

_Floats = NDArray[np.float64]


class Scores(TypedDict):
    """How predicted cycles met measured ones on unseen runs."""

    rmse_log: float
    r2_log: float
    mape: float


class FitReport(TypedDict):
    """What was fitted and how good it is; plain values, ready for JSON.

    ``runs`` were used, in ``points`` that differ in more than their seed or hardware; ``left_out``
    were not usable. ``noise_floor_log`` is the pooled standard deviation of log cycles over seeds
    of one point, None without repetitions. ``scores`` are by predictor: ``hyperparameters``
    (the one fitted), ``statistics`` (measured rates of every layer, mean taps), and the baselines
    ``mean`` and ``mean_firing_rate``; see `spikemeter.calibration.evaluation` for more.
    ``firing_rate_r2`` is of the logit of the rate of every layer, ``accuracy_mae`` of the test
    accuracy. ``settings`` are how the trees of each head were grown.
    """

    runs: int
    points: int
    left_out: int
    noise_floor_log: float | None
    scores: dict[str, Scores]
    firing_rate_r2: float
    accuracy_mae: float
    settings: dict[str, dict[str, float]]
    predictor: str


def fit_predictor(
    table: pd.DataFrame, out: str | Path, *, settings: HeadSettings | None = None
) -> FitReport:
    """Fit a predictor to the table of a campaign and write its folder.

    Parameters
    ----------
    table : DataFrame
        One row per run, as `read_table` gives it. Runs that failed, whose spikes did not match,
        or whose row an older version of a stage has written, are left out.
    out : str or Path
        Predictor folder to write, whole or not at all; an older one is replaced.
    settings : mapping of str to TreeSettings, optional
        How the trees of each head are grown. Default: found by cross-validation.

    Returns
    -------
    FitReport
        Scores on unseen runs, beside baselines.

    Raises
    ------
    InputError
        If a column is missing, a value is impossible, or fewer than `MIN_RUNS` runs are usable.
    """
    observed = observed_runs(table)
    parts, unseen = fitted_parts(observed, settings)
    report = _report(observed, parts, unseen, len(table), str(out))
    kept = {key: value for key, value in report.items() if key != "predictor"}
    write_folder(parts.with_scores(kept), Path(out))
    return report


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unseen:
    """What was predicted for every run by models that had not seen its group.

    Attributes
    ----------
    log_cycles, guessed_log_cycles : ndarray of float, shape (runs,)
        By the model, and by the model if what enters had to be estimated.
    firing : ndarray of float, shape (rows,)
        Firing rate of every layer.
    accuracy : ndarray of float, shape (runs,)
    spread : ndarray of float, shape (runs,)
        Of the error of log cycles.
    predicted : list of Predicted
        What was said of every run.
    settings : mapping of str to TreeSettings
    """

    log_cycles: _Floats
    guessed_log_cycles: _Floats
    firing: _Floats
    accuracy: _Floats
    spread: _Floats
    predicted: list[Predicted]
    settings: HeadSettings


def fitted_parts(
    observed: Observed,
    settings: HeadSettings | None = None,
    *,
    known: Mapping[str, Sequence[InputStatistics]] | None = None,
    new_names: bool = True,
) -> tuple[PredictorParts, Unseen]:
    """Fit everything that a predictor needs.

    Parameters
    ----------
    observed : Observed
        Runs to learn from.
    settings : mapping of str to TreeSettings, optional
        See `fit_predictor`.
    known : mapping, optional
        Statistics of data sets; by default those that these runs have seen.
    new_names : bool, optional
        Whether to measure how far off predictions are for names that no run has, which takes a
        third of the time. Not needed where none will be asked about.

    Returns
    -------
    PredictorParts
        With empty scores.
    Unseen
        Cross-validated predictions of these runs.
    """
    statistics = known_statistics(observed) if known is None else _frozen(known)
    categories = categories_of(observed.configs)
    ratios = tap_ratios_of(observed)
    given = lessons(observed, statistics, categories, ratios.input)
    groups = observed.groups
    settings = tuned(given, observed) if settings is None else settings
    inputs = estimated_inputs(observed, statistics)
    unseen = _unseen(given, observed, settings, with_inputs(given, inputs, categories))
    model = teach(given, range(len(observed)), settings)
    ensembles = dict(model.ensembles)
    errors = observed.log_cycles - unseen.log_cycles
    if _has_spread(groups):
        ensembles["spread"] = _spread_head(given, np.abs(errors), np.arange(len(observed)))
    estimated = np.array(sorted(inputs), dtype=np.int64)
    shifts = unseen.guessed_log_cycles - unseen.log_cycles
    statistics_errors = observed.log_cycles - measured_log_cycles(observed, tap_ratios=ratios)
    features = np.split(given.features, given.ends[:-1])
    relative = Residuals(error=errors / unseen.spread, group=groups)
    found = new_name_errors(given, observed, settings, unseen) if new_names else {}
    factors = {key: _widening(each, relative) for key, each in found.items()}
    parts = PredictorParts(
        model=SparsityModel(ensembles=ensembles),
        profile=given.profile,
        forecaster=fit_forecaster(
            given, observed, unseen.predicted, unseen.spread, folds_of(groups)
        ),
        domain=fit_domain(
            observed.configs, features, feature_names(categories), categories, factors
        ),
        residuals={
            "hyperparameters": relative,
            "accuracy": Residuals(
                error=logit(observed.accuracy) - logit(unseen.accuracy), group=groups
            ),
            "statistics": Residuals(error=statistics_errors, group=groups),
        },
        estimated=(
            Residuals(
                error=shifts[estimated], group=frames_of(observed)[estimated], of="measured frames"
            )
            if inputs
            else None
        ),
        tap_ratios=ratios,
        statistics=statistics,
        table=_slim(observed.table, unseen.log_cycles),
        scores={},
    )
    return parts, unseen


def _unseen(given: Lessons, observed: Observed, settings: HeadSettings, guessed: Lessons) -> Unseen:
    """Ask about every run a model that has not seen its group, also by guessed inputs."""
    count = len(observed)
    log_cycles, guessed_log_cycles, accuracy = np.empty(count), np.empty(count), np.empty(count)
    firing = np.empty(len(given.features))
    expected: dict[int, Predicted] = {}
    parts = folds_of(observed.groups)
    for held_out in parts:
        seen = np.setdiff1d(np.arange(count), held_out)
        model = teach(given, seen, settings)
        log_cycles[held_out], predicted = predicted_log_cycles(given, held_out, model)
        guessed_log_cycles[held_out], _ = predicted_log_cycles(guessed, held_out, model)
        accuracy[held_out] = [float(each.accuracy[-1]) for each in predicted]
        for run, each in zip(held_out, predicted, strict=True):
            firing[given.rows_of([run])] = each.firing_rate
            expected[int(run)] = each
    sizes = np.abs(observed.log_cycles - log_cycles)
    spread = np.empty(count)
    for held_out in parts:  # of the errors, too, only those of other runs are known
        spread[held_out] = _spread_of(given, observed, sizes, held_out)
    return Unseen(
        log_cycles=log_cycles,
        guessed_log_cycles=guessed_log_cycles,
        firing=firing,
        accuracy=accuracy,
        spread=spread,
        predicted=[expected[run] for run in range(count)],
        settings=settings,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewNames:
    """Errors of models that had not seen the name that a run has under a key.

    Attributes
    ----------
    names : ndarray of str, shape (runs,)
    errors : Residuals
        Of log cycles, over the predicted spread.
    """

    names: NDArray[np.str_]
    errors: Residuals


def new_name_errors(
    given: Lessons, observed: Observed, settings: HeadSettings, unseen: Unseen
) -> dict[str, NewNames]:
    """Ask about the runs of every name models that have learned from those of other names.

    Returns
    -------
    dict of str to NewNames
        By those of `UNSEEN` under which runs have several names.
    """
    rows = [row_from_config(config) for config in observed.configs]
    sizes = np.abs(observed.log_cycles - unseen.log_cycles)
    found = {}
    for key in UNSEEN:
        names = np.array([str(row[key]) for row in rows])
        different, numbers = np.unique(names, return_inverse=True)
        if len(different) == 1:
            continue
        errors = np.empty(len(observed))
        for held_out in folds(numbers, _FOLDS_OF_NAMES):
            seen = np.setdiff1d(np.arange(len(observed)), held_out)
            predicted, _ = predicted_log_cycles(given, held_out, teach(given, seen, settings))
            spread = _spread_of(given, observed, sizes, held_out)
            errors[held_out] = (observed.log_cycles[held_out] - predicted) / spread
        found[key] = NewNames(names=names, errors=Residuals(error=errors, group=observed.groups))
    return found


def _widening(found: NewNames, usual: Residuals) -> float:
    """How much wider an interval must be for a name that no run has.

    By the errors of all names together; of too few names for a mean to say much, by those of the
    name that was told worst. It is at least a little, also if new names were told as well.
    """
    names = np.unique(found.names)
    everything = np.ones(len(found.names), dtype=bool)
    parts = [found.names == name for name in names] if len(names) < _FEWEST_NAMES else [everything]
    width = max(
        Residuals(error=found.errors.error[part], group=found.errors.group[part])
        .half_width(_AT_CONFIDENCE)[0]
        for part in parts
    )  # fmt: skip
    unit = usual.half_width(_AT_CONFIDENCE)[0]
    return float(np.clip(width / max(unit, 1e-9), _LEAST_WIDENING, MOST_WIDENING))


def _spread_of(
    given: Lessons, observed: Observed, sizes: _Floats, held_out: NDArray[np.int64]
) -> _Floats:
    """Predict from the errors of all other runs how far cycles of some are off; 1 if few are."""
    if not _has_spread(observed.groups):
        return np.ones(len(held_out))
    head = _spread_head(given, sizes, np.setdiff1d(np.arange(len(observed)), held_out))
    return np.exp(head.values(given.features[given.ends[held_out] - 1]))


def _frozen(
    known: Mapping[str, Sequence[InputStatistics]],
) -> dict[str, tuple[InputStatistics, ...]]:
    return {name: tuple(entries) for name, entries in known.items()}


def _has_spread(groups: NDArray[np.int64]) -> bool:
    """Tell whether there are points enough to learn where errors are large."""
    return len(np.unique(groups)) >= _FEWEST_FOR_SPREAD


def _spread_head(given: Lessons, sizes: _Floats, runs: NDArray[np.int64]) -> Ensemble:
    """Learn the log of how far cycles are off, from the rows of the last layers of some runs."""
    rows = given.ends[runs] - 1
    target = np.log(np.maximum(sizes[runs], _SMALLEST_ERROR))
    return fit_head(given.features[rows], target, _SPREAD)


def folds_of(groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split runs into folds for cross-validation; few points are left out one by one."""
    points = len(np.unique(groups))
    return folds(groups, points if points <= _LEAVE_ONE_OUT_UP_TO else _FOLDS)


def _report(
    observed: Observed, parts: PredictorParts, unseen: Unseen, rows: int, out: str
) -> FitReport:
    measured = observed.log_cycles
    statistics = parts.residuals["statistics"].error
    mean, at_rate = _baselines(observed, parts)
    return FitReport(
        runs=len(observed),
        points=len(np.unique(observed.groups)),
        left_out=rows - len(observed),
        noise_floor_log=noise_floor(observed),
        scores={
            "hyperparameters": scores_of(measured - unseen.log_cycles, measured),
            "statistics": scores_of(statistics, measured),
            "mean": scores_of(measured - mean, measured),
            "mean_firing_rate": scores_of(measured - at_rate, measured),
        },
        firing_rate_r2=r_squared(
            logit(np.concatenate(observed.firing_rates)), logit(unseen.firing)
        ),
        accuracy_mae=float(np.abs(observed.accuracy - unseen.accuracy).mean()),
        settings={name: asdict(each) for name, each in unseen.settings.items()},
        predictor=out,
    )


def _baselines(observed: Observed, parts: PredictorParts) -> tuple[_Floats, _Floats]:
    """Log cycles of every run by the mean of others, and by their usual rate with exact timing."""
    given = lessons(observed, parts.statistics, parts.domain.categories, parts.tap_ratios.input)
    everything = np.arange(len(observed))
    at_rates = np.stack([log_cycles_at_rate(given, everything, rate) for rate in USUAL_RATES])
    mean, at_rate = np.empty(len(observed)), np.empty(len(observed))
    for held_out in folds_of(observed.groups):
        seen = np.setdiff1d(everything, held_out)
        mean[held_out] = observed.log_cycles[seen].mean()
        rate = usual_rate(observed.log_cycles[seen], at_rates[:, seen])
        at_rate[held_out] = at_rates[USUAL_RATES.index(rate), held_out]
    return mean, at_rate


def noise_floor(observed: Observed) -> float | None:
    """Pooled standard deviation of log cycles over runs that differ in their seed alone."""
    alike: dict[tuple[int, str], list[float]] = {}
    for config, group, value in zip(
        observed.configs, observed.groups, observed.log_cycles, strict=True
    ):
        alike.setdefault((int(group), repr(config.hardware)), []).append(float(value))
    squares = sum(float(np.var(values)) * len(values) for values in alike.values())
    freedom = sum(len(values) - 1 for values in alike.values())
    return float(np.sqrt(squares / freedom)) if freedom else None


def scores_of(errors: _Floats, log_cycles: _Floats) -> Scores:
    """Scores from errors of log cycles, measured minus predicted."""
    return Scores(
        rmse_log=float(np.sqrt(np.mean(errors**2))),
        r2_log=r_squared(log_cycles, log_cycles - errors),
        mape=float(np.mean(np.abs(np.expm1(-errors)))),
    )


def r_squared(measured: _Floats, predicted: _Floats) -> float:
    """Share of the variance that predictions explain; 1 or 0 where there is none."""
    spread = float(np.sum((measured - measured.mean()) ** 2))
    rest = float(np.sum((measured - predicted) ** 2))
    return 1 - rest / spread if spread else float(rest == 0)


def _slim(table: pd.DataFrame, unseen_log_cycles: NDArray[np.float64]) -> bytes:
    """Keep what a predictor needs of its runs, and what a model says that has not seen them."""
    buffer = io.BytesIO()
    columns = [*KEPT, *(f"test.{name}" for name in SPLITS)]
    kept = table[[column for column in columns if column in table.columns]]
    kept = kept.assign(**{UNSEEN_CYCLES: np.exp(unseen_log_cycles)})
    kept.to_parquet(buffer, index=False)
    return buffer.getvalue()
