"""Fitting: from the table of runs to a predictor folder, and how good it is on unseen runs.

Every score and every interval rests on runs that the model had not seen, with all seeds of a
point on one side of every split.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..config import DATASETS, Config, load_config
from ..errors import InputError
from ..predictor.events import InputStatistics, TapRatios, expected_counts, input_events
from ..predictor.features import (
    FLAT_KEYS,
    categories_of,
    config_from_row,
    feature_names,
    group_key,
    layer_features,
)
from ..predictor.folder import PredictorParts, write_folder
from ..predictor.intervals import Residuals, fit_domain
from ..predictor.predict import mean_cycles
from ..predictor.sparsity import SparsityModel, fit_sparsity, logit
from ..predictor.timing import even_taps
from .table import USABLE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MIN_RUNS", "FitReport", "Scores", "dataset_statistics", "fit_predictor"]

MIN_RUNS = 8
"""A predictor needs at least this many runs that were measured."""

_FOLDS = 10
_LEAVE_ONE_OUT_UP_TO = 20
_RATES = ("layers.input_rate", "layers.firing_rate", "layers.output_rate")
_MEASURED = (*_RATES, "layers.taps", "input.events", "cycles.mean")
_NEEDED = ("status", *FLAT_KEYS, *_MEASURED)
_KEPT = ("run_id", *_NEEDED)


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
    (the one fitted), ``statistics`` (measured rates, spread evenly over steps and channels), and
    the baselines ``mean`` and ``mean_firing_rate``. ``firing_rate_r2`` is of the logit of the rate
    of every layer.
    """

    runs: int
    points: int
    left_out: int
    noise_floor_log: float | None
    scores: dict[str, Scores]
    firing_rate_r2: float
    predictor: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Runs:
    """The usable rows of a table, parsed. Arrays of rates have one entry per weighted layer."""

    table: pd.DataFrame
    configs: list[Config]
    groups: NDArray[np.int64]
    log_cycles: NDArray[np.float64]
    input_rates: list[NDArray[np.float64]]
    firing_rates: list[NDArray[np.float64]]
    output_rates: list[NDArray[np.float64]]
    taps: list[NDArray[np.float64]]
    measured_events: list[NDArray[np.float64]]


def fit_predictor(
    table: pd.DataFrame,
    out: str | Path,
    *,
    statistics: Mapping[str, Sequence[InputStatistics]] | None = None,
) -> FitReport:
    """Fit a predictor to the table of a campaign and write its folder.

    Parameters
    ----------
    table : DataFrame
        One row per run, as `read_table` gives it. Runs that failed, whose spikes did not match,
        or whose row an older version of a stage has written, are left out.
    out : str or Path
        Predictor folder to write, whole or not at all; an older one is replaced.
    statistics : mapping, optional
        What is known of data sets; frame sizes that occur in the table but not here are filled in
        with the mean of the events that its runs received. Default: `dataset_statistics` of the
        data sets and frame sizes of the table.

    Returns
    -------
    FitReport
        Scores on unseen runs, beside baselines.

    Raises
    ------
    InputError
        If a column is missing, a value is impossible, or fewer than `MIN_RUNS` runs are usable.
    """
    runs = _usable_runs(table)
    ratios = _tap_ratios(runs)
    known = _known_statistics(runs, _measured(runs) if statistics is None else statistics)
    events = [input_events(config, known)[0] for config in runs.configs]
    categories = categories_of(runs.configs)
    features = [
        layer_features(config, known_events, categories)
        for config, known_events in zip(runs.configs, events, strict=True)
    ]
    unseen = _unseen_rates(runs, features)
    errors = runs.log_cycles - _log_cycles(runs.configs, events, unseen.output, ratios)
    residuals = {
        "hyperparameters": Residuals(error=errors, group=runs.groups),
        "statistics": Residuals(error=_statistics_errors(runs, ratios), group=runs.groups),
    }
    baseline = runs.log_cycles - _log_cycles(runs.configs, events, unseen.mean_output, ratios)
    scores = {
        "hyperparameters": _scores(residuals["hyperparameters"].error, runs.log_cycles),
        "statistics": _scores(residuals["statistics"].error, runs.log_cycles),
        "mean": _scores(runs.log_cycles - unseen.mean_log_cycles, runs.log_cycles),
        "mean_firing_rate": _scores(baseline, runs.log_cycles),
    }
    report = FitReport(
        runs=len(runs.configs),
        points=len(np.unique(runs.groups)),
        left_out=len(table) - len(runs.configs),
        noise_floor_log=_noise_floor(runs),
        scores=scores,
        firing_rate_r2=_r2(
            logit(np.concatenate(runs.firing_rates)), logit(np.concatenate(unseen.firing))
        ),
        predictor=str(out),
    )
    parts = PredictorParts(
        model=_model(runs, features, range(len(features))),
        domain=fit_domain(runs.configs, features, feature_names(categories), categories),
        residuals=residuals,
        tap_ratios=ratios,
        statistics=known,
        table=_slim(runs.table),
        scores={key: value for key, value in report.items() if key != "predictor"},
    )
    write_folder(parts, Path(out))
    return report


