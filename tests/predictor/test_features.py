from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import random_content

from spikemeter.config import load_config
from spikemeter.errors import ConfigError
from spikemeter.predictor.features import (
    FLAT_KEYS,
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


def test_every_layer_has_one_row_of_its_own_sizes():
    config = load_config({**BASE, "neuron": {"beta": 0.7}})
    categories = categories_of([config])
    names = feature_names(categories)
    rows = layer_features(config, np.full((8, 2), 12.8), categories)
    assert rows.shape == (3, len(names))
    column = {name: rows[:, index].tolist() for index, name in enumerate(names)}
    assert column["layer.fan_in"] == [18, 8 * 64, 16]
    assert column["layer.neurons"] == [8 * 256, 16, 10]
    assert column["layer.pool"] == [2, 1, 1]
    assert column["layer.is_dense"] == [0, 1, 1]
    assert column["layer.position"] == [0, 1, 2]
    assert column["layer.position_from_output"] == [2, 1, 0]
    assert column["neuron.beta"] == pytest.approx([0.7] * 3)
    assert column["input.density"] == pytest.approx([0.05] * 3)
    assert column["surrogate.name=fast_sigmoid"] == [1, 1, 1]


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
