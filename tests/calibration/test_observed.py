from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import synthetic_events, synthetic_table, synthetic_train_events

from spikemeter.calibration.observed import KEPT, MIN_RUNS, observed_runs
from spikemeter.calibration.table import SCHEMA, table_of
from spikemeter.errors import InputError


@pytest.fixture(scope="module")
def table():
    return synthetic_table(8, seeds=2)


def changed(table, index, **values):
    """Copy of a table with other values in one row."""
    copy = table.copy()
    for column, value in values.items():
        cells = copy[column].tolist()
        cells[index] = value
        copy[column] = cells
    return copy


def test_everything_is_read_as_it_was_measured(table):
    observed = observed_runs(table)
    assert len(observed) == len(table) == 16
    assert observed.table.equals(table)
    for run in (0, 7):
        row, config = table.iloc[run], observed.configs[run]
        assert config.network == row["network"]
        assert observed.log_cycles[run] == np.log(row["cycles.mean"])
        assert observed.accuracy[run] == row["accuracy.integer.test"]
        assert observed.input_rates[run].tolist() == row["layers.input_rate"]
        assert observed.firing_rates[run].tolist() == row["layers.firing_rate"]
        assert observed.output_rates[run].tolist() == row["layers.output_rate"]
        assert observed.taps[run].tolist() == row["layers.taps"]
        steps = observed.step_counts[run]
        assert [each.tolist() for each in steps] == row["layers.step_counts"]
        assert observed.epoch_rates[run].tolist() == row["epochs.firing_rate"]
        assert observed.epoch_rates[run].shape == (4, len(config.layers))
        time_steps = config.input.time_steps
        np.testing.assert_array_equal(observed.events[run], synthetic_events(time_steps))
        np.testing.assert_array_equal(
            observed.train_events[run], synthetic_train_events(time_steps)
        )


def test_a_table_on_disk_says_the_same(table):
    """Parquet gives arrays of arrays where the rows had lists of lists."""
    rows = [{key: row[key] for key in row if key in SCHEMA.names}
            for row in table.to_dict("records")]  # fmt: skip
    again, observed = observed_runs(table_of(rows).to_pandas()), observed_runs(table)
    np.testing.assert_array_equal(again.log_cycles, observed.log_cycles)
    np.testing.assert_array_equal(again.groups, observed.groups)
    for run in range(len(observed)):
        np.testing.assert_array_equal(again.step_counts[run], observed.step_counts[run])
        np.testing.assert_array_equal(again.epoch_rates[run], observed.epoch_rates[run])
        np.testing.assert_array_equal(again.train_events[run], observed.train_events[run])


def test_seeds_and_hardware_of_a_point_are_one_group(table):
    groups = observed_runs(table).groups
    assert (groups[::2] == groups[1::2]).all()
    assert len(set(groups[::2])) == 8
    other = changed(table, 1, **{"hardware.clock_mhz": 50.0})
    assert (observed_runs(other).groups == groups).all()
    other = changed(table, 1, **{"training.lr": 0.5})
    assert len(set(observed_runs(other).groups)) == 9


def test_some_of_the_runs_are_taken_in_any_order(table):
    observed = observed_runs(table)
    some = observed.chosen([5, 0, 11])
    assert len(some) == 3
    assert some.table["run_id"].tolist() == table["run_id"].iloc[[5, 0, 11]].tolist()
    assert some.table.index.tolist() == [0, 1, 2]
    for place, run in enumerate((5, 0, 11)):
        assert some.configs[place] is observed.configs[run]
        assert some.groups[place] == observed.groups[run]
        assert some.step_counts[place] is observed.step_counts[run]
    assert len(observed.chosen(np.empty(0, dtype=np.int64))) == 0


NOTHING_MEASURED = {
    "status": "failed",
    "cycles.mean": None,
    "layers.step_counts": None,
    "layers.taps": None,
    "accuracy.integer.test": None,
}


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"status": "silent"}, 16),
        ({"status": "diverged"}, 15),
        ({"status": "mismatch"}, 15),
        ({"spikes_match": False}, 15),
        ({"spikes_match": None}, 16),
        ({"cycles.mean": None}, 15),
        ({"cycles.mean": np.nan}, 15),
        ({"layers.firing_rate": None}, 15),
        ({"layers.step_counts": None}, 15),
        ({"epochs.firing_rate": None}, 15),
        ({"accuracy.integer.test": None}, 15),
        ({"input.train_events": None}, 15),
        (NOTHING_MEASURED, 15),
        ({"reason": "beyond the pale"}, 16),
    ],
)
def test_only_runs_that_were_measured_and_matched_are_used(table, values, left):
    observed = observed_runs(changed(table, 3, **values))
    assert len(observed) == left
    kept = observed.table["run_id"].tolist()
    assert (table["run_id"][3] in kept) == (left == 16)


def test_rows_of_older_versions_are_left_out(table):
    observed = observed_runs(table.assign(stale=[True] * 3 + [False] * 13))
    assert observed.table["run_id"].tolist() == table["run_id"][3:].tolist()


@pytest.mark.parametrize("column", KEPT[1:])
def test_a_missing_column_is_named(table, column):
    with pytest.raises(InputError) as caught:
        observed_runs(table.drop(columns=column))
    assert str(caught.value) == f"table: must have a column {column!r}, got none"


