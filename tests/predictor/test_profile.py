from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spikemeter.predictor.profile import COMPONENTS, Profile, fit_profile

POINTS = 16


def profile(mean=None, components=None) -> Profile:
    first = np.repeat([-0.25, 0.25], POINTS // 2)
    second = np.tile(np.repeat([-0.25, 0.25], POINTS // 4), 2)
    return Profile(
        mean=np.ones(POINTS) if mean is None else np.asarray(mean, dtype=np.float64),
        components=np.stack([first, second]) if components is None else components,
    )


def courses(count=40, steps=(4, 8, 10, 16), seed=0):
    """Courses that rise and bend, by as much as two numbers say."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        time = (np.arange(steps[number % len(steps)]) + 0.5) / steps[number % len(steps)]
        rise, bend = rng.uniform(-0.6, 0.6, 2)
        shape = 1 + rise * (time - 0.5) + bend * np.cos(2 * np.pi * time)
        found.append(rng.uniform(10, 1000) * shape)
    return found


def test_courses_are_described_by_two_numbers():
    given = courses()
    found, coefficients = fit_profile(given)
    assert coefficients.shape == (40, COMPONENTS)
    relative = np.concatenate([course / course.mean() for course in given])
    rebuilt, even = (
        np.concatenate(
            [
                found.over_steps(row[None], len(course))[0]
                for course, row in zip(given, rows, strict=True)
            ]
        )
        for rows in (coefficients, np.zeros_like(coefficients))
    )
    assert np.sqrt(np.mean((rebuilt - relative) ** 2)) < 0.05
    assert np.sqrt(np.mean((even - relative) ** 2)) > 0.2  # of the mean course alone


def test_the_components_are_those_that_explain_most():
    found, coefficients = fit_profile(courses(steps=(POINTS,)))
    measured = np.stack([each / each.mean() for each in courses(steps=(POINTS,))])
    centred = measured - measured.mean(axis=0)
    variances = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    explained = (coefficients**2).sum(axis=0)
    np.testing.assert_allclose(explained, variances[:COMPONENTS], rtol=1e-6)
    np.testing.assert_allclose(found.mean, measured.mean(axis=0))


def test_how_many_spikes_there_were_is_of_no_matter():
    given = courses()
    found, coefficients = fit_profile(given)
    other, others = fit_profile([1000 * course for course in given])
    np.testing.assert_allclose(other.mean, found.mean)
    np.testing.assert_allclose(others, coefficients, atol=1e-9)


def test_silent_layers_say_nothing():
    silent = [np.zeros(8), *courses(), np.zeros(4)]
    found, coefficients = fit_profile(silent)
    alone, others = fit_profile(courses())
    np.testing.assert_allclose(found.mean, alone.mean)
    np.testing.assert_allclose(coefficients[1:-1], others, atol=1e-9)
    assert (coefficients[[0, -1]] == 0).all()


@pytest.mark.parametrize("given", [[np.zeros(8)], [np.ones(8)], [np.arange(5.0)]])
def test_little_to_learn_from_is_enough(given):
    found, coefficients = fit_profile(given)
    again = found.over_steps(coefficients, len(given[0]))[0]
    expected = given[0] / given[0].mean() if given[0].any() else np.ones(len(given[0]))
    # Five steps fit no sixteen points: what is taken apart there cannot all be put together again.
    np.testing.assert_allclose(again, expected, atol=1e-9 if len(again) == 8 else 0.12)


def test_a_component_rises_towards_the_end():
    for seed in range(6):
        found, _ = fit_profile(courses(12, seed=seed))
        assert (found.components[:, -1] >= 0).all()


@pytest.mark.parametrize("steps", [1, 3, 8, 16, 24, 1000])
def test_a_course_keeps_its_mean_over_any_number_of_steps(steps):
    spread = profile().over_steps(np.array([[0.5, 0.2], [-3.0, 1.0], [0.0, 0.0]]), steps)
    assert spread.shape == (3, steps)
    np.testing.assert_allclose(spread.mean(axis=1), 1.0)
    np.testing.assert_allclose(spread[2], 1.0)


def test_steps_are_means_over_their_part_of_the_time():
    coefficients = np.array([[2.0, 0.0]])  # half a spike in the first half, one and a half then
    np.testing.assert_allclose(profile().over_steps(coefficients, 2), [[0.5, 1.5]])
    np.testing.assert_allclose(profile().over_steps(coefficients, 3), [[0.5, 1.0, 1.5]])


def test_no_step_has_fewer_than_no_spikes():
    spread = profile().over_steps(np.array([[100.0, 0.0], [-100.0, 0.0]]), 4)
    np.testing.assert_allclose(spread, [[0, 0, 2, 2], [2, 2, 0, 0]], atol=1e-9)


@given(
    arrays(np.float64, (3, COMPONENTS), elements=st.floats(-500, 500)),
    st.integers(1, 40),
)
def test_every_course_that_heads_may_say_is_one(coefficients, steps):
    spread = profile().over_steps(coefficients, steps)
    assert np.isfinite(spread).all()
    assert (spread >= 0).all()
    np.testing.assert_allclose(spread.mean(axis=1), 1.0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"mean": np.ones(POINTS - 1)}, "a mean and 2 components of 16"),
        ({"components": np.eye(POINTS)[:1]}, "a mean and 2 components of 16"),
        ({"components": np.eye(POINTS)[:3]}, "a mean and 2 components of 16"),
        ({"mean": np.full(POINTS, np.nan)}, "averages to 1"),
        ({"mean": np.full(POINTS, np.inf)}, "averages to 1"),
        ({"mean": np.full(POINTS, 1e308)}, "averages to 1"),
        ({"mean": np.full(POINTS, 1.1)}, "averages to 1"),
        ({"mean": [-1.0, 3.0] * 8}, "not negative"),
        ({"components": np.zeros((2, POINTS))}, "orthonormal"),
        ({"components": np.full((2, POINTS), 0.25)}, "orthonormal"),
        ({"components": np.full((2, POINTS), 1e300)}, "orthonormal"),
        ({"components": np.full((2, POINTS), np.nan)}, "orthonormal"),
    ],
)
def test_an_impossible_profile_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        profile(**values)


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        profile().mean[0] = 2
