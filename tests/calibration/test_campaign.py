import os
import random
import signal
import time

import campaigns
import numpy as np
import pytest
from campaigns import PLAN, finish, kill_at, rows, started, write_plan
from distributed import KilledWorker
from distributed.client import FutureCancelledError
from fake_cluster import HELD, OK, FakeCluster

from spikemeter.calibration import (
    campaign,
    campaign_table,
    drive,
    dry_run,
    plan_of,
    read_table,
    run_campaign,
)
from spikemeter.calibration.cluster import check_request
from spikemeter.calibration.measure import _spread, measure
from spikemeter.calibration.plan import Plan
from spikemeter.calibration.runs import run_id_of, run_numbers
from spikemeter.calibration.store import append_rows, stage_versions
from spikemeter.calibration.table import SCHEMA
from spikemeter.config import load_config
from spikemeter.errors import ClusterError, ConfigError, InputError, MissingToolError
from spikemeter.predictor import predict_latency
from spikemeter.predictor.timing import timing_model
from spikemeter.rtl import RTL_VERSION

BASE = PLAN["base"]
VERSIONS = {"version.data": 1, "version.train": 1, "version.quantise": 1, "version.rtl": 1}


def plan(*betas, **changes):
    return Plan.model_validate(
        PLAN | {"vary": {"neuron.beta": list(betas or (0.5, 0.9))}} | changes
    )


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
    timing = timing_model(config).trace(inputs)
    assert (RTL_VERSION, timing.cycles.tolist()) == (1, cycles)


def test_the_runs_of_a_plan_are_kept_and_worked_out_again_if_that_is_no_good(tmp_path):
    numbers = run_numbers(plan(), tmp_path)
    index = tmp_path / "index.parquet"
    written = index.stat().st_mtime_ns
    assert run_numbers(plan(), tmp_path) == numbers == run_numbers(plan())
    assert index.stat().st_mtime_ns == written
    content = index.read_bytes()
    index.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert run_numbers(plan(), tmp_path) == numbers
    index.write_bytes(b"")
    assert run_numbers(plan(), tmp_path) == numbers
    assert run_numbers(plan(0.9, 0.5), tmp_path) != numbers
    assert list(run_numbers(plan(0.9, 0.5), tmp_path)) == list(numbers)[::-1]


