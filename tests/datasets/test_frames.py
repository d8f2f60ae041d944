import numpy as np
import pytest

from spikemeter.datasets import EventFrames, Recordings, input_statistics
from spikemeter.datasets.events import EVENT_DTYPE, join
from spikemeter.datasets.frames import bin_recordings


def plain_frames(events, size, time_steps):
    """Set a pixel for each event, with the bins written out."""
    frames = np.zeros((time_steps, 2, *size), dtype=bool)
    first = int(events["t"][0])
    window = (int(events["t"][-1]) - first) // time_steps
    for x, y, t, p in events.tolist():
        step = (t - first) // window
        if step < time_steps:
            frames[step, int(p), y * size[0] // 34, x * size[1] // 34] = True
    return frames


@pytest.mark.parametrize(("size", "time_steps"), [((16, 16), 8), ((34, 34), 3), ((7, 12), 5)])
def test_frames_hold_every_event_of_a_bin(recordings, size, time_steps):
    some = join([one_recording(recordings[index]) for index in range(0, 200, 20)])
    before = some.events.copy()
    frames = bin_recordings(some, sensor=(34, 34), size=size, time_steps=time_steps)
    assert frames.shape == (10, time_steps, 2, *size)
    for index, events in enumerate(some):
        np.testing.assert_array_equal(frames[index], plain_frames(events, size, time_steps))
    np.testing.assert_array_equal(some.events, before)


def one_recording(events):
    return Recordings(events=events, offsets=np.array([0, events.size]))


def test_a_recording_without_events_has_empty_frames():
    empty = one_recording(np.empty(0, EVENT_DTYPE))
    assert not bin_recordings(empty, sensor=(34, 34), size=(4, 4), time_steps=2).any()


def test_columns_far_out_do_not_overflow():
    events = np.zeros(3, EVENT_DTYPE)
    events["x"], events["t"] = 33, [0, 10, 20]
    frames = bin_recordings(one_recording(events), sensor=(34, 34), size=(34, 34), time_steps=1)
    assert np.argwhere(frames).tolist() == [[0, 0, 0, 0, 33]]


def test_input_statistics_are_mean_set_pixels_per_step_and_channel():
    frames = np.zeros((4, 3, 2, 5, 5), dtype=bool)
    frames[0, 1, 0, 2, :] = True
    frames[3, 2, 1, 4, 4] = True
    statistics = input_statistics(EventFrames(frames=frames, labels=np.zeros(4, np.int64)))
    assert statistics.dtype == np.float64
    assert statistics.tolist() == [[0, 0], [1.25, 0], [0, 0.25]]


def test_input_statistics_of_nothing_are_refused():
    nothing = EventFrames(frames=np.zeros((0, 1, 2, 3, 3), bool), labels=np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="at least one"):
        input_statistics(nothing)


def test_frames_and_labels_must_belong_together():
    with pytest.raises(ValueError, match="labels"):
        EventFrames(frames=np.zeros((2, 1, 2, 3, 3), bool), labels=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="frames"):
        EventFrames(frames=np.zeros((2, 1, 2, 3, 3)), labels=np.zeros(2, np.int64))


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 3, 2, 3], []])
def test_offsets_must_cover_the_events(offsets):
    with pytest.raises(ValueError, match="offsets"):
        Recordings(events=np.zeros(3, EVENT_DTYPE), offsets=np.array(offsets, np.int64))


def test_recordings_refuse_a_number_out_of_range(recordings):
    with pytest.raises(IndexError, match=r"0\.\.199"):
        recordings[200]
