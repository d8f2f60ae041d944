from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import synthetic_train_events

from spikemeter.config import load_config
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.comparison import compared, spread_over
from spikemeter.predictor.differences import read_calibrated
from spikemeter.predictor.explanation import explain_latency, feeding_layers, knob_importance

pytest.importorskip("shap")

CONTENT = {
    "dataset": "digits-saccade",
    "network": "8C3-MP2-12C3-MP2-10",
    "input": {"height": 12, "width": 12},
}
SPACE = {
    "base": CONTENT,
    "vary": {
        "neuron.beta": {"low": 0.5, "high": 0.95},
        "neuron.threshold": [0.5, 1.0, 1.5],
        "surrogate.slope": [5, 25],
    },
    "runs": 40,
}


@pytest.fixture(scope="module")
def shipped() -> LatencyPredictor:
    return LatencyPredictor.default()


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def whole(told):
    """One configuration, against the calibrated ways to train."""
    return explain_latency(CONTENT, progress=lambda *step: told.append(step))


@pytest.fixture(scope="module")
def of_space():
    return explain_latency(space=SPACE)


@pytest.fixture(scope="module")
def overall(predictor):
    """Neither configuration nor space, of a small predictor."""
    return explain_latency(predictor=predictor)


def test_a_configuration_is_explained_by_other_ways_to_train_it(shipped, whole):
    assert whole.config == load_config(CONTENT)
    assert whole.chosen is None
    assert "608 ways to train" in whole.scope
    assert {knob.name for knob in whole.local.knobs} == {
        "neuron", "neuron.beta", "neuron.threshold", "neuron.reset", "surrogate",
        "training.epochs", "training.lr", "training.batch_size", "training.weight_bits",
        "training.batch_norm", "training.dropout",
    }  # fmt: skip
    estimate = shipped.estimate(CONTENT)
    assert whole.estimate.to_dict() == estimate.to_dict()
    assert whole.local.predicted[0] == pytest.approx(math.log(estimate.cycles), abs=1e-9)
    assert whole.local_sparsity.layers == tuple(layer.name for layer in estimate.layers)


def test_attributions_add_up(whole, of_space, overall):
    for explanation in (whole, of_space, overall):
        for found in (explanation.local, explanation.cycles):
            shap = found.explanation()
            total = shap.base_values + shap.values.sum(axis=1)
            np.testing.assert_allclose(total, found.predicted, rtol=0, atol=1e-9)
        assert explanation.local.knobs == explanation.cycles.knobs
        # Spread over predicted cycles, some stand for all.
        assert explanation.cycles.base == pytest.approx(explanation.local.base, abs=0.06)


def test_layers_share_the_difference_of_their_cycles(whole):
    layers = [layer.cycles for layer in whole.estimate.layers]
    assert whole.layer_cycles.shape == (3, len(whole.local.knobs))
    np.testing.assert_allclose(whole.layer_base + whole.layer_cycles.sum(axis=1), layers, rtol=1e-9)


def test_errors_of_sampling_are_small_beside_what_they_are_of(whole):
    values = np.abs(whole.local.explanation().values).max()
    assert 0 < whole.local.errors.max() < 0.05 * values


def test_importance_and_changes_come_with_intervals(whole):
    ranked = whole.cycles.importance(whole.estimate.confidence)
    assert ranked["knob"].iloc[0] in ("neuron.threshold", "training.batch_norm", "neuron")
    assert (ranked["low"] <= ranked["high"]).all()
    assert len(whole.changes) <= 5
    assert whole.changes_note
    first, second = whole.planes
    assert (len(first), len(second)) == (1, 2)


def test_progress_names_each_step_and_ends_each(told, whole):
    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert steps == ["what is known", "cycles", "sparsity", "changes and maps"]
    last = {step: (done, total) for step, done, total in told}
    assert all(done == total for done, total in last.values())


def test_a_space_is_explained_by_its_points_and_its_median(of_space):
    assert of_space.scope == "40 configurations of the space."
    assert "point of the space whose predicted cycles are the median" in of_space.chosen
    cycles = np.exp(of_space.cycles.predicted)
    assert of_space.estimate.cycles == pytest.approx(np.sort(cycles)[19], rel=1e-9)
    knobs = {"neuron.beta", "neuron.threshold", "surrogate.slope"}
    assert {knob.name for knob in of_space.cycles.knobs} == knobs
    assert {change.knob for change in of_space.changes} <= {*knobs, "surrogate"}
    assert of_space.warnings == ()
    assert of_space.layer_cycles is not None


