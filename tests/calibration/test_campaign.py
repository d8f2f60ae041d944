import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pyarrow as pa
import pytest
import yaml

from spikemeter.calibration import campaign, read_table, run_campaign
from spikemeter.calibration.campaign import run_id_of, stage_versions
from spikemeter.calibration.plan import Plan
from spikemeter.calibration.table import SCHEMA, read_rows, table_of, write_table
from spikemeter.config import load_config
from spikemeter.errors import InputError, MissingToolError
from spikemeter.predictor import predict_latency
from spikemeter.predictor.features import config_from_row, row_from_config
from spikemeter.predictor.timing import trace_timing
from spikemeter.rtl import RTL_VERSION

BASE = {
    "dataset": "nmnist-saccade",
    "network": "4C3-MP4-10",
    "input": {"height": 10, "width": 10, "time_steps": 3},
    "training": {"epochs": 1},
}
PLAN = {"base": BASE, "vary": {"neuron.beta": [0.5, 0.9]}, "sampler": "grid", "samples": 3}
VERSIONS = {"version.data": 1, "version.train": 1, "version.quantise": 1, "version.rtl": 1}


def test_a_run_id_knows_configuration_and_versions():
    config = load_config(BASE)
    run_id = run_id_of(config, VERSIONS)
    assert len(run_id) == 64
    assert run_id == run_id_of(load_config(BASE | {"neuron": {"beta": 0.9}}), VERSIONS)
    assert run_id != run_id_of(load_config(BASE | {"neuron": {"beta": 0.8}}), VERSIONS)
    for stage in VERSIONS:
        assert run_id != run_id_of(config, VERSIONS | {stage: 2})


def test_every_stage_has_a_version():
    versions = stage_versions()
    assert list(versions) == list(VERSIONS)
    assert all(isinstance(number, int) and number >= 1 for number in versions.values())


@pytest.mark.parametrize(
    ("schedule", "cycles"), [("layer_serial", [4957, 4968]), ("step_pipelined", [4920, 4932])]
)
def test_cycles_are_those_of_this_version(schedule, cycles):
    # Anything that changes these on purpose raises RTL_VERSION; tests/rtl holds timing to the RTL.
    config = load_config(BASE | {"hardware": {"schedule": schedule, "encoder_width": 16}})
    inputs = [
        np.arange(np.prod(shape)).reshape(shape) * 7919 % 101 < 20
        for shape in ((2, 3, 2, 10, 10), (2, 3, 16))
    ]
    timing = trace_timing(config, inputs)
    assert (RTL_VERSION, timing.cycles.tolist()) == (1, cycles)


@pytest.mark.parametrize(
    "hardware",
    [
        {"neural_cores": [1, 10]},
        {"neural_cores": [4, 5], "membrane_bits": 20, "schedule": "step_pipelined"},
    ],
)
def test_a_row_gives_its_configuration_back(hardware, tmp_path):
    config = load_config(BASE | {"hardware": hardware, "training": {"batch_norm": False}})
    write_table(table_of([row_from_config(config)]), tmp_path / "row.parquet")
    (row,) = read_table(tmp_path / "row.parquet").to_dict("records")
    assert config_from_row(row) == config


