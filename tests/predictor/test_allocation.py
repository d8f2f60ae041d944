"""Allocations are the best there are: held against every other one, costed one at a time."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from random_networks import random_case

from spikemeter.config import Config, load_config
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.models.integer import network_spikes
from spikemeter.network import parse_network
from spikemeter.predictor import LatencyPredictor, allocation_search, predict_latency
from spikemeter.predictor.allocation import Allocation, allocate_cores, with_cores
from spikemeter.predictor.allocation_costs import AllocationCosts, allocation_costs, core_counts
from spikemeter.predictor.allocation_limits import even_cores
from spikemeter.predictor.allocation_plot import plot_allocation
from spikemeter.predictor.allocation_search import TOLERANCE, Search, cheapest_allocations
from spikemeter.predictor.backend import write_backend
from spikemeter.predictor.fitted import Backend, amount_names
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.spikes import known_spikes
from spikemeter.predictor.structure import Structure
from spikemeter.predictor.timing import timing_model

DIGITS = {"dataset": "nmnist-saccade", "network": "6C3-MP2-8C3-MP2-10"}
PUBLISHED = "64C3-28C3-MP2-48C3-54C3-MP2-120C3-126C3-140C3-MP4-1064-200"
SCHEDULES = ("layer_serial", "step_pipelined")
OBJECTIVES = ("latency", "interval")
SEEDS = (5, 7, 29, 36, 46)
"""Random networks of three or four layers with at most 760 allocations."""


@pytest.fixture(scope="module")
def shipped() -> LatencyPredictor:
    return LatencyPredictor.default()


def case_of(
    seed: int, schedule: str, samples: int = 3, taps_per_cycle: int = 1
) -> tuple[Config, dict[str, NDArray[np.bool_]]]:
    """A random network on this schedule, with the spike trains that enter its layers."""
    case = random_case(seed, samples=samples)
    content = case.config.model_dump()
    content["hardware"] |= {"schedule": schedule, "taps_per_cycle": taps_per_cycle}
    trains = network_spikes(case.network, case.inputs).inputs
    return load_config(content), {f"inputs_{index}": train for index, train in enumerate(trains)}


def random_costs(
    rng: np.random.Generator, *, pipelined: bool, stream: bool, samples: int = 3
) -> AllocationCosts:
    """Costs of layers that no network need have: they fall with cores, step by step."""
    layers, steps = int(rng.integers(2, 5)), int(rng.integers(1, 5))
    cores, costs = [], []
    for _ in range(layers):
        channels = int(rng.integers(3, 13))
        (layer,) = parse_network(str(channels), channels=1, height=1, width=1)
        cores.append(core_counts(layer))
        work = rng.integers(0, 200, (steps, 1, samples)) * -(-channels // cores[-1])[None, :, None]
        costs.append((work + rng.integers(1, 60, (steps, 1, samples))).astype(float))
    return AllocationCosts(
        cores=tuple(cores),
        step_cycles=tuple(costs),
        pipelined=pipelined,
        load_cycles=float(rng.integers(0, 300)),
        stream=stream,
    )


def every_choice(costs: AllocationCosts) -> NDArray[np.int64]:
    return np.array(list(itertools.product(*(range(len(counts)) for counts in costs.cores))))


def best_front(
    cores: NDArray[np.int64], values: NDArray[np.float64], budget: int
) -> list[tuple[int, float]]:
    """Fewest cores of every value that no fewer cores reach."""
    front: list[tuple[int, float]] = []
    for within in range(int(cores.min()), budget + 1):
        least = float(values[cores <= within].min())
        if not front or least < front[-1][1] * (1 - TOLERANCE):
            front.append((within, least))
    return front


def within_13() -> list[tuple[int, ...]]:
    """All allocations of `DIGITS` within a budget."""
    every = itertools.product(range(1, 7), range(1, 9), range(1, 11))
    return [each for each in every if sum(each) <= 13]


def assert_front(found: Allocation, expected: list[tuple[int, float]]) -> None:
    name = "cycles" if found.objective == "latency" else "initiation_interval_cycles"
    assert [point.cores for point in found.front] == [cores for cores, _ in expected]
    values = [getattr(point, name) for point in found.front]
    assert values == pytest.approx([value for _, value in expected], rel=1e-9)
    assert all(point.exact for point in found.front)
    assert [point.bound_cycles for point in found.front] == values
    assert (found.cores, found.exact, found.gap) == (expected[-1][0], True, 0.0)
    assert getattr(found.estimate, name) == pytest.approx(expected[-1][1], rel=1e-9)


def test_only_core_counts_that_change_the_phases_are_options() -> None:
    for channels in (1, 2, 7, 12, 64, 1023, 1024, 1064, 5000):
        (layer,) = parse_network(str(channels), channels=1, height=1, width=1)
        counts = core_counts(layer)
        every = {-(-channels // cores): cores for cores in range(min(channels, 1024), 0, -1)}
        assert {-(-channels // int(cores)): int(cores) for cores in counts} == every
        assert (np.diff(counts) > 0).all()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_costs_of_an_allocation_are_those_of_its_estimate(seed, schedule, shipped):
    taps = 9 if seed % 2 else 1
    config, arrays = case_of(seed, schedule, samples=1 + seed % 4, taps_per_cycle=taps)
    known = known_spikes(arrays, config)
    rng = np.random.default_rng(seed)
    for fidelity in ("trace", "statistics"):
        costs = allocation_costs(config, known, fidelity == "trace", shipped.parts)
        choice = np.array([[rng.integers(len(counts)) for counts in costs.cores]])
        cores = [int(counts[k]) for counts, k in zip(costs.cores, choice[0], strict=True)]
        estimate = predict_latency(
            with_cores(config, cores), spikes=arrays, fidelity=fidelity, predictor=shipped
        )
        found = [float(costs.values(objective, choice)[0]) for objective in OBJECTIVES]
        expected = [estimate.cycles, estimate.initiation_interval_cycles]
        if fidelity == "trace":
            assert found == expected
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_allocation_of_a_trace_is_better_on_any_number_of_cores(seed, schedule):
    config, arrays = case_of(seed, schedule)
    trains = list(arrays.values())
    channels = [layer.out_channels for layer in config.layers]
    every = list(itertools.product(*(range(1, most + 1) for most in channels)))
    model: Any = timing_model(config)
    timings = [replace(model, neural_cores=cores).trace(trains) for cores in every]
    values = {
        "latency": np.array([timing.cycles.mean() for timing in timings]),
        "interval": np.array([timing.initiation_interval_cycles.mean() for timing in timings]),
    }
    cores = np.array(every).sum(axis=1)
    budget = int(np.random.default_rng(seed).integers(len(channels), sum(channels) + 1))
    for objective in OBJECTIVES:
        found = allocate_cores(config, budget, objective, spikes=arrays)
        assert found.estimate.fidelity == "trace"
        assert_front(found, best_front(cores, values[objective], budget))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("fidelity", ["statistics", "hyperparameters"])
def test_counts_and_hyperparameters_have_a_best_allocation_too(
    objective, schedule, fidelity, shipped
):
    config = load_config(DIGITS | {"hardware": {"schedule": schedule}})
    rng, spikes = np.random.default_rng(5), None
    if fidelity == "statistics":
        spikes = {
            f"counts_{index}": rng.uniform(0, layer.inputs / layer.in_channels / 4, size)
            for index, layer in enumerate(config.layers)
            for size in [(3, 8, layer.in_channels)]
        }
    found = allocate_cores(config, 13, objective, predictor=shipped, spikes=spikes)
    assert found.estimate.fidelity == fidelity
    assert found.estimate.interval_cycles[0] < found.estimate.cycles
    every = within_13()
    name = "cycles" if objective == "latency" else "initiation_interval_cycles"
    values = [
        getattr(predict_latency(with_cores(config, each), predictor=shipped, spikes=spikes), name)
        for each in every
    ]
    assert_front(found, best_front(np.array(every).sum(axis=1), np.array(values), 13))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("pipelined", [False, True])
def test_searches_find_the_front_and_bounds_hold_without_a_proof(
    seed, stream, objective, pipelined
):
    rng = np.random.default_rng(seed)
    costs = random_costs(rng, pipelined=pipelined, stream=stream, samples=1 + seed % 4)
    choices = every_choice(costs)
    cores, values = costs.used(choices), costs.values(objective, choices)
    budget = int(rng.integers(len(costs.cores), costs.most_cores + 1))
    expected = best_front(cores, values, budget)
    points = cheapest_allocations(costs, objective, budget)
    assert [point.cores for point in points] == [each for each, _ in expected]
    assert [point.value for point in points] == pytest.approx([value for _, value in expected])
    assert all(point.exact for point in points)
    within = np.array([values[cores <= each].min() for each in range(cores.min(), budget + 1)])
    for point in cheapest_allocations(costs, objective, budget, effort=0):
        least = within[point.cores - cores.min()]
        assert point.value >= least * (1 - TOLERANCE)
        assert point.bound <= min(point.value, least * (1 + TOLERANCE))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("objective", "stream"), [("latency", False), ("interval", False), ("interval", True)]
)
def test_proofs_find_the_front_even_without_a_good_candidate(seed, objective, stream):
    costs = random_costs(np.random.default_rng(seed), pipelined=True, stream=stream)
    choices, budget = every_choice(costs), costs.most_cores - 1
    expected = best_front(costs.used(choices), costs.values(objective, choices), budget)
    search = Search(costs, objective, budget)
    if objective == "latency":
        weights = costs.critical(objective, choices[0])
        search.bounds = [allocation_search.weighted_bound(costs, objective, weights, budget)]
    else:
        search.bounds = [allocation_search.layer_bound(costs, objective, budget)]
    search.try_out(choices[:1])  # the slowest
    search.prove(10**9)
    points = search.points()
    assert [(point.cores, point.value) for point in points] == expected
    assert all(point.exact for point in points)


@pytest.mark.parametrize("seed", range(30))
def test_a_proof_that_is_given_up_claims_nothing_for_its_budget(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    costs = random_costs(rng, pipelined=True, stream=False)
    choices, budget = every_choice(costs), costs.most_cores - 1
    cores, values = costs.used(choices), costs.values("latency", choices)
    search = Search(costs, "latency", budget)
    weights = costs.critical("latency", choices[0])  # of the slowest
    search.bounds = [allocation_search.weighted_bound(costs, "latency", weights, budget)]
    search.try_out(rng.permutation(choices[cores <= budget])[:9])
    search.try_out(choices[:1])
    monkeypatch.setattr(allocation_search, "_MOST", 20 * costs.size("latency"))
    search.prove(10**9)
    for point, limit in zip(search.points(), search.limits(), strict=True):
        assert point.bound <= values[cores <= limit].min() * (1 + TOLERANCE)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_partial_allocation_costs_no_less_than_a_bound_says(seed, objective):
    rng = np.random.default_rng(seed)
    costs = random_costs(rng, pipelined=True, stream=False)
    choices = every_choice(costs)
    some = rng.choice(len(choices), 3)
    weights = np.mean([costs.critical(objective, choices[k]) for k in some], axis=0)
    bounds = [allocation_search.weighted_bound(costs, objective, weights, costs.most_cores)]
    if objective == "interval":
        bounds.append(allocation_search.layer_bound(costs, objective, costs.most_cores))
    values = costs.values(objective, choices)
    for bound in bounds:
        state = costs.start(objective)
        for layer in range(len(costs.cores)):
            before = np.broadcast_to(state, (len(state), len(choices), state.shape[2]))
            state = costs.advanced(objective, layer, before, choices[:, layer])
            reached = (state * bound.leaving[layer][:, None]).sum(axis=(0, 2))
            for behind in range(layer + 1, len(costs.cores)):
                reached = bound.join(reached, bound.tables[behind][choices[:, behind]])
            assert (reached <= values * (1 + TOLERANCE)).all()
        np.testing.assert_allclose(reached, values)  # all of it is known behind the last layer
    chosen = choices[some[0]]
    own = allocation_search.weighted_bound(
        costs, objective, costs.critical(objective, chosen), costs.most_cores
    )
    total = sum(table[k] for table, k in zip(own.tables, chosen, strict=True))
    assert total == pytest.approx(values[some[0]])


def test_cores_that_save_nothing_are_left_over():
    content = {
        "network": "2-2",
        "input": {"height": 64, "width": 64, "channels": 2, "time_steps": 2,
                  "statistics": [[1.0, 1.0]] * 2},
    }  # fmt: skip
    found = allocate_cores(content, 4, "interval", predictor=LatencyPredictor.default())
    # The first layer scans 256 words a step, the second one alone: a core for it saves nothing
    assert found.neural_cores == (2, 1)
    assert [point.neural_cores for point in found.front] == [(1, 1), (2, 1)]
    assert found.compared["even"].neural_cores == (2, 2)
    assert found.compared["even"].initiation_interval_cycles == found.front[-1].bound_cycles


def test_the_published_machine_adds_up_its_layers(shipped):
    config = load_config(DIGITS | {"hardware": {"backend": "published"}})
    found = {each: allocate_cores(config, 13, each, predictor=shipped) for each in OBJECTIVES}
    assert found["latency"].neural_cores == found["interval"].neural_cores
    every = within_13()
    values = [predict_latency(with_cores(config, x), predictor=shipped).cycles for x in every]
    assert_front(found["latency"], best_front(np.array(every).sum(axis=1), np.array(values), 13))


def test_comparisons_and_neighbours_are_estimates_of_their_cores(shipped):
    config = load_config(DIGITS | {"hardware": {"neural_cores": [5, 5, 7]}})
    found = allocate_cores(config, predictor=shipped)
    assert found.budget == 17
    assert found.config == with_cores(config, found.neural_cores)
    assert found.compared["configured"].neural_cores == (5, 5, 7)
    assert found.compared["even"].neural_cores == (5, 6, 6)
    assert len(found.neighbours) == 2
    for point in [*found.compared.values(), *found.neighbours, *found.front]:
        estimate = predict_latency(with_cores(config, point.neural_cores), predictor=shipped)
        assert point.cores == sum(point.neural_cores)
        assert point.cycles == pytest.approx(estimate.cycles, rel=1e-9)
        assert point.initiation_interval_cycles == pytest.approx(
            estimate.initiation_interval_cycles, rel=1e-9
        )
    for point in found.neighbours:
        assert point.cores <= found.budget
        assert point.neural_cores != found.neural_cores
        assert point.cycles >= found.estimate.cycles
        moved = np.sign(np.array(point.neural_cores) - found.neural_cores)
        assert sorted(moved) == [-1, 0, 1]


def test_spikes_of_a_file_and_its_first_samples_count(tmp_path, shipped):
    config, arrays = case_of(7, "step_pipelined")
    np.savez(tmp_path / "spikes.npz", **arrays)
    path = tmp_path / "config.yaml"
    path.write_text(config.model_copy(update={"spikes": "spikes.npz"}).to_yaml())
    found = allocate_cores(path, 9, samples=2)
    assert len(found.estimate.sample_cycles) == 2
    same = allocate_cores(config, 9, spikes=arrays, samples=2)
    assert (found.estimate, found.front) == (same.estimate, same.front)
    counted = allocate_cores(path, 9, samples=1, fidelity="statistics", predictor=shipped)
    assert counted.estimate == predict_latency(
        with_cores(config, counted.neural_cores), predictor=shipped, fidelity="statistics",
        spikes={name: train[:1] for name, train in arrays.items()},
    )  # fmt: skip


def test_an_even_share_leaves_what_a_layer_cannot_use_to_others():
    assert even_cores([2, 100, 10], 30) == (2, 18, 10)
    assert even_cores([100, 100, 100], 11) == (3, 4, 4)
    assert even_cores([1, 2], 50) == (1, 2)


def test_nine_layers_and_two_thousand_cores_take_seconds(shipped):
    rng = np.random.default_rng(0)
    size = {"height": 32, "width": 32, "time_steps": 8, "statistics": [[0.0] * 2] * 8}
    for schedule in SCHEDULES:
        config = load_config(
            {"network": PUBLISHED, "input": size, "hardware": {"schedule": schedule}}
        )
        counts = {
            f"counts_{index}": rng.binomial(layer.inputs, 0.05, (1, 8, 1)).astype(float)
            for index, layer in enumerate(config.layers)
        }
        begin = time.process_time()
        for objective in OBJECTIVES:
            assert allocate_cores(config, 2000, objective, predictor=shipped, spikes=counts).exact
        assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"cores": 2}, PredictorError, r"cores: must be at least 3, one for each .*; got 2$"),
        ({"cores": 9.5}, PredictorError, r"cores: must be a whole number, got 9\.5$"),
        ({"cores": True}, PredictorError, r"cores: must be a whole number, got True$"),
        ({"objective": "speed"}, PredictorError, r"objective: must be one of .*; got 'speed'$"),
        ({"fidelity": "trace"}, PredictorError, r"fidelity: this source allows hyperparameters"),
        ({"source": DIGITS | {"hardware": {"neural_cores": [7, 1, 1]}}}, ConfigError,
         r"hardware\.neural_cores\.0: must be at most the 6 output channels of 0:6C3, got 7$"),
    ],
)  # fmt: skip
def test_a_question_without_an_answer_is_refused_in_a_sentence(changes, error, sentence):
    asked = {"source": DIGITS, "cores": 12} | changes
    with pytest.raises(error, match=f"^{sentence}"):
        allocate_cores(**asked)


def test_a_fitted_backend_is_refused(tmp_path):
    amounts = len(amount_names([]))
    machine = Backend(
        structure=Structure(), costs={"all.step": 5.0}, knobs={}, low=np.zeros(amounts),
        high=np.ones(amounts), booster=None, report={},
        residuals=Residuals(error=np.linspace(-0.1, 0.1, 40), group=np.arange(40)),
    )  # fmt: skip
    write_backend(machine, tmp_path / "board")
    with pytest.raises(ConfigError, match=r"^hardware\.backend: must be engine or published to"):
        allocate_cores(DIGITS | {"hardware": {"backend": str(tmp_path / "board")}}, 12)


def test_a_plot_is_the_same_file_every_time_and_of_a_known_kind(tmp_path, shipped):
    found = allocate_cores(DIGITS, 12, predictor=shipped)
    for name, begin in (("front.png", b"\x89PNG"), ("front.svg", b"<?xml")):
        first, again = (plot_allocation(found, tmp_path / folder / name) for folder in "ab")
        assert first.read_bytes() == again.read_bytes()
        assert first.read_bytes().startswith(begin)
    with pytest.raises(InputError, match=r"^plot: must end in \.png or \.svg, got .*front\.pdf'$"):
        plot_allocation(found, tmp_path / "front.pdf")
