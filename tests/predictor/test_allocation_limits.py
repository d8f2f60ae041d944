"""Allocations that keep to LUTs and block RAMs are the best of those that do."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spikemeter.config import Config, load_config
from spikemeter.errors import ConfigError, PredictorError
from spikemeter.network import parse_network
from spikemeter.predictor import LatencyPredictor, allocation_search, predict_latency
from spikemeter.predictor.allocation import allocate_cores, with_cores
from spikemeter.predictor.allocation_bounds import Limits, layer_bound, priced_bound
from spikemeter.predictor.allocation_costs import AllocationCosts, core_counts
from spikemeter.predictor.allocation_search import TOLERANCE, cheapest_allocations
from spikemeter.predictor.resources import estimate_resources

DIGITS = {"dataset": "nmnist-saccade", "network": "6C3-MP2-8C3-MP2-10"}


@pytest.fixture(scope="module")
def shipped() -> LatencyPredictor:
    return LatencyPredictor.default()


def drawn(
    seed: int, *, pipelined: bool, stream: bool
) -> tuple[AllocationCosts, Limits, NDArray[np.int64]]:
    """Costs that fall with cores, amounts that mostly rise with them, and every choice."""
    rng = np.random.default_rng(seed)
    layers, steps = int(rng.integers(2, 5)), int(rng.integers(1, 5))
    cores, costs, amounts = [], [], []
    for _ in range(layers):
        channels = int(rng.integers(3, 13))
        (layer,) = parse_network(str(channels), channels=1, height=1, width=1)
        counts = core_counts(layer)
        work = rng.integers(0, 200, (steps, 1, 3)) * -(-channels // counts)[None, :, None]
        costs.append((work + rng.integers(1, 60, (steps, 1, 3))).astype(float))
        luts = 100 * counts + rng.integers(0, 80, len(counts))
        brams = counts // 2 + rng.integers(0, 12, len(counts))
        cores.append(counts)
        amounts.append(np.stack([luts, brams][: 1 + seed % 2], axis=1).astype(float))
    found = AllocationCosts(
        cores=tuple(cores),
        step_cycles=tuple(costs),
        pipelined=pipelined,
        load_cycles=float(rng.integers(0, 300)),
        stream=stream,
    )
    every = np.array(list(itertools.product(*(range(len(counts)) for counts in cores))))
    free = Limits(amounts=tuple(amounts), most=np.zeros(amounts[0].shape[1]))
    most = np.quantile(free.taken(every), rng.uniform(0.02, 0.6), axis=0)
    return found, Limits(amounts=free.amounts, most=most), every


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("objective", ["latency", "interval"])
def test_no_allocation_that_fits_is_better_on_any_number_of_cores(
    seed, pipelined, stream, objective
):
    costs, limits, every = drawn(seed, pipelined=pipelined, stream=stream)
    budget = int(np.random.default_rng(seed).integers(len(costs.cores), costs.most_cores + 1))
    points = cheapest_allocations(costs, objective, budget, limits=limits)
    fitting = every[limits.fits(every) & (costs.used(every) <= budget)]
    cores, values = costs.used(fitting), costs.values(objective, fitting)
    front: list[tuple[int, float]] = []
    for within in range(budget + 1):
        least = values[cores <= within].min(initial=np.inf)
        if least < (front[-1][1] * (1 - TOLERANCE) if front else np.inf):
            front.append((within, least))
    assert [point.cores for point in points] == [cores for cores, _ in front]
    assert [point.value for point in points] == pytest.approx([value for _, value in front])
    assert all(point.exact for point in points)
    assert all(limits.fits(point.choice[None])[0] for point in points)


@pytest.mark.parametrize("seed", range(20))
def test_a_price_on_resources_never_bounds_above_what_fits(seed):
    costs, limits, every = drawn(seed, pipelined=False, stream=False)
    bound = layer_bound(costs, "latency", costs.most_cores)
    prices = np.random.default_rng(seed).exponential(0.5, len(limits.most))
    priced = priced_bound(bound, costs, limits, prices)
    fitting = every[limits.fits(every)]
    for choice, cores in zip(fitting, costs.used(fitting), strict=True):
        value = costs.values("latency", choice[None])[0]
        assert priced.completed[0][cores] <= value * (1 + TOLERANCE)


def test_a_search_that_gives_up_says_so_and_bounds_the_rest(monkeypatch):
    monkeypatch.setattr(allocation_search, "_MOST", 1)
    gave_up = 0
    for seed in range(0, 20, 2):
        costs, limits, every = drawn(seed, pipelined=False, stream=False)
        fitting = every[limits.fits(every)]
        if not len(fitting):
            continue
        best = costs.values("latency", fitting).min()
        points = cheapest_allocations(costs, "latency", costs.most_cores, limits=limits)
        assert limits.fits(points[-1].choice[None])[0]
        assert points[-1].bound <= best * (1 + TOLERANCE)
        assert points[-1].value >= best * (1 - TOLERANCE)
        if points[-1].exact:
            assert points[-1].value == pytest.approx(best)
        gave_up += not points[-1].exact
    assert gave_up


def test_the_best_allocation_within_luts_and_block_rams_is_found(shipped):
    config = load_config(DIGITS)
    every = list(itertools.product(range(1, 7), range(1, 9), range(1, 11)))
    taken = {cores: estimate_resources(with_cores(config, cores)) for cores in every}
    for luts, brams in ((9000, None), (None, 14), (8000, 20)):
        fits = [
            cores
            for cores in every
            if (luts is None or taken[cores].lut <= luts)
            and (brams is None or taken[cores].bram <= brams)
        ]
        assert 0 < len(fits) < len(every)
        found = allocate_cores(config, luts=luts, brams=brams, predictor=shipped)
        least = min(_cycles(config, cores, shipped) for cores in fits)
        assert found.neural_cores in fits
        assert found.exact
        assert found.estimate.cycles == pytest.approx(least, rel=1e-9)
        assert found.resources == taken[found.neural_cores]
        assert all(point.neural_cores in fits for point in (*found.front, *found.neighbours))
        assert all(point.neural_cores in fits for point in found.compared.values())
        given = {"lut": luts, "bram": brams}
        assert found.limits == {kind: most for kind, most in given.items() if most is not None}


def _cycles(config: Config, cores: tuple[int, ...], predictor: LatencyPredictor) -> float:
    """Cycles of the expected spikes on some cores; those with as many phases cost the same."""
    phases = tuple(
        -(-layer.out_channels // count) for layer, count in zip(config.layers, cores, strict=True)
    )
    if phases not in _KNOWN:
        _KNOWN[phases] = predict_latency(with_cores(config, cores), predictor=predictor).cycles
    return _KNOWN[phases]


_KNOWN: dict[tuple[int, ...], float] = {}


def test_without_limits_resources_are_reported_all_the_same(shipped):
    found = allocate_cores(DIGITS, cores=9, predictor=shipped)
    assert found.limits == {}
    assert found.resources == estimate_resources(found.config)
    report = found.to_dict()
    assert report["resources"]["lut"] == found.resources.lut
    assert set(report["compared"]) == {"configured", "even"}


def test_a_machine_that_nobody_synthesised_has_no_estimate(shipped):
    content = {
        **DIGITS,
        "hardware": {"backend": "published", "neural_cores": [6, 8, 10]},
    }
    assert allocate_cores(content, cores=12, predictor=shipped).resources is None
    with pytest.raises(ConfigError, match=r"^hardware\.backend: must be engine to estimate"):
        allocate_cores(content, cores=12, luts=10_000, predictor=shipped)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"luts": 2000}, r"^luts: must be at least about \d+, which 6C3-MP2-8C3-MP2-10 takes"),
        ({"brams": 1}, r"^brams: must be at least about \d+, which 6C3-MP2-8C3-MP2-10 takes"),
        ({"luts": 0}, "^luts: must be a whole number of 1 or more, got 0$"),
        ({"brams": 2.5}, r"^brams: must be a whole number of 1 or more, got 2\.5$"),
        ({"luts": True}, "^luts: must be a whole number of 1 or more, got True$"),
    ],
)
def test_limits_that_nothing_keeps_to_are_one_sentence(limits: dict[str, Any], reason, shipped):
    with pytest.raises(PredictorError, match=reason):
        allocate_cores(DIGITS, predictor=shipped, **limits)


def test_limits_that_each_allow_something_but_not_together_are_one_sentence(shipped):
    config = load_config(DIGITS)
    every = itertools.product(range(1, 7), range(1, 9), range(1, 11))
    taken = [estimate_resources(with_cores(config, cores)) for cores in every]
    luts, brams = min(each.lut for each in taken), min(each.bram for each in taken)
    assert not any(each.lut <= luts and each.bram <= brams for each in taken)
    with pytest.raises(PredictorError, match=r"^no allocation of .* that keeps to all limits was"):
        allocate_cores(config, luts=luts, brams=brams, predictor=shipped)
