from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from spikemeter import predict_latency
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
    assert len(spikes.counts[0]) == len(spikes.taps[1]) == 2
    many = {name: np.stack([array, 2 * array, array]) for name, array in counts().items()}
    many |= {"taps_0": 5 * many["counts_0"], "outputs": trains(3)["outputs"]}
    spikes = known_spikes(many, CONFIG).first(2)
    assert spikes.samples == len(spikes.taps[0]) == len(spikes.outputs) == 2
    assert spikes.input_rates == [1.5 * 4.5 / 48, 1.5 * 1.25 / 12]


def test_rates_and_taps_are_those_of_the_spikes():
    arrays = trains()
    spikes = known_spikes(arrays, CONFIG)
    assert spikes.input_rates == [arrays["inputs_0"].mean(), arrays["inputs_1"].mean()]
    alone = np.zeros((1, 3, 2, 8, 6), bool)
    alone[0, 0, 0, 0, 0] = alone[0, 1, 1, 0, 2] = alone[0, 2, 1, 3, 3] = True
    spikes = known_spikes({"inputs_0": alone, "inputs_1": np.zeros((1, 3, 48), bool)}, CONFIG)
    assert spikes.taps[0][0].tolist() == [[4, 0], [0, 6], [0, 9]]


def test_a_trace_takes_no_more_memory_for_counts_that_nobody_asks_for(monkeypatch):
    """Taps are floats in between, one for each spike that there might be."""
    config = load_config(
        {
            "network": "8C3-10",
            "input": {"height": 64, "width": 64, "time_steps": 4, "statistics": [[0.0] * 2] * 4},
        }
    )
    shapes = [(layer.in_channels, layer.in_height, layer.in_width) for layer in config.layers]
    arrays = {f"inputs_{i}": np.zeros((40, 4, *shape), bool) for i, shape in enumerate(shapes)}
    arrays["inputs_0"][:, 0, 0, 0, 0] = True
    known_spikes(arrays, config)
    monkeypatch.setattr("spikemeter.predictor.spikes._LINES_AT_A_TIME", 1)
    tracemalloc.start()
    try:
        spikes = known_spikes(arrays, config)
        before = tracemalloc.get_traced_memory()[1]
        taps = spikes.taps
        after = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert before < 100_000
    assert after < sum(train.nbytes for train in arrays.values())
    assert taps[0][:, 0, 0].tolist() == [4.0] * 40
    monkeypatch.setattr("spikemeter.predictor.spikes.spike_taps", None)
    monkeypatch.setattr("spikemeter.predictor.spikes._counted", None)
    assert predict_latency(config, spikes=arrays).fidelity == "trace"


def test_a_run_folder_s_arrays_are_known_in_memory_too(tmp_path):
    with np.load(written(tmp_path, trains())) as file:
        spikes = known_spikes(file, CONFIG)
    assert spikes.samples == len(spikes.outputs) == 5


def test_counts_may_be_of_neurons_that_spike_or_not():
    spikes = known_spikes({"counts_0": np.ones((3, 2), bool), "counts_1": np.zeros((3, 4))}, CONFIG)
    assert spikes.counts[0].tolist() == [[[1, 1]] * 3]


def counted(channels=True, taps=True):
    arrays = {f"counts_{i}": 2 * np.ones((3, n)) for i, n in enumerate((2, 4))}
    arrays |= {"taps_0": 5 * arrays["counts_0"], "taps_1": arrays["counts_1"]} if taps else {}
    return arrays if channels else {k: v.sum(1, keepdims=True) for k, v in arrays.items()}


@pytest.mark.parametrize(
    ("arrays", "level", "taps_known"),
    [
        (counted(), "taps", True),
        (counted(taps=False), "channels", False),
        (counted(channels=False, taps=False), "layers", False),
        (counted(channels=False), "layers", True),
        ({**counted(), "counts_0": np.full((3, 1), 4.0), "taps_0": np.full((3, 1), 20.0)},
         "layers", True),
        ({**counted(taps=False), "counts_1": np.full((3, 1), 8.0)}, "layers", False),
        (trains(), "taps", True),
    ],
)  # fmt: skip
def test_the_level_says_what_is_known_of_every_layer(arrays, level, taps_known):
    spikes = known_spikes(arrays, CONFIG)
    assert spikes.level == level
    assert (spikes.taps is not None) == taps_known


def test_of_kernels_without_a_choice_taps_are_the_counts():
    config = load_config({"dataset": "nmnist-saccade", "network": "20-10"})
    by_channel = {"counts_0": np.full((8, 2), 7), "counts_1": np.eye(8, 20)}
    by_layer = {name: array.sum(axis=1, keepdims=True) for name, array in by_channel.items()}
    for arrays, level in ((by_channel, "taps"), (by_layer, "layers")):
        spikes = known_spikes(arrays, config)
        assert spikes.level == level
        for taps, known in zip(spikes.taps, spikes.counts, strict=True):
            np.testing.assert_array_equal(taps, known)


