"""The simulated camera, held against a plain loop and against a genuine recording."""

import hashlib
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from spikemeter.datasets import SaccadeCamera, record
from spikemeter.datasets.saccade import camera_path

GENUINE = Path(__file__).parent / "data" / "nmnist_sample.bin"


def genuine_events():
    from tonic.io import events_struct, read_mnist_file

    return read_mnist_file(str(GENUINE), dtype=events_struct)


def pixel_intervals(events):
    """Microseconds between events of the same pixel."""
    pixel = events["y"].astype(np.int64) * 34 + events["x"]
    time = events["t"].astype(np.int64)
    order = np.lexsort((time, pixel))
    return np.diff(time[order])[np.diff(pixel[order]) == 0]


def test_recordings_do_not_depend_on_what_is_recorded_together(digits, recordings):
    images, numbers, _ = digits
    chosen = [37, 5, 198]
    alone = record(SaccadeCamera(), images[chosen], [numbers[index] for index in chosen])
    for position, index in enumerate(chosen):
        np.testing.assert_array_equal(alone[position], recordings[index])


def test_noise_belongs_to_the_number_of_an_image_and_to_the_seed(digits):
    image = digits[0][:1]
    first = record(SaccadeCamera(), image, [0])
    assert not np.array_equal(first.events, record(SaccadeCamera(), image, [1]).events)
    assert not np.array_equal(first.events, record(SaccadeCamera(seed=1), image, [0]).events)


def test_events_are_those_of_this_data_version(recordings):
    # Anything that changes this digest on purpose raises DATA_VERSION.
    events = np.concatenate([recordings[index] for index in range(0, 200, 10)])
    digest = hashlib.sha256(events.tobytes()).hexdigest()
    assert digest[:16] == "517492aac25176a5"


def test_events_are_ordered_on_the_sensor_and_within_the_recording(recordings):
    events = recordings.events
    assert events["x"].max() <= 33
    assert events["y"].max() <= 33
    assert events["t"].max() <= 315_000
    assert all(np.all(np.diff(part["t"].astype(np.int64)) >= 0) for part in recordings)


def test_no_pixel_sends_within_its_refractory_period(recordings):
    shortest = min(pixel_intervals(events).min() for events in recordings)
    assert 1_700 - 1 <= shortest < 2_000


def test_simulated_recordings_resemble_a_genuine_one(recordings):
    genuine = genuine_events()
    assert genuine.size == 4_325
    counts = np.diff(recordings.offsets)
    assert abs(counts.mean() - genuine.size) < counts.std()
    assert abs(recordings.events["p"].mean() - genuine["p"].mean()) < 0.05
    simulated = np.concatenate([pixel_intervals(events) for events in recordings])
    quantiles = (0.1, 0.25, 0.5, 0.75)
    ratio = np.quantile(simulated, quantiles) / np.quantile(pixel_intervals(genuine), quantiles)
    assert np.all(np.abs(ratio - 1) < 0.15), ratio


def test_edges_move_as_in_the_genuine_recording(recordings):
    # The dark digit goes down, up and left: its front darkens (OFF), its back brightens (ON).
    for events in (genuine_events(), recordings.events):
        for saccade, (axis, sign) in enumerate((("y", 1), ("y", -1), ("x", -1))):
            time = events["t"].astype(np.int64) - saccade * 105_000
            middle = events[(time > 40_000) & (time < 65_000)]
            bright = middle["p"].astype(bool)
            ahead = middle[axis][~bright].mean() - middle[axis][bright].mean()
            assert sign * ahead > 1


def test_image_follows_the_path_with_a_raised_cosine_speed():
    path = camera_path(SaccadeCamera())
    assert path.shape == (316, 2)
    np.testing.assert_allclose(path[[0, 105, 210, 315]], [[0, 0], [3.5, 7], [7, 0], [0, 0]])
    speed = np.diff(path[:106, 1])
    expected = 7 / 105 * (1 - np.cos(2 * np.pi * (np.arange(105) + 0.5) / 105))
    np.testing.assert_allclose(speed, expected, atol=1e-4)


def small_camera(**settings):
    defaults = {
        "height": 9,
        "width": 10,
        "path_px": ((0.0, 0.0), (1.5, 2.0), (0.0, 0.5)),
        "saccade_us": 20_000,
        "threshold": 0.08,
        "leak_hz": 5.0,
        "mismatch": 0.0,
    }
    return SaccadeCamera(**(defaults | settings))