def dataset_statistics(
    name: str,
    sizes: Sequence[tuple[int, int, int]],
    *,
    on_size: Callable[[int, int], None] | None = None,
) -> list[InputStatistics]:
    """Measure the mean events of a data set at some frame sizes, on its training split.

    Parameters
    ----------
    name : str
        A registered data set.
    sizes : sequence of (height, width, time_steps)
        Each new one bins every recording, which takes some ten seconds.
    on_size : callable, optional
        Told (done, total) after each size.

    Returns
    -------
    list of InputStatistics
        In the order of `sizes`.

    Raises
    ------
    ConfigError
        If the data set is unknown or a size exceeds its sensor.
    """
    from ..datasets import input_statistics, load_splits

    entries = []
    for done, (height, width, time_steps) in enumerate(sizes):
        config = load_config(
            {
                "dataset": name,
                "network": str(DATASETS[name].classes if name in DATASETS else 1),
                "input": {"height": height, "width": width, "time_steps": time_steps},
            }
        )
        entries.append(
            InputStatistics(
                height=height,
                width=width,
                time_steps=time_steps,
                events=np.asarray(input_statistics(load_splits(config).train), dtype=np.float64),
            )
        )
        if on_size is not None:
            on_size(done + 1, len(sizes))
    return entries


def _usable_runs(table: pd.DataFrame) -> _Runs:
    for column in _NEEDED:
        if column not in table.columns:
            raise InputError(f"table: must have a column {column!r}, got none")
    chosen = table["status"].isin(USABLE) & table["cycles.mean"].notna()
    if "stale" in table.columns:
        chosen &= ~table["stale"].astype(bool)
    for column in _RATES:
        chosen &= table[column].notna()
    if "spikes_match" in table.columns:
        # An absent verdict is no mismatch.
        chosen &= ~table["spikes_match"].isin([False])
    used = table[chosen]
    if len(used) < MIN_RUNS:
        raise InputError(
            f"table: must hold at least {MIN_RUNS} measured runs, got {len(used)} of {len(table)}"
        )
    rows = used.to_dict("records")
    configs = [config_from_row(row) for row in rows]
    keys = [group_key(config) for config in configs]
    groups = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    if groups.max() == 0:
        raise InputError("table: must hold runs that differ in more than their seed or hardware")
    cycles = used["cycles.mean"].to_numpy(dtype=np.float64)
    if not (np.isfinite(cycles).all() and cycles.min() > 0):
        raise InputError(f"table: cycles.mean must be positive and finite, got {cycles.min():g}")
    rates = {
        column: [_rates(row, column, config) for row, config in zip(rows, configs, strict=True)]
        for column in _RATES
    }
    taps = [
        _per_layer(row, "layers.taps", config) for row, config in zip(rows, configs, strict=True)
    ]
    return _Runs(
        table=used,
        configs=configs,
        groups=groups,
        log_cycles=np.log(cycles),
        input_rates=rates["layers.input_rate"],
        firing_rates=rates["layers.firing_rate"],
        output_rates=rates["layers.output_rate"],
        taps=taps,
        measured_events=[_events(row, config) for row, config in zip(rows, configs, strict=True)],
    )