def test_counts_and_taps_may_be_rounded_as_float32_is():
    rng = np.random.default_rng(0)
    arrays = {"counts_0": 48 * rng.random((3, 2)), "counts_1": 12 * rng.random((3, 4))}
    arrays |= {"taps_0": 4 * arrays["counts_0"], "taps_1": arrays["counts_1"]}
    assert known_spikes(arrays, CONFIG).level == "taps"
    for name in arrays:
        rounded = arrays | {name: arrays[name].astype(np.float32)}
        assert known_spikes(rounded, CONFIG).level == "taps"


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
            "inputs_1: spikes must be 0 or 1, got 2 at sample 0, step 0, feature 0 ",
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
            r"counts_0: must not be negative, got -0.5 at step 0, channel 0 \(",
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
            "taps_0: must be at most the 9 taps of a spike, got 41 for 4.5 spikes at step 0",
        ),
        (
            replaced(counts(), taps_0=np.zeros((3, 2))),
            "taps_0: must be at least the 4 taps of a spike, got 0 for 4.5 spikes at step 0",
        ),
        (
            replaced(counts(), taps_0=np.full((3, 2), 40.0), taps_1=0.5 * counts()["counts_1"]),
            "taps_1: must be at least the 1 taps of a spike, got 0.625 for 1.25 spikes at step 0",
        ),
        (
            replaced(counts(), taps_1=counts()["counts_1"]),
            "taps_0: required for layer 0:4C3 beside taps_1, got nothing",
        ),
        (
            replaced(trains(), taps_0=np.full((5, 3, 2), 9.0)),
            "taps_0: must not be there beside inputs_0",
        ),
        (
            replaced(counts(), inputs_1=np.zeros((5, 3, 48), bool)),
            "inputs_1: must not be there beside counts_0",
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


def places(sample, *place, value):
    """Counts of three samples with this value at one place."""
    arrays = {name: np.stack([array] * 3) for name, array in counts().items()}
    name = f"counts_{sample}"
    arrays[name][place] = value
    return arrays


def spike_at(*place):
    arrays = {name: array.astype(np.uint8) for name, array in trains().items()}
    arrays["inputs_0"][place] = 3
    return arrays


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (places(1, 2, 1, 3, value=-4), "counts_1: must not be negative, got -4 at sample 2, step"
         " 1, channel 3"),
        (places(0, 0, 2, 1, value=np.nan), "counts_0: must be finite, got nan at sample 0, step 2,"
         " channel 1"),
        (places(0, 1, 0, 0, value=49), "counts_0: must be at most the 48 neurons of a channel, got"
         " 49 at sample 1, step 0, channel 0"),
        ({"counts_0": np.array([[1], [2], [97]]), "counts_1": np.ones((3, 1))},
         "counts_0: must be at most the 96 inputs of the layer, got 97 at step 2"),
        (spike_at(4, 2, 1, 7, 5), "inputs_0: spikes must be 0 or 1, got 3 at sample 4, step 2,"
         " channel 1, row 7, column 5"),
    ],
)  # fmt: skip
def test_what_is_impossible_is_refused_by_its_place(arrays, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        known_spikes(arrays, CONFIG)


@pytest.mark.parametrize(
    "name",
    ["counts_x", "counts_00", "counts_", "taps_O", "Counts_0", "count_1", "taps_-1", "frames", ""],
)
def test_a_name_without_a_meaning_is_refused(tmp_path, name):
    rule = "arrays are inputs_i, counts_i, taps_i, outputs, labels and quantised"
    with pytest.raises(InputError, match=f"^{name}: {rule}"):
        known_spikes(counts() | {name: np.ones((3, 2))}, CONFIG)
    if name:
        with pytest.raises(InputError, match=f"^{name}: {rule}.* \\(in '.*spikes.npz'\\)$"):
            read_spikes(written(tmp_path, counts() | {name: np.ones((3, 2))}), CONFIG)


@pytest.mark.parametrize("name", ["counts_2", "taps_2", "counts_7", "taps_" + 5000 * "9"], ids=len)
def test_an_array_of_no_layer_is_refused(name):
    rule = "must not be there, 4C3-MP2-10 has 2 weighted layers"
    with pytest.raises(InputError, match=f"^{name}: {rule}$"):
        known_spikes(counts() | {name: np.ones((3, 2))}, CONFIG)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({0: np.ones((3, 2))}, r"0: must be the name of an array; arrays are inputs_i"),
        ([np.ones((3, 2))], r"spikes: must map names to arrays, got list"),
        ("counts.npz", r"spikes: must map names to arrays, got str"),
    ],
)
def test_what_maps_no_names_is_refused(arrays, sentence):
    with pytest.raises(InputError, match=sentence):
        known_spikes(arrays, CONFIG)


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
