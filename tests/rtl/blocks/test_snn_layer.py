"""A layer fires what the reference says, in the cycles that the timing model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_bench import check_block
from block_networks import small_config, spikes_of_all_kinds, telling_network

from spikemeter.config import Config
from spikemeter.models.integer import IntegerLayer, layer_spikes
from spikemeter.network import banks, packed_words
from spikemeter.predictor.timing import BUCKETS, timing_model
from spikemeter.rtl.generator import layer_line_words
from spikemeter.rtl.packing import config_writes, pack_spikes

pytestmark = pytest.mark.rtl

CONFIGS = {
    "one-neuron": small_config("1", (1, 1, 2), time_steps=7, cores=(1,), width=8),
    "pooled": small_config("5C3-MP2-3", (2, 5, 7), time_steps=3, cores=(2, 3), width=13),
    "wide-lapicque": small_config(
        "11", (3, 2, 4), time_steps=2, cores=(10,), width=8, model="lapicque", reset="zero"
    ),
    "nine-banks": small_config(
        "5C3v-MP2-3", (2, 9, 8), time_steps=3, cores=(2, 3), width=13, taps_per_cycle=9
    ),
    "nine-banks-lapicque": small_config(
        "4C3-3", (1, 4, 5), time_steps=2, cores=(4, 3), width=16, model="lapicque",
        taps_per_cycle=9,
    ),
}  # fmt: skip


def parameters(config: Config, layer: IntegerLayer) -> dict[str, int]:
    geometry, cores = layer.geometry, config.neural_cores[0]
    width = config.hardware.encoder_width
    return {
        "TimeSteps": config.input.time_steps,
        "InChannels": geometry.in_channels,
        "InHeight": geometry.in_height,
        "InWidth": geometry.in_width,
        "OutChannels": geometry.out_channels,
        "OutHeight": geometry.out_height,
        "OutWidth": geometry.out_width,
        "Kernel": geometry.kernel,
        "Padding": geometry.padding,
        "Pool": geometry.pool,
        "Dense": int(geometry.kind == "dense"),
        "Cores": cores,
        "EncoderWidth": width,
        "WeightBits": layer.weight_bits,
        "MembraneBits": layer.membrane_bits,
        "Lapicque": int(layer.neuron == "lapicque"),
        "Banks": banks(geometry, config.hardware.taps_per_cycle),
        "LineWidth": layer_line_words(geometry, cores, config.hardware) * width,
    }


def network_job(config: Config, seed: int) -> tuple[IntegerLayer, dict[str, Any]]:
    """One network with inferences: per step its words, its lines, and its cycles by bucket."""
    inputs = spikes_of_all_kinds(config, 4, np.random.default_rng(seed))
    network, _ = telling_network(config, inputs, start=100 * seed)
    layer, width = network.layers[0], config.hardware.encoder_width
    # Each step as an inference of its own, alone on the engine
    alone = replace(
        timing_model(config),
        layers=config.layers[:1],
        neural_cores=config.neural_cores[:1],
        time_steps=1,
    )
    steps = inputs.reshape(-1, 1, *inputs.shape[2:])
    buckets = alone.trace([steps]).buckets
    outputs, _ = layer_spikes(layer, inputs)
    words_per_line = layer_line_words(layer.geometry, config.neural_cores[0], config.hardware)
    words_per_step = packed_words(layer.geometry.outputs, width)
    job = {
        "writes": [write for write in config_writes(config, network) if write.layer == 0],
        "words": [[pack_spikes(step[None], width) for step in sample] for sample in inputs],
        "lines": [
            [
                [
                    sum(word << width * index for index, word in enumerate(packed[first:][:many]))
                    for first in range(0, words_per_step, many)
                ]
                for step in sample
                for packed, many in [(pack_spikes(step[None], width), words_per_line)]
            ]
            for sample in outputs
        ],
        "buckets": np.stack([buckets[name][:, 0] for name in BUCKETS], axis=1)
        .astype(int)
        .reshape(*inputs.shape[:2], len(BUCKETS))
        .tolist(),
    }
    return layer, job


@pytest.mark.parametrize("name", CONFIGS)
def test_snn_layer(name: str) -> None:
    config = CONFIGS[name]
    jobs = [network_job(config, seed) for seed in (0, 1)]
    check_block(
        "snn_layer",
        parameters(config, jobs[0][0]),
        Path(__file__).with_name("snn_layer_bench.py"),
        {"networks": [job for _, job in jobs]},
    )
