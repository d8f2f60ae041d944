"""The neural cores compute the integers of the reference, one operation per cycle."""

from __future__ import annotations

from pathlib import Path

import pytest
from block_bench import check_block

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("lapicque", [False, True], ids=["lif", "lapicque"])
@pytest.mark.parametrize(
    (
        "cores", "last_cores", "banks", "neurons", "weights", "phases", "weight_bits",
        "current_bits", "bits",
    ),
    [
        (1, 1, 1, 1, 1, 1, 2, 3, 8),
        (3, 2, 1, 12, 9, 3, 4, 8, 9),
        (4, 4, 1, 8, 20, 2, 8, 12, 32),
        (1, 1, 9, 4, 3, 1, 4, 8, 12),
        (3, 2, 9, 6, 4, 2, 3, 7, 10),
    ],
)  # fmt: skip
def test_core_array(
    cores: int,
    last_cores: int,
    banks: int,
    neurons: int,
    weights: int,
    phases: int,
    weight_bits: int,
    current_bits: int,
    bits: int,
    lapicque: bool,
) -> None:
    check_block(
        "core_array",
        {
            "Cores": cores,
            "LastCores": last_cores,
            "Banks": banks,
            "Neurons": neurons,
            "Weights": weights,
            "Phases": phases,
            "WeightBits": weight_bits,
            "CurrentBits": current_bits,
            "MembraneBits": bits,
            "Lapicque": int(lapicque),
        },
        Path(__file__).with_name("core_array_bench.py"),
    )
