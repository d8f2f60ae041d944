"""Refused rows, held against a `Config` for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spikemeter.config import Config
from spikemeter.errors import ConfigError
from spikemeter.predictor import refusals
from spikemeter.predictor.columns import NUMBERS
from spikemeter.predictor.features import config_from_row
from spikemeter.predictor.refusals import Refusals
from spikemeter.space import read_space

BASE = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10"}
SPACES: dict[str, dict[str, Any]] = {
    "cores that do not fit": {
        "network": ["8C3-MP2-10", "16C3-MP2-10", "8C3-MP2-16C3-10", "8C3-9", "8C3-MP2-20"],
        "hardware.neural_cores": [
            [4, 10], [8, 10], [9, 10], [16, 9], [4, 8, 10], "auto",
            [4, "x"], [2.5, 3], [4, 2.0], [],
        ],
        "hardware.encoder_width": [4, 8, 32, 130],
        "training.population": [1, 2],
        "training.lr": {"low": 0.001, "high": 0.1},
    },
    "inputs that do not fit": {
        "dataset": ["nmnist-saccade", "digits-saccade", "nmnist", None],
        "input.height": {"low": 12, "high": 60},
        "input.channels": [1, 2],
        "input.encoding": ["events", "rate", "magic"],
        "input.gain": [1.0, 0.5],
        "hardware.schedule": ["layer_serial", "step_pipelined", "at once"],
    },
    "neurons that do not fit": {
        "neuron": [
            {},
            {"model": "lapicque"},
            {"model": "lapicque", "match": "both", "reset": "zero"},
            {"model": "lapicque", "R": 2.0},
            {"R": 2.0},
        ],
        "surrogate.slope": {"low": -1, "high": 5},
        "training.dropout": {"low": -0.5, "high": 1.5},
    },
    "decays that do not fit": {
        "neuron.model": ["lapicque", "lif"],
        "neuron.beta": {"low": -0.1, "high": 1.1},
        "neuron.match": ["none", "decay", "gain"],
    },
    "circuits that do not fit": {
        "neuron.model": ["lapicque", "lapicque", "lif"],
        "neuron.R": {"low": 0.1, "high": 2},
        "neuron.C": {"low": 0.1, "high": 2},
        "neuron.threshold": {"low": -1, "high": 110},
    },
    "numbers of another kind": {
        "training.epochs": [2, 2.0, 2.5, True, "3", "three", 20_000],
        "training.weight_bits": {"low": 0, "high": 9},
        "training.patience": [None, 3, 0],
        "hardware.clock_mhz": [50, "1e2", 0],
        "surrogate": [
            {"name": "atan", "width": 0.1}, {"name": "sso", "width": 0.1},
            {"width": 0.1, "slope": 2}, {"name": "straight_through"},
            {"name": "straight_through", "slope": 1},
        ],
    },
}  # fmt: skip


def is_refused(row: dict[str, Any]) -> bool:
    try:
        return not isinstance(config_from_row(row), Config)
    except ConfigError:
        return True


@pytest.mark.parametrize("vary", SPACES.values(), ids=SPACES)
def test_rows_are_refused_that_no_config_allows(vary: dict[str, Any]) -> None:
    space = read_space({"base": BASE, "vary": vary, "sampler": "sobol"})
    rows = space.frame(0, 400)
    alone = [is_refused(row) for row in rows.to_dict("records")]
    judge = Refusals()
    assert judge.of(rows).tolist() == alone
    assert 20 < sum(alone) < 400
    later = space.frame(400, 500)  # what it remembers holds for other rows, too
    assert judge.of(later).tolist() == [is_refused(row) for row in later.to_dict("records")]


LAPICQUE = {"neuron.model": "lapicque"}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ([{"hardware.neural_cores": [4, 10]}, {"hardware.neural_cores": [8, 9]}],
         {"hardware.neural_cores": [9, 9]}),
        ([{"hardware.neural_cores": [4, 10]}, {"hardware.neural_cores": [8, 2]}],
         {"hardware.neural_cores": [4, 11]}),
        ([{"hardware.encoder_width": 8}, {"hardware.encoder_width": 128}],
         {"hardware.encoder_width": 7}),
        ([{"hardware.encoder_width": 8}, {"hardware.encoder_width": 128}],
         {"hardware.encoder_width": 129}),
        ([LAPICQUE | {"neuron.beta": 0.14}, LAPICQUE | {"neuron.beta": 0.99}],
         LAPICQUE | {"neuron.beta": 0.13}),
        ([LAPICQUE | {"neuron.R": 0.1, "neuron.C": 9}, LAPICQUE | {"neuron.R": 9, "neuron.C": 0.1}],
         LAPICQUE | {"neuron.R": 0.5, "neuron.C": 0.5}),
        ([{"surrogate.width": 0.1}, {"surrogate.slope": 3}],
         {"surrogate.slope": 3, "surrogate.width": 1}),
        ([{"training.population": 2, "network": "8C3-20"}, {}], {"training.population": 2}),
    ],
)  # fmt: skip
def test_one_bad_row_is_found_among_many(good: list[dict[str, Any]], bad: dict[str, Any]) -> None:
    rows = pd.DataFrame([BASE | each for each in (*good * 20, bad, *good * 20)])
    found = Refusals().of(rows)
    assert np.flatnonzero(found).tolist() == [40]
    assert is_refused(rows.loc[40].to_dict())


def test_rows_are_judged_by_few_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(row: dict[str, Any]) -> Config:
        asked.append(row)
        return config_from_row(row)

    monkeypatch.setattr(refusals, "config_from_row", counted)
    vary = SPACES["cores that do not fit"] | {"neuron.beta": {"low": 0.1, "high": 0.99}}
    rows = read_space({"base": BASE, "vary": vary}).frame(0, 3000)
    assert 0 < Refusals().of(rows).sum() < 3000
    assert len(asked) < 500


def test_there_may_be_no_rows_and_no_refused_ones() -> None:
    rows = pd.DataFrame({"dataset": ["nmnist-saccade"] * 3, "network": ["10"] * 3})
    assert Refusals().of(rows).tolist() == [False] * 3
    assert Refusals().of(rows[:0]).tolist() == []


def test_every_number_has_the_limits_of_its_key() -> None:
    limits = refusals._limits()
    assert set(limits) == set(NUMBERS)
    assert limits["neuron.beta"] == {
        "minimum": -np.inf, "maximum": 1, "exclusiveMinimum": 0, "exclusiveMaximum": np.inf,
        "whole": False,
    }  # fmt: skip
    assert limits["training.seed"]["exclusiveMaximum"] == 2**31
    assert limits["training.epochs"]["whole"]
