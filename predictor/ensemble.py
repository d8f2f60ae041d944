"""Boosted regression trees, as XGBoost keeps them, read without trusting them.

XGBoost's own reader takes what it is given, and a predictor may come from a stranger. So XGBoost
never sees the bytes that were read: the trees in them are checked node by node, everything else is
left behind, and XGBoost gets them written anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .ubjson import read_ubjson, write_ubjson

if TYPE_CHECKING:
    import xgboost

__all__ = [
    "FEW_ROWS",
    "Ensemble",
    "Forest",
    "Tree",
    "TreeSettings",
    "fit_head",
    "join",
    "read_ensemble",
]

_MOST_DEPTH = 4
_MOST_TREES = 5_000
_MOST_FEATURES = 10_000
_LARGEST_SUM = 500.0
"""Of the largest leaves of all trees and the bias: the exponential of a sum stays finite."""

FEW_ROWS = 256
"""So many are evaluated faster with all trees at once than tree by tree."""

_SAME_COVER = 1e-3
_KIND = ("reg:squarederror", "gbtree", "0", "1")
"""Objective, booster, classes and targets of every ensemble here."""

# What any XGBoost from 3.0 on reads; later ones write the base score as a list.
_FORMAT = (3, 0, 0)
_NO_PARENT = 2**31 - 1

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """How an ensemble is grown; the names are XGBoost's.

    Shallow and strongly regularised: a table has hundreds of rows per layer position.
    """

    rounds: int = 300
    max_depth: int = 3
    eta: float = 0.05
    min_child_weight: float = 3
    reg_lambda: float = 2.0
    subsample: float = 0.8
    colsample_bytree: float = 0.7

    def parameters(self) -> dict[str, Any]:
        """Parameters for ``xgboost.train``."""
        return {
            "objective": "reg:squarederror",
            "tree_method": "hist",
            "max_depth": self.max_depth,
            "eta": self.eta,
            "min_child_weight": self.min_child_weight,
            "lambda": self.reg_lambda,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample_bytree,
            "nthread": 1,
            "seed": 0,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """One tree; arrays have shape (nodes,), and every node but the first is below an earlier one.

    Attributes
    ----------
    left, right : ndarray of int
        Nodes below; -1 at a leaf.
    feature : ndarray of int
        What a node compares.
    condition : ndarray of float32
        Threshold, at or above which a row goes right; at a leaf, its value.
    cover : ndarray of float32
        Weight of the rows that reached the node when it was grown; SHAP values rest on it.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    condition: NDArray[np.float32]
    cover: NDArray[np.float32]

    @property
    def depth(self) -> int:
        """Comparisons from the root to the lowest leaf."""
        level, depth = [0], 0
        while level := [
            child for node in level if self.left[node] >= 0
            for child in (int(self.left[node]), int(self.right[node]))
        ]:  # fmt: skip
            depth += 1
        return depth

    def padded(self, depth: int) -> tuple[list[int], list[float], list[float]]:
        """Features and thresholds in heap order, and leaves, of a tree of full depth.

        A leaf that stands higher up compares nothing (left always) and is repeated below.
        """
        left, right = self.left.tolist(), self.right.tolist()
        compared, condition = self.feature.tolist(), self.condition.tolist()
        level = [0]
        feature: list[int] = []
        threshold: list[float] = []
        for _ in range(depth):
            below = []
            for node in level:
                inner = left[node] >= 0
                feature.append(compared[node] if inner else 0)
                threshold.append(condition[node] if inner else math.inf)
                below += [left[node], right[node]] if inner else [node, node]
            level = below
        return feature, threshold, [condition[node] for node in level]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forest:
    """All trees of some ensembles as arrays, for a few rows at a time.

    Handing three rows to XGBoost costs more than evaluating them. Every tree is padded to full
    depth, all its comparisons are made at once, and their bits look up the leaf.

    Attributes
    ----------
    feature, threshold : ndarray, shape (trees * nodes,)
        Node n of a tree compares at nodes * tree + n, in heap order; the last is padding, so that
        nodes is a whole number of bytes.
    leaf : ndarray of float32, shape (trees * leaves,)
        Values from left to right.
    first_leaf : ndarray of int, shape (trees,)
        Where the leaves of each tree begin.
    leaf_of_path : ndarray of int
        Leaf, from left to right, that each set of comparisons leads to (bit n: node n is right).
    starts : ndarray of int, shape (ensembles,)
        First tree of each ensemble.
    bias : ndarray of float, shape (ensembles,)
        Base score of each ensemble.
    """

    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float32]
    first_leaf: NDArray[np.intp]
    leaf_of_path: NDArray[np.intp]
    starts: NDArray[np.intp]
    bias: _Floats

    def values(self, features: NDArray[np.float32]) -> _Floats:
        """Sum the leaves that every row reaches, shape (rows, ensembles)."""
        rows, trees = len(features), len(self.first_leaf)
        if not rows:
            return np.empty((0, len(self.bias)))
        right = features.take(self.feature, axis=1) >= self.threshold
        bits = np.packbits(right.reshape(-1), bitorder="little")
        path = bits.view(f"<u{len(bits) // (rows * trees)}").reshape(rows, trees)
        reached = self.leaf.take(self.leaf_of_path.take(path) + self.first_leaf)
        sums: _Floats = np.add.reduceat(reached, self.starts, axis=1, dtype=np.float64)
        return sums + self.bias


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """Regression trees that were checked; their leaves and a bias add up.

    Attributes
    ----------
    trees : tuple of Tree
    features : int
        Columns of the rows that it reads.
    bias : float
        What is added to the leaves.
    feature : ndarray of int, shape (trees, nodes)
        What each node compares, in heap order; every tree is padded to one depth.
    threshold : ndarray of float32, shape (trees, nodes)
        At or above it a row goes right; infinite where a leaf stands higher up.
    leaf : ndarray of float32, shape (trees, leaves)
        From left to right.
    """

    trees: tuple[Tree, ...]
    features: int
    bias: float
    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float32]

    @property
    def depth(self) -> int:
        """Comparisons from root to leaf."""
        leaves: int = self.leaf.shape[1]
        return (leaves - 1).bit_length()

    def values(self, features: NDArray[np.float32]) -> _Floats:
        """Evaluate these trees, shape (rows,)."""
        return self._forest.values(features)[:, 0]

    def values_of_many(self, columns: NDArray[np.float32]) -> _Floats:
        """Evaluate these trees for many rows, in half the time that XGBoost takes.

        Tree by tree: all comparisons of a node are made at once, and from the bottom up every node
        becomes the leaf that is reached below it, counted from the left.

        Parameters
        ----------
        columns : ndarray of float32, shape (features, rows)

        Returns
        -------
        ndarray of float, shape (rows,)
            Equal to `values`.
        """
        nodes, rows = self.feature.shape[1], columns.shape[1]
        if rows <= FEW_ROWS:
            return self.values(columns.T)
        highest = self.depth
        right = np.empty((nodes, rows), dtype=np.uint8)
        flags = right.view(np.bool_)
        total = np.zeros(rows)
        for features, thresholds, leaves in zip(
            self.feature.tolist(), self.threshold, self.leaf.astype(np.float64), strict=True
        ):
            for node, feature in enumerate(features):
                np.greater_equal(columns[feature], thresholds[node], out=flags[node])
            for node in reversed(range(nodes // 2)):
                reached, other = right[2 * node + 1], right[2 * node + 2]
                other -= reached
                other *= right[node]
                reached += other
                right[node] *= 2 ** (highest - (node + 1).bit_length())
                right[node] += reached
            total += leaves.take(right[0])
        return total + self.bias

    @property
    def content(self) -> bytes:
        """UBJSON of these trees for XGBoost, the same for the same trees."""
        trees = [
            _tree_content(tree, number, self.features) for number, tree in enumerate(self.trees)
        ]
        count = len(trees)
        objective, booster, classes, targets = _KIND
        return write_ubjson(
            {
                "learner": {
                    "attributes": {},
                    "feature_names": [],
                    "feature_types": [],
                    "gradient_booster": {
                        "model": {
                            "gbtree_model_param": {
                                "num_parallel_tree": "1",
                                "num_trees": str(count),
                            },
                            "iteration_indptr": list(range(count + 1)),
                            "tree_info": [0] * count,
                            "trees": trees,
                        },
                        "name": booster,
                    },
                    "learner_model_param": {
                        "base_score": f"{self.bias:.9g}",  # enough to tell float32 values apart
                        "boost_from_average": "1",
                        "num_class": classes,
                        "num_feature": str(self.features),
                        "num_target": targets,
                    },
                    "objective": {
                        "name": objective,
                        "reg_loss_param": {"scale_pos_weight": "1"},
                    },
                },
                "version": list(_FORMAT),
            }
        )

    def booster(self) -> xgboost.Booster:
        """Give XGBoost these trees, for SHAP."""
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(bytearray(self.content))
        booster.set_param({"nthread": 1})
        return booster

    @cached_property
    def _forest(self) -> Forest:
        return join([self])


def join(ensembles: Sequence[Ensemble]) -> Forest:
    """Put ensembles side by side; all trees get the same depth, and whole bytes of comparisons."""
    depth = max(3, *(each.depth for each in ensembles))
    feature, threshold, leaf = zip(*(_deepened(each, depth) for each in ensembles), strict=True)
    trees = [len(each.leaf) for each in ensembles]
    return Forest(
        feature=np.concatenate(feature).reshape(-1),
        threshold=np.concatenate(threshold).reshape(-1),
        leaf=np.concatenate(leaf).reshape(-1),
        first_leaf=np.arange(0, sum(trees) * 2**depth, 2**depth, dtype=np.intp),
        leaf_of_path=_leaf_of_path(depth),
        starts=np.cumsum([0, *trees[:-1]], dtype=np.intp),
        bias=np.array([each.bias for each in ensembles]),
    )


def fit_head(
    features: NDArray[np.float32],
    target: _Floats,
    settings: TreeSettings,
    weight: _Floats | None = None,
) -> Ensemble:
    """Grow the trees of one head.

    Parameters
    ----------
    features : ndarray of float32, shape (rows, features)
        One row per weighted layer and run.
    target : ndarray of float, shape (rows,)
        On the scale of the head: logs or log odds, which stay far within 500.
    settings : TreeSettings
    weight : ndarray of float, shape (rows,), optional
        How much the squared error of each row counts.

    Returns
    -------
    Ensemble
        The same for the same rows, on one thread.
    """
    import xgboost

    rows = xgboost.DMatrix(features, label=target, weight=weight, nthread=1)
    booster = xgboost.train(settings.parameters(), rows, num_boost_round=settings.rounds)
    # As JSON, which Python reads faster than our reader of what strangers write.
    content = json.loads(bytes(booster.save_raw("json")))
    for tree in content["learner"]["gradient_booster"]["model"]["trees"]:
        tree |= {name: np.array(tree[name], dtype=kind) for name, kind in _COLUMNS.items()}
    return _checked(content)


def read_ensemble(content: bytes) -> Ensemble:
    """Read an ensemble that was kept as XGBoost's UBJSON, and check it node by node.

    Raises
    ------
    ValueError
        If it is no UBJSON, or no regression trees of numbers of the depth that is fitted here.
    """
    return _checked(read_ubjson(content))


def _checked(content: Any) -> Ensemble:
    """Take over what XGBoost says of its trees, whatever it was written in."""
    try:
        learner = content["learner"]
        parameters, booster = learner["learner_model_param"], learner["gradient_booster"]
        kind = (learner["objective"]["name"], booster["name"],
                parameters["num_class"], parameters["num_target"])  # fmt: skip
        # XGBoost holds it as float32.
        bias = float(np.float32(parameters["base_score"].strip("[]")))
        told = int(str(booster["model"]["gbtree_model_param"]["num_trees"]))
        features = int(str(parameters["num_feature"]))
        trees = tuple(_tree(tree) for tree in booster["model"]["trees"])
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"it is no model of XGBoost: {error!r}") from error
    if not all(type(each) is str for each in kind) or kind != _KIND:
        raise ValueError(f"it must be {' of '.join(_KIND[:2])} with one target")
    if not (1 <= len(trees) <= _MOST_TREES and told == len(trees)):
        raise ValueError(f"it must have 1 to {_MOST_TREES} trees, got {len(trees)} of {told}")
    if not 1 <= features <= _MOST_FEATURES:
        raise ValueError(f"it must read 1 to {_MOST_FEATURES} features, got {features}")
    return _ensemble(trees, features, bias)


def _ensemble(trees: tuple[Tree, ...], features: int, bias: float) -> Ensemble:
    depth = max(1, *(tree.depth for tree in trees))
    feature, threshold, leaf = zip(*(tree.padded(depth) for tree in trees), strict=True)
    ensemble = Ensemble(
        trees=trees,
        features=features,
        bias=bias,
        feature=np.array(feature, dtype=np.intp),
        threshold=np.array(threshold, dtype=np.float32),
        leaf=np.array(leaf, dtype=np.float32),
    )
    most = int(ensemble.feature.max())
    if most >= features:
        raise ValueError(f"it must read its {features} features, got one at {most}")
    largest = float(np.abs(ensemble.leaf).max(axis=1).sum(dtype=np.float64)) + abs(bias)
    if not largest <= _LARGEST_SUM:  # nor NaN
        raise ValueError(f"its leaves must add up to at most {_LARGEST_SUM:g}, got {largest:g}")
    return ensemble


_COLUMNS = {
    "left_children": "i4",
    "right_children": "i4",
    "split_indices": "i4",
    "split_conditions": "f4",
    "sum_hessian": "f4",
    "split_type": "u1",
}
"""What is read of a tree, and the type of number that XGBoost writes there."""


def _tree(content: Mapping[str, Any]) -> Tree:
    """Check and take over one tree."""
    columns = [content[name] for name in _COLUMNS]
    for column, kind in zip(columns, _COLUMNS.values(), strict=True):
        if not isinstance(column, np.ndarray) or column.dtype.newbyteorder("=") != kind:
            raise ValueError("a tree must have arrays of the numbers that XGBoost writes")
    nodes = len(columns[0])
    if not 1 <= nodes < 2 ** (_MOST_DEPTH + 1) or any(len(each) != nodes for each in columns):
        most = 2 ** (_MOST_DEPTH + 1) - 1
        raise ValueError(f"a tree must have 1 to {most} nodes, and say as much of each")
    left, right, feature, condition, cover, categorical = (
        each.astype(each.dtype.newbyteorder("=")) for each in columns
    )
    if categorical.any():
        raise ValueError("a tree must compare numbers, not categories")
    inner = left >= 0
    parents = np.flatnonzero(inner)
    below = np.concatenate([left[inner], right[inner]])
    if np.any(left[~inner] != -1) or np.any(right[~inner] != -1):  # only -1 ends XGBoost's way
        raise ValueError("a tree must have two nodes below each node, or none")
    # Every node but the root is below one before it: a tree, and not only a graph.
    whole = sorted(below.tolist()) == list(range(1, nodes))
    if not whole or np.any(below <= np.tile(parents, 2)):
        raise ValueError("a tree must have every node but the root below one other")
    if np.any(feature < 0) or not (np.isfinite(condition).all() and np.isfinite(cover).all()):
        raise ValueError("a tree must have finite numbers, and features from 0 on")
    sums = cover[left[inner]].astype(np.float64) + cover[right[inner]]
    if cover.min() <= 0 or np.any(np.abs(sums - cover[inner]) > _SAME_COVER * sums):
        raise ValueError("a tree must have at each node the rows of the nodes below")
    feature[~inner] = 0  # a leaf compares nothing
    tree = Tree(left=left, right=right, feature=feature, condition=condition, cover=cover)
    if tree.depth > _MOST_DEPTH:
        raise ValueError(f"a tree must be at most {_MOST_DEPTH} deep, got {tree.depth}")
    return tree


def _tree_content(tree: Tree, number: int, features: int) -> dict[str, Any]:
    """Write one tree with all that XGBoost wants to read of it."""
    nodes = len(tree.left)
    inner = tree.left >= 0
    parents = np.full(nodes, _NO_PARENT, dtype=np.int32)
    parents[tree.left[inner]] = parents[tree.right[inner]] = np.flatnonzero(inner)
    flags, numbers = np.zeros(nodes, dtype=np.uint8), np.zeros(nodes, dtype=np.float32)
    none, nowhere = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    return {
        "base_weights": numbers,
        "categories": none,
        "categories_nodes": none,
        "categories_segments": nowhere,
        "categories_sizes": nowhere,
        "default_left": inner.astype(np.uint8),  # of a number that is none, as in `Forest`
        "id": number,
        "left_children": tree.left,
        "loss_changes": numbers,
        "parents": parents,
        "right_children": tree.right,
        "split_conditions": tree.condition,
        "split_indices": tree.feature,
        "split_type": flags,
        "sum_hessian": tree.cover,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": str(nodes),
            "size_leaf_vector": "1",
        },
    }


@cache
def _leaf_of_path(depth: int) -> NDArray[np.intp]:
    """Leaf, from left to right, that each set of comparisons leads to (bit n: node n is right)."""
    path = np.arange(2 ** (2**depth))
    node = np.zeros(len(path), dtype=np.intp)
    for _ in range(depth):
        node = 2 * node + 1 + (path >> node & 1)
    leaf: NDArray[np.intp] = node - (2**depth - 1)
    return leaf


def _deepened(
    ensemble: Ensemble, depth: int
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Pad the trees of an ensemble to a depth, with one more column that compares nothing."""
    trees, nodes = ensemble.feature.shape
    feature = np.zeros((trees, 2**depth), dtype=np.intp)
    threshold = np.full((trees, 2**depth), np.inf, dtype=np.float32)
    feature[:, :nodes], threshold[:, :nodes] = ensemble.feature, ensemble.threshold
    # Left always: each leaf moves to the left end of the subtree that it becomes.
    leaf = np.repeat(ensemble.leaf, 2 ** (depth - ensemble.depth), axis=1)
    return feature, threshold, leaf
