"""The learned half: how often the neurons of each layer will spike, and what else training decides.

Boosted trees (XGBoost) read the rows of `layer_features`, one per weighted layer. Every quantity
that is learned is a head, an ensemble of its own:

========== ==========================================================================
``firing``   logit of the firing rate of a layer, before pooling
``output``   logit of the rate of its output lines, after pooling: what the next layer receives
``taps``     log of the kernel taps per spike that enters, relative to spikes spread evenly
``early``,   how the spikes that leave a layer are spread over steps: two coefficients of
``late``     `Profile`
``accuracy`` logit of the test accuracy of the integer network; of the row of the last layer
``spread``   log of how far cycles may be off; of the row of the last layer
========== ==========================================================================

Everything behind that is computed, not learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .ensemble import FEW_ROWS, Ensemble, Forest, join
from .features import POOL_COLUMN

__all__ = [
    "HEADS",
    "RATE_FLOOR",
    "Predicted",
    "SparsityModel",
    "accuracy_interval",
    "factor_of",
    "logistic",
    "logit",
    "rate_of",
]

HEADS = ("firing", "output", "taps", "early", "late", "accuracy", "spread")
"""What is learned, in the order of the columns of `SparsityModel.heads`."""

RATE_FLOOR = 1e-3
"""Rates below are taken as this: such a layer is silent for all that its cycles show."""

_ROUNDING = 1e-12
_LARGEST_LOG = 5.0
_LARGEST_ODDS = 500.0

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """What the heads say of some rows; arrays have shape (rows,).

    Attributes
    ----------
    firing_rate, output_rate : ndarray of float
        Spikes per neuron or output line and step, in [`RATE_FLOOR`, 1]; equal where there is no
        pooling. Pooling passes at least each neuron's share of a square, and at most all of its
        spikes, and the firing rate is held to that.
    tap_ratio : ndarray of float
        Kernel taps inside the frame per spike that enters, relative to spikes spread evenly.
    course : ndarray of float, shape (rows, 2)
        Coefficients of `Profile` of the spikes that leave.
    accuracy, spread : ndarray of float
        Of the rows of last layers: accuracy in (0, 1), and by what the error of log cycles is to
        be divided before errors of different networks compare.
    """

    firing_rate: _Floats
    output_rate: _Floats
    tap_ratio: _Floats
    course: _Floats
    accuracy: _Floats
    spread: _Floats

    def with_output(self, rates: _Floats) -> Predicted:
        """Give the same with other rates of the output lines."""
        return replace(self, output_rate=rates)

    def rows(self, start: int, stop: int) -> Predicted:
        """Give some of the rows."""
        part = slice(start, stop)
        return Predicted(
            firing_rate=self.firing_rate[part],
            output_rate=self.output_rate[part],
            tap_ratio=self.tap_ratio[part],
            course=self.course[part],
            accuracy=self.accuracy[part],
            spread=self.spread[part],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SparsityModel:
    """Everything that is learned, for any layer.

    Attributes
    ----------
    ensembles : mapping of str to Ensemble
        By name of the head, all of `HEADS`.
    """

    ensembles: Mapping[str, Ensemble]

    def heads(self, features: NDArray[np.float32]) -> _Floats:
        """Evaluate all heads.

        Parameters
        ----------
        features : ndarray of float32, shape (rows, features)
            As `layer_features` gives them.

        Returns
        -------
        ndarray of float, shape (rows, heads)
            In the order of `HEADS`, each on its own scale.
        """
        if len(features) <= FEW_ROWS:
            return self._forest.values(features)
        columns = np.ascontiguousarray(features.T)
        return np.stack([self.ensembles[name].values_of_many(columns) for name in HEADS], axis=1)

    def predict(self, features: NDArray[np.float32]) -> Predicted:
        """Predict rates and what else is learned of every row; see `heads`."""
        values = self.heads(features)
        pool = features[:, POOL_COLUMN]
        rates = rate_of(values[:, :2])
        firing, output = rates[:, 0], rates[:, 1]
        output = np.where(pool == 1, firing, output)
        firing = np.minimum(np.maximum(firing, output / pool**2), output)
        firing = np.maximum(firing, RATE_FLOOR)
        bounded = factor_of(values[:, [2, 6]])
        return Predicted(
            firing_rate=firing,
            output_rate=output,
            tap_ratio=bounded[:, 0],
            course=values[:, 3:5],
            accuracy=logistic(values[:, 5]),
            spread=bounded[:, 1],
        )

    @cached_property
    def _forest(self) -> Forest:
        return join([self.ensembles[name] for name in HEADS])


def logit(rate: _Floats) -> _Floats:
    """Log odds of a rate, which is kept `RATE_FLOOR` away from 0 and 1."""
    inside = np.minimum(np.maximum(rate, RATE_FLOOR), 1 - RATE_FLOOR)
    odds: _Floats = np.log(inside / (1 - inside))
    return odds


def logistic(odds: _Floats) -> _Floats:
    """Rate from its log odds."""
    rate: _Floats = 1 / (1 + np.exp(np.minimum(-odds, _LARGEST_ODDS)))
    return rate


def accuracy_interval(
    expected: _Floats, half_width: _Floats | float
) -> tuple[_Floats, _Floats, _Floats]:
    """Accuracy and the ends of its interval, whose half width is one of log odds.

    Log odds keep `RATE_FLOOR` away from 0 and 1, so an end that comes as close stands for all that
    lies behind it.
    """
    odds = logit(expected)
    low, high = logistic(odds - half_width), logistic(odds + half_width)
    return (
        logistic(odds),
        np.where(low <= RATE_FLOOR + _ROUNDING, 0.0, low),
        np.where(high >= 1 - RATE_FLOOR - _ROUNDING, 1.0, high),
    )


def rate_of(odds: _Floats) -> _Floats:
    """Rate from its log odds, in [`RATE_FLOOR`, 1]."""
    rate: _Floats = np.minimum(np.maximum(logistic(odds), RATE_FLOOR), 1.0)
    return rate


def factor_of(logs: _Floats) -> _Floats:
    """Factor from its logarithm, which is kept within `_LARGEST_LOG` of 0."""
    factor: _Floats = np.exp(np.minimum(np.maximum(logs, -_LARGEST_LOG), _LARGEST_LOG))
    return factor