def test_without_both_the_calibrated_runs_are_explained_as_they_are(overall):
    assert "calibrated configuration whose predicted cycles are the median" in overall.chosen
    names = {knob.name for knob in overall.cycles.knobs}
    assert {"network", "input.time_steps", "neuron.threshold"} <= names
    assert overall.layer_cycles is None
    assert overall.layer_base is None
    assert overall.sparsity.layers[0] == "layer 0"


def test_points_outside_the_domain_are_counted_with_their_knobs(shipped):
    vary = {"neuron.threshold": [1.0, 40.0], "training.lr": [1e-3, 9.0]}
    space = {"base": CONTENT, "vary": vary, "sampler": "grid"}
    (warning,) = explain_latency(space=space).warnings
    assert warning.startswith("space: 3 of 4 configurations lie outside the calibrated domain, by ")
    assert "neuron.threshold (2)" in warning
    assert "training.lr (2)" in warning


def test_points_that_are_no_configurations_are_left_out_and_said(shipped):
    vary = {"neuron.beta": [0.05, 0.5, 0.9], "neuron.model": ["lif", "lapicque"]}
    space = {"base": CONTENT, "vary": vary, "sampler": "grid"}
    found = explain_latency(space=space)
    assert found.scope == "5 configurations of the space."
    assert found.warnings[0].startswith(
        "space: 1 of 6 points are no valid configurations and are left out; the first: neuron.beta"
    )


def test_what_is_not_known_is_said(whole, overall):
    said = " ".join(whole.unknowns)
    assert "10% in cycles" in said
    assert "training.loss, training.population" in said
    new = explain_latency({**CONTENT, "network": "10C3-MP2-10"}, space=_thresholds("10C3-MP2-10"))
    assert any("none of the calibrated ones" in sentence for sentence in new.unknowns)
    outside = explain_latency(
        {**CONTENT, "neuron": {"threshold": 30.0}}, space=_thresholds(CONTENT["network"])
    )
    assert outside.unknowns[: len(outside.estimate.warnings)] == outside.estimate.warnings
    assert outside.estimate.warnings


def test_knobs_that_go_together_in_a_space_are_named():
    space = {
        "base": CONTENT,
        "vary": {
            "both": [
                {"neuron.beta": 0.5, "neuron.threshold": 0.5},
                {"neuron.beta": 0.7, "neuron.threshold": 1.0},
                {"neuron.beta": 0.9, "neuron.threshold": 1.5},
            ],
            "training.lr": {"low": 1e-3, "high": 1e-2, "log": True},
        },
        "runs": 120,
    }
    found = explain_latency(space=space)
    assert found.correlated.iloc[0, :2].tolist() == ["neuron.beta", "neuron.threshold"]
    assert any("neuron.beta and neuron.threshold (1.00)" in text for text in found.unknowns)


def test_known_spikes_are_not_used_and_that_is_said(tmp_path):
    (tmp_path / "config.yaml").write_text(load_config(CONTENT).to_yaml())
    (tmp_path / "trace.npz").write_bytes(b"")
    found = explain_latency(tmp_path, space=_thresholds(CONTENT["network"]))
    assert found.estimate.fidelity == "hyperparameters"
    assert "The spikes of this configuration are known, but not used here." in found.unknowns


def test_everything_is_plain_json(whole, overall):
    for explanation in (whole, overall):
        text = json.dumps(explanation.to_dict(), allow_nan=False)
        content = json.loads(text)
        assert len(text) < 2_000_000
        assert content["config"]["network"] == explanation.config.network
        assert len(content["local"]["values"][0]) == len(content["local"]["knobs"])
        assert len(content["runs"]) == len(explanation.runs)
    assert len(whole.to_dict()["planes"][1]) == 2


