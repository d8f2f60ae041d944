"""Tiny recordings in the native formats and real folders, read back by tonic's own loaders."""

import hashlib
import io
import shutil
import subprocess
import sys
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spikemeter.config import load_config
from spikemeter.datasets import fetch, load_splits
from spikemeter.datasets.catalogue import CATALOGUE
from spikemeter.datasets.recordings import checked_events, open_recordings
from spikemeter.errors import InputError, SpikemeterError
from spikemeter.files import CACHE_VARIABLE

GENUINE = Path(__file__).parent / "data" / "nmnist_sample.bin"
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv("SPIKEMETER_DATA", raising=False)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def write_nmnist(root, files, few=None, train=10, test=2):
    if few is not None:
        few("nmnist", 10 * train, 10 * test)
    written = {}
    for split, count in (("Train", train), ("Test", test)):
        for label in range(10):
            for number in range(count):
                path = root / "NMNIST" / split / str(label) / f"{number:05}.bin"
                events = files.events(hash_of(split, label, number))
                files.bin(path, events)
                written[path] = events
    return written


def hash_of(*parts):
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def config(name, root, **sizes):
    content = {"dataset": name, "data_root": str(root), "network": "10", "input": sizes}
    return load_config(content)


def test_nmnist_reads_back_in_its_official_split(tmp_path, files, few):
    written = write_nmnist(tmp_path, files, few)
    found = open_recordings("nmnist", tmp_path)
    assert found.names == tuple(sorted(found.names))
    for number, path in enumerate(found.paths):
        events = found.read(number)
        assert events.dtype.names == ("x", "y", "t", "p")
        np.testing.assert_array_equal(events, written[path])
        assert found.labels[number] == int(path.parent.name)
    train, validation, test = ({found.names[number] for number in part} for part in found.split)
    assert (len(train), len(validation), len(test)) == (90, 10, 20)
    assert not train & validation
    assert all("/Test/" in name for name in test)
    assert not any("/Test/" in name for name in train | validation)
    for part in (train, validation):
        assert len({name.split("/")[2] for name in part}) == 10


def test_the_genuine_recording_has_its_events(tmp_path, files, few):
    write_nmnist(tmp_path, files, few, train=2, test=1)
    shutil.copy(GENUINE, tmp_path / "NMNIST" / "Train" / "4" / "00001.bin")
    found = open_recordings("nmnist", tmp_path)
    events = found.read(found.names.index("NMNIST/Train/4/00001.bin"))
    assert events.size == 4_325
    assert events["t"].max() - events["t"].min() == pytest.approx(310_500, abs=100)


def test_gestures_read_back_in_microseconds_and_split_by_user(tmp_path, files, few):
    few("dvs128-gesture", 54, 12)
    written = {}
    users = {"ibmGestureTrain": range(1, 10), "ibmGestureTest": range(24, 26)}
    for split, those in users.items():
        for user in those:
            for light in ("fluorescent", "led"):
                for label in (10, 2, 0):
                    folder = tmp_path / "DVSGesture" / split / f"user{user:02}_{light}"
                    events = files.events(hash_of(user, light, label), side=128)
                    files.npy(folder / f"{label}.npy", events)
                    written[folder / f"{label}.npy"] = events
    found = open_recordings("dvs128-gesture", tmp_path)
    assert found.names == tuple(sorted(found.names))
    for number, path in enumerate(found.paths):
        events = found.read(number)
        expected = written[path].copy()
        expected["t"] = expected["t"] // 1000 * 1000
        np.testing.assert_array_equal(events, expected)
        assert found.labels[number] == int(path.stem)
    by_part = [{found.names[i].split("/")[2][:6] for i in part} for part in found.split]
    assert [len(part) for part in by_part] == [8, 1, 2]
    assert not by_part[0] & by_part[1]
    assert by_part[2] == {"user24", "user25"}


