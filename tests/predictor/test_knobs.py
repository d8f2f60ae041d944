from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikemeter.config import load_config
from spikemeter.predictor.features import config_from_row
from spikemeter.predictor.knobs import Knob, associations, display_values, frame_of, knobs_of

BASE = {"dataset": "digits-saccade", "network": "8C3-MP2-10"}


def configs(*changes):
    return [load_config({**BASE, **change}) for change in changes]


def knobs(*changes):
    return {knob.name: knob.keys for knob in knobs_of(frame_of(configs(*changes)))}


def test_only_knobs_that_vary_are_listed():
    assert knobs({}, {"neuron": {"beta": 0.5}}) == {"neuron.beta": ("neuron.beta",)}
    assert knobs({}, {}) == {}


def test_what_no_prediction_reads_is_no_knob():
    other = {
        "training": {"seed": 3, "patience": 2, "precision": "mixed"},
        "hardware": {"clock_mhz": 200, "membrane_bits": 24},
    }
    assert knobs({}, other) == {}


def test_a_slope_goes_with_its_surrogate():
    found = knobs({}, {"surrogate": {"name": "atan", "slope": 2}})
    assert found == {"surrogate": ("surrogate.name", "surrogate.slope")}
    found = knobs({}, {"surrogate": {"slope": 5}})
    assert found == {"surrogate.slope": ("surrogate.slope",)}
    found = knobs({}, {"surrogate": {"width": 0.1}})
    assert found == {"surrogate": ("surrogate.slope", "surrogate.width")}


def test_cores_and_population_go_with_the_network():
    found = knobs({}, {"network": "16C3-MP2-20", "training": {"population": 2}})
    assert found == {"network": ("network", "training.population", "hardware.neural_cores")}
    found = knobs({}, {"hardware": {"neural_cores": [4, 4]}})
    assert found == {"hardware.neural_cores": ("hardware.neural_cores",)}


def test_the_frame_goes_with_the_data_set_but_steps_are_free():
    small = {"dataset": "fashion-saccade", "input": {"height": 12, "width": 12, "time_steps": 4}}
    found = knobs({}, small)
    assert found["dataset"] == ("dataset", "input.height", "input.width")
    assert found["input.time_steps"] == ("input.time_steps",)


def test_statistics_take_their_steps_with_them():
    private = [
        {
            "dataset": None,
            "input": {"time_steps": steps, "statistics": [[3.0, 4.0]] * steps},
        }
        for steps in (4, 6)
    ]
    assert knobs(*private) == {"input": ("input.time_steps", "input.statistics")}


def test_beta_goes_with_the_model_only_where_another_model_refuses_it():
    lapicque = {"neuron": {"model": "lapicque", "beta": 0.5}}
    assert set(knobs(lapicque, {"neuron": {"beta": 0.3}})) == {"neuron.model", "neuron.beta"}
    found = knobs(lapicque, {"neuron": {"beta": 0.05}})  # no Lapicque neuron decays like that
    assert found == {"neuron": ("neuron.model", "neuron.beta")}
    found = knobs(lapicque, {"neuron": {"model": "lapicque", "R": 2.0, "C": 4.0}})
    assert found == {"neuron": ("neuron.beta", "neuron.R", "neuron.C")}


def test_reset_goes_with_the_model_only_where_another_model_refuses_it():
    both = {"neuron": {"model": "lapicque", "match": "both"}}
    found = knobs(both, {"neuron": {"reset": "zero"}})
    assert found == {"neuron": ("neuron.model", "neuron.match", "neuron.reset")}
    decay = {"neuron": {"model": "lapicque", "match": "decay"}}
    assert "neuron.reset" in knobs(decay, {"neuron": {"reset": "zero"}})


def test_a_data_set_goes_with_the_network_where_they_do_not_fit_each_other():
    deep = {"network": "8C3-MP4-8C3-MP4-10"}
    small = {"input": {"height": 8, "width": 8}}
    assert set(knobs({}, small, {"network": "12C3-MP2-10"})) == {"network", "input"}
    found = knobs(small, deep)  # no pixel of an 8 x 8 frame is left
    assert found == {"network": ("network", "input.height", "input.width", "hardware.neural_cores")}


def test_hardware_of_several_machines_goes_with_the_network():
    published = {"hardware": {"backend": "published", "encoder_width": 64}}
    pipelined = {"hardware": {"schedule": "step_pipelined"}}
    found = knobs(published, pipelined)
    assert found == {
        "hardware": ("hardware.backend", "hardware.encoder_width", "hardware.schedule")
    }


NEURONS = st.sampled_from(
    [
        {"beta": 0.05},
        {"beta": 1.0, "reset": "zero"},
        {"beta": 0.9, "threshold": 2.0},
        {"model": "lapicque", "beta": 0.14},
        {"model": "lapicque", "beta": 0.6, "match": "decay", "reset": "zero"},
        {"model": "lapicque", "beta": 0.9, "match": "both"},
        {"model": "lapicque", "R": 3.0, "C": 2.0, "reset": "zero"},
    ]
)
SURROGATES = st.sampled_from(
    [
        {},
        {"name": "atan", "width": 0.3},
        {"name": "spike_rate_escape", "slope": 4, "width": 0.5},
        {"name": "sso"},
        {"name": "straight_through"},
    ]
)
PLACES = st.sampled_from(
    [
        {},
        {"dataset": "fashion-saccade", "input": {"height": 12, "width": 12}},
        {"network": "4C3-MP4-4C3-MP4-10", "hardware": {"neural_cores": [1, 2, 3]}},
        {"network": "16C3-MP2-20", "training": {"population": 2}},
        {"input": {"height": 8, "width": 8, "time_steps": 4}},
        {"hardware": {"backend": "published"}},
        {"hardware": {"schedule": "step_pipelined", "encoder_width": 8}},
        {"input": {"channels": 1, "encoding": "rate", "gain": 0.5}},
        {
            "dataset": None,
            "input": {"time_steps": 3, "statistics": [[1.0, 2.0]] * 3},
        },
    ]
)