def test_rows_of_failed_and_measured_runs_have_one_schema(tmp_path):
    config = row_from_config(load_config(BASE))
    failed = table_of([{"run_id": "a", "status": "failed", "reason": "x", **config}])
    measured = table_of([{"run_id": "b", "status": "ok", **config, "layers.cycles": [1.0, 2]}])
    write_table(pa.concat_tables([failed, measured]), tmp_path / "table.parquet")
    table = read_table(tmp_path)
    assert list(table.columns) == SCHEMA.names
    assert table["status"].tolist() == ["failed", "ok"]
    assert table["layers.cycles"][1].tolist() == [1.0, 2.0]
    assert table["cycles.mean"].isna().all()
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_a_table_without_a_column_is_refused(tmp_path):
    write_table(table_of([{"run_id": "a"}]).drop_columns(["status"]), tmp_path / "table.parquet")
    with pytest.raises(InputError, match="must have a column 'status', got none"):
        read_table(tmp_path)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read the table"):
        read_table(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        run_campaign(Plan.model_validate(PLAN), tmp_path / "file" / "out")


def finish(jobs, results):
    """Stand in for the pool of processes: same order, a row as `measure` would give it."""

    def in_pool(chosen, workers):
        for job in chosen:
            result = results[job.config.neuron.beta]
            if isinstance(result, BaseException):
                raise result
            campaign._write_row(job, result)
            jobs.append(job.run_id)
            yield job

    return in_pool


@pytest.fixture
def measured(monkeypatch):
    """Replace training and simulation by given outcomes per beta; lists the runs that are done."""
    jobs, results = [], {}
    monkeypatch.setattr(campaign, "_finish_in_pool", finish(jobs, results))
    monkeypatch.setattr(campaign, "_warm_data", lambda configs, report: None)
    monkeypatch.setattr("spikemeter.rtl.toolchain.tool_environment", dict)
    return jobs, results


def test_only_what_is_missing_is_done(measured, tmp_path):
    jobs, results = measured
    ok = {"status": "ok", "samples": 3, "cycles.mean": 7.0, "spikes_match": True}
    results.update({0.5: ok, 0.7: ok, 0.9: {"status": "failed", "reason": "no luck"}})
    plan = Plan.model_validate(PLAN)
    table = run_campaign(plan, tmp_path)
    assert table["status"].tolist() == ["ok", "failed"]
    assert table["reason"][1] == "no luck"
    assert len(jobs) == 2

    assert run_campaign(plan, tmp_path).equals(table)
    assert len(jobs) == 2

    results[0.9] = ok
    assert run_campaign(plan, tmp_path, retry_failed=True)["status"].tolist() == ["ok", "ok"]
    assert len(jobs) == 3

    longer = Plan.model_validate(PLAN | {"vary": {"neuron.beta": [0.5, 0.7, 0.9]}})
    grown = run_campaign(longer, tmp_path)
    assert grown["neuron.beta"].tolist() == [0.5, 0.7, 0.9]
    assert len(jobs) == 4

    results[0.5] = ok | {"samples": 2}
    results[0.9] = ok | {"samples": 2}
    again = run_campaign(Plan.model_validate(PLAN | {"samples": 2}), tmp_path)
    assert again["samples"].tolist() == [2, 2]
    assert len(jobs) == 6


def test_a_stopped_campaign_keeps_what_was_finished(measured, tmp_path):
    jobs, results = measured
    ok = {"status": "ok", "samples": 3}
    results.update({0.5: ok, 0.9: KeyboardInterrupt()})
    plan = Plan.model_validate(PLAN)
    with pytest.raises(KeyboardInterrupt):
        run_campaign(plan, tmp_path)
    assert len(list((tmp_path / "rows").iterdir())) == 1
    assert not (tmp_path / "table.parquet").exists()
    results[0.9] = ok
    assert len(run_campaign(plan, tmp_path)) == 2
    assert len(jobs) == len(set(jobs)) == 2


def test_a_run_that_kills_its_process_is_a_row_and_the_others_go_on(measured, tmp_path):
    _, results = measured
    results.update({0.5: BrokenProcessPool(), 0.9: {"status": "ok", "samples": 3}})
    table = run_campaign(Plan.model_validate(PLAN), tmp_path)
    assert table["status"].tolist() == ["crashed", "ok"]
    assert "process died" in table["reason"][0]


def test_a_missing_tool_ends_the_campaign_without_rows(measured, tmp_path):
    _, results = measured
    results.update({0.5: MissingToolError("no g++"), 0.9: {"status": "ok"}})
    with pytest.raises(MissingToolError):
        run_campaign(Plan.model_validate(PLAN), tmp_path)
    assert not (tmp_path / "rows").exists()


def test_a_damaged_row_is_measured_again(measured, tmp_path):
    jobs, results = measured
    results.update({beta: {"status": "ok", "samples": 3} for beta in (0.5, 0.9)})
    plan = Plan.model_validate(PLAN)
    table = run_campaign(plan, tmp_path)
    (tmp_path / "rows" / f"{table['run_id'][1]}.parquet").write_bytes(b"half a row")
    assert run_campaign(plan, tmp_path).equals(table)
    assert len(jobs) == 3


def test_a_row_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "rows").touch()
    with pytest.raises(InputError, match=r"cannot write '.*row\.parquet'"):
        write_table(table_of([{"run_id": "a"}]), tmp_path / "rows" / "row.parquet")


