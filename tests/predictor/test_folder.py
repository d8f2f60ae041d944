from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from spikemeter.errors import PredictorError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.folder import SCHEMA_VERSION, read_folder, write_folder
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.sparsity import HEADS
from spikemeter.predictor.ubjson import read_ubjson, write_ubjson

CONFIG = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10", "training": {"epochs": 4}}
MODELS = [f"{name}.ubj" for name in (*HEADS, "forecast")]
FILES = ["datasets.json", *MODELS, "table.parquet"]


@pytest.fixture
def copy(small_folder, tmp_path):
    shutil.copytree(small_folder, tmp_path / "copy")
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


def refusal(path) -> str:
    """Sentence with which a folder is refused."""
    with pytest.raises(PredictorError) as caught:
        LatencyPredictor.load(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"cannot use the predictor '{path}': ")
    assert sentence.isprintable()
    assert len(sentence) < 700
    return sentence


def test_a_folder_holds_plain_described_files_and_nothing_else(folder):
    assert sorted(file.name for file in folder.iterdir()) == sorted([*FILES, "manifest.json"])
    assert not list(folder.parent.glob(".*"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION == 4
    for entry in manifest["residuals"].values():
        assert len(entry["error"]) == len(entry["group"]) == 48
    assert sorted(manifest["files"]) == sorted(FILES)
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_everything_that_was_fitted_is_kept(folder, table):
    parts = read_folder(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert parts.scores == manifest["scores"]
    assert parts.profile.mean.tolist() == manifest["profile"]["mean"]
    assert parts.profile.components.tolist() == manifest["profile"]["components"]
    assert parts.tap_ratios.hidden == manifest["tap_ratios"]["hidden"]
    assert parts.domain.low.tolist() == manifest["low"]
    assert parts.domain.of_name["surrogate.slope"]["atan"] == (1, 5)
    assert parts.estimated is None
    assert parts.domain.datasets == ("nmnist-saccade",)
    for name, residuals in parts.residuals.items():
        assert residuals.error.tolist() == manifest["residuals"][name]["error"]
        assert residuals.group.tolist() == manifest["residuals"][name]["group"]
    last = manifest["residuals"]["forecast after 1"]
    assert parts.forecaster.residuals[-1].error.tolist() == last["error"]
    for name in HEADS:
        assert parts.model.ensembles[name].content == (folder / f"{name}.ubj").read_bytes()
    (small, large) = parts.statistics["nmnist-saccade"]
    assert (small.size, large.size) == ((16, 16, 6), (16, 16, 8))
    assert len(parts.table) == (folder / "table.parquet").stat().st_size


def test_a_folder_that_is_read_and_written_again_is_the_same(folder, tmp_path):
    write_folder(read_folder(folder), tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_what_estimating_costs_is_kept(folder, tmp_path):
    shifts = Residuals(error=np.array([0.1, -0.2]), group=np.array([0, 1]), of="measured frames")
    write_folder(replace(read_folder(folder), estimated=shifts), tmp_path / "p")
    kept = read_folder(tmp_path / "p").estimated
    assert (kept.error.tolist(), kept.group.tolist()) == ([0.1, -0.2], [0, 1])
    assert kept.of == "measured frames"


def test_an_older_predictor_is_replaced_whole(folder, copy):
    (copy / "datasets.json").write_text("{}")
    write_folder(read_folder(folder), copy)
    assert LatencyPredictor.load(copy).estimate(CONFIG).cycles > 0
    assert [file.name for file in copy.parent.iterdir()] == ["copy"]


def test_what_could_not_be_read_again_is_not_written(folder, tmp_path):
    parts = read_folder(folder).with_scores({"note": "x" * 9 * 2**20})
    with pytest.raises(PredictorError, match=r"manifest\.json must have at most 8388608 bytes"):
        write_folder(parts, tmp_path / "large")
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("name", FILES)
def test_a_changed_a_short_or_a_missing_file_is_refused_by_name(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    assert f"{name} is not the file that the manifest describes" in refusal(copy)
    (copy / name).write_bytes(bytes(content[:-1]))
    assert f"{name} must have {len(content)} bytes, got {len(content) - 1}" in refusal(copy)
    (copy / name).unlink()
    assert f"no plain file {name}" in refusal(copy)


@pytest.mark.parametrize("name", ["manifest.json", "datasets.json", "output.ubj", "table.parquet"])
@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe", "device"])
def test_what_is_no_plain_file_is_refused(folder, copy, name, kind):
    """A pipe would wait for ever, and a link may lead anywhere."""
    path = copy / name
    path.unlink()
    if kind == "link":
        path.symlink_to(folder / name)
    elif kind == "dangling":
        path.symlink_to(copy / "nowhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert f"no plain file {name}" in refusal(copy)


def test_a_link_to_a_predictor_is_one(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert LatencyPredictor.load(tmp_path / "link").estimate(CONFIG).cycles > 0


LARGEST = {"manifest.json": 8, "datasets.json": 4, "firing.ubj": 16, "table.parquet": 64}


@pytest.mark.parametrize(("name", "megabytes"), LARGEST.items())
def test_a_file_that_is_too_large_is_refused_unread(copy, name, megabytes):
    with (copy / name).open("r+b") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk
    most = megabytes * 2**20
    assert f"{name} must have at most {most} bytes, got {2**40}" in refusal(copy)


def changed(*path):
    """Change the value at a path of keys."""
    *inner, last, value = path

    def change(manifest):
        for key in inner:
            manifest = manifest[key]
        manifest[last] = value

    return change


LONG = "x" * 100_000
SLOPE = "surrogate.slope"
MOVED = "forecast after 0.5"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (changed("schema_version", 99), "its schema version must be 4, got 99; fit it again"),
        (changed("schema_version", 1), "its schema version must be 4, got 1; fit it again"),
        (changed("schema_version", LONG), "must be 4, got xxxx"),
        (changed("schema_version", [[2]]), "must be 4, got a list; fit it again"),
        (changed("schema_version", {"2": 2}), "must be 4, got a dict; fit it again"),
        (lambda m: m.pop("schema_version"), "schema version must be 4, got None"),
        (lambda m: m.pop("tap_ratios"), "tap_ratios: Field required"),
        (changed("tap_ratios", "input", -1), "tap_ratios.input: Input should be greater than 0"),
        (changed("tap_ratios", "hidden", 0), "tap_ratios.hidden: Input should be greater than 0"),
        (changed("tap_ratios", "hidden", 100), "tap_ratios.hidden: Input should be less than 100"),
        (changed("tap_ratios", "input", math.nan), "tap_ratios.input: "),
        (changed("extra", 1), "extra: Extra inputs are not permitted"),
        (changed("extra\n\x1b[2J" + LONG, 1), "manifest.json: extra "),
        (lambda m: m.update(dict.fromkeys(map(str, range(2000)), 1)), "at most 1000 keys"),
        (lambda m: m["files"].pop("table.parquet"), "manifest.json must list"),
        (changed("files", "../x", {"sha256": "0" * 64, "bytes": 1}), "manifest.json must list"),
        (changed("files", "table.parquet", "sha256", "0" * 63), "files.table.parquet.sha256: "),
        (changed("files", "table.parquet", "sha256", "G" * 64), "files.table.parquet.sha256: "),
        (changed("files", "table.parquet", "bytes", -1), "files.table.parquet.bytes: "),
        (changed("files", "table.parquet", "bytes", 10**30), "table.parquet must have 1000"),
        (changed("files", []), "files: Input should be a valid dictionary"),
        (lambda m: m["feature_names"].pop(), "features are not those of this version"),
        (lambda m: m["feature_names"].reverse(), "features are not those of this version"),
        (changed("feature_names", ["x"] * 100_000), "at most 1000 items"),
        (changed("datasets", [1]), "datasets.0: Input should be a valid string"),
        (changed("datasets", ["\x1b[2J"]), "names must be printable"),
        (changed("datasets", [LONG]), "names must be printable, with at most 1000 characters"),
        (lambda m: m["low"].pop(), "ranges must be"),
        (changed("low", 0, math.nan), "low.0: Input should be a finite number"),
        (changed("high", 3, math.inf), "high.3: Input should be a finite number"),
        (changed("high", 3, -1e30), "a calibrated range must be finite, and end after its"),
        (changed("high", 3, 1e300), "a calibrated range must be finite, and end after its"),
        (changed("low", 3, 1e30), "a calibrated range must be finite, and end after its"),
        (changed("low", ["x"] * 100_000), "low.0: Input should be a valid number"),
        (changed("of_name", SLOPE, "atan", [5, 1]), "a calibrated range must be finite, and end"),
        (changed("of_name", SLOPE, "atan", [5]), "of_name.surrogate.slope.atan"),
        (changed("of_name", SLOPE, "sharp", [1, 5]), "of_name must give neuron.beta, .* for every"),
        (lambda m: m["of_name"][SLOPE].pop("atan"), "of_name must give neuron.beta, .* for every"),
        (lambda m: m["of_name"].pop("neuron.drive"), "of_name must give neuron.beta, .* for every"),
        (lambda m: m["categories"].pop("neuron.model"), "categories must be of"),
        (changed("categories", "training.seed", ["1"]), "categories must be of"),
        (lambda m: m["residuals"].pop("statistics"), "residuals must be of"),
        (lambda m: m["residuals"].pop(MOVED), f"residuals must be of .*{MOVED}"),
        (changed("residuals", "guess", {"error": [1], "group": [1]}), "residuals must be of"),
        (lambda m: m["residuals"]["statistics"]["error"].pop(), "one group per error"),
        (lambda m: m["residuals"][MOVED]["error"].pop(), "one group per error"),
        (changed("residuals", "accuracy", {"error": [], "group": []}), "at least one"),
        (changed("residuals", "accuracy", "error", 0, math.nan), "residuals.accuracy.error.0: "),
        (changed("residuals", "accuracy", "error", 0, 2e6), "residuals must lie within 1e\\+06"),
        (changed("residuals", "accuracy", "group", 0, 0.5), "residuals.accuracy.group.0: "),
        (changed("residuals", "accuracy", "group", 0, 2**63), "does not fit together: Python int"),
        (changed("residuals", "accuracy", "group", 0, 10**30), "does not fit together: Python int"),
        (changed("profile", "mean", [1.0]), "a profile must have a mean and 2 components of 16"),
        (changed("profile", "mean", [2.0] * 16), "averages to 1"),
        (changed("profile", "mean", 0, math.nan), "profile.mean.0: Input should be a finite"),
        (changed("profile", "components", [[1.0], [1.0, 2.0]]), "does not fit together"),
        (changed("profile", "components", [[0.0] * 16] * 2), "orthonormal"),
        (changed("scores", []), "scores: Input should be a valid dictionary"),
        (changed("scores", "x", json.loads("[" * 60 + "]" * 60)), "scores: .* at most 50 deep"),
        (changed("scores", "x", {"a": {"a": json.loads("[" * 900 + "]" * 900)}}), "50 deep"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(copy, change, sentence):
    edit_manifest(copy, change)
    assert re.search(sentence, refusal(copy))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"2", b"\xff", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000,
     '{"schema_version": 2}'.encode("utf-16"), '{"schema_version": 2}'.encode("utf-8-sig"),
     b'{"schema_version": ' + b"[" * 980 + b"]" * 980 + b"}", b"\x00" * 64],
)  # fmt: skip
def test_a_manifest_that_is_no_object_is_refused(copy, content):
    (copy / "manifest.json").write_bytes(content)
    assert re.search(r"manifest\.json is not valid JSON|schema version must be 4", refusal(copy))


def test_scores_are_for_the_record_and_may_say_anything(folder, copy, tmp_path):
    """Whoever reads them next may expect what JSON can hold, and no more."""
    told = {"deep": json.loads("[" * 48 + "]" * 48), "note": "\x1b[2J", "runs": None}
    edit_manifest(copy, lambda m: m.update(scores=told))
    assert read_folder(copy).scores == told
    write_folder(read_folder(copy), tmp_path / "again")
    assert read_folder(tmp_path / "again").scores == told


def entry(**values):
    """Statistics that are good but for some values."""
    usual = {"height": 4, "width": 4, "time_steps": 2, "events": [[1.0, 2.0], [0.0, 16.0]],
             "coding": {}, "tap_ratio": 1.0}  # fmt: skip
    return json.dumps({"nmnist-saccade": [{**usual, **values}]}).encode()


def test_statistics_that_fit_are_read(copy):
    replace_file(copy, "datasets.json", entry(coding={"gain": 0.5, "encoding": "rate"}))
    (found,) = read_folder(copy).statistics["nmnist-saccade"]
    assert found.size == (4, 4, 2)
    assert found.coding == {"gain": 0.5, "encoding": "rate"}
    np.testing.assert_array_equal(found.events, [[1, 2], [0, 16]])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[]", "datasets.json: : Input should be a valid dictionary"),
        (b"[" * 100_000, "datasets.json is not valid JSON"),
        (b"\xff", "datasets.json is not valid JSON"),
        (b'{"a": [{"height": 1}]}', "datasets.json: a.0.width: Field required"),
        (b'{"a": {"height": 1}}', "datasets.json: a: Input should be a valid list"),
        (entry(note=1), "nmnist-saccade.0.note: Extra inputs are not permitted"),
        (entry(height=0), "frames must have 1 to 4096 rows and columns, got 0 and 4"),
        (entry(width=10**30), "frames must have 1 to 4096 rows and columns, got 4 and 1000"),
        (entry(width=4.5), "nmnist-saccade.0.width: "),
        (entry(time_steps=3), "events must have 3 steps, got 2"),
        (entry(events=[[17, 0], [0, 0]]), "at most 16 pixels"),
        (entry(events=[[-1, 0], [0, 0]]), "not negative"),
        (entry(events=[[math.nan, 0], [0, 0]]), "events.0.0: Input should be a finite number"),
        (entry(events=[[1e400, 0], [0, 0]]), "events.0.0: Input should be a finite number"),
        (entry(events=[[1], [1, 1]]), "does not fit together"),
        (entry(events=[1, 1]), "events.0: Input should be a valid list"),
        (entry(events=[["x", 1]] * 2), "events.0.0: Input should be a valid number"),
        (entry(events=[[], []]), "events per step and channel"),
        (entry(events=[]), "events per step and channel"),
        (entry(events=[0] * 500_000), "events.0: Input should be a valid list"),
        (entry(tap_ratio=0), "tap_ratio: Input should be greater than 0"),
        (entry(tap_ratio=math.inf), "tap_ratio: "),
        (entry(coding={"sharpness": 1}), "coding must be of .*; got 'sharpness'"),
        (entry(coding={"gain": None}), "nmnist-saccade.0.coding.gain"),
        (entry(coding={"encoding": "\x1b[2J"}), "names must be printable"),
        (entry().replace(b"nmnist-saccade", b"a\\nb"), "names must be printable"),
        (entry().replace(b"nmnist-saccade", b"\\ud800"), "datasets.json|printable"),
    ],
)
def test_statistics_that_make_no_sense_are_refused(copy, content, sentence):
    replace_file(copy, "datasets.json", content)
    assert re.search(sentence, refusal(copy))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_checked(copy, name):
    """What a model may hold is the matter of `read_ensemble`."""
    good = read_ubjson((copy / name).read_bytes())
    replace_file(copy, name, b"nonsense")
    assert f"{name}: 'n' at byte 0 is no type" in refusal(copy)
    good["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"] = np.array([0, 0])
    replace_file(copy, name, write_ubjson(good))
    assert f"{name}: a tree must have arrays of the numbers that XGBoost writes" in refusal(copy)


def test_a_model_of_other_rows_is_refused(copy):
    """XGBoost would refuse them later, or read past their end."""
    forecast, firing = ((copy / name).read_bytes() for name in ("forecast.ubj", "firing.ubj"))
    replace_file(copy, "firing.ubj", forecast)
    assert re.search(r"firing\.ubj: it must read \d+ features, got 12", refusal(copy))
    replace_file(copy, "firing.ubj", firing)
    replace_file(copy, "forecast.ubj", firing)
    assert re.search(r"forecast\.ubj: it must read 12 features, got \d+", refusal(copy))


def test_the_table_is_no_matter_until_it_is_asked_for(copy):
    replace_file(copy, "table.parquet", b"nonsense")
    predictor = LatencyPredictor.load(copy)
    assert predictor.estimate(CONFIG).cycles > 0
    with pytest.raises(PredictorError, match="cannot read the runs of the predictor: "):
        predictor.table()


@pytest.mark.parametrize("path", ["none", "x" * 5000, "file", "file/below", "\0"])
def test_a_folder_that_is_not_there_is_refused(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PredictorError, match="there is no predictor folder"):
        LatencyPredictor.load(tmp_path / path)
