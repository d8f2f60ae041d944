from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikemeter.config import Config, load_config
from spikemeter.datasets import DATA_VERSION, DataSplits
from spikemeter.errors import ConfigError, RunFolderError
from spikemeter.models import Run, class_accuracy, load_run, network_spikes, train_run
from spikemeter.models import run as run_module

MakeConfig = Callable[..., Config]

FILES = ["config.yaml", "network.npz", "result.json", "trace.npz"]


def content(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in sorted(folder.iterdir())}


def test_a_run_folder_holds_what_was_trained(finished_run: Run, make_config: MakeConfig) -> None:
    assert sorted(content(finished_run.path)) == FILES
    assert [entry.name for entry in finished_run.path.parent.iterdir()] == ["run"]
    assert finished_run.config == make_config()
    assert finished_run.status == "ok"
    assert [layer.geometry for layer in finished_run.network.layers] == list(make_config().layers)


def test_the_trace_is_the_reference_on_the_first_test_samples(
    finished_run: Run, splits: DataSplits
) -> None:
    assert [spikes.shape for spikes in finished_run.inputs] == [(64, 4, 2, 8, 8), (64, 4, 64)]
    assert all(spikes.dtype == np.bool_ for spikes in finished_run.inputs)
    np.testing.assert_array_equal(finished_run.inputs[0], splits.test.frames[:64])
    np.testing.assert_array_equal(finished_run.labels, splits.test.labels[:64])
    trains = network_spikes(finished_run.network, finished_run.inputs[0])
    np.testing.assert_array_equal(finished_run.inputs[1], trains.inputs[1].reshape(64, 4, 64))
    np.testing.assert_array_equal(finished_run.outputs, trains.outputs)


def test_results_describe_the_whole_splits(finished_run: Run, splits: DataSplits) -> None:
    result = finished_run.result
    trains = network_spikes(finished_run.network, splits.test.frames)
    assert result["accuracy"]["integer"]["test"] == class_accuracy(
        trains.outputs, splits.test.labels, 10
    )
    for index, layer in enumerate(result["layers"]):
        leaving = [*trains.inputs[1:], trains.outputs][index]
        assert layer["name"] == finished_run.config.layers[index].name
        assert layer["input_rate"] == pytest.approx(trains.inputs[index].mean())
        assert layer["firing_rate"] == pytest.approx(trains.fired[index].mean())
        assert layer["output_rate"] == pytest.approx(leaving.mean())
    for split in ("validation", "test"):
        found = result["accuracy"]["integer"][split]
        assert found == pytest.approx(result["accuracy"]["float"][split], abs=0.021)
        assert found > 0.9
    assert np.shape(result["firing_rate_per_epoch"]) == (4, 2)
    assert len(result["accuracy_per_epoch"]) == 4
    assert result["seconds"] > 0
    assert result["versions"] == {"data": DATA_VERSION, "train": 1, "quantise": 1}


def test_training_again_gives_the_same_run(
    finished_run: Run, toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path
) -> None:
    again = train_run(make_config(), tmp_path / "deeper" / "again")
    for found, expected in zip(again.network.layers, finished_run.network.layers, strict=True):
        np.testing.assert_array_equal(found.weight, expected.weight)
    for found_spikes, spikes in zip(again.inputs, finished_run.inputs, strict=True):
        np.testing.assert_array_equal(found_spikes, spikes)
    assert again.result | {"seconds": 0} == finished_run.result | {"seconds": 0}


