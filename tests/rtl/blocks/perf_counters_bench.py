"""The counters against a tally, over inferences of random lengths with pauses between them."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import cocotb
from bench_cycles import Cycles

INFERENCES = 60


@cocotb.test()
async def counts_are_those_of_the_last_whole_inference(dut: Any) -> None:
    rng = random.Random(0)
    bench = Cycles(dut)
    await bench.reset(perf_i=1, done_i=0)
    for _ in range(5):
        await bench.next()
    await bench.reset(perf_i=0, done_i=0)
    kept = Counter[int]()

    async def cycle(bucket: int | None, done: bool) -> None:
        bench.drive(perf_i=0 if bucket is None else 1 << bucket, done_i=done)
        await bench.settle()
        counts = int(dut.bucket_cnt_o.value)
        assert [counts >> 32 * index & 0xFFFF_FFFF for index in range(4)] == [
            kept[index] for index in range(4)
        ]
        await bench.next()

    for _ in range(INFERENCES):
        for _ in range(rng.choice([0, 0, 1, 9])):
            await cycle(None, False)
        length = rng.choice([1, 2, 50])
        buckets = [rng.choice([rng.randrange(4), 2]) for _ in range(length)]
        for index, bucket in enumerate(buckets):
            await cycle(bucket, index == length - 1)
        kept = Counter(buckets)
    await cycle(None, False)
