import csv
import json
import re

import pyarrow.parquet as pq
import pytest
import yaml
from campaigns import PLAN
from fake_cluster import OK, FakeCluster
from rich.console import Console

from spikemeter import _cli_campaign
from spikemeter.calibration import campaign, drive
from spikemeter.calibration.drive import CampaignState
from spikemeter.calibration.table import SCHEMA
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


def plain(text):
    """Give what a terminal shows, without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_shows_how_far_a_campaign_is(run, plan, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    said = plain(run("calibrate", plan, "--out", tmp_path / "out")[2])
    assert said.count("dashboard: http://nowhere") == 1
    last = said.rpartition("3/3")[2]
    assert re.search(r"1 failed, [1-9]\d* runs/h, time left 0 s; best accuracy 50.0 %, ", last)
    assert "lowest latency 7 cycles" in last
    monkeypatch.setenv("FORCE_COLOR", "")
    assert "runs/h" not in run("calibrate", "--resume", "--out", tmp_path / "out")[2]


def test_a_terminal_shows_what_is_not_known_yet(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    console = Console(force_terminal=True, stderr=True, highlight=False)
    with _cli_campaign._live_view(console) as watch:
        watch(CampaignState(step="data", done=1, total=4))
        watch(CampaignState(step="runs", done=0, total=3, waiting="no worker is left"))
    shown = plain(capsys.readouterr().err)
    for part in ("data", "1/4", "runs", "0/3", "no worker is left; 0 failed, 0 runs/h",
                 "time left unknown; best accuracy -, lowest latency -"):  # fmt: skip
        assert part in shown


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


def test_an_export_has_all_columns_and_the_usual_ones_are_shown(run, plan, tmp_path, monkeypatch):
    out, file, parquet = tmp_path / "out", tmp_path / "rows.csv", tmp_path / "rows.parquet"
    monkeypatch.setenv("COLUMNS", "120")
    run("calibrate", plan, "--out", out)
    code, told, _ = run("table", out, "--where", "status=ok", "--csv", file, "--parquet", parquet)
    assert code == 0
    title, *lines = (line.strip("│┃ ").split() for line in told.splitlines() if line[0] in "│┃")
    assert [word for word in title if word != "┃"] == [
        "run_id", "status", "dataset", "network", "accuracy.integer.test", "cycles.mean", "stale",
    ]  # fmt: skip
    shown = [[word for word in line if word != "│"] for line in lines]
    assert [line[1:] for line in shown] == [
        ["ok", "nmnist-saccade", "4C3-MP4-10", "0.5", "7", "False"]
    ] * 2
    assert "2 rows: 2 ok; 0 stale" in told
    assert told.count("written: ") == 2
    heading, *rows = csv.reader(file.read_text().splitlines())
    assert heading == [*SCHEMA.names, "stale"] == pq.read_schema(parquet).names
    assert len(rows) == 2
    for run_id in [line[0] for line in shown]:
        assert "1 rows: 1 ok" in run("table", out, "--where", f"run_id={run_id}")[1]


def test_columns_for_which_there_is_no_room_are_counted(run, plan, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run("calibrate", plan, "--out", tmp_path / "out")
    told = run("table", tmp_path / "out", "--columns", "*", "--limit", "1")[1]
    assert f"{len(SCHEMA.names) + 1 - 8} more columns do not fit" in told
    assert max(map(len, told.splitlines())) <= 80
    assert "│ ok " in told


def test_damaged_rows_are_named(run, plan, tmp_path):
    out = tmp_path / "out"
    run("calibrate", plan, "--out", out)
    (batch,) = out.glob("rows/*.parquet")
    batch.write_bytes(b"")
    warning = f"warning: rows/{batch.name} is damaged"
    assert warning in run("table", out)[1]
    assert warning in run("calibrate", plan, "--out", out, "--dry-run")[1]
    _, told, said = run("calibrate", plan, "--out", out)
    assert warning in told
    assert "3 runs: 2 ok, 1 failed" in told
    first, last = said.splitlines()
    assert first.startswith(warning)  # before the runs, which may take days
    assert last == "dashboard: http://nowhere"


@pytest.mark.parametrize(
    "reason",
    [
        "RTL and timing model differ by 3 cycles",
        "layer 0:4C3: the RTL's neuron (0,) at step 1 of sample 2 is 1 where the integer "
        "reference has 0 (1 differences in this layer)",
    ],
    ids=["timing model", "reference"],
)
def test_a_mismatch_ends_with_an_error(run, plan, tmp_path, monkeypatch, reason):
    wrong = {"status": "mismatch", "reason": reason}
    fake = FakeCluster(outcomes={0.5: wrong, 0.7: OK, 0.9: OK})
    monkeypatch.setattr(drive, "connected", fake.connected)
    code, told, said = run("calibrate", plan, "--out", tmp_path / "out")
    assert code == 1
    assert "1 mismatch" in told
    assert "RTL disagrees in 1 of 3 runs; run " in said
    assert f": {reason}\n" in said


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
        (
            ["table", "{out}", "--csv", "{out}/rows", "--parquet", "{out}/../out/rows"],
            "table: --csv and --parquet must be two files",
        ),
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
