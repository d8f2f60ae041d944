import csv
import json
import os
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spikemeter.calibration import read_table, store
from spikemeter.calibration.store import (
    append_rows,
    export_table,
    merge_batches,
    read_columns,
    read_store,
    set_aside,
    stage_versions,
)
from spikemeter.calibration.table import SCHEMA, fit_schema, table_of
from spikemeter.calibration.view import chosen_columns, read_rows_where
from spikemeter.config import load_config
from spikemeter.errors import InputError
from spikemeter.predictor.features import config_from_row, row_from_config

BASE = {"dataset": "nmnist-saccade", "network": "4C3-MP4-10"}


def row(run_id, **changes):
    columns = {"status": "ok", "samples": 3, "samples.rtl": 3, **changes}
    return {"run_id": run_id, **stage_versions(), **columns}


def statuses(folder):
    table = read_store(folder).table
    return dict(
        zip(*(table.column(name).to_pylist() for name in ("run_id", "status")), strict=True)
    )


def batches(folder):
    return sorted((folder / "rows").glob("*.parquet"))


def test_rows_come_back_in_order_and_the_latest_of_a_run_holds(tmp_path):
    append_rows(tmp_path, [row("a"), row("b", status="failed", reason="no luck")])
    append_rows(tmp_path, [])
    append_rows(tmp_path, [row("c"), row("b", status="silent")])
    contents = read_store(tmp_path)
    assert contents.table.column("run_id").to_pylist() == ["a", "b", "c"]
    assert contents.table.column("status").to_pylist() == ["ok", "silent", "ok"]
    assert contents.table.schema.equals(SCHEMA, check_metadata=True)
    assert len(contents.batches) == len(batches(tmp_path)) == 2
    assert contents.damaged == {}


def test_a_good_row_is_not_lost_to_a_later_failure(tmp_path):
    append_rows(tmp_path, [row("a"), row("b", status="failed", reason="first")])
    append_rows(tmp_path, [row("a", status="timeout"), row("b", status="crashed", reason="last")])
    assert statuses(tmp_path) == {"a": "ok", "b": "crashed"}
    assert read_store(tmp_path, ["reason"]).table.column("reason").to_pylist() == [None, "last"]
    merge_batches(tmp_path, least=2)
    assert statuses(tmp_path) == {"a": "ok", "b": "crashed"}


def test_a_later_failure_is_kept_beside_a_good_row_until_there_is_a_later_one(tmp_path):
    def kept():
        table = read_store(tmp_path, ["status", "samples"], failures=True).table
        return [tuple(row.values()) for row in table.to_pylist()]

    append_rows(tmp_path, [row("a", status="failed"), row("b")])
    append_rows(tmp_path, [row("a"), row("c")])
    for samples in (4, 5):
        append_rows(tmp_path, [row("a", status="timeout", samples=samples)])
    with_failure = [("a", "ok", 3), ("a", "timeout", 5), ("b", "ok", 3), ("c", "ok", 3)]
    assert kept() == with_failure
    merge_batches(tmp_path, least=2)
    assert len(batches(tmp_path)) == 1
    assert kept() == with_failure
    assert statuses(tmp_path) == {"a": "ok", "b": "ok", "c": "ok"}
    append_rows(tmp_path, [row("a", samples=5)])
    assert kept() == [("a", "ok", 5), ("b", "ok", 3), ("c", "ok", 3)]


def test_an_older_good_row_does_not_hide_that_rtl_disagrees(tmp_path):
    append_rows(tmp_path, [row("a")])
    append_rows(tmp_path, [row("a", status="mismatch")])
    assert statuses(tmp_path) == {"a": "mismatch"}
    append_rows(tmp_path, [row("a", samples=4)])
    assert statuses(tmp_path) == {"a": "ok"}


def test_a_later_batch_holds_also_if_the_clock_goes_back(tmp_path, monkeypatch):
    append_rows(tmp_path, [row("a", samples=1)])
    monkeypatch.setattr(store.time, "time_ns", lambda: 5)
    for samples in (2, 3):
        append_rows(tmp_path, [row("a", samples=samples)])
    assert read_store(tmp_path).table.column("samples").to_pylist() == [3]
    merge_batches(tmp_path, least=2)
    append_rows(tmp_path, [row("a", samples=4)])
    assert read_store(tmp_path).table.column("samples").to_pylist() == [4]


