"""Timelines add up to the timing; that they equal the RTL's is shown by tests/rtl."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_networks import random_case

from spikemeter.config import Config, load_config
from spikemeter.errors import ConfigError, InputError
from spikemeter.models.integer import network_spikes
from spikemeter.predictor.timeline import Slice, check_trace_path, chrome_trace, engine_timeline
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


def trace_at(clock_mhz: float) -> tuple[Config, list[dict[str, Any]]]:
    """Spans of a trace that was written and read, of two processes at this clock."""
    case = random_case(3, samples=1)
    content = case.config.model_dump()
    content["hardware"]["clock_mhz"] = clock_mhz
    config = load_config(content)
    slices = engine_timeline(config, network_spikes(case.network, case.inputs).inputs)
    trace = json.loads(json.dumps(chrome_trace(config, {"model": slices, "RTL": slices})))
    return config, trace["traceEvents"]


def test_a_thread_is_a_layer_and_buckets_add_up_to_its_steps() -> None:
    config, events = trace_at(100)
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


CLOCKS = [7, 100, 333, 333.3, 999.9, 1000, 1000.1, 3333.3, 10_000]


@pytest.mark.parametrize("clock_mhz", CLOCKS)
def test_every_slice_starts_and_lasts_as_its_cycles_say(clock_mhz: float) -> None:
    _, events = trace_at(clock_mhz)
    unit = 0.001 if clock_mhz <= 1000 else 0.000_001
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] > 0.9 * unit
            assert event["dur"] == pytest.approx(event["args"]["cycles"] / clock_mhz, abs=unit)
            assert event["ts"] == pytest.approx(event["args"]["start_cycle"] / clock_mhz, abs=unit)


@pytest.mark.parametrize("clock_mhz", CLOCKS)
@pytest.mark.parametrize("truncates", [False, True], ids=["as numbers", "in whole units"])
def test_buckets_fill_their_step_and_none_outlasts_it(clock_mhz: float, truncates: bool) -> None:
    _, events = trace_at(clock_mhz)
    per_microsecond = 1000 if clock_mhz <= 1000 else 1_000_000
    outer, before = (0.0, 0.0), 0.0
    steps = buckets = 0
    for event in events:
        if event["ph"] != "X":
            continue
        if truncates:  # as Perfetto reads nanoseconds
            start, cycles = (int(event[key] * per_microsecond) for key in ("ts", "dur"))
            assert start == round(per_microsecond * event["args"]["start_cycle"] / clock_mhz)
        else:
            start, cycles = event["ts"], event["dur"]
        end = start + cycles
        if event["name"].startswith("step"):
            assert before == outer[1] or not truncates
            outer, before, steps = (start, end), start, steps + 1
            continue
        assert outer[0] <= start
        assert end <= outer[1]
        if truncates:
            assert start == before
        before, buckets = end, buckets + 1
    assert steps
    assert buckets > steps


def test_a_trace_replaces_a_trace_and_no_other_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    check_trace_path(config)
    config.write_text("network: 10")
    with pytest.raises(InputError, match=r"^out: must not exist, or be a trace, .*config\.yaml'$"):
        check_trace_path(config)
    result = tmp_path / "result.json"
    result.write_text('{"status": "ok"}')
    with pytest.raises(InputError, match=r"^out: must not exist"):
        check_trace_path(result)
    result.write_text(json.dumps(chrome_trace(random_case(0).config, {})))
    check_trace_path(result)


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
