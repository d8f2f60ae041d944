"""Scores of a predictor on rows that it has not seen, beside the baselines, by frozen split.

The predictor keeps the runs that it was calibrated on. For a split it is fitted again, tuning
included, to the training part alone, and asked about the test part. What enters the networks of a
data set is known to it even where it has learned nothing from that data set: it is measured, never
learned.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..predictor import LatencyPredictor
from ..predictor.ensemble import TreeSettings, fit_head
from ..predictor.features import LAYER_COLUMNS, row_from_config
from ..predictor.folder import PredictorParts
from ..predictor.sparsity import logit
from .fit import fitted_parts, noise_floor, r_squared
from .learning import (
    USUAL_RATES,
    Lessons,
    folds,
    known_statistics,
    lessons,
    log_cycles_at_rate,
    usual_rate,
)
from .observed import MIN_RUNS, Observed, observed_runs
from .table import SPLITS
from .tuning import HeadSettings

__all__ = [
    "BASELINES",
    "CONFIDENCE",
    "Evaluation",
    "FittedAnswers",
    "answers",
    "evaluate",
    "evaluated",
    "fitted_answers",
    "scored",
    "split_of",
]

CONFIDENCE = 0.9
"""Of the intervals that are scored."""

BASELINES = {
    "mean": "the mean of all log cycles",
    "total_spikes": "a line through log cycles over the log of the spikes that were measured",
    "synops": "the same over measured synaptic operations",
    "mean_firing_rate": "one rate for all layers, the best for the training part; exact timing",
    "xgboost": "XGBoost from the configuration to log cycles",
}
"""What the figures are held against. Two of them know the spikes that we have to predict."""

_CEILING_DRAWS = 200
_FEWEST_POINTS = 2
_FOLDS = 5
_END_TO_END = (
    TreeSettings(rounds=400),
    TreeSettings(max_depth=4, eta=0.04, rounds=600),
    TreeSettings(max_depth=4, eta=0.04, rounds=600, colsample_bytree=0.4, subsample=0.6),
    TreeSettings(max_depth=2, eta=0.1, rounds=600),
)

_Floats = NDArray[np.float64]


class BaselineScores(TypedDict):
    """How a baseline did on the same rows."""

    rmse_log: float
    r2_log: float
    mape: float
    spearman: float


class CommonScores(TypedDict):
    """Scores of some rows; plain values, ready for JSON.

    ``rmse_log`` and ``r2_log`` are of log cycles. ``noise_floor_log`` is the pooled standard
    deviation over seeds of one point, ``r2_log_ceiling`` and ``spearman_ceiling`` what that noise
    leaves to a perfect predictor; None without repetitions. ``coverage`` is the share of 90 %
    intervals that hold, ``mean_width`` the mean of their high over their low end, less 1;
    ``in_domain`` the share of rows inside the calibrated domain. ``accuracy_*`` are of the accuracy
    of the integer network.
    """

    rows: int
    rmse_log: float
    noise_floor_log: float | None
    r2_log: float
    r2_log_ceiling: float | None
    mape: float
    within_10_percent: float
    spearman: float
    spearman_ceiling: float | None
    coverage: float
    mean_width: float
    in_domain: float
    coverage_in_domain: float | None
    accuracy_mae: float
    accuracy_r2: float
    accuracy_coverage: float
    baselines: dict[str, BaselineScores]


class Evaluation(CommonScores):
    """Scores on the test part of a split, and on the parts of it.

    ``firing_rate_r2`` is of the logit of the rate of every layer.
    """

    split: str
    rows_learned_from: int
    firing_rate_r2: float
    by_dataset: dict[str, CommonScores]
    by_network: dict[str, CommonScores]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What was measured and predicted of some rows; arrays have shape (rows,).

    Attributes
    ----------
    log_cycles, predicted, half_width : ndarray of float
        Of log cycles, at `CONFIDENCE`.
    accuracy, predicted_accuracy, accuracy_low, accuracy_high : ndarray of float
    in_domain : ndarray of bool
    """

    log_cycles: _Floats
    predicted: _Floats
    half_width: _Floats
    accuracy: _Floats
    predicted_accuracy: _Floats
    accuracy_low: _Floats
    accuracy_high: _Floats
    in_domain: NDArray[np.bool_]

    def only(self, rows: NDArray[np.bool_]) -> Answers:
        """Give some of the rows."""
        return Answers(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


def evaluate(
    predictor: LatencyPredictor, split: str, *, settings: HeadSettings | None = None
) -> Evaluation:
    """Score a predictor's way of fitting on a frozen split of the runs that it keeps.

    Parameters
    ----------
    predictor : LatencyPredictor
    split : str
        One of `spikemeter.calibration.table.SPLITS`.
    settings : mapping of str to TreeSettings, optional
        How the trees are grown. Default: tuned on the training part, as fitting does.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        If there is no such split, its table says nothing of it, or a part of it is too small.
    """
    observed = observed_runs(predictor.table())
    return evaluated(observed, split_of(observed, split), split, settings=settings)


def split_of(observed: Observed, split: str) -> NDArray[np.bool_]:
    """Say which runs a frozen split holds out, shape (runs,); `InputError` if it has none."""
    if split not in SPLITS:
        raise InputError(f"split: must be one of {', '.join(SPLITS)}; got {split!r}")
    column = f"test.{split}"
    if column not in observed.table.columns or observed.table[column].isna().any():
        raise InputError(f"split: the table must say in {column!r} what {split} holds out")
    held_out = observed.table[column].to_numpy(dtype=bool)
    if not held_out.any() or held_out.all():
        rule = f"{split} must hold out some of the runs"
        raise InputError(f"split: {rule}, got {int(held_out.sum())} of {len(held_out)}")
    return held_out


def evaluated(
    observed: Observed,
    held_out: NDArray[np.bool_],
    split: str,
    *,
    settings: HeadSettings | None = None,
) -> Evaluation:
    """Fit to some runs and score on the others; see `evaluate`."""
    return scored(observed, held_out, split, fitted_answers(observed, held_out, split, settings))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedAnswers:
    """What a predictor that was fitted to one part of the runs says of the other.

    Attributes
    ----------
    parts : PredictorParts
    answers : Answers
    baselines : dict of str to ndarray of float
        Log cycles by `BASELINES`.
    """

    parts: PredictorParts
    answers: Answers
    baselines: dict[str, _Floats]


def fitted_answers(
    observed: Observed,
    held_out: NDArray[np.bool_],
    split: str,
    settings: HeadSettings | None = None,
) -> FittedAnswers:
    """Fit a predictor, and the baselines, to some runs and ask about the others."""
    train = observed.chosen(np.flatnonzero(~held_out))
    test = observed.chosen(np.flatnonzero(held_out))
    if len(train) < MIN_RUNS or len(np.unique(train.groups)) < _FEWEST_POINTS:
        rule = f"must leave at least {MIN_RUNS} runs of {_FEWEST_POINTS} points to learn from"
        got = f"{len(train)} of {len(np.unique(train.groups))}"
        raise InputError(f"split: {split} {rule}, got {got}")
    parts, _ = fitted_parts(train, settings, known=known_statistics(observed))
    return FittedAnswers(
        parts=parts, answers=answers(parts, test), baselines=baselines(train, test, parts)
    )


def scored(
    observed: Observed, held_out: NDArray[np.bool_], split: str, found: FittedAnswers
) -> Evaluation:
    """Score what was said of the runs that were held out."""
    test = observed.chosen(np.flatnonzero(held_out))
    floor = noise_floor(observed)
    datasets = np.array([str(config.dataset) for config in test.configs])
    networks = np.array([config.network for config in test.configs])
    everything = np.ones(len(test), dtype=bool)
    return {
        "split": split,
        "rows_learned_from": len(observed) - len(test),
        **_scores(found, everything, floor),
        "firing_rate_r2": _firing_rate_r2(found.parts, test),
        "by_dataset": _by(datasets, found, floor),
        "by_network": _by(networks, found, floor),
    }


def answers(parts: PredictorParts, test: Observed) -> Answers:
    """Ask a predictor about runs."""
    import pandas as pd

    rows = pd.DataFrame([_question(config) for config in test.configs])
    frame = LatencyPredictor(parts=parts).predict(rows, confidence=CONFIDENCE)
    predicted = np.log(frame["cycles"].to_numpy())
    return Answers(
        log_cycles=test.log_cycles,
        predicted=predicted,
        half_width=np.log(frame["interval_cycles.high"].to_numpy()) - predicted,
        accuracy=test.accuracy,
        predicted_accuracy=frame["accuracy"].to_numpy(),
        accuracy_low=frame["interval_accuracy.low"].to_numpy(),
        accuracy_high=frame["interval_accuracy.high"].to_numpy(),
        in_domain=frame["in_domain"].to_numpy(dtype=bool),
    )


def _question(config: Config) -> dict[str, Any]:
    """Columns that ask about a configuration, its own events among them."""
    return row_from_config(config) | {"input.events": config.input.statistics}


def _scores(fitted: FittedAnswers, rows: NDArray[np.bool_], floor: float | None) -> CommonScores:
    found = fitted.answers.only(rows)
    measured, errors = found.log_cycles, found.log_cycles - found.predicted
    variance = float(measured.var())
    inside = np.abs(errors) <= found.half_width
    held = (found.accuracy_low <= found.accuracy) & (found.accuracy <= found.accuracy_high)
    ratio = np.abs(np.expm1(-errors))
    known = found.in_domain
    return {
        "rows": len(measured),
        "rmse_log": float(np.sqrt(np.mean(errors**2))),
        "noise_floor_log": floor,
        "r2_log": r_squared(measured, found.predicted),
        "r2_log_ceiling": 1 - floor**2 / variance if floor is not None and variance else None,
        "mape": float(ratio.mean()),
        "within_10_percent": float((ratio <= 0.1).mean()),
        "spearman": _spearman(measured, found.predicted),
        "spearman_ceiling": None if floor is None else _spearman_ceiling(measured, floor),
        "coverage": float(inside.mean()),
        "mean_width": float(np.expm1(2 * found.half_width).mean()),
        "in_domain": float(known.mean()),
        "coverage_in_domain": float(inside[known].mean()) if known.any() else None,
        "accuracy_mae": float(np.abs(found.accuracy - found.predicted_accuracy).mean()),
        "accuracy_r2": r_squared(found.accuracy, found.predicted_accuracy),
        "accuracy_coverage": float(held.mean()),
        "baselines": {
            name: _baseline(measured, value[rows]) for name, value in fitted.baselines.items()
        },
    }


def _by(
    labels: NDArray[np.str_], found: FittedAnswers, floor: float | None
) -> dict[str, CommonScores]:
    """Scores of the rows of each label."""
    return {str(label): _scores(found, labels == label, floor) for label in np.unique(labels)}


def _baseline(measured: _Floats, predicted: _Floats) -> BaselineScores:
    errors = measured - predicted
    return BaselineScores(
        rmse_log=float(np.sqrt(np.mean(errors**2))),
        r2_log=r_squared(measured, predicted),
        mape=float(np.mean(np.abs(np.expm1(-errors)))),
        spearman=_spearman(measured, predicted),
    )


def _spearman(measured: _Floats, predicted: _Floats) -> float:
    """Rank correlation; 0 where one of the two is all the same."""
    from scipy.stats import rankdata

    ranks = rankdata(measured), rankdata(predicted)
    if min(float(np.ptp(each)) for each in ranks) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _spearman_ceiling(measured: _Floats, floor: float) -> float:
    """Rank correlation of these log cycles with themselves under the noise of a seed."""
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=floor, size=(_CEILING_DRAWS, len(measured)))
    return float(np.mean([_spearman(measured, measured + each) for each in noise]))


