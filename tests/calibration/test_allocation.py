"""Allocations of a trained network, on the command line and in RTL."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikemeter import _cli_allocate
from spikemeter.calibration.allocation import verify_allocation
from spikemeter.cli import main
from spikemeter.config import load_config
from spikemeter.errors import ConfigError, InputError, TimingMismatchError
from spikemeter.models import load_run, train_run
from spikemeter.predictor.allocation import allocate_cores

CONTENT: dict[str, Any] = {
    "dataset": "nmnist-saccade",
    "network": "6C3-MP2-8C3-MP2-10",
    "input": {"height": 12, "width": 12, "time_steps": 4},
    "training": {"epochs": 2, "lr": 5e-3, "batch_size": 32},
    "hardware": {"neural_cores": [2, 2, 5]},
}
SAMPLES = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train_run(load_config(CONTENT), path)
    return path


@pytest.fixture
def run_on(trained: Path, tmp_path: Path):
    """The same network for other hardware."""

    def copied(**hardware: Any) -> Path:
        path = shutil.copytree(trained, tmp_path / "run")
        content = CONTENT | {"hardware": CONTENT["hardware"] | hardware}
        (path / "config.yaml").write_text(load_config(content).to_yaml())
        return path

    return copied


@pytest.fixture
def spikemeter(capsys: pytest.CaptureFixture[str]):
    """Run a command; its exit code, standard output and standard error."""

    def run(*words: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.mark.rtl
@pytest.mark.parametrize(
    ("schedule", "objective"), [("layer_serial", "latency"), ("step_pipelined", "interval")]
)
def test_the_rtl_takes_the_predicted_cycles_and_no_neighbour_takes_fewer(
    spikemeter, run_on, schedule, objective
):
    path = run_on(schedule=schedule)
    words = ["--cores", 11, "--samples", SAMPLES, "--objective", objective]
    code, out, err = spikemeter("allocate", path, *words, "--verify", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    found = allocate_cores(path, 11, objective, samples=SAMPLES)
    assert found.estimate.fidelity == "trace"
    verified = verify_allocation(load_run(path), found)
    assert report.pop("verified") == json.loads(json.dumps([asdict(point) for point in verified]))
    assert report == json.loads(json.dumps(found.to_dict()))
    assert [point.neural_cores for point in verified] == [
        found.neural_cores, *(point.neural_cores for point in found.neighbours)
    ]  # fmt: skip
    assert len({point.neural_cores for point in verified}) == 3
    for point in verified:
        assert point.samples == SAMPLES
        assert point.difference_cycles == 0
        assert point.measured_cycles == point.cycles
        assert point.measured_initiation_interval_cycles == point.initiation_interval_cycles
    key = "cycles" if objective == "latency" else "initiation_interval_cycles"
    measured = [getattr(point, f"measured_{key}") for point in verified]
    assert measured[0] == min(measured)
    assert measured[0] == getattr(found.estimate, key)


@pytest.mark.rtl
def test_a_lower_fidelity_and_a_wrong_prediction_are_told_from_the_rtl(trained):
    run = load_run(trained)
    guess = allocate_cores(trained, 11, fidelity="hyperparameters")
    assert guess.estimate.fidelity == "hyperparameters"
    alone = replace(guess, neighbours=())
    (point,) = verify_allocation(run, alone, samples=SAMPLES)
    assert point.difference_cycles == 0  # of RTL and timing model, which get the same spikes
    assert point.measured_cycles != point.cycles

    found = allocate_cores(trained, 11, samples=SAMPLES)
    wrong = replace(found.front[-1], cycles=found.front[-1].cycles + 3)
    told = verify_allocation(run, replace(found, front=(wrong,), neighbours=()))
    assert [point.difference_cycles for point in told] == [3]
    with pytest.raises(TimingMismatchError, match=r"^RTL and timing model differ by 3 cycles on "):
        _cli_allocate._refuse_differences([asdict(point) for point in told])


def test_only_the_allocation_of_a_run_is_verified_on_it(trained, run_on):
    other = allocate_cores(run_on(schedule="step_pipelined"), 11)
    with pytest.raises(InputError, match=r"^allocation: must be of the configuration of the run"):
        verify_allocation(load_run(trained), other)


def test_the_command_says_what_the_function_finds(spikemeter, trained, tmp_path):
    plot = tmp_path / "plots" / "front.svg"
    code, out, err = spikemeter("allocate", trained, "--cores", 9, "--plot", plot, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report.pop("plot") == str(plot)
    assert plot.read_text().startswith("<?xml")
    found = allocate_cores(trained, 9, samples=16)  # as many as predict takes
    assert report == json.loads(json.dumps(found.to_dict()))
    code, out, err = spikemeter("allocate", trained, "--cores", 9)
    assert (code, err) == (0, "")
    cores = ", ".join(map(str, found.neural_cores))
    assert f"neural_cores: [{cores}], {found.cores} of 9" in out
    assert "Proved: no allocation within 9 cores has a lower latency." in out
    for name in ("chosen", "configured", "even", "neighbour"):
        assert name in out
    code, out, _ = spikemeter("allocate", trained, "--json")
    assert (code, json.loads(out)["budget"]) == (0, sum(CONTENT["hardware"]["neural_cores"]))


def test_a_bad_question_is_one_sentence_and_exit_code_2(spikemeter, trained, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(CONTENT))
    for source, words, sentence in [
        (config, ["--cores", 2], "cores: must be at least 3"),
        (config, ["--verify"], "--verify: needs a run folder"),
        (config, ["--fidelity", "statistics"], "fidelity: this source allows hyperparameters"),
        (config, ["--objective", "speed"], "speed"),
        (config, ["--plot", tmp_path / "front.pdf"], "plot: must end in .png or .svg"),
        (trained, ["--samples", 999], "samples: must be at most the 64 samples"),
        (tmp_path / "none.yaml", [], "none.yaml"),
    ]:
        code, out, err = spikemeter("allocate", source, *words, "--json")
        assert (code, out) == (2, ""), err
        assert err.startswith("spikemeter: ")
        assert err.count("\n") == 1
        assert sentence in err
    assert sorted(tmp_path.iterdir()) == [config]


def test_a_machine_without_rtl_is_allocated_but_not_verified(spikemeter, run_on):
    path = run_on(backend="published")
    code, out, _ = spikemeter("allocate", path, "--cores", 9, "--json")
    assert (code, json.loads(out)["exact"]) == (0, True)
    code, out, err = spikemeter("allocate", path, "--cores", 9, "--verify", "--json")
    assert (code, out) == (2, "")
    assert "hardware.backend: must be engine to simulate" in err
    with pytest.raises(ConfigError, match=r"must be engine to simulate"):
        verify_allocation(load_run(path), allocate_cores(path, 9))
