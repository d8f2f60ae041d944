from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mapie.regression import SplitConformalRegressor
from random_networks import random_network
from sklearn.base import BaseEstimator, RegressorMixin

from spikemeter import predict_latency
from spikemeter.config import load_config
from spikemeter.errors import PredictorError
from spikemeter.models.integer import network_spikes
from spikemeter.predictor.features import categories_of, feature_names, layer_features
from spikemeter.predictor.intervals import (
    OF_NAME,
    TOO_FEW_FACTOR,
    Residuals,
    checked_confidence,
    fit_domain,
    statistics_errors,
)
from spikemeter.predictor.timing import spike_taps, timing_model


def residuals(error, group=None) -> Residuals:
    error = np.asarray(error, dtype=np.float64)
    return Residuals(
        error=error, group=np.arange(len(error)) if group is None else np.asarray(group)
    )


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95])
def test_the_half_width_is_that_of_split_conformal_prediction(confidence):
    error = np.random.default_rng(0).normal(size=39)
    half_width, warning = residuals(error).half_width(confidence)
    rank = int(np.ceil((39 + 1) * confidence - 1e-9))
    assert half_width == np.sort(np.abs(error))[rank - 1]
    assert warning is None


@pytest.mark.parametrize("repetitions", [1, 3])
def test_intervals_hold_new_points_as_often_as_they_say(repetitions):
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        # Points differ from each other more than repetitions do.
        group = np.repeat(np.arange(30), repetitions)
        error = rng.normal(size=30)[group] + 0.3 * rng.normal(size=group.size)
        half_width, _ = residuals(error, group).half_width(0.9)
        new = rng.normal(size=50) + 0.3 * rng.normal(size=50)
        held.append(np.mean(np.abs(new) <= half_width))
    assert 0.89 <= np.mean(held) <= 0.93


def test_repetitions_of_a_point_weigh_as_one():
    error = [0.1] * 9 + [5.0] * 90
    once = residuals(np.linspace(0.1, 1, 10)).half_width(0.8)[0]
    group = list(range(9)) + [9] * 90
    many = residuals(list(np.linspace(0.1, 0.9, 9)) + [1.0] * 90, group).half_width(0.8)[0]
    assert many == pytest.approx(once)
    assert residuals(error, group).half_width(0.8)[0] == 0.1


def test_too_few_points_are_admitted_and_widen():
    half_width, warning = residuals([0.1, -0.4, 0.2]).half_width(0.9)
    assert half_width == pytest.approx(0.4 * TOO_FEW_FACTOR)
    assert warning is not None
    assert "0.9 needs 9 calibrated points, there are 3" in warning
    assert residuals(np.ones(9)).half_width(0.9) == (1.0, None)
    assert residuals(np.ones(8)).half_width(0.9)[1] is not None


@pytest.mark.parametrize("confidence", [0, 1, -0.1, 1.5, float("nan"), "0.9", True])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(PredictorError, match="confidence: must be above 0 and below 1"):
        checked_confidence(confidence)


@pytest.mark.parametrize("error", [[], [np.nan], [np.inf], [0.1, -2e6], [[0.1]], 0.1])
def test_impossible_residuals_are_refused(error):
    with pytest.raises(ValueError, match="residuals"):
        Residuals(error=np.asarray(error, dtype=np.float64), group=np.zeros(1, dtype=np.int64))


def digits_config(network, **hardware):
    return load_config({"dataset": "nmnist-saccade", "network": network, "hardware": hardware})


def random_trains(config, density, seed, weight=1.0):
    """Spikes of a random network, by samples of these densities; `weight` is by row and column."""
    rng = np.random.default_rng(seed)
    density = np.asarray(density, dtype=np.float64).reshape(-1, 1, 1, 1, 1)
    frames = rng.random((len(density), 8, 2, 16, 16)) < density * weight
    return network_spikes(random_network(config, rng), frames).inputs


def with_taps(config, trains):
    """Counts and taps, as `predict_latency` takes them."""
    told = {}
    for index, (layer, train) in enumerate(zip(config.layers, trains, strict=True)):
        maps = train.reshape(*train.shape[:2], layer.in_channels, -1)
        told |= {f"counts_{index}": maps.sum(axis=3), f"taps_{index}": spike_taps(layer, train)}
    return told