def test_cifar10_dvs_reads_back_and_is_split_by_hash(tmp_path, files, few):
    few("cifar10-dvs", 100)
    written = {}
    for label, name in enumerate(CIFAR):
        for number in range(10):
            path = tmp_path / "CIFAR10DVS" / name / f"cifar10_{name}_{number}.aedat4"
            events = files.events(1000 * label + number, side=128)
            events["t"] += 1_600_000_000_000_000  # microseconds since 1970
            files.aedat4(path, events)
            written[path] = events
    found = open_recordings("cifar10-dvs", tmp_path)
    assert found.names == tuple(sorted(found.names))
    for number, path in enumerate(found.paths):
        np.testing.assert_array_equal(found.read(number), written[path])
        assert found.labels[number] == CIFAR.index(path.parent.name)
    assert [len(part) for part in found.split] == [70, 10, 20]
    assert sorted(np.concatenate(found.split).tolist()) == list(range(100))


def test_the_split_does_not_depend_on_how_the_folder_lists_its_files(
    tmp_path, files, few, monkeypatch
):
    import os

    write_nmnist(tmp_path, files, few)
    first = open_recordings("nmnist", tmp_path)
    walk = os.walk
    monkeypatch.setattr(
        "os.walk", lambda top: ((path, dirs, names[::-1]) for path, dirs, names in walk(top))
    )
    again = open_recordings("nmnist", tmp_path)
    assert first.names == again.names
    for one, other in zip(first.split, again.split, strict=True):
        np.testing.assert_array_equal(one, other)


def test_frames_are_cached_by_every_setting_and_by_the_files(tmp_path, files, few, monkeypatch):
    root = tmp_path / "data"
    written = write_nmnist(root, files, few)
    sizes = {"height": 8, "width": 8, "time_steps": 4}
    settings = [
        sizes,
        {**sizes, "denoise_ms": 0},
        {**sizes, "denoise_ms": 5},
        {**sizes, "time_window_ms": 20},
        {**sizes, "values": "counts"},
        {**sizes, "width": 9},
    ]
    loaded = [load_splits(config("nmnist", root, **those)) for those in settings]
    folder = tmp_path / "cache" / "datasets"
    assert len(list(folder.iterdir())) == len(settings)
    assert len({part.train.frames.sum() for part in loaded}) == len(settings)

    # What is cached needs no recording to be read again
    opened = "spikemeter.datasets.splits.bin_events"
    with monkeypatch.context() as patch:
        patch.setattr(opened, lambda *_: pytest.fail("was binned again"))
        again = load_splits(config("nmnist", root, **sizes))
    np.testing.assert_array_equal(again.train.frames, loaded[0].train.frames)

    path = next(iter(written))
    files.bin(path, files.events(7, count=100))
    load_splits(config("nmnist", root, **sizes))
    assert len(list(folder.iterdir())) == len(settings) + 1


def test_counted_frames_hold_every_event(tmp_path, files, few):
    write_nmnist(tmp_path, files, few)
    sizes = {"height": 34, "width": 34, "time_steps": 1, "denoise_ms": 0, "time_window_ms": 1000}
    counted = load_splits(config("nmnist", tmp_path, values="counts", **sizes))
    assert counted.train.frames.dtype == np.uint16
    assert counted.train.frames.sum(axis=(1, 2, 3, 4)).tolist() == [300] * 90
    binary = load_splits(config("nmnist", tmp_path, **sizes))
    np.testing.assert_array_equal(binary.test.frames, counted.test.frames > 0)


def test_the_environment_names_the_folder_too(tmp_path, files, few, monkeypatch):
    write_nmnist(tmp_path, files, few)
    monkeypatch.setenv("SPIKEMETER_DATA", str(tmp_path))
    without = load_config({"dataset": "nmnist", "network": "10"})
    assert len(load_splits(without).test) == 20


def test_without_a_folder_the_user_is_told_what_goes_where():
    without = load_config({"dataset": "nmnist", "network": "10"})
    with pytest.raises(InputError) as caught:
        load_splits(without)
    message = str(caught.value)
    for part in ("data_root", "SPIKEMETER_DATA", "ROOT/NMNIST/train.zip (1 GB)", "fetch nmnist"):
        assert part in message


