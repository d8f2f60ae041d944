"""How the trees of each head are grown: a few candidates, chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..predictor.ensemble import TreeSettings
from ..predictor.sparsity import SparsityModel
from .learning import Lessons, folds, grow_head, predicted_log_cycles, teach
from .observed import Observed

__all__ = ["DEFAULT_SETTINGS", "HeadSettings", "tuned"]

HeadSettings = Mapping[str, TreeSettings]
"""By name of the head, all but ``spread``."""

_FOLDS = 5
_FEWEST_POINTS = 60
_SMALL = TreeSettings(rounds=100)

DEFAULT_SETTINGS: HeadSettings = {
    "firing": TreeSettings(),
    "output": TreeSettings(),
    "taps": _SMALL,
    "early": _SMALL,
    "late": _SMALL,
    "accuracy": TreeSettings(rounds=200),
}
"""What is used of few points, and where nothing is tuned."""

_CANDIDATES = (
    TreeSettings(),
    TreeSettings(rounds=150, eta=0.1),
    TreeSettings(max_depth=4, eta=0.04),
    TreeSettings(max_depth=4, eta=0.04, min_child_weight=10),
    TreeSettings(max_depth=2, eta=0.1),
    TreeSettings(colsample_bytree=0.4),
    TreeSettings(max_depth=4, eta=0.04, colsample_bytree=0.4, subsample=0.6),
    TreeSettings(reg_lambda=10.0, subsample=0.6),
)


def tuned(given: Lessons, observed: Observed) -> HeadSettings:
    """Choose settings for the heads on which cycles and accuracy depend.

    Parameters
    ----------
    given : Lessons
        What is there to learn from; nothing else is looked at.
    observed : Observed
        The same runs. Seeds of one point are in one fold.

    Returns
    -------
    mapping of str to TreeSettings
        The default ones where there are too few points to choose by. The first candidate where the
        best one is not better by more than a standard error.
    """
    if len(np.unique(observed.groups)) < _FEWEST_POINTS:
        return DEFAULT_SETTINGS
    errors = np.zeros((2, len(_CANDIDATES), len(observed)))
    everything = np.arange(len(observed))
    for held_out in folds(observed.groups, _FOLDS, seed=1):
        seen = np.setdiff1d(everything, held_out)
        model = teach(given, seen, DEFAULT_SETTINGS)
        ends = given.ends[held_out] - 1
        for number, candidate in enumerate(_CANDIDATES):
            # What leaves a layer is the one head or the other: pooled, or not
            rates = {name: grow_head(given, seen, name, candidate) for name in ("firing", "output")}
            changed = SparsityModel(ensembles={**model.ensembles, **rates})
            log_cycles, _ = predicted_log_cycles(given, held_out, changed)
            errors[0, number, held_out] = (observed.log_cycles[held_out] - log_cycles) ** 2
            accuracy = grow_head(given, seen, "accuracy", candidate).values(given.features[ends])
            errors[1, number, held_out] = (given.targets["accuracy"][ends] - accuracy) ** 2
    cycles, whole = (_CANDIDATES[_clearly_best(each, observed.groups)] for each in errors)
    return {**DEFAULT_SETTINGS, "firing": cycles, "output": cycles, "accuracy": whole}


def _clearly_best(errors: NDArray[np.float64], groups: NDArray[np.int64]) -> int:
    """Choose the candidate that beats the first by more than a standard error, or the first.

    Parameters
    ----------
    errors : ndarray of float, shape (candidates, runs)
        Squared.
    groups : ndarray of int, shape (runs,)
        Runs of one point, whose errors are alike.
    """
    best = int(errors.mean(axis=1).argmin())
    _, member = np.unique(groups, return_inverse=True)
    gains = np.bincount(member, errors[0] - errors[best])
    return best if gains.sum() > gains.std() * np.sqrt(len(gains)) else 0
