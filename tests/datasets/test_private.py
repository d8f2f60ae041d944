"""A folder of the user's own: read without code, refused in one sentence."""

import os
import shutil
import zipfile
from itertools import chain

import numpy as np
import pytest
import yaml

from spikemeter.config import load_config
from spikemeter.datasets import load_splits
from spikemeter.errors import InputError
from spikemeter.files import CACHE_VARIABLE

SPEC = {"classes": 2, "channels": 2, "height": 12, "width": 10}
SIZES = {"height": 12, "width": 10, "time_steps": 3, "denoise_ms": 0, "time_window_ms": 100}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def make(folder, classes=("left", "right"), splits=("",), each=10, **spec):
    """Write events whose number is that of the file."""
    folder.mkdir()
    (folder / "dataset.yaml").write_text(yaml.safe_dump(SPEC | spec))
    for split in splits:
        for label in classes:
            (folder / split / label).mkdir(parents=True)
            for number in range(each):
                np.save(folder / split / label / f"{number:02}.npy", some_events(number + 1))
    return folder


def some_events(count, dtype=(("t", "u8"), ("x", "u2"), ("y", "i4"), ("p", "?"))):
    events = np.zeros(count, list(dtype))
    events["x"], events["y"] = np.arange(count) % 10, np.arange(count) % 12
    events["t"] = 1000 * np.arange(count)
    return events


def config(folder, **sizes):
    content = {"dataset": str(folder), "network": "2", "input": {**SIZES, **sizes}}
    return load_config(content)


def counts(part):
    return sorted(part.frames.sum(axis=(1, 2, 3, 4)).tolist())


def test_class_folders_are_split_by_the_hash_of_their_names(tmp_path):
    loaded = load_splits(config(make(tmp_path / "own"), values="counts"))
    parts = (loaded.train, loaded.validation, loaded.test)
    assert [len(part) for part in parts] == [14, 2, 4]
    assert sorted(chain(*map(counts, parts))) == sorted([*range(1, 11)] * 2)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[7, 7], [1, 1], [2, 2]]


def test_another_place_and_more_files_leave_every_sample_in_order(tmp_path):
    first = load_splits(config(make(tmp_path / "here")))
    (tmp_path / "here").rename(tmp_path / "there")
    again = load_splits(config(tmp_path / "there"))
    np.testing.assert_array_equal(first.train.frames, again.train.frames)


def of_one_time(folder):
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return folder


def test_folders_alike_in_names_sizes_and_times_do_not_share_frames(tmp_path):
    first = of_one_time(make(tmp_path / "first"))
    other = make(tmp_path / "other")
    for path in other.rglob("*.npy"):
        events = np.load(path)
        events["x"] = 9 - events["x"]
        np.save(path, events)
    of_one_time(other)
    before = load_splits(config(first)).train.frames
    mirrored = before[..., ::-1]
    np.testing.assert_array_equal(load_splits(config(other)).train.frames, mirrored)
    # The same in one place, one after the other
    first.rename(tmp_path / "away")
    other.rename(first)
    np.testing.assert_array_equal(load_splits(config(first)).train.frames, mirrored)
    # In another folder nothing is taken over, even of equal content
    third = shutil.copytree(first, tmp_path / "third", copy_function=shutil.copy2)
    load_splits(config(third))
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 4


@pytest.mark.parametrize("kept", ["time", "ends"])
def test_a_file_rewritten_with_its_size_is_noticed(tmp_path, kept):
    own = make(tmp_path / "own", each=0)
    for label in ("left", "right"):
        for number in range(10):
            np.save(own / label / f"{number:02}.npy", some_events(1_000))
    of_one_time(own)
    settings = {"values": "counts", "time_window_ms": 1_000}
    before = load_splits(config(own, **settings))
    for path in own.rglob("*.npy"):
        events = np.load(path)
        size = path.stat().st_size
        middle = slice(400, 500) if kept == "ends" else slice(0, 100)
        events["x"][middle] = 0
        np.save(path, events)
        assert path.stat().st_size == size
    if kept == "time":
        of_one_time(own)
    after = load_splits(config(own, **settings))
    assert (after.train.frames[..., 0] > before.train.frames[..., 0]).any()
    assert len(after.train) == len(before.train)


def test_split_folders_are_kept_and_validation_is_cut_from_train(tmp_path):
    own = make(tmp_path / "own", splits=("train", "test"), each=10)
    loaded = load_splits(config(own))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [18, 2, 20]
    whole = make(tmp_path / "whole", splits=("train", "validation", "test"), each=3)
    loaded = load_splits(config(whole))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [6, 6, 6]