def test_some_columns_are_read_alone(tmp_path):
    append_rows(tmp_path, [row("a")])
    assert read_store(tmp_path, ["status"]).table.column_names == ["run_id", "status"]
    assert read_store(tmp_path, ["samples"]).table.column_names == ["run_id", "samples"]
    assert read_store(tmp_path / "nowhere", ["status"]).table.num_rows == 0


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "its checksum does not fit"),
        (flip, "its checksum does not fit"),
        (lambda path: path.write_bytes(b""), "its checksum does not fit"),
        (lambda path: path.with_suffix(".json").unlink(), "its manifest is missing"),
        (lambda path: cut(path.with_suffix(".json")), "its manifest cannot be read"),
    ],
    ids=["cut", "flipped", "emptied", "no manifest", "half a manifest"],
)
def test_a_damaged_batch_is_named_and_can_be_set_aside(tmp_path, damage, reason):
    for run_id in "abc":
        append_rows(tmp_path, [row(run_id)])
    broken = batches(tmp_path)[1]
    damage(broken)
    seen = read_store(tmp_path)
    assert seen.damaged == {broken.stem: reason}
    assert seen.sentences() == [f"rows/{broken.name} is damaged: {reason}"]
    with pytest.warns(UserWarning, match=reason):
        assert len(read_table(tmp_path)) == 2
    merge_batches(tmp_path, least=2)
    assert broken.exists()  # looking and merging change nothing
    for _ in range(2):  # another campaign may do so in the same moment
        set_aside(tmp_path, seen.damaged)
    assert not broken.exists()
    assert (tmp_path / "damaged" / broken.name).exists()
    assert statuses(tmp_path) == {"a": "ok", "c": "ok"}
    assert read_store(tmp_path).damaged == {}


def test_a_batch_whose_writer_was_killed_is_not_there(tmp_path):
    append_rows(tmp_path, [row("a")])
    append_rows(tmp_path, [row("b")])
    unfinished = batches(tmp_path)[1]
    unfinished.rename(unfinished.with_name(f".{unfinished.name}.0123"))
    contents = read_store(tmp_path)
    assert contents.table.column("run_id").to_pylist() == ["a"]
    assert contents.damaged == {}


def test_leftovers_are_removed_after_an_hour(tmp_path):
    append_rows(tmp_path, [row("a")])
    old, young = tmp_path / "rows" / "old.json", tmp_path / "rows" / "young.json"
    beside = [f".plan.yaml.{'0' * 32}", f".splits.json.{'1' * 32}.new", ".own", "plan.yaml"]
    for path in (old, young, *(tmp_path / name for name in beside)):
        path.touch()
    for path in (old, *(tmp_path / name for name in beside)):
        os.utime(path, (0, 0))
    merge_batches(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".own", "plan.yaml", "rows"]
    assert statuses(tmp_path) == {"a": "ok"}


def test_many_batches_become_one(tmp_path):
    for number in range(5):
        append_rows(tmp_path, [row(f"{number}"), row("again", samples=number)])
    before = read_store(tmp_path).table
    merge_batches(tmp_path, least=6)
    assert len(batches(tmp_path)) == 5
    merge_batches(tmp_path, least=5)
    assert len(list((tmp_path / "rows").iterdir())) == 2
    assert read_store(tmp_path).table.equals(before)
    append_rows(tmp_path, [row("again", samples=9)])
    assert read_store(tmp_path).table.column("samples").to_pylist()[1] == 9


def test_full_batches_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FULL_BATCH_ROWS", 3)
    for run_id in "abcdefgh":
        append_rows(tmp_path, [row(run_id)])
        merge_batches(tmp_path, least=2, whole=True)
    assert len(batches(tmp_path)) == 3
    assert list(statuses(tmp_path)) == list("abcdefgh")


