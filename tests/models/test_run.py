from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
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
from spikemeter.predictor.spikes import read_spikes
from spikemeter.predictor.timing import spike_taps

MakeConfig = Callable[..., Config]

FILES = ["activity.npz", "config.yaml", "network.npz", "result.json", "trace.npz"]


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


def test_activity_is_counts_and_taps_over_the_whole_test_split(
    finished_run: Run, splits: DataSplits, make_config: MakeConfig
) -> None:
    trains = network_spikes(finished_run.network, splits.test.frames)
    for index, layer in enumerate(finished_run.config.layers):
        spikes = trains.inputs[index]
        maps = spikes.reshape(100, 4, layer.in_channels, -1)
        np.testing.assert_allclose(finished_run.counts[index], maps.sum(axis=3).mean(axis=0))
        taps = spike_taps(layer, spikes).mean(axis=0)
        np.testing.assert_allclose(finished_run.taps[index], taps)
    assert [count.shape for count in finished_run.counts] == [(4, 2), (4, 4)]
    known = read_spikes(finished_run.path / "activity.npz", finished_run.config)
    assert known.level == "taps"
    np.testing.assert_array_equal(known.counts[0][0], finished_run.counts[0])


def test_a_run_without_activity_is_still_a_run(finished_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run.path, folder)
    (folder / "activity.npz").unlink()
    assert load_run(folder).counts == ()


KILLED = """
import sys
import time
import numpy as np
from spikemeter.config import load_config
from spikemeter.datasets import DataSplits, EventFrames
from spikemeter.models import run as run_module

folder = sys.argv[1]
with np.load(folder + "/data.npz") as data:
    parts = {
        name: EventFrames(frames=data[name], labels=data[name + "_labels"])
        for name in ("train", "validation", "test")
    }
run_module.load_splits = lambda config: DataSplits(**parts)
run_module.train_run(
    load_config(folder + "/config.yaml"), folder + "/run",
    on_epoch=lambda done, total, metrics: print(done, flush=True) or time.sleep(60 * (done == 4)),
)
"""