def held_one_by_one(config, trains):
    """Whether each sample's latency lies in the interval of its counts and taps."""
    held = []
    for sample, cycles in enumerate(timing_model(config).trace(trains).cycles):
        one = [train[sample : sample + 1] for train in trains]
        low, high = predict_latency(config, spikes=with_taps(config, one)).interval_cycles
        held.append(low <= cycles <= high)
    return held


@pytest.mark.parametrize(
    "density", [(0.001, 0.003), (0.003, 0.01), (0.01, 0.1)], ids=["few", "some", "many"]
)
@pytest.mark.parametrize("network", ["20-10", "72-24-10", "7C3-MP2-10"])
def test_intervals_from_counts_hold_at_every_density(network, density):
    held = []
    for seed in range(6):
        config = digits_config(network, encoder_width=(16, 32, 64)[seed % 3])
        held += held_one_by_one(config, random_trains(config, np.geomspace(*density, 16), seed))
    assert np.mean(held) >= 0.85


@pytest.mark.parametrize("network", ["20-10", "7C3-MP2-10"])
def test_intervals_from_counts_hold_where_the_border_is_dim(network):
    """As digits leave it: the first and the last words of a step hold fewer spikes."""
    weight = np.full((16, 16), 0.35)
    weight[1:-1, 1:-1] = 1.2
    held = []
    for seed in range(6):
        config = digits_config(network, encoder_width=(16, 32, 64)[seed % 3])
        trains = random_trains(config, np.full(8, 0.15), seed, weight)
        held += held_one_by_one(config, trains)
    assert np.mean(held) >= 0.85


def half_width(estimate):
    return np.log(estimate.interval_cycles[1] / estimate.cycles)


def test_the_mean_of_many_samples_is_known_better_but_not_at_will():
    config = digits_config("20-10")
    one, four, many = (
        half_width(
            predict_latency(
                config,
                spikes=with_taps(config, [np.repeat(x, n, axis=0) for x in trains]),
            )
        )
        for trains in [random_trains(config, [0.002], 1)]
        for n in (1, 4, 400)
    )
    assert many < four < one
    # What is wrong with all samples alike does not average out
    assert many > 0.2 * one


@pytest.mark.parametrize("schedule", ["layer_serial", "step_pipelined"])
def test_mean_counts_are_said_and_held(schedule):
    held = []
    for seed in range(8):
        config = digits_config(("64-10", "8C3-MP4-32-10")[seed % 2], schedule=schedule)
        rng = np.random.default_rng(seed)
        trains = random_trains(config, np.exp(rng.normal(np.log(0.02), 0.7, 48)), seed)
        told = with_taps(config, trains)
        known = predict_latency(config, spikes=told)
        assert not any("not whole" in text for text in known.warnings)
        mean = predict_latency(config, spikes={name: x.mean(axis=0) for name, x in told.items()})
        assert any("counts_i are not whole, as means over samples" in x for x in mean.warnings)
        low, high = mean.interval_cycles
        held.append(low <= timing_model(config).trace(trains).cycles.mean() <= high)
    assert np.mean(held) >= 0.85


def test_what_counts_leave_open_adds_up():
    config = digits_config("8C3-MP2-10")
    model = timing_model(config)
    told = [np.full((4, 8, layer.in_channels), 2.0) for layer in config.layers]
    timing = model.statistics(told)
    errors = statistics_errors()

    def deviation(**changes):
        chance = dataclasses.replace(timing.chance, **changes)
        changed = dataclasses.replace(timing, chance=chance)
        share = errors.deviation(config.layers, changed, taps_known=True)
        return share * timing.cycles[0]

    nothing = np.zeros(4)
    least = deviation(variance=nothing, unevenness=nothing)
    assert least == pytest.approx(1)
    # Chance averages out over the four samples, a formula that is off does not
    random = deviation(variance=nothing + 64, unevenness=nothing)
    assert random**2 == pytest.approx(1 + 64 * (1 / 4 + errors.formula_share**2))
    uneven = deviation(variance=nothing, unevenness=nothing + 30)
    assert uneven**2 == pytest.approx(1 + (30 * errors.misfit) ** 2)
    means = deviation(variance=nothing, unevenness=nothing, convexity=nothing + 50)
    assert means**2 == pytest.approx(1 + (50 * errors.mean_share) ** 2)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95])