def plain_light(camera, image, x, y, offset):
    """Light on one sensor pixel: blur and bilinear interpolation written out."""
    share = camera.blur_px**2 / 2
    taps = ((-1, share), (0, 1 - 2 * share), (1, share))

    def grey(row, column):
        inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
        return image[row, column] / 255 if inside else 0.0

    def blurred(row, column):
        return sum(a * b * grey(row + i, column + j) for i, a in taps for j, b in taps)

    row, column = y - offset[1], x - offset[0]
    top, left = math.floor(row), math.floor(column)
    down, right = row - top, column - left
    value = (1 - down) * (1 - right) * blurred(top, left) + down * right * blurred(
        top + 1, left + 1
    )
    value += (1 - down) * right * blurred(top, left + 1) + down * (1 - right) * blurred(
        top + 1, left
    )
    return 1 - (1 - camera.black_level) * value


def plain_phases(camera, number):
    """Share of a threshold that each pixel has drifted when recording `number` starts."""
    seed = np.random.SeedSequence(camera.seed, spawn_key=(number,))
    return np.random.default_rng(seed).random((camera.height, camera.width), np.float32)


def plain_pixel(camera, level, phase):
    """Events of one pixel whose level, in thresholds, is given at every step."""
    memory, free, events = level[0] - phase, -math.inf, []
    for step, (before, after) in enumerate(pairwise(level)):
        while abs(after - memory) >= 1:
            sign = 1 if after > memory else -1
            memory += sign
            share = min(max((memory - before) / (after - before), 0), 1)
            time = (step + share) * camera.step_us
            if time >= free:
                events.append((time, sign > 0))
                free = time + camera.refractory_us
    return events


@pytest.mark.parametrize(("refractory_us", "count"), [(0.0, 832), (1_700.0, 455)])
def test_every_pixel_sends_what_a_plain_loop_says(refractory_us, count):
    camera = small_camera(refractory_us=refractory_us)
    image = np.random.default_rng(1).integers(0, 256, (6, 7), dtype=np.uint8)
    events = record(camera, image[None], [3])[0]
    phases = plain_phases(camera, 3)
    path = camera_path(camera)
    drift = camera.leak_hz * camera.step_us * 1e-6
    errors = []
    for y in range(camera.height):
        for x in range(camera.width):
            light = [plain_light(camera, image, x, y, offset) for offset in path]
            level = [
                math.log(value) / camera.threshold + drift * step
                for step, value in enumerate(light)
            ]
            expected = plain_pixel(camera, level, phases[y, x])
            here = events[(events["x"] == x) & (events["y"] == y)]
            assert here["p"].tolist() == [bright for _, bright in expected]
            errors.extend(abs(here["t"].astype(float) - [time for time, _ in expected]))
    # Levels are exact to 0.001 of a threshold; where the light changes slowly, that is some time.
    assert len(errors) == count
    assert np.median(errors) < 2
    assert max(errors) < 30


def test_light_that_jumps_many_thresholds_in_one_step_sends_them_all():
    camera = small_camera(
        refractory_us=0.0, leak_hz=0.0, blur_px=0.0, saccade_us=2_000, path_px=((0, 0), (4, 0))
    )
    image = np.zeros((9, 10), np.uint8)
    image[:, 4:6] = 255
    events = record(camera, image[None])[0]
    jumps = math.log(10) / camera.threshold  # 11.5 thresholds between stroke and screen
    phase = plain_phases(camera, 0)[3]
    for column, bright in ((4, True), (5, True), (8, False), (9, False)):
        here = events[(events["x"] == column) & (events["y"] == 3)]
        assert here["p"].tolist() == [bright] * here.size
        assert here.size == math.floor(jumps + (phase[column] if bright else -phase[column]))


def test_a_screen_without_a_digit_sends_leak_events_alone():
    camera = replace(SaccadeCamera(), leak_hz=2.0)
    events = record(camera, np.zeros((5, 28, 28), np.uint8)).events
    assert events["p"].all()
    expected = 5 * 34 * 34 * 2.0 * 0.315
    assert abs(events.size - expected) < 4 * math.sqrt(expected)


def test_recording_nothing_gives_nothing():
    assert len(record(SaccadeCamera(), np.zeros((0, 28, 28), np.uint8))) == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"height": 257}, "height"),
        ({"path_px": ((0, 0),)}, "path_px"),
        ({"path_px": ((0, 0), (-1, 0))}, "path_px"),
        ({"step_us": 400}, "step_us"),
        ({"black_level": 0.0}, "black_level"),
        ({"blur_px": 1.0}, "blur_px"),
        ({"threshold": 0.0}, "threshold"),
        ({"refractory_us": -1.0}, "refractory_us"),
    ],
)
def test_impossible_cameras_are_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=f"^{named} of the camera must be"):
        SaccadeCamera(**settings)


def test_other_than_8_bit_images_and_missing_numbers_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        record(SaccadeCamera(), np.zeros((1, 28, 28)))
    with pytest.raises(ValueError, match="numbers"):
        record(SaccadeCamera(), np.zeros((2, 28, 28), np.uint8), [1])
