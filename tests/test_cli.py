import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from pywellen import Waveform

from spikemeter import cli, doctor
from spikemeter.config import Config, load_config
from spikemeter.errors import SpikeMismatchError
from spikemeter.models.folder import new_run_folder, write_network_and_trace, write_result
from spikemeter.models.integer import (
    IntegerLayer,
    IntegerNetwork,
    network_spikes,
    quantised_decay,
)

SMALL = {
    "dataset": "nmnist-saccade",
    "network": "3C3-MP2-10",
    "input": {"height": 6, "width": 6, "time_steps": 3},
    "training": {"epochs": 1},
}
SAMPLES = 5
COMMANDS = [
    "demo", "doctor", "schema", "train", "simulate", "predict", "calibrate", "fit", "fit-timing",
    "prune", "allocate", "explain", "synth",
]  # fmt: skip


@pytest.fixture
def spikemeter(capsys):
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture
def config_file(tmp_path):
    def write(**changes) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(SMALL | changes), encoding="utf-8")
        return path

    return write


def random_network(config: Config, rng: np.random.Generator) -> IntegerNetwork:
    return IntegerNetwork(
        layers=tuple(
            IntegerLayer(
                geometry=layer,
                weight=rng.integers(-7, 8, layer.weight_shape).astype(np.int8),
                bias=rng.integers(-20, 60, layer.out_channels).astype(np.int32),
                threshold=64,
                gain_shift=3,
                decay=quantised_decay(config.neuron.beta),
                membrane_bits=16,
                weight_bits=config.training.weight_bits,
            )
            for layer in config.layers
        )
    )


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """Write a run folder as training leaves it, around random weights."""
    rng = np.random.default_rng(1)
    config = load_config(SMALL)
    network = random_network(config, rng)
    trains = network_spikes(network, rng.random((SAMPLES, 3, 2, 6, 6)) < 0.2)
    rates = {"input_rate": 0.2, "firing_rate": 0.1, "output_rate": 0.2}
    accuracy = {"validation": 0.1, "test": 0.1}
    result = {
        "status": "ok",
        "accuracy": {"float": accuracy, "integer": accuracy},
        "layers": [{"name": layer.name, **rates} for layer in config.layers],
        "firing_rate_per_epoch": [[0.1, 0.1]],
        "seconds": 1.0,
        "versions": {"train": 1, "quantise": 1},
    }
    with new_run_folder(tmp_path / "run") as folder:
        write_network_and_trace(folder, network, trains, np.zeros(SAMPLES, dtype=np.int64))
        write_result(folder, config, result)
    return tmp_path / "run"


