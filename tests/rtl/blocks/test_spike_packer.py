"""Pooled spikes leave the packer in order, each line as soon as it is full."""

from __future__ import annotations

from pathlib import Path

import pytest
from block_bench import check_block

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("channels", "cores", "height", "width", "pool", "line_width"),
    [
        (1, 1, 1, 1, 1, 8),
        (7, 3, 3, 5, 1, 8),
        (10, 10, 1, 1, 1, 16),
        (5, 2, 5, 7, 2, 13),
        (8, 8, 4, 6, 2, 8),
        (3, 2, 9, 11, 4, 8),
    ],
)
def test_spike_packer(
    channels: int, cores: int, height: int, width: int, pool: int, line_width: int
) -> None:
    check_block(
        "spike_packer",
        {
            "Channels": channels,
            "Cores": cores,
            "Height": height,
            "Width": width,
            "Pool": pool,
            "LineWidth": line_width,
        },
        Path(__file__).with_name("spike_packer_bench.py"),
    )