@pytest.mark.parametrize(
    "interrupt",
    [
        lambda process: os.killpg(process.pid, signal.SIGINT),  # Ctrl-C reaches every process
        lambda process: process.terminate(),
    ],
    ids=["Ctrl-C", "kill"],
)
def test_an_interrupted_campaign_ends_at_once_and_leaves_no_half_run(tmp_path, interrupt):
    plan = tmp_path / "plan.yaml"
    base = BASE | {"training": {"epochs": 10_000}}
    plan.write_text(yaml.safe_dump(PLAN | {"base": base}))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "spikemeter.cli", "calibrate", plan, "--out", out]
    with subprocess.Popen(
        [*command, "--workers", "2"], stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            deadline = time.monotonic() + 300
            while len(list(out.glob("runs/.*"))) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            interrupt(process)
            _, err = process.communicate(timeout=300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, err
    assert b"Traceback" not in err
    assert sorted(path.name for path in out.iterdir()) == ["plan.yaml", "runs"]
    assert list((out / "runs").iterdir()) == []


@pytest.mark.rtl
def test_a_campaign_measures_every_run_once(tmp_path):
    plan = Plan.model_validate(PLAN)
    steps = []
    table = run_campaign(
        plan, tmp_path, workers=2, progress=lambda step, done, total: steps.append((step, done))
    )
    assert [done for step, done in steps if step == "runs"] == [0, 1, 2]
    assert list(table.columns) == SCHEMA.names
    assert set(table["status"]) <= {"ok", "silent"}
    assert table["spikes_match"].all()
    assert table["neuron.beta"].tolist() == [0.5, 0.9]
    for row in table.to_dict("records"):
        folder = tmp_path / "runs" / row["run_id"]
        exact = predict_latency(folder, samples=3)
        assert exact.cycles == row["cycles.mean"]
        assert np.std(exact.sample_cycles, ddof=1) == pytest.approx(row["cycles.sd"])
        assert [layer.cycles for layer in exact.layers] == pytest.approx(row["layers.cycles"])
        assert exact.initiation_interval_cycles == row["initiation_interval_cycles"]
        assert [layer.input_rate for layer in exact.layers] == pytest.approx(
            row["layers.input_rate"]
        )
        assert row["layers.output_rate"][0] == row["layers.input_rate"][1]
        assert row["samples"] == 3
        assert len(row["input.events"]) == 3 * 2
        assert np.mean(row["input.events"]) / 100 == pytest.approx(row["layers.input_rate"][0])
        assert read_rows(tmp_path / "rows" / f"{row['run_id']}.parquet").num_rows == 1

    def written() -> dict:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("r*/**/*")}

    before = written()
    assert run_campaign(plan, tmp_path).equals(table)
    assert written() == before


@pytest.mark.rtl
def test_a_run_that_fails_is_a_row_and_the_others_go_on(tmp_path):
    plan = Plan.model_validate(PLAN | {"samples": 1})
    run_ids = [run_id_of(config, stage_versions()) for config in plan.configs]
    foreign = tmp_path / "runs" / run_ids[0] / "diary.txt"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    table = run_campaign(plan, tmp_path, workers=1)
    assert table["run_id"].tolist() == run_ids
    assert table["status"][0] == "failed"
    assert "diary.txt" in table["reason"][0]
    assert np.isnan(table["cycles.mean"][0])
    assert table["cycles.mean"][1] > 0
    foreign.unlink()
    healed = run_campaign(plan, tmp_path, workers=1, retry_failed=True)
    assert healed["cycles.mean"].notna().all()
