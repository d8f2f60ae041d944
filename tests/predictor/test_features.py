from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import random_content

from spikemeter.config import load_config
from spikemeter.errors import ConfigError
from spikemeter.predictor.features import (
    FLAT_KEYS,
    POOL_COLUMN,
    categories_of,
    config_from_row,
    feature_names,
    group_key,
    knob_of,
    layer_features,
    row_from_config,
)

BASE = {"dataset": "nmnist-saccade", "network": "8C3-MP2-16-10"}


@pytest.mark.parametrize("seed", range(5))
def test_a_row_of_a_table_gives_back_its_configuration(seed):
    config = load_config(random_content(np.random.default_rng(seed)))
    row = row_from_config(config)
    assert tuple(row) == FLAT_KEYS
    again = config_from_row(row)
    assert row_from_config(again) == row
    assert again.layers == config.layers
    assert again.neural_cores == config.neural_cores


def test_a_row_survives_pandas_and_its_empty_cells():
    config = load_config({**BASE, "neuron": {"beta": 0.5}})
    other = load_config({**BASE, "network": "10"})
    frame = pd.DataFrame(
        [row_from_config(config), row_from_config(other) | {"training.epochs": None}]
    )
    first, second = (config_from_row(row) for row in frame.to_dict("records"))
    assert first.neuron.beta == 0.5
    assert first.hardware.neural_cores == (2, 16, 10)
    assert second.training.epochs == 10


def test_a_row_without_a_data_set_takes_its_events_as_statistics():
    row = {"network": "4", "input.time_steps": 2, "input.events": np.array([1.0, 2.0, 3.0, 4.0])}
    assert config_from_row(row).input.statistics == ((1.0, 2.0), (3.0, 4.0))


def test_an_impossible_value_in_a_row_is_refused_by_its_key():
    with pytest.raises(ConfigError, match=r"neuron\.beta"):
        config_from_row({**BASE, "neuron.beta": 1.5})


def columns(content, events=None):
    """Features of a configuration by name, one list over its layers for each."""
    config = load_config(content)
    categories = categories_of([config])
    if events is None:
        events = np.full((config.input.time_steps, config.input.channels), 12.8)
    names, rows = feature_names(categories), layer_features(config, events, categories)
    assert rows.shape == (len(config.layers), len(names))
    assert rows.dtype == np.float32
    return {name: rows[:, index].tolist() for index, name in enumerate(names)}


def test_every_layer_has_one_row_of_its_own_sizes():
    column = columns({**BASE, "neuron": {"beta": 0.7}})
    assert column["layer.fan_in"] == [18, 8 * 64, 16]
    assert column["layer.channels"] == [8, 16, 10]
    assert column["layer.neurons"] == [8 * 256, 16, 10]
    assert column["layer.kernel"] == [3, 1, 1]
    assert column["layer.pool"] == [2, 1, 1]
    assert column["layer.is_dense"] == [0, 1, 1]
    assert column["layer.position"] == [0, 1, 2]
    assert column["layer.position_from_output"] == [2, 1, 0]
    assert column["neuron.beta"] == pytest.approx([0.7] * 3)
    assert column["surrogate.name=fast_sigmoid"] == [1, 1, 1]


def test_pooling_is_found_where_it_is_looked_for():
    rows = layer_features(load_config(BASE), np.ones((8, 2)), categories_of([load_config(BASE)]))
    assert rows[:, POOL_COLUMN].tolist() == [2, 1, 1]


def test_input_is_told_by_how_much_when_and_how_unevenly():
    even = columns(BASE)
    assert even["input.density"] == pytest.approx([12.8 / 256] * 3)
    assert even["input.lateness"] == pytest.approx([0.5] * 3)
    assert even["input.unevenness"] == pytest.approx([0] * 3, abs=1e-6)
    late = np.zeros((8, 2))
    late[-2:] = [[30.0, 10.0], [10.0, 30.0]]  # all in the last two of eight steps
    found = columns(BASE, late)
    assert found["input.density"] == pytest.approx([80 / 16 / 256] * 3)
    assert found["input.lateness"] == pytest.approx([7 / 8] * 3)
    assert found["input.unevenness"] == pytest.approx([np.sqrt(3)] * 3)  # sd of 0, 0, 0, 1
    silent = columns(BASE, np.zeros((8, 2)))
    assert [silent[f"input.{name}"][0] for name in ("density", "lateness", "unevenness")] == [
        0, 0.5, 0,
    ]  # fmt: skip


def test_training_is_told_by_how_far_weights_can_travel():
    training = {"lr": 2e-3, "epochs": 12, "batch_size": 32, "weight_bits": 6, "dropout": 0.25}
    column = columns({**BASE, "training": training})
    assert column["training.travel"] == pytest.approx([2e-3 * 12 / 32] * 3)
    for name, value in training.items():
        assert column[f"training.{name}"] == pytest.approx([value] * 3)


def test_a_circuit_is_told_by_its_decay_and_drive():
    lif = columns({**BASE, "neuron": {"beta": 0.8, "threshold": 0.5}})
    assert lif["neuron.drive"] == pytest.approx([0.5] * 3)
    circuit = columns({**BASE, "neuron": {"model": "lapicque", "R": 2.0, "C": 5.0}})
    assert circuit["neuron.beta"] == pytest.approx([0.9] * 3)
    assert circuit["neuron.drive"] == pytest.approx([5.0] * 3)  # threshold over gain


