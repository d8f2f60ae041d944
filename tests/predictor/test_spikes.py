from __future__ import annotations

import numpy as np
import pytest

from spikemeter.config import load_config
from spikemeter.errors import InputError, RunFolderError
from spikemeter.predictor.spikes import known_spikes, read_spikes

CONFIG = load_config(
    {
        "dataset": "nmnist-saccade",
        "network": "4C3-MP2-10",
        "input": {"height": 8, "width": 6, "time_steps": 3},
    }
)


def trains(samples: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "inputs_0": rng.random((samples, 3, 2, 8, 6)) < 0.2,
        "inputs_1": rng.random((samples, 3, 4 * 4 * 3)) < 0.3,
        "outputs": rng.random((samples, 3, 10)) < 0.1,
        "labels": np.arange(samples),
    }


def counts() -> dict[str, np.ndarray]:
    return {"counts_0": np.full((3, 2), 4.5), "counts_1": np.full((3, 4), 1.25)}


def written(path, arrays):
    np.savez(path / "spikes.npz", **arrays)
    return path / "spikes.npz"


def test_trains_come_with_their_counts(tmp_path):
    arrays = trains()
    spikes = read_spikes(written(tmp_path, arrays), CONFIG)
    assert spikes.samples == 5
    assert (spikes.inputs[0] == arrays["inputs_0"]).all()
    assert (spikes.counts[0] == arrays["inputs_0"].sum(axis=(3, 4))).all()
    maps = arrays["inputs_1"].reshape(5, 3, 4, 12)
    assert (spikes.counts[1] == maps.sum(axis=3)).all()
    assert (spikes.outputs == arrays["outputs"]).all()


def test_shapes_may_be_flat_or_whole_and_samples_may_be_left_out(tmp_path):
    arrays = trains()
    expected = read_spikes(written(tmp_path, arrays), CONFIG)
    flipped = {
        "inputs_0": arrays["inputs_0"].reshape(5, 3, -1).astype(np.uint8),
        "inputs_1": arrays["inputs_1"].reshape(5, 3, 4, 4, 3).astype(np.float32),
    }
    spikes = read_spikes(written(tmp_path, flipped), CONFIG)
    for ours, theirs in zip(spikes.inputs, expected.inputs, strict=True):
        assert ours.dtype == np.bool_
        assert (ours == theirs).all()
    single = {name: array[2] for name, array in arrays.items() if name != "labels"}
    spikes = read_spikes(written(tmp_path, single), CONFIG)
    assert spikes.samples == 1
    assert (spikes.inputs[0][0] == arrays["inputs_0"][2]).all()


def test_counts_may_be_of_one_or_of_many_samples_and_bring_taps(tmp_path):
    arrays = counts() | {"taps_0": np.full((3, 2), 40.0)}
    spikes = read_spikes(written(tmp_path, arrays), CONFIG)
    assert spikes.inputs is None
    assert spikes.counts[1].shape == (1, 3, 4)
    many = {name: np.stack([array] * 4) for name, array in counts().items()}
    assert read_spikes(written(tmp_path, many), CONFIG).samples == 4


def test_the_first_samples_can_be_kept_alone(tmp_path):
    spikes = read_spikes(written(tmp_path, trains()), CONFIG).first(2)
    assert spikes.samples == len(spikes.inputs[1]) == len(spikes.outputs) == 2


def replaced(arrays, **changes):
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (replaced(trains(), inputs_0=None), "inputs_0 or counts_0: one of them must be there"),
        (replaced(trains(), inputs_1=None), "inputs_1: required for layer 1:10, got nothing"),
        (
            replaced(trains(), inputs_2=np.zeros((5, 3, 10), bool)),
            "inputs_2: must not be there, 4C3-MP2-10 has 2 weighted layers",
        ),
        (
            replaced(trains(), inputs_0=np.zeros((5, 3, 2, 6, 8), bool)),
            r"inputs_0: must have shape \(samples, 3, 2, 8, 6\), got \(5, 3, 2, 6, 8\)",
        ),
        (
            replaced(trains(), inputs_1=np.zeros((5, 4, 48), bool)),
            r"inputs_1: must have shape \(samples, 3, 48\), got \(5, 4, 48\)",
        ),
        (
            replaced(trains(), inputs_1=np.zeros((4, 3, 48), bool)),
            "inputs_1: must hold the 5 samples of layer 0, got 4",
        ),
        (
            replaced(trains(), outputs=np.zeros((5, 3, 9), bool)),
            r"outputs: must have shape \(samples, 3, 10\), got \(5, 3, 9\)",
        ),
        (
            replaced(trains(), inputs_1=np.full((5, 3, 48), 2)),
            "inputs_1: spikes must be 0 or 1, got 2",
        ),
        (
            replaced(trains(), inputs_1=np.full((5, 3, 48), np.nan)),
            "inputs_1: spikes must be 0 or 1, got nan",
        ),
        (
            replaced(trains(0), labels=None),
            "inputs_0: needs a sample, got 0",
        ),
        (
            replaced(counts(), counts_0=np.full((3, 2), -0.5)),
            "counts_0: must not be negative, got -0.5",
        ),
        (
            replaced(counts(), counts_0=np.full((3, 2), np.nan)),
            "counts_0: must be finite, got nan",
        ),
        (
            replaced(counts(), counts_1=np.full((3, 4), 12.5)),
            "counts_1: must be at most the 12 neurons of a channel, got 12.5",
        ),
        (
            replaced(counts(), counts_1=np.full((3, 48), 1)),
            r"counts_1: must have shape \(3, 4\) or \(samples, 3, 4\), got \(3, 48\)",
        ),
        (
            replaced(counts(), counts_1=np.full((3, 4), "x")),
            "counts_1: must hold numbers, got <U1",
        ),
        (
            replaced(counts(), taps_0=np.full((3, 2), 41.0)),
            "taps_0: must be at most the 9 taps of a spike, got 41",
        ),
        (
            replaced(counts(), taps_0=np.full((2, 3, 2), 4.0)),
            "taps_0: must hold the 1 samples of its counts, got 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_array(tmp_path, arrays, sentence):
    with pytest.raises(InputError, match=sentence):
        read_spikes(written(tmp_path, arrays), CONFIG)


def test_a_pickle_inside_is_never_loaded(tmp_path):
    arrays = replaced(trains(), inputs_0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="cannot read the spikes"):
        read_spikes(written(tmp_path, arrays), CONFIG)


def test_a_damaged_or_missing_file_is_refused_as_the_caller_wants(tmp_path):
    path = written(tmp_path, trains())
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(RunFolderError, match="cannot read the spikes"):
            read_spikes(path, CONFIG, refusal=RunFolderError)
    # One spike flipped inside inputs_0
    broken = bytearray(whole)
    broken[whole.index(b"inputs_1.npy") - 60] ^= 0x01
    path.write_bytes(bytes(broken))
    with pytest.raises(RunFolderError, match="cannot read the spikes"):
        read_spikes(path, CONFIG, refusal=RunFolderError)
    with pytest.raises(InputError, match="No such file"):
        read_spikes(tmp_path / "none.npz", CONFIG)


def test_lists_that_are_no_array_are_refused():
    config = load_config({"network": "2", "input": {"statistics": [[0.0, 0.0]] * 8}})
    with pytest.raises(InputError, match="counts_0: must be an array, got lists of different"):
        known_spikes({"counts_0": [[1, 2], [1]]}, config)
