"""Spaces of configurations: as columns and point by point, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spikemeter._draws import Range, WholeRange, sequence, value_at, values_at
from spikemeter.calibration.plan import Plan, read_plan
from spikemeter.config import Config
from spikemeter.errors import ConfigError
from spikemeter.predictor.features import config_from_row
from spikemeter.space import CAMPAIGN_KEYS, Space, configured, read_space

EXAMPLES = Path(__file__).parents[1] / "examples" / "plans"
BASE = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10", "training": {"epochs": 4}}
VARY: dict[str, Any] = {
    "network": ["8C3-MP2-10", "8C3-MP2-16C3-MP2-10"],
    "neuron.threshold": {"low": 0.3, "high": 2.0, "log": True},
    "neuron.reset": ["subtract", "subtract", "zero"],
    "gradient": [
        {"surrogate.name": "atan", "surrogate.slope": 2},
        {"surrogate": {"name": "fast_sigmoid", "width": 0.1}},
        {"surrogate.slope": None, "surrogate.width": 0.2},
        {"surrogate.name": "straight_through", "surrogate.slope": None},
    ],
    "training.lr": ["1e-3", 0.01, 0.02],
    "training.epochs": {"low": 1.5, "high": 9.2},
    "training.batch_norm": [True, False],
    "hardware.neural_cores": ["auto", [4, 10]],
    "hardware.membrane_bits": ["auto", 24],
    "hardware.encoder_width": [16, 32],
}
ODD: dict[str, Any] = {
    "cell": [
        {},
        {"neuron.model": "lapicque"},
        {"neuron.model": "lapicque", "neuron.R": 4, "neuron.C": 0.5},
        {"neuron.model": "lapicque", "neuron.R": 4, "neuron.C": 0.5, "neuron.beta": None},
        {"neuron.beta": None},
        {"neuron.R": 3, "neuron.beta": None},
    ],
    "gradient": [
        {"surrogate.slope": None},
        {"surrogate.slope": None, "surrogate.width": 0.2},
        {"surrogate.name": "spike_rate_escape", "surrogate.slope": None, "surrogate.width": 0.2},
        {"surrogate.name": "sso", "surrogate.width": 1},
        {},
    ],
    "training.lr": ["fast", "nan", "0.02", 0.1],
    "training.epochs": [2, 2.0, 3, 2.5, True],
    "hardware": [{"neural_cores": [9, 10]}, {"encoder_width": 16}, {"clock_mhz": 50}],
}


def outcome(make: Any, *arguments: Any) -> Config | None:
    """Configuration, or None for one that is refused."""
    try:
        return make(*arguments)
    except ConfigError:
        return None


def space_of(vary: dict[str, Any] | None = None, **changes: Any) -> Space:
    return read_space({"base": BASE, "vary": vary or VARY, "sampler": "sobol"} | changes)


@pytest.mark.parametrize("sampler", ["sobol", "halton"])
@pytest.mark.parametrize("vary", [VARY, ODD], ids=["common", "odd"])
def test_a_block_is_what_its_points_are_one_by_one(sampler: str, vary: dict[str, Any]) -> None:
    space = space_of(vary, sampler=sampler, seed=3)
    frame = space.frame(100, 400)
    alone = [outcome(space.config, number) for number in range(100, 400)]
    rows = [outcome(config_from_row, row) for row in frame.to_dict("records")]
    assert rows == alone
    valid = sum(config is not None for config in alone)
    assert valid > (10 if vary is ODD else 200)
    assert list(frame.index) == list(range(100, 400))


def test_a_block_of_a_grid_is_what_its_points_are() -> None:
    vary = {"network": ["8C3-10", "10"], "neuron.beta": [0.5, 0.6, 0.7], "training.seed": [1, 2]}
    space = space_of(vary, sampler="grid")
    assert space.points == 12
    frame = space.frame(0, 12)
    assert [config_from_row(row) for row in frame.to_dict("records")] == [
        configured(BASE, {"network": network, "neuron.beta": beta, "training.seed": seed})
        for network in ["8C3-10", "10"]
        for beta in [0.5, 0.6, 0.7]
        for seed in [1, 2]
    ]
    pd.testing.assert_frame_equal(space.frame(5, 9), frame.iloc[5:9])


@pytest.mark.parametrize("sampler", ["sobol", "halton"])
def test_blocks_are_parts_of_the_whole(sampler: str) -> None:
    space = space_of(VARY, sampler=sampler)
    whole = space.frame(0, 1000)
    parts = [space.frame(0, 1), space.frame(1, 300), space.frame(300, 1000)]
    pd.testing.assert_frame_equal(pd.concat(parts), whole)
    assert space_of(VARY, sampler=sampler, seed=1).frame(0, 9).equals(
        whole.iloc[:9]
    ) is False  # fmt: skip


def test_points_go_on_behind_the_runs_that_were_asked_for() -> None:
    short, longer = space_of(VARY, runs=20), space_of(VARY, runs=40)
    assert [short.changes(number) for number in (3, 30)] == [
        longer.changes(number) for number in (3, 30)
    ]
    assert (short.points, space_of().points, space_of({"neuron.beta": [0.5]}).points) == (20, 0, 0)
    assert read_space({"base": BASE}).points == 1
    assert read_space({"base": BASE}).frame(0, 1).to_dict("records") == [
        {"dataset": "nmnist-saccade", "network": "8C3-MP2-10", "training.epochs": 4}
    ]


@given(
    low=st.floats(-1e4, 1e4), width=st.floats(1e-3, 1e5), seed=st.integers(0, 99), log=st.booleans()
)
def test_many_values_of_a_range_are_those_of_each_share(
    low: float, width: float, seed: int, log: bool
) -> None:
    low = abs(low) + 1e-4 if log else low
    shares = np.random.default_rng(seed).random(40)
    for key, kind in (("neuron.beta", Range), ("training.epochs", Range), ("x", WholeRange)):
        variation = kind(low=low, high=low + width, log=log)
        if key == "neuron.beta" or variation.holds_whole:
            alone = [value_at(key, variation, share) for share in shares.tolist()]
            assert values_at(key, variation, shares).tolist() == alone


def test_values_on_the_edge_of_rounding_are_those_of_each_share() -> None:
    ends = np.arange(20_000) / 20_000  # every other one is half way between two values
    for low, high in ((1.0, 2.0), (0.1, 1.1), (10.0, 11.0), (0.0, 1.0)):
        variation = Range(low=low, high=high)
        alone = [value_at("neuron.threshold", variation, share) for share in ends.tolist()]
        assert values_at("neuron.threshold", variation, ends).tolist() == alone


def test_whole_values_on_their_edge_are_those_of_each_share() -> None:
    for power in range(2, 24):
        variation = Range(low=1, high=2**power - 1, log=True)
        shares = np.arange(power) / power  # where whole powers of two begin
        alone = [value_at("training.epochs", variation, share) for share in shares.tolist()]
        assert values_at("training.epochs", variation, shares).tolist() == alone


def test_a_log_range_of_whole_numbers_is_even_over_magnitudes() -> None:
    shares = sequence("sobol", 1, 0, 4096, seed=0)[:, 0]
    values = values_at("training.batch_size", Range(low=1, high=255, log=True), shares)
    assert {int(values.min()), int(values.max())} == {1, 255}
    assert np.mean(values < 16) == pytest.approx(0.5, abs=1e-3)


def test_a_plan_is_a_space_of_the_same_points(tmp_path: Path) -> None:
    assert set(CAMPAIGN_KEYS) == set(Plan.model_fields) - set(Space.model_fields)
    plan = read_plan(EXAMPLES / "small.yaml")
    space = read_space(EXAMPLES / "small.yaml")
    assert space.points == plan.points == 22
    assert [space.config(n) for n in range(22)] == [plan.config(n) for n in range(22)]
    assert read_space(plan).config(23) != plan.config(23)  # which is a repeat of a point
    assert read_space(plan) == space


def test_a_space_may_be_written_narrowed_and_read_again(tmp_path: Path) -> None:
    space = space_of(VARY, seed=5, runs=64)
    narrow = space.narrowed({"neuron.threshold": Range(low=0.5, high=0.6), "training.lr": (0.01,)})
    path = tmp_path / "narrow.yaml"
    path.write_text(narrow.to_yaml(), encoding="utf-8")
    assert read_space(path) == narrow
    assert narrow.vary.keys() == space.vary.keys()
    thresholds = narrow.frame(0, 64)["neuron.threshold"]
    assert thresholds.min() >= 0.5
    assert thresholds.max() <= 0.6


def test_private_statistics_and_knobs_become_columns() -> None:
    events = [[1.0, 2.0], [3.0, 4.0], [0.5, 0.0]]
    base = {"network": "8C3-10", "input": {"time_steps": 3, "statistics": events}, "spikes": None}
    space = read_space({"base": base, "vary": {"neuron.beta": [0.5, 0.9]}, "sampler": "grid"})
    rows = space.frame(0, 2).to_dict("records")
    assert [config_from_row(row) for row in rows] == [space.config(0), space.config(1)]
    knobs = {"hardware.knobs.lanes": {"low": 1, "high": 9}, "hardware": {"knobs": {"bus": 3}}}
    base = BASE | {"hardware": knobs["hardware"]}
    frame = read_space(
        {"base": base, "vary": {"hardware.knobs.lanes": knobs["hardware.knobs.lanes"]}}
    ).frame(0, 5)
    assert set(frame["hardware.knobs.bus"]) == {3}
    assert frame["hardware.knobs.lanes"].between(1, 9).all()


def test_a_choice_of_a_whole_section_forgets_the_base() -> None:
    base = BASE | {"training": {"epochs": 7, "lr": 0.02}}
    vary = {"training": [{"lr": 0.01}, {"epochs": 3}]}
    space = read_space({"base": base, "vary": vary, "sampler": "grid"})
    rows = [config_from_row(row) for row in space.frame(0, 2).to_dict("records")]
    assert rows == [space.config(0), space.config(1)]
    assert [(row.training.epochs, row.training.lr) for row in rows] == [(10, 0.01), (3, 1e-3)]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"vary": {"neuron.betta": [1]}}, ["vary.neuron.betta: unknown key 'neuron.betta'"]),
        ({"vary": {"neuron.betta": {"low": 0, "high": 1}}}, ["unknown key 'neuron.betta'"]),
        ({"vary": {"beta": {"low": 0, "high": 1}}}, ["vary.beta: is no key of a configuration"]),
        ({"base": {"netwrok": "10"}}, ["base: unknown key 'netwrok'; allowed here: dataset"]),
        ({"base": {"neuron": 3}}, ["base: neuron: should hold keys and values, got 3"]),
        ({"base": {"training": {"lr": None}}}, ["base: training.lr: must not be null"]),
        ({"vary": {"hardware.clock_mhz": [None]}}, ["vary.hardware.clock_mhz: must not be null"]),
        ({"vary": {"neuron.beta": []}}, ["vary.neuron.beta: should be a list of 1 or more"]),
        ({"vary": {"neuron.beta": {"low": 1, "high": 1}}}, ["vary.neuron.beta", "must be below"]),
        (
            {"vary": {"training.epochs": {"low": 1.2, "high": 1.8}}},
            ["vary.training.epochs: must hold a whole number, got 1.2 to 1.8"],
        ),
        (
            {"vary": {"eye": [{"input.gain": 0.5}], "input.gain": [0.6]}},
            ["vary.input.gain: sets input.gain, and vary.eye sets input.gain"],
        ),
        ({"sampler": "grid", "vary": {"neuron.beta": {"low": 0, "high": 1}}}, ["in a grid"]),
        ({"runs": 0}, ["runs", "greater than or equal to 1", "0"]),
        ({"samplers": "grid"}, ["unknown key 'samplers'; allowed here: base, vary, sampler"]),
        (
            {"base": BASE | {"input": {"statistics": [[1, 2]]}}},
            ["base: input.statistics: must be absent beside dataset"],
        ),
        ({"base": {"input": {"statistics": 3}}}, ["input.statistics: should be lists of numbers"]),
        ({"base": {"input": {"gains": 3}}}, ["unknown key 'input.gains'; allowed here: height"]),
    ],
)  # fmt: skip
def test_a_refusal_is_one_sentence(
    tmp_path: Path, content: dict[str, Any], parts: list[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"base": BASE} | content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_space(path)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the space"):
        read_space(tmp_path / "none.yaml")


def test_keys_joined_by_dots_configure_a_base_without_changing_it() -> None:
    base = {"dataset": "nmnist-saccade", "network": "10", "neuron": {"threshold": 0.4}}
    config = configured(base, {"neuron.beta": 0.5, "training.lr": 0.01})
    assert (config.neuron.beta, config.neuron.threshold, config.training.lr) == (0.5, 0.4, 0.01)
    assert base["neuron"] == {"threshold": 0.4}
    assert math.isclose(configured(base, {}).neuron.threshold, 0.4)
    with pytest.raises(ConfigError, match="should hold keys and values, got '10'"):
        configured(base, {"network.size": 3})