@pytest.fixture
def cluster(monkeypatch):
    """Replace the cluster, and what a machine needs for it, by given outcomes per beta."""
    fake = FakeCluster()
    monkeypatch.setattr(drive, "connected", fake.connected)
    monkeypatch.setattr(drive, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(campaign, "_prepare_machine", lambda *_: None)
    return fake


def test_only_what_is_missing_is_done(cluster, tmp_path):
    cluster.outcomes[0.9] = {"status": "failed", "reason": "no luck"}
    report = run_campaign(plan(), tmp_path)
    assert report["status"] == {"ok": 1, "failed": 1}
    assert list(report["reasons"].values()) == ["no luck"]
    table = campaign_table(plan(), tmp_path)
    assert table["neuron.beta"].tolist() == [0.5, 0.9]
    assert set(SCHEMA.names) == set(table.columns)

    assert run_campaign(plan(), tmp_path) == report
    assert cluster.given == [0.5, 0.9]

    cluster.outcomes.clear()
    again = run_campaign(plan(), tmp_path, retry_failed=True)
    assert again["status"] == {"ok": 2}
    assert cluster.given == [0.5, 0.9, 0.9]

    grown = run_campaign(plan(0.5, 0.7, 0.9), tmp_path)
    assert grown["status"] == {"ok": 3}
    assert cluster.given[3:] == [0.7]
    assert plan_of(tmp_path) == plan(0.5, 0.7, 0.9)

    cluster.outcomes.update({beta: OK | {"samples": 2, "samples.rtl": 2} for beta in (0.5, 0.9)})
    run_campaign(plan(samples=2), tmp_path)
    assert campaign_table(plan(samples=2), tmp_path)["samples"].tolist() == [2, 2]
    assert len(cluster.given) == 6


def test_a_run_that_was_spot_checked_is_done_again_for_more(cluster, tmp_path):
    checked = OK | {"samples.rtl": 1}
    cluster.outcomes.update({0.5: checked, 0.9: checked})
    by_timing = plan(timing_share=1.0)
    run_campaign(by_timing, tmp_path)
    run_campaign(by_timing, tmp_path)
    assert len(cluster.given) == 2
    cluster.outcomes.clear()
    run_campaign(plan(), tmp_path)
    run_campaign(by_timing, tmp_path)
    assert len(cluster.given) == 4


def test_a_failed_re_measurement_is_told_and_not_done_for_ever(cluster, tmp_path):
    run_campaign(plan(), tmp_path)
    late = {"status": "timeout", "reason": "took more than 5 s"}
    cluster.outcomes.update({0.5: OK | {"samples": 4, "samples.rtl": 4}, 0.9: late})
    more = plan(samples=4)
    report = run_campaign(more, tmp_path)
    assert report["status"] == {"ok": 1, "timeout": 1}
    assert list(report["reasons"].values()) == ["took more than 5 s"]
    for _ in range(2):  # with the rows as they were written, and merged
        table = campaign_table(more, tmp_path)
        assert table["status"].tolist() == ["ok", "timeout"]
        assert table["samples"].tolist() == table["samples.rtl"].tolist() == [4, 4]
        assert dry_run(more, tmp_path)["missing"] == 0
        states = []
        assert run_campaign(more, tmp_path, progress=states.append) == report
        assert (states[-1].done, states[-1].failed) == (2, 1)
    assert len(cluster.given) == 4
    everything = read_table(tmp_path)  # without a plan: what was measured
    assert everything["status"].tolist() == ["ok", "ok"]
    assert sorted(everything["samples"]) == [3, 4]
    with pytest.raises(InputError, match="1 of 2 runs of the plan have no row yet"):
        campaign_table(plan(), tmp_path)
    cluster.outcomes.clear()
    cluster.outcomes[0.9] = OK | {"samples": 4, "samples.rtl": 4}
    assert run_campaign(more, tmp_path, retry_failed=True)["status"] == {"ok": 2}
    assert cluster.given[4:] == [0.9]


def test_a_failure_with_more_rtl_leaves_the_row_of_less(cluster, tmp_path):
    checked = OK | {"samples.rtl": 1}
    failed, crashed = ({"status": status, "reason": "no luck"} for status in ("failed", "crashed"))
    cluster.outcomes.update({0.5: [checked, failed], 0.9: [checked, crashed, OK]})
    by_timing = plan(timing_share=1.0)
    run_campaign(by_timing, tmp_path)
    assert run_campaign(plan(), tmp_path)["status"] == {"failed": 1, "crashed": 1}
    assert run_campaign(by_timing, tmp_path)["status"] == {"ok": 2}
    assert len(cluster.given) == 4
    assert run_campaign(plan(), tmp_path)["status"] == {"failed": 1, "ok": 1}
    assert len(cluster.given) == 5  # a crash alone is done again


def test_a_new_version_makes_new_rows_and_old_ones_stale(cluster, tmp_path, monkeypatch):
    run_campaign(plan(), tmp_path)
    monkeypatch.setattr("spikemeter.models.TRAIN_VERSION", stage_versions()["version.train"] + 1)
    report = run_campaign(plan(), tmp_path)
    assert (report["runs"], report["status"], report["stale"]) == (2, {"ok": 2}, 2)
    assert sorted(read_table(tmp_path)["stale"]) == [False, False, True, True]
    assert not campaign_table(plan(), tmp_path)["version.train"].isin([1]).any()


def test_a_run_that_crashed_is_done_again_and_one_that_diverged_is_not(cluster, tmp_path):
    cluster.outcomes.update(
        {0.5: KilledWorker("run", None, 3), 0.9: {"status": "diverged", "reason": "nan"}}
    )
    report = run_campaign(plan(), tmp_path)
    assert report["status"] == {"crashed": 1, "diverged": 1}
    assert "its worker died, again and again" in report["reasons"].values()
    run_campaign(plan(), tmp_path, retry_failed=True)
    assert cluster.given == [0.5, 0.9, 0.5]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MissingToolError("no g++")])
