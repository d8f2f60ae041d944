"""Intervals where a name is new: of a network, a surrogate or a data set."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spikemeter.config import load_config
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.features import row_from_config
from spikemeter.predictor.intervals import OUTSIDE_FACTOR

CONTENT = {
    "dataset": "nmnist-saccade",
    "network": "8C3-MP2-12C3-MP2-10",
    "surrogate": {"name": "atan", "slope": 2},
    "training": {"epochs": 4},
}
NEW_NAMES = {
    "network": "8C3-MP2-16C3-MP2-10",
    "surrogate.name": "sigmoid",
    "dataset": "digits-saccade",
}


def half_width(estimate):
    return math.log(estimate.interval_cycles[1] / estimate.cycles)


def asked(*keys):
    """`CONTENT` with names that were not calibrated."""
    content = dict(CONTENT)
    for key in keys:
        section, _, name = key.rpartition(".")
        new = {**content[section], name: NEW_NAMES[key]} if section else NEW_NAMES[key]
        content[section or key] = new
    return content


def with_unseen(predictor, **factors):
    """A predictor of two networks and so much wider intervals where a name is new.

    It knows what enters from another data set.
    """
    parts = predictor.parts
    statistics = {**parts.statistics, "digits-saccade": parts.statistics["nmnist-saccade"]}
    unseen = {key.replace("__", "."): factor for key, factor in factors.items()}
    domain = replace(parts.domain, networks=(CONTENT["network"], "10"), unseen=unseen)
    return LatencyPredictor(parts=replace(parts, statistics=statistics, domain=domain))


MEASURED = {"network": 1.5, "surrogate__name": 3.0, "dataset": 1.25}


@pytest.mark.parametrize(
    ("keys", "factor"),
    [
        ((), 1.0), (("network",), 1.5), (("surrogate.name",), 3.0), (("dataset",), 1.25),
        (("network", "surrogate.name"), 4.5), (tuple(NEW_NAMES), 5.625),
    ],
)  # fmt: skip
def test_where_a_name_is_new_the_interval_is_as_much_wider_as_was_measured(predictor, keys, factor):
    plain = with_unseen(predictor, network=1.0, surrogate__name=1.0, dataset=1.0)
    measured = with_unseen(predictor, **MEASURED)
    rates = [[0.1, 0.1, 0.1]]
    for ask in ("estimate", "forecast"):
        extra = [rates] if ask == "forecast" else []
        narrow, wide = (getattr(each, ask)(asked(*keys), *extra) for each in (plain, measured))
        assert wide.cycles == narrow.cycles
        assert half_width(wide) == pytest.approx(factor * half_width(narrow))
    one = measured.estimate(asked(*keys))
    assert one.in_domain is (not set(keys) - {"network"})
    assert len(one.warnings) == len(set(keys) - {"network"})
    (many,) = measured.predict(
        pd.DataFrame([row_from_config(load_config(asked(*keys)))])
    ).to_dict("records")  # fmt: skip
    assert many["interval_cycles.high"] == pytest.approx(one.interval_cycles[1])
    assert many["in_domain"] is one.in_domain
    assert many["warnings"] == "; ".join(one.warnings)


def test_a_new_name_beside_another_excursion_widens_twice(predictor):
    measured = with_unseen(predictor, **MEASURED)
    near = measured.estimate(asked("network"))
    far = measured.estimate({**asked("network"), "training": {"epochs": 400}})
    assert half_width(far) == pytest.approx(OUTSIDE_FACTOR * half_width(near))


@pytest.mark.parametrize("networks", [(CONTENT["network"],), (CONTENT["network"], "10")])
def test_where_new_networks_were_not_tried_they_are_outside(predictor, networks):
    domain = replace(predictor.parts.domain, networks=networks, unseen={})
    one = LatencyPredictor(parts=replace(predictor.parts, domain=domain))
    inside, outside = one.estimate(CONTENT), one.estimate(asked("network"))
    assert inside.in_domain
    assert not outside.in_domain
    known = ", ".join(networks)
    sentence = f"network: '8C3-MP2-16C3-MP2-10' was not calibrated (calibrated: {known})"
    assert sentence in outside.warnings
    rows = [row_from_config(load_config(each)) for each in (CONTENT, asked("network"))]
    many = one.predict(pd.DataFrame(rows))
    assert many["in_domain"].tolist() == [True, False]
    assert many["warnings"][1].startswith(sentence)
    assert many["interval_cycles.high"][1] == pytest.approx(outside.interval_cycles[1])


@pytest.mark.parametrize("keys", [(), ("network",), ("network", "surrogate.name")])
def test_intervals_never_shrink_as_the_confidence_rises(predictor, keys):
    measured = with_unseen(predictor, **MEASURED)
    for change in ({}, {"input": {"time_steps": 7}}):
        widths = [
            half_width(measured.estimate({**asked(*keys), **change}, confidence=confidence))
            for confidence in np.linspace(0.5, 0.99, 12).tolist()
        ]
        assert widths == sorted(widths)