def assert_refused(outcome, *parts, code=2):
    """Hold an outcome to: this exit code, one paragraph on stderr, nothing on stdout."""
    found, out, err = outcome
    assert found == code, err
    assert out == ""
    assert err.startswith("spikemeter: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"netwrok": "10"}, ["netwrok", "allowed here"]),
        ({"surrogate": {"name": "magic"}}, ["surrogate.name", "fast_sigmoid", "magic"]),
        ({"dataset": "mnist"}, ["dataset", "nmnist-saccade", "mnist"]),
        ({"network": "8C3-MP2-"}, ["network", "8C3-MP2-"]),
        ({"hardware": {"neural_cores": [4, 10]}}, ["hardware.neural_cores.0", "3", "4"]),
        ({"training": {"seed": -1}}, ["training.seed", "-1"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_bad_configuration_is_one_sentence_and_exit_code_2(
    spikemeter, config_file, tmp_path, command, changes, parts
):
    path = config_file(**changes)
    out = ["--out", tmp_path / "run"] if command == "train" else []
    assert_refused(spikemeter(command, path, *out), *parts)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["train", "simulate", "predict", "calibrate", "fit"])
def test_a_missing_file_is_one_sentence_and_exit_code_2(spikemeter, tmp_path, command):
    out = ["--out", tmp_path / "out"] if command in ("train", "calibrate", "fit") else []
    assert_refused(spikemeter(command, tmp_path / "none.yaml", *out), "none.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["simulate", "predict"])
@pytest.mark.parametrize("samples", [-3, 0, SAMPLES + 1])
def test_impossible_numbers_of_samples_are_refused(spikemeter, run_folder, command, samples):
    before = sorted(run_folder.rglob("*"))
    assert_refused(
        spikemeter(command, run_folder, "--samples", samples, "--json"), "samples", str(samples)
    )
    assert sorted(run_folder.rglob("*")) == before


@pytest.mark.parametrize("command", ["simulate", "predict"])
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 but not a whole archive", None])
def test_a_damaged_run_folder_is_refused(spikemeter, run_folder, command, damage):
    trace = run_folder / "trace.npz"
    if damage is None:
        trace.unlink()
    else:
        trace.write_bytes(damage)
    assert_refused(spikemeter(command, run_folder), "trace.npz")


def test_a_damaged_table_is_refused(spikemeter, tmp_path):
    table = tmp_path / "table.parquet"
    table.write_bytes(b"not a table")
    assert_refused(spikemeter("fit", table, "--out", tmp_path / "predictor"), "table.parquet")
    assert list(tmp_path.iterdir()) == [table]


def test_a_bad_plan_is_refused_before_anything_is_written(spikemeter, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"base": SMALL | {"network": "8C2-10"}, "runs": 1}))
    assert_refused(spikemeter("calibrate", plan, "--out", tmp_path / "out"), "8C2", "kernel")
    plan.write_text(yaml.safe_dump({"base": SMALL, "runs": 1}))
    refused = spikemeter("calibrate", plan, "--out", tmp_path / "out", "--workers", "0")
    assert_refused(refused, "workers", "0")
    assert list(tmp_path.iterdir()) == [plan]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["fly"], "fly"),
        (["train", "config.yaml"], "--out"),
        (["predict"], "RUN|CONFIG"),
        (["predict", "x", "--fidelity", "guess"], "one of hyperparameters, statistics, trace"),
        (["simulate", "x", "--samples", "many"], "--samples"),
        (["schema", "--loud"], "--loud"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(spikemeter, arguments, part):
    assert_refused(spikemeter(*arguments), part)


def test_a_confidence_outside_0_to_1_is_refused(spikemeter, run_folder):
    assert_refused(spikemeter("predict", run_folder, "--confidence", "1.5"), "confidence", "1.5")


def test_more_fidelity_than_the_source_allows_is_refused(spikemeter, config_file):
    refused = spikemeter("predict", config_file(), "--fidelity", "trace")
    assert_refused(refused, "fidelity", "hyperparameters")


def test_a_missing_compiler_is_named_with_its_remedy(spikemeter, run_folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    refused = spikemeter("simulate", run_folder, "--samples", "1")
    assert_refused(refused, "g++", "make", "perl", "apt-get install g++", code=1)


def test_a_campaign_without_a_compiler_trains_nothing(spikemeter, tmp_path, monkeypatch):
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"base": SMALL, "runs": 1}))
    monkeypatch.setenv("PATH", "")
    refused = spikemeter("calibrate", plan, "--out", tmp_path / "out")
    assert_refused(refused, "g++", code=1)
    assert not (tmp_path / "out").exists()


def test_recorded_spikes_of_another_network_are_refused(spikemeter, run_folder):
    with np.load(run_folder / "trace.npz") as archive:
        arrays = dict(archive)
    for name, sample in (("outputs", 3), ("inputs_1", 1)):
        arrays[name][sample, 0, 0] ^= True
        np.savez(run_folder / "trace.npz", **arrays)
        refused = spikemeter("simulate", run_folder, "--json")
        assert_refused(refused, "trace.npz", f"{name} must be", f"sample {sample}")


def test_a_folder_in_the_place_of_a_file_is_named(spikemeter, run_folder):
    (run_folder / "config.yaml").unlink()
    (run_folder / "config.yaml").mkdir()
    for command in ("simulate", "predict"):
        code, _, err = spikemeter(command, run_folder)
        assert code == 2
        assert "run/config.yaml': Is a directory" in err


def test_a_training_that_diverged_is_one_sentence(spikemeter, config_file, tmp_path, monkeypatch):
    result = {"status": "diverged", "seconds": 1.0}
    run = SimpleNamespace(path=tmp_path / "run", result=result)
    monkeypatch.setattr("spikemeter.models.run.train_run", lambda *_, **__: run)
    code, out, err = spikemeter("train", config_file(), "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert out == (
        f"{run.path}: diverged, a loss or gradient was not finite, so there is no network to "
        "simulate; try a lower training.lr.\n"
    )
    _, out, _ = spikemeter("train", config_file(), "--out", tmp_path / "run", "--json")
    assert json.loads(out) == {"run": str(run.path), **result}