def test_a_stopped_campaign_keeps_what_was_finished(cluster, tmp_path, error):
    cluster.outcomes[0.9] = error
    with pytest.raises(type(error)):
        run_campaign(plan(), tmp_path)
    assert read_table(tmp_path)["neuron.beta"].tolist() == [0.5]
    with pytest.raises(InputError, match="1 of 2 runs of the plan have no row yet"):
        campaign_table(plan(), tmp_path)
    cluster.outcomes.clear()
    assert run_campaign(plan(), tmp_path)["status"] == {"ok": 2}
    assert cluster.given == [0.5, 0.9, 0.9]


def test_a_worker_that_cannot_do_runs_is_one_sentence(cluster, tmp_path):
    cluster.outcomes[0.5] = ModuleNotFoundError("No module named 'spikemeter'")
    with pytest.raises(ClusterError, match=r"cannot do runs: ModuleNotFoundError.*same version"):
        run_campaign(plan(), tmp_path)


def test_what_a_lost_scheduler_had_is_done_by_the_next(cluster, tmp_path):
    lost = FutureCancelledError("run", "scheduler-connection-lost")
    cluster.outcomes[0.7] = [lost, None, OK]
    report = run_campaign(plan(0.5, 0.7, 0.9), tmp_path, scheduler="tcp://there:1")
    assert report["status"] == {"ok": 3}
    assert cluster.connections == 3
    assert sorted(set(cluster.given)) == [0.5, 0.7, 0.9]


def test_an_error_of_a_worker_is_no_lost_scheduler(cluster, tmp_path):
    cluster.outcomes[0.9] = OSError(12, "Cannot allocate memory")
    with pytest.raises(ClusterError, match=r"cannot do runs: OSError: .*Cannot allocate memory"):
        run_campaign(plan(), tmp_path, scheduler="tcp://there:1")
    assert cluster.connections == 1


def test_a_cluster_without_workers_is_said_and_then_given_up(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "_SILENT_SECONDS", 0.2)
    monkeypatch.setattr(drive, "_WAIT_SECONDS", 0.6)
    monkeypatch.setattr(FakeCluster, "nthreads", lambda _: {})
    cluster.outcomes[0.9] = HELD
    states = []
    with pytest.raises(ClusterError, match=r"has had no worker for .* the same command goes on"):
        run_campaign(plan(), tmp_path, scheduler="tcp://there:1", progress=states.append)
    assert [state.waiting for state in states if state.waiting] == [
        "no worker is left; waiting up to 0 min for one"
    ]
    assert read_table(tmp_path)["neuron.beta"].tolist() == [0.5]


def test_a_scheduler_that_is_lost_again_and_again_ends_the_campaign(cluster, tmp_path):
    cluster.outcomes[0.9] = FutureCancelledError("run", "scheduler-connection-lost")
    with pytest.raises(ClusterError, match=r"lost the cluster.*the same command goes on"):
        run_campaign(plan(), tmp_path, scheduler="tcp://there:1")
    assert read_table(tmp_path)["neuron.beta"].tolist() == [0.5]