def test_a_row_is_written_again_only_as_often_as_its_batch_can_double(tmp_path, monkeypatch):
    written = []
    write = store._write_batch

    def count(folder, moment, table, **options):
        written.append(table.num_rows)
        return write(folder, moment, table, **options)

    monkeypatch.setattr(store, "_write_batch", count)
    for number in range(128):
        append_rows(tmp_path, [row(f"{number:03d}")])
        merge_batches(tmp_path, least=4)
    assert sum(written) <= 128 * (1 + 7)
    assert len(batches(tmp_path)) <= 3 + 7
    assert list(statuses(tmp_path)) == [f"{number:03d}" for number in range(128)]
    merge_batches(tmp_path, least=2, whole=True)
    assert len(batches(tmp_path)) == 1


def test_columns_of_a_later_version_are_not_lost_to_merging(tmp_path):
    append_rows(tmp_path, [row("a")])
    table = table_of([row("b")])
    later = table.append_column("neuron.later", pa.array([5.0]))
    name = store._write_batch(tmp_path, f"{time.time_ns():020d}", later)
    for run_id in "cd":
        append_rows(tmp_path, [row(run_id)])
    merge_batches(tmp_path, least=2, whole=True)
    assert len(batches(tmp_path)) == 3
    kept = pq.read_table(tmp_path / "rows" / f"{name}.parquet", partitioning=None)
    assert kept.column("neuron.later").to_pylist() == [5.0]
    assert list(statuses(tmp_path)) == list("abcd")


def write_batch(folder, run_id, without):
    """Write a batch as a program does that knows fewer columns."""
    table = table_of([row(run_id)]).drop_columns(without)
    return store._write_batch(folder, f"{time.time_ns():020d}", table)


def test_a_batch_without_a_record_of_versions_is_read_and_merged(tmp_path):
    append_rows(tmp_path, [row("a", **{"package.torch": "2.9"})])
    packages = [name for name in SCHEMA.names if name.startswith("package.")]
    write_batch(tmp_path, "b", [*packages, "neuron.beta"])
    table = read_store(tmp_path).table
    assert table.column("package.torch").to_pylist() == ["2.9", None]
    merge_batches(tmp_path, least=2)
    assert len(batches(tmp_path)) == 1
    assert read_store(tmp_path).table.equals(table)


def test_a_batch_without_a_measurement_is_named_and_does_not_keep_others_from_merging(tmp_path):
    append_rows(tmp_path, [row("a")])
    name = write_batch(tmp_path, "b", ["input.train_events"])
    with pytest.raises(InputError, match=rf"{name}.* must have a column 'input.train_events'"):
        read_store(tmp_path)
    for run_id in "cde":
        append_rows(tmp_path, [row(run_id)])
    merge_batches(tmp_path, least=2, whole=True)
    assert len(batches(tmp_path)) == 3
    table = read_store(tmp_path, ["status"]).table
    assert table.column("run_id").to_pylist() == list("abcde")


def test_a_batch_that_is_merged_while_others_read_is_read_again(tmp_path, monkeypatch):
    for run_id in "abc":
        append_rows(tmp_path, [row(run_id)])
    read, merged = store._read_batch, []

    def read_after_merge(path, names):
        if not merged:
            merged.append(path)
            merge_batches(tmp_path, least=2)
        return read(path, names)

    monkeypatch.setattr(store, "_read_batch", read_after_merge)
    assert read_store(tmp_path).table.column("run_id").to_pylist() == ["a", "b", "c"]


WRITER = """
import sys
from pathlib import Path
from spikemeter.calibration.store import append_rows, merge_batches, read_store
folder, first = Path(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + 30):
    append_rows(folder, [{"run_id": str(number), "status": "ok"}])
    merge_batches(folder, least=4)
    held = read_store(folder, ["status"]).table.column("run_id").to_pylist()
    assert {str(n) for n in range(first, number + 1)} <= set(held), (number, held)
"""


def test_two_processes_write_merge_and_read_without_losing_a_row(tmp_path):
    commands = [[sys.executable, "-c", WRITER, tmp_path, first] for first in ("0", "15")]
    writers = [subprocess.Popen(command) for command in commands]
    assert [writer.wait(timeout=300) for writer in writers] == [0, 0]
    assert sorted(map(int, statuses(tmp_path))) == list(range(45))


def test_a_row_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "rows").touch()
    with pytest.raises(InputError, match=r"cannot write '.*rows.*'"):
        append_rows(tmp_path, [row("a")])