def test_where_every_point_has_one_run_it_is_mapies_split_conformal_interval(confidence):
    errors = np.random.default_rng(3).normal(size=57)

    class Nothing(RegressorMixin, BaseEstimator):
        def fit(self, _rows, _targets):
            self.fitted_ = True
            return self

        def predict(self, rows):
            return np.zeros(len(rows))

    rows = np.zeros((len(errors), 1))
    mapie = SplitConformalRegressor(
        Nothing().fit(rows, errors), confidence_level=confidence, prefit=True
    ).conformalize(rows, errors)
    _, interval = mapie.predict_interval(rows[:1])
    assert interval[0, 1, 0] == pytest.approx(residuals(errors).half_width(confidence)[0])


def test_the_wider_family_decides():
    families = (residuals(np.full(20, 0.5)), residuals(np.full(20, 2.0)))
    errors = dataclasses.replace(statistics_errors(), of_level={"taps": families})
    assert errors.half_width("taps", 0.9) == (2.0, None)


BASE = {
    "dataset": "nmnist-saccade",
    "network": "8C3-MP2-10",
    "neuron": {"beta": 0.7},
    "training": {"lr": 1e-3, "epochs": 4},
}
EVENTS = np.full((8, 2), 20.0)


def changed(**sections):
    content = {
        key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()
    }
    for key, value in sections.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    return load_config(content)


@pytest.fixture(scope="module")
def domain():
    configs = [
        changed(),
        changed(neuron={"beta": 0.9}, surrogate={"name": "atan", "slope": 2}),
        changed(training={"lr": 4e-3}, network="16C3-MP2-10"),
    ]
    categories = categories_of(configs)
    features = [layer_features(config, EVENTS, categories) for config in configs]
    names = feature_names(categories)
    return fit_domain(configs, features, names, categories, {"network": 1.5})


def excursions(domain, config, events=EVENTS):
    return list(
        domain.excursions(config, layer_features(config, events, domain.categories)).values()
    )


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"neuron": {"beta": 0.8}},
        {"neuron": {"beta": 0.91}},
        {"training": {"lr": 2e-3}},
        {"training": {"lr": 4.9e-3}},
        {"training": {"seed": 77}},
        {"network": "12C3-MP2-10"},
        {"hardware": {"clock_mhz": 7, "encoder_width": 8, "schedule": "step_pipelined"}},
        {"surrogate": {"slope": 30}},
    ],
)
def test_inside_the_calibrated_ranges_nothing_is_said(domain, sections):
    assert excursions(domain, changed(**sections)) == []


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"neuron": {"beta": 0.3}}, "neuron.beta: 0.3 is outside the calibrated 0.7 to 0.9 of lif"),
        ({"training": {"lr": 0.1}}, "training.lr: 0.1 is outside the calibrated 0.001 to 0.004"),
        ({"training": {"epochs": 50}}, "training.epochs: 50 is outside the calibrated 4 to 4"),
        ({"surrogate": {"slope": 2}}, "surrogate.slope: 2 is outside the calibrated 25 to 25"),
        ({"training": {"weight_bits": 8}}, "training.weight_bits: 8 is outside"),
        ({"network": "8C3-MP2-300-10"}, "network: "),
        ({"network": "8C5-MP2-10"}, "network: kernel 5 of 0:8C5 is outside the calibrated 1 to 3"),
    ],
)
def test_a_knob_outside_its_range_is_named_with_the_range(domain, sections, sentence):
    found = excursions(domain, changed(**sections))
    assert any(text.startswith(sentence) for text in found), found


