"""Backends fitted to measurements alone: how well they predict, and what is refused."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from measured_tables import engine, hidden, published, write_lines, write_table

from spikemeter import LatencyPredictor, cli, fit_timing, predict_latency, score_timing
from spikemeter.calibration import residual, timing_fit, timing_report
from spikemeter.calibration.measurements import read_measurements
from spikemeter.calibration.search import _distinct_shares, _without_idle_choices
from spikemeter.calibration.timing_problem import Candidate, Problem
from spikemeter.config import load_config, measured_config
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.predictor.backend import read_backend
from spikemeter.predictor.machine import BUCKETS
from spikemeter.predictor.structure import Structure, structure_terms
from spikemeter.predictor.timing import timing_model

LOIHI = Path(__file__).parent / "data" / "loihi"
ROWS = 50


@pytest.fixture(scope="module")
def engine_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("engine") / "table.csv", engine, ROWS, 0, unit="us")


@pytest.fixture(scope="module")
def engine_backend(engine_table: Path) -> Path:
    fit_timing(engine_table, engine_table.parent / "backend")
    return engine_table.parent / "backend"


@pytest.mark.parametrize(
    ("machine", "visible", "aim"),
    [
        (hidden(published, 1), False, 0.05),
        (hidden(engine, 0), False, 0.05),
        (partial(engine, pipelined=True), True, 0.05),
    ],
    ids=["published with hidden cores and width", "hidden cores and width", "pipelined"],
)
def test_unknown_machines_are_learned_from_fifty_rows(tmp_path, machine, visible, aim):
    table = write_table(tmp_path / "table.csv", machine, ROWS, 0, visible=visible)
    others = write_table(tmp_path / "others.csv", machine, 60, 1, visible=visible, whole=True)
    report = fit_timing(table, tmp_path / "backend")
    scores = score_timing(others, tmp_path / "backend")
    assert scores["rows"] == 60
    assert scores["mape"] <= aim
    assert report["mape"] <= aim
    assert scores["coverage"] >= 0.8
    assert not report["residual"]["won"]


def test_our_own_engine_is_learned_from_fifty_rows(tmp_path, engine_backend):
    others = write_table(tmp_path / "others.csv", engine, 60, 1, whole=True, unit="us")
    scores = score_timing(others, engine_backend)
    assert scores["mape"] <= 0.05
    assert scores["coverage"] >= 0.8
    costs = read_backend(engine_backend).costs
    assert costs["all.accumulate"] == pytest.approx(1, rel=0.02)
    assert costs["all.fire"] == pytest.approx(1, rel=0.02)


def test_a_machine_of_many_cores_is_learned_from_its_simulator(tmp_path):
    """SANA-FE's Loihi model; its README says where the table comes from."""
    report = fit_timing(LOIHI / "measurements.csv", tmp_path / "backend")
    assert report["rows"] == ROWS
    assert not report["warnings"]
    assert report["unit"] == "us"
    assert report["mape"] <= 0.15
    assert score_timing(LOIHI / "unseen.csv", tmp_path / "backend")["mape"] <= 0.15


def test_the_published_terms_are_found(tmp_path):
    table = write_table(tmp_path / "table.csv", published, ROWS, 3)
    report = fit_timing(table, tmp_path / "backend")
    found = {term["name"]: term["cycles"] for term in report["terms"]}
    expected = {
        "conv.event": 9, "conv.idle": 10, "conv.list": 2, "conv.fire": 1, "dense.scan": 2,
        "dense.list": 2, "dense.accumulate": 1, "dense.fire": 1,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-6)
    assert report["structure"]["conv"] == "map"
    assert report["structure"]["conv_repeats"]
    assert sum(term["share"] for term in report["terms"]) == pytest.approx(1)
    others = write_table(tmp_path / "others.csv", published, 60, 1, whole=True)
    assert score_timing(others, tmp_path / "backend")["mape"] <= 1e-6


@pytest.fixture
def problem(tmp_path, small) -> Problem:
    return timing_fit._problem(read_measurements(table_of(tmp_path, small)))[0]