def test_a_store_of_another_version_is_refused(tmp_path):
    append_rows(tmp_path, [row("a")])
    manifest = batches(tmp_path)[0].with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 2}))
    with pytest.raises(InputError, match="must have schema_version 1, got 2"):
        read_store(tmp_path)


def test_a_manifest_that_may_not_be_read_is_no_damage(tmp_path):
    append_rows(tmp_path, [row("a")])
    manifest = batches(tmp_path)[0].with_suffix(".json")
    manifest.unlink()
    manifest.mkdir()  # reading it fails, for root too
    with pytest.raises(InputError, match=r"cannot read '.*\.json'"):
        read_store(tmp_path)
    assert len(batches(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.replace_schema_metadata({"spikemeter.schema_version": "99"}),
            r"the table '.*' must have schema_version 1, got 99",
        ),
        (
            lambda table: table.set_column(
                table.column_names.index("samples"), "samples", pa.array(["many"])
            ),
            r"cannot use the table '.*many",
        ),
    ],
    ids=["another version", "wrong type"],
)
def test_an_exported_table_that_does_not_fit_is_refused(tmp_path, change, message):
    pq.write_table(change(table_of([row("a")])), tmp_path / "table.parquet")
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "table.parquet")


def test_of_a_run_in_several_tables_the_first_that_was_measured_counts(tmp_path):
    failed = [row("a", status="failed", reason="x"), row("b", status="failed", reason="x")]
    stale = row("a", **{"cycles.mean": 1.0}) | {"version.train": 99}
    append_rows(tmp_path / "one", failed)
    append_rows(tmp_path / "two", [stale])
    append_rows(tmp_path / "three", [row("a", **{"cycles.mean": 2.0}), row("c")])
    append_rows(tmp_path / "four", [row("a", **{"cycles.mean": 3.0})])
    found = read_table(*(tmp_path / name for name in ("one", "two", "three", "four")))
    assert sorted(found["run_id"]) == ["a", "b", "c"]
    of_run = found.set_index("run_id")
    assert of_run["cycles.mean"]["a"] == 2
    assert of_run["status"].to_dict() == {"a": "ok", "b": "failed", "c": "ok"}
    assert read_table(tmp_path / "one", tmp_path / "one").equals(read_table(tmp_path / "one"))


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_place_without_rows_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="cannot read the table"):
        read_table(tmp_path / name)


def test_rows_of_other_versions_are_stale(tmp_path):
    append_rows(tmp_path, [row("a"), row("b") | {"version.train": 99}, {"run_id": "c"}])
    assert read_table(tmp_path)["stale"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    "hardware",
    [
        {"neural_cores": [1, 10]},
        {"neural_cores": [4, 5], "membrane_bits": 20, "schedule": "step_pipelined"},
    ],
)
def test_a_row_gives_its_configuration_back(hardware, tmp_path):
    config = load_config(BASE | {"hardware": hardware, "training": {"batch_norm": False}})
    export_table(table_of([row_from_config(config)]), tmp_path / "row.parquet", as_csv=False)
    (found,) = read_table(tmp_path / "row.parquet").to_dict("records")
    assert config_from_row(found) == config


def test_rows_of_failed_and_measured_runs_have_one_schema(tmp_path):
    config = row_from_config(load_config(BASE))
    append_rows(tmp_path, [row("a", status="failed", reason="x") | config])
    append_rows(tmp_path, [row("b", **{"layers.cycles.mean": [1.0, 2]}) | config])
    table = read_table(tmp_path)
    assert list(table.columns) == [*SCHEMA.names, "stale"]
    assert table["status"].tolist() == ["failed", "ok"]
    assert table["layers.cycles.mean"][1].tolist() == [1.0, 2.0]
    assert table["cycles.mean"].isna().all()


def test_a_key_that_came_later_is_null_and_a_missing_measurement_is_refused():
    table = table_of([row("a")])
    for name in ("neuron.beta", "package.torch"):
        assert fit_schema(table.drop_columns([name])).column(name).null_count == 1
    with pytest.raises(InputError, match="must have a column 'status', got none"):
        fit_schema(table.drop_columns(["status"]))