@pytest.fixture(scope="module")
def names_domain():
    """LIF with slow, Lapicque with fast decay; one width of the escape noise."""
    configs = [
        changed(neuron={"beta": 0.9}),
        changed(neuron={"beta": 0.95}),
        changed(neuron={"model": "lapicque", "R": 1.0, "C": 2.0, "beta": None}),
        changed(surrogate={"name": "spike_rate_escape", "slope": 10, "width": 0.5}),
    ]
    categories = categories_of(configs)
    features = [layer_features(config, EVENTS, categories) for config in configs]
    return fit_domain(configs, features, feature_names(categories), categories, {})


@pytest.mark.parametrize(
    ("sections", "sentences"),
    [
        ({"neuron": {"beta": 0.93}}, []),
        ({"neuron": {"threshold": 3.0}}, ["neuron.threshold: 3 is outside the calibrated 1 to 1"]),
        (
            {"surrogate": {"slope": 0.5}},
            ["surrogate.slope: 0.5 is outside the calibrated 25 to 25 of fast_sigmoid"],
        ),
        (
            {"neuron": {"beta": 0.5}},
            ["neuron.beta: 0.5 is outside the calibrated 0.7 to 0.95 of lif"],
        ),
        ({"neuron": {"model": "lapicque", "R": 1.1, "C": 1.9, "beta": None}}, [
            "neuron.R, neuron.C or beta: a decay of 0.5215 is outside the calibrated 0.5 to 0.5 of "
            "lapicque"]),
        ({"neuron": {"model": "lapicque", "R": 10.0, "C": 0.2, "beta": None}}, [
            "neuron.threshold over the gain: 0.2 is outside the calibrated 2 to 2 of lapicque"]),
        ({"surrogate": {"name": "spike_rate_escape", "slope": 10, "width": 0.55}}, []),
        ({"surrogate": {"name": "spike_rate_escape", "slope": 10, "width": 0.05}}, [
            "surrogate.width: 0.05 is outside the calibrated 0.5 to 0.5 of "
            "spike_rate_escape"]),
    ],
)  # fmt: skip
def test_ranges_are_those_of_the_name_that_was_chosen(names_domain, sections, sentences):
    assert excursions(names_domain, changed(**sections)) == sentences


def test_what_was_never_calibrated_is_named(domain):
    size = {"time_steps": 8, "statistics": EVENTS.tolist()}
    private = changed(dataset=None, input=size)
    assert excursions(domain, private) == [
        "dataset: a private data set was not calibrated (calibrated: nmnist-saccade)"
    ]
    only_sigmoid = fit_domain(
        [changed()],
        [layer_features(changed(), EVENTS, categories_of([changed()]))],
        feature_names(categories_of([changed()])),
        categories_of([changed()]),
        {},
    )
    found = excursions(only_sigmoid, changed(surrogate={"name": "atan", "slope": 2}))
    assert found == ["surrogate.name: 'atan' was not calibrated (calibrated: fast_sigmoid)"]


def slopes(low, high):
    return {feature: {"atan": (low, high)} for feature in OF_NAME}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"low": 2.0, "high": 1.0}, "a calibrated range must be finite, and end after"),
        ({"high": np.inf}, "a calibrated range must be finite, and end after"),
        ({"low": -1e39}, "a calibrated range must be finite, and end after"),
        ({"low": np.nan}, "a calibrated range must be finite, and end after"),
        ({"of_name": slopes(2.0, 1.0)}, "a calibrated range must be finite, and end after"),
        ({"of_name": slopes(-np.inf, 1.0)}, "a calibrated range must be finite, and end after"),
        ({"of_name": slopes(np.nan, 1.0)}, "a calibrated range must be finite, and end after"),
    ],
)
def test_an_impossible_domain_is_refused(domain, changes, sentence):
    for name in ("low", "high"):
        if name in changes:
            values = getattr(domain, name).copy()
            values[0] = changes[name]
            changes = {**changes, name: values}
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(domain, **changes)


def test_input_that_is_much_denser_is_outside(domain):
    found = excursions(domain, changed(), EVENTS * 4)
    said = "0.3125 events per pixel and step is outside the calibrated 0.07812 to 0.07812"
    assert found == [f"input: {said}"]