def candidate(problem: Problem, structure: Structure, **costs: float) -> Candidate:
    """What pays for some parts alone."""
    terms = structure_terms(structure)
    paid = np.array([costs.get(term.part, 0.0) for term in terms])
    return Candidate(
        structure=structure, terms=terms, kept=paid > 0, costs=paid,
        errors=np.full(len(problem.rows), 0.1),
    )  # fmt: skip


def test_every_number_is_tried_that_shares_a_layer_another_way():
    amounts = np.array([7.0, 12.0, 60.0])
    shares: dict[tuple[float, ...], int] = {}
    for number in range(1, 61):
        shares.setdefault(tuple(np.ceil(amounts / number)), number)
    assert _distinct_shares(amounts) == list(shares.values())


def test_errors_are_of_fits_that_had_not_seen_the_row_at_all(problem, monkeypatch):
    seen = []
    fit = residual.Fit(
        found=candidate(problem, Structure(), fire=1.0), booster=None, residual={"won": False}
    )
    monkeypatch.setattr(timing_fit, "fit_rows", lambda part: seen.append(part.rows) or fit)
    timing_fit.unseen_errors(problem)
    left_out = [np.setdiff1d(problem.rows, rows) for rows in seen]
    assert len(seen) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate(left_out)), problem.rows)