def test_a_row_that_cannot_be_written_is_one_sentence_and_not_lost(cluster, tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("cannot write: No space left on device")

    monkeypatch.setattr(drive, "append_rows", refuse)
    cluster.outcomes[0.9] = ClusterError("something else")
    with pytest.raises(InputError, match="No space left on device"):
        run_campaign(plan(), tmp_path)
    monkeypatch.setattr(drive, "append_rows", append_rows)
    cluster.outcomes.clear()
    assert run_campaign(plan(), tmp_path)["status"] == {"ok": 2}


def test_a_cluster_that_loses_its_gpus_says_so(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "_SILENT_SECONDS", 0.2)
    monkeypatch.setattr(drive, "_WAIT_SECONDS", 0.6)
    cluster.workers["one"]["resources"] = {}
    cluster.outcomes[0.9] = HELD
    states = []
    with pytest.raises(ClusterError, match=r"has had no worker with the resource GPU for .* goes"):
        run_campaign(plan(), tmp_path, scheduler="tcp://there:1", gpus=1, progress=states.append)
    assert [state.waiting for state in states if state.waiting] == [
        "no worker with the resource GPU is left; waiting up to 0 min for one"
    ]


def test_what_another_campaign_does_meanwhile_is_not_done_again(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "_LOOK_SECONDS", -1.0)
    numbers = list(run_numbers(plan(0.5, 0.6, 0.7, 0.8)))
    states = []

    def progress(state):
        states.append(state)
        if state.done == 1 and len(states) < 5:
            append_rows(tmp_path, [{"run_id": numbers[3], **stage_versions(), **OK}])

    report = run_campaign(plan(0.5, 0.6, 0.7, 0.8), tmp_path, progress=progress)
    assert report["status"] == {"ok": 4}
    assert cluster.given == [0.5, 0.6, 0.7]
    assert (states[-1].done, states[-1].total, states[-1].started) == (4, 4, 1)


def test_a_failure_of_another_campaign_counts_beside_an_older_row(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "_LOOK_SECONDS", -1.0)
    run_id = list(run_numbers(plan()))[1]

    def progress(state):
        if state.done == 0:
            own = {"run_id": run_id, **stage_versions()}
            append_rows(tmp_path, [own | OK | {"samples": 9}])
            append_rows(tmp_path, [own | {"status": "failed", "reason": "no luck"}])

    report = run_campaign(plan(), tmp_path, progress=progress)
    assert report["status"] == {"ok": 1, "failed": 1}
    assert cluster.given == [0.5]


def test_progress_says_what_has_come_so_far(cluster, tmp_path):
    cluster.outcomes.update(
        {
            0.5: OK | {"cycles.mean": 9.0, "accuracy.integer.test": 0.7},
            0.6: OK | {"cycles.mean": 1.0, "status": "silent"},
            0.7: {"status": "failed", "reason": "no luck"},
        }
    )
    states = []
    run_campaign(plan(0.5, 0.6, 0.7, 0.9), tmp_path, progress=states.append)
    assert [state.done for state in states if state.dashboard] == [0, 1, 2, 3, 4]
    last = states[-1]
    assert (last.failed, last.best_accuracy, last.lowest_cycles) == (1, 0.7, 7.0)
    assert last.dashboard == "http://nowhere"
    assert last.runs_per_hour > 0
    assert last.seconds_left == 0
    assert states[0].seconds_left is None
    run_campaign(plan(0.5, 0.6, 0.7, 0.8, 0.9), tmp_path, progress=states.append)
    first, last = states[6], states[-1]  # what was there counts too
    assert (first.done, first.started, last.done) == (4, 4, 5)
    for state in (first, last):
        assert (state.failed, state.best_accuracy, state.lowest_cycles) == (1, 0.7, 7.0)


def test_another_file_does_not_pass_for_the_mark_of_a_campaign(cluster, tmp_path):
    (tmp_path / "campaign-1").touch()
    (tmp_path / f"campaign-{'0' * 32}").mkdir()
    run_campaign(plan(), tmp_path)
    marks = [path for path in tmp_path.glob("campaign-*") if path.is_file()]
    assert len(marks) == 2
    assert len(campaign._marks(tmp_path)) == 1


def test_gpus_are_asked_for(cluster, tmp_path):
    run_campaign(plan(), tmp_path, gpus=1)
    assert cluster.resources == [{"GPU": 1}, {"GPU": 1}]


def test_damaged_rows_are_named_and_done_again(cluster, tmp_path):
    report = run_campaign(plan(), tmp_path)
    (path,) = (tmp_path / "rows").glob("*.parquet")
    path.write_bytes(b"half a batch")
    sentence = f"rows/{path.name} is damaged: its checksum does not fit"
    assert dry_run(plan(), tmp_path)["damaged"] == [sentence]
    with pytest.raises(ConfigError, match="held_out"):
        run_campaign(plan(held_out={"unseen_surrogate": ["luck"]}), tmp_path)
    assert path.exists()  # a plan that is refused changes nothing
    states = []
    healed = run_campaign(plan(), tmp_path, progress=states.append)
    assert (states[0].done, states[0].damaged) == (0, (sentence,))
    assert not path.exists()
    assert healed["status"] == report["status"]
    assert len(healed["damaged"]) == 1
    assert path.name in healed["damaged"][0]
    assert len(cluster.given) == 4
    assert run_campaign(plan(), tmp_path)["damaged"] == []


def test_rows_say_on_which_side_of_the_splits_they_are(cluster, tmp_path):
    run_campaign(plan(), tmp_path)
    table = read_table(tmp_path)
    names = [name for name in table.columns if name.startswith("test.")]
    assert len(names) == 5
    assert table[names].notna().all(axis=None)


def test_a_dry_run_tells_and_does_nothing(cluster, tmp_path):
    told = dry_run(plan(), tmp_path / "none")
    assert (told["runs"], told["done"], told["missing"]) == (2, 0, 2)
    assert told["networks"] == {"4C3-MP4-10": 2}
    assert told["datasets"] == {"nmnist-saccade": 2}
    assert told["hours_from"] == "a rough rule"
    assert not (tmp_path / "none").exists()
    cluster.outcomes[0.5] = OK | {"seconds.total": 1800.0}
    run_campaign(plan(0.5), tmp_path)
    told = dry_run(plan(), tmp_path)
    assert (told["done"], told["missing"], told["hours"]) == (1, 1, 0.5)
    assert told["hours_from"] == "the rows that are there"


def test_a_dry_run_refuses_what_the_run_would(tmp_path):
    with pytest.raises(InputError, match="workers: must be at least 1, got 0"):
        dry_run(plan(), tmp_path, workers=0)
    with pytest.raises(InputError, match="scheduler: must be an address"):
        dry_run(plan(), tmp_path, scheduler="there")
    with pytest.raises(ConfigError, match=r"held_out\.unseen_surrogate: must be one that"):
        dry_run(plan(held_out={"unseen_surrogate": ["luck"]}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"held_out": {"unseen_surrogate": ["luck"]}},
        {"base": BASE | {"network": "no network"}},
    ],
    ids=["held out", "run"],
)
def test_a_plan_that_is_refused_leaves_nothing(cluster, tmp_path, changes):
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(ConfigError):
            run_campaign(plan(**changes), out)
        assert list(out.parent.glob("**/*")) in ([], [out])
        out.mkdir(exist_ok=True)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write the folder"):
        run_campaign(plan(), tmp_path / "file" / "out")