def _per_layer(row: Mapping[Any, Any], column: str, config: Config) -> NDArray[np.float64]:
    values = np.asarray(row[column], dtype=np.float64)
    if values.shape != (len(config.layers),):
        rule = f"must have {len(config.layers)} entries, one per weighted layer"
        raise InputError(f"table: {column} {rule} of {config.network}, got {values.tolist()}")
    if not (np.isfinite(values).all() and values.min() >= 0):
        raise InputError(f"table: {column} must not be negative, got {values.tolist()}")
    return values


def _rates(row: Mapping[Any, Any], column: str, config: Config) -> NDArray[np.float64]:
    rates = _per_layer(row, column, config)
    if rates.max() > 1:
        raise InputError(f"table: {column} must lie between 0 and 1, got {rates.tolist()}")
    return rates


def _events(row: Mapping[Any, Any], config: Config) -> NDArray[np.float64]:
    shape = (config.input.time_steps, config.input.channels)
    events = np.asarray(row["input.events"], dtype=np.float64)
    if events.size != shape[0] * shape[1]:
        rule = f"must have {shape[0]} steps of {shape[1]} channels"
        raise InputError(f"table: input.events {rule}, got {events.size} numbers")
    return events.reshape(shape)


def _measured(runs: _Runs) -> dict[str, list[InputStatistics]]:
    """Statistics of the data sets of a table, at its frame sizes."""
    sizes: dict[str, set[tuple[int, int, int]]] = {}
    for config in runs.configs:
        size = config.input
        if config.dataset is not None:
            entry = (size.height, size.width, size.time_steps)
            sizes.setdefault(config.dataset, set()).add(entry)
    return {name: dataset_statistics(name, sorted(found)) for name, found in sizes.items()}


def _tap_ratios(runs: _Runs) -> TapRatios:
    """Mean over the convolutions whose spikes have a choice of taps; 1 if there are none."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for config, taps in zip(runs.configs, runs.taps, strict=True):
        for index, (layer, per_spike) in enumerate(zip(config.layers, taps, strict=True)):
            if layer.kernel > 1 and per_spike > 0:
                found[index == 0].append(float(per_spike) / even_taps(layer))
    entering, between = (float(np.mean(found[key])) if found[key] else 1.0 for key in (True, False))
    return TapRatios(input=entering, hidden=between)


def _known_statistics(
    runs: _Runs, given: Mapping[str, Sequence[InputStatistics]]
) -> dict[str, tuple[InputStatistics, ...]]:
    known = {name: list(entries) for name, entries in given.items()}
    received: dict[tuple[str, int, int, int], list[NDArray[np.float64]]] = {}
    for config, events in zip(runs.configs, runs.measured_events, strict=True):
        size = (config.input.height, config.input.width, config.input.time_steps)
        if config.dataset is not None:
            received.setdefault((config.dataset, *size), []).append(events)
    for (name, height, width, time_steps), seen in received.items():
        entries = known.setdefault(name, [])
        if (height, width, time_steps) not in [entry.size for entry in entries]:
            entries.append(
                InputStatistics(
                    height=height, width=width, time_steps=time_steps, events=np.mean(seen, axis=0)
                )
            )
    return {name: tuple(entries) for name, entries in known.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Unseen:
    """What was predicted for every run by models that had not seen its group."""

    firing: list[NDArray[np.float64]]
    output: list[NDArray[np.float64]]
    mean_output: list[NDArray[np.float64]]
    mean_log_cycles: NDArray[np.float64]


def _unseen_rates(runs: _Runs, features: Sequence[NDArray[np.float32]]) -> _Unseen:
    count = len(features)
    firing: list[NDArray[np.float64]] = [np.empty(0)] * count
    output, mean_output = firing.copy(), firing.copy()
    mean_log_cycles = np.empty(count)
    for held_out in _folds(runs.groups):
        seen = np.setdiff1d(np.arange(count), held_out)
        model = _model(runs, features, seen)
        mean_rate = _mean_rate([runs.output_rates[i] for i in seen])
        for index in held_out:
            firing[index], output[index] = model.rates(features[index])
            mean_output[index] = np.full(len(features[index]), mean_rate)
            mean_log_cycles[index] = runs.log_cycles[seen].mean()
    return _Unseen(
        firing=firing, output=output, mean_output=mean_output, mean_log_cycles=mean_log_cycles
    )


def _mean_rate(output_rates: Sequence[NDArray[np.float64]]) -> float:
    """Average what leaves the layers that feed another; 0 if there are none."""
    hidden = np.concatenate([rates[:-1] for rates in output_rates])
    return float(hidden.mean()) if hidden.size else 0.0


def _folds(groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split runs into folds of whole groups; few groups are left out one by one."""
    points = np.random.default_rng(0).permutation(np.unique(groups))
    folds = len(points) if len(points) <= _LEAVE_ONE_OUT_UP_TO else _FOLDS
    return [np.flatnonzero(np.isin(groups, chunk)) for chunk in np.array_split(points, folds)]


