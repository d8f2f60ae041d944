import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikemeter.config import load_config
from spikemeter.datasets import EventFrames, Recordings, input_statistics, require_binary
from spikemeter.datasets.events import EVENT_DTYPE, join
from spikemeter.datasets.frames import Binning, bin_events, denoised
from spikemeter.errors import ConfigError


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


def binning(time_steps, size=(34, 34), **settings):
    return Binning(sensor=(34, 34), size=size, time_steps=time_steps, **settings)


@pytest.mark.parametrize(("size", "time_steps"), [((16, 16), 8), ((34, 34), 3), ((7, 12), 5)])
def test_frames_hold_every_event_of_a_bin(recordings, size, time_steps):
    some = join([one_recording(recordings[index]) for index in range(0, 200, 20)])
    before = some.events.copy()
    for events in some:
        frames = bin_events(events, binning(time_steps, size))
        assert frames.dtype == np.bool_
        np.testing.assert_array_equal(frames, plain_frames(events, size, time_steps))
    np.testing.assert_array_equal(some.events, before)


def one_recording(events):
    return Recordings(events=events, offsets=np.array([0, events.size]))


@pytest.mark.parametrize("settings", [{}, {"denoise_us": 10_000.0}, {"denoise_us": 2_500.0}])
def test_bins_are_those_of_tonic(recordings, settings):
    from tonic.transforms import Denoise, ToFrame

    for index in range(0, 200, 40):
        events = recordings[index].copy()
        ours = bin_events(events, binning(6, counts=True, **settings))
        if settings:
            events = Denoise(filter_time=settings["denoise_us"])(events)
        frames = ToFrame(sensor_size=(34, 34, 2), n_time_bins=6)(events.copy())
        np.testing.assert_array_equal(ours, frames)


@pytest.mark.parametrize("time_steps", [4, 20])
def test_windows_of_a_fixed_length_are_those_of_tonic_and_padded(recordings, time_steps):
    from tonic.transforms import ToFrame

    events = recordings[60]
    ours = bin_events(events, binning(time_steps, window_us=30_000, counts=True))
    to_frame = ToFrame(sensor_size=(34, 34, 2), time_window=30_000, include_incomplete=True)
    frames = to_frame(events.copy())
    assert len(frames) == 11
    shown = min(time_steps, 11)
    np.testing.assert_array_equal(ours[:shown], frames[:shown])
    assert len(ours) == time_steps
    assert not ours[shown:].any()


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 60)), min_size=1, max_size=60
    ),
    st.sampled_from([1, 7, 20]),
)
def test_denoising_keeps_the_events_that_tonic_keeps(rows, filter_us):
    from tonic.functional import denoise_numpy

    events = np.zeros(len(rows), [("x", "i8"), ("y", "i8"), ("t", "i8"), ("p", "i8")])
    for name, values in zip("xyt", zip(*rows, strict=True), strict=True):
        events[name] = values
    events = events[np.argsort(events["t"], kind="stable")]
    np.testing.assert_array_equal(denoised(events, filter_us), denoise_numpy(events, filter_us))


def test_counts_and_pixels_agree(recordings):
    events = recordings[3]
    counts = bin_events(events, binning(5, (4, 4), counts=True))
    assert counts.dtype == np.uint16
    assert counts.max() > 9
    np.testing.assert_array_equal(counts > 0, bin_events(events, binning(5, (4, 4))))


def test_counts_stop_at_their_largest_number():
    events = np.zeros(70_002, EVENT_DTYPE)
    events["t"][1:] = 5
    events["t"][-1] = 10
    counts = bin_events(events, binning(1, counts=True))
    assert counts.max() == 65_535
    assert bin_events(events, binning(1)).sum() == 1


def test_a_recording_without_events_has_empty_frames():
    for events in (np.empty(0, EVENT_DTYPE), np.zeros(1, EVENT_DTYPE)):
        frames = bin_events(events, binning(2, (4, 4), denoise_us=10.0))
        assert frames.shape == (2, 2, 4, 4)
        assert not frames.any()


def test_rows_and_columns_shrink_each_by_their_own_factor():
    events = np.zeros(120, EVENT_DTYPE)
    events["y"], events["x"] = np.divmod(np.arange(120), 10)
    events["t"] = np.arange(120)
    frames = bin_events(
        events, Binning(sensor=(12, 10), size=(3, 5), time_steps=1, window_us=200, counts=True)
    )
    assert frames[0, 0].tolist() == [[8] * 5] * 3


def test_columns_far_out_do_not_overflow():
    events = np.zeros(3, EVENT_DTYPE)
    events["x"], events["t"] = 33, [0, 10, 20]
    frames = bin_events(events, binning(1))
    assert np.argwhere(frames).tolist() == [[0, 0, 0, 33]]


def test_input_statistics_are_mean_set_pixels_per_step_and_channel():
    frames = np.zeros((4, 3, 2, 5, 5), dtype=bool)
    frames[0, 1, 0, 2, :] = True
    frames[3, 2, 1, 4, 4] = True
    for values in (frames, 7 * frames.astype(np.uint16)):
        statistics = input_statistics(EventFrames(frames=values, labels=np.zeros(4, np.int64)))
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


def test_hardware_takes_spikes_alone():
    config = {"dataset": "nmnist-saccade", "network": "10", "input": {"values": "counts"}}
    require_binary(load_config(config | {"input": {}}))
    with pytest.raises(ConfigError, match=r"^input\.values: must be binary .*; got 'counts'$"):
        require_binary(load_config(config))


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 3, 2, 3], []])
def test_offsets_must_cover_the_events(offsets):
    with pytest.raises(ValueError, match="offsets"):
        Recordings(events=np.zeros(3, EVENT_DTYPE), offsets=np.array(offsets, np.int64))


def test_recordings_refuse_a_number_out_of_range(recordings):
    with pytest.raises(IndexError, match=r"0\.\.199"):
        recordings[200]