def _firing_rate_r2(parts: PredictorParts, test: Observed) -> float:
    given = lessons(test, parts.statistics, parts.domain.categories, parts.tap_ratios.input)
    rates = parts.model.predict(given.features).firing_rate
    return r_squared(logit(np.concatenate(test.firing_rates)), logit(rates))


def baselines(train: Observed, test: Observed, parts: PredictorParts) -> dict[str, _Floats]:
    """Log cycles of some runs by each of `BASELINES`, fitted to others."""
    learned, asked = (
        lessons(runs, parts.statistics, parts.domain.categories, parts.tap_ratios.input)
        for runs in (train, test)
    )
    spikes, operations = (
        [np.log(measure(runs)) for runs in (train, test)] for measure in (_spikes, _operations)
    )
    everything = np.arange(len(train))
    at_rates = np.stack([log_cycles_at_rate(learned, everything, rate) for rate in USUAL_RATES])
    rate = usual_rate(train.log_cycles, at_rates)
    rows = _whole(train, learned)
    whole = fit_head(rows, train.log_cycles, _tuned_alone(rows, train))
    return {
        "mean": np.full(len(test), train.log_cycles.mean()),
        "total_spikes": _line(spikes[0], train.log_cycles, spikes[1]),
        "synops": _line(operations[0], train.log_cycles, operations[1]),
        "mean_firing_rate": log_cycles_at_rate(asked, np.arange(len(test)), rate),
        "xgboost": whole.values(_whole(test, asked)),
    }