def test_an_older_run_is_replaced_only_by_a_finished_one(
    finished_run: Run,
    toy_data: DataSplits,
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished_run.path, out)
    before = content(out)
    config = make_config(training={"epochs": 1})

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(config, out, on_epoch=interrupt)
    assert content(out) == before
    train_run(config, out)
    assert load_run(out).config == config
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_an_empty_folder_becomes_a_run(
    toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    assert train_run(make_config(training={"epochs": 1}), out).path == out
    assert sorted(content(out)) == FILES


def test_places_that_hold_something_else_are_refused_before_training(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "load_splits", lambda config: pytest.fail("data was loaded"))
    thesis = tmp_path / "home" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(RunFolderError, match=r"holds 'thesis\.tex', which would be lost"):
        train_run(make_config(), thesis.parent)
    with pytest.raises(RunFolderError, match="a file has that name"):
        train_run(make_config(), thesis)
    with pytest.raises(RunFolderError, match="Not a directory"):
        train_run(make_config(), thesis / "run")
    assert thesis.read_text() == "years of work"


def test_training_needs_a_data_set(tmp_path: Path) -> None:
    statistics = [[1.0, 1.0]] * 8
    config = load_config({"network": "10", "input": {"statistics": statistics}})
    with pytest.raises(ConfigError, match="dataset: required for training"):
        train_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverged_run_leaves_a_status_and_no_network(
    toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config()
    beyond = config.training.model_copy(update={"lr": 1e30})
    run = train_run(Config.model_copy(config, update={"training": beyond}), tmp_path / "run")
    assert run.status == "diverged"
    assert run.network.layers == ()
    assert sorted(content(run.path)) == ["config.yaml", "result.json"]
    (run.path / "config.yaml").write_text(config.to_yaml())
    with pytest.raises(RunFolderError, match="its training diverged"):
        load_run(run.path)


def test_a_silent_run_is_a_whole_run(
    toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path
) -> None:
    training = {"epochs": 1, "batch_norm": False, "lr": 1e-5}
    run = train_run(make_config(neuron={"threshold": 100}, training=training), tmp_path / "run")
    assert run.status == "silent"
    assert sorted(content(run.path)) == FILES
    assert not run.outputs.any()


def edit_result(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        result = json.loads((folder / "result.json").read_text())
        change(result)
        (folder / "result.json").write_text(json.dumps(result))

    return edit


def edit_trace(**changes: Callable[[Any], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with np.load(folder / "trace.npz") as archive:
            arrays = dict(archive)
        for name, change in changes.items():
            arrays[name] = change(arrays[name])
        np.savez(folder / "trace.npz", **arrays)

    return edit


def edit_config(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / "config.yaml").read_text()
        assert old in text
        (folder / "config.yaml").write_text(text.replace(old, new))

    return edit


def without_numpy_header(folder: Path) -> None:
    with np.load(folder / "trace.npz") as archive:
        arrays = dict(archive)
    labels = arrays.pop("labels")
    np.savez(folder / "trace.npz", **arrays)
    with zipfile.ZipFile(folder / "trace.npz", "a") as archive:
        archive.writestr("labels.npy", labels.tobytes())


def as_folder(folder: Path) -> None:
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    (r"no such folder", shutil.rmtree),
    (r"config\.yaml.*No such file", lambda folder: (folder / "config.yaml").unlink()),
    (r"network\.npz.*No such file", lambda folder: (folder / "network.npz").unlink()),
    (r"trace\.npz.*No such file", lambda folder: (folder / "trace.npz").unlink()),
    (r"result\.json.*No such file", lambda folder: (folder / "result.json").unlink()),
    (r"unknown key 'training\.colour'", edit_config("seed:", "colour: 1\nseed:")),
    (r"decay of layer 0:4C3 must be 128, got 232", edit_config("beta: 0.9", "beta: 0.5")),
    (r"weight_bits of layer 0:4C3 must be 5", edit_config("weight_bits: 4", "weight_bits: 5")),
    (r"membrane_bits of layer", edit_config("membrane_bits: auto", "membrane_bits: 20")),
    (r"layers must be", edit_config("4C3-MP2-10", "5C3-MP2-10")),
    (r"firing_rate_per_epoch must be 5 epochs", edit_config("epochs: 4", "epochs: 5")),
    (r"inputs_0 must be bool", edit_config("time_steps: 4", "time_steps: 5")),
    (r"result\.json.*not JSON", lambda folder: (folder / "result.json").write_text("{")),
    (r"result\.json.*not JSON", lambda folder: (folder / "result.json").write_bytes(b"\xff")),
    (r"result\.json.*content", lambda folder: (folder / "result.json").write_text("[]")),
    (r"status: ", edit_result(lambda result: result.update(status="great"))),
    (r"status: Field required", edit_result(lambda result: result.pop("status"))),
    (r"accuracy\.integer\.test", edit_result(lambda r: r["accuracy"]["integer"].pop("test"))),
    (r"accuracy\.float\.test", edit_result(lambda r: r["accuracy"]["float"].update(test=2))),
    (r"layers\.1\.firing_rate", edit_result(lambda r: r["layers"][1].update(firing_rate=None))),
    (r"layers must be", edit_result(lambda result: result["layers"].pop())),
    (r"seconds", edit_result(lambda result: result.update(seconds=float("nan")))),
    (r"inputs_1 must be bool of shape \(64, 4, 64\)", edit_trace(inputs_1=lambda x: x[:, :, :9])),
    (r"inputs_0 must be bool", edit_trace(inputs_0=lambda spikes: spikes.astype(np.uint8))),
    (r"outputs must be bool", edit_trace(outputs=lambda spikes: spikes[:5])),
    (r"labels must be int64", edit_trace(labels=lambda labels: labels[:, None])),
    (r"labels 0 to 9", edit_trace(labels=lambda labels: labels + 10)),
    (r"trace\.npz", lambda folder: (folder / "trace.npz").write_bytes(b"PK\x03\x04")),
    (r"trace\.npz': labels is not an array", without_numpy_header),
    (r"configuration '[^']*run/config\.yaml': Is a directory", as_folder),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "damage"), DAMAGE, ids=[reason for reason, _ in DAMAGE])
def test_a_damaged_run_folder_is_refused_in_one_sentence(
    finished_run: Run, tmp_path: Path, reason: str, damage: Callable[[Path], object]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run.path, folder)
    damage(folder)
    with pytest.raises(RunFolderError, match=reason) as caught:
        load_run(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_that_would_fill_the_memory_are_refused_unread(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run.path, folder)
    monkeypatch.setattr("spikemeter.models._arrays._LARGEST_BYTES", 40_000)
    assert (folder / "trace.npz").stat().st_size < 40_000
    with pytest.raises(RunFolderError, match=r"arrays take \d+ bytes, at most 40000 are allowed"):
        load_run(folder)
    monkeypatch.setattr("spikemeter.models._arrays._LARGEST_BYTES", 300)
    with pytest.raises(RunFolderError, match=r"it takes \d+ bytes, at most 300 are allowed"):
        load_run(folder)