def test_rows_of_one_network_stay_together_whatever_its_hardware(tmp_path, small):
    for number, row in enumerate(small):
        row |= {"hw_wait": str(number)}
    again = [row | {"hw_wait": "50", "latency": row["latency"] + "1"} for row in small]
    table = read_measurements(table_of(tmp_path, [*small, *again]))
    groups, warnings = timing_fit._groups(table)
    np.testing.assert_array_equal(groups[:12], groups[12:])
    assert not warnings
    one = [small[0] | {"hw_wait": str(number // 2)} for number in range(20)]
    groups, (warning,) = timing_fit._groups(read_measurements(table_of(tmp_path, one)))
    assert len(set(groups)) == 10
    assert warning.startswith("all rows are of one network: errors are those on other hardware")
    groups, (warning,) = timing_fit._groups(read_measurements(table_of(tmp_path, [small[0]] * 10)))
    assert len(set(groups)) == 10
    assert "other spikes of the same networks" in warning


def test_a_residual_model_must_win_by_more_than_a_standard_error(problem, monkeypatch):
    found = candidate(problem, Structure(), fire=1.0)
    few = np.where(problem.rows == 0, 0.0, 0.1)  # better by 8 %, all of it in one row
    monkeypatch.setattr(residual, "find_structure", lambda problem: found)
    monkeypatch.setattr(residual, "_errors_with", lambda problem, found: few)
    assert not residual.fit_rows(problem).residual["won"]
    monkeypatch.setattr(residual, "_errors_with", lambda problem, found: np.full(12, 0.099))
    assert residual.fit_rows(problem).residual["won"]


def test_nothing_is_said_that_no_cost_shows(problem):
    structure = Structure(
        conv="step", dense="step", conv_repeats=True, fire_overlaps=True, borders=True, width=7
    )
    found = _without_idle_choices(problem, candidate(problem, structure, fire=1.0))
    assert found.structure == Structure()
    summary = timing_report._summary(found, problem)
    assert summary == ["layers run one after the other"]
    both = candidate(problem, structure, scan=1.0, receive=2.0, fire=1.0)
    assert _without_idle_choices(problem, both).structure.conv == "step"
    assert any("the longer of the two" in text for text in timing_report._summary(both, problem))


def test_a_doubtful_row_is_named_and_the_next_one_is_the_widest(tmp_path, small):
    far = json.loads(small[0]["config"])
    far["input"]["time_steps"] = 64
    config = measured_config(far, spikes="-")
    trains = [
        np.ones((64, layer.in_channels, layer.in_height, layer.in_width), dtype=bool)
        for layer in config.layers
    ]
    cycles = float(engine(config).trace([train[None] for train in trains]).cycles[0])
    np.savez(tmp_path / "far.npz", **{f"inputs_{i}": train for i, train in enumerate(trains)})
    last = {"config": json.dumps(far), "spikes": "far.npz", "latency": str(cycles)}
    small[4]["latency"] = str(1000 * float(small[4]["latency"]))
    report = fit_timing(table_of(tmp_path, [*small, small[0] | last]), tmp_path / "backend")
    assert any(
        text.startswith(("row 5 lies", "rows ")) and " 5" in text and "3 times off" in text
        for text in report["warnings"]
    )
    assert any("13 groups" in text for text in report["warnings"])
    assert report["next"]["row"] == 13
    low, high = report["next"]["interval_cycles"]
    half_widths = []
    backend = read_backend(tmp_path / "backend")
    for group in backend.residuals.group:
        alone = timing_report._without(backend, backend.residuals.group == group)
        half_widths.append(alone.half_width(0.9)[0])
    assert np.log(high / low) >= 2 * max(half_widths)


def test_a_bad_test_table_is_refused_before_anything_is_written(tmp_path, small):
    table = table_of(tmp_path, small)
    small[3]["latency"] = "-1"
    pd.DataFrame(small).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match="row 4, latency: must be positive"):
        fit_timing(table, tmp_path / "backend", test=tmp_path / "bad.csv")
    pd.DataFrame([small[0] | {"hw_x": "1"}]).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match=r"row 1, config: hardware\.knobs\.x: unknown"):
        fit_timing(table, tmp_path / "backend", test=tmp_path / "bad.csv")
    assert not (tmp_path / "backend").exists()


def knob_table(folder: Path, rows: int = 40, seed: int = 5) -> Path:
    """Measure with a knob that counts cores, and one that slows the memory down."""
    rng = np.random.default_rng(0)
    table = write_table(folder / "plain.csv", engine, rows, seed)
    found = read_measurements(table)
    lines = []
    with table.open(encoding="utf-8") as file:
        for row, config, known in zip(
            csv.DictReader(file), found.configs, found.spikes, strict=True
        ):
            cores, wait = int(rng.integers(1, 9)), float(rng.choice([1.0, 2.0, 4.0]))
            content = json.loads(row["config"])
            content["hardware"]["neural_cores"] = [cores] * len(config.layers)
            machine = engine(measured_config(content, spikes="-"))
            timing = machine.statistics(known.counts, known.taps)
            cycles = timing.cycles[0] + wait * timing.buckets["accumulate"].sum()
            del content["hardware"]
            line = [json.dumps(content), row["spikes"], repr(float(cycles)), "cycles"]
            lines.append([*line, str(cores), str(wait)])
    return write_lines(folder / "knobs.csv", lines, ["hw_cores", "hw_wait"])


def test_knobs_count_cores_and_scale_costs(tmp_path, knob_backend):
    assert score_timing(knob_table(tmp_path, seed=6), knob_backend)["mape"] <= 0.05
    report = read_backend(knob_backend).report
    assert report["structure"]["cores"] == "cores"
    roles = [(role["knob"], role["group"]) for role in report["structure"]["roles"]]
    assert ("wait", "accumulate") in roles
    content = {
        "network": "8C3-10",
        "input": {"time_steps": 2, "statistics": [[5, 5]] * 2},
        "hardware": {"backend": str(knob_backend), "knobs": {"cores": 4, "wait": 2}},
    }
    slow = {"hardware": content["hardware"] | {"knobs": {"cores": 2, "wait": 4}}}
    assert predict_latency(content | slow).cycles > 1.5 * predict_latency(content).cycles


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"cores": 4}, "hardware.knobs.wait: required, the backend was fitted with the knobs"),
        ({"cores": 4, "wait": 2, "x": 1}, "hardware.knobs.x: unknown, the backend was fitted"),
        ({"cores": 0, "wait": 2}, "hardware.knobs.cores: must be at least 1"),
        ({"cores": 4, "wait": -2}, "hardware.knobs.wait: must be positive"),
    ],
)
def test_knobs_that_do_not_fit_are_refused(knob_backend, knobs, sentence):
    content = {
        "network": "8C3-10",
        "input": {"time_steps": 2, "statistics": [[5, 5]] * 2},
        "hardware": {"backend": str(knob_backend), "knobs": knobs},
    }
    with pytest.raises(ConfigError, match=sentence):
        timing_model(load_config(content))


