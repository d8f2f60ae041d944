from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from synthetic_runs import synthetic_table, synthetic_train_events

from spikemeter._cli_show import show_fit
from spikemeter.calibration.fit import (
    NewNames,
    _widening,
    fit_predictor,
    fitted_parts,
    folds_of,
    new_name_errors,
    noise_floor,
    r_squared,
    scores_of,
)
from spikemeter.calibration.forecasting import fit_forecaster
from spikemeter.calibration.learning import known_statistics, lessons, measured_log_cycles
from spikemeter.calibration.observed import MIN_RUNS, observed_runs
from spikemeter.calibration.tuning import DEFAULT_SETTINGS
from spikemeter.errors import InputError, PredictorError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.ensemble import TreeSettings
from spikemeter.predictor.features import FLAT_KEYS, config_from_row
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.sparsity import logit

QUICK = {name: TreeSettings(rounds=20, eta=0.2) for name in DEFAULT_SETTINGS}


@pytest.fixture(scope="module")
def table():
    return synthetic_table(24, seeds=2)


@pytest.fixture(scope="module")
def fitted(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "predictor"
    return fit_predictor(table, out), LatencyPredictor.load(out)


@pytest.fixture(scope="module")
def small(table):
    """Sixteen runs, where it does not matter how well they are fitted."""
    return table[:16]


@pytest.fixture(scope="module")
def observed(table):
    return observed_runs(table)


@pytest.fixture(scope="module")
def parts_and_unseen(observed):
    return fitted_parts(observed, QUICK)


def quickly(table, out) -> LatencyPredictor:
    """Fit a predictor in little time."""
    fit_predictor(table, out, settings=QUICK)
    return LatencyPredictor.load(out)


def test_the_report_says_what_was_used_and_how_good_it_is(fitted):
    report, predictor = fitted
    assert report["runs"] == 48
    assert report["left_out"] == 0
    assert report["points"] == 24
    scores = report["scores"]
    assert set(scores) == {"hyperparameters", "statistics", "mean", "mean_firing_rate"}
    ranked = ["statistics", "hyperparameters", "mean_firing_rate", "mean"]
    errors = [scores[name]["rmse_log"] for name in ranked]
    assert errors == sorted(errors)
    assert scores["hyperparameters"]["r2_log"] > 0.9
    assert scores["mean"]["r2_log"] < 0.01
    assert 0.003 < scores["statistics"]["mape"] < 0.02
    assert report["firing_rate_r2"] > 0.6
    assert report["accuracy_mae"] < 0.03
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    kept = {key: value for key, value in report.items() if key != "predictor"}
    assert predictor.parts.scores == kept


def test_settings_are_taken_as_told_and_reported(small, tmp_path):
    told = {**QUICK, "firing": TreeSettings(rounds=7, max_depth=2)}
    report = fit_predictor(small, tmp_path / "p", settings=told)
    assert report["settings"]["firing"]["rounds"] == 7
    assert report["settings"]["output"] == {**report["settings"]["firing"], "rounds": 20,
                                            "max_depth": 3, "eta": 0.2}  # fmt: skip
    ensembles = LatencyPredictor.load(tmp_path / "p").parts.model.ensembles
    assert len(ensembles["firing"].trees) == 7
    assert ensembles["firing"].depth <= 2
    assert len(ensembles["output"].trees) == 20
    default = fit_predictor(small, tmp_path / "q")  # too few points to choose by
    assert default["settings"]["taps"]["rounds"] == DEFAULT_SETTINGS["taps"].rounds


def test_the_noise_floor_is_the_spread_over_seeds(table, observed, fitted):
    logs = np.log(table["cycles.mean"])
    point = [key for key in FLAT_KEYS if key not in ("training.seed", "hardware.neural_cores")]
    of_point = logs.groupby([table[key] for key in point], dropna=False)
    squares = (of_point.var(ddof=0) * of_point.size()).sum()
    expected = np.sqrt(squares / (48 - len(of_point)))
    assert fitted[0]["noise_floor_log"] == noise_floor(observed) == pytest.approx(expected)
    assert noise_floor(observed_runs(synthetic_table(9, seeds=1))) is None
    # Another machine is no repetition.
    other = table.assign(**{"hardware.encoder_width": [16, 32] * 24})
    assert noise_floor(observed_runs(other)) is None


def test_scores_are_of_errors_of_log_cycles():
    measured = np.array([0.0, 1.0, 2.0, 3.0])
    errors = np.array([0.1, -0.1, 0.1, -0.1])
    scores = scores_of(errors, measured)
    assert scores["rmse_log"] == pytest.approx(0.1)
    assert scores["r2_log"] == pytest.approx(1 - 0.04 / 5)
    assert scores["mape"] == pytest.approx((np.exp(0.1) - np.exp(-0.1)) / 2)
    assert r_squared(measured, measured) == 1
    assert r_squared(measured, np.full(4, 1.5)) == 0
    assert r_squared(np.ones(3), np.ones(3)) == 1
    assert r_squared(np.ones(3), np.zeros(3)) == 0


def test_residuals_are_errors_on_unseen_runs_in_units_of_the_predicted_spread(
    observed, parts_and_unseen
):
    parts, unseen = parts_and_unseen
    errors = observed.log_cycles - unseen.log_cycles
    residuals = parts.residuals["hyperparameters"]
    np.testing.assert_allclose(residuals.error * unseen.spread, errors)
    assert (unseen.spread == 1).all()  # of so few points nothing is learned of it
    assert (residuals.group == observed.groups).all()
    accuracy = parts.residuals["accuracy"]
    expected = logit(observed.accuracy) - logit(unseen.accuracy)
    np.testing.assert_allclose(accuracy.error, expected)
    assert [len(each.error) for each in parts.forecaster.residuals] == [48] * 4


def test_what_is_called_unseen_was_not_seen(table, observed, parts_and_unseen, tmp_path):
    """A value that only one point has cannot be known from the others."""
    parts, unseen = parts_and_unseen
    seen = np.log(LatencyPredictor(parts=parts).predict(table)["cycles"].to_numpy())
    error = np.sqrt(np.mean((observed.log_cycles - unseen.log_cycles) ** 2))
    assert np.sqrt(np.mean((observed.log_cycles - seen) ** 2)) < 0.6 * error
    held_out = folds_of(observed.groups)[0]
    cycles = table["cycles.mean"].to_numpy(copy=True)
    rates = table["layers.output_rate"].tolist()
    for run in held_out:  # what is measured there becomes nonsense
        cycles[run] *= 100
        rates[run] = [0.9] * len(rates[run])
    changed = table.assign(**{"cycles.mean": cycles, "layers.output_rate": rates})
    _, other = fitted_parts(observed_runs(changed), QUICK)
    np.testing.assert_allclose(other.log_cycles[held_out], unseen.log_cycles[held_out], rtol=0.02)
    others = np.setdiff1d(np.arange(48), held_out)
    assert np.abs(other.log_cycles[others] - unseen.log_cycles[others]).max() > 0.1


@pytest.mark.parametrize("key", ["network", "surrogate.name"])
def test_names_that_are_called_unseen_were_not_seen(table, observed, parts_and_unseen, key):
    """What is measured of runs with one name teaches nothing to the model that is asked of them."""
    parts, unseen = parts_and_unseen
    assert set(parts.domain.unseen) == {"network", "surrogate.name"}  # all are of one data set
    held_out = (table[key] == table[key].iloc[0]).to_numpy()
    cycles = table["cycles.mean"].to_numpy() * np.where(held_out, 100, 1)
    rates = [
        [0.9] * len(rates) if out else rates
        for rates, out in zip(table["layers.output_rate"], held_out, strict=True)
    ]
    changed = table.assign(**{"cycles.mean": cycles, "layers.output_rate": rates})
    other = observed_runs(changed)
    before, after = (
        new_name_errors(
            lessons(runs, parts.statistics, parts.domain.categories, parts.tap_ratios.input),
            runs, QUICK, unseen,
        )[key].errors.error
        for runs in (observed, other)
    )  # fmt: skip
    np.testing.assert_allclose((after - before)[held_out], np.log(100), rtol=0.02)
    assert np.abs(after - before)[~held_out].max() > 0.1


def test_intervals_for_new_names_widen_by_the_errors_of_names_that_were_left_out():
    usual = Residuals(error=np.linspace(-1, 1, 100), group=np.arange(100))

    def widening(names, error):
        residuals = Residuals(error=np.array(error), group=np.arange(len(names)))
        return _widening(NewNames(names=np.array(names), errors=residuals), usual)

    many = [f"network {number // 10}" for number in range(100)]
    assert widening(many, usual.error * 3) == pytest.approx(3)
    assert widening(many, usual.error / 3) == 1.1  # never told better than what is known
    one_of_ten = np.where(np.arange(100) < 6, 50.0, usual.error)
    assert widening(many, one_of_ten) < 2  # the mean over ten names
    few = ["a"] * 50 + ["b"] * 50
    assert widening(few, np.where(np.arange(100) < 50, 5.0, 0.1)) == pytest.approx(
        5 / usual.half_width(0.9)[0]
    )
    assert widening(few, usual.error * 1e6) == 100


def test_the_spread_is_wider_where_errors_are_larger():
    """Noise of one of two surrogates alone."""
    rng = np.random.default_rng(0)
    table = synthetic_table(40, seeds=1, noise=0.0)
    noisy = (table["surrogate.name"] == "atan").to_numpy()
    cycles = table["cycles.mean"] * np.where(noisy, np.exp(rng.normal(size=40)), 1.0)
    observed = observed_runs(table.assign(**{"cycles.mean": cycles}))
    parts, unseen = fitted_parts(observed, QUICK)
    assert len(np.unique(unseen.spread)) > 3
    np.testing.assert_allclose(
        parts.residuals["hyperparameters"].error * unseen.spread,
        observed.log_cycles - unseen.log_cycles,
    )
    plainly = fitted_parts(observed, QUICK)[0].forecaster.residuals[-1].error
    of_few = fit_forecaster(
        lessons(observed, parts.statistics, parts.domain.categories, parts.tap_ratios.input),
        observed, unseen.predicted, np.ones(40), folds_of(observed.groups),
    ).residuals[-1].error  # fmt: skip
    np.testing.assert_allclose(plainly * np.sqrt(unseen.spread), of_few)
    predictor = LatencyPredictor(parts=parts)
    widths = [
        np.diff(np.log(predictor.estimate(config_from_row(row)).interval_cycles))[0]
        for row in table.to_dict("records")
    ]
    assert np.median(np.array(widths)[noisy]) > 1.5 * np.median(np.array(widths)[~noisy])


def test_the_cost_of_estimating_what_enters_is_measured(observed, parts_and_unseen):
    """Every run once more, as if none of its frames had been measured."""
    assert parts_and_unseen[0].estimated is None  # there are frames of one size alone
    known = parts_and_unseen[0].statistics["nmnist-saccade"]
    other = replace(known[0], height=12, width=12, events=0.7 * known[0].events)
    both = {"nmnist-saccade": (*known, other)}
    parts, unseen = fitted_parts(observed, QUICK, known=both)
    shifts = parts.estimated.error
    np.testing.assert_allclose(shifts, unseen.guessed_log_cycles - unseen.log_cycles)
    assert np.unique(parts.estimated.group).tolist() == [0]
    held_out = folds_of(observed.groups)[0]
    seen = observed.chosen(np.setdiff1d(np.arange(len(observed)), held_out))
    model, _ = fitted_parts(seen, QUICK, known=both)
    blind = LatencyPredictor(parts=replace(model, statistics={"nmnist-saccade": (other,)}))
    for run in held_out[:4].tolist():
        cycles = blind.estimate(observed.configs[run]).cycles
        assert np.log(cycles) == pytest.approx(unseen.guessed_log_cycles[run], abs=0.03)
    assert np.abs(shifts).max() > 0.05


def test_a_fit_can_be_repeated_to_the_byte(small, tmp_path):
    for name in ("a", "b"):
        fit_predictor(small, tmp_path / name, settings=QUICK)
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == len(list((tmp_path / "b").iterdir())) > 5
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_taps_are_calibrated_where_spikes_keep_to_the_middle(small, tmp_path):
    middle = small.assign(
        **{"layers.taps": [[1.05 * taps for taps in row] for row in small["layers.taps"]]}
    )
    plain, better = (
        quickly(table, tmp_path / name) for name, table in (("a", small), ("b", middle))
    )
    assert (better.predict(small)["cycles"] > plain.predict(small)["cycles"]).all()
    ratios = better.parts.tap_ratios
    assert (ratios.input, ratios.hidden) == pytest.approx((1.05, 1.05))
    of_data_set = [entry.tap_ratio for entry in better.parts.statistics["nmnist-saccade"]]
    assert of_data_set == pytest.approx([1.05] * len(of_data_set))
    # A predictor's factor is for what it learned; what the machine does per step stays as it is.
    fire = better.estimate(config_from_row(small.iloc[0])).layers[0].buckets["fire"]
    assert fire == int(fire)


def test_what_the_statistics_leave_open_is_measured_with_mean_taps(observed, parts_and_unseen):
    parts, _ = parts_and_unseen
    left_open = observed.log_cycles - measured_log_cycles(observed, tap_ratios=parts.tap_ratios)
    np.testing.assert_allclose(parts.residuals["statistics"].error, left_open)


def test_a_predictor_knows_the_training_splits_of_its_runs(fitted):
    six, eight = fitted[1].parts.statistics["nmnist-saccade"]
    assert (six.size, eight.size) == ((16, 16, 6), (16, 16, 8))
    np.testing.assert_allclose(six.events, synthetic_train_events(6))
    np.testing.assert_allclose(eight.events, synthetic_train_events(8))


def test_more_data_sets_can_be_known_than_were_learned_from(table):
    eight = observed_runs(table[table["input.time_steps"] == 8])
    known = known_statistics(observed_runs(table))
    parts, _ = fitted_parts(eight, QUICK, known=known)
    assert [entry.time_steps for entry in parts.statistics["nmnist-saccade"]] == [6, 8]
    (alone,) = known_statistics(eight)["nmnist-saccade"]
    assert alone.time_steps == 8


def test_the_domain_is_that_of_the_runs(table, fitted):
    domain = fitted[1].parts.domain
    low, high = (dict(zip(domain.feature_names, each, strict=True))
                 for each in (domain.low, domain.high))  # fmt: skip
    assert (low["neuron.threshold"], high["neuron.threshold"]) == (0.5, 1.5)
    assert domain.datasets == ("nmnist-saccade",)
    assert domain.categories["surrogate.name"] == ("atan", "fast_sigmoid")
    assert domain.of_name["surrogate.slope"] == {"atan": (1, 5), "fast_sigmoid": (5, 50)}
    assert domain.of_name["neuron.beta"]["lif"] == pytest.approx((0.5, 0.95))


def test_runs_that_failed_or_did_not_match_are_left_out_and_counted(small, tmp_path):
    statuses = ["diverged", "silent", "failed", *["ok"] * 13]
    matches = [True, True, True, False, *[True] * 12]
    damaged = small.assign(status=statuses, spikes_match=matches)
    report = fit_predictor(damaged, tmp_path / "p", settings=QUICK)
    assert (report["left_out"], report["runs"]) == (3, 13)
    stored = LatencyPredictor.load(tmp_path / "p").table()
    assert stored["run_id"].tolist() == small["run_id"].iloc[[1, *range(4, 16)]].tolist()


def test_the_table_that_is_kept_can_be_fitted_again(small, tmp_path):
    first = quickly(small, tmp_path / "a")
    again = quickly(first.table(), tmp_path / "b")
    assert again.predict(small)["cycles"].tolist() == first.predict(small)["cycles"].tolist()


def test_bad_tables_are_refused_before_anything_is_written(table, tmp_path):
    with pytest.raises(InputError, match=f"at least {MIN_RUNS} measured runs, got 7 of 7"):
        fit_predictor(table[:7], tmp_path / "p")
    with pytest.raises(InputError, match=r"must have a column 'layers\.step_counts', got none"):
        fit_predictor(table.drop(columns="layers.step_counts"), tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_runs_of_a_private_data_set_can_be_fitted(small, tmp_path):
    private = small.assign(dataset=None)
    report = fit_predictor(private, tmp_path / "p", settings=QUICK)
    assert report["scores"]["hyperparameters"]["r2_log"] > 0.5
    predictor = LatencyPredictor.load(tmp_path / "p")
    assert predictor.parts.statistics == {}
    assert predictor.predict(private)["cycles"].gt(0).all()


def test_networks_of_one_layer_alone_can_be_fitted(tmp_path):
    """Nothing is hidden there: no rate between layers, no taps and no courses."""
    table = synthetic_table(8, seeds=1, networks=("10",))
    report = fit_predictor(table, tmp_path / "p", settings=QUICK)
    assert report["scores"]["hyperparameters"]["rmse_log"] < 0.1
    predicted = LatencyPredictor.load(tmp_path / "p").predict(table)
    np.testing.assert_allclose(predicted["cycles"], table["cycles.mean"], rtol=0.1)


def test_a_folder_that_is_no_predictor_is_left_alone(small, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(PredictorError, match="a file has that name"):
        fit_predictor(small, tmp_path / "mine", settings=QUICK)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("points", [3, 20, 21, 100])
def test_few_points_are_left_out_one_by_one(points):
    groups = np.repeat(np.arange(points), 2)
    assert len(folds_of(groups)) == (points if points <= 20 else 10)


def test_people_get_every_number_of_a_report_but_no_settings(fitted):
    report, _ = fitted
    console = Console(file=io.StringIO(), width=120)
    show_fit(console, report)
    lines = console.file.getvalue().splitlines()
    for name, scores in report["scores"].items():
        (row,) = [line for line in lines if name in line.split()]
        assert len([part for part in row.split() if part[0].isdigit() or part[0] == "-"]) == len(
            scores
        )
    shown = [line.partition(":")[0] for line in lines if ": " in line]
    assert shown == ["runs", "points", "left_out", "noise_floor_log", "firing_rate_r2",
                     "accuracy_mae", "predictor"]  # fmt: skip
    assert not any("max_depth" in line for line in lines)
