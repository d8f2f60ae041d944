"""How the spikes of a layer are spread over the steps of an inference, in two numbers.

Membranes fill before they spike, inputs come and go: spikes are rarely spread evenly. The course
over time, relative to its mean, is a mean course and two components, found by principal component
analysis of the measured courses; the coefficients are learned like rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["COMPONENTS", "Profile", "fit_profile"]

COMPONENTS = 2
_POINTS = 16
_ROUNDING = 1e-6

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Courses over time as a mean and two components, on `_POINTS` equal parts of an inference.

    Attributes
    ----------
    mean : ndarray of float, shape (points,)
        Relative to the mean over time: it averages to 1.
    components : ndarray of float, shape (2, points)
        Orthonormal; they average to 0.
    """

    mean: _Floats
    components: _Floats

    def __post_init__(self) -> None:
        mean, components = self.mean, self.components
        if mean.shape != (_POINTS,) or components.shape != (COMPONENTS, _POINTS):
            raise ValueError(f"a profile must have a mean and {COMPONENTS} components of {_POINTS}")
        # So written, NaN is refused too, and nothing overflows on the way.
        within = mean.min() >= 0 and mean.max() <= _POINTS
        if not (within and abs(mean.mean() - 1) <= _ROUNDING):
            raise ValueError("a profile must have a mean that is not negative and averages to 1")
        within = np.abs(components).max() <= 1 + _ROUNDING
        if not (
            within and np.allclose(components @ components.T, np.eye(COMPONENTS), atol=_ROUNDING)
        ):
            raise ValueError("a profile must have orthonormal components")
        self.mean.setflags(write=False)
        self.components.setflags(write=False)

    def over_steps(self, coefficients: _Floats, time_steps: int) -> _Floats:
        """Spread spikes over steps.

        Parameters
        ----------
        coefficients : ndarray of float, shape (rows, 2)
            Of each course.
        time_steps : int
            Steps of the inference.

        Returns
        -------
        ndarray of float, shape (rows, time_steps)
            Not negative; the mean over steps is 1.
        """
        course = np.maximum(self.mean + coefficients @ self.components, 0.0)
        steps = course @ _averaging(_POINTS, time_steps)
        total = steps.sum(axis=1, keepdims=True)
        spread: _Floats = np.where(total > 0, steps * (time_steps / np.maximum(total, 1e-9)), 1.0)
        return spread


def fit_profile(courses: Sequence[_Floats]) -> tuple[Profile, _Floats]:
    """Find mean and components of measured courses.

    Parameters
    ----------
    courses : sequence of ndarray of float, shape (time_steps,)
        Spikes per step; courses without any say nothing.

    Returns
    -------
    profile : Profile
    coefficients : ndarray of float, shape (courses, 2)
        Of each course; 0 where there was none.
    """
    relative = np.ones((len(courses), _POINTS))
    counts = np.array([float(course.sum()) for course in courses])
    for row, course in zip(relative, courses, strict=True):
        if course.sum() > 0:
            row[:] = (course / course.mean()) @ _averaging(len(course), _POINTS)
    seen = relative[counts > 0] if (counts > 0).any() else relative
    mean = seen.mean(axis=0)
    _, _, directions = np.linalg.svd(seen - mean, full_matrices=True)
    components = directions[:COMPONENTS]
    # A component and its opposite are as good: the last part of an inference decides.
    components *= np.where(components[:, -1:] < 0, -1.0, 1.0)
    coefficients = (relative - mean) @ components.T
    coefficients[counts == 0] = 0.0
    return Profile(mean=mean, components=components), coefficients


@lru_cache(maxsize=256)
def _averaging(parts: int, wanted: int) -> _Floats:
    """Means over other equal parts of the same time: a matrix of shape (parts, wanted)."""
    edges, targets = np.linspace(0, 1, parts + 1), np.linspace(0, 1, wanted + 1)
    low = np.maximum(edges[:-1, None], targets[None, :-1])
    high = np.minimum(edges[1:, None], targets[None, 1:])
    shares: _Floats = np.maximum(high - low, 0.0) * wanted
    shares.setflags(write=False)
    return shares
