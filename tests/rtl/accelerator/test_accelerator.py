"""The engine behind registers and streams: whatever a host does, what runs is right, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_bench import check_accelerator
from block_networks import small_config, spikes_of_all_kinds, telling_network
from numpy.typing import NDArray

from spikemeter.config import Config, load_config
from spikemeter.models import load_run, train_run
from spikemeter.models.integer import IntegerNetwork, network_spikes, save_network
from spikemeter.predictor.timing import BUCKETS, timing_model
from spikemeter.rtl.packing import config_writes

pytestmark = pytest.mark.rtl

SAMPLES = 5
CONFIGS = {
    "three-layers": small_config(
        "4C3-MP2-3C1-11", (2, 4, 5), time_steps=3, cores=(4, 2, 9), width=13
    ),
    "one-step": small_config(
        "16-24", (2, 5, 3), time_steps=1, cores=(16, 20), width=16, model="lapicque"
    ),
    "two-words-a-line": small_config("6C3-20", (1, 8, 8), time_steps=2, cores=(3, 20), width=8),
}


def other_schedule(config: Config) -> Config:
    """The same configuration, or that with the schedule that it does not have."""
    content = config.model_dump()
    serial = config.hardware.schedule == "layer_serial"
    content["hardware"]["schedule"] = "step_pipelined" if serial else "layer_serial"
    return load_config(content)


def check(
    config: Config, network: IntegerNetwork, inputs: NDArray[np.bool_], folder: Path, bench: str
) -> None:
    """Run a bench with what the integer reference and the timing model say of the inputs."""
    trains = network_spikes(network, inputs)
    timing = timing_model(config).trace(trains.inputs)
    # Of a stream of one sample alone, again and again
    intervals = [
        timing_model(config)
        .trace([spikes[sample : sample + 1] for spikes in trains.inputs])
        .initiation_interval_cycles.mean()
        for sample in range(len(inputs))
    ]
    save_network(network, folder / "network.npz")
    np.savez(
        folder / "expected.npz",
        inputs=inputs,
        outputs=trains.outputs,
        cycles=timing.cycles.astype(np.int64),
        intervals=np.array(intervals),
        **{name: timing.buckets[name].astype(np.int64) for name in BUCKETS},
    )
    job: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "folder": str(folder),
        "writes": config_writes(config, network),
        "other_cycles": timing_model(other_schedule(config)).trace(trains.inputs).cycles.tolist(),
    }
    check_accelerator(config, network, Path(__file__).with_name(bench), job)


@pytest.mark.parametrize("bench", ["inference_bench.py", "bad_input_bench.py"])
@pytest.mark.parametrize("pipelined", [False, True], ids=["serial", "pipelined"])
@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_a_host_does(name: str, pipelined: bool, bench: str, tmp_path: Path) -> None:
    config = other_schedule(CONFIGS[name]) if pipelined else CONFIGS[name]
    inputs = spikes_of_all_kinds(config, SAMPLES, np.random.default_rng(0))
    network, _ = telling_network(config, inputs)
    check(config, network, inputs, tmp_path, bench)


def test_a_trained_network_runs_through_the_registers_alone(tmp_path: Path) -> None:
    config = load_config(
        {
            "dataset": "nmnist-saccade",
            "network": "8C3-MP2-10",
            "input": {"height": 12, "width": 12, "time_steps": 4},
            "training": {"epochs": 3, "lr": 5e-3, "batch_size": 16},
        }
    )
    train_run(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.result["accuracy"]["integer"]["test"] > 0.25  # a tenth by chance
    check(config, run.network, run.inputs[0][:6], tmp_path, "inference_bench.py")