def test_many_predictions_take_knobs_as_columns(knob_backend):
    frame = pd.DataFrame(
        {
            "dataset": "nmnist-saccade", "network": "8C3-10", "training.epochs": 4,
            "hardware.backend": str(knob_backend),
            "hardware.knobs.cores": [8, 2], "hardware.knobs.wait": [1.0, 4.0],
        }
    )  # fmt: skip
    fast, slow = LatencyPredictor.default().predict(frame)["cycles"]
    assert slow > 1.5 * fast


@pytest.fixture(scope="module")
def knob_backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("knobs")
    fit_timing(knob_table(folder), folder / "backend")
    return folder / "backend"


def run_content(backend: Path | str) -> dict:
    return {
        "dataset": "nmnist-saccade",
        "network": "6C3-MP2-10",
        "input": {"height": 10, "width": 10, "time_steps": 4},
        "hardware": {"backend": str(backend), "neural_cores": [3, 5]},
    }


def test_every_fidelity_predicts_with_a_fitted_backend(tmp_path, engine_backend):
    rng = np.random.default_rng(2)
    config = load_config(run_content(engine_backend))
    shapes = [(4, layer.in_channels, layer.in_height, layer.in_width) for layer in config.layers]
    trains = {f"inputs_{i}": rng.random((3, *shape)) < 0.1 for i, shape in enumerate(shapes)}
    np.savez(tmp_path / "spikes.npz", **trains)
    content = run_content(engine_backend) | {"spikes": str(tmp_path / "spikes.npz")}
    exact = predict_latency(run_content("engine") | {"spikes": content["spikes"]})
    for fidelity in ("trace", "statistics", "hyperparameters"):
        estimate = predict_latency(content, fidelity=fidelity)
        assert estimate.fidelity == fidelity
        low, high = estimate.interval_cycles
        assert low < estimate.cycles < high
        assert estimate.initiation_interval_cycles == pytest.approx(estimate.cycles)
        for layer in estimate.layers:
            assert sum(layer.buckets.values()) == pytest.approx(layer.cycles)
        if fidelity != "hyperparameters":
            assert estimate.in_domain
            assert estimate.cycles == pytest.approx(exact.cycles, rel=0.05)
    rows = pd.DataFrame({"dataset": ["nmnist-saccade"], "network": ["6C3-MP2-10"]}).assign(
        **{"input.height": 10, "input.width": 10, "input.time_steps": 4},
        **{"hardware.backend": str(engine_backend), "hardware.neural_cores": [[3, 5]]},
    )
    (many,) = LatencyPredictor.default().predict(rows).to_dict("records")
    assert many["cycles"] == pytest.approx(estimate.cycles, rel=1e-5)
    assert many["interval_cycles.high"] == pytest.approx(estimate.interval_cycles[1], rel=1e-5)
    assert many["in_domain"] == estimate.in_domain


def test_the_contract_of_every_machine_holds(engine_backend):
    config = load_config(run_content(engine_backend))
    rng = np.random.default_rng(0)
    shapes = [(4, layer.in_channels, layer.in_height, layer.in_width) for layer in config.layers]
    trains = [rng.random((2, *shape)) < 0.2 for shape in shapes]
    timing = timing_model(config).trace(trains)
    assert set(timing.buckets) == set(BUCKETS)
    np.testing.assert_allclose(sum(timing.buckets.values()), timing.layer_cycles)
    np.testing.assert_allclose(timing.layer_cycles.sum(axis=1), timing.cycles)
    flat = [train.reshape(2, 4, -1) for train in trains]
    np.testing.assert_array_equal(timing_model(config).trace(flat).cycles, timing.cycles)
    silent = timing_model(config).trace([np.zeros_like(train) for train in trains])
    assert (silent.buckets["accumulate"] == 0).all()
    assert (silent.layer_cycles <= timing.layer_cycles).all()
    by_layer = [train.sum(axis=(2, 3, 4), dtype=float)[..., None] for train in trains]
    assert timing_model(config).statistics(by_layer).cycles == pytest.approx(timing.cycles, rel=0.1)
    with pytest.raises(ValueError, match=r"counts_0 must have shape"):
        timing_model(config).statistics([np.zeros((1, 3, 2)), np.zeros((1, 4, 6))])


