"""The event control asks for the right operations, each in its cycle."""

from __future__ import annotations

from pathlib import Path

import pytest
from block_bench import check_block

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("maps", "kernel", "padding", "phases", "width", "time_steps", "fire_latency", "banks"),
    [
        pytest.param((1, 1, 1), 0, 0, 1, 8, 1, 3, 1, id="dense-one-input"),
        pytest.param((3, 3, 5), 0, 0, 3, 13, 3, 4, 1, id="dense"),
        pytest.param((3, 4, 5), 1, 0, 2, 8, 2, 3, 1, id="conv1"),
        pytest.param((2, 5, 6), 3, 1, 1, 32, 4, 3, 1, id="conv3-same"),
        pytest.param((1, 7, 6), 5, 0, 2, 16, 2, 4, 1, id="conv5-valid"),
        pytest.param((2, 3, 2), 5, 2, 3, 9, 3, 4, 1, id="conv5-wider-than-the-frame"),
        pytest.param((2, 7, 8), 3, 1, 1, 16, 2, 3, 9, id="banks-same"),
        pytest.param((2, 5, 11), 3, 0, 3, 9, 2, 4, 9, id="banks-valid"),
        pytest.param((3, 1, 2), 3, 1, 2, 8, 2, 3, 9, id="banks-one-tile"),
    ],
)
def test_event_control(
    maps: tuple[int, int, int],
    kernel: int,
    padding: int,
    phases: int,
    width: int,
    time_steps: int,
    fire_latency: int,
    banks: int,
) -> None:
    """A kernel of 0 stands for a dense layer."""
    channels, *sides = maps
    height, breadth = (side + 2 * padding - kernel + 1 if kernel else 1 for side in sides)
    check_block(
        "event_control",
        {
            "TimeSteps": time_steps,
            "InChannels": channels,
            "InHeight": sides[0],
            "InWidth": sides[1],
            "OutHeight": height,
            "OutWidth": breadth,
            "Kernel": kernel or 1,
            "Padding": padding,
            "Dense": int(not kernel),
            "Phases": phases,
            "EncoderWidth": width,
            "FireLatency": fire_latency,
            "Banks": banks,
            "WriteBackCycles": banks - 1,
        },
        Path(__file__).with_name("event_control_bench.py"),
    )
