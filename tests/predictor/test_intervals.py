from __future__ import annotations

import numpy as np
import pytest

from spikemeter.config import load_config
from spikemeter.errors import PredictorError
from spikemeter.predictor.features import categories_of, feature_names, layer_features
from spikemeter.predictor.intervals import (
    TOO_FEW_FACTOR,
    Residuals,
    checked_confidence,
    fit_domain,
)


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
    assert "0.9 needs 9 calibrated points, this predictor has 3" in warning
    assert residuals(np.ones(9)).half_width(0.9) == (1.0, None)
    assert residuals(np.ones(8)).half_width(0.9)[1] is not None


@pytest.mark.parametrize("confidence", [0, 1, -0.1, 1.5, float("nan"), "0.9", True])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(PredictorError, match="confidence: must be above 0 and below 1"):
        checked_confidence(confidence)


@pytest.mark.parametrize("error", [[], [np.nan], [np.inf]])
def test_impossible_residuals_are_refused(error):
    with pytest.raises(ValueError, match="residuals"):
        residuals(error)


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
    return fit_domain(configs, features, feature_names(categories), categories)


def excursions(domain, config, events=EVENTS):
    return domain.excursions(config, layer_features(config, events, domain.categories))


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
        ({"neuron": {"beta": 0.3}}, "neuron.beta: 0.3 is outside the calibrated 0.7 to 0.9"),
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
    )
    found = excursions(only_sigmoid, changed(surrogate={"name": "atan", "slope": 2}))
    assert found == ["surrogate.name: 'atan' was not calibrated (calibrated: fast_sigmoid)"]


def test_input_that_is_much_denser_is_outside(domain):
    found = excursions(domain, changed(), EVENTS * 4)
    assert found == ["input.density: 0.3125 is outside the calibrated 0.07812 to 0.07812"]