def test_outside_of_the_measurements_the_interval_is_wider_and_says_why(engine_backend):
    content = run_content(engine_backend)
    counts = {"counts_0": np.full((4, 2), 10.0), "counts_1": np.full((4, 6), 5.0)}
    inside = predict_latency(content, spikes=counts)
    assert inside.in_domain
    assert not any("measured" in text for text in inside.warnings)
    few = content | {"network": "6C3", "dataset": None, "spikes": "-"}
    few["hardware"] = few["hardware"] | {"neural_cores": [1]}
    few["input"] = few["input"] | {"time_steps": 50}
    many = predict_latency(few, spikes={"counts_0": np.full((50, 2), 100.0)})
    assert not many.in_domain
    assert any("events of convolutions: 1e+04 is outside the" in text for text in many.warnings)
    widths = [np.log(each.interval_cycles[1] / each.cycles) for each in (inside, many)]
    assert widths[1] > widths[0]


def test_the_limits_of_our_engine_are_not_those_of_others(engine_backend):
    odd = {
        "network": "6C7-MP3-8C2v-10",
        "input": {"height": 10, "width": 160, "time_steps": 4, "statistics": [[5, 5]] * 4},
        "hardware": {
            "backend": str(engine_backend), "neural_cores": [2000, 16, 1], "encoder_width": 4,
            "taps_per_cycle": 9,
        },
    }  # fmt: skip
    assert predict_latency(odd).cycles > 0
    with pytest.raises(ConfigError, match=r"input\.width: must be at most 128"):
        load_config(odd | {"network": "10", "hardware": {}})


def damaged(backend: Path, change) -> Path:
    manifest = json.loads((backend / "manifest.json").read_text())
    change(manifest)
    (backend / "manifest.json").write_text(json.dumps(manifest))
    return backend


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda manifest: manifest.update(schema_version=99), "schema version must be 1, got 99"),
        (lambda manifest: manifest["content"]["costs"].update({"all.fire": 9.0}), "checksum"),
        (lambda manifest: manifest["content"]["costs"].update({"all.fire": -1.0}), "all.fire"),
        (lambda manifest: manifest.pop("content"), "content"),
    ],
)
def test_a_damaged_backend_is_refused(tmp_path, engine_backend, change, part):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "manifest.json").write_bytes((engine_backend / "manifest.json").read_bytes())
    predict_latency(run_content(copy))
    with pytest.raises(PredictorError, match=part):
        predict_latency(run_content(damaged(copy, change)))


def test_a_folder_without_a_backend_is_refused(tmp_path):
    with pytest.raises(PredictorError, match="it holds no plain file"):
        predict_latency(run_content(tmp_path))
    with pytest.raises(ConfigError, match=r"or the folder of a fitted backend, got '.*none'"):
        predict_latency(run_content(tmp_path / "none"))


def test_a_backend_beside_the_configuration_is_found(tmp_path, engine_backend):
    (tmp_path / "board").symlink_to(engine_backend)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(run_content("board")), encoding="utf-8")
    assert predict_latency(path).cycles == predict_latency(run_content(engine_backend)).cycles


def test_a_backend_that_cannot_be_written_leaves_nothing(tmp_path, small):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        fit_timing(table_of(tmp_path, small), tmp_path / "taken")
    left = [path.name for path in tmp_path.rglob("*") if path.suffix not in (".npz", ".csv")]
    assert left == ["taken", "notes.txt"]