@pytest.mark.parametrize("name", ["nmnist", "dvs128-gesture", "cifar10-dvs"])
def test_missing_files_are_named_with_their_size_and_never_downloaded(tmp_path, name, monkeypatch):
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda *_, **__: pytest.fail("started a download")
    )
    with pytest.raises(
        InputError, match=rf"^{name}: not all .*B\).* there, from https://"
    ) as caught:
        open_recordings(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_official_counts_are_those_of_the_catalogue():
    counts = {
        "nmnist": (60_000, 10_000),
        "dvs128-gesture": (1_077, 264),
        "cifar10-dvs": (10_000,),
    }
    for name, those in counts.items():
        assert tuple(file.recordings for file in CATALOGUE[name].files) == those
        assert CATALOGUE[name].samples == sum(those)


def test_half_unpacked_recordings_are_refused(tmp_path, files):
    write_nmnist(tmp_path, files, train=1, test=1)
    with pytest.raises(InputError, match=r"no NMNIST/train\.zip and only 10 of 60,000 NMNIST/"):
        open_recordings("nmnist", tmp_path)


def test_one_recording_too_few_or_too_many_is_refused(tmp_path, files, few):
    """However many tonic would be content with."""
    write_nmnist(tmp_path, files, few)
    lost = tmp_path / "NMNIST/Train/3/00004.bin"
    lost.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"only 99 of 100 NMNIST/Train/\*/\*\.bin; put ") as caught:
        open_recordings("nmnist", tmp_path)
    assert "test.zip" not in str(caught.value)
    (tmp_path / "elsewhere").rename(lost)
    (lost.parent / "._00004.bin").write_bytes(b"what some systems leave beside a file")
    assert len(open_recordings("nmnist", tmp_path).names) == 120
    for more in ("00004 (copy).bin", "3/00004.bin", "00004_bin"):
        files.bin(lost.parent / more, files.events(0))
        with pytest.raises(InputError, match=r"must be 100 recordings, no more .*; got 101"):
            open_recordings("nmnist", tmp_path)
        (lost.parent / more).unlink()
    files.bin(lost.parent / "00010.bin", files.events(0))
    with pytest.raises(InputError, match=r"got 101"):  # before anything is downloaded
        fetch("nmnist", tmp_path)


def packed_nmnist(root, files, few, monkeypatch):
    """Archives as users download them, whose MD5 sums tonic is told."""
    import tonic.datasets

    write_nmnist(root / "made", files, few)
    (root / "NMNIST").mkdir()
    for split in ("train", "test"):
        archive = root / "NMNIST" / f"{split}.zip"
        with zipfile.ZipFile(archive, "w") as target:
            for path in sorted((root / "made/NMNIST" / split.capitalize()).rglob("*.bin")):
                target.write(path, path.relative_to(root / "made/NMNIST"))
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(tonic.datasets.NMNIST, f"{split}_md5", md5)


def test_an_archive_that_is_there_is_checked_and_unpacked(tmp_path, files, few, monkeypatch):
    packed_nmnist(tmp_path, files, few, monkeypatch)
    found = open_recordings("nmnist", tmp_path)
    assert [len(part) for part in found.split] == [90, 10, 20]
    left = sorted(path.name for path in (tmp_path / "NMNIST").iterdir())
    assert left == ["Test", "Train", "test.zip", "train.zip"]
    for split in ("train", "test"):  # what is whole needs no archive
        (tmp_path / f"NMNIST/{split}.zip").unlink()
    assert open_recordings("nmnist", tmp_path).names == found.names


KILLED = """
import os, sys
from pathlib import Path
import tonic.download_utils
from spikemeter.datasets import recordings

def extract(archive, folder):
    (Path(folder) / "Train/0").mkdir(parents=True)
    (Path(folder) / "Train/0/00000.bin").write_bytes(b"the beginning")
    os._exit(9)

tonic.download_utils.extract_archive = extract
recordings._unpack(Path(sys.argv[1]))
"""