def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been(
    toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(training={"epochs": 6, "dropout": 0.2})
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "config.yaml").write_text(config.to_yaml())
    arrays = {}
    for name in ("train", "validation", "test"):
        part = getattr(toy_data, name)
        arrays |= {name: part.frames, f"{name}_labels": part.labels}
    np.savez(killed / "data.npz", **arrays)
    command = [sys.executable, "-c", KILLED, str(killed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "3":
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "run").exists()
    reports: list[int] = []
    found = train_run(config, killed / "run", on_epoch=lambda done, *_: reports.append(done))
    assert reports[0] in (4, 5)
    assert reports == list(range(reports[0], 7))
    whole = train_run(config, tmp_path / "whole")
    assert found.result | {"seconds": 0} == whole.result | {"seconds": 0}
    for name in ("network.npz", "trace.npz", "activity.npz"):
        with np.load(found.path / name) as ours, np.load(whole.path / name) as theirs:
            assert set(ours) == set(theirs)
            assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    left = sorted(entry.name for entry in killed.iterdir())
    assert left == ["config.yaml", "data.npz", "run"]


def test_a_network_that_does_not_fit_the_hardware_is_not_trained_again(
    toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, neuron = {"epochs": 1, "weight_bits": 8}, {"threshold": 3}
    narrow = make_config(training=training, neuron=neuron, hardware={"membrane_bits": 8})
    with pytest.raises(ConfigError, match=r"hardware\.membrane_bits"):
        train_run(narrow, tmp_path / "run")
    reports: list[int] = []
    train_run(
        make_config(training=training, neuron=neuron), tmp_path / "run",
        on_epoch=lambda done, *_: reports.append(done),
    )  # fmt: skip
    assert reports == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_run_that_stopped_early_is_a_whole_run(
    toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(training={"epochs": 9, "batch_norm": False, "patience": 1, "lr": 1e-9})
    run = train_run(config, tmp_path / "run")
    assert run.result["stopped_at_epoch"] == 2
    assert len(run.result["accuracy_per_epoch"]) == 2
    edit_result(lambda result: result.update(stopped_at_epoch=3))(run.path)
    with pytest.raises(RunFolderError, match="firing_rate_per_epoch must be 3 epochs of 2 layers"):
        load_run(run.path)
    edit_result(lambda result: result.update(stopped_at_epoch=None))(run.path)
    with pytest.raises(RunFolderError, match="firing_rate_per_epoch must be 9 epochs"):
        load_run(run.path)


@pytest.mark.parametrize(
    ("neuron", "reason"),
    [
        ({"model": "lapicque", "beta": 0.36}, r"neuron\.beta: 0\.36 makes .*, -0\.0217"),
        ({"model": "lapicque", "R": 0.8, "C": 1.0}, r"neuron\.R: 0\.8 with C 1 makes .* -0\.25"),
        ({"model": "lapicque", "beta": 0.37}, None),
        ({"model": "lapicque", "beta": 0.2, "match": "decay"}, None),
        ({"model": "lapicque", "R": 2.0, "C": 1.0}, None),
        ({"model": "lif", "beta": 0.2}, None),
    ],
)
def test_a_membrane_that_changes_sign_is_warned_of(
    make_config: MakeConfig, neuron: dict[str, Any], reason: str | None
) -> None:
    warnings = run_module.training_warnings(make_config(neuron=neuron))
    assert len(warnings) == (reason is not None)
    if reason is not None:
        assert re.match(reason, warnings[0])


def test_warnings_are_part_of_the_result(
    toy_data: DataSplits, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(neuron={"model": "lapicque", "beta": 0.3}, training={"epochs": 1})
    checkpoint = run_module.run_checkpoint(tmp_path / "run", config, toy_data)
    checkpoint.path.parent.mkdir()
    checkpoint.path.write_bytes(b"damage")
    run = train_run(config, tmp_path / "run")
    assert len(run.warnings) == 2
    assert "changes sign" in run.warnings[0]
    assert "it is damaged" in run.warnings[1]
    assert run.result["warnings"] == list(run.warnings)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


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


def edit_activity(**changes: Callable[[Any], Any] | None) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with np.load(folder / "activity.npz") as archive:
            arrays = dict(archive)
        for name, change in changes.items():
            array = arrays.pop(name)
            if change is not None:
                arrays[name] = change(array)
        np.savez(folder / "activity.npz", **arrays)

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
    (r"unknown key 'training\.colour'", edit_config("  seed:", "  colour: 1\n  seed:")),
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
    (r"stopped_at_epoch needs training\.patience", edit_result(
        lambda result: result.update(stopped_at_epoch=2))),
    (r"stopped_at_epoch", edit_result(lambda result: result.update(stopped_at_epoch="soon"))),
    (r"warnings", edit_result(lambda result: result.update(warnings="none"))),
    (r"activity\.npz.*counts_1", edit_activity(counts_1=None)),
    (r"counts_0 must be float64 of shape \(4, 2\)", edit_activity(counts_0=lambda x: x[1:])),
    (r"taps_1 must be float64", edit_activity(taps_1=lambda x: x.astype(np.float32))),
    (r"counts_0 must lie between", edit_activity(counts_0=lambda x: -x)),
    (r"counts_1 must lie between", edit_activity(counts_1=lambda x: x + 17)),
    (r"taps_0 must lie between", edit_activity(taps_0=lambda x: x * np.nan)),
    (r"taps_0 must lie between", edit_activity(taps_0=lambda x: x * 9.1)),
    (r"activity\.npz", lambda folder: (folder / "activity.npz").write_bytes(b"PK")),
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


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("network: 10")
    with pytest.raises(RunFolderError, match=r"config\.yaml' is not a run folder: it is a file$"):
        load_run(tmp_path / "config.yaml")


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
