import json

import pytest
import yaml
from campaigns import PLAN
from fake_cluster import OK, FakeCluster

from spikemeter.calibration import campaign, drive
from spikemeter.cli import main


@pytest.fixture
def plan(tmp_path, monkeypatch):
    fake = FakeCluster()
    fake.outcomes[0.9] = {"status": "failed", "reason": "no [luck]"}
    monkeypatch.setattr(drive, "connected", fake.connected)
    monkeypatch.setattr(campaign, "_prepare_machine", lambda *_: None)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | {"vary": {"neuron.beta": [0.5, 0.7, 0.9]}}))
    return path


@pytest.fixture
def run(capsys):
    """Run a command; its exit code, standard output and standard error."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return run


def test_a_campaign_is_told_in_words_and_as_json(run, plan, tmp_path):
    out = tmp_path / "out"
    code, told, said = run("calibrate", plan, "--out", out)
    assert code == 0
    assert "3 runs: 2 ok, 1 failed" in told
    assert "no [luck]" in told
    assert said == "dashboard: http://nowhere\n"
    code, told, said = run("calibrate", "--resume", "--out", out, "--json")
    assert (code, said) == (0, "")
    report = json.loads(told)
    assert report["status"] == {"ok": 2, "failed": 1}
    assert (report["runs"], report["stale"], report["damaged"]) == (3, 0, [])


def test_a_dry_run_says_what_would_be_done(run, plan, tmp_path):
    code, told, said = run("calibrate", plan, "--out", tmp_path / "out", "--dry-run")
    assert (code, said) == (0, "")
    assert "3 of 3 runs are to be done: about" in told
    assert "3 4C3-MP4-10" in told
    assert not (tmp_path / "out").exists()


def test_a_table_is_printed_filtered_and_exported(run, plan, tmp_path):
    out, file = tmp_path / "out", tmp_path / "rows.csv"
    run("calibrate", plan, "--out", out)
    code, told, said = run("table", out)
    assert (code, said) == (0, "")
    assert "3 rows: 2 ok, 1 failed; 0 stale" in told
    code, told, _ = run(
        "table", out, "--where", "status=ok", "--where", "neuron.beta>0.5",
        "--columns", "neuron.beta,cycles.mean", "--csv", file,
    )  # fmt: skip
    assert code == 0
    assert "1 rows: 1 ok; 0 stale" in told
    assert file.read_text() == '"neuron.beta","cycles.mean"\n0.7,7\n'
    code, told, _ = run("table", out, "--json", "--columns", "reason", "--limit", "2")
    report = json.loads(told)
    assert (report["rows"], report["table"]) == (3, [{"reason": None}] * 2)
    for words in (["--json"], []):
        code, told, _ = run("table", out, "--limit", "0", *words)
        assert code == 0
        assert json.loads(told)["table"] == [] if words else "the first 0 shown" in told
    run("table", out, "--csv", file)
    ids = [line.partition(",")[0] for line in file.read_text().splitlines()[1:]]
    assert len(ids) == 3
    assert ids == sorted(ids)


def test_damaged_rows_are_named(run, plan, tmp_path):
    out = tmp_path / "out"
    run("calibrate", plan, "--out", out)
    (batch,) = out.glob("rows/*.parquet")
    batch.write_bytes(b"")
    assert f"warning: rows/{batch.name} is damaged" in run("table", out)[1]
    told = run("calibrate", plan, "--out", out)[1]
    assert f"warning: rows/{batch.name} is damaged" in told
    assert "3 runs: 2 ok, 1 failed" in told


def test_a_mismatch_ends_with_an_error(run, plan, tmp_path, monkeypatch):
    wrong = {"status": "mismatch", "reason": "layer 0", "spikes_match": False}
    fake = FakeCluster(outcomes={0.5: wrong, 0.7: OK, 0.9: OK})
    monkeypatch.setattr(drive, "connected", fake.connected)
    code, told, said = run("calibrate", plan, "--out", tmp_path / "out")
    assert code == 1
    assert "1 mismatch" in told
    assert "disagree in 1 of 3 runs" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["calibrate", "--out", "{out}"], "calibrate: give PLAN, or --resume"),
        (
            ["calibrate", "{plan}", "--resume", "--out", "{out}"],
            "calibrate: give PLAN, or --resume",
        ),
        (["calibrate", "--resume", "--out", "{out}"], "cannot read the plan"),
        (["calibrate", "{plan}", "--out", "{plan}"], "out: cannot write the folder"),
        (
            ["calibrate", "{plan}", "--out", "{out}", "--workers", "0"],
            "workers: must be at least 1",
        ),
        (
            ["calibrate", "{plan}", "--out", "{out}", "--scheduler", "there"],
            "scheduler: must be an",
        ),
        (
            ["calibrate", "{plan}", "--out", "{out}", "--dry-run", "--workers", "0"],
            "workers: must be at least 1",
        ),
        (["calibrate", "{plan}", "--out", "{out}", "--gpus", "-1"], "gpus: must not be negative"),
        (["table", "{out}"], "cannot read the table"),
        (["table", "{out}", "--where", "beta=1"], "where: must name a column"),
        (["table", "{out}", "--columns", "beta"], "columns: must be of the table"),
    ],
)
def test_bad_input_is_one_sentence(run, plan, tmp_path, words, message):
    places = {"plan": plan, "out": tmp_path / "out"}
    code, told, said = run(*(word.format(**places) for word in words))
    assert (code, told) == (2, "")
    assert said.startswith(f"spikemeter: {message}")
    assert len(said.splitlines()) == 1