def test_a_folder_without_a_plan_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the plan .*plan\.yaml"):
        plan_of(tmp_path)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"workers": 0}, "workers: must be at least 1, got 0"),
        ({"gpus": -1}, "gpus: must not be negative, got -1"),
        ({"scheduler": "there:8786"}, "scheduler: must be an address such as .* got 'there:8786'"),
        ({"scheduler": "tcp://there"}, "scheduler: must be an address"),
        ({"scheduler": "tls://there:1"}, "scheduler: must be an address"),
        ({"scheduler": "tcp://there:0"}, "scheduler: must be an address"),
        ({"scheduler": "tcp://there:65536"}, "scheduler: must be an address"),
        ({"scheduler": "tcp://there:1", "workers": 2}, "workers: a scheduler has its own, got 2"),
        ({"workers": 3, "gpus": 2}, "workers: at most one for each of 2 GPUs, got 3"),
    ],
)
def test_impossible_requests_are_refused(request_, message):
    with pytest.raises(InputError, match=message):
        check_request(**{"scheduler": None} | request_)


@pytest.mark.parametrize(
    "interrupt",
    [
        lambda process: os.killpg(process.pid, signal.SIGINT),  # Ctrl-C reaches every process
        lambda process: process.terminate(),
    ],
    ids=["Ctrl-C", "kill"],
)
def test_an_interrupted_campaign_ends_at_once_and_leaves_no_half_run(tmp_path, interrupt):
    path = write_plan(tmp_path, base=BASE | {"training": {"epochs": 10_000}})
    out = tmp_path / "out"
    with started(out, path, "--workers", "1") as process:
        campaigns.wait_for(lambda: campaigns.is_at_a_run(out))
        members = campaigns.family(process)
        interrupt(process)
        _, said = process.communicate(timeout=campaigns.PATIENCE)
        assert process.returncode == 1, said
        assert "Traceback" not in said
        assert "distributed" not in said
        campaigns.wait_for_end(members)
    # Checkpoints stay: the run goes on from them
    assert [path for path in (out / "runs").iterdir() if path.suffix != ".partial"] == []
    assert not (out / "rows").exists()


