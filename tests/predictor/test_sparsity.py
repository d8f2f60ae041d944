from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from spikemeter.predictor.ensemble import TreeSettings, fit_head
from spikemeter.predictor.features import POOL_COLUMN
from spikemeter.predictor.sparsity import (
    HEADS,
    RATE_FLOOR,
    Predicted,
    SparsityModel,
    accuracy_interval,
    logistic,
    logit,
)

FEATURES = 12


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, FEATURES)).astype(np.float32)
    rows[:, POOL_COLUMN] = rng.choice([1, 2, 4], len(rows))
    return rows


@pytest.fixture(scope="module")
def targets(features):
    """What every head is to say, each of another feature but for both rates."""
    firing = logistic(features[:, 0] - 2.0)
    output = np.minimum(firing * features[:, POOL_COLUMN], 0.99)
    others = {name: features[:, number] for number, name in enumerate(HEADS[2:], start=1)}
    return {"firing": logit(firing), "output": logit(output), **others}


@pytest.fixture(scope="module")
def model(features, targets):
    settings = TreeSettings(rounds=150, eta=0.1)
    return SparsityModel(
        ensembles={name: fit_head(features, targets[name], settings) for name in HEADS}
    )


def constant(features, **values):
    """Model whose heads say one number each, 0 where nothing is told."""
    settings = TreeSettings(rounds=1)
    return SparsityModel(
        ensembles={
            name: fit_head(features, np.full(len(features), values.get(name, 0.0)), settings)
            for name in HEADS
        }
    )


def arrays(predicted):
    return {field.name: getattr(predicted, field.name) for field in fields(Predicted)}


def test_every_head_is_learned_in_its_place(features, targets, model):
    heads = model.heads(features)
    assert heads.shape == (len(features), len(HEADS))
    for column, name in zip(heads.T, HEADS, strict=True):
        assert np.corrcoef(column, targets[name])[0, 1] > 0.97, name


def test_what_is_predicted_comes_from_its_heads(features, model):
    heads = dict(zip(HEADS, model.heads(features).T, strict=True))
    predicted = model.predict(features)
    np.testing.assert_allclose(predicted.tap_ratio, np.exp(heads["taps"]))
    np.testing.assert_allclose(predicted.course, np.stack([heads["early"], heads["late"]], axis=1))
    np.testing.assert_allclose(predicted.accuracy, logistic(heads["accuracy"]))
    np.testing.assert_allclose(predicted.spread, np.exp(heads["spread"]))
    pooled = features[:, POOL_COLUMN] > 1
    # Heads of other features: where they contradict, the rate of the lines holds.
    output = np.where(pooled, logistic(heads["output"]), logistic(heads["firing"]))
    np.testing.assert_allclose(predicted.output_rate, np.clip(output, RATE_FLOOR, 1))


def test_a_few_rows_are_predicted_as_many_are(features, model):
    together = arrays(model.predict(features))
    for start in range(0, len(features), 20):
        few = arrays(model.predict(features[start : start + 20]))
        for name, values in few.items():
            np.testing.assert_allclose(values, together[name][start : start + 20], rtol=1e-9)


def test_few_and_many_rows_go_separate_ways(features, model, monkeypatch):
    """Or the test above would compare one way with itself."""
    ways = []
    monkeypatch.setattr(
        "spikemeter.predictor.ensemble.Forest.values",
        lambda self, rows: ways.append(len(rows)) or np.zeros((len(rows), len(HEADS))),
    )
    assert model.heads(features[:3]).max() == 0
    assert model.heads(features).max() > 0
    assert model.heads(features[:0]).shape == (0, len(HEADS))
    assert ways == [3, 0]


def test_rates_agree_with_pooling(features, model):
    pool = features[:, POOL_COLUMN]
    predicted = model.predict(features)
    firing, output = predicted.firing_rate, predicted.output_rate
    assert (firing[pool == 1] == output[pool == 1]).all()
    assert (firing[pool > 1] < output[pool > 1]).any()
    assert (firing <= output).all()
    assert (firing >= np.maximum(output / pool**2, RATE_FLOOR) * (1 - 1e-6)).all()
    assert output.max() <= 1
    assert output.min() >= RATE_FLOOR


