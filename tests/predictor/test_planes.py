from __future__ import annotations

import json

import numpy as np
import pytest

from spikemeter.config import load_config
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.differences import read_calibrated
from spikemeter.predictor.knobs import frame_of
from spikemeter.predictor.planes import search_planes

CONTENT = {"dataset": "digits-saccade", "network": "8C3-MP2-12C3-MP2-10"}


@pytest.fixture(scope="module")
def shipped() -> LatencyPredictor:
    return LatencyPredictor.default()


@pytest.fixture(scope="module")
def calibrated(shipped):
    return read_calibrated(shipped, 0.9).frame


@pytest.fixture(scope="module")
def planes(shipped, calibrated):
    return search_planes(shipped, load_config(CONTENT), calibrated)


def test_the_first_phase_is_surrogate_by_slope(planes):
    (plane,), _ = planes
    assert (plane.x_key, plane.y_key) == ("surrogate.slope", "surrogate.name")
    assert plane.y == ("atan", "fast_sigmoid", "sigmoid", "spike_rate_escape", "triangular")
    assert plane.x[0] == pytest.approx(0.1)
    assert plane.x[-1] == pytest.approx(100)
    assert np.allclose(np.diff(np.log(plane.x)), np.log(1000) / 24, atol=0.02)


def test_the_second_phase_is_beta_by_threshold_for_each_neuron_model(planes):
    _, found = planes
    assert [plane.title for plane in found] == ["lapicque", "lif"]
    for plane in found:
        assert (plane.x_key, plane.y_key) == ("neuron.beta", "neuron.threshold")
        assert plane.x[0] >= (0.14 if plane.title == "lapicque" else 0.3)
        assert plane.y[0] == pytest.approx(0.3, abs=0.01)
        assert plane.y[-1] == pytest.approx(2, abs=0.06)
        assert np.isfinite(plane.cycles).all()


def test_cells_are_single_predictions(shipped, planes):
    first, second = planes
    rng = np.random.default_rng(0)
    for plane in (*first, *second):
        for _ in range(6):
            x, y = int(rng.integers(len(plane.x))), int(rng.integers(len(plane.y)))
            section = {
                plane.x_key.partition(".")[2]: plane.x[x],
                plane.y_key.partition(".")[2]: plane.y[y],
            }
            if plane.x_key == "neuron.beta":
                section["model"] = plane.title
            key = plane.x_key.partition(".")[0]
            estimate = shipped.estimate({**CONTENT, key: section})
            assert plane.cycles[y, x] == pytest.approx(estimate.cycles, rel=1e-9)
            assert plane.microseconds[y, x] == pytest.approx(estimate.microseconds, rel=1e-9)
            assert plane.accuracy[y, x] == pytest.approx(estimate.accuracy, rel=1e-6)
            assert plane.inside[y, x] == estimate.in_domain


def test_slopes_of_each_surrogate_are_inside_where_they_were_calibrated(planes):
    (plane,), _ = planes
    assert 0.5 < plane.inside.mean() < 1
    sigmoid = plane.inside[plane.y.index("sigmoid")]
    x = np.array(plane.x)
    assert not sigmoid[x > 40].any()
    assert sigmoid[(x > 0.3) & (x < 30)].all()


def test_the_configuration_is_marked_in_the_planes_that_hold_it(shipped, calibrated):
    config = load_config(
        {
            **CONTENT,
            "neuron": {"model": "lapicque", "match": "decay", "beta": 0.6},
            "surrogate": {"name": "atan", "width": 0.3},
        }
    )
    (first,), (lapicque, lif) = search_planes(shipped, config, calibrated)
    column, row = first.at
    assert first.y[row] == "atan"
    assert abs(np.log(first.x[column] / config.surrogate.steepness)) <= np.log(1000) / 48 + 0.02
    assert lif.at is None
    column, row = lapicque.at
    assert abs(lapicque.x[column] - 0.6) <= 0.03
    assert abs(lapicque.y[row] - 1.0) <= 0.06
    assert lapicque.title == "lapicque, match decay"


def test_a_space_that_varies_names_has_only_its_names(shipped, calibrated):
    space = frame_of(
        [
            load_config({**CONTENT, "surrogate": {"name": "atan", "slope": 2.0}}),
            load_config({**CONTENT, "surrogate": {"name": "sigmoid", "slope": 4.0}}),
        ]
    )
    first, second = search_planes(shipped, load_config(CONTENT), calibrated, space=space)
    assert first[0].y == ("atan", "sigmoid")
    assert first[0].at is None
    assert len(second) == 2


def test_a_neuron_of_r_and_c_is_in_no_plane_and_cells_it_cannot_be_are_empty(shipped, calibrated):
    content = {**CONTENT, "neuron": {"model": "lapicque", "R": 4.0, "C": 2.0}}
    (_,), second = search_planes(shipped, load_config(content), calibrated)
    assert [plane.at for plane in second] == [None, None]
    wild = calibrated.copy()
    wild.loc[wild["neuron.model"] == "lif", "neuron.beta"] = np.linspace(0.2, 3.0, 391)
    content = {**CONTENT, "neuron": {"beta": 1.0}}
    plane = search_planes(shipped, load_config(content), wild)[1][1]
    refused = np.array(plane.x) > 1
    assert np.isnan(plane.cycles[:, refused]).all()
    assert not plane.inside[:, refused].any()
    assert np.isfinite(plane.cycles[:, ~refused]).all()
    assert json.loads(json.dumps(plane.to_dict(), allow_nan=False))["cycles"][0][-1] is None