def test_what_a_kill_left_half_unpacked_is_unpacked_again(tmp_path, files, few, monkeypatch):
    packed_nmnist(tmp_path, files, few, monkeypatch)
    folder = tmp_path / "NMNIST"
    whole = (tmp_path / "made/NMNIST/Train/0/00000.bin").read_bytes()
    # Killed while it unpacks: nothing is in place
    done = subprocess.run([sys.executable, "-c", KILLED, folder / "train.zip"], check=False)
    assert done.returncode == 9
    assert not (folder / "Train").exists()
    assert len(list(folder.iterdir())) == 3
    # Killed by another program, which leaves files in place: fewer than there are, one not whole
    (folder / "Train/0").mkdir(parents=True)
    (folder / "Train/0/00000.bin").write_bytes(b"the beginning")
    found = open_recordings("nmnist", tmp_path)
    assert [len(part) for part in found.split] == [90, 10, 20]
    assert (folder / "Train/0/00000.bin").read_bytes() == whole
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["Test", "Train", "test.zip", "train.zip"]


def test_a_disk_that_is_full_is_named_and_nothing_stays(tmp_path, files, few, monkeypatch):
    packed_nmnist(tmp_path, files, few, monkeypatch)

    def full(archive, folder):
        (Path(folder) / "some.bin").write_bytes(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tonic.download_utils.extract_archive", full)
    with pytest.raises(InputError, match=r"^cannot unpack .*train\.zip': No space left on device$"):
        open_recordings("nmnist", tmp_path)
    assert sorted(path.name for path in (tmp_path / "NMNIST").iterdir()) == [
        "test.zip",
        "train.zip",
    ]


def test_archives_within_an_archive_are_unpacked(tmp_path, files, few, monkeypatch):
    import tonic.datasets

    few("cifar10-dvs", 100)
    folder = tmp_path / "CIFAR10DVS"
    folder.mkdir()
    with zipfile.ZipFile(folder / "CIFAR10DVS.zip", "w") as outer:
        for name in CIFAR:
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w") as archive:
                for number in range(10):
                    files.aedat4(tmp_path / "one.aedat4", files.events(number, side=128))
                    archive.write(tmp_path / "one.aedat4", f"{name}/{number}.aedat4")
            outer.writestr(f"{name}.zip", inner.getvalue())
    md5 = hashlib.md5((folder / "CIFAR10DVS.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(tonic.datasets.CIFAR10DVS, "file_md5", md5)
    found = open_recordings("cifar10-dvs", tmp_path)
    assert np.bincount(found.labels).tolist() == [10] * 10
    assert found.read(0).size == 300
    assert len(list(folder.iterdir())) == 11


def test_a_damaged_archive_is_not_unpacked(tmp_path, files, few, monkeypatch):
    packed_nmnist(tmp_path, files, few, monkeypatch)
    archive = tmp_path / "NMNIST" / "train.zip"
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"train\.zip' must have the MD5 sum [0-9a-f]{32}"):
        open_recordings("nmnist", tmp_path)
    assert not (tmp_path / "NMNIST" / "Train").exists()


def test_fetch_lets_tonic_download_and_unpack(tmp_path, files, few, monkeypatch):
    source, root = tmp_path / "source", tmp_path / "root"
    packed_nmnist(source, files, few, monkeypatch)
    monkeypatch.setattr("tonic.download_utils._get_redirect_url", lambda url, max_hops: url)

    def retrieve(url, filename, chunk_size=1024):
        shutil.copy(source / "NMNIST" / Path(filename).name, filename)

    monkeypatch.setattr("tonic.download_utils._urlretrieve", retrieve)
    assert fetch("nmnist", root) == root
    assert len(open_recordings("nmnist", root).names) == 120
    # A part that is missing is noticed, and comes from the archive that is there
    whole = root / "NMNIST/Train/0/00000.bin"
    whole.unlink()
    monkeypatch.setattr("tonic.download_utils._urlretrieve", lambda *_, **__: pytest.fail("again"))
    fetch("nmnist", root)
    assert whole.is_file()
    # What is whole is not fetched again
    (root / "NMNIST/train.zip").unlink()
    fetch("nmnist", root)


def test_fetch_without_a_network_says_what_to_do_by_hand(tmp_path):
    with pytest.raises(SpikemeterError) as caught:
        fetch("dvs128-gesture", tmp_path)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "cannot be downloaded: Name or service not known; put " in message
    assert "ibmGestureTest.tar.gz (660 MB) there, from https://" in message
    assert "\n" not in message


def test_a_download_that_breaks_off_leaves_no_part_of_a_file(tmp_path, files, few, monkeypatch):
    source, root = tmp_path / "source", tmp_path / "root"
    packed_nmnist(source, files, few, monkeypatch)
    monkeypatch.setattr("tonic.download_utils._get_redirect_url", lambda url, max_hops: url)

    def break_off(url, filename, chunk_size=1024):
        if filename.endswith("train.zip"):
            shutil.copy(source / "NMNIST/train.zip", filename)
            return
        Path(filename).write_bytes(b"the beginning")
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("tonic.download_utils._urlretrieve", break_off)
    monkeypatch.setattr("spikemeter.datasets.catalogue._SYSTEM_FASHION", tmp_path / "none")
    for name in ("cifar10-dvs", "fashion-saccade", "nmnist"):
        with pytest.raises(SpikemeterError, match=r"Connection reset by peer; put "):
            fetch(name, root)
    left = [path.name for path in root.rglob("*") if path.is_file() and path.suffix != ".bin"]
    assert left == ["train.zip"]


def test_fetch_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(InputError, match=r"NAME: must be one of nmnist-saccade, .*got 'mnist'"):
        fetch("mnist", tmp_path)
    with pytest.raises(InputError, match="--root"):
        fetch("nmnist", None)
    assert fetch("nmnist-saccade", tmp_path) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x00\x01\x02", "cannot read the recording .*00000.bin"),
        (bytes([34, 0, 0, 0, 9]), r"00000\.bin'.*field 'x' must be 0 to 33, got 34"),
    ],
)
def test_malformed_recordings_are_named(tmp_path, files, few, content, said):
    write_nmnist(tmp_path, files, few, train=1, test=1)
    (tmp_path / "NMNIST/Train/0/00000.bin").write_bytes(content)
    found = open_recordings("nmnist", tmp_path)
    with pytest.raises(InputError, match=said):
        found.read(found.names.index("NMNIST/Train/0/00000.bin"))


