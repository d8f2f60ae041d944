"""The RTL against the integer reference, bit for bit, and the timing model, cycle for cycle."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from random_networks import Case, random_case, random_network

from spikemeter.config import load_config
from spikemeter.errors import MissingToolError, SimulationError, SpikeMismatchError
from spikemeter.models.integer import IntegerNetwork, network_spikes
from spikemeter.predictor.timing import BUCKETS, trace_timing
from spikemeter.rtl import check_spikes, simulate, simulator, top_source
from spikemeter.rtl.runners import RUNNERS

pytestmark = pytest.mark.rtl


def check(case: Case, runner: Literal["native", "cocotb"] = "cocotb") -> None:
    expected = network_spikes(case.network, case.inputs)
    timing = trace_timing(case.config, expected.inputs)
    simulation = simulate(case.config, case.network, case.inputs, runner=runner)
    check_spikes(simulation, expected, case.config.layers)
    np.testing.assert_array_equal(simulation.cycles, timing.cycles)
    np.testing.assert_array_equal(simulation.layer_cycles, timing.layer_cycles)
    for bucket in BUCKETS:
        np.testing.assert_array_equal(simulation.buckets[bucket], timing.buckets[bucket], bucket)
    assert simulation.initiation_interval_cycles == pytest.approx(
        timing.initiation_interval_cycles.mean(), abs=1e-9
    )
    assert simulation.simulated_cycles_per_second > 0


# Among these: convolutions with and without padding, 5x5 kernels, pooling, both schedules, one time
# step, cores that do not divide channels, empty and full inputs.
@pytest.mark.parametrize(
    ("runner", "seed"),
    [*(("cocotb", seed) for seed in (2, 5, 16, 17, 24, 28)), ("native", 5), ("native", 17)],
)
def test_random_networks_fire_and_cost_what_the_models_say(
    runner: Literal["native", "cocotb"], seed: int
) -> None:
    check(random_case(seed), runner)


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
    check(Case(config=config, network=random_network(config, rng), inputs=inputs))


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
    check(Case(config=config, network=random_network(config, rng), inputs=inputs))


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
    check(Case(config=config, network=network, inputs=inputs))


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
    check(Case(config=config, network=network, inputs=inputs))


def test_a_mismatch_names_layer_step_and_neuron() -> None:
    case = random_case(0)
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
    case = random_case(5)
    first = case.config.layers[0].name
    monkeypatch.setattr(simulator, "_cycle_limit", lambda config: 7)
    with pytest.raises(
        SimulationError, match=rf"no result within 7 cycles; layer {first}.* did not finish"
    ):
        simulate(case.config, case.network, case.inputs, runner=runner)


def test_a_failed_assertion_is_named() -> None:
    # A word with a bit set beyond the input leads to an event that does not exist.
    case = random_case(5)
    job = simulator._job(case.config, case.network, case.inputs)
    job.samples[0][len(job.samples[0]) // job.time_steps - 1] |= 1 << (job.encoder_width - 1)
    with pytest.raises(SimulationError, match=r"Assertion failed in .*EventInRange"):
        RUNNERS["cocotb"](top_source(case.config, case.network), job)


def test_inputs_of_another_network_are_refused() -> None:
    case = random_case(0)
    with pytest.raises(ValueError, match=r"inputs must have shape \(samples, .*got \(3, "):
        simulate(case.config, case.network, case.inputs[..., 1:])


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    case = random_case(0)
    with pytest.raises(MissingToolError, match=r"g\+\+ \(.*apt-get install g\+\+"):
        simulate(case.config, case.network, case.inputs)
