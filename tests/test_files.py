import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spikemeter.errors import InputError, MissingToolError, RunFolderError
from spikemeter.files import CACHE_VARIABLE, cache_folder, new_folder, read_plain, write_whole

FILES = ("a.txt", "b.txt")

HOLD = """
import sys, time
from pathlib import Path
from spikemeter.files import new_folder
with new_folder(Path(sys.argv[1]), ("a.txt",)) as folder:
    (folder / "a.txt").write_text("half")
    print(folder.name, flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_from_bytes_or_by_a_function(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"first")
    assert path.read_bytes() == b"first"
    write_whole(path, lambda file: file.write(b"second"))
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ZeroDivisionError()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    def fail(file):
        file.write(b"half")
        raise error

    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises((InputError, ZeroDivisionError)) as caught:
        write_whole(path, fail)
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {str(path)!r}: No space left on device"
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


def test_a_file_in_the_way_is_bad_input(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write '.*/inner'"):
        write_whole(tmp_path / "file" / "inner", b"")
    with (
        pytest.raises(InputError, match="cannot write"),
        new_folder(tmp_path / "file" / "inner", FILES),
    ):
        pass


def test_a_plain_file_is_read_whole_up_to_its_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert read_plain(tmp_path / "file", 3, InputError) == b"abc"
    with pytest.raises(InputError, match="file must have at most 2 bytes, got 3"):
        read_plain(tmp_path / "file", 2, InputError)
    with pytest.raises(InputError, match="no plain file none"):
        read_plain(tmp_path / "none", 2, InputError)
    with pytest.raises(InputError, match="File name too long"):
        read_plain(tmp_path / ("x" * 300), 2, InputError)


def test_what_takes_the_name_of_a_plain_file_at_the_last_moment_is_refused(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(Path, "is_symlink", lambda self: False)
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    with pytest.raises(InputError, match="link: "):
        read_plain(tmp_path / "link", 9, InputError)
    with pytest.raises(InputError, match="no plain file pipe"):  # and nobody waits for a writer
        read_plain(tmp_path / "pipe", 9, InputError)
    with pytest.raises(InputError, match=r"no plain file|Is a directory"):
        read_plain(tmp_path, 9, InputError)


def test_a_folder_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "deeper" / "out"
    for content in ("first", "second"):
        with new_folder(path, FILES) as folder:
            assert folder.parent == path.parent
            (folder / "a.txt").write_text(content)
            assert not path.exists() or (path / "a.txt").read_text() == "first"
        assert (path / "a.txt").read_text() == content
        assert names(path.parent) == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_folder_that_is_not_finished_is_gone(tmp_path, error):
    def fail():
        with new_folder(tmp_path / "out", FILES) as folder:
            (folder / "a.txt").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


@pytest.mark.parametrize("foreign", ["thesis.tex", "a.txt/thesis.tex"])
def test_what_would_be_lost_is_refused(tmp_path, foreign):
    precious = tmp_path / "out" / foreign
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    name = Path(foreign).parts[0]
    with (
        pytest.raises(RunFolderError, match=f"holds '{name}', which would be lost"),
        new_folder(tmp_path / "out", FILES, refusal=RunFolderError),
    ):
        pass
    assert precious.read_text() == "years of work"
    assert names(tmp_path) == ["out"]


def test_what_a_killed_process_left_is_swept_but_not_what_a_living_one_writes(tmp_path):
    out = tmp_path / "out"
    other = tmp_path / ".out.mine"
    other.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True
    ) as process:
        leftover = tmp_path / process.stdout.readline().strip()
        with new_folder(out, FILES):
            assert leftover.exists()
        os.kill(process.pid, signal.SIGKILL)
    assert (leftover / "a.txt").read_text() == "half"
    with new_folder(out, FILES):
        assert not leftover.exists()
    assert names(tmp_path) == [".out.mine", "out"]


def test_the_environment_names_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().name == "spikemeter"
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(MissingToolError, match=r"platformdirs.*spikemeter\[train\]"):
        cache_folder()