def test_a_class_that_does_not_exist_is_named(tmp_path, files, few):
    few("dvs128-gesture", 2, 1)
    folder = tmp_path / "DVSGesture"
    for split, user in (("Train", "01"), ("Train", "02"), ("Test", "24")):
        files.npy(folder / f"ibmGesture{split}/user{user}_led/11.npy", files.events(1))
    with pytest.raises(InputError, match=r"classes must be 0 to 10; got the file .*11\.npy"):
        open_recordings("dvs128-gesture", tmp_path)


def test_one_user_alone_cannot_be_split(tmp_path, files, few):
    few("dvs128-gesture", 1, 1)
    for split, user in (("Train", "01"), ("Test", "24")):
        path = tmp_path / f"DVSGesture/ibmGesture{split}/user{user}_led/0.npy"
        files.npy(path, files.events(1))
    with pytest.raises(InputError, match="two users or more must be there to train, got 1"):
        open_recordings("dvs128-gesture", tmp_path)


def test_events_are_put_in_the_order_of_time(files):
    events = files.events(3, count=50)
    mixed = events[np.random.default_rng(1).permutation(50)]
    np.testing.assert_array_equal(
        checked_events(mixed, Path("some.npy"), (34, 34), 2)["t"], events["t"]
    )
    events["t"] = np.arange(50) % 2  # at the same time: as they were
    sorted_events = checked_events(events, Path("some.npy"), (34, 34), 2)
    expected = np.concatenate([events[::2], events[1::2]])
    np.testing.assert_array_equal(sorted_events, expected)
