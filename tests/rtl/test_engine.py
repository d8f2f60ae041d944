"""The RTL against the integer reference, bit for bit, and the timing model, cycle for cycle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from engine_checks import check_case
from random_networks import (
    BANKED_FEATURES,
    FEATURES,
    Case,
    case_features,
    random_case,
    random_network,
)

from spikemeter.config import load_config
from spikemeter.errors import MissingToolError, SimulationError, SpikeMismatchError
from spikemeter.models.integer import IntegerNetwork, network_spikes
from spikemeter.rtl import check_spikes, simulate, simulator, top_source
from spikemeter.rtl.packing import ConfigWrite
from spikemeter.rtl.runners import RUNNERS, Build

pytestmark = pytest.mark.rtl

CHECKED = Build(checked=True)
SEEDS = (17, 30, 43, 95, 209, 214, 244, 259, 270, 273, 284, 328, 341)
"""Small networks that exercise every feature at least twice."""
COCOTB_SEEDS = (17, 43, 95, 209)
"""Those that run on both runners: with and without cores to spare, both neurons and schedules."""
BANKED_SEEDS = (43, 72, 80, 105, 493)
"""Small networks with nine taps per cycle that exercise every feature of that at least twice."""


def seen_features(cases: Iterable[Case]) -> list[str]:
    return [
        name
        for case in cases
        for name in case_features(case, network_spikes(case.network, case.inputs))
    ]


def test_the_chosen_networks_exercise_everything_twice() -> None:
    found = seen_features(map(random_case, SEEDS))
    # These two have tests of their own
    names = set(FEATURES) - {"one neuron", "frame of 64 or more"}
    assert not {name for name in names if found.count(name) < 2}
    found = seen_features(random_case(seed, taps_per_cycle=9) for seed in BANKED_SEEDS)
    names = {*BANKED_FEATURES, "LIF", "Lapicque", "layer_serial", "step_pipelined"}
    names |= {"reset to zero", "reset by subtraction", "input full", "input empty"}
    assert not {name for name in names if found.count(name) < 2}


def test_most_layers_of_the_chosen_networks_fire_in_part() -> None:
    rates = []
    for seed in SEEDS:
        case = random_case(seed)
        rates += [fired.mean() for fired in network_spikes(case.network, case.inputs).fired]
    assert np.mean([0.02 < rate < 0.8 for rate in rates]) > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks_fire_and_cost_what_the_models_say(seed: int) -> None:
    check_case(random_case(seed), "native", CHECKED)


@pytest.mark.parametrize("seed", BANKED_SEEDS)
def test_random_networks_with_nine_banks_do_so_too(seed: int) -> None:
    check_case(random_case(seed, taps_per_cycle=9), "native", CHECKED)


@pytest.mark.parametrize(
    ("seed", "taps_per_cycle"), [*((seed, 1) for seed in COCOTB_SEEDS), (BANKED_SEEDS[3], 9)]
)
def test_both_runners_measure_the_same(seed: int, taps_per_cycle: Literal[1, 9]) -> None:
    case = random_case(seed, taps_per_cycle=taps_per_cycle)
    check_case(case, "cocotb")
    top = top_source(case.config, case.network)
    job = simulator._job(case.config, case.network, case.inputs)
    native, cocotb = (RUNNERS[runner](top, job, CHECKED) for runner in ("native", "cocotb"))
    for field in ("cycles", "buckets", "words", "stream_words"):
        assert getattr(native, field) == getattr(cocotb, field), field
    # The benches begin the stream in different cycles
    np.testing.assert_array_equal(np.diff(native.done_cycles), np.diff(cocotb.done_cycles))


def test_a_simulator_built_for_speed_measures_the_same() -> None:
    simulation = check_case(random_case(SEEDS[0]), "native")
    assert simulation.simulated_cycles_per_second > 0


def test_a_frame_of_128_pixels_from_empty_to_full() -> None:
    # The words of this width end in the middle of rows, and the last one is not full.
    config = load_config(
        {
            "network": "2C3-MP4-5",
            "input": {
                "height": 128, "width": 128, "channels": 1, "time_steps": 2,
                "statistics": [[0.0]] * 2,
            },
            "neuron": {"model": "lapicque", "beta": 0.5},
            "hardware": {"neural_cores": [2, 5], "encoder_width": 100},
        }
    )  # fmt: skip
    rng = np.random.default_rng(3)
    density = np.array([0.0, 0.03, 1.0]).reshape(-1, 1, 1, 1, 1)
    inputs = rng.random((3, 2, 1, 128, 128)) < density
    case = Case(config=config, network=random_network(config, rng), inputs=inputs)
    trains = network_spikes(case.network, inputs)
    assert 0.02 < trains.fired[0].mean() < 0.8
    assert "frame of 64 or more" in case_features(case, trains)
    check_case(case, "native", CHECKED, trains)


def test_the_first_inference_after_reset_waits_for_cleared_layers() -> None:
    # The last layers are still clearing when the first could start.
    config = load_config(
        {
            "network": "1C1-8C1-MP4-1",
            "input": {
                "height": 32, "width": 32, "channels": 1, "time_steps": 1, "statistics": [[0.0]]
            },
            "hardware": {"neural_cores": [1, 1, 1], "encoder_width": 128},
        }
    )  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = rng.random((2, 1, 1, 32, 32)) < 0.02
    check_case(
        Case(config=config, network=random_network(config, rng), inputs=inputs), "native", CHECKED
    )


def test_one_core_for_each_output_and_several_inputs() -> None:
    # Every event takes one cycle, so accumulations follow each other at the same address.
    config = load_config(
        {
            "network": "3",
            "input": {
                "height": 3, "width": 5, "channels": 2, "time_steps": 3,
                "statistics": [[0.0, 0.0]] * 3,
            },
            "hardware": {"neural_cores": [3], "encoder_width": 8},
        }
    )  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = rng.random((3, 3, 2, 3, 5)) < 0.7
    check_case(
        Case(config=config, network=random_network(config, rng), inputs=inputs), "native", CHECKED
    )


def test_a_core_for_every_channel_serves_an_event_per_cycle() -> None:
    # Neighbors follow each other, so all banks add to what they have just written. Rows of 23
    # pixels end in the middle of nine.
    config = load_config(
        {
            "network": "3C3-4",
            "input": {
                "height": 8, "width": 23, "channels": 1, "time_steps": 3,
                "statistics": [[0.0]] * 3,
            },
            "hardware": {"neural_cores": [3, 4], "encoder_width": 8, "taps_per_cycle": 9},
        }
    )  # fmt: skip
    rng = np.random.default_rng(2)
    density = np.array([0.1, 0.5, 1.0]).reshape(-1, 1, 1, 1, 1)
    inputs = rng.random((3, 3, 1, 8, 23)) < density
    case = Case(config=config, network=random_network(config, rng), inputs=inputs)
    simulation = check_case(case, "native", CHECKED)
    np.testing.assert_array_equal(
        simulation.buckets["accumulate"][:, 0], inputs.sum(axis=(1, 2, 3, 4))
    )


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_one_neuron_on_one_input(density: float) -> None:
    config = load_config(
        {
            "network": "1",
            "input": {
                "height": 1, "width": 1, "channels": 1, "time_steps": 1, "statistics": [[0.0]]
            },
        }
    )  # fmt: skip
    network = random_network(config, np.random.default_rng(0))
    inputs = np.full((2, 1, 1, 1, 1), density > 0)
    check_case(Case(config=config, network=network, inputs=inputs), "native", CHECKED)


def test_a_narrow_membrane_saturates_as_the_reference_does() -> None:
    config = load_config(
        {
            "network": "6C3-3",
            "input": {
                "height": 6, "width": 7, "channels": 2, "time_steps": 6,
                "statistics": [[0.0, 0.0]] * 6,
            },
        }
    )  # fmt: skip
    rng = np.random.default_rng(1)
    wide = random_network(config, rng)
    first = replace(wide.layers[0], membrane_bits=24, gain_shift=4, decay=256, threshold=100)
    narrow = replace(first, membrane_bits=9)
    inputs = rng.random((2, 6, 2, 6, 7)) < 0.6
    network = IntegerNetwork(layers=(narrow, wide.layers[1]))
    unsaturated = IntegerNetwork(layers=(first, wide.layers[1]))
    fired, free = (network_spikes(choice, inputs).inputs[1] for choice in (network, unsaturated))
    assert (fired != free).any()
    check_case(Case(config=config, network=network, inputs=inputs), "native", CHECKED)


def test_a_mismatch_names_layer_step_and_neuron() -> None:
    case = random_case(SEEDS[0])
    simulation = simulate(case.config, case.network, case.inputs)
    expected = network_spikes(case.network, case.inputs)
    outputs = expected.outputs.copy()
    outputs[1, 0, 0] ^= True
    last = case.config.layers[-1].name
    with pytest.raises(SpikeMismatchError, match=rf"layer {last}.*neuron \(0,\) at step 0 of sam"):
        check_spikes(simulation, replace(expected, outputs=outputs), case.config.layers)


@pytest.mark.parametrize("runner", ["native", "cocotb"])
def test_a_simulator_that_does_not_finish_is_stopped(
    monkeypatch: pytest.MonkeyPatch, runner: Literal["native", "cocotb"]
) -> None:
    case = random_case(SEEDS[0])
    first = case.config.layers[0].name
    monkeypatch.setattr(simulator, "_cycle_limit", lambda config: 7)
    with pytest.raises(
        SimulationError, match=rf"no result within 7 cycles; layer {first}.* did not finish"
    ):
        simulate(case.config, case.network, case.inputs, runner=runner)


@pytest.mark.parametrize("runner", ["native", "cocotb"])
def test_a_failed_assertion_is_named(runner: Literal["native", "cocotb"]) -> None:
    # A word with a bit set beyond the input leads to an event that does not exist.
    case = random_case(SEEDS[0])
    job = simulator._job(case.config, case.network, case.inputs)
    assert case.config.layers[0].inputs % job.encoder_width
    job.samples[0][len(job.samples[0]) // job.time_steps - 1] |= 1 << (job.encoder_width - 1)
    with pytest.raises(SimulationError, match=r"Assertion failed in .*EventInRange"):
        RUNNERS[runner](top_source(case.config, case.network), job, CHECKED)


def test_a_network_of_another_configuration_is_refused() -> None:
    case = random_case(0)
    content = case.config.model_dump()
    other = "lapicque" if case.config.neuron.model == "lif" else "lif"
    content["neuron"] |= {"model": other, "beta": 0.9, "match": "none"}
    with pytest.raises(ValueError, match=rf"neuron of layer 0:.* must be {other}"):
        simulate(load_config(content), case.network, case.inputs)
    content = case.config.model_dump()
    content["hardware"]["neural_cores"] = "auto"
    with pytest.raises(ValueError, match=r"network must have the 3 layers of 7-7-7, got"):
        simulate(load_config(content | {"network": "7-7-7"}), case.network, case.inputs)


def test_a_write_to_what_is_not_there_fails() -> None:
    case = random_case(5)
    job = simulator._job(case.config, case.network, case.inputs)
    job.writes.append(ConfigWrite(0, 0, 1023, 0, 1))
    with pytest.raises(SimulationError, match=r"Assertion failed in .*ConfigInRange"):
        RUNNERS["native"](top_source(case.config, case.network), job, CHECKED)


def test_inputs_of_another_network_are_refused() -> None:
    case = random_case(SEEDS[0])
    with pytest.raises(ValueError, match=r"inputs must have shape \(samples, .*got \(3, "):
        simulate(case.config, case.network, case.inputs[..., 1:])


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    case = random_case(SEEDS[0])
    with pytest.raises(MissingToolError, match=r"g\+\+ \(.*apt-get install g\+\+"):
        simulate(case.config, case.network, case.inputs)
