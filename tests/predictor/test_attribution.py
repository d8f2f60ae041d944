"""Attributions of the shipped predictor: they add up, and are what they say they are."""

from __future__ import annotations

import time
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
import pytest

from spikemeter.config import load_config
from spikemeter.errors import InputError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.attribution import attribute_sparsity, bootstrapped
from spikemeter.predictor.chain import attribute_cycles
from spikemeter.predictor.columns import Asked, read_columns
from spikemeter.predictor.features import POOL_COLUMN, config_from_row
from spikemeter.predictor.knobs import frame_of, knobs_of
from spikemeter.predictor.many import cycles_of_many
from spikemeter.predictor.sparsity import HEADS, rate_of

pytest.importorskip("shap")
plt = pytest.importorskip("matplotlib.pyplot")

BASE = {
    "dataset": "digits-saccade",
    "network": "8C3-MP2-12C3-MP2-10",
    "input": {"height": 12, "width": 12},
}
VARIED = [
    {"neuron": {"beta": 0.5, "threshold": 0.4}},
    {"neuron": {"model": "lapicque", "beta": 0.6, "match": "decay", "threshold": 1.5}},
    {"surrogate": {"name": "atan", "slope": 2.0}, "neuron": {"threshold": 0.7}},
    {"training": {"batch_norm": False, "lr": 5e-3}, "neuron": {"beta": 0.95}},
    {"surrogate": {"name": "sigmoid", "slope": 4.0}, "training": {"lr": 1e-2}},
]


@pytest.fixture(scope="module")
def shipped() -> LatencyPredictor:
    return LatencyPredictor.default()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of([load_config({**BASE, **each}) for each in VARIED])


