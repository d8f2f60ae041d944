"""Timelines add up to the timing; that they equal the RTL's is shown by tests/rtl."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from random_networks import random_case

from spikemeter.config import load_config
from spikemeter.errors import ConfigError
from spikemeter.models.integer import network_spikes
from spikemeter.predictor.timeline import Slice, chrome_trace, engine_timeline
from spikemeter.predictor.timing import BUCKETS, timing_model


@pytest.mark.parametrize("seed", range(20))
def test_slices_fill_every_layer_and_add_up_to_its_buckets(seed: int) -> None:
    case = random_case(seed, samples=1)
    inputs = network_spikes(case.network, case.inputs).inputs
    timing = timing_model(case.config).trace(inputs)
    slices = engine_timeline(case.config, inputs)
    for index in range(len(inputs)):
        own = [entry for entry in slices if entry.layer == index]
        assert all(first.start + first.cycles == then.start for first, then in pairwise(own))
        assert [entry.step for entry in own] == sorted(entry.step for entry in own)
        for bucket in BUCKETS:
            cycles = sum(entry.cycles for entry in own if entry.bucket == bucket)
            assert cycles == timing.buckets[bucket][0, index]
    assert slices[0].start == 0
    assert slices[-1].start + slices[-1].cycles == timing.cycles[0]


def test_the_first_event_is_served_eight_cycles_after_the_dispatch() -> None:
    config = load_config(
        {
            "network": "2",
            "input": {
                "height": 1, "width": 40, "channels": 1, "time_steps": 1, "statistics": [[0.0]]
            },
            "hardware": {"neural_cores": [1], "encoder_width": 8},
        }
    )  # fmt: skip
    spikes = np.zeros((1, 1, 40), dtype=bool)
    spikes[0, 0, [0, 1, 39]] = True  # two in word 0, one in word 4
    assert engine_timeline(config, [spikes]) == tuple(
        Slice(layer=0, step=0, bucket=bucket, start=start, cycles=cycles)
        for bucket, start, cycles in [
            ("stall", 0, 1),
            ("encode", 1, 7),
            ("accumulate", 8, 6),  # 2 events by 2 owned channels, and without a gap word 4's
            ("fire", 14, 8),
        ]
    )


def test_a_trace_nests_buckets_in_steps_and_counts_microseconds() -> None:
    case = random_case(3, samples=1)
    config = case.config
    slices = engine_timeline(config, network_spikes(case.network, case.inputs).inputs)
    trace = json.loads(json.dumps(chrome_trace(config, {"model": slices, "RTL": slices})))
    events = trace["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert names == 2 * [layer.name for layer in config.layers]
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["pid"] for event in spans} == {1, 2}
    for pid, tid in {(event["pid"], event["tid"]) for event in spans}:
        own = [event for event in spans if (event["pid"], event["tid"]) == (pid, tid)]
        steps = [event for event in own if event["name"].startswith("step")]
        assert len(steps) == config.input.time_steps
        buckets = [event for event in own if event["name"] in BUCKETS]
        assert sum(event["args"]["cycles"] for event in buckets) == sum(
            event["args"]["cycles"] for event in steps
        )
    for event in spans:
        assert event["dur"] == pytest.approx(event["args"]["cycles"] / config.hardware.clock_mhz)


@pytest.mark.parametrize("clock_mhz", [333, 333.3, 100, 7])
@pytest.mark.parametrize("truncates", [False, True], ids=["as numbers", "in whole nanoseconds"])
def test_no_bucket_outlasts_its_step_at_any_clock(clock_mhz: float, truncates: bool) -> None:
    case = random_case(3, samples=1)
    content = case.config.model_dump()
    content["hardware"]["clock_mhz"] = clock_mhz
    config = load_config(content)
    slices = engine_timeline(config, network_spikes(case.network, case.inputs).inputs)
    trace = json.loads(json.dumps(chrome_trace(config, {"model": slices})))
    steps = buckets = 0
    for event in trace["traceEvents"]:
        if event["ph"] != "X":
            continue
        if truncates:  # as Perfetto reads them
            start, cycles = int(event["ts"] * 1000), int(event["dur"] * 1000)
            assert start == round(1000 * event["args"]["start_cycle"] / clock_mhz)
        else:
            start, cycles = event["ts"], event["dur"]
        end = start + cycles
        if event["name"].startswith("step"):
            outer, before, steps = (start, end), start, steps + 1
            continue
        assert outer[0] <= start
        assert end <= outer[1]
        if truncates:
            assert start == before
        before, buckets = end, buckets + 1
    assert steps
    assert buckets > steps


def test_only_the_engine_and_one_sample_have_a_timeline() -> None:
    case = random_case(3)
    inputs = network_spikes(case.network, case.inputs).inputs
    with pytest.raises(ValueError, match=r"inputs_0 must hold one sample for a timeline, got 3"):
        engine_timeline(case.config, inputs)
    published = load_config(
        {"dataset": "nmnist-saccade", "network": "10", "hardware": {"backend": "published"}}
    )
    with pytest.raises(ConfigError, match=r"hardware\.backend: must be engine for a timeline"):
        engine_timeline(published, [np.zeros((1, 8, 512), dtype=bool)])