def test_the_run_ids_and_the_verdicts_may_be_missing(table):
    assert len(observed_runs(table.drop(columns=["run_id", "spikes_match", "reason"]))) == 16


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cycles.mean": -1.0}, "table: cycles.mean must be positive and finite, got -1"),
        ({"cycles.mean": 0.0}, "table: cycles.mean must be positive and finite, got 0"),
        ({"cycles.mean": np.inf}, "table: cycles.mean must be positive and finite"),
        ({"cycles.mean": "many"}, "table: cycles.mean must be positive and finite"),
        ({"accuracy.integer.test": "good"}, "table: accuracy.integer.test must lie between 0 and"),
        ({"accuracy.integer.test": 1.5}, "table: accuracy.integer.test must lie between 0 and 1"),
        ({"accuracy.integer.test": -0.1}, "table: accuracy.integer.test must lie between 0 and 1"),
        ({"layers.output_rate": [0.5]}, "table: layers.output_rate must have 3 entries, one per"),
        ({"layers.firing_rate": [1.5] * 3}, "table: layers.firing_rate must lie between 0 and 1"),
        ({"layers.input_rate": [-0.5] * 3}, "table: layers.input_rate must not be negative"),
        ({"layers.input_rate": [np.nan] * 3}, "table: layers.input_rate must not be negative"),
        ({"layers.taps": [9.0] * 2}, "table: layers.taps must have 3 entries, one per weighted"),
        ({"layers.taps": [-9.0] * 3}, "table: layers.taps must not be negative"),
        ({"layers.taps": [np.inf] * 3}, "table: layers.taps must not be negative"),
        ({"layers.taps": ["a"] * 3}, "table: layers.taps must have 3 entries"),
        ({"layers.taps": 9.0}, "table: layers.taps must have 3 entries"),
        ({"layers.step_counts": [[1.0] * 8] * 2}, "table: layers.step_counts must have 8 steps"),
        ({"layers.step_counts": [[1.0] * 7] * 3}, "table: layers.step_counts must have 8 steps"),
        (
            {"layers.step_counts": [[1.0] * 8, [1.0] * 8, [1.0] * 7]},
            "table: layers.step_counts must have 8 steps for each of 3 layers of 8C3-MP2-12C3",
        ),
        ({"layers.step_counts": [[-1.0] * 8] * 3}, "table: layers.step_counts must not be negat"),
        ({"layers.step_counts": [[np.nan] * 8] * 3}, "table: layers.step_counts must not be neg"),
        ({"layers.step_counts": 7.0}, "table: layers.step_counts must have 8 steps"),
        ({"layers.step_counts": [["a"] * 8] * 3}, "table: layers.step_counts must have 8 steps"),
        ({"epochs.firing_rate": []}, "table: epochs.firing_rate must have 3 rates for each epoch"),
        ({"epochs.firing_rate": [[0.5] * 2]}, "table: epochs.firing_rate must have 3 rates for"),
        ({"epochs.firing_rate": [[0.5] * 3, [0.5]]}, "table: epochs.firing_rate must have 3 rates"),
        ({"epochs.firing_rate": 0.5}, "table: epochs.firing_rate must have 3 rates for each epo"),
        ({"epochs.firing_rate": [["a"] * 3]}, "table: epochs.firing_rate must have 3 rates for"),
        ({"epochs.firing_rate": [[1.5] * 3]}, "table: epochs.firing_rate must lie between 0 and"),
        ({"epochs.firing_rate": [[np.nan] * 3]}, "table: epochs.firing_rate must lie between 0"),
        ({"input.events": [1.0] * 3}, "table: input.events must have 8 steps of 2 channels, got 3"),
        ({"input.events": ["a"] * 16}, "table: input.events must have 8 steps of 2 channels, got"),
        ({"input.events": [-1.0] * 16}, "table: input.events must not be negative"),
        ({"input.train_events": [1.0] * 3}, "table: input.train_events must have 8 steps of 2 ch"),
        ({"input.train_events": [np.nan] * 16}, "table: input.train_events must not be negative"),
        ({"neuron.beta": 7.0}, "neuron.beta"),
        ({"network": "nonsense"}, "network"),
    ],
)
def test_an_impossible_value_is_refused_in_one_sentence(values, sentence):
    table = synthetic_table(8, seeds=2)
    three = (table["network"] == "8C3-MP2-12C3-MP2-10") & (table["input.time_steps"] == 8)
    with pytest.raises(InputError) as caught:
        observed_runs(changed(table, int(np.flatnonzero(three)[0]), **values))
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_too_few_runs_or_points_are_refused(table):
    with pytest.raises(InputError, match=f"at least {MIN_RUNS} measured runs, got 7 of 7"):
        observed_runs(table[:7])
    failed = table.assign(status=["ok"] * 7 + ["failed"] * 9)
    with pytest.raises(InputError, match=f"at least {MIN_RUNS} measured runs, got 7 of 16"):
        observed_runs(failed)
    with pytest.raises(InputError, match="differ in more than their seed"):
        observed_runs(synthetic_table(1, seeds=9))
    with pytest.raises(InputError, match=f"at least {MIN_RUNS} measured runs, got 0 of 0"):
        observed_runs(pd.DataFrame(columns=list(KEPT)))
