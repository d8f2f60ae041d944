from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from spikemeter.errors import PredictorError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.folder import read_folder, write_folder

CONFIG = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10", "training": {"epochs": 4}}


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def edit_manifest(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def replace_file(path, name, content):
    """Replace a file together with its entry, so that only its content is wrong."""
    (path / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    edit_manifest(
        path, lambda m: m["files"].update({name: {"sha256": digest, "bytes": len(content)}})
    )


def test_a_folder_holds_plain_described_files_and_nothing_else(folder):
    assert sorted(file.name for file in folder.iterdir()) == [
        "datasets.json",
        "firing_rate.ubj",
        "manifest.json",
        "output_rate.ubj",
        "table.parquet",
    ]
    assert not list(folder.parent.glob(".*"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert len(manifest["residuals"]["hyperparameters"]["error"]) == 48
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_a_folder_that_is_read_and_written_again_is_the_same(folder, tmp_path):
    write_folder(read_folder(folder), tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_an_older_predictor_is_replaced_whole(folder, copy):
    (copy / "datasets.json").write_text("{}")
    write_folder(read_folder(folder), copy)
    assert LatencyPredictor.load(copy).estimate(CONFIG).cycles > 0
    assert [file.name for file in copy.parent.iterdir()] == ["copy"]


def test_nothing_but_a_predictor_is_ever_replaced(folder, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("precious")
    (mine / "manifest.json").write_text("{}")  # of a web page, say
    with pytest.raises(PredictorError, match=r"holds 'thesis\.tex', which would be lost"):
        write_folder(read_folder(folder), mine)
    assert (mine / "thesis.tex").read_text() == "precious"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(PredictorError, match="a file has that name"):
        write_folder(read_folder(folder), tmp_path / "file")


@pytest.mark.parametrize(
    "name", ["datasets.json", "firing_rate.ubj", "output_rate.ubj", "table.parquet"]
)
def test_a_changed_a_short_or_a_missing_file_is_refused_by_name(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(PredictorError, match=f"{name} is not the file"):
        LatencyPredictor.load(copy)
    (copy / name).write_bytes(bytes(content[:-1]))
    with pytest.raises(PredictorError, match=f"{name} must have {len(content)} bytes"):
        LatencyPredictor.load(copy)
    (copy / name).unlink()
    with pytest.raises(PredictorError, match=f"no plain file {name}"):
        LatencyPredictor.load(copy)


def test_a_link_out_of_the_folder_is_refused(folder, copy):
    (copy / "table.parquet").unlink()
    (copy / "table.parquet").symlink_to(folder / "table.parquet")
    with pytest.raises(PredictorError, match=r"no plain file table\.parquet"):
        LatencyPredictor.load(copy)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.update(schema_version=99), "schema version must be 1, got 99"),
        (lambda m: m.pop("schema_version"), "schema version must be 1, got None"),
        (lambda m: m.pop("tap_ratios"), "tap_ratios: Field required"),
        (lambda m: m["tap_ratios"].update(input=-1), "tap_ratios.input: "),
        (lambda m: m.update(extra=1), "extra: "),
        (lambda m: m["files"].pop("table.parquet"), "must list"),
        (lambda m: m["files"].update({"../x": m["files"]["table.parquet"]}), "must list"),
        (lambda m: m["feature_names"].pop(), "features are not those of this version"),
        (lambda m: m["low"].pop(), "ranges must be"),
        (lambda m: m["residuals"].pop("statistics"), "residuals must be of"),
        (lambda m: m["residuals"]["statistics"]["error"].pop(), "one group per error"),
        (lambda m: m["categories"].pop("neuron.model"), "categories must be of"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(copy, change, sentence):
    edit_manifest(copy, change)
    with pytest.raises(PredictorError, match=sentence):
        LatencyPredictor.load(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_no_object_is_refused(copy, content):
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(PredictorError, match=r"manifest\.json|schema version"):
        LatencyPredictor.load(copy)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("firing_rate.ubj", b"nonsense", "XGBoost cannot read it"),
        ("datasets.json", b"[]", r"datasets\.json"),
        ("datasets.json", b'{"a": [{"height": 1}]}', r"datasets\.json"),
        (
            "datasets.json",
            b'{"a": [{"height": 1, "width": 1, "time_steps": 1, "events": [[2]]}]}',
            "at most 1 pixels",
        ),
        (
            "datasets.json",
            b'{"a": [{"height": 1, "width": 1, "time_steps": 2, "events": [[1], [1, 1]]}]}',
            "content does not fit together",
        ),
    ],
)
def test_content_that_makes_no_sense_is_refused(copy, name, content, sentence):
    replace_file(copy, name, content)
    with pytest.raises(PredictorError, match=sentence):
        LatencyPredictor.load(copy)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PredictorError, match="there is no predictor folder"):
        LatencyPredictor.load(tmp_path / "none")
