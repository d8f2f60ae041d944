from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikemeter.config import load_config
from spikemeter.errors import PredictorError
from spikemeter.predictor.events import (
    InputStatistics,
    coding_of,
    expected_counts,
    expected_taps,
    input_events,
)
from spikemeter.predictor.machine import tap_bounds
from spikemeter.predictor.timing import even_taps


def statistics(side: int, steps: int, density: float, **keys) -> InputStatistics:
    """Events that rise over time, of a given mean density."""
    course = np.linspace(0.5, 1.5, steps)[:, None] * np.ones(2)
    return InputStatistics(
        height=side, width=side, time_steps=steps, events=course * density * side**2, **keys
    )


def config(side: int, steps: int, **keys):
    size = {"height": side, "width": side, "time_steps": steps, **keys.pop("input", {})}
    return load_config({"dataset": "nmnist-saccade", "network": "10", "input": size, **keys})


def known(*entries: InputStatistics) -> dict[str, tuple[InputStatistics, ...]]:
    return {"nmnist-saccade": entries}


def test_a_known_size_gives_its_own_events_and_no_warning():
    entry = statistics(16, 8, 0.1, tap_ratio=1.07)
    found = input_events(config(16, 8), known(statistics(8, 8, 0.2), entry))
    assert found.events is entry.events
    assert found.tap_ratio == 1.07
    assert found.warning is None


def test_statistics_of_the_configuration_come_first():
    size = {"height": 16, "width": 16, "time_steps": 2, "channels": 1, "statistics": [[1], [2]]}
    mine = load_config({"network": "3", "input": size})
    for statistics_of in ({}, known(statistics(16, 2, 0.3))):
        found = input_events(mine, statistics_of)
        assert found.events.tolist() == [[1.0], [2.0]]
        assert (found.tap_ratio, found.warning) == (1.0, None)


def test_an_unknown_size_follows_the_trend_of_the_known_ones_and_says_so():
    # Density falls as pixels^-0.25 and steps^-0.5, exactly.
    entries = [
        statistics(side, steps, 0.1 * (side / 16) ** -0.5 * (steps / 8) ** -0.5, tap_ratio=ratio)
        for side, steps, ratio in ((8, 8, 1.3), (16, 8, 1.2), (16, 4, 1.1), (32, 16, 1.4))
    ]
    found = input_events(config(26, 14), known(*entries))
    assert found.events.shape == (14, 2)
    expected = 0.1 * (26 / 16) ** -0.5 * (14 / 8) ** -0.5
    assert found.events.mean() / 26**2 == pytest.approx(expected, rel=0.01)
    assert (np.diff(found.events[:, 0]) > 0).all()
    assert found.tap_ratio == 1.4  # of the nearest
    assert found.warning == (
        "input: 26x26 frames of 14 steps of nmnist-saccade were not measured; their events are "
        "estimated from 32x32 frames of 16 steps"
    )


def test_the_trend_is_that_of_all_codings_but_the_height_that_of_its_own():
    def entries(gain, sides, density):
        coding = {} if gain == 1 else {"gain": gain}
        return [statistics(side, 8, density * side**-0.5, coding=coding) for side in sides]

    both = known(*entries(1, (8,), 0.4), *entries(0.5, (8, 16, 32), 0.2))
    found = input_events(config(32, 8), both)
    assert found.events.mean() / 32**2 == pytest.approx(0.4 * 32**-0.5, rel=0.01)
    assert "estimated from 8x8 frames" in found.warning


def test_one_known_size_is_enough_to_estimate_another():
    one = known(statistics(16, 8, 0.1))
    dense, sparse = (input_events(config(16, steps), one).events for steps in (4, 16))
    assert dense.mean() > 25.6 > sparse.mean()
    assert 25.6 * 8 / 2 < sparse.sum() / 2 < 25.6 * 16


def test_no_frame_has_more_events_than_pixels():
    assert input_events(config(4, 2), known(statistics(16, 8, 0.6))).events.max() <= 16


@pytest.mark.parametrize("steep", [1e-300, 1.0])
def test_a_trend_that_cannot_be_ends_at_full_and_at_empty_frames(steep):
    """Two sizes next to each other, from almost nothing to full: a power of hundreds."""
    entries = known(
        InputStatistics(height=30, width=30, time_steps=8, events=np.full((8, 2), 900 * steep)),
        InputStatistics(height=30, width=31, time_steps=8, events=np.full((8, 2), 1.0)),
    )
    for side in (1, 29, 32, 34):
        events = input_events(config(side, 8), entries).events
        assert np.isfinite(events).all()
        assert events.min() >= 0
        assert events.max() <= side**2


def test_a_silent_data_set_stays_silent():
    silent = known(statistics(16, 8, 0.0), statistics(8, 8, 0.0))
    assert (input_events(config(32, 4), silent).events == 0).all()


