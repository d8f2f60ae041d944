"""Ranges of numbers, the sequences that fill a space evenly, and the values that they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ._flat import is_whole

__all__ = [
    "Range",
    "SpaceSection",
    "WholeRange",
    "combination",
    "sequence",
    "value_at",
    "values_at",
]

_SIGNIFICANT_DIGITS = 4
_EXACT_POWERS = np.array([float(f"1e{power}") for power in range(23)])
"""Powers of ten that floating point has exactly."""

_NEAR_A_STEP = 1e-6
"""What is so near to where rounding changes is left to the decimal arithmetic of Python."""

_Floats = NDArray[np.float64]


class SpaceSection(BaseModel):
    """Keys of a space: unknown ones are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(SpaceSection):
    """Numbers between two bounds; whole numbers where the configuration asks for them."""

    whole: ClassVar[bool] = False

    low: float
    high: float
    log: Annotated[bool, Field(description="spread evenly over magnitudes")] = False

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("low must be positive on a log scale")
        return self

    @property
    def holds_whole(self) -> bool:
        """Whether there is a whole number between them."""
        return math.ceil(self.low) <= math.floor(self.high)

    def at(self, share: float) -> float:
        """Value at a share in [0, 1) of the way from `low` to `high`."""
        if self.log:
            return math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)

    def at_many(self, shares: _Floats) -> _Floats:
        """Values at many shares; the last bit may be another than that of `at`."""
        if self.log:
            exponents = math.log(self.low) + shares * math.log(self.high / self.low)
            return np.asarray(np.exp(exponents))
        return self.low + shares * (self.high - self.low)


class WholeRange(Range):
    """Whole numbers between two bounds, whatever the configuration asks for."""

    whole: ClassVar[bool] = True


def sequence(sampler: str, dimensions: int, start: int, stop: int, seed: int) -> _Floats:
    """Draw points of a sequence by number, `stop` excluded.

    Parameters
    ----------
    sampler : {"halton", "sobol"}
    dimensions, start, stop, seed : int

    Returns
    -------
    ndarray of float, shape (stop - start, dimensions)
        Shares in [0, 1); the same for a number, whatever is drawn with it.
    """
    from scipy.stats import qmc

    points = stop - start
    if sampler == "halton":
        drawn = qmc.Halton(dimensions, scramble=True, rng=seed).fast_forward(start).random(points)
    elif start:
        drawn = qmc.Sobol(dimensions, scramble=True, rng=seed).fast_forward(start).random(points)
    else:  # whole powers of two are what Sobol points are balanced for
        engine = qmc.Sobol(dimensions, scramble=True, rng=seed)
        drawn = engine.random_base2(math.ceil(math.log2(points)))[:points]
    return np.asarray(drawn, dtype=np.float64)


def combination(choices: Sequence[Sequence[Any]], number: int) -> list[Any]:
    """One of all combinations, counted with the last one changing fastest."""
    chosen = []
    for options in reversed(choices):
        number, place = divmod(number, len(options))
        chosen.append(options[place])
    return chosen[::-1]


def value_at(key: str, variation: tuple[Any, ...] | Range, share: float) -> Any:
    """Value of a knob for a share in [0, 1)."""
    if not isinstance(variation, Range):
        return variation[int(share * len(variation))]
    if variation.whole or is_whole(key):
        bounds = Range(low=variation.low, high=variation.high + 1, log=variation.log)
        return min(max(math.floor(bounds.at(share)), math.ceil(variation.low)),
                   math.floor(variation.high))  # fmt: skip
    rounded = float(f"{variation.at(share):.{_SIGNIFICANT_DIGITS}g}")
    return min(max(rounded, variation.low), variation.high)


def values_at(key: str, variation: Range, shares: _Floats) -> NDArray[Any]:
    """Values of a range for many shares: those of `value_at`, one by one."""
    found: NDArray[Any]
    if variation.whole or is_whole(key):
        bounds = Range(low=variation.low, high=variation.high + 1, log=variation.log)
        exact = bounds.at_many(shares)
        near = np.abs(exact - np.rint(exact)) < 1e-9 + 1e-13 * np.abs(exact)
        low, high = math.ceil(variation.low), math.floor(variation.high)
        found = np.clip(np.floor(exact), low, high).astype(np.int64)
    else:
        rounded, near = _rounded(variation.at_many(shares))
        found = np.clip(rounded, variation.low, variation.high)
    for place in np.flatnonzero(near).tolist():
        found[place] = value_at(key, variation, float(shares[place]))
    return found


def _rounded(exact: _Floats) -> tuple[_Floats, NDArray[np.bool_]]:
    """Round to significant digits as text does, and tell where that is not certain."""
    with np.errstate(all="ignore"):
        power = np.floor(np.log10(np.abs(exact))) - (_SIGNIFICANT_DIGITS - 1)
        certain = np.isfinite(power) & (np.abs(power) < len(_EXACT_POWERS) - _SIGNIFICANT_DIGITS)
        power = np.where(certain, power, 0).astype(np.int64)
        scale = _EXACT_POWERS[np.abs(power)]
        digits = np.where(power < 0, exact * scale, exact / scale)
        whole = np.rint(digits)
        certain &= np.abs(np.abs(digits - whole) - 0.5) > _NEAR_A_STEP
        # A whole number divided by an exact power is the float nearest to that decimal number
        rounded = np.where(power < 0, whole / scale, whole * scale)
    return rounded, ~certain