@pytest.mark.parametrize(
    ("name", "slope"),
    [("fast_sigmoid", 25), ("fast_sigmoid", 0.5), ("atan", 2), ("sigmoid", 5), ("sigmoid", 0.2),
     ("triangular", 1.5), ("triangular", 0.4), ("spike_rate_escape", 3),
     ("straight_through", None)],
)  # fmt: skip
@pytest.mark.parametrize("threshold", [0.3, 1.0, 2.0])
def test_a_surrogate_is_told_by_the_gradients_that_training_uses(name, slope, threshold):
    torch = pytest.importorskip("torch")
    from spikemeter.models.surrogates import surrogate_gradient

    content = {
        **BASE,
        "surrogate": {"name": name} if slope is None else {"name": name, "slope": slope},
        "neuron": {"threshold": threshold},
    }
    x = torch.tensor([0.0, -threshold], dtype=torch.float64)
    expected = surrogate_gradient(load_config(content).surrogate)(torch.ones_like(x), x.clone())
    column = columns(content)
    found = [column["surrogate.height"][0], column["surrogate.at_rest"][0]]
    assert found == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_surrogate_of_noise_is_told_by_its_mean():
    column = columns({**BASE, "surrogate": {"name": "sso", "slope": 0.2}})
    assert column["surrogate.height"][0] == 1  # where it spikes
    assert column["surrogate.at_rest"][0] == 0


EXTREMES = {
    "neuron": {
        "beta": st.sampled_from([1e-6, 0.2, 0.5, 1 - 1e-12, 1.0]),
        "threshold": st.sampled_from([1e-6, 1.0, 100.0]),
    },
    "surrogate": {
        "name": st.sampled_from(["fast_sigmoid", "atan", "sigmoid", "triangular", "sso",
                                 "spike_rate_escape"]),
        "slope": st.sampled_from([1e-6, 1.0, 1e4]),
    },
    "training": {
        "lr": st.sampled_from([1e-9, 10.0]),
        "epochs": st.sampled_from([1, 10_000]),
        "batch_size": st.sampled_from([1, 65_536]),
    },
}  # fmt: skip


@given(st.fixed_dictionaries({key: st.fixed_dictionaries(of) for key, of in EXTREMES.items()}))
def test_features_are_finite_whatever_is_allowed(sections):
    for name, values in columns({**BASE, **sections}).items():
        assert np.isfinite(values).all(), name


@pytest.mark.parametrize(
    ("key", "value"),
    [("neuron.beta", 0.6), ("neuron.threshold", 0.7), ("neuron.reset", "zero"),
     ("surrogate.slope", 3.0), ("surrogate.name", "atan"), ("training.lr", 0.02),
     ("training.epochs", 3), ("training.batch_size", 16), ("training.weight_bits", 8),
     ("training.batch_norm", False), ("training.dropout", 0.3), ("training.loss", "ce_count"),
     ("training.population", 2)],
)  # fmt: skip
def test_every_knob_moves_features_and_those_name_it(key, value):
    section, inner = key.split(".")
    content = {**BASE, section: {inner: value}}
    if key == "training.population":
        content["network"] = "8C3-MP2-16-20"  # two neurons for each of ten classes
    configs = [load_config(BASE), load_config(content)]
    categories = categories_of(configs)
    names = feature_names(categories)
    before, after = (layer_features(each, np.ones((8, 2)), categories) for each in configs)
    moved = {names[column] for column in np.flatnonzero((before != after).any(axis=0))}
    assert moved
    assert key in {knob_of(name) for name in moved}


def test_an_unknown_name_belongs_to_no_category():
    config = load_config({**BASE, "surrogate": {"name": "atan", "slope": 2}})
    categories = categories_of([load_config(BASE)])
    rows = layer_features(config, np.ones((8, 2)), categories)
    assert (rows[:, feature_names(categories).index("surrogate.name=fast_sigmoid")] == 0).all()


def test_surrogates_of_matched_slope_have_one_width():
    atan = load_config({**BASE, "surrogate": {"name": "atan", "slope": 2}})
    matched = load_config({**BASE, "surrogate": {"name": "fast_sigmoid", "slope": 2 * 0.651}})
    assert matched.surrogate.half_width == pytest.approx(atan.surrogate.half_width, rel=1e-3)
    assert load_config(BASE).surrogate.half_width == pytest.approx(0.414 / 25, rel=1e-3)


def test_seeds_and_hardware_share_a_group_and_knobs_do_not():
    key = group_key(load_config(BASE))
    assert group_key(load_config({**BASE, "training": {"seed": 3}})) == key
    assert group_key(load_config({**BASE, "hardware": {"clock_mhz": 50}})) == key
    assert group_key(load_config({**BASE, "training": {"lr": 0.1}})) != key
    assert group_key(load_config({**BASE, "neuron": {"beta": 0.8}})) != key


def test_knobs_are_keys_of_the_configuration():
    names = feature_names(categories_of([load_config(BASE)]))
    assert {knob_of(name) for name in names} <= set(FLAT_KEYS)
