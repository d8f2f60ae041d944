"""The learned half: how often the neurons of each layer will spike.

Two sets of boosted trees (XGBoost) read the rows of `layer_features` and give, as logits, the
firing rate of a layer before pooling and the rate of its output lines after pooling, which is
what the next layer receives. Everything behind that is computed, not learned.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .features import POOL_COLUMN

if TYPE_CHECKING:
    import xgboost

__all__ = ["RATE_FLOOR", "SparsityModel", "fit_sparsity", "load_booster", "logit", "sparsity_model"]

RATE_FLOOR = 1e-3
"""Rates below are taken as this: such a layer is silent for all that its cycles show."""

_DEPTH = 3
_ROUNDS = 300
# Shallow and strongly regularised: a table has tens to hundreds of rows per layer position.
_PARAMETERS = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "max_depth": _DEPTH,
    "eta": 0.05,
    "min_child_weight": 3,
    "lambda": 2.0,
    "subsample": 0.8,
    "colsample_bytree": 0.7,
    "nthread": 1,
    "seed": 0,
}
_SMALL_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Forest:
    """All trees of both models as arrays, for a few rows at a time.

    Handing three rows to XGBoost costs more than evaluating them. Every tree is padded to full
    depth, all its comparisons are made at once, and their bits look up the leaf.

    Attributes
    ----------
    feature, threshold : ndarray, shape (trees * 8,)
        Node n of a tree compares at 8 * tree + n, in heap order; the eighth is padding.
    leaf : ndarray of float32, shape (trees * 8,)
        Values from left to right.
    first_leaf : ndarray of int, shape (trees,)
        Where the leaves of each tree begin.
    bias : ndarray of float, shape (2,)
        Base score of each model.
    """

    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float32]
    first_leaf: NDArray[np.intp]
    bias: NDArray[np.float64]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum the leaves that every row reaches, shape (rows, 2)."""
        rows = len(features)
        trees = len(self.first_leaf)
        right = features.take(self.feature, axis=1) >= self.threshold
        path = np.packbits(right.reshape(-1), bitorder="little").reshape(rows, trees)
        reached = self.leaf.take(_LEAF_OF_PATH.take(path) + self.first_leaf)
        halves = reached.reshape(rows, 2, trees // 2)
        logits: NDArray[np.float64] = halves.sum(axis=2, dtype=np.float64) + self.bias
        return logits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparsityModel:
    """Firing rate before and output rate after pooling, for any layer.

    Attributes
    ----------
    firing, output : xgboost.Booster
        Logit of the firing rate, and of the rate after pooling.
    """

    firing: xgboost.Booster
    output: xgboost.Booster
    _forest: _Forest

    @property
    def features_read(self) -> int:
        """Columns that a feature row must have at least."""
        return int(self._forest.feature.max()) + 1

    def rates(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predict both rates of every row.

        Parameters
        ----------
        features : ndarray of float32, shape (rows, features)
            As `layer_features` gives them.

        Returns
        -------
        firing_rate, output_rate : ndarray of float, shape (rows,)
            Spikes per neuron or output line and step, in [`RATE_FLOOR`, 1]; equal where there is
            no pooling. Pooling passes at least each neuron's share of a square, and at most all
            of its spikes, and the firing rate is held to that.
        """
        if len(features) <= _SMALL_BATCH:
            logits = self._forest.logits(features)
        else:
            logits = np.stack(
                [model.inplace_predict(features) for model in (self.firing, self.output)], axis=1
            )
        pool = features[:, POOL_COLUMN]
        rates = np.clip(1 / (1 + np.exp(-logits)), RATE_FLOOR, 1.0)
        firing, output = rates[:, 0], rates[:, 1]
        output = np.where(pool == 1, firing, output)
        firing = np.maximum(np.clip(firing, output / pool**2, output), RATE_FLOOR)
        return firing, output

    def save(self) -> tuple[bytes, bytes]:
        """Both models as XGBoost's UBJSON: firing rate, output rate."""
        return bytes(self.firing.save_raw("ubj")), bytes(self.output.save_raw("ubj"))


def fit_sparsity(
    features: NDArray[np.float32],
    firing_rate: NDArray[np.float64],
    output_rate: NDArray[np.float64],
) -> SparsityModel:
    """Learn both rates from measured ones.

    Parameters
    ----------
    features : ndarray of float32, shape (rows, features)
        One row per weighted layer and run.
    firing_rate, output_rate : ndarray of float, shape (rows,)
        Measured before and after pooling, in [0, 1].

    Returns
    -------
    SparsityModel
        The same for the same rows, on one thread.
    """
    firing, output = (_fit_booster(features, logit(rate)) for rate in (firing_rate, output_rate))
    return sparsity_model(firing, output)


def sparsity_model(firing: xgboost.Booster, output: xgboost.Booster) -> SparsityModel:
    """Join two boosters to a model.

    Raises
    ------
    ValueError
        If they are no regression trees of the depth that this version fits.
    """
    return SparsityModel(firing=firing, output=output, _forest=_forest(firing, output))


def load_booster(content: bytes) -> xgboost.Booster:
    """Read a model that was kept as UBJSON.

    Raises
    ------
    ValueError
        If XGBoost cannot read it.
    """
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(content))
        booster.set_param({"nthread": 1})
    except xgboost.core.XGBoostError as error:
        raise ValueError("XGBoost cannot read it") from error
    return booster


def _fit_booster(features: NDArray[np.float32], target: NDArray[np.float64]) -> xgboost.Booster:
    import xgboost

    rows = xgboost.DMatrix(features, label=target, nthread=1)
    return xgboost.train(_PARAMETERS, rows, num_boost_round=_ROUNDS)


def logit(rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds of a rate, which is kept `RATE_FLOOR` away from 0 and 1."""
    inside = np.clip(rate, RATE_FLOOR, 1 - RATE_FLOOR)
    return np.log(inside / (1 - inside))


def _leaf_of_path() -> NDArray[np.intp]:
    """Leaf, from left to right, that each set of comparisons leads to (bit n: node n is right)."""
    leaves = np.zeros(256, dtype=np.intp)
    for path in range(256):
        node = 0
        for _ in range(_DEPTH):
            node = 2 * node + 1 + (path >> node & 1)
        leaves[path] = node - (2**_DEPTH - 1)
    return leaves


_LEAF_OF_PATH = _leaf_of_path()


def _forest(firing: xgboost.Booster, output: xgboost.Booster) -> _Forest:
    feature: list[int] = []
    threshold: list[float] = []
    leaf: list[float] = []
    bias = []
    if firing.num_boosted_rounds() != output.num_boosted_rounds():
        raise ValueError("the two models must have equally many trees")
    for booster in (firing, output):
        content = json.loads(bytes(booster.save_raw("json")))["learner"]
        bias.append(float(content["learner_model_param"]["base_score"].strip("[]")))
        for tree in content["gradient_booster"]["model"]["trees"]:
            nodes, values = _padded(tree)
            feature += [node[0] for node in nodes] + [0]
            threshold += [node[1] for node in nodes] + [np.inf]
            leaf += values
    return _Forest(
        feature=np.array(feature, dtype=np.intp),
        threshold=np.array(threshold, dtype=np.float32),
        leaf=np.array(leaf, dtype=np.float32),
        first_leaf=np.arange(0, len(leaf), 2**_DEPTH, dtype=np.intp),
        bias=np.array(bias),
    )


def _padded(tree: dict[str, Any]) -> tuple[list[tuple[int, float]], list[float]]:
    """Comparisons in heap order and leaves from left to right of a tree of full depth.

    A leaf that stands higher up compares nothing (left always) and is repeated below.
    """
    level = [0]
    nodes: list[tuple[int, float]] = []
    for _ in range(_DEPTH):
        below = []
        for node in level:
            left, right = tree["left_children"][node], tree["right_children"][node]
            if left < 0:
                nodes.append((0, np.inf))
                below += [node, node]
            else:
                nodes.append((tree["split_indices"][node], tree["split_conditions"][node]))
                below += [left, right]
        level = below
    if any(tree["left_children"][node] >= 0 for node in level):
        raise ValueError(f"a tree is deeper than {_DEPTH}")
    return nodes, [tree["split_conditions"][node] for node in level]
