from __future__ import annotations

import numpy as np
import pytest

from spikemeter.config import load_config
from spikemeter.errors import PredictorError
from spikemeter.predictor.events import InputStatistics, expected_counts, input_events


def statistics(side: int, steps: int, density: float) -> InputStatistics:
    """Events that rise over time, of a given mean density."""
    course = np.linspace(0.5, 1.5, steps)[:, None] * np.ones(2)
    return InputStatistics(
        height=side, width=side, time_steps=steps, events=course * density * side**2
    )


def config(side: int, steps: int, **keys):
    size = {"height": side, "width": side, "time_steps": steps}
    return load_config({"dataset": "nmnist-saccade", "network": "10", "input": size, **keys})


def test_a_known_size_gives_its_own_events_and_no_warning():
    entry = statistics(16, 8, 0.1)
    events, warning = input_events(
        config(16, 8), {"nmnist-saccade": (statistics(8, 8, 0.2), entry)}
    )
    assert events is entry.events
    assert warning is None


def test_statistics_of_the_configuration_come_first():
    mine = load_config(
        {"network": "3", "input": {"time_steps": 2, "channels": 1, "statistics": [[1], [2]]}}
    )
    events, warning = input_events(mine, {})
    assert events.tolist() == [[1.0], [2.0]]
    assert warning is None


def test_an_unknown_size_follows_the_trend_of_the_known_ones_and_says_so():
    # Density falls as pixels^-0.25 and steps^-0.5, exactly.
    known = [
        statistics(side, steps, 0.1 * (side / 16) ** -0.5 * (steps / 8) ** -0.5)
        for side, steps in ((8, 8), (16, 8), (16, 4), (32, 16))
    ]
    events, warning = input_events(config(24, 12), {"nmnist-saccade": known})
    assert events.shape == (12, 2)
    expected = 0.1 * (24 / 16) ** -0.5 * (12 / 8) ** -0.5
    assert events.mean() / 24**2 == pytest.approx(expected, rel=0.01)
    assert (np.diff(events[:, 0]) > 0).all()
    assert warning is not None
    assert "24x24 frames of 12 steps" in warning


def test_one_known_size_is_enough_to_estimate_another():
    known = {"nmnist-saccade": (statistics(16, 8, 0.1),)}
    dense, _ = input_events(config(16, 4), known)
    sparse, _ = input_events(config(16, 16), known)
    assert dense.mean() > 25.6 > sparse.mean()
    assert 25.6 * 8 / 2 < sparse.sum() / 2 < 25.6 * 16


def test_no_frame_has_more_events_than_pixels():
    known = {"nmnist-saccade": (statistics(16, 8, 0.6),)}
    events, _ = input_events(config(4, 2), known)
    assert events.max() <= 16


def test_a_data_set_without_statistics_is_refused_by_name():
    with pytest.raises(PredictorError, match="'nmnist-saccade'"):
        input_events(config(16, 8), {"other": (statistics(16, 8, 0.1),)})


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        (np.zeros((3, 2)), "must have 4 steps"),
        (np.full((4, 2), np.nan), "finite"),
        (np.full((4, 2), -1.0), "not negative"),
        (np.full((4, 2), 65.0), "at most 64 pixels"),
    ],
)
def test_impossible_statistics_are_refused(events, sentence):
    with pytest.raises(ValueError, match=sentence):
        InputStatistics(height=8, width=8, time_steps=4, events=events)


def test_rates_become_counts_of_the_incoming_map():
    network = {"network": "4C3-MP2-10", "input": {"height": 8, "width": 8, "time_steps": 3}}
    given = load_config({"dataset": "nmnist-saccade", **network})
    events = np.arange(6.0).reshape(3, 2)
    first, second = expected_counts(given, events, [0.25])
    assert first is events
    assert second.shape == (3, 4)
    assert (second == 0.25 * 16).all()


@pytest.mark.parametrize(
    "other",
    [{"camera_threshold": 0.2}, {"encoding": "latency", "channels": 1}, {"time_window_ms": 20}],
)
def test_another_camera_or_coding_is_not_taken_for_the_known_one(other):
    known = InputStatistics(height=16, width=16, time_steps=8, events=np.ones((8, 1)))
    both = (statistics(16, 8, 0.1), known)
    asked = load_config(
        {
            "dataset": "nmnist-saccade",
            "network": "10",
            "input": {"height": 16, "width": 16, "time_steps": 8, **other},
        }
    )
    key = next(iter(other))
    with pytest.raises(PredictorError, match=rf"input\.{key}: .* datasets measure CONFIG"):
        input_events(asked, {"nmnist-saccade": both})
