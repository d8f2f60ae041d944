"""The commands ``spikemeter datasets``, by themselves."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from spikemeter._cli_datasets import app
from spikemeter.config import DATASETS, load_config
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


def test_the_list_says_what_is_there_and_where_the_rest_goes(tmp_path, monkeypatch, files):
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