@pytest.mark.rtl
def test_a_campaign_measures_every_run_once(tmp_path):
    states = []
    report = run_campaign(plan(), tmp_path, workers=2, gpus=2, progress=states.append)
    assert [state.done for state in states if state.dashboard] == [0, 1, 2]
    assert set(report["status"]) <= {"ok", "silent"}
    table = campaign_table(plan(), tmp_path)
    assert table["spikes_match"].all()
    assert (table["timing.difference_cycles"] == 0).all()
    assert table["neuron.beta"].tolist() == [0.5, 0.9]
    for row in table.to_dict("records"):
        exact = predict_latency(tmp_path / "runs" / row["run_id"], samples=3)
        layers = exact.layers
        assert exact.cycles == row["cycles.mean"]
        assert np.std(exact.sample_cycles, ddof=1) == pytest.approx(row["cycles.sd"])
        assert np.median(exact.sample_cycles) == row["cycles.median"]
        assert [layer.cycles for layer in layers] == pytest.approx(row["layers.cycles.mean"])
        for bucket in ("encode", "accumulate", "fire", "stall"):
            found = [layer.buckets[bucket] for layer in layers]
            assert found == pytest.approx(row[f"layers.{bucket}.mean"])
        assert exact.initiation_interval_cycles == row["initiation_interval_cycles"]
        assert [layer.input_rate for layer in layers] == pytest.approx(row["layers.input_rate"])
        assert row["layers.output_rate"][0] == row["layers.input_rate"][1]
        assert (row["samples"], row["samples.rtl"]) == (3, 3)
        assert len(row["input.events"]) == 3 * 2
        counts = [sum(steps) for steps in row["layers.step_counts"]]
        assert counts[0] == pytest.approx(sum(row["input.events"]))
        taps = [sum(steps) for steps in row["layers.step_taps"]]
        assert row["layers.taps"][0] == pytest.approx(taps[0] / counts[0])
        assert len(row["epochs.firing_rate"]) == len(row["epochs.accuracy"]) == 1

    def written() -> dict:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("r*/**/*")}

    before = written()
    assert run_campaign(plan(), tmp_path) == report
    assert written() == before


def test_one_sample_has_no_standard_deviation():
    assert _spread(np.array([[5.0, 6.0]]))["sd"] == [None, None]
    assert _spread(np.array([[5.0], [7.0]]))["sd"] == [pytest.approx(2**0.5)]


def test_a_run_that_diverges_says_so(tmp_path):
    config = load_config(BASE)
    training = config.training.model_copy(update={"lr": 1e30})
    found = measure(config.model_copy(update={"training": training}), tmp_path / "run", 3)
    assert found == {"status": "diverged", "reason": "a loss or gradient was not finite"}


@pytest.mark.rtl
def test_a_run_that_fails_is_a_row_and_the_others_go_on(tmp_path):
    checked = plan(samples=2, timing_share=1.0)
    run_ids = list(run_numbers(checked))
    foreign = tmp_path / "runs" / run_ids[0] / "diary.txt"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    run_campaign(checked, tmp_path, workers=1)
    table = campaign_table(checked, tmp_path)
    assert table["run_id"].tolist() == run_ids
    assert table["status"][0] == "failed"
    assert "diary.txt" in table["reason"][0]
    assert np.isnan(table["cycles.mean"][0])
    assert table["cycles.mean"][1] > 0
    assert (table["samples"][1], table["samples.rtl"][1]) == (2, 1)


@pytest.mark.rtl
def test_a_campaign_that_is_killed_again_and_again_has_the_same_table_in_the_end(tmp_path):
    path = write_plan(tmp_path, vary={"neuron.beta": [0.5, 0.7, 0.9]})
    began = time.monotonic()
    assert finish(tmp_path / "whole", path, "--workers", "1")[0] == 0
    longest = time.monotonic() - began
    out, rng = tmp_path / "out", random.Random(3)
    for share in (0.4, 0.7, 0.9):
        with started(out, path, "--workers", "1") as process:
            kill_at(process, longest * share * rng.uniform(0.9, 1.1))
    code, said = finish(out, path, "--workers", "1")
    assert code == 0, said
    assert campaigns.differences(rows(out), rows(tmp_path / "whole")) == []