def _line(at: _Floats, values: _Floats, wanted: _Floats) -> _Floats:
    if np.ptp(at) == 0:
        return np.full(len(wanted), values.mean())
    slope, height = np.polyfit(at, values, 1)
    line: _Floats = slope * wanted + height
    return line


def _spikes(runs: Observed) -> _Floats:
    """Spikes that enter all layers in an inference, plus one."""
    return np.array([1 + sum(float(steps.sum()) for steps in each) for each in runs.step_counts])


def _operations(runs: Observed) -> _Floats:
    """Synaptic operations of an inference, plus one: each spike's taps times output channels."""
    return np.array(
        [
            1 + sum(
                float(steps.sum()) * float(taps) * layer.out_channels
                for steps, taps, layer in zip(counts, per_spike, config.layers, strict=True)
            )
            for counts, per_spike, config in zip(
                runs.step_counts, runs.taps, runs.configs, strict=True
            )
        ]
    )  # fmt: skip


def _tuned_alone(rows: NDArray[np.float32], train: Observed) -> TreeSettings:
    """Choose how the end-to-end trees are grown as our own are: by folds of whole points."""
    errors = np.zeros(len(_END_TO_END))
    for held_out in folds(train.groups, _FOLDS, seed=1):
        seen = np.setdiff1d(np.arange(len(train)), held_out)
        for number, settings in enumerate(_END_TO_END):
            trees = fit_head(rows[seen], train.log_cycles[seen], settings)
            errors[number] += np.sum(
                (train.log_cycles[held_out] - trees.values(rows[held_out])) ** 2
            )
    return _END_TO_END[int(errors.argmin())]


def _whole(runs: Observed, given: Lessons) -> NDArray[np.float32]:
    """One row per run: features of its last and its first layer, sums over layers and hardware."""
    rows = []
    for config, end in zip(runs.configs, given.ends, strict=True):
        work = [
            layer.fan_in * layer.neurons / cores
            for layer, cores in zip(config.layers, config.neural_cores, strict=True)
        ]
        first = given.features[end - len(config.layers)]
        sizes = (
            sum(layer.neurons for layer in config.layers),
            sum(
                layer.neurons / n
                for layer, n in zip(config.layers, config.neural_cores, strict=True)
            ),
            sum(work),
            max(work),
            config.layers[0].inputs,
            config.hardware.encoder_width,
            config.hardware.schedule == "step_pipelined",
        )
        rows.append([*given.features[end - 1], *first[LAYER_COLUMNS], *sizes])
    return np.array(rows, dtype=np.float32)
