import threading

import numpy as np
import pytest

from spikemeter.datasets.cache import cached
from spikemeter.errors import InputError
from spikemeter.files import CACHE_VARIABLE, cache_folder

CONTENT = np.arange(50, dtype=np.uint8)


def read(arrays):
    if arrays["numbers"].shape != (50,):
        raise ValueError("numbers must be 50")
    return arrays["numbers"].copy()


def build():
    return {"numbers": CONTENT}


def refuse_to_build():
    raise AssertionError("built although the file is good")


def test_a_second_reader_builds_nothing(tmp_path):
    path = tmp_path / "new" / "folder" / "file.npz"
    np.testing.assert_array_equal(cached(path, read, build), CONTENT)
    np.testing.assert_array_equal(cached(path, read, refuse_to_build), CONTENT)
    assert [entry.name for entry in path.parent.iterdir()] == ["file.npz"]


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other arrays", "other shape"])
def test_a_damaged_file_is_built_again(tmp_path, damage):
    path = tmp_path / "file.npz"
    cached(path, read, build)
    good = path.read_bytes()
    if damage == "other arrays":
        np.savez(path, letters=CONTENT)
    elif damage == "other shape":
        np.savez(path, numbers=CONTENT[:9])
    else:
        path.write_bytes({"empty": b"", "cut": good[: len(good) // 2], "text": b"no zip"}[damage])
    np.testing.assert_array_equal(cached(path, read, build), CONTENT)
    np.testing.assert_array_equal(cached(path, read, refuse_to_build), CONTENT)


def test_no_changed_byte_changes_what_is_read(tmp_path):
    path = tmp_path / "file.npz"
    cached(path, read, build)
    good = path.read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cached(path, read, build), CONTENT)


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    def fail():
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="no power"):
        cached(tmp_path / "file.npz", read, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.npz"
    path.write_bytes(b"damaged")

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(InputError, match=r"file\.npz.*No space left.*SPIKEMETER_CACHE"):
        cached(path, read, build)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [
        ("file.npz", b"damaged")
    ]


def test_two_that_build_at_once_both_succeed(tmp_path):
    path = tmp_path / "file.npz"
    both = threading.Barrier(2)

    def build_together():
        both.wait(timeout=20)
        return build()

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(cached(path, read, build_together)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.tolist() for result in results] == [CONTENT.tolist()] * 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.npz"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write .*some\.npz.*SPIKEMETER_CACHE"):
        cached(cache_folder() / "some.npz", read, build)