@given(st.lists(st.tuples(NEURONS, SURROGATES, PLACES), min_size=2, max_size=5), st.data())
@settings(max_examples=150, deadline=None)
def test_every_mix_of_knobs_is_a_configuration(parts, data):
    frame = frame_of(
        [
            load_config({**BASE, "neuron": neuron, "surrogate": surrogate, **place})
            for neuron, surrogate, place in parts
        ]
    )
    rows = frame.to_dict("records")
    mixed = dict(rows[0])
    for knob in knobs_of(frame):
        source = rows[data.draw(st.integers(0, len(rows) - 1))]
        mixed |= {key: source[key] for key in knob.keys}
    config_from_row(mixed)


def test_a_frame_gives_its_configurations_back():
    given_ = configs(
        {},
        {"neuron": {"model": "lapicque", "R": 2.0, "C": 3.0}, "surrogate": {"width": 0.1}},
        {"dataset": None, "input": {"time_steps": 2, "statistics": [[1.0, 2.0], [3.0, 4.0]]}},
    )
    for config, row in zip(given_, frame_of(given_).to_dict("records"), strict=True):
        cores = {"neural_cores": config.neural_cores}
        resolved = config.model_dump() | {"hardware": config.hardware.model_dump() | cores}
        assert config_from_row(row) == load_config(resolved)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"surrogate": {"name": "atan", "slope": 2}}, ["fast_sigmoid 25", "atan 2"]),
        ({"surrogate": {"name": "atan", "width": 0.25}}, ["fast_sigmoid 25", "atan width 0.25"]),
        ({"neuron": {"model": "lapicque", "match": "decay"}}, ["lif", "lapicque decay"]),
        ({"training": {"batch_norm": False}}, ["true", "false"]),
        ({"network": "4C3-10"}, ["8C3-MP2-10 [2 10]", "4C3-10 [1 10]"]),
        (
            {"dataset": "fashion-saccade", "input": {"height": 12, "width": 12}},
            ["digits-saccade 16x16", "fashion-saccade 12x12"],
        ),
    ],
)
def test_knobs_of_several_keys_are_said_in_a_short_text(change, texts):
    frame = frame_of(configs({}, change))
    (knob,) = knobs_of(frame)
    assert list(display_values(frame, [knob])[knob.name]) == texts


def test_numbers_are_shown_as_numbers():
    frame = frame_of(configs({}, {"training": {"epochs": 3}}))
    shown = display_values(frame, knobs_of(frame))["training.epochs"]
    assert shown.dtype == np.float64
    assert list(shown) == [10, 3]


def associated(size, seed=0):
    """A number, another that follows from it, a name that does, and two that stand apart."""
    rng = np.random.default_rng(seed)
    beta = rng.uniform(0.3, 1, size)
    apart = rng.uniform(0.3, 2, size)
    return pd.DataFrame(
        {
            "neuron.beta": beta,
            "training.lr": beta**3 + 0.05 * rng.normal(size=size),
            "neuron.reset": np.where(beta > 0.6, "zero", "subtract"),
            "training.loss": np.where(beta + 0.2 * rng.normal(size=size) > 0.6, "a", "b"),
            "neuron.threshold": apart,
            "surrogate.name": rng.choice([f"name{number}" for number in range(6)], size),
        }
    )


def test_knobs_that_go_together_are_found_whatever_they_are():
    frame = associated(300)
    found = associations(frame, [Knob(name=key, keys=(key,)) for key in frame.columns])
    pairs = {frozenset(pair) for pair in found[["first", "second"]].itertuples(index=False)}
    together = ["neuron.beta", "training.lr", "neuron.reset", "training.loss"]
    assert pairs == {frozenset((a, b)) for a in together for b in together if a != b}
    assert found["strength"].between(0.3, 1).all()
    assert found["strength"].is_monotonic_decreasing


def test_independent_knobs_of_a_small_sample_are_not_said_to_go_together():
    # Without a correction, names of six sorts among 30 rows would seem to go with anything.
    columns = ["neuron.threshold", "surrogate.name", "neuron.beta"]
    found = []
    for seed in range(40):
        frame = associated(30, seed)[columns]
        names = frame.assign(other=np.random.default_rng(seed + 99).permutation(frame.iloc[:, 1]))
        found.append(
            len(associations(names, [Knob(name=key, keys=(key,)) for key in names.columns]))
        )
    assert np.mean(found) < 0.15  # of six pairs


def test_a_knob_that_only_the_explained_configuration_turns_goes_with_nothing():
    frame = pd.DataFrame({"neuron.beta": [0.5, 0.5, 0.5], "training.lr": [0.1, 0.2, 0.3]})
    assert associations(frame, [Knob(name=key, keys=(key,)) for key in frame.columns]).empty
