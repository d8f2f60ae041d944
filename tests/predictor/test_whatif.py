"""What the what-if panel gets; what it shows is held against Python in tests/browser."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from spikemeter import LatencyPredictor, predict_latency
from spikemeter.config import load_config
from spikemeter.predictor.report.controls import changed_config, known_steps, panel_controls
from spikemeter.predictor.report.whatif import (
    fallback_html,
    panel_model,
    panel_script,
    script_json,
)

HOSTILE = "</script><script>alert(1)</script><!-- & \u2028 \u2029"
CONFIG = load_config({"dataset": "nmnist-saccade", "network": "16C3-MP2-16C3-MP2-10"})


@pytest.fixture(scope="module")
def parts():
    return LatencyPredictor.default().parts


def controls_of(config, parts):
    """Controls by key; of those with one number for each layer the last."""
    return {control["key"]: control for control in panel_controls(config, parts)}


def changes_of(config, parts):
    """Every change that one control can make."""
    for control in panel_controls(config, parts):
        key, stops = control["key"], control["values"]
        if "by" in control:
            section, _, inner = control["by"].partition(".")
            stops = stops[getattr(getattr(config, section), inner)]
        for stop in stops:
            if "layer" in control:
                cores = list(config.neural_cores)
                cores[control["layer"]] = stop
                yield {key: cores}
            elif key == "surrogate.name":
                slope = controls_of(config, parts)["surrogate.slope"]["start"][stop]
                yield {key: stop, "surrogate.slope": slope}
            else:
                yield {key: stop}


@pytest.mark.parametrize("hostile", [HOSTILE, {HOSTILE: [HOSTILE]}])
def test_json_in_a_script_neither_ends_it_nor_opens_a_comment(hostile):
    text = script_json(hostile)
    assert json.loads(text) == hostile
    assert not set(text) & set("<>&\u2028\u2029")


def test_json_in_a_script_has_no_numbers_that_browsers_refuse():
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_a_model_is_json_whatever_its_data_set_is_called(parts):
    content = {"dataset": HOSTILE, "network": "8C3-MP2-10", "input": {"statistics": [[9, 4]] * 8}}
    model = panel_model(load_config(content), parts, 0.9)
    assert json.loads(script_json(model)) == model


def test_a_model_is_small(parts):
    assert len(script_json(panel_model(CONFIG, parts, 0.9))) < 2**18


def test_trees_are_those_of_the_predictor(parts):
    heads = panel_model(CONFIG, parts, 0.9)["heads"]
    assert list(heads) == list(parts.model.ensembles)
    for name, ensemble in parts.model.ensembles.items():
        for part, kind in (("feature", "<u2"), ("threshold", "<f4"), ("leaf", "<f4")):
            found = np.frombuffer(base64.b64decode(heads[name][part]), kind)
            np.testing.assert_array_equal(found, getattr(ensemble, part).reshape(-1))


def test_no_control_leaves_the_calibrated_domain(parts):
    changes = list(changes_of(CONFIG, parts))
    assert len(changes) > 150
    for change in changes:
        config = changed_config(CONFIG, change)
        assert config is not None, change
        assert predict_latency(config).in_domain, change


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("neuron.beta", {"neuron": {"beta": 0.123}}),
        ("neuron.threshold", {"neuron": {"threshold": 17.5}}),
        ("surrogate.slope", {"surrogate": {"slope": 777}}),
        ("surrogate.width", {"surrogate": {"name": "atan", "width": 0.0007}}),
        ("training.lr", {"training": {"lr": 0.123}}),
        ("training.batch_size", {"training": {"batch_size": 100}}),
        ("input.time_steps", {"input": {"time_steps": 5}}),
        ("hardware.encoder_width", {"hardware": {"encoder_width": 77}}),
        ("hardware.clock_mhz", {"hardware": {"clock_mhz": 123.4}}),
    ],
)
def test_a_value_of_its_own_is_a_stop_in_its_place(parts, key, sections):
    config = load_config({**CONFIG.model_dump(), **sections})
    section, _, inner = key.partition(".")
    control = controls_of(config, parts)[key]
    stops = control["values"]
    if "by" in control:
        stops = stops[controls_name(config, control["by"])]
    assert getattr(getattr(config, section), inner) in stops
    assert stops == sorted(set(stops))


def controls_name(config, key):
    section, _, inner = key.partition(".")
    return getattr(getattr(config, section), inner)


def test_the_range_of_beta_is_that_of_the_decay_under_each_model(parts):
    stops = controls_of(CONFIG, parts)["neuron.beta"]["values"]
    ranges = parts.domain.of_name["neuron.beta"]
    assert stops["lif"][0] == pytest.approx(ranges["lif"][0], abs=0.01)
    assert 1 + np.log(stops["lapicque"][0]) == pytest.approx(ranges["lapicque"][0], abs=0.02)


def test_a_width_stays_a_width_where_a_surrogate_has_one(parts):
    content = {**CONFIG.model_dump(), "surrogate": {"name": "atan", "width": 0.4}}
    controls = controls_of(load_config(content), parts)
    widths, slopes = (controls[f"surrogate.{key}"]["values"] for key in ("width", "slope"))
    assert {name for name, stops in widths.items() if stops} == set(widths) - {"spike_rate_escape"}
    assert {name for name, stops in slopes.items() if stops} == {"spike_rate_escape"}


@pytest.mark.parametrize(
    ("neuron", "models", "resets"),
    [
        ({}, ["lif", "lapicque"], ["subtract", "zero"]),
        ({"model": "lapicque", "match": "both"}, ["lif", "lapicque"], ["subtract"]),
        ({"model": "lapicque", "R": 2, "C": 4}, ["lif", "lapicque"], ["subtract", "zero"]),
    ],
)
def test_a_model_of_the_neuron_has_the_resets_that_it_can_have(parts, neuron, models, resets):
    config = load_config({**CONFIG.model_dump(), "neuron": neuron})
    controls = controls_of(config, parts)
    assert controls["neuron.model"]["values"] == models
    assert controls["neuron.reset"]["values"]["lapicque"] == resets
    assert controls["neuron.reset"]["values"]["lif"] == ["subtract", "zero"]


def test_a_model_is_offered_with_a_beta_that_it_can_have(parts):
    config = load_config({**CONFIG.model_dump(), "neuron": {"beta": 0.1}})
    beta = controls_of(config, parts)["neuron.beta"]
    assert 0.1 in beta["values"]["lif"]
    assert beta["start"]["lapicque"] == min(beta["values"]["lapicque"])


def test_names_that_no_configuration_has_are_not_offered(parts):
    names = {"surrogate.name": (HOSTILE, "atan"), "neuron.reset": ("subtract", "forget")}
    domain = replace(parts.domain, categories={**parts.domain.categories, **names})
    controls = controls_of(CONFIG, replace(parts, domain=domain))
    assert controls["surrogate.name"]["values"] == ["fast_sigmoid", "atan"]
    assert controls["neuron.reset"]["values"]["lif"] == ["subtract"]


def test_numbers_of_steps_are_those_that_were_measured(parts):
    dumped = CONFIG.model_dump()
    assert known_steps(CONFIG, parts) == [4, 8, 12, 16]
    other_frames = load_config({**dumped, "input": {"height": 18, "width": 18, "time_steps": 6}})
    assert known_steps(other_frames, parts) == [6]
    other_coding = load_config({"dataset": "digits-saccade", "network": "8C3-MP2-10"})
    assert known_steps(other_coding, parts) == [8]
    private = {**dumped, "input": {"statistics": [[3, 2]] * 7, "time_steps": 7}}
    assert known_steps(load_config(private), parts) == [7]


def test_cores_go_up_to_the_channels_that_they_own(parts):
    config = load_config({**CONFIG.model_dump(), "network": "2000-10"})
    cores = [
        control["values"]
        for control in panel_controls(config, parts)
        if control["key"] == "hardware.neural_cores"
    ]
    assert [values[-1] for values in cores] == [1024, 10]
    assert cores[1] == list(range(1, 11))


@pytest.mark.parametrize(
    ("hardware", "said"),
    [({"backend": "published"}, "'published'")],
)
def test_a_machine_that_the_panel_does_not_know_has_a_reason(parts, hardware, said):
    # Unchecked: an engine with other cores is none that a configuration may name today
    config = CONFIG.model_copy(update={"hardware": CONFIG.hardware.model_copy(update=hardware)})
    model = panel_model(config, parts, 0.9)
    assert list(model) == ["reason"]
    assert said in model["reason"]


def test_the_script_does_not_end_its_element():
    assert "</" not in panel_script()


def test_what_stands_in_for_the_panel_is_text_and_says_all_numbers():
    estimate = predict_latency(CONFIG)
    layers = (replace(estimate.layers[0], name=HOSTILE, firing_rate=None), *estimate.layers[1:])
    html = fallback_html(replace(estimate, layers=layers, interval_cycles=(1.0, 3e30)))
    assert "<script" not in html
    assert "&lt;/script&gt;" in html
    assert f"{estimate.microseconds:,.1f} µs" in html
    assert f"{100 * estimate.accuracy:.1f} %" in html
    assert "not known" in html
    assert "(1 to 3.00e+30)" in html