def test_the_same_seed_explains_the_same():
    first, second, other = (
        explain_latency(space=_thresholds("8C3-MP2-10"), seed=seed).to_dict()["cycles"]
        for seed in (3, 3, 4)
    )
    assert first == second
    assert first["values"] != other["values"]


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"source": {"network": "10"}}, ConfigError, "dataset: required"),
        ({"source": {**CONTENT, "dataset": "shd"}}, InputError, "shd"),
        ({"source": CONTENT, "confidence": 2}, PredictorError, "confidence: must be above 0"),
        ({"source": CONTENT, "seed": -1}, InputError, "seed: must be a whole number, 0 or more"),
        ({"space": {"vary": {}}}, ConfigError, "base: required"),
        ({"space": {"base": CONTENT}}, InputError, "give a space that varies some key"),
        (
            {"space": {"base": CONTENT, "vary": {"training.seed": [0, 1]}, "sampler": "grid"}},
            InputError,
            "differ in what predictions read",
        ),
        (
            {"space": {"base": CONTENT, "vary": {"neuron.beta": [7, 8]}, "sampler": "grid"}},
            ConfigError,
            "no point is a valid configuration; the first: neuron.beta",
        ),
        ({"source": Path("nowhere.yaml")}, ConfigError, "cannot read the configuration"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_sentence(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        explain_latency(**arguments)


def test_statistics_of_private_data_are_kept(shipped):
    private = {
        "network": "8C3-MP2-10",
        "input": {"time_steps": 4, "statistics": [[20.0, 25.0]] * 4},
    }
    found = explain_latency(private)
    assert found.estimate.cycles == pytest.approx(shipped.estimate(private).cycles)
    assert found.local.predicted[0] == pytest.approx(math.log(found.estimate.cycles), abs=1e-9)
    assert "data set" in found.unknowns[0]


def test_statistics_beside_a_data_set_are_those_that_are_explained(shipped):
    content = {**CONTENT, "input": {"time_steps": 4, "statistics": [[90.0, 80.0]] * 4}}
    found = explain_latency(content)
    assert found.local.predicted[0] == pytest.approx(math.log(found.estimate.cycles), abs=1e-9)
    assert found.estimate.cycles != pytest.approx(shipped.estimate(CONTENT).cycles, rel=0.05)
    for change in found.changes:
        share = change.estimate.cycles / found.estimate.cycles - 1
        assert change.cycles == pytest.approx(share)


def test_large_grids_are_drawn_from_all_over(shipped):
    runs = read_calibrated(shipped, 0.9)
    vary = {
        "neuron.threshold": [round(0.5 + 0.01 * n, 2) for n in range(100)],
        "neuron.beta": [round(0.5 + 0.004 * n, 3) for n in range(100)],
        "training.lr": [1e-3, 2e-3],
    }
    space = {"base": CONTENT, "vary": vary, "sampler": "grid"}
    found = compared(None, space, shipped, runs, confidence=0.9, seed=0)
    assert 240 <= len(found.background) <= 256
    thresholds = [config.neuron.threshold for config in found.background]
    assert min(thresholds) < 0.55
    assert max(thresholds) > 1.4


def test_a_choice_spread_over_values_has_their_mean():
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=600)
    chosen = [spread_over(values, 64, rng) for _ in range(50)]
    assert all(len(set(each.tolist())) == 64 for each in chosen)
    means = [values[each].mean() for each in chosen]
    at_random = [values[rng.choice(600, 64, replace=False)].mean() for _ in range(50)]
    assert np.std(means) < 0.5 * np.std(at_random)
    assert spread_over(values, 999, rng).tolist() == list(range(600))


def test_the_knobs_that_made_the_rates_come_first(predictor):
    table = knob_importance(predictor)
    assert list(table.columns) == ["knob", "mean_abs_shap"]
    assert table["mean_abs_shap"].is_monotonic_decreasing
    assert set(table["knob"][:3]) == {"network", "surrogate", "neuron.threshold"}
    # Nothing varied there, so nothing can be said of them.
    of = dict(zip(table["knob"], table["mean_abs_shap"], strict=True))
    assert not {"training.weight_bits", "training.epochs"} & set(of)  # they move nothing


def test_layers_that_feed_others_are_explained(predictor, table):
    found = feeding_layers(predictor, table)
    names = predictor.parts.domain.feature_names
    assert len(found.data) == sum(len(rates) - 1 for rates in table["layers.output_rate"])
    assert (found.data[:, names.index("layer.position_from_output")] > 0).all()
    density = found.data[:, names.index("input.density")]
    expected = [synthetic_train_events(steps).mean() / 256 for steps in (6, 8)]
    np.testing.assert_allclose(np.unique(density), sorted(expected), rtol=1e-6)


def test_a_network_of_one_layer_is_explained_by_that(predictor, table):
    found = feeding_layers(
        predictor, table[:2].assign(network="10", **{"hardware.neural_cores": None})
    )
    assert found.layers == ("0:10",)
    assert found.point.tolist() == [0, 1]


def test_other_rows_can_be_explained(predictor, table):
    some = knob_importance(predictor, table[:4])
    assert not some.equals(knob_importance(predictor))
    with pytest.raises(InputError, match="at least one configuration"):
        knob_importance(predictor, table[:0])


def _thresholds(network):
    vary = {
        "neuron.threshold": [0.5, 1.0, 1.5],
        "neuron.beta": [0.6, 0.9],
        "surrogate.slope": [5, 25],
    }
    return {"base": {**CONTENT, "network": network}, "vary": vary, "sampler": "grid"}