def test_a_data_set_without_statistics_is_refused_by_name():
    with pytest.raises(PredictorError, match=r"knows the statistics of other, not of 'nmnist-sacc"):
        input_events(config(16, 8), {"other": (statistics(16, 8, 0.1),)})
    with pytest.raises(PredictorError, match="knows the statistics of none"):
        input_events(config(16, 8), {})
    with pytest.raises(PredictorError, match="with 1 channels"):
        input_events(config(16, 8, input={"channels": 1, "encoding": "rate"}),
                     known(statistics(16, 8, 0.1)))  # fmt: skip


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"events": np.zeros((3, 2))}, "must have 4 steps"),
        ({"events": np.full((4, 2), np.nan)}, "finite"),
        ({"events": np.full((4, 2), np.inf)}, "finite"),
        ({"events": np.full((4, 2), -1.0)}, "not negative"),
        ({"events": np.full((4, 2), 65.0)}, "at most 64 pixels"),
        ({"events": np.zeros(4)}, "events per step and channel"),
        ({"events": np.zeros((4, 0))}, "events per step and channel"),
        ({"height": 0}, "1 to 4096 rows and columns, got 0 and 8"),
        ({"width": 10**30}, "1 to 4096 rows and columns"),
        ({"coding": {"sharpness": 1.0}}, "got 'sharpness'"),
    ],
)
def test_impossible_statistics_are_refused(values, sentence):
    usual = {"height": 8, "width": 8, "time_steps": 4, "events": np.ones((4, 2))}
    assert InputStatistics(**usual).pixels == 64
    with pytest.raises(ValueError, match=sentence):
        InputStatistics(**{**usual, **values})


def test_rates_become_counts_of_the_incoming_map():
    network = {"network": "4C3-MP2-10", "input": {"height": 8, "width": 8, "time_steps": 3}}
    given = load_config({"dataset": "nmnist-saccade", **network})
    events = np.arange(6.0).reshape(3, 2)
    first, second = expected_counts(given, events, [0.25])
    assert first is events
    assert second.shape == (3, 4)
    assert (second == 0.25 * 16).all()
    course = np.array([[0.0, 1.0, 2.0]])
    _, uneven = expected_counts(given, events, [0.25], course)
    assert uneven.tolist() == [[0.0] * 4, [4.0] * 4, [8.0] * 4]


def test_no_line_spikes_more_than_once_a_step():
    given = config(8, 2, network="4C3-6-10")
    _, second, third = expected_counts(
        given, np.ones((2, 2)), [0.5, 0.9], np.array([[0.5, 1.5], [0.0, 2.0]])
    )
    assert second.tolist() == [[16.0] * 4, [48.0] * 4]
    assert third.tolist() == [[0.0] * 6, [1.0] * 6]


@pytest.mark.parametrize("ratio", [0.1, 1.0, 1.04, 50.0])
def test_taps_of_expected_spikes_keep_to_what_a_spike_can_have(ratio):
    given = config(8, 2, network="4C3-10")
    counts = [np.full((2, layer.in_channels), 2.0) for layer in given.layers]
    conv, dense = expected_taps(given, counts, [ratio, ratio])
    fewest, most = tap_bounds(given.layers[0])
    wanted = even_taps(given.layers[0]) * ratio
    assert conv == pytest.approx(2 * min(max(wanted, fewest), most))
    assert fewest < even_taps(given.layers[0]) < most
    assert (dense == 2).all()


@pytest.mark.parametrize(
    "other",
    [{"camera_threshold": 0.2}, {"encoding": "latency", "channels": 1}, {"time_window_ms": 20}],
)
def test_another_camera_or_coding_is_not_taken_for_the_known_one(other):
    one_channel = InputStatistics(height=16, width=16, time_steps=8, events=np.ones((8, 1)))
    key = next(iter(other))
    with pytest.raises(PredictorError, match=rf"input\.{key}: .* datasets measure CONFIG"):
        input_events(config(16, 8, input=other), known(statistics(16, 8, 0.1), one_channel))


def test_a_known_camera_or_coding_has_its_own_events():
    usual = statistics(16, 8, 0.1)
    fast = statistics(16, 8, 0.05, coding={"time_window_ms": 20.0})
    keen = statistics(16, 8, 0.2, coding={"camera_threshold": 0.2})
    entries = known(usual, fast, keen)
    for entry, keys in ((usual, {}), (fast, {"time_window_ms": 20}), (keen, keen.coding)):
        assert input_events(config(16, 8, input=dict(keys)), entries).events is entry.events
    both = {"time_window_ms": 20, "camera_threshold": 0.2}
    with pytest.raises(
        PredictorError, match=r"with time_window_ms 20(\.0)?, camera_thr.* together"
    ):
        input_events(config(16, 8, input=both), entries)


def test_what_the_network_sees_is_the_coding_and_nothing_else():
    assert coding_of(config(16, 8)) == {}
    assert coding_of(config(16, 8, input={"camera_threshold": 0.2})) == {"camera_threshold": 0.2}
    other = config(24, 4, training={"lr": 0.1}, input={"time_window_ms": 20})
    assert coding_of(other) == {"time_window_ms": 20.0}
    # It is kept as JSON, and compared with what is read again.
    assert json.loads(json.dumps(coding_of(other))) == coding_of(other)


@given(
    st.lists(
        st.tuples(st.integers(1, 34), st.integers(1, 40), st.floats(0, 1)), min_size=1, max_size=5
    ),
    st.integers(1, 34),
    st.integers(1, 40),
)
def test_events_of_any_size_can_be(sizes, side, steps):
    entries = [
        InputStatistics(
            height=one, width=one, time_steps=many, events=np.full((many, 2), density * one**2)
        )
        for one, many, density in sizes
    ]
    found = input_events(config(side, steps), known(*entries))
    assert found.events.shape == (steps, 2)
    assert found.events.min() >= 0
    assert found.events.max() <= side**2 * (1 + 1e-9)
    measured = any(entry.size == (side, side, steps) for entry in entries)
    assert (found.warning is None) == measured
