from __future__ import annotations

import numpy as np
import pytest

from spikemeter.predictor.features import POOL_COLUMN
from spikemeter.predictor.sparsity import (
    RATE_FLOOR,
    fit_sparsity,
    load_booster,
    sparsity_model,
)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 12)).astype(np.float32)
    features[:, POOL_COLUMN] = rng.choice([1, 2, 4], 200)
    firing = 1 / (1 + np.exp(2 - features[:, 0]))
    output = np.minimum(firing * features[:, POOL_COLUMN], 0.99)
    return features, firing, output


@pytest.fixture(scope="module")
def model(rows):
    return fit_sparsity(*rows)


def test_a_few_rows_are_predicted_as_xgboost_does(rows, model):
    features = rows[0]
    together = model.rates(features)
    for start in range(0, len(features), 40):
        few = model.rates(features[start : start + 40])
        for ours, theirs in zip(few, together, strict=True):
            np.testing.assert_allclose(ours, theirs[start : start + 40], rtol=2e-5)


def test_rates_are_learned(rows, model):
    features, firing, output = rows
    predicted_firing, predicted_output = model.rates(features)
    assert np.corrcoef(predicted_firing, firing)[0, 1] > 0.97
    assert np.corrcoef(predicted_output, output)[0, 1] > 0.95


def test_rates_agree_with_pooling(rows, model):
    pool = rows[0][:, POOL_COLUMN]
    firing, output = model.rates(rows[0])
    assert (firing[pool == 1] == output[pool == 1]).all()
    assert (firing <= output).all()
    assert (firing >= np.maximum(output / pool**2, RATE_FLOOR) * (1 - 1e-6)).all()
    assert output.max() <= 1
    assert output.min() >= RATE_FLOOR


def test_silent_layers_meet_the_floor(rows):
    features = rows[0]
    zero = np.zeros(len(features))
    firing, output = fit_sparsity(features, zero, zero).rates(features)
    np.testing.assert_allclose(firing, RATE_FLOOR, rtol=1e-3)
    np.testing.assert_allclose(output, RATE_FLOOR, rtol=1e-3)


def test_the_same_rows_give_the_same_bytes(rows, model):
    assert fit_sparsity(*rows).save() == model.save()


def test_a_saved_model_predicts_the_same(rows, model):
    firing, output = (load_booster(content) for content in model.save())
    again = sparsity_model(firing, output)
    for ours, theirs in zip(again.rates(rows[0][:9]), model.rates(rows[0][:9]), strict=True):
        assert (ours == theirs).all()


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(ValueError, match="XGBoost cannot read it"):
        load_booster(b"{}nonsense")


def test_trees_of_another_depth_are_refused(rows):
    import xgboost

    deep = xgboost.train(
        {"max_depth": 6, "nthread": 1, "min_child_weight": 0},
        xgboost.DMatrix(rows[0], label=np.random.default_rng(1).normal(size=200)),
        num_boost_round=2,
    )
    with pytest.raises(ValueError, match="deeper than 3"):
        sparsity_model(deep, deep)
