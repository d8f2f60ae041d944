"""The engine's host ports: hesitation on either side changes no spike, and loses none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from block_bench import check_engine
from block_networks import small_config, spikes_of_all_kinds, telling_network

from spikemeter.rtl.packing import config_writes, pack_spikes, peek_addresses

pytestmark = pytest.mark.rtl

SAMPLES = 10
CONFIGS = {
    "three-layers": small_config(
        "4C3-MP2-3C1-11", (2, 4, 5), time_steps=3, cores=(4, 2, 9), width=8
    ),
    "one-step": small_config(
        "16-24", (2, 5, 3), time_steps=1, cores=(16, 2), width=16, model="lapicque"
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_snn_top(name: str) -> None:
    config = CONFIGS[name]
    inputs = spikes_of_all_kinds(config, SAMPLES, np.random.default_rng(0))
    network, trains = telling_network(config, inputs)
    width, layers = config.hardware.encoder_width, len(config.layers)
    job = {
        "layers": layers,
        "time_steps": config.input.time_steps,
        "writes": config_writes(config, network),
        "inputs": [pack_spikes(sample, width) for sample in inputs],
        "outputs": [pack_spikes(sample[:, :, None, None], width) for sample in trains.outputs],
        "addresses": [peek_addresses(config, layers, half) for half in (0, 1)],
    }
    check_engine(config, network, Path(__file__).with_name("snn_top_bench.py"), job)