def test_classes_with_numbers_for_names_keep_them(tmp_path):
    own = tmp_path / "own"
    make(own, classes=("1", "10", "2"))
    (own / "dataset.yaml").write_text(yaml.safe_dump(SPEC | {"classes": 11}))
    content = {"dataset": str(own), "network": "11", "input": SIZES}
    assert set(load_splits(load_config(content)).train.labels.tolist()) == {1, 2, 10}


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_frames_are_taken_as_they_are_and_shrunk_like_events(tmp_path, dtype):
    own = make(tmp_path / "own", each=0)
    rng = np.random.default_rng(0)
    for label in ("left", "right"):
        for number in range(10):
            frames = rng.integers(0, 2, (3, 2, 12, 10)).astype(dtype)
            np.savez_compressed(own / label / f"{number}.npz", frames=frames)
    plain = {"time_window_ms": None, "denoise_ms": None}
    whole = load_splits(config(own, **plain))
    assert whole.train.frames.shape == (14, 3, 2, 12, 10)
    small = load_splits(config(own, **plain, height=5, width=4, values="counts"))
    expected = np.zeros((14, 3, 2, 5, 4), np.int64)
    for y in range(12):
        for x in range(10):
            expected[..., y * 5 // 12, x * 4 // 10] += whole.train.frames[..., y, x]
    np.testing.assert_array_equal(small.train.frames, expected)


def test_one_channel_needs_no_polarity(tmp_path):
    own = make(tmp_path / "own", channels=1, each=0)
    for label in ("left", "right"):
        for number in range(10):
            np.save(
                own / label / f"{number}.npy",
                some_events(4, (("x", "i2"), ("y", "i2"), ("t", "i8"))),
            )
    content = {"dataset": str(own), "network": "2", "input": {**SIZES, "channels": 1}}
    assert load_splits(load_config(content)).train.frames.shape == (14, 3, 1, 12, 10)


def events_with(**fields):
    events = some_events(4, (("x", "i8"), ("y", "i8"), ("t", "i8"), ("p", "i8")))
    for name, value in fields.items():
        events[name][2] = value
    return events


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"cannot read .*it is damaged or no NumPy file"),
        (b"no array", r"cannot read .*it is damaged or no NumPy file"),
        (np.array([{"a": 1}], dtype=object), r"must hold no Python objects, got some"),
        (events_with(x=10), r"field 'x' must be 0 to 9, got 10"),
        (events_with(y=-1), r"field 'y' must be 0 to 11, got -1"),
        (events_with(t=-5), r"field 't' must be 0 to \d+, got -5"),
        (events_with(p=2), r"field 'p' must be 0 to 1, got 2"),
        (events_with()[["x", "y", "t"]], r"events must have a field 'p', got x, y, t"),
        (
            np.zeros(3, [("x", "f4"), ("y", "i4"), ("t", "i4"), ("p", "?")]),
            r"whole number.*float32",
        ),
        (np.zeros((2, 2), [("x", "i4")]), r"events must be 1-D, got 2-D"),
        (np.zeros((4, 2, 12, 10)), r"must be 3 x 2 x 12 x 10 \(input\.time_steps.*got 4 x 2 x 12"),
        (np.zeros((3, 2, 12, 10)), r"frames must hold whole numbers, got float64"),
        (np.full((3, 2, 12, 10), -1), r"frames must hold 0 to 65535, got -1"),
    ],
)
def test_a_malformed_file_is_named_with_its_rule_and_value(tmp_path, content, said):
    own = make(tmp_path / "own")
    bad = own / "left" / "03.npy"
    if isinstance(content, bytes):
        bad.write_bytes(content)
    else:
        np.save(bad, content)
    with pytest.raises(InputError, match=rf"^(?=.*03\.npy').*{said}") as caught:
        load_splits(config(own, time_window_ms=None))
    assert "\n" not in str(caught.value)


def test_archives_hold_one_array_with_a_known_name(tmp_path):
    own = make(tmp_path / "own")
    np.savez(own / "left" / "a.npz", events=some_events(3), more=np.zeros(2))
    with pytest.raises(
        InputError, match=r"a\.npz' must hold one array, 'events'.*got events, more"
    ):
        load_splits(config(own))
    (own / "left" / "a.npz").write_bytes(zip_of({"events.npy": b"rubbish"}, tmp_path))
    with pytest.raises(InputError, match=r"cannot read .*a\.npz.*damaged"):
        load_splits(config(own))


def zip_of(members, folder):
    path = folder / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def test_frames_have_no_window(tmp_path):
    own = make(tmp_path / "own")
    np.save(own / "left" / "03.npy", np.zeros((3, 2, 12, 10), bool))
    with pytest.raises(
        InputError, match=r"input\.time_window_ms: is for events, got 100 .*03\.npy"
    ):
        load_splits(config(own))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: (own / "left" / "notes.txt").write_text("x"), r"notes\.txt'.*\.npy or \.npz"),
        (lambda own: (own / "up").mkdir() or copy(own, "up"), r"2 class folders.*got 3: left,"),
        (lambda own: (own / "train").mkdir(), r"must have 'train' and 'test', too; got no 'test'"),
    ],
)
def test_a_wrong_layout_is_explained(tmp_path, change, said):
    own = make(tmp_path / "own")
    change(own)
    with pytest.raises(InputError, match=said):
        load_splits(config(own))


def copy(own, label):
    np.save(own / label / "00.npy", some_events(2))


def test_folders_without_enough_samples_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must hold samples as <split>/<class>"):
        load_splits(config(make(tmp_path / "none", each=0)))
    with pytest.raises(
        InputError, match=r"enough samples .*got 2, which leave none for validation"
    ):
        load_splits(config(make(tmp_path / "few", each=1)))
    for splits in (("train", "test"), ("train", "validation", "test")):
        empty = make(tmp_path / f"empty{len(splits)}", splits=splits)
        for path in (empty / "test").rglob("*.npy"):
            path.unlink()
        with pytest.raises(InputError, match=r"enough samples .*which leave none for test$"):
            load_splits(config(empty))
    numbered = make(tmp_path / "numbered", classes=("0", "2"))
    with pytest.raises(InputError, match=r"classes must be 0 to 1.*got the folder '2'"):
        load_splits(config(numbered))
    for classes, splits in ((("0", "00"), ("",)), (("1", "01"), ("train", "test"))):
        twice = make(tmp_path / classes[1], classes=classes, splits=splits)
        names = " and ".join(map(repr, sorted(classes)))
        with pytest.raises(InputError, match=rf"every class in one way; got .*{names}$"):
            load_splits(config(twice))
    mixed = make(tmp_path / "mixed", splits=("train", "test"))
    (mixed / "left").mkdir()
    with pytest.raises(InputError, match=r"no other folders than train, .*got 'left'"):
        load_splits(config(mixed))