@pytest.fixture
def filled(tmp_path):
    rates = [0.1, 0.2]
    append_rows(
        tmp_path,
        [
            row("a", **{"neuron.beta": 0.5, "layers.input_rate": rates, "spikes_match": True,
                        "hardware.membrane_bits": "auto"}),
            row("b", **{"neuron.beta": 0.7, "reason": 'a "quote", and commas',
                        "hardware.membrane_bits": 10}),
            row("c", **{"status": "failed", "hardware.membrane_bits": 9}),
        ],
    )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ([], "abc"),
        (["status=ok"], "ab"),
        (["status==ok"], "ab"),
        (["neuron.beta == 0.5"], "a"),
        (["status != ok"], "c"),
        (["neuron.beta>0.5"], "b"),
        (["neuron.beta>=0.5", "neuron.beta<0.7"], "a"),
        (["neuron.beta!=0.5"], "bc"),
        (["spikes_match=true"], "a"),
        (["stale=False"], "abc"),
        (["samples<=2"], ""),
        (["hardware.membrane_bits>=9"], "bc"),
        (["hardware.membrane_bits<10"], "c"),
        (["hardware.membrane_bits=9.0"], "c"),
        (["hardware.membrane_bits!=9"], "ab"),
        (["hardware.membrane_bits=auto"], "a"),
        (["hardware.membrane_bits!=auto"], "bc"),
    ],
)
def test_rows_are_chosen_by_conditions(filled, conditions, found):
    contents = read_rows_where(filled, ["status"], conditions)
    assert "".join(contents.table.column("run_id").to_pylist()) == found


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("beta", "must be KEY=VALUE"),
        ("beta=1", "must name a column of the table; got 'beta'"),
        ("neuron.beta=high", "neuron.beta is a number, got 'high'"),
        ("stale=perhaps", "stale is true or false, got 'perhaps'"),
        ("layers.taps=1", "layers.taps is a list"),
        ("hardware.membrane_bits>=auto", "hardware.membrane_bits is a number, got 'auto'"),
        ("package.torch>=2.10", "package.torch is text, to be compared by = or !=; got >="),
    ],
)
def test_an_impossible_condition_is_refused(filled, condition, message):
    with pytest.raises(InputError, match=message):
        read_rows_where(filled, ["status"], [condition])


def test_a_run_may_be_named_by_its_first_digits(tmp_path):
    append_rows(tmp_path, [row("0123456789abcdef"), row("0123456789abfedc"), row("f" * 16)])
    for condition, found in {"=0123456789abc": 1, "=0123456789ab": 2, "!=0123456789ab": 1}.items():
        contents = read_rows_where(tmp_path, ["status"], [f"run_id{condition}"])
        assert contents.table.num_rows == found
    assert read_rows_where(tmp_path, [], ["run_id=123456789abc"]).table.num_rows == 0


def test_columns_are_chosen_by_name():
    assert chosen_columns("status, run_id") == ["status", "run_id"]
    assert chosen_columns("*") == chosen_columns(None) == [*SCHEMA.names, "stale"]
    assert chosen_columns(None, ["status"]) == ["status"]
    with pytest.raises(InputError, match=r"columns: must be of the table, or \*; got 'no'"):
        chosen_columns("status,no")


def test_an_export_says_the_same(filled):
    table = read_columns(filled).table
    export_table(table, filled / "all.parquet", as_csv=False)
    assert read_table(filled / "all.parquet").equals(read_table(filled))
    metadata = pq.read_schema(filled / "all.parquet").metadata
    assert metadata[b"spikemeter.schema_version"] == b"1"
    export_table(table, filled / "all.csv", as_csv=True)
    with (filled / "all.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert json.loads(first["layers.input_rate"]) == [0.1, 0.2]
    assert second["reason"] == 'a "quote", and commas'
    assert float(second["neuron.beta"]) == 0.7
    assert (third["status"], third["neuron.beta"]) == ("failed", "")


def test_a_column_of_the_wrong_type_is_damage(tmp_path):
    append_rows(tmp_path, [row("a")])
    (path,) = batches(tmp_path)
    table = pq.read_table(path, partitioning=None)
    place = table.column_names.index("samples")
    wrong = table.set_column(place, "samples", pa.array(["many"]))
    name = store._write_batch(tmp_path, "00000000000000000000", wrong)
    damaged = read_store(tmp_path).damaged
    assert list(damaged) == [name]
    assert "many" in damaged[name]
    assert statuses(tmp_path) == {"a": "ok"}
