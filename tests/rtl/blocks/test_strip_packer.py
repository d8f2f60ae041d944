"""Pooled spikes of tiles leave the strip packer in order, as soon as their strip is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from block_bench import check_block

from spikemeter.network import pixels_at_once

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("channels", "cores", "height", "width", "pool", "width_of_line"),
    [
        pytest.param(1, 1, 1, 1, 1, 9, id="one-neuron"),
        pytest.param(3, 3, 7, 4, 1, 32, id="one-phase-narrow"),
        pytest.param(5, 4, 9, 19, 1, 45, id="two-phases-across-rows"),
        pytest.param(8, 2, 5, 7, 1, 26, id="four-phases"),
        pytest.param(10, 1, 4, 5, 1, 13, id="ten-phases"),
        pytest.param(3, 3, 11, 13, 2, 16, id="pooled-one-phase"),
        pytest.param(7, 3, 7, 8, 2, 8, id="pooled-last-strip-empty"),
        pytest.param(4, 2, 10, 2, 2, 12, id="pooled-one-column"),
        pytest.param(5, 2, 13, 9, 4, 8, id="pooled-by-four"),
        pytest.param(2, 2, 16, 27, 4, 8, id="pooled-by-four-one-phase"),
    ],
)
def test_strip_packer(
    channels: int, cores: int, height: int, width: int, pool: int, width_of_line: int
) -> None:
    check_block(
        "strip_packer",
        {
            "Channels": channels,
            "Cores": cores,
            "Height": height,
            "Width": width,
            "Pool": pool,
            "Pixels": pixels_at_once(pool, -(-channels // cores)),
            "LineWidth": width_of_line,
        },
        Path(__file__).with_name("strip_packer_bench.py"),
    )
