"""The terms of fitted backends: held to a plain loop, and to what a fit needs of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spikemeter.config import Config, measured_config
from spikemeter.predictor.costs import cost_model
from spikemeter.predictor.structure import KnobRole, Structure
from spikemeter.predictor.workload import joined, workload

ORDERS = ("serial", "lockstep", "pipelined", "slowest", "schedule")
OVERLAPS = ("sum", "step", "map")


def config(seed: int = 0, network: str = "5C3-MP2-4C5-7") -> Config:
    rng = np.random.default_rng(seed)
    layers = sum(not token.startswith("MP") for token in network.split("-"))
    return measured_config(
        {
            "network": network,
            "input": {"height": 7, "width": 6, "channels": 2, "time_steps": 3},
            "hardware": {
                "neural_cores": rng.integers(1, 5, layers).tolist(),
                "encoder_width": 5,
                "schedule": "step_pipelined",
                "knobs": {"wait": 3.0},
            },
        },
        spikes="-",
    )


def drawn(given: Config, seed: int, samples: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    counts, taps = [], []
    for layer in given.layers:
        most = layer.in_height * layer.in_width
        shape = (samples, given.input.time_steps, layer.in_channels)
        counts.append(rng.integers(0, most + 1, shape) * (rng.random(shape) < 0.6) * 1.0)
        share = 1.0 if layer.kind == "dense" else layer.kernel**2 * 0.7
        taps.append(counts[-1] * share)
    return counts, taps


def plain_cycles(
    given: Config,
    structure: Structure,
    costs: dict[str, float],
    counts: list[np.ndarray],
    taps: list[np.ndarray],
) -> float:
    """Walk through one sample: layers, steps and maps one by one."""
    steps = given.input.time_steps
    total = np.zeros((len(given.layers), steps))
    for index, layer in enumerate(given.layers):
        kind = layer.kind
        overlap = getattr(structure, kind)
        cores = given.neural_cores[index]
        before = given.neural_cores[index - 1] if index else 1
        phases = math.ceil(layer.out_channels / cores)
        searches = phases if getattr(structure, f"{kind}_repeats") else 1

        def cost(part: str, kind: str = kind) -> float:
            name = f"{kind if structure.separate else 'all'}.{part}"
            scaled = costs.get(f"{name}*wait", 0.0) * given.hardware.knobs["wait"] / 2.0
            return costs.get(name, 0.0) + scaled

        for step in range(steps):
            cells = [(counts[index][step], taps[index][step])]
            if overlap == "map":
                cells = [(count[None], tap[None]) for count, tap in zip(*cells[0], strict=True)]
            lines = layer.inputs if overlap != "map" else layer.in_height * layer.in_width
            sides = []
            for count, tap in cells:
                events = count.sum()
                tapped = events * layer.kernel**2 if structure.borders else tap.sum()
                search = searches * (
                    cost("idle")
                    + cost("scan") * math.ceil(lines / given.hardware.encoder_width)
                    + events
                    * (cost("list") + cost("emit") / before + cost("send") * cores / before)
                )
                addition = (
                    cost("start") * min(events, 1) * (overlap != "sum")
                    + cost("receive") * events
                    + phases * (cost("accumulate") * tapped + cost("event") * events)
                )
                sides.append((search, addition))
            fire = cost("fire") * layer.out_height * layer.out_width * phases
            spent = sum(sum(pair) if overlap == "sum" else max(pair) for pair in sides)
            if structure.fire_overlaps and overlap == "step":
                spent, fire = max(spent, fire), 0.0
            fixed = cost("step") + cost("sync") * cores + cost("layer") * (step == 0)
            total[index, step] = fixed + spent + fire
    return in_order(total, structure.order) + costs.get("inference", 0.0)


def in_order(total: np.ndarray, order: str) -> float:
    if order == "lockstep":
        return float(total.max(axis=0).sum())
    if order == "slowest":
        return float(total.sum(axis=1).max())
    if order == "serial":
        return float(total.sum())
    finish = np.zeros((total.shape[0] + 1, total.shape[1] + 1))
    for layer, row in enumerate(total, 1):
        for step, cycles in enumerate(row, 1):
            finish[layer, step] = max(finish[layer - 1, step], finish[layer, step - 1]) + cycles
    return float(finish[-1, -1])


@pytest.mark.parametrize("seed", range(40))
def test_cycles_equal_a_plain_loop_and_are_linear_along_the_path(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = config(seed)
    structure = Structure(
        conv=rng.choice(OVERLAPS),
        dense=rng.choice(OVERLAPS[:2]),
        conv_repeats=bool(rng.integers(2)),
        dense_repeats=bool(rng.integers(2)),
        fire_overlaps=bool(rng.integers(2)),
        borders=bool(rng.integers(2)),
        separate=bool(rng.integers(2)),
        order=rng.choice(ORDERS),
        roles=(KnobRole(knob="wait", group="accumulate", inverse=False),) * int(rng.integers(2)),
    )
    counts, taps = drawn(given, seed)
    model = cost_model(
        work=workload(given, counts, taps, ["wait"]), structure=structure, references={"wait": 2.0}
    )
    vector = rng.uniform(0, 3, len(model.terms)) * (rng.random(len(model.terms)) < 0.8)
    costs = {term.name: cost for term, cost in zip(model.terms, vector, strict=True)}
    found = model.cycles(vector)
    expected = [
        plain_cycles(given, structure, costs, [x[n] for x in counts], [x[n] for x in taps])
        for n in range(4)
    ]
    np.testing.assert_allclose(found.cycles, expected)
    np.testing.assert_allclose(model.features(vector) @ vector, expected)
    used = found.encode + found.accumulate + found.fire
    assert (used <= found.total + 1e-9).all()
    assert min(part.min() for part in (found.encode, found.accumulate, found.fire)) >= 0


@pytest.mark.parametrize("order", ORDERS)
def test_samples_of_many_networks_do_not_touch_each_other(order: str) -> None:
    networks = [config(1), config(2, "6-5"), config(3)]
    drawn_spikes = [drawn(given, seed) for seed, given in enumerate(networks)]
    works = [
        workload(given, *spikes, ["wait"])
        for given, spikes in zip(networks, drawn_spikes, strict=True)
    ]
    structure = Structure(order=order, conv="map", dense="step", separate=True)
    whole = cost_model(work=joined(works), structure=structure, references={"wait": 1.0})
    vector = np.random.default_rng(0).uniform(0, 2, len(whole.terms))
    alone = [
        cost_model(work=work, structure=structure, references={"wait": 1.0}).cycles(vector).cycles
        for work in works
    ]
    np.testing.assert_allclose(whole.cycles(vector).cycles, np.concatenate(alone))
    np.testing.assert_allclose(whole.features(vector) @ vector, np.concatenate(alone))
