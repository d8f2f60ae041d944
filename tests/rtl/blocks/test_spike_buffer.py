"""Every word comes out of the buffer once, in order, and no sooner than the schedule allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from block_bench import check_block

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("time_steps", "words", "width", "line_words"),
    [(1, 1, 8, 1), (3, 5, 13, 1), (2, 7, 8, 3), (4, 2, 32, 2)],
)
def test_spike_buffer(time_steps: int, words: int, width: int, line_words: int) -> None:
    check_block(
        "spike_buffer",
        {
            "TimeSteps": time_steps,
            "Words": words,
            "EncoderWidth": width,
            "LineWords": line_words,
        },
        Path(__file__).with_name("spike_buffer_bench.py"),
    )
