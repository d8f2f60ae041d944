"""Spikes survive the trip through packed words; addresses cover what the buffers hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from random_networks import random_case

from spikemeter.network import packed_words
from spikemeter.rtl.packing import config_writes, pack_spikes, peek_addresses, unpack_spikes


@given(
    shape=st.tuples(*(st.integers(1, 6) for _ in range(4))),
    encoder_width=st.integers(8, 128),
    seed=st.integers(0, 99),
)
def test_unpacking_undoes_packing(
    shape: tuple[int, int, int, int], encoder_width: int, seed: int
) -> None:
    spikes = np.random.default_rng(seed).random(shape) < 0.5
    words = pack_spikes(spikes, encoder_width)
    assert len(words) == shape[0] * packed_words(spikes[0].size, encoder_width)
    assert sum(word.bit_count() for word in words) == spikes.sum()
    np.testing.assert_array_equal(unpack_spikes(words, encoder_width, shape), spikes)


def test_the_channel_is_the_fastest_index() -> None:
    spikes = np.zeros((1, 3, 2, 2), dtype=bool)
    spikes[0, 2, 0, 1] = True
    assert pack_spikes(spikes, 8) == [1 << (1 * 3 + 2), 0]


def test_every_weight_is_written_once_to_its_core() -> None:
    for seed in range(20):
        case = random_case(seed, taps_per_cycle=9 if seed % 2 else 1)
        writes = config_writes(case.config, case.network)
        places = {(write.layer, write.space, write.core, write.addr) for write in writes}
        assert len(places) == len(writes)
        for index, layer in enumerate(case.network.layers):
            weights = [write.data for write in writes if write[:2] == (index, 0)]
            assert sorted(weights) == sorted(layer.weight.ravel().tolist())
            cores = {write.core for write in writes if write[:2] == (index, 0)}
            assert cores == set(range(case.config.neural_cores[index]))


def test_the_two_halves_of_a_buffer_do_not_overlap() -> None:
    case = random_case(3)
    for buffer in range(len(case.config.layers) + 1):
        halves = [peek_addresses(case.config, buffer, half) for half in (0, 1)]
        assert not set(halves[0]) & set(halves[1])
        assert len(set(halves[0])) == len(halves[0]) == len(halves[1])
