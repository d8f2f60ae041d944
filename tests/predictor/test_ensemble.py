from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import xgboost

from spikemeter.predictor.ensemble import Ensemble, TreeSettings, fit_head, join, read_ensemble
from spikemeter.predictor.ubjson import read_ubjson, write_ubjson

FEATURES = 6


def rows(count=300, seed=0):
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def target(features):
    return np.sin(2 * features[:, 0]) + (features[:, 1] > 0.3) * features[:, 2]


def fitted(**settings):
    return fit_head(rows(), target(rows()), TreeSettings(**{"rounds": 40, **settings}))


@pytest.fixture(scope="module")
def raw():
    """What XGBoost writes of three trees, decoded."""
    settings = TreeSettings(rounds=3, subsample=1.0, colsample_bytree=1.0)
    data = xgboost.DMatrix(rows(), label=target(rows()), nthread=1)
    booster = xgboost.train(settings.parameters(), data, num_boost_round=3)
    return read_ubjson(bytes(booster.save_raw("ubj")))


@pytest.fixture
def model(raw):
    return copy.deepcopy(raw)


def trees_of(model):
    return model["learner"]["gradient_booster"]["model"]["trees"]


def parameters_of(model):
    return model["learner"]["learner_model_param"]


def read(model) -> Ensemble:
    return read_ensemble(write_ubjson(model))


def change(tree, name, index, value):
    """Replace a number in the array of a tree."""
    array = np.array(tree[name])
    array[index] = value
    tree[name] = array


def agree(ensemble, features):
    """Whether trees, either way, and XGBoost say the same, to 1e-6 of what is added up."""
    theirs = ensemble.booster().inplace_predict(features)
    scale = np.abs(ensemble.leaf).max(axis=1).sum() + abs(ensemble.bias)
    ways = (ensemble.values(features), ensemble.values_of_many(np.ascontiguousarray(features.T)))
    return all(np.abs(ours - theirs).max() <= 1e-6 * scale for ours in ways)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("target_mean", [0.0, -4.0])
def test_values_are_those_of_xgboost(depth, target_mean):
    features = rows()
    ensemble = fit_head(
        features, target(features) + target_mean, TreeSettings(rounds=60, max_depth=depth)
    )
    assert ensemble.depth == depth
    assert ensemble.features == FEATURES
    assert len(ensemble.trees) == 60
    other = 1.5 * rows(2000, seed=1)
    assert agree(ensemble, other)
    # At a threshold, too, a row goes to the same side.
    edges = other[: ensemble.feature.size].copy()
    inner = np.isfinite(ensemble.threshold)
    for row, feature, threshold in zip(
        edges, ensemble.feature[inner], ensemble.threshold[inner], strict=False
    ):
        row[feature] = threshold
    assert agree(ensemble, edges)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 5000])
def test_many_rows_get_what_each_gets_alone(depth, count):
    ensemble, features = fitted(max_depth=depth), rows(count, seed=2)
    many = ensemble.values_of_many(np.ascontiguousarray(features.T))
    np.testing.assert_allclose(many, ensemble.values(features), rtol=1e-12, atol=1e-12)
    assert many.shape == (count,)


def test_ensembles_side_by_side_say_what_they_say_alone():
    ensembles = [
        fitted(max_depth=1, rounds=3), fitted(max_depth=4), fitted(max_depth=2, rounds=1),
    ]  # fmt: skip
    together = join(ensembles).values(rows())
    for column, ensemble in zip(together.T, ensembles, strict=True):
        np.testing.assert_allclose(column, ensemble.values(rows()), rtol=1e-12, atol=1e-12)


