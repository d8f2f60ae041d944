"""The commands ``spikemeter datasets``, by themselves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from spikemeter._cli_datasets import app
from spikemeter.config import DATASETS, load_config
from spikemeter.datasets import load_splits
from spikemeter.datasets.recordings import open_recordings
from spikemeter.errors import InputError, SpikemeterError
from spikemeter.files import CACHE_VARIABLE


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv("SPIKEMETER_DATA", raising=False)


def listed(*words):
    report = json.loads(run("--json", *words).stdout)
    return report["root"], {entry["name"]: entry for entry in report["datasets"]}


def test_the_list_says_what_is_there_and_where_the_rest_goes(tmp_path, monkeypatch, files, few):
    few("nmnist", 1, 1)
    root, entries = listed()
    assert root is None
    assert list(entries) == list(DATASETS)
    for name in ("nmnist-saccade", "digits-saccade"):
        assert entries[name]["present"]
    for name in ("nmnist", "dvs128-gesture", "cifar10-dvs"):
        assert not entries[name]["present"]
    for entry in entries.values():
        assert {"source", "size", "licence", "present"} <= set(entry)

    for split in ("Train", "Test"):
        files.bin(tmp_path / f"NMNIST/{split}/0/00000.bin", files.events(0))
    (tmp_path / "CIFAR10DVS").mkdir()
    (tmp_path / "CIFAR10DVS/CIFAR10DVS.zip").touch()
    for given in (["--root", tmp_path], []):
        monkeypatch.setenv("SPIKEMETER_DATA", "" if given else str(tmp_path))
        root, entries = listed(*given)
        assert root == str(tmp_path)
        present = [name for name in ("nmnist", "dvs128-gesture", "cifar10-dvs")
                   if entries[name]["present"]]  # fmt: skip
        assert present == ["nmnist", "cifar10-dvs"]
        archive = entries["dvs128-gesture"]["files"][0]
        assert archive["path"] == str(tmp_path / "DVSGesture/ibmGestureTrain.tar.gz")


def test_what_the_list_calls_present_can_be_opened_and_nothing_else(tmp_path, files, few):
    few("nmnist", 2, 1)
    archive = tmp_path / "NMNIST/train.zip"
    files.bin(tmp_path / "NMNIST/Test/0/00000.bin", files.events(0))
    for count in range(4):
        if count:
            files.bin(tmp_path / f"NMNIST/Train/{count}/0.bin", files.events(count))
        for archived in (False, True):
            if archived:
                archive.touch()
            # Fewer than there are come from the archive; more are another data set
            present = count == 2 or (archived and count < 2)
            entry = listed("--root", tmp_path)[1]["nmnist"]
            assert [entry["present"], entry["files"][0]["present"]] == [present] * 2
            said = {0: "no NMNIST/train", 1: "only 1 of 2", 3: "must be 2 .*got 3"}.get(count)
            if archived and count < 2:
                said = "must have the MD5 sum"  # this one is empty, which only reading tells
            if said is None:
                open_recordings("nmnist", tmp_path)
            else:
                with pytest.raises(InputError, match=said):
                    open_recordings("nmnist", tmp_path)
            archive.unlink(missing_ok=True)


UNREADABLE = """
import sys
from pathlib import Path
from typer.testing import CliRunner
from spikemeter._cli_datasets import app

cases = {
    "own/a": "measure own.yaml",
    "own/b": "measure own.yaml",
    "own/b/0.npy": "measure own.yaml",
    "parts/train": "measure parts.yaml",
    "parts/test/a": "measure parts.yaml",
    "data/": "--root data",
    "data/NMNIST": "--root data",
    "data/NMNIST/Train": "fetch nmnist --root data",
    "data/NMNIST/Train/0": "--root data",
    "data/fashion-mnist": "measure fashion-saccade.yaml",
    "data/NMNIST/Test": "measure nmnist.yaml",
    "data/fashion-mnist/": "fetch fashion-saccade --root data",
}
for name, words in cases.items():
    shut = Path(name)
    mode = shut.stat().st_mode
    shut.chmod(0o400 if name == "data/" else 0)  # one that may be listed and no more
    done = CliRunner().invoke(app, words.split())
    shut.chmod(mode)
    print(done.exception.__class__.__name__, name, done.exception)
