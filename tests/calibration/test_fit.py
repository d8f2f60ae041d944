from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic_runs import synthetic_events, synthetic_table

from spikemeter.calibration.fit import MIN_RUNS, dataset_statistics, fit_predictor
from spikemeter.datasets import input_statistics, load_splits
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.events import InputStatistics
from spikemeter.predictor.features import FLAT_KEYS, config_from_row


@pytest.fixture(scope="module")
def table():
    return synthetic_table(24, seeds=2)


@pytest.fixture(scope="module")
def fitted(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "predictor"
    return fit_predictor(table, out, statistics={}), LatencyPredictor.load(out)


@pytest.fixture(scope="module")
def small(table):
    """Sixteen runs, where it does not matter how well they are fitted."""
    return table[:16]


def changed(table, index, **values):
    """Copy of a table with other values in one row."""
    copy = table.copy()
    for column, value in values.items():
        cells = copy[column].tolist()
        cells[index] = value
        copy[column] = cells
    return copy


def test_the_report_says_what_was_used_and_how_good_it_is(fitted):
    report, predictor = fitted
    assert report["runs"] == 48
    assert report["left_out"] == 0
    assert 20 <= report["points"] <= 24
    scores = report["scores"]
    assert set(scores) == {"hyperparameters", "statistics", "mean", "mean_firing_rate"}
    ranked = ["statistics", "hyperparameters", "mean_firing_rate", "mean"]
    errors = [scores[name]["rmse_log"] for name in ranked]
    assert errors == sorted(errors)
    assert scores["hyperparameters"]["r2_log"] > 0.9
    assert scores["mean"]["r2_log"] < 0.01
    assert 0.005 < scores["statistics"]["mape"] < 0.02
    assert report["firing_rate_r2"] > 0.6
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert predictor.parts.scores["runs"] == 48


def test_the_noise_floor_is_the_spread_over_seeds(table, fitted, tmp_path):
    report, _ = fitted
    logs = np.log(table["cycles.mean"])
    point = [key for key in FLAT_KEYS if key not in ("training.seed", "hardware.neural_cores")]
    of_point = logs.groupby([table[key] for key in point], dropna=False)
    squares = (of_point.var(ddof=0) * of_point.size()).sum()
    assert report["noise_floor_log"] == pytest.approx(np.sqrt(squares / (48 - len(of_point))))
    single = fit_predictor(synthetic_table(9, seeds=1), tmp_path / "q", statistics={})
    assert single["noise_floor_log"] is None


def test_residuals_come_from_runs_that_were_not_seen(table, fitted):
    report, predictor = fitted
    unseen = predictor.parts.residuals["hyperparameters"].error
    assert np.sqrt(np.mean(unseen**2)) == pytest.approx(
        report["scores"]["hyperparameters"]["rmse_log"]
    )
    seen = np.log(predictor.predict(table)["cycles"].to_numpy() / table["cycles.mean"].to_numpy())
    assert np.sqrt(np.mean(seen**2)) < 0.5 * np.sqrt(np.mean(unseen**2))


def test_a_fit_can_be_repeated_to_the_byte(small, tmp_path):
    for name in ("a", "b"):
        fit_predictor(small, tmp_path / name, statistics={})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_taps_are_calibrated_where_spikes_keep_to_the_middle(small, tmp_path):
    middle = small.assign(
        **{"layers.taps": [[1.05 * taps for taps in row] for row in small["layers.taps"]]}
    )
    plain = fitted_cycles(small, tmp_path / "plain")
    assert (fitted_cycles(middle, tmp_path / "middle") > plain).all()
    ratios = LatencyPredictor.load(tmp_path / "middle").parts.tap_ratios
    assert (ratios.input, ratios.hidden) == pytest.approx((1.05, 1.05))
    # A predictor's factor is for what it learned; what the machine does per step stays as it is.
    estimate = LatencyPredictor.load(tmp_path / "middle").estimate(config_from_row(small.iloc[0]))
    fire = estimate.layers[0].buckets["fire"]
    assert fire == int(fire)


def fitted_cycles(table, out):
    fit_predictor(table, out, statistics={})
    return LatencyPredictor.load(out).predict(table)["cycles"]


def test_statistics_of_a_data_set_are_measured_on_its_training_split(small, tmp_path):
    fit_predictor(small[small["input.time_steps"] == 8], tmp_path / "p")
    known = LatencyPredictor.load(tmp_path / "p").parts.statistics["nmnist-saccade"]
    config = config_from_row(small[small["input.time_steps"] == 8].iloc[0])
    expected = input_statistics(load_splits(config).train)
    assert [entry.size for entry in known] == [(16, 16, 8)]
    np.testing.assert_allclose(known[0].events, expected)


def test_runs_that_failed_or_did_not_match_are_left_out(small, tmp_path):
    damaged = changed(small, 0, status="diverged")
    damaged = changed(damaged, 1, spikes_match=False)
    damaged = changed(damaged, 2, **{"cycles.mean": None, "status": "failed"})
    damaged = changed(damaged, 3, **{"layers.firing_rate": None})
    damaged = changed(damaged, 4, status="silent")
    report = fit_predictor(damaged, tmp_path / "p", statistics={})
    assert report["left_out"] == 4
    assert report["runs"] == 12


def test_rows_of_older_versions_are_left_out(small, tmp_path):
    stale = small.assign(stale=[True] * 3 + [False] * 13)
    report = fit_predictor(stale, tmp_path / "p", statistics={})
    assert (report["left_out"], report["runs"]) == (3, 13)


@pytest.mark.parametrize("column", ["status", "cycles.mean", "layers.output_rate", "neuron.beta"])
def test_a_missing_column_is_named(table, column, tmp_path):
    with pytest.raises(InputError, match=f"must have a column '{column}'"):
        fit_predictor(table.drop(columns=column), tmp_path / "p", statistics={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cycles.mean": -1.0}, "cycles.mean must be positive and finite, got -1"),
        ({"layers.output_rate": [0.5]}, "layers.output_rate must have"),
        ({"layers.firing_rate": [1.5] * 5}, "layers.firing_rate must have"),
        ({"input.events": [1.0] * 3}, "input.events must have"),
        ({"neuron.beta": 7.0}, "neuron.beta"),
        ({"network": "nonsense"}, "network"),
    ],
)
def test_an_impossible_value_is_refused(table, values, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        fit_predictor(changed(table, 5, **values), tmp_path / "p", statistics={})


def test_a_rate_above_one_is_refused(table, tmp_path):
    rates = [1.5 for _ in table["layers.firing_rate"][5]]
    with pytest.raises(InputError, match=r"layers\.firing_rate must lie between 0 and 1"):
        fit_predictor(
            changed(table, 5, **{"layers.firing_rate": rates}), tmp_path / "p", statistics={}
        )


def test_too_few_runs_or_points_are_refused(table, tmp_path):
    with pytest.raises(InputError, match=f"at least {MIN_RUNS} measured runs, got 7 of 7"):
        fit_predictor(table[:7], tmp_path / "p", statistics={})
    seeds = synthetic_table(1, seeds=9)
    with pytest.raises(InputError, match="differ in more than their seed"):
        fit_predictor(seeds, tmp_path / "p", statistics={})


def test_events_of_the_runs_fill_in_for_missing_statistics(small, fitted, tmp_path):
    _, predictor = fitted
    known = predictor.parts.statistics["nmnist-saccade"]
    assert sorted(entry.size for entry in known) == [(16, 16, 6), (16, 16, 8)]
    of_eight = next(entry for entry in known if entry.time_steps == 8)
    np.testing.assert_allclose(of_eight.events, synthetic_events(8))
    given = InputStatistics(height=16, width=16, time_steps=8, events=synthetic_events(8) * 1.1)
    fit_predictor(small, tmp_path / "p", statistics={"nmnist-saccade": [given]})
    known = LatencyPredictor.load(tmp_path / "p").parts.statistics["nmnist-saccade"]
    assert [entry.size for entry in known] == [(16, 16, 8), (16, 16, 6)]
    np.testing.assert_allclose(known[0].events, synthetic_events(8) * 1.1)


def test_runs_of_a_private_data_set_can_be_fitted(small, tmp_path):
    private = small.assign(dataset=None)
    report = fit_predictor(private, tmp_path / "p", statistics={})
    assert report["scores"]["hyperparameters"]["r2_log"] > 0.5
    predictor = LatencyPredictor.load(tmp_path / "p")
    assert predictor.predict(private)["cycles"].gt(0).all()


def test_a_folder_that_is_no_predictor_is_left_alone(table, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(PredictorError, match="a file has that name"):
        fit_predictor(table[:10], tmp_path / "mine", statistics={})
    assert (tmp_path / "mine").read_text() == "precious"


def test_statistics_of_a_data_set_are_the_means_of_its_training_split(monkeypatch):
    from spikemeter import datasets

    def load_splits(config, *, on_progress=None):
        size = config.input
        shape = (4, size.time_steps, size.channels, size.height, size.width)
        frames = np.zeros(shape, dtype=bool)
        frames[:2, :, 0] = True
        train = datasets.EventFrames(frames=frames, labels=np.arange(4))
        return datasets.DataSplits(train=train, validation=train, test=train)

    monkeypatch.setattr(datasets, "load_splits", load_splits)
    told = []
    first, second = dataset_statistics(
        "nmnist-saccade",
        [(16, 16, 8), (8, 6, 4)],
        on_size=lambda done, total: told.append((done, total)),
    )
    assert first.size == (16, 16, 8)
    assert second.events.tolist() == [[24.0, 0.0]] * 4
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(ConfigError, match="dataset"):
        dataset_statistics("nothing", [(8, 8, 4)])