@pytest.fixture
def small(tmp_path) -> list[dict[str, str]]:
    """Twelve sound rows beside their spikes; a test breaks one of them."""
    table = write_table(tmp_path / "table.csv", engine, 12, 7)
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_of(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("latency", "nan", "row 3, latency: must be a finite number, got 'nan'"),
        ("latency", "-5", "row 3, latency: must be positive and below 1e+15, got -5"),
        ("latency", "0", "row 3, latency: must be positive"),
        ("latency", "fast", "row 3, latency: must be a finite number, got 'fast'"),
        ("latency", "", "row 3, latency: must be a finite number, got nothing"),
        ("unit", "us", "row 3, unit: must be 'cycles' as in row 1, units are not mixed; got 'us'"),
        ("unit", "s", "row 3, unit: must be cycles, us or ms; got 's'"),
        ("config", "none.yaml", "row 3, config: cannot read the configuration"),
        ("config", "{", "row 3, config: it is not valid JSON"),
        ("config", '{"network": "8D3"}', "row 3, config: network: tokens are"),
        ("config", "", "row 3, config: must be text, got nothing"),
        ("spikes", "none.npz", "row 3, spikes: cannot read the spikes"),
        ("hw_x", "", "row 3, hw_x: must be a finite number, got nothing"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, small, column, value, sentence):
    rows = [row | ({"hw_x": "1"} if column == "hw_x" else {}) for row in small]
    rows[2][column] = value
    with pytest.raises(InputError) as caught:
        fit_timing(table_of(tmp_path, rows), tmp_path / "backend")
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "backend").exists()


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (-1.0, "counts_0: must not be negative, got -1"),
        (17.0, "counts_0: must be at most the 16 neurons of a channel, got 17"),
        (np.nan, "counts_0: must be finite, got nan"),
        (None, "counts_0: needs a sample, got 0"),
    ],
)
def test_bad_counts_are_named(tmp_path, small, count, sentence):
    content = {"network": "5", "input": {"height": 4, "width": 4, "channels": 2, "time_steps": 3}}
    counts = np.zeros((0, 3, 2)) if count is None else np.full((3, 2), 1.0)
    if count is not None:
        counts[1, 1] = count
    np.savez(tmp_path / "bad.npz", counts_0=counts)
    small[4] |= {"config": json.dumps(content), "spikes": "bad.npz"}
    with pytest.raises(InputError, match=f"row 5, spikes: {sentence}"):
        read_measurements(table_of(tmp_path, small))
    config = content | {"spikes": str(tmp_path / "bad.npz")}
    with pytest.raises(ConfigError, match=sentence):
        predict_latency(config)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"x": "zz"}, "row 3, config: hardware.knobs.x: "),
        ({"x": True}, "row 3, config: hardware.knobs: should not be true or false"),
        (None, "row 3, config: hardware.knobs: "),
        ({"x": 2}, "row 3, hw_x: must be the 2 of its configuration's hardware.knobs.x, got 1"),
    ],
)
def test_knobs_beside_a_column_must_be_numbers_and_the_same(tmp_path, small, knobs, sentence):
    rows = [row | {"hw_x": "1"} for row in small]
    content = json.loads(rows[2]["config"])
    rows[2]["config"] = json.dumps(content | {"hardware": content["hardware"] | {"knobs": knobs}})
    with pytest.raises(InputError) as caught:
        read_measurements(table_of(tmp_path, rows))
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_ragged_array_is_named(tmp_path, small):
    ragged = np.empty(3, dtype=object)
    ragged[:] = [[1.0], [1.0, 2.0], []]
    np.savez(tmp_path / "bad.npz", counts_0=ragged)
    small[4] |= {"spikes": "bad.npz"}
    with pytest.raises(InputError, match="row 5, spikes: counts_0: must be an array of numbers"):
        read_measurements(table_of(tmp_path, small))


def test_rows_contradict_each_other_however_they_are_written(tmp_path, small):
    config = json.loads(small[1]["config"])
    resolved = config | {"hardware": {**config["hardware"], "clock_mhz": 50, "membrane_bits": 20}}
    with np.load(tmp_path / small[1]["spikes"]) as file:
        np.savez(tmp_path / "copy.npz", **{name: file[name].astype(np.uint8) for name in file})
    latency = float(small[1]["latency"])
    again = small[1] | {"config": json.dumps(resolved), "spikes": "copy.npz"}
    rows = [*small, again | {"latency": str(latency * 1.09)}]
    assert len(read_measurements(table_of(tmp_path, rows)).cycles) == 13
    # Each is within 10 % of row 2, but not of one another
    rows.append(again | {"latency": str(latency * 0.95)})
    with pytest.raises(InputError, match="row 14, latency: must be within 10 % of row 13, which"):
        read_measurements(table_of(tmp_path, rows))


def test_rows_that_contradict_each_other_are_named(tmp_path, small):
    again = small[1] | {"latency": str(1.09 * float(small[1]["latency"]))}
    assert len(read_measurements(table_of(tmp_path, [*small, again])).cycles) == 13
    again["latency"] = str(1.5 * float(small[1]["latency"]))
    with pytest.raises(InputError, match="row 13, latency: must be within 10 % of row 2"):
        read_measurements(table_of(tmp_path, [*small, again]))


