"""Every cycle of an inference is counted in its bucket, and kept until the next one is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from block_bench import check_block

pytestmark = pytest.mark.rtl


def test_perf_counters() -> None:
    check_block("perf_counters", {}, Path(__file__).with_name("perf_counters_bench.py"))
