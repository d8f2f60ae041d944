"""The sampler against what is known in closed form, and against all coalitions one by one."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest

from spikemeter.predictor.shapley import shapley_values

ROWS, KNOBS = 14, 5
RNG = np.random.default_rng(3)
TABLE = RNG.normal(size=(ROWS, KNOBS))
TABLE[:, 3] = RNG.integers(2, size=ROWS)  # often the same
POINTS, BACKGROUND = np.array([0, 5, 9]), np.arange(4, ROWS)


def codes(table):
    return np.stack([np.unique(column, return_inverse=True)[1] for column in table.T], axis=1)


def taking(function, table=TABLE):
    """Value of rows that take each knob from some row of a table."""

    def value(rows):
        found = function(table[rows, np.arange(table.shape[1])])
        return found if found.ndim == 2 else found[:, None]

    return value


def tangled(x):
    """Knobs work together, and order matters."""
    return np.exp(x[:, 0] * x[:, 1]) + np.maximum(x[:, 2], x[:, 3]) * x[:, 4] + x[:, 0]


def sampled(function, table=TABLE, *, rounds=4, seed=0, points=POINTS, background=BACKGROUND):
    return shapley_values(
        taking(function, table),
        codes(table),
        points,
        background,
        rounds=rounds,
        rng=np.random.default_rng(seed),
    )


def enumerated(function, point, background, table=TABLE):
    """Shapley values by their definition."""
    knobs = table.shape[1]

    def mean(members):
        mixed = table[background].copy()
        mixed[:, list(members)] = table[point][list(members)]
        return function(mixed).mean(axis=0)

    values = np.zeros(knobs)
    for knob in range(knobs):
        others = [each for each in range(knobs) if each != knob]
        for size in range(knobs):
            share = factorial(size) * factorial(knobs - size - 1) / factorial(knobs)
            for members in combinations(others, size):
                values[knob] += share * (mean((*members, knob)) - mean(members))
    return values


def test_values_add_up_to_the_prediction_less_the_base():
    found = sampled(tangled)
    expected = tangled(TABLE[POINTS])
    np.testing.assert_allclose(found.base, [tangled(TABLE[BACKGROUND]).mean()], rtol=1e-12)
    np.testing.assert_allclose(found.predicted[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(
        found.base + found.credit.sum(axis=1), found.predicted, rtol=0, atol=1e-9
    )


def test_all_coalitions_one_by_one_give_the_same_within_errors():
    found = sampled(tangled, rounds=64)
    for number, point in enumerate(POINTS):
        exact = enumerated(tangled, point, BACKGROUND)
        off = np.abs(found.credit[number, :, 0] - exact)
        assert (off <= 4 * found.errors[number, :, 0] + 1e-12).all()
        assert np.abs(exact).max() > 20 * found.errors[number].max()


def test_errors_are_those_of_other_permutations():
    repeated = [sampled(tangled, rounds=8, seed=seed) for seed in range(60)]
    scatter = np.std([each.credit for each in repeated], axis=0)
    said = np.mean([each.errors for each in repeated], axis=0)
    moves = said > 1e-3
    assert moves.sum() >= 8
    ratio = scatter[moves] / said[moves]
    assert 0.8 < ratio.mean() < 1.2


def test_four_times_the_permutations_halve_the_errors():
    few, many = (sampled(tangled, rounds=rounds).errors for rounds in (16, 64))
    assert 0.4 < np.mean(many) / np.mean(few) < 0.6


def test_a_sum_is_attributed_exactly():
    weights = np.array([2.0, -1.0, 0.5, 3.0, 0.0])
    found = sampled(lambda x: x @ weights, rounds=2)
    expected = weights * (TABLE[POINTS] - TABLE[BACKGROUND].mean(axis=0))
    np.testing.assert_allclose(found.credit[:, :, 0], expected, atol=1e-12)
    np.testing.assert_allclose(found.errors, 0, atol=1e-9)


def test_factors_are_attributed_exactly_in_logs():
    found = sampled(lambda x: np.log(np.exp(x[:, 0]) * 7 * np.exp(2 * x[:, 1])), rounds=2)
    moved = TABLE[POINTS] - TABLE[BACKGROUND].mean(axis=0)
    expected = np.stack([moved[:, 0], 2 * moved[:, 1], *np.zeros((3, 3))], axis=1)
    np.testing.assert_allclose(found.credit[:, :, 0], expected, atol=1e-12)


def test_a_product_is_shared_evenly_between_its_two_knobs():
    table = np.array([[0.0, 0.0], [1.0, 1.0]])
    found = sampled(
        lambda x: x[:, 0] * x[:, 1], table, points=np.array([1]), background=np.array([0])
    )
    np.testing.assert_allclose(found.credit[0, :, 0], [0.5, 0.5])


def test_a_knob_that_does_not_vary_gets_nothing_and_costs_nothing():
    table = TABLE.copy()
    table[:, 1] = 0.3
    asked = []

    def value(rows):
        asked.append(len(rows))
        return tangled(table[rows, np.arange(KNOBS)])[:, None]

    rng = np.random.default_rng(0)
    found = shapley_values(value, codes(table), POINTS, BACKGROUND, rounds=2, rng=rng)
    assert (found.credit[:, 1] == 0).all()
    assert (found.errors[:, 1] == 0).all()
    # Of four knobs that vary, three turns must be asked about at most.
    assert sum(asked[1:]) < len(POINTS) * len(BACKGROUND) * 4 * 3


def test_several_outputs_are_attributed_by_the_same_walks():
    def both(x):
        return np.stack([tangled(x), -2 * tangled(x)], axis=1)

    found = sampled(both)
    np.testing.assert_allclose(found.credit[:, :, 1], -2 * found.credit[:, :, 0], rtol=1e-9)
    np.testing.assert_array_equal(found.credit[:, :, 0], sampled(tangled).credit[:, :, 0])


def test_a_point_of_the_background_alone_is_its_own_base():
    found = sampled(tangled, points=np.array([6]), background=np.array([6]))
    assert (found.credit == 0).all()
    np.testing.assert_allclose(found.base, found.predicted[0])


def test_many_points_are_done_in_parts_and_progress_is_told(monkeypatch):
    whole = sampled(tangled)
    monkeypatch.setattr("spikemeter.predictor.shapley._AT_A_TIME", 1)
    told = []
    parts = shapley_values(
        taking(tangled),
        codes(TABLE),
        POINTS,
        BACKGROUND,
        rounds=4,
        rng=np.random.default_rng(0),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_allclose(parts.credit.sum(axis=1), whole.credit.sum(axis=1), atol=1e-12)


def test_one_round_cannot_tell_its_errors():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        sampled(tangled, rounds=1)