def test_too_few_rows_and_missing_columns_are_refused(tmp_path, small):
    with pytest.raises(InputError, match="must hold at least 10 rows, got 9"):
        fit_timing(table_of(tmp_path, small[:9]), tmp_path / "backend")
    rows = [{key: value for key, value in row.items() if key != "unit"} for row in small]
    with pytest.raises(InputError, match="must have a column 'unit'; got config, spikes, latency"):
        fit_timing(table_of(tmp_path, rows), tmp_path / "backend")
    (tmp_path / "table.csv").write_bytes(b"PAR1 but no table")
    with pytest.raises(InputError, match=r"cannot read the measurements '.*table\.csv'"):
        fit_timing(tmp_path / "table.csv", tmp_path / "backend")


def test_tables_of_any_kind_mean_the_same(tmp_path, small):
    expected = read_measurements(table_of(tmp_path, small))
    frame = pd.DataFrame(small).assign(latency=[float(row["latency"]) for row in small])
    frame.to_parquet(tmp_path / "table.parquet")
    found = read_measurements(tmp_path / "table.parquet")
    np.testing.assert_array_equal(found.cycles, expected.cycles)
    for number, row in enumerate(small):
        (tmp_path / f"{number}.yaml").write_text(row["config"], encoding="utf-8")
        row |= {"config": f"{number}.yaml", "unit": "ms", "latency": str(expected.cycles[number])}
    scaled = read_measurements(table_of(tmp_path, small))
    np.testing.assert_allclose(scaled.cycles, 100_000 * expected.cycles)
    assert [config.network for config in scaled.configs] == [c.network for c in expected.configs]


def test_samples_of_one_configuration_stay_together(tmp_path, small):
    table = read_measurements(table_of(tmp_path, [*small, small[0]]))
    assert table.networks[12] == table.networks[0]
    assert len(set(table.networks)) == 12


@pytest.fixture
def spikemeter(capsys):
    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def test_the_command_fits_and_scores(spikemeter, tmp_path, small):
    table = table_of(tmp_path, small)
    code, out, err = spikemeter(
        "fit-timing", table, "--out", tmp_path / "b", "--test", table, "--json"
    )
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["rows"] == 12
    assert {"mape", "p99", "coverage"} <= set(report)
    assert report["fit"]["next"]["why"]
    assert {"name", "unit", "cycles", "share"} == set(report["fit"]["terms"][0])
    code, out, _ = spikemeter("fit-timing", "--test", table, "--backend", tmp_path / "b", "--json")
    assert code == 0
    scores = json.loads(out)
    assert "fit" not in scores
    assert scores["mape"] == report["mape"]
    small[2]["latency"] = "0"
    pd.DataFrame(small).to_csv(tmp_path / "bad.csv", index=False)
    code, _, _ = spikemeter(
        "fit-timing", table, "--out", tmp_path / "c", "--test", tmp_path / "bad.csv"
    )
    assert code == 2
    assert not (tmp_path / "c").exists()
    code, out, _ = spikemeter("fit-timing", table, "--out", tmp_path / "b", "--test", table)
    assert code == 0
    for part in ("accumulate", "event x tap x phase", "Worth measuring next", "unseen", "inside"):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["table.csv"], "MEASUREMENTS need --out"),
        ([], "give MEASUREMENTS and --out"),
        (["--test", "table.csv"], "give MEASUREMENTS and --out"),
        (["none.csv", "--out", "b"], "there is no such file"),
        (["--test", "none.csv", "--backend", "b"], "there is no backend folder 'b'"),
    ],
)
def test_a_wrong_call_is_one_sentence(spikemeter, arguments, part):
    code, out, err = spikemeter("fit-timing", *arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert err.count("\n") == 1


def test_a_fitted_backend_is_not_simulated(spikemeter, tmp_path, engine_backend):
    (tmp_path / "plan.yaml").write_text(
        json.dumps({"base": run_content(engine_backend), "runs": 1}), encoding="utf-8"
    )
    code, _, err = spikemeter("calibrate", tmp_path / "plan.yaml", "--out", tmp_path / "c")
    assert code == 2
    assert "hardware.backend: must be engine to simulate" in err