def _model(
    runs: _Runs, features: Sequence[NDArray[np.float32]], chosen: Iterable[int]
) -> SparsityModel:
    rows = list(chosen)
    return fit_sparsity(
        np.concatenate([features[i] for i in rows]),
        np.concatenate([runs.firing_rates[i] for i in rows]),
        np.concatenate([runs.output_rates[i] for i in rows]),
    )


def _log_cycles(
    configs: Sequence[Config],
    events: Sequence[NDArray[np.float64]],
    output_rates: Sequence[NDArray[np.float64]],
    ratios: TapRatios,
) -> NDArray[np.float64]:
    """Log cycles of the exact timing behind the given rates."""
    counts = [
        expected_counts(config, known_events, rates[:-1].tolist())
        for config, known_events, rates in zip(configs, events, output_rates, strict=True)
    ]
    return np.log(mean_cycles(configs, counts, ratios)[0])


def _statistics_errors(runs: _Runs, ratios: TapRatios) -> NDArray[np.float64]:
    """Errors of the timing from measured rates: what counts cannot say.

    Known counts per step and channel say more than these rates per layer, so an interval from
    these errors is rather too wide than too narrow.
    """
    counts = [
        expected_counts(config, events, rates[1:].tolist())
        for config, events, rates in zip(
            runs.configs, runs.measured_events, runs.input_rates, strict=True
        )
    ]
    return runs.log_cycles - np.log(mean_cycles(runs.configs, counts, ratios)[0])


def _noise_floor(runs: _Runs) -> float | None:
    """Pooled standard deviation of log cycles over runs that differ in their seed alone."""
    alike: dict[tuple[int, str], list[float]] = {}
    for config, group, value in zip(runs.configs, runs.groups, runs.log_cycles, strict=True):
        alike.setdefault((int(group), repr(config.hardware)), []).append(float(value))
    squares = sum(float(np.var(values)) * len(values) for values in alike.values())
    freedom = sum(len(values) - 1 for values in alike.values())
    return float(np.sqrt(squares / freedom)) if freedom else None


def _scores(errors: NDArray[np.float64], log_cycles: NDArray[np.float64]) -> Scores:
    """Scores from errors of log cycles, measured minus predicted."""
    return Scores(
        rmse_log=float(np.sqrt(np.mean(errors**2))),
        r2_log=_r2(log_cycles, log_cycles - errors),
        mape=float(np.mean(np.abs(np.expm1(-errors)))),
    )


def _r2(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    spread = float(np.sum((measured - measured.mean()) ** 2))
    rest = float(np.sum((measured - predicted) ** 2))
    # Nothing to explain: right or wrong altogether.
    return 1 - rest / spread if spread else float(rest == 0)


def _slim(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table[[column for column in _KEPT if column in table.columns]].to_parquet(buffer, index=False)
    return buffer.getvalue()
