"""What a table of runs says, parsed: what a predictor is fitted to and scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..predictor.features import FLAT_KEYS, config_from_row, group_key
from .table import USABLE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KEPT", "MIN_RUNS", "Observed", "observed_runs"]

MIN_RUNS = 8
"""A predictor needs at least this many runs that were measured."""

_RATES = ("layers.input_rate", "layers.firing_rate", "layers.output_rate")
_MEASURED = (
    *_RATES,
    "layers.taps",
    "layers.step_counts",
    "epochs.firing_rate",
    "accuracy.integer.test",
    "input.events",
    "input.train_events",
    "cycles.mean",
)

KEPT = ("run_id", "status", *FLAT_KEYS, *_MEASURED)
"""Columns of a table that fitting needs, and that a predictor keeps."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """The usable rows of a table. Lists and arrays have one entry per run.

    Attributes
    ----------
    table : DataFrame
        The rows themselves.
    configs : list of Config
    groups : ndarray of int
        Runs of one group differ in nothing but their seed and their hardware.
    log_cycles : ndarray of float
        Of the mean over samples.
    accuracy : ndarray of float
        Of the integer network on the test split.
    input_rates, firing_rates, output_rates, taps : list of ndarray, shape (layers,)
        Spikes per line or neuron and step; kernel taps inside the frame per spike.
    step_counts : list of list of ndarray, shape (time_steps,)
        Spikes that enter each layer, mean over samples.
    epoch_rates : list of ndarray, shape (epochs, layers)
        Firing rates while training.
    events, train_events : list of ndarray, shape (time_steps, channels)
        Mean events of the measured samples, and of the training split.
    """

    table: pd.DataFrame
    configs: list[Config]
    groups: NDArray[np.int64]
    log_cycles: _Floats
    accuracy: _Floats
    input_rates: list[_Floats]
    firing_rates: list[_Floats]
    output_rates: list[_Floats]
    taps: list[_Floats]
    step_counts: list[list[_Floats]]
    epoch_rates: list[_Floats]
    events: list[_Floats]
    train_events: list[_Floats]

    def __len__(self) -> int:
        return len(self.configs)

    def chosen(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """Give some of the runs, in that order."""
        order = np.asarray(rows, dtype=np.int64)
        values: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "table":
                values[each.name] = value.iloc[order].reset_index(drop=True)
            elif isinstance(value, np.ndarray):
                values[each.name] = value[order]
            else:
                values[each.name] = [value[number] for number in order]
        return type(self)(**values)


def observed_runs(table: pd.DataFrame) -> Observed:
    """Parse the usable rows of a table.

    Parameters
    ----------
    table : DataFrame
        One row per run, as `read_table` gives it. Runs that failed, whose spikes did not match,
        or whose row an older version of a stage has written, are left out.

    Returns
    -------
    Observed

    Raises
    ------
    InputError
        If a column is missing, a value is impossible, or fewer than `MIN_RUNS` runs are usable.
    """
    for column in KEPT[1:]:
        if column not in table.columns:
            raise InputError(f"table: must have a column {column!r}, got none")
    used = table[_usable(table)].reset_index(drop=True)
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
    cycles = _numbers(used["cycles.mean"], len(used))
    if not (np.isfinite(cycles).all() and cycles.min() > 0):
        raise InputError(f"table: cycles.mean must be positive and finite, got {cycles.min():g}")
    accuracy = _numbers(used["accuracy.integer.test"], len(used))
    if not (accuracy.min() >= 0 and accuracy.max() <= 1):
        raise InputError("table: accuracy.integer.test must lie between 0 and 1")
    pairs = list(zip(rows, configs, strict=True))
    rates = {column: [_rates(row, column, config) for row, config in pairs] for column in _RATES}
    return Observed(
        table=used,
        configs=configs,
        groups=groups,
        log_cycles=np.log(cycles),
        accuracy=accuracy,
        input_rates=rates["layers.input_rate"],
        firing_rates=rates["layers.firing_rate"],
        output_rates=rates["layers.output_rate"],
        taps=[_per_layer(row, "layers.taps", config) for row, config in pairs],
        step_counts=[_step_counts(row, config) for row, config in pairs],
        epoch_rates=[_epoch_rates(row, config) for row, config in pairs],
        events=[_events(row, "input.events", config) for row, config in pairs],
        train_events=[_events(row, "input.train_events", config) for row, config in pairs],
    )


def _usable(table: pd.DataFrame) -> pd.Series[bool]:
    chosen = table["status"].isin(USABLE) & table["cycles.mean"].notna()
    if "stale" in table.columns:
        chosen &= ~table["stale"].astype(bool)
    for column in _MEASURED:
        chosen &= table[column].notna()
    if "spikes_match" in table.columns:
        # An absent verdict is no mismatch.
        chosen &= ~table["spikes_match"].isin([False])
    return chosen


def _numbers(values: Any, otherwise: int = 0) -> _Floats:
    """Values as numbers; where they are none, NaN, so many of them."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.full(otherwise, np.nan)


def _per_layer(row: Mapping[Any, Any], column: str, config: Config) -> _Floats:
    values = _numbers(row[column])
    if values.shape != (len(config.layers),):
        rule = f"must have {len(config.layers)} entries, one per weighted layer"
        raise InputError(f"table: {column} {rule} of {config.network}, got {values.tolist()}")
    if not (np.isfinite(values).all() and values.min() >= 0):
        raise InputError(f"table: {column} must not be negative, got {values.tolist()}")
    return values


def _rates(row: Mapping[Any, Any], column: str, config: Config) -> _Floats:
    rates = _per_layer(row, column, config)
    if rates.max() > 1:
        raise InputError(f"table: {column} must lie between 0 and 1, got {rates.tolist()}")
    return rates


def _list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple | np.ndarray) else []


def _step_counts(row: Mapping[Any, Any], config: Config) -> list[_Floats]:
    counts = [_numbers(steps) for steps in _list(row["layers.step_counts"])]
    shape = (config.input.time_steps,)
    if len(counts) != len(config.layers) or any(steps.shape != shape for steps in counts):
        rule = f"must have {shape[0]} steps for each of {len(config.layers)} layers"
        raise InputError(f"table: layers.step_counts {rule} of {config.network}")
    if any(not np.isfinite(steps).all() or steps.min() < 0 for steps in counts):
        raise InputError("table: layers.step_counts must not be negative")
    return counts


def _epoch_rates(row: Mapping[Any, Any], config: Config) -> _Floats:
    rates = _numbers([_list(epoch) for epoch in _list(row["epochs.firing_rate"])])
    if rates.ndim != 2 or rates.shape[1] != len(config.layers) or not len(rates):
        rule = f"must have {len(config.layers)} rates for each epoch"
        raise InputError(f"table: epochs.firing_rate {rule} of {config.network}")
    if not (np.isfinite(rates).all() and rates.min() >= 0 and rates.max() <= 1):
        raise InputError("table: epochs.firing_rate must lie between 0 and 1")
    return rates


def _events(row: Mapping[Any, Any], column: str, config: Config) -> _Floats:
    shape = (config.input.time_steps, config.input.channels)
    events = _numbers(row[column])
    if events.size != shape[0] * shape[1]:
        rule = f"must have {shape[0]} steps of {shape[1]} channels"
        raise InputError(f"table: {column} {rule}, got {events.size} numbers")
    if not (np.isfinite(events).all() and events.min() >= 0):
        raise InputError(f"table: {column} must not be negative")
    return events.reshape(shape)