@pytest.mark.parametrize(("firing", "expected"), [(4.0, "output"), (-4.0, "output / pool**2")])
def test_heads_that_contradict_each_other_are_held_to_pooling(features, firing, expected):
    """Spikes behind pooling are what the next layer gets: they hold."""
    pool = features[:, POOL_COLUMN].astype(np.float64)
    predicted = constant(features, firing=firing, output=1.0).predict(features)
    output = np.where(pool == 1, logistic(np.array([firing])), logistic(np.array([1.0])))
    np.testing.assert_allclose(predicted.output_rate, output, rtol=1e-6)
    bound = output if expected == "output" else np.maximum(output / pool**2, 0.0)
    held = np.where(pool == 1, output, bound)
    if firing < 0:
        held = np.maximum(held, logistic(np.array([firing])))
    np.testing.assert_allclose(predicted.firing_rate, held, rtol=1e-6)


def test_silent_layers_meet_the_floor(features):
    predicted = constant(features, firing=-400.0, output=-400.0).predict(features)
    assert (predicted.firing_rate == RATE_FLOOR).all()
    assert (predicted.output_rate == RATE_FLOOR).all()


@pytest.mark.parametrize("value", [-499.0, 499.0])
@pytest.mark.parametrize("rows", [3, 400])
def test_nothing_that_heads_may_say_leaves_the_range(features, value, rows):
    predicted = constant(features, **dict.fromkeys(HEADS, value)).predict(features[:rows])
    for name, values in arrays(predicted).items():
        assert np.isfinite(values).all(), name
    bound = math.exp(5) * (1 + 1e-6)
    for ratio in (predicted.tap_ratio, predicted.spread):
        assert ((1 / bound <= ratio) & (ratio <= bound)).all()
    assert ((predicted.accuracy >= 0) & (predicted.accuracy <= 1)).all()


def test_rows_of_one_network_are_taken_out(features, model):
    whole, part = (arrays(each) for each in (model.predict(features[:9]),
                                             model.predict(features[:9]).rows(2, 5)))  # fmt: skip
    for name, values in part.items():
        assert (values == whole[name][2:5]).all()


def test_other_output_rates_leave_the_rest(features, model):
    before = model.predict(features[:4])
    after = arrays(before.with_output(np.full(4, 0.25)))
    assert (after.pop("output_rate") == 0.25).all()
    assert all((values == arrays(before)[name]).all() for name, values in after.items())


def test_rates_and_their_log_odds_are_each_others_inverse():
    rates = np.array([0.0, RATE_FLOOR, 0.2, 0.5, 0.9, 1.0])
    again = logistic(logit(rates))
    np.testing.assert_allclose(again, np.clip(rates, RATE_FLOOR, 1 - RATE_FLOOR))
    assert logit(np.array([0.5]))[0] == 0
    extremes = logistic(np.array([-1e308, -800.0, 800.0, 1e308]))  # overflows nowhere
    np.testing.assert_allclose(extremes, [0, 0, 1, 1], atol=1e-200)


def test_an_accuracy_that_may_be_perfect_or_none_says_so():
    expected = np.array([0.5, 0.98, 0.02, 0.9999])
    middle, low, high = accuracy_interval(expected, np.array([1.0, 4.0, 4.0, 0.1]))
    assert middle == pytest.approx([0.5, 0.98, 0.02, 0.999])
    assert (high[1], low[2], high[3]) == (1.0, 0.0, 1.0)
    assert low[0] == pytest.approx(1 - high[0])
    assert low[0] == pytest.approx(logistic(-1.0))
    assert 0 < low[1] < 0.98
    assert accuracy_interval(np.array([1.0]), 0.0)[2] == 1.0
