import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from spikemeter import cli
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
COMMANDS = ["demo", "doctor", "schema", "train", "simulate", "predict", "calibrate", "fit"]


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
        (["predict", "x", "--fidelity", "guess"], "--fidelity"),
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
    assert spikemeter("schema") == (130, "", "")


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
    assert f"mean of {SAMPLES} samples" in out
    assert "Spikes equal the reference" in out


@pytest.mark.rtl
def test_spikes_that_differ_end_in_exit_code_1(spikemeter, run_folder, monkeypatch):
    def refuse(*arguments):
        raise SpikeMismatchError("layer 0:3C3: step 1, neuron (0, 1, 2)")

    monkeypatch.setattr("spikemeter.rtl.check_spikes", refuse)
    code, out, err = spikemeter("simulate", run_folder, "--samples", "1", "--json")
    assert code == 1
    assert json.loads(out)["spikes_match"] is False
    assert "layer 0:3C3" in err