def test_a_training_that_is_told_to_end_leaves_nothing_behind(config_file, tmp_path):
    path = config_file(training={"epochs": 10_000})
    command = [sys.executable, "-m", "spikemeter.cli", "train", path, "--out", tmp_path / "run"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 300
            while not list(tmp_path.glob(".run.*")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.terminate()
            _, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, err) == (1, b"")
    assert list(tmp_path.iterdir()) == [path]


def test_scores_of_a_fit_are_a_table(spikemeter, tmp_path, monkeypatch):
    scores = {"rmse_log": 0.123456789, "r2_log": 0.5, "mape": 0.0987654321}
    report = {
        "runs": 12,
        "noise_floor_log": None,
        "scores": {"hyperparameters": scores, "mean": scores},
        "predictor": "somewhere",
    }
    monkeypatch.setattr("spikemeter.calibration.read_table", lambda path: None)
    monkeypatch.setattr("spikemeter.calibration.fit_predictor", lambda table, out: report)
    code, out, err = spikemeter("fit", "table", "--out", tmp_path / "predictor")
    assert (code, err) == (0, "")
    (row,) = [line for line in out.splitlines() if "hyperparameters" in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "hyperparameters", "0.123", "0.5", "0.0988",
    ]  # fmt: skip
    assert "noise_floor_log: no repeats" in out
    assert "{" not in out


def test_spikes_that_differ_in_the_demo_are_named(spikemeter, tmp_path, monkeypatch):
    report = {"runs": 12, "mismatches": {"ab" * 32: "layer 0:3C3: step 1, neuron 2"}}
    monkeypatch.setattr("spikemeter.calibration.demo.run_demo", lambda *_, **__: report)
    code, out, err = spikemeter("demo", "--out", tmp_path / "demo", "--json")
    assert (code, json.loads(out)) == (1, report)
    assert "1 of 12 runs; run abababababab: layer 0:3C3: step 1, neuron 2" in err


def test_a_missing_package_is_named_with_its_extra(spikemeter, config_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spikemeter.models.run", None)
    monkeypatch.setattr("spikemeter.models.__getattr__", _without_torch)
    refused = spikemeter("train", config_file(), "--out", tmp_path / "run")
    assert_refused(refused, "torch", "pip install 'spikemeter[train]'", code=1)


def _without_torch(name):
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


def test_an_interruption_is_quiet(spikemeter, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("spikemeter.config.json_schema", interrupt)
    assert spikemeter("schema") == (1, "", "")


def test_a_mistake_of_ours_is_one_paragraph_unless_debugged(spikemeter, monkeypatch):
    def fail():
        raise ZeroDivisionError("what now")

    monkeypatch.setattr("spikemeter.config.json_schema", fail)
    assert_refused(spikemeter("schema"), "ZeroDivisionError", "what now", "--debug", code=1)
    code, out, err = spikemeter("--debug", "schema")
    assert (code, out) == (1, "")
    assert "Traceback" in err


def test_debug_shows_where_input_was_refused(spikemeter, tmp_path):
    code, _, err = spikemeter("--debug", "predict", tmp_path / "none.yaml")
    assert code == 2
    assert "Traceback" in err


def test_help_names_every_command_and_gives_examples(spikemeter):
    code, out, err = spikemeter("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert command in out
        code, text, err = spikemeter(command, "--help")
        assert (code, err) == (0, "")
        assert f"Example: spikemeter {command}" in text


def test_without_a_command_help_is_printed(spikemeter):
    code, out, _ = spikemeter()
    assert code == 2
    assert "Usage" in out


def test_the_version_is_printed(spikemeter):
    import spikemeter as package

    assert spikemeter("--version") == (0, f"{package.__version__}\n", "")


def test_the_schema_is_json_schema(spikemeter):
    code, out, err = spikemeter("schema")
    assert (code, err) == (0, "")
    schema = json.loads(out)
    assert schema["type"] == "object"
    assert schema["properties"]["neuron"]["$ref"] == "#/$defs/NeuronConfig"
    # Every reference leads somewhere, so that an editor can follow it.
    references = set(json.dumps(schema).split('"#/$defs/')[1:])
    assert {text.split('"')[0] for text in references} <= set(schema["$defs"])


def test_doctor_reports_every_check(spikemeter, monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKEMETER_CACHE", str(tmp_path / "cache"))
    code, out, err = spikemeter("doctor", "--json")
    report = json.loads(out)
    checks = {check["name"]: check for check in report["checks"]}
    assert {"python", "numpy", "torch", "g++", "verilator", "cache folder", "CUDA"} <= set(checks)
    assert checks["cache folder"]["found"] == str(tmp_path / "cache")
    assert checks["numpy"]["found"] == np.__version__
    assert code == (0 if report["ok"] else 1)
    assert err == ""
    assert not (tmp_path / "cache").exists()


def test_doctor_looks_for_the_packages_that_the_project_asks_for():
    text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = {"core": project["dependencies"], **project["optional-dependencies"]}
    asked = {
        name
        for requirements in extras.values()
        for name in (re.split(r"[<>=\[]", text)[0] for text in requirements)
    }
    known = {name: extra for extra, names in doctor._PACKAGES.items() for name in names}
    assert {name.lower() for name in known} == {name.lower() for name in asked} - {"spikemeter"}
    for name, extra in known.items():
        assert any(text.lower().startswith(name.lower()) for text in extras[extra])


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("cocotb_tools", "pip install 'spikemeter[rtl]'"),
        ("shap", "pip install 'spikemeter[explain]'"),
        ("yaml", "pip install spikemeter"),
        ("spikemeter", None),
    ],
)
def test_the_remedy_for_a_module_is_its_extra(module, remedy):
    assert doctor.package_remedy(module) == remedy


def test_doctor_says_how_to_get_what_is_missing(spikemeter, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, out, _ = spikemeter("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 1
    assert not checks["g++"]["ok"]
    assert "apt-get install g++" in checks["g++"]["remedy"]
    code, out, _ = spikemeter("doctor")
    assert code == 1
    assert "missing" in out


def test_a_trace_is_predicted_without_calibration(spikemeter, run_folder):
    code, out, err = spikemeter("predict", run_folder, "--samples", "3", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["fidelity"] == "trace"
    assert len(report["samples"]["cycles"]) == 3
    assert report["cycles"] == pytest.approx(sum(report["samples"]["cycles"]) / 3)
    for layer in report["layers"]:
        assert sum(layer["buckets"].values()) == pytest.approx(layer["cycles"])


def test_the_published_engine_is_predicted_and_not_simulated(spikemeter, run_folder):
    content = SMALL | {"hardware": {"backend": "published"}}
    (run_folder / "config.yaml").write_text(load_config(content).to_yaml())
    for fidelity in ("trace", "statistics", "hyperparameters"):
        code, out, err = spikemeter("predict", run_folder, "--json", "--fidelity", fidelity)
        assert (code, err) == (0, "")
        report = json.loads(out)
        assert report["fidelity"] == fidelity
        assert "published is an approximate formula" in report["warnings"][-1]
        low, high = report["interval_cycles"]
        assert low < report["cycles"] < high
        assert report["initiation_interval_cycles"] == report["cycles"]
        for layer in report["layers"]:
            assert sum(layer["buckets"].values()) == pytest.approx(layer["cycles"])
    before = sorted(run_folder.rglob("*"))
    refused = spikemeter("simulate", run_folder, "--json")
    assert_refused(refused, "hardware.backend: must be engine to simulate", "'published'")
    assert sorted(run_folder.rglob("*")) == before


def test_prediction_and_simulation_take_the_same_samples_by_default(
    spikemeter, run_folder, monkeypatch
):
    for module in ("cli", "_cli_predictor"):
        monkeypatch.setattr(f"spikemeter.{module}.SAMPLES", 3)
    for fidelity in ([], ["--fidelity", "trace"]):
        _, out, _ = spikemeter("predict", run_folder, "--json", *fidelity)
        assert len(json.loads(out)["samples"]["cycles"]) == 3
    asked = []
    monkeypatch.setattr(
        "spikemeter.calibration.simulate_run",
        lambda run, samples, **options: asked.append(samples) or 1 / 0,
    )
    spikemeter("simulate", run_folder)
    assert asked == [3]


def test_a_prediction_is_drawn_with_its_layers(spikemeter, run_folder):
    code, out, _ = spikemeter("predict", run_folder)
    assert code == 0
    for part in ("cycles", "us", "interval", "trace", "0:3C3", "1:10", "accumulate", "█"):
        assert part in out


def test_training_packages_stay_out_of_predicting(run_folder):
    script = (
        "import sys\n"
        "from spikemeter.cli import main\n"
        "try:\n"
        f"    main(['predict', {str(run_folder)!r}, '--json'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'snntorch', 'brevitas', 'tonic', 'cocotb', 'shap', 'matplotlib',\n"
        "         'scipy', 'mlxtend', 'platformdirs', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_console_command_is_quick_to_help():
    command = Path(sys.executable).with_name("spikemeter")
    done = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


@pytest.mark.rtl
def test_simulation_and_trace_prediction_say_the_same(spikemeter, run_folder):
    code, out, err = spikemeter("simulate", run_folder, "--samples", "3", "--json")
    assert (code, err) == (0, "")
    simulated = json.loads(out)
    assert list(simulated) == [
        "cycles",
        "samples",
        "layers",
        "initiation_interval_cycles",
        "spikes_match",
        "simulated_cycles_per_second",
        "simulator",
    ]
    assert simulated["spikes_match"] is True
    _, out, _ = spikemeter("predict", run_folder, "--samples", "3", "--json")
    predicted = json.loads(out)
    for key in ("cycles", "samples", "initiation_interval_cycles"):
        assert predicted[key] == simulated[key]
    for ours, theirs in zip(predicted["layers"], simulated["layers"], strict=True):
        assert {key: ours[key] for key in theirs} == theirs
    code, out, _ = spikemeter("simulate", run_folder)
    assert code == 0
    assert f"mean of the first {SAMPLES} samples" in out
    assert "Spikes equal the reference" in out


def pulses(waves: Path) -> list[int]:
    """Times in picoseconds at which an inference is done."""
    (done,) = (each for each in Waveform(str(waves)).all_vars() if each.name == "done")
    return [time for time, value in done.tv if value]


@pytest.mark.rtl
def test_simulation_writes_a_waveform_and_says_where(spikemeter, run_folder, tmp_path):
    waves = tmp_path / "run.fst"
    asked = ("simulate", run_folder, "--samples", "2")
    code, out, err = spikemeter(*asked, "--waves", waves, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report.pop("waves") == str(waves)
    clock = load_config(SMALL).hardware.clock_mhz
    assert pulses(waves) == [(report["samples"]["cycles"][0] - 1) * 1e6 / clock]
    _, out, _ = spikemeter(*asked, "--json")
    plain = json.loads(out)
    for speed in (plain, report):
        speed.pop("simulated_cycles_per_second")
    assert plain == report
    _, out, _ = spikemeter(*asked, "--waves", waves, "--waves-samples", "2")
    assert f"Waves: {waves}" in out.replace("\n", "")
    assert len(pulses(waves)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--waves", "run.vcd"], "waves: must be a file that ends in .fst, got 'run.vcd'"),
        (["--waves", "nowhere/run.fst"], "waves: must be in a folder that exists"),
        (["--waves", "run.fst", "--runner", "cocotb"], "runner: must be native to record waves"),
        (["--waves", "run.fst", "--waves-samples", "99"], "waves_samples: must be 1 to"),
        (["--waves-samples", "2"], "waves-samples: needs --waves, the file to write"),
    ],
)
def test_a_waveform_that_cannot_be_written_is_refused(
    spikemeter, run_folder, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert_refused(spikemeter("simulate", run_folder, *options), message)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.rtl
def test_spikes_that_differ_end_in_exit_code_1(spikemeter, run_folder, monkeypatch):
    def refuse(*arguments):
        raise SpikeMismatchError("layer 0:3C3: step 1, neuron (0, 1, 2)")

    monkeypatch.setattr("spikemeter.rtl.check_spikes", refuse)
    code, out, err = spikemeter("simulate", run_folder, "--samples", "1", "--json")
    assert code == 1
    assert json.loads(out)["spikes_match"] is False
    assert "layer 0:3C3" in err