def test_what_is_given_to_xgboost_is_what_it_had_written(raw):
    """But for numbers that no prediction and no explanation needs."""
    again = read_ubjson(read(raw).content)
    for ours, theirs in zip(trees_of(again), trees_of(raw), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"base_weights", "loss_changes", "default_left", "tree_param"}:
            np.testing.assert_array_equal(ours[name], theirs[name])
            assert getattr(ours[name], "dtype", None) == getattr(theirs[name], "dtype", None)
        assert ours["tree_param"] == theirs["tree_param"]
    bias, theirs = (parameters_of(model)["base_score"].strip("[]") for model in (again, raw))
    assert np.float32(bias) == np.float32(theirs)


def test_shap_values_are_those_of_the_model_that_was_fitted():
    data = xgboost.DMatrix(rows(), label=target(rows()), nthread=1)
    booster = xgboost.train(TreeSettings().parameters(), data, num_boost_round=30)
    ensemble = read_ensemble(bytes(booster.save_raw("ubj")))
    ours, theirs = (
        each.predict(data, pred_contribs=True) for each in (ensemble.booster(), booster)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_same_rows_give_the_same_bytes():
    assert fitted().content == fitted().content
    assert read_ensemble(fitted().content).content == fitted().content


def test_rows_weigh_as_they_are_told():
    features = np.zeros((4, FEATURES), dtype=np.float32)
    features[:, 0] = [0, 0, 1, 1]
    settings = TreeSettings(min_child_weight=0, reg_lambda=0, subsample=1, colsample_bytree=1)
    heavy = fit_head(
        features, np.array([0.0, 1.0, 5.0, 5.0]), settings, np.array([3.0, 1.0, 1.0, 1.0])
    )
    assert heavy.values(features)[0] == pytest.approx(0.25, abs=1e-3)


def test_nothing_to_split_gives_the_mean():
    constant = fit_head(rows(20), np.full(20, -2.5), TreeSettings(rounds=2))
    np.testing.assert_allclose(constant.values(rows(5)), -2.5, rtol=1e-6)
    assert agree(constant, rows())


UNREAD = {
    "tree_param": {"num_nodes": "2147483647", "num_feature": "0", "size_leaf_vector": "999999"},
    "parents": np.array([7, -9, 2**31 - 1], dtype="i4"),
    "default_left": np.zeros(0, dtype="u1"),
    "base_weights": np.full(3, np.nan, dtype="f4"),
    "loss_changes": np.full(2, np.inf, dtype="f4"),
    "categories": np.array([5, -1], dtype="i4"),
    "categories_nodes": np.array([123456789], dtype="i4"),
    "categories_segments": np.array([-1, 2**62], dtype="i8"),
    "categories_sizes": np.array([2**62], dtype="i8"),
    "id": -(2**40),
}


@pytest.mark.parametrize("name", UNREAD)
def test_xgboost_never_sees_what_was_not_checked_of_a_tree(raw, model, name):
    trees_of(model)[1][name] = UNREAD[name]
    assert read(model).content == read(raw).content
    del trees_of(model)[1][name]
    assert read(model).content == read(raw).content


@pytest.mark.parametrize(
    "values",
    [
        {"tree_info": [2**31 - 1, -1, 5], "iteration_indptr": [9, -9]},
        {"iteration_indptr": [], "tree_info": []},
        {"cats": {"enc": [{"offsets": [2**40]}], "feature_segments": [-1], "sorted_idx": "x"}},
        {"gbtree_model_param": {"num_trees": "3", "num_parallel_tree": "0"}},
        {"gbtree_model_param": {"num_trees": "3", "num_parallel_tree": "-1"}},
    ],
)
def test_xgboost_never_sees_what_was_not_checked_of_a_model(raw, model, values):
    model["learner"]["gradient_booster"]["model"].update(values)
    model["learner"].update(
        attributes={"best_iteration": "99"}, feature_names=["a"], feature_types=["c"]
    )
    model["learner"]["objective"]["reg_loss_param"] = {"scale_pos_weight": "nan"}
    parameters_of(model)["boost_from_average"] = "2"
    model["version"] = [-1, 2**40]
    assert read(model).content == read(raw).content


def test_xgboost_never_sees_what_a_leaf_would_compare(raw, model):
    change(trees_of(model)[1], "split_indices", -1, 2**31 - 1)
    assert read(model).content == read(raw).content


def grow(tree, depth):
    """Make a tree a chain of this depth."""
    nodes = 2 * depth + 1
    left = np.full(nodes, -1, dtype="i4")
    right = left.copy()
    left[0 : 2 * depth : 2], right[0 : 2 * depth : 2] = (
        np.arange(1, nodes, 2), np.arange(2, nodes, 2),
    )  # fmt: skip
    cover = np.ones(nodes, dtype="f4")
    cover[::2] = np.arange(depth + 1, 0, -1)
    tree.update(
        left_children=left, right_children=right, sum_hessian=cover,
        split_indices=np.zeros(nodes, dtype="i4"), split_type=np.zeros(nodes, dtype="u1"),
        split_conditions=np.zeros(nodes, dtype="f4"),
    )  # fmt: skip


def test_a_tree_of_the_largest_depth_is_read(model):
    grow(trees_of(model)[0], 4)
    ensemble = read(model)
    assert ensemble.depth == 4
    assert agree(ensemble, rows())


CYCLE = "every node but the root below one other"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda tree: change(tree, "left_children", 0, 10**9), CYCLE),
        (lambda tree: change(tree, "left_children", 0, 0), CYCLE),
        (lambda tree: change(tree, "right_children", 0, tree["left_children"][0]), CYCLE),
        (lambda tree: change(tree, "right_children", 0, -7), CYCLE),
        (
            # The children of the root swapped with those of a node below it.
            lambda tree: [
                change(tree, side, [0, 1], np.array(tree[side])[[1, 0]])
                for side in ("left_children", "right_children")
            ],
            CYCLE,
        ),
        (lambda tree: change(tree, "left_children", 0, -1), "two nodes below each node, or none"),
        (lambda tree: change(tree, "right_children", -1, 3), "two nodes below each node, or none"),
        (lambda tree: change(tree, "left_children", -1, -2), "two nodes below each node, or none"),
        (lambda tree: change(tree, "right_children", -1, -2), "two nodes below each node, or none"),
        (lambda tree: change(tree, "split_indices", 0, -1), "features from 0 on"),
        (lambda tree: change(tree, "split_indices", 0, FEATURES), "its 6 features, got one at 6"),
        (lambda tree: change(tree, "split_conditions", 0, math.nan), "finite numbers"),
        (lambda tree: change(tree, "split_conditions", 0, math.inf), "finite numbers"),
        (lambda tree: change(tree, "split_conditions", -1, -math.inf), "finite numbers"),
        (lambda tree: change(tree, "split_conditions", -1, 1e30), "add up to at most 500"),
        (lambda tree: change(tree, "split_conditions", -1, -501), "add up to at most 500"),
        (lambda tree: change(tree, "sum_hessian", -1, math.nan), "finite numbers"),
        (lambda tree: change(tree, "sum_hessian", -1, 0), "the rows of the nodes below"),
        (lambda tree: change(tree, "sum_hessian", 0, 1e9), "the rows of the nodes below"),
        (lambda tree: change(tree, "sum_hessian", slice(None), 0), "the rows of the nodes below"),
        (lambda tree: change(tree, "split_type", 0, 1), "numbers, not categories"),
        (lambda tree: tree.update(left_children=[1, -1, -1]), "arrays of the numbers"),
        (lambda tree: tree.update(split_conditions="0.5"), "arrays of the numbers"),
        (
            lambda tree: tree.update(split_conditions=tree["split_conditions"].astype("f8")),
            "arrays of the numbers",
        ),
        (
            lambda tree: tree.update(left_children=tree["left_children"].astype("i8")),
            "arrays of the numbers",
        ),
        (lambda tree: tree.update(sum_hessian=tree["sum_hessian"][:-1]), "say as much of each"),
        (
            lambda tree: tree.update({name: each[:0] for name, each in tree.items()
                                      if isinstance(each, np.ndarray)}),
            "1 to 31 nodes",
        ),
        (lambda tree: grow(tree, 5), "at most 4 deep, got 5"),
        (lambda tree: grow(tree, 16), "1 to 31 nodes"),
        (lambda tree: grow(tree, 100_000), "1 to 31 nodes"),
        (lambda tree: tree.pop("right_children"), "no model of XGBoost"),
        (lambda tree: tree.clear(), "no model of XGBoost"),
    ],
)  # fmt: skip
def test_a_damaged_tree_is_refused(model, damage, sentence):
    damage(trees_of(model)[1])
    with pytest.raises(ValueError, match=sentence):
        read(model)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda m: parameters_of(m).update(base_score="nan"), "add up to at most 500"),
        (lambda m: parameters_of(m).update(base_score="[1E38]"), "add up to at most 500"),
        (lambda m: parameters_of(m).update(base_score="[1,2]"), "could not convert"),
        (lambda m: parameters_of(m).update(base_score=[1]), "no model of XGBoost"),
        (lambda m: parameters_of(m).update(num_feature="0"), "1 to 10000 features, got 0"),
        (lambda m: parameters_of(m).update(num_feature="9" * 400), "1 to 10000 features"),
        (lambda m: parameters_of(m).update(num_feature="9" * 9999), "Exceeds the limit"),
        (lambda m: parameters_of(m).update(num_feature="many"), "invalid literal"),
        (lambda m: parameters_of(m).update(num_target="2"), "with one target"),
        (lambda m: parameters_of(m).update(num_class="10"), "with one target"),
        (lambda m: parameters_of(m).update(num_class=np.zeros(2, "i4")), "with one target"),
        (lambda m: m["learner"]["objective"].update(name="binary:logistic"), "reg:squarederror"),
        (lambda m: m["learner"]["gradient_booster"].update(name="dart"), "of gbtree"),
        (lambda m: m["learner"]["gradient_booster"].update(name=np.zeros(2, "i4")), "of gbtree"),
        (lambda m: m["learner"]["gradient_booster"].pop("model"), "no model of XGBoost"),
        (lambda m: m["learner"].update(gradient_booster=[]), "no model of XGBoost"),
        (lambda m: m["learner"].update(gradient_booster=np.zeros(3, "i4")), "no model of XGBoost"),
        (lambda m: m.update(learner="x"), "no model of XGBoost"),
        (lambda m: m.clear(), "no model of XGBoost"),
        (lambda m: trees_of(m).clear(), "1 to 5000 trees, got 0 of 3"),
        (lambda m: trees_of(m).append(trees_of(m)[0]), "got 4 of 3"),
        (lambda m: trees_of(m).append(7), "no model of XGBoost"),
        (lambda m: trees_of(m).append("left_children"), "no model of XGBoost"),
        (lambda m: trees_of(m).append([]), "no model of XGBoost"),
        (lambda m: trees_of(m).append(np.zeros(2, "i4")), "no model of XGBoost"),
    ],
)
def test_a_damaged_model_is_refused(model, damage, sentence):
    damage(model)
    with pytest.raises(ValueError, match=sentence):
        read(model)


@pytest.mark.parametrize("content", [b"", b"{}", b"{}nonsense", b"Z", b"[#i\x01Z", b"\x80\x04."])
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(ValueError, match=r"no model|in the middle|is no type|length|follow"):
        read_ensemble(content)


def test_trees_are_many_but_not_at_will(model):
    """One more than the most, and no more than that is looked at."""
    tree = trees_of(model)[0]
    trees_of(model)[:] = [tree] * 5001
    model["learner"]["gradient_booster"]["model"]["gbtree_model_param"]["num_trees"] = "5001"
    with pytest.raises(ValueError, match="1 to 5000 trees, got 5001 of 5001"):
        read(model)