"""


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may read everything"
)
def test_what_may_not_be_read_is_named(tmp_path, files):
    for place in ("own", "parts/train", "parts/test"):
        for label in ("a", "b"):
            (tmp_path / place / label).mkdir(parents=True)
            for number in range(10):
                np.save(tmp_path / place / label / f"{number}.npy", np.zeros((1, 2, 4, 4), bool))
    for split in ("Train", "Test"):
        files.bin(tmp_path / f"data/NMNIST/{split}/0/00000.bin", files.events(0))
    (tmp_path / "data/fashion-mnist").mkdir()
    for name in ("own", "parts", "nmnist", "fashion-saccade"):
        content = {"dataset": name, "network": "2" if name in ("own", "parts") else "10"}
        if content["network"] == "2":
            (tmp_path / name / "dataset.yaml").write_text("{classes: 2, height: 4, width: 4}")
            content["input"] = {"height": 4, "width": 4, "time_steps": 1}
        else:
            content["data_root"] = str(tmp_path / "data")
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-c", UNREADABLE]
    if os.geteuid() == 0:  # give up what lets root read everything
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    environment = os.environ | {CACHE_VARIABLE: str(tmp_path / "cache")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 12
    for line in lines:
        kind, name, said = line.split(" ", 2)
        assert kind == "InputError", line
        assert said.startswith("cannot read '"), line
        assert said.endswith(": Permission denied"), line
        assert Path(name).parts[-1] in said, line


def test_homes_and_names_that_no_system_has_are_refused(tmp_path, monkeypatch):
    nobody = "~nobody-of-that-name/data"
    settings = {"dataset": "nmnist", "network": "10"}
    for named, said in ((nobody, r"home of a user .*got '~nobody"), ("x" * 300, "cannot read '")):
        with pytest.raises(InputError, match=said):
            run("--root", named)
        with pytest.raises(InputError, match=said):
            load_splits(load_config(settings | {"data_root": named}))
        monkeypatch.setenv("SPIKEMETER_DATA", named)
        for name in ("nmnist", "fashion-saccade"):
            with pytest.raises(InputError, match=said):
                load_splits(load_config(settings | {"dataset": name}))
        with pytest.raises(InputError, match=said):
            run()
        monkeypatch.delenv("SPIKEMETER_DATA")


def test_the_table_names_files_that_are_wanted():
    output = run().stdout
    for part in ("dvs128-gesture", "CC BY-SA 4.0", "nmnist wants NMNIST/train.zip", "data_root"):
        assert part in output


def test_measured_statistics_can_stand_in_a_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    own = tmp_path / "own"
    own.mkdir()
    (own / "dataset.yaml").write_text("{classes: 2, height: 4, width: 5, channels: 3}")
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (own / label).mkdir()
        for number in range(10):
            np.save(own / label / f"{number}.npy", rng.integers(0, 2, (2, 3, 4, 5)))
    path = tmp_path / "config.yaml"
    size = {"height": 4, "width": 5, "channels": 3, "time_steps": 2}
    path.write_text(yaml.safe_dump({"dataset": "own", "network": "2", "input": size}))

    report = json.loads(run("measure", path, "--json").stdout)
    assert report["samples"] == {"train": 14, "validation": 2, "test": 4}
    assert np.shape(report["statistics"]) == (2, 3)
    assert 8 < np.mean(report["statistics"]) < 12
    pasted = yaml.safe_load(run("measure", path).stdout)
    config = load_config({"network": "2", **pasted})
    assert config.input.statistics == tuple(map(tuple, report["statistics"]))


def test_fetch_explains_itself(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert "nothing to fetch" in run("fetch", "digits-saccade").stdout
    with pytest.raises(InputError, match=r"--root"):
        run("fetch", "nmnist")
    with pytest.raises(SpikemeterError, match=r"cannot be downloaded: Name or service not known"):
        run("fetch", "nmnist", "--root", tmp_path)


def test_listing_loads_nothing_heavy():
    script = (
        "import sys; from spikemeter._cli_datasets import app; "
        "app(['--json'], standalone_mode=False); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"torch", "tonic", "mlxtend", "sklearn", "pandas"} & set(done.stderr.split())