@pytest.fixture(scope="module")
def cycles(shipped, frame):
    background = np.arange(1, 5)
    return attribute_cycles(
        shipped.parts, frame, knobs_of(frame), np.array([0, 2]), background,
        rounds=64, rng=np.random.default_rng(0), by_layer=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def configs(shipped):
    rows = shipped.table().iloc[::30].to_dict("records")
    return [config_from_row(row) for row in rows]


@pytest.fixture(scope="module")
def sparsity(shipped, configs):
    return attribute_sparsity(shipped.parts, configs)


def shap_of(found):
    return found.explanation().values  # noqa: PD011


def test_cycles_add_up_to_the_prediction_less_the_mean_of_the_background(shipped, frame, cycles):
    found, _ = cycles
    logs = np.log(shipped.predict(frame)["cycles"].to_numpy())
    assert found.base == pytest.approx(logs[1:].mean(), abs=1e-12)
    np.testing.assert_allclose(found.predicted, logs[[0, 2]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        found.base + shap_of(found).sum(axis=1), found.predicted, rtol=0, atol=1e-9
    )


def test_cycles_are_those_of_all_coalitions_one_by_one(shipped, frame, cycles):
    found, _ = cycles
    rows, knobs = frame.to_dict("records"), found.knobs
    coalitions = [
        members
        for size in range(len(knobs) + 1)
        for members in combinations(range(len(knobs)), size)
    ]
    mixes = []
    for members in coalitions:
        for background in rows[1:]:
            turned = {key: rows[0][key] for knob in members for key in knobs[knob].keys}
            mixes.append(config_from_row({**background, **turned}))
    logs = np.log(shipped.predict(frame_of(mixes))["cycles"].to_numpy())
    value = dict(zip(coalitions, logs.reshape(len(coalitions), -1).mean(axis=1), strict=True))
    for knob in range(len(knobs)):
        exact = sum(
            factorial(len(members)) * factorial(len(knobs) - len(members) - 1)
            / factorial(len(knobs))
            * (value[tuple(sorted((*members, knob)))] - value[members])
            for members in coalitions
            if knob not in members
        )  # fmt: skip
        assert abs(shap_of(found)[0, knob] - exact) <= 4 * found.errors[0, knob] + 1e-12


def test_layers_add_up_to_their_own_cycles(shipped, frame, cycles):
    _, layers = cycles
    config = config_from_row(frame.iloc[0].to_dict())
    expected = [layer.cycles for layer in shipped.estimate(config).layers]
    np.testing.assert_allclose(layers.predicted[0], expected, rtol=1e-9)
    np.testing.assert_allclose(
        layers.base + layers.credit[0].sum(axis=0), expected, rtol=0, atol=1e-6
    )
    # What enters the first layer is the data set's, whatever is trained.
    assert np.abs(layers.credit[0, :, 0]).max() < 0.001 * layers.credit[0, :, 1].max()


SINGLE_PIXELS = {
    "dataset": None,
    "network": "6-10",
    "input": {"height": 1, "width": 1, "time_steps": 3, "statistics": [[1.0, 0.5]] * 3},
}


@pytest.mark.parametrize(
    "content",
    [
        BASE,
        {**BASE, "hardware": {"schedule": "step_pipelined"}},
        {**BASE, "hardware": {"backend": "published"}},
        {**BASE, "hardware": {"neural_cores": [3, 5, 2]}},
        {**SINGLE_PIXELS, "hardware": {"schedule": "step_pipelined"}},
    ],
)
def test_cycles_of_layers_in_bulk_are_those_of_single_estimates(shipped, content):
    configs = [load_config(content), load_config({**BASE, "network": "32-10"})]
    columns, numbers = read_columns(frame_of(configs)), np.arange(2)
    asked = Asked(rows=columns, hardware=columns, row=numbers, machine=numbers, names=range(2))
    cycles, of_layers = cycles_of_many(asked, shipped.parts)
    for number, config in enumerate(configs):
        estimate = shipped.estimate(config)
        assert cycles[number] == pytest.approx(estimate.cycles, rel=1e-9)
        expected = [_working(layer, config) for layer in estimate.layers]
        np.testing.assert_allclose(of_layers[number, : len(expected)], expected, rtol=1e-9)
        assert np.isnan(of_layers[number, len(expected) :]).all()


def _working(layer, config):
    """Cycles of a layer, but for those in which it waits for the one before."""
    if config.hardware.schedule == "layer_serial":
        return layer.cycles
    dispatch = config.input.time_steps
    return layer.cycles - layer.buckets["stall"] + dispatch


def test_knobs_that_do_not_go_together_are_refused_in_a_sentence(shipped):
    from spikemeter.predictor.knobs import Knob

    frame = frame_of([load_config(BASE), load_config({**BASE, "network": "16C3-10"})])
    torn = [
        Knob(name="network", keys=("network",)),
        Knob(name="cores", keys=("hardware.neural_cores",)),
    ]
    with pytest.raises(InputError, match=r"do not go together: hardware\.neural_cores: must name"):
        attribute_cycles(
            shipped.parts, frame, torn, np.array([0]), np.array([1]),
            rounds=2, rng=np.random.default_rng(0),
        )  # fmt: skip


def test_sparsity_is_that_of_the_head_that_the_next_layer_hears(shipped, sparsity):
    heads = shipped.parts.model.heads(sparsity.data)
    pooled = sparsity.data[:, POOL_COLUMN] != 1
    assert 0.2 < pooled.mean() < 0.8
    columns = np.where(pooled, HEADS.index("output"), HEADS.index("firing"))
    expected = heads[np.arange(len(heads)), columns]
    np.testing.assert_allclose(sparsity.predicted, expected)
    np.testing.assert_allclose(
        rate_of(sparsity.predicted), shipped.parts.model.predict(sparsity.data).output_rate
    )
    assert len(np.unique(sparsity.base)) == 2


def test_sparsity_adds_up_to_the_prediction_less_the_base_of_its_head(sparsity):
    total = sparsity.base + shap_of(sparsity).sum(axis=1)
    np.testing.assert_allclose(total, sparsity.predicted, rtol=0, atol=1e-4)


def test_sparsity_is_what_xgboost_says_of_its_own_trees(shipped, sparsity):
    import xgboost

    pooled = sparsity.data[:, POOL_COLUMN] != 1
    for head, rows in (("output", pooled), ("firing", ~pooled)):
        booster = shipped.parts.model.ensembles[head].booster()
        expected = booster.predict(xgboost.DMatrix(sparsity.data[rows]), pred_contribs=True)
        np.testing.assert_allclose(shap_of(sparsity)[rows], expected[:, :-1], atol=1e-4)


def test_every_layer_of_every_configuration_is_a_row(configs, sparsity):
    assert len(shap_of(sparsity)) == sum(len(config.layers) for config in configs)
    assert sparsity.layers == tuple(f"layer {n}" for n in range(max(sparsity.layer) + 1))
    for number, config in enumerate(configs):
        of_config = sparsity.layer[sparsity.point == number]
        assert of_config.tolist() == list(range(len(config.layers)))


def test_layers_of_one_network_have_its_names(shipped):
    config = load_config(BASE)
    found = attribute_sparsity(shipped.parts, [config, config], interactions=0)
    assert found.layers == ("0:8C3", "1:12C3", "2:10")
    assert found.top_pairs().empty


def test_interactions_add_up_to_values(sparsity):
    rows = sparsity.interaction_rows
    assert len(rows) == min(100, len(sparsity.data))
    np.testing.assert_allclose(
        sparsity.interactions.sum(axis=2), shap_of(sparsity)[rows], rtol=0, atol=1e-4
    )
    pairs = sparsity.top_pairs(3)
    assert len(pairs) == 3
    first = pairs.iloc[0]
    a, b = (sparsity.feature_names.index(first[key]) for key in ("first", "second"))
    both = sparsity.interactions[:, a, b] + sparsity.interactions[:, b, a]
    assert first["mean_abs"] == pytest.approx(np.abs(both).mean())
    assert pairs["mean_abs"].is_monotonic_decreasing


def test_features_of_one_knob_are_added_up(sparsity):
    names, values = sparsity.by_knob()
    np.testing.assert_allclose(values.sum(axis=1), shap_of(sparsity).sum(axis=1), atol=1e-9)
    slope = [
        number
        for number, name in enumerate(sparsity.feature_names)
        if name.startswith("surrogate.")
    ]
    np.testing.assert_allclose(
        values[:, names.index("surrogate")], shap_of(sparsity)[:, slope].sum(axis=1)
    )


def test_importance_comes_with_intervals_that_narrow_with_more_points(shipped, sparsity):
    ranked = sparsity.importance(0.9)
    assert ranked["mean_abs"].is_monotonic_decreasing
    assert ((ranked["low"] <= ranked["mean_abs"]) & (ranked["mean_abs"] <= ranked["high"])).all()
    assert ranked["knob"].iloc[0] == "neuron.threshold"
    wider = sparsity.importance(0.99)
    assert ((wider["high"] - wider["low"]) >= (ranked["high"] - ranked["low"])).all()
    per_layer = sparsity.per_layer()
    assert list(per_layer.index) == list(sparsity.layers)
    some = shap_of(sparsity)[sparsity.layer == 1]
    threshold = [
        number
        for number, name in enumerate(sparsity.feature_names)
        if name in ("neuron.threshold", "neuron.drive")
    ]
    expected = np.abs(some[:, threshold].sum(axis=1)).mean()
    assert per_layer.loc["layer 1", "neuron.threshold"] == pytest.approx(expected)


def test_resampling_keeps_the_rows_of_a_point_together():
    rng = np.random.default_rng(0)
    once = rng.exponential(size=(400, 1))
    mean, low, high = bootstrapped(once, np.arange(400), 0.9)
    assert mean[0] == pytest.approx(once.mean())
    expected = 2 * 1.645 * once.std() / 20
    assert high[0] - low[0] == pytest.approx(expected, rel=0.15)
    repeated = np.repeat(once, 9, axis=0)
    again = bootstrapped(repeated, np.repeat(np.arange(400), 9), 0.9)
    np.testing.assert_allclose(again, (mean, low, high))


def test_intervals_of_importance_hold_what_all_points_say():
    held = 0
    for seed in range(200):
        values = np.random.default_rng(seed).exponential(size=(60, 1))
        _, low, high = bootstrapped(values, np.arange(60), 0.9)
        held += low[0] <= 1.0 <= high[0]
    assert 165 <= held <= 195


def test_shaps_own_plots_take_explanations(cycles, sparsity):
    import shap

    found, _ = cycles
    for explanation in (found.explanation(), sparsity.explanation(), sparsity.explanation(0)):
        shap.plots.beeswarm(explanation, show=False)
        shap.plots.bar(explanation, show=False)
        plt.close("all")
        shap.plots.waterfall(explanation[0], show=False)
        plt.close("all")
    assert found.explanation().display_data[1].tolist()[-1] == "true"
    assert sparsity.explanation(0).shape == (len(set(sparsity.point)), len(sparsity.feature_names))
    with pytest.raises(InputError, match=r"layer: must be 0 to 5, got 6"):
        sparsity.explanation(6)


def test_an_importance_needs_a_confidence_that_is_one(sparsity):
    with pytest.raises(InputError, match="confidence: must be above 0 and below 1, got 90"):
        sparsity.importance(90)
    with pytest.raises(InputError, match="at least one configuration"):
        attribute_sparsity(LatencyPredictor.default().parts, [])


def test_ten_thousand_layers_are_explained_in_seconds(shipped, configs):
    many = configs * (10_000 // sum(len(config.layers) for config in configs))
    start = time.process_time()
    found = attribute_sparsity(shipped.parts, many, background=configs)
    assert len(shap_of(found)) > 9_900
    assert len(found.interactions) == 100
    assert time.process_time() - start < 20  # 7 s measured


def test_sparsity_is_compared_with_the_mean_over_the_background(shipped):
    content = {"dataset": "nmnist-saccade", "network": "8C3-MP2-16C3-MP2-10"}
    thresholds = [
        load_config({**content, "neuron": {"threshold": value}})
        for value in np.linspace(0.4, 1.9, 30)
    ]
    found = attribute_sparsity(shipped.parts, thresholds, background=thresholds)
    np.testing.assert_allclose(found.base + shap_of(found).sum(axis=1), found.predicted, atol=1e-5)
    for layer in range(3):
        of_layer = found.layer == layer
        assert found.base[of_layer] == pytest.approx(found.predicted[of_layer].mean(), abs=1e-5)
    # Nothing else varies, so nothing else has a share.
    assert found.by_knob()[0] == ("neuron.threshold", "surrogate")
    others = [
        number
        for number, name in enumerate(found.feature_names)
        if name not in ("neuron.threshold", "neuron.drive", "surrogate.at_rest")
    ]
    assert np.all(shap_of(found)[:, others] == 0)


def test_sparsity_of_several_networks_is_compared_with_all_layers_of_a_head(shipped, configs):
    found = attribute_sparsity(shipped.parts, configs, background=configs)
    np.testing.assert_allclose(found.base + shap_of(found).sum(axis=1), found.predicted, atol=1e-5)
    assert len(np.unique(found.base.round(9))) == 2
