"""Many predictions at once, held against one at a time."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import annotated_types
import numpy as np
import pandas as pd
import pytest

from spikemeter.config import Config, HardwareConfig, load_config
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.predictor import LatencyPredictor, many
from spikemeter.predictor.backend import write_backend
from spikemeter.predictor.columns import NUMBERS
from spikemeter.predictor.ensemble import Ensemble, TreeSettings, fit_head
from spikemeter.predictor.events import InputStatistics
from spikemeter.predictor.features import config_from_row
from spikemeter.predictor.fitted import Backend, amount_names
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.structure import Structure

BASE = {"dataset": "nmnist-saccade", "network": "8C3-MP2-12C3-MP2-10", "training.epochs": 4}
SURROGATES = (
    "fast_sigmoid", "atan", "spike_rate_escape", "sso", "sigmoid", "triangular",
    "straight_through",
)  # fmt: skip
NETWORKS = (
    "8C3-MP2-10", "8C3-MP2-12C3-MP2-10", "6C5-MP2-24-10", "12C3v-8C3-MP4-10", "64-32-10", "10",
    "8C1-16C3-MP2-16C3-10",
)  # fmt: skip


@pytest.fixture(scope="module")
def knowing(predictor: LatencyPredictor) -> LatencyPredictor:
    """A predictor that also knows digits as rates, and a second data set."""
    rng = np.random.default_rng(0)
    rates = InputStatistics(
        height=14, width=14, time_steps=6, events=rng.uniform(5, 60, (6, 1)),
        coding={"encoding": "rate"}, tap_ratio=1.1,
    )  # fmt: skip
    events = InputStatistics(
        height=14, width=14, time_steps=8, events=rng.uniform(5, 60, (8, 2)), tap_ratio=0.9
    )
    known = {**predictor.parts.statistics, "digits-saccade": (rates, events)}
    return LatencyPredictor(parts=dataclasses.replace(predictor.parts, statistics=known))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted backend with one knob, whose measurements were of small networks."""
    amounts = len(amount_names(["cores"]))
    path = tmp_path_factory.mktemp("fitted") / "backend"
    machine = Backend(
        structure=Structure(cores="cores", order="schedule"),
        costs={"all.step": 5.0, "all.accumulate": 1.0, "all.fire": 1.0, "inference": 40.0},
        knobs={"cores": 4.0},
        low=np.zeros(amounts),
        high=np.full(amounts, 5e3),
        residuals=Residuals(error=np.linspace(-0.1, 0.1, 40), group=np.arange(40)),
        booster=None,
        report={},
    )
    write_backend(machine, path)
    return path


def random_row(rng: np.random.Generator, backend: Path) -> dict[str, Any]:
    """Draw a configuration of any kind that is allowed."""
    row: dict[str, Any] = random_input(rng) | random_neuron(rng) | random_surrogate(rng)
    if rng.random() < 0.7:
        row["neuron.threshold"] = rng.uniform(0.3, 3)
    choices = {
        "training.epochs": int(rng.integers(1, 20)),
        "training.lr": float(10 ** rng.uniform(-4, -1)),
        "training.batch_size": int(rng.choice([32, 64])),
        "training.weight_bits": int(rng.integers(2, 9)),
        "training.batch_norm": bool(rng.integers(2)),
        "training.dropout": float(rng.choice([0, 0.2])),
        "training.loss": str(rng.choice(["mse_count", "ce_count"])),
        "training.seed": int(rng.integers(9)),
        "training.patience": 3,
        "training.precision": "mixed",
        "hardware.clock_mhz": float(rng.uniform(10, 300)),
        "hardware.encoder_width": int(rng.choice([8, 32, 100])),
        "hardware.schedule": str(rng.choice(["layer_serial", "step_pipelined"])),
    }
    row |= {key: value for key, value in choices.items() if rng.random() < 0.5}
    machine = rng.random()
    if machine >= 0.3:
        row["hardware.taps_per_cycle"] = int(rng.choice([1, 9]))
    if machine < 0.15:
        outputs = row["network"].rpartition("-")[2]
        row |= {"network": f"8C3-MP2-{outputs}", "hardware.backend": "published"}
        row.pop("hardware.schedule", None)
    elif machine < 0.3:
        row |= {"hardware.backend": str(backend), "hardware.knobs.cores": float(rng.choice([2, 8]))}
    if rng.random() < 0.5:
        layers = config_from_row(row).layers
        row["hardware.neural_cores"] = [int(rng.integers(1, x.out_channels + 1)) for x in layers]
    return row


def random_input(rng: np.random.Generator) -> dict[str, Any]:
    row: dict[str, Any] = {"network": str(rng.choice(NETWORKS))}
    kind = rng.random()
    if kind < 0.2:  # a private data set
        steps, channels = int(rng.choice([2, 8])), int(rng.choice([1, 2]))
        events = rng.uniform(0, 20, (steps, channels)).round(3)
        return row | {
            "input.time_steps": steps, "input.channels": channels, "input.events": events.ravel()
        }  # fmt: skip
    if kind < 0.4:
        size = {"input.height": 14, "input.width": 14, "input.time_steps": int(rng.choice([6, 9]))}
        coding = {"input.encoding": "rate", "input.channels": 1}
        return row | size | coding | {"dataset": "digits-saccade"}
    if kind < 0.6:
        population = {"network": "8C3-MP2-20", "training.population": 2}
        return row | population | {"dataset": "digits-saccade"}
    return row | {"dataset": "nmnist-saccade", "input.time_steps": int(rng.choice([6, 8]))}


def random_neuron(rng: np.random.Generator) -> dict[str, Any]:
    kind = rng.integers(4)
    if kind == 0:
        return {"neuron.beta": rng.uniform(0.3, 1)}
    if kind == 1:
        return {"neuron.reset": "zero"}
    if kind == 2:
        circuit = {"neuron.R": rng.uniform(1, 5), "neuron.C": rng.uniform(1, 5)}
        return {"neuron.model": "lapicque"} | circuit
    match = str(rng.choice(["none", "decay", "gain", "both"]))
    return {
        "neuron.model": "lapicque", "neuron.beta": rng.uniform(0.3, 0.99), "neuron.match": match
    }  # fmt: skip


def random_surrogate(rng: np.random.Generator) -> dict[str, Any]:
    name = str(rng.choice(SURROGATES))
    row: dict[str, Any] = {"surrogate.name": name}
    kind = rng.random()
    if name == "straight_through" or kind < 0.2:
        return row
    if kind < 0.6 or name == "sso":
        return row | {"surrogate.slope": rng.uniform(0.5, 30)}
    return row | {"surrogate.width": rng.uniform(0.1, 2)}


def assert_as_one_by_one(
    predictor: LatencyPredictor, rows: pd.DataFrame, confidence: float = 0.9
) -> pd.DataFrame:
    found = predictor.predict(rows, confidence=confidence)
    assert found.index.equals(rows.index)
    for row, got in zip(rows.to_dict("records"), found.to_dict("records"), strict=True):
        assert_like(got, predictor.estimate(config_from_row(row), confidence=confidence))
    return found


def assert_like(got: dict[str, Any], one: Any) -> None:
    expected = {
        "cycles": one.cycles,
        "microseconds": one.microseconds,
        "interval_cycles.low": one.interval_cycles[0],
        "interval_cycles.high": one.interval_cycles[1],
        "initiation_interval_cycles": one.initiation_interval_cycles,
        "accuracy": one.accuracy,
        "interval_accuracy.low": one.interval_accuracy[0],
        "interval_accuracy.high": one.interval_accuracy[1],
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert got["in_domain"] == one.in_domain
    assert got["warnings"] == "; ".join(one.warnings)


@pytest.mark.parametrize("frames", [0, 5, 20])
def test_estimated_inputs_are_doubted_as_one_by_one(predictor, frames):
    errors = Residuals(error=np.full(frames, 0.3), group=np.arange(frames)) if frames else None
    doubting = LatencyPredictor(parts=dataclasses.replace(predictor.parts, estimated=errors))
    rows = pd.DataFrame(
        [
            {"dataset": "nmnist-saccade", "network": "8C3-MP2-10", "training.epochs": 4,
             "input.time_steps": steps}
            for steps in (8, 7, 6)
        ]
    )  # fmt: skip
    found = assert_as_one_by_one(doubting, rows)
    assert found["in_domain"].tolist() == [True, frames > 0, True]


@pytest.mark.parametrize("seed", range(4))
def test_configurations_of_every_kind_are_predicted_as_one_by_one(knowing, backend, seed):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame([random_row(rng, backend) for _ in range(150)])
    rows.index = rng.permutation(1000)[: len(rows)]
    assert_as_one_by_one(knowing, rows, confidence=(0.9, 0.999)[seed % 2])


def test_the_calibrated_domain_is_left_and_kept_as_one_by_one(predictor, table):
    rng = np.random.default_rng(0)
    rows = table.sample(60, replace=True, random_state=0).reset_index(drop=True)
    away = {"neuron.beta": 0.3, "training.lr": 0.5, "training.epochs": 400, "neuron.threshold": 9}
    for key, value in away.items():
        rows[key] = rows[key].astype(float)
        rows.loc[rng.random(len(rows)) < 0.15, key] = value
    found = assert_as_one_by_one(predictor, rows)
    assert 0.2 < found["in_domain"].mean() < 0.9


def test_parts_that_are_predicted_side_by_side_make_no_difference(knowing, backend, monkeypatch):
    rng = np.random.default_rng(9)
    rows = pd.DataFrame([random_row(rng, backend) for _ in range(100)])
    whole = knowing.predict(rows)
    monkeypatch.setattr(many, "_AT_A_TIME", 7)
    pd.testing.assert_frame_equal(knowing.predict(rows), whole)


@pytest.mark.parametrize(
    "cells",
    [
        [0.5, 0.9, 0.7],
        [0.5, None, math.nan],
        [0.5, pd.NA, 0.7],
        ["0.5", None, 0.7],
        ["5e-1", "0.9", " 0.7 "],
        [np.float32(0.5), 1, np.float64(0.7)],
        pd.array([0.5, None, 0.7], dtype="Float64"),
        pd.array(["0.5", None, "0.7"], dtype="string"),
        pd.Categorical(["0.5", None, "0.5"]),
        pd.Categorical([0.5, None, 0.5]),
        np.array([0.5, 0.25, 0.75], dtype=np.float16),
        [1, 1, 1],
    ],
)
def test_numbers_come_in_many_forms(predictor, cells):
    rows = pd.DataFrame({"neuron.beta": cells}).assign(**BASE)
    assert_as_one_by_one(predictor, rows)


@pytest.mark.parametrize(
    "cells",
    [
        [4, 8, 4],
        [4.0, math.nan, 8.0],
        ["4", 4, 4.0],
        pd.array([4, None, 8], dtype="Int64"),
        np.array([4, 8, 8], dtype=np.uint8),
    ],
)
def test_whole_numbers_come_in_many_forms(predictor, cells):
    rows = pd.DataFrame({"training.weight_bits": cells}).assign(**BASE)
    assert_as_one_by_one(predictor, rows)


@pytest.mark.parametrize(
    "cells",
    [
        [[8, 12, 10], [1, 1, 1], [8, 6, 5]],
        [(8, 12, 10), None, "auto"],
        [np.array([8, 12, 10]), [2, 2, 2], math.nan],
        [["8", 12.0, 10], [np.int64(2), 2, 2], {4}],
        "auto",
    ],
)
def test_cores_come_in_many_forms(predictor, cells):
    rows = pd.DataFrame(index=range(3)).assign(**BASE)
    rows["hardware.neural_cores"] = cells
    if isinstance(cells[-1], set):
        rows.loc[2, "network"] = "10"
    assert_as_one_by_one(predictor, rows)


def test_columns_that_are_missing_or_empty_take_their_defaults(predictor):
    rows = pd.DataFrame({"dataset": ["nmnist-saccade"] * 2, "network": ["8C3-MP2-10"] * 2})
    expected = assert_as_one_by_one(predictor, rows)
    empty = rows.assign(**{"neuron.beta": None, "surrogate.slope": math.nan, "neuron.R": pd.NA})
    pd.testing.assert_frame_equal(predictor.predict(empty), expected)


def test_spikes_of_which_the_place_is_known_are_timed_exactly(predictor):
    """Behind a dense layer, one spike a line says which word holds which spike."""
    rows = [
        {"network": "32-24-10", "input.height": 1, "input.width": 1, "input.time_steps": 2,
         "input.events": events, "neuron.beta": beta}
        for events in ([1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.3, 0.2, 0.1, 0.5])
        for beta in (0.5, 0.9)
    ]  # fmt: skip
    assert_as_one_by_one(predictor, pd.DataFrame(rows))


def test_networks_that_spike_at_every_step_are_timed_exactly(predictor):
    full = {
        name: constant_head(ensemble, 40.0 if name in ("firing", "output") else 0.0)
        for name, ensemble in predictor.parts.model.ensembles.items()
    }
    model = dataclasses.replace(predictor.parts.model, ensembles=full)
    parts = dataclasses.replace(predictor.parts, model=model)
    rows = pd.DataFrame({"network": ["64-32-10", "8C3-MP2-10", "40-24-10"] * 4}).assign(
        **{"dataset": "nmnist-saccade", "hardware.encoder_width": [8, 32, 32, 64, 64, 100] * 2},
        **{"hardware.schedule": (["layer_serial"] * 3 + ["step_pipelined"] * 3) * 2},
        **{"neuron.model": ["lif"] * 6 + ["lapicque"] * 6},
    )
    assert_as_one_by_one(LatencyPredictor(parts=parts), rows)


def constant_head(ensemble: Ensemble, value: float) -> Ensemble:
    rows = np.zeros((4, ensemble.features), dtype=np.float32)
    return fit_head(rows, np.full(4, value), TreeSettings(rounds=1))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_trees_give_many_rows_what_they_give_few(depth):
    rng = np.random.default_rng(depth)
    rows = rng.normal(size=(700, 9)).astype(np.float32)
    settings = TreeSettings(rounds=20, max_depth=depth)
    ensemble = fit_head(rows, np.sin(3 * rows[:, 0]) + rows[:, 1], settings)
    few = np.concatenate([ensemble.values(rows[at : at + 100]) for at in range(0, 700, 100)])
    np.testing.assert_array_equal(ensemble.values_of_many(np.ascontiguousarray(rows.T)), few)
    np.testing.assert_array_equal(ensemble.values_of_many(rows.T[:, :50]), few[:50])


def test_what_differs_in_hardware_or_seed_alone_is_learned_once(predictor, monkeypatch):
    asked = []
    values = Ensemble.values_of_many

    def counted(self, columns):
        asked.append(columns.shape[1])
        return values(self, columns)

    monkeypatch.setattr(Ensemble, "values_of_many", counted)
    rows = pd.DataFrame({"training.seed": range(40)}).assign(**BASE)
    rows["hardware.clock_mhz"] = np.linspace(10, 200, 40)
    rows["hardware.encoder_width"] = np.tile([16, 32], 20)
    cycles = predictor.predict(rows)["cycles"]
    assert cycles.nunique() == 2
    assert max(asked) == 2  # hidden layers of the one point
    predictor.predict(rows.assign(**{"neuron.beta": np.linspace(0.5, 0.9, 40)}))
    assert max(asked) == 80


def test_every_row_is_predicted_on_every_hardware(predictor, backend):
    rows = pd.DataFrame(
        {"network": ["8C3-MP2-10", "16C3-MP2-10", "8C3-MP2-10"], "neuron.beta": [0.5, 0.7, 0.9]},
        index=pd.Index(["a", "b", "c"], name="run"),
    ).assign(dataset="nmnist-saccade", **{"hardware.clock_mhz": 7.0})
    hardware = [
        {},
        {"neural_cores": [8, 10], "clock_mhz": 250},
        HardwareConfig(encoder_width=64, schedule="step_pipelined"),
        {"neural_cores": "auto", "backend": "published"},
        {"backend": str(backend), "knobs": {"cores": 2}},
    ]
    found = predictor.predict(rows, hardware=hardware)
    assert found.index.names == ["run", "hardware"]
    assert len(found) == 15
    for name, row in rows.iterrows():
        for number, section in enumerate(hardware):
            content = {
                "dataset": row["dataset"], "network": row["network"],
                "neuron": {"beta": row["neuron.beta"]}, "hardware": section,
            }  # fmt: skip
            assert_like(found.loc[(name, number)].to_dict(), predictor.estimate(content))


def test_hardware_that_is_refused_is_named(predictor):
    rows = pd.DataFrame({"network": ["8C3-MP2-10", "4C3-MP2-10"]}).assign(dataset="nmnist-saccade")
    fits = {"neural_cores": [4, 10]}
    message = r"row 1, hardware 1: hardware\.neural_cores\.0: must be at most the 4 output channels"
    with pytest.raises(ConfigError, match=message):
        predictor.predict(rows, hardware=[fits, {"neural_cores": [8, 10]}, fits])
    with pytest.raises(ConfigError, match=r"row 0, hardware 1: hardware\.clock_mhz: "):
        predictor.predict(rows, hardware=[fits, {"clock_mhz": -1}])
    with pytest.raises(ConfigError, match=r"unknown key 'hardware\.cores'"):
        predictor.predict(rows, hardware=[{"cores": 3}])
    with pytest.raises(ConfigError, match=r"unknown key 'hardware\.knobs'"):
        predictor.predict(rows, hardware=[{"knobs": 3}])
    with pytest.raises(ConfigError, match="hardware: should hold keys and values, got str"):
        predictor.predict(rows, hardware=["engine"])


def test_an_index_may_name_rows_twice(predictor):
    rows = pd.DataFrame({"neuron.beta": [0.5, 0.7, 0.9]}, index=["a", "b", "a"]).assign(**BASE)
    assert_as_one_by_one(predictor, rows)
    assert len(predictor.predict(rows, hardware=[{}, {"clock_mhz": 10}]).loc["a"]) == 4


def test_nothing_asked_is_nothing_answered(predictor):
    rows = pd.DataFrame({"network": ["10"], "dataset": ["nmnist-saccade"]})
    columns = predictor.predict(rows).columns
    for found in (predictor.predict(rows[:0]), predictor.predict(rows, hardware=[])):
        assert found.empty
        assert (found.columns == columns).all()


BAD = {
    "neuron.beta": [0.0, 1.5, -1, math.inf, "much", True, "nan", [0.5], 10**400],
    "neuron.threshold": [0, 101, "1e3"],
    "neuron.R": [2.0],
    "neuron.match": ["both"],
    "neuron.model": ["izhikevich", 3],
    "surrogate.width": [0.5],
    "surrogate.name": ["straight_through", "tanh"],
    "training.epochs": [0, 3.5, "7.5", 10_001],
    "training.batch_norm": ["maybe"],
    "training.population": [3, True],
    "training.seed": [2**31, -1],
    "input.time_steps": [0, 2.5, 5000],
    "input.encoding": ["rate"],
    "network": ["8C3-MP2-11", "8C4-10", "", None],
    "dataset": ["mnist"],
    "hardware.clock_mhz": [0, 1e5, "fast"],
    "hardware.encoder_width": [7, 129, 33.5, "many"],
    "hardware.neural_cores": [[9, 1, 1], [1, 13, 1], [1, 1], [0, 1, 1], [1, True, 1], 4, "all",
                              [1.5, 1, 1], [1] * 100],
    "hardware.schedule": ["parallel"],
    "hardware.backend": ["nowhere", ""],
    "hardware.knobs.speed": [3],
    "hardware.membrane_bits": [4],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, x) for key in BAD for x in BAD[key]], ids=repr)
def test_a_bad_row_is_refused_as_by_itself_and_named(predictor, key, value):
    good = BASE | {
        "neuron.beta": 0.9, "surrogate.slope": 25.0, "hardware.encoder_width": 32,
        "hardware.neural_cores": [4, 6, 5],
    }  # fmt: skip
    records = [good | {"neuron.beta": 0.5 + 0.01 * index} for index in range(12)]
    records[7] = good | {key: value}
    rows = pd.DataFrame(records, index=range(100, 112))
    with pytest.raises(ConfigError) as alone:
        config_from_row(rows.to_dict("records")[7])
    with pytest.raises(ConfigError) as together:
        predictor.predict(rows)
    assert str(together.value) == f"row 107: {alone.value}"


def test_the_first_of_bad_rows_is_named(predictor):
    betas = np.full(500, 0.9)
    betas[[40, 300, 401]] = 1.2, 7.0, -3.0
    rows = pd.DataFrame({"neuron.beta": betas}).assign(**BASE)
    with pytest.raises(ConfigError, match=r"row 40: neuron\.beta: .* got 1\.2"):
        predictor.predict(rows)
    rows["training.epochs"] = np.arange(500) % 7 + 1.0
    rows.loc[17, "training.epochs"] = 4.5
    with pytest.raises(ConfigError, match=r"row 17: training\.epochs: "):
        predictor.predict(rows)


def test_a_circuit_is_refused_for_its_product(predictor):
    sides = np.linspace(0.2, 5, 40)
    rows = pd.DataFrame({"neuron.R": sides, "neuron.C": 1.2 / sides}).assign(
        **BASE, **{"neuron.model": "lapicque"}
    )
    assert_as_one_by_one(predictor, rows)
    rows.loc[10, "neuron.C"] = 0.4 / rows.loc[10, "neuron.R"]
    with pytest.raises(ConfigError, match=r"row 10: neuron\.R: R C must be at least 0\.5"):
        predictor.predict(rows)


def test_a_neuron_is_refused_for_what_others_may_be(predictor):
    rows = pd.DataFrame({"neuron.beta": [0.05, 0.5, 0.3, 0.95], "neuron.model": "lif"})
    rows = rows.assign(**BASE)
    assert_as_one_by_one(predictor, rows)
    rows.loc[1:2, "neuron.model"] = "lapicque"
    assert_as_one_by_one(predictor, rows)
    rows.loc[2, "neuron.beta"] = 0.1
    with pytest.raises(ConfigError, match=r"row 2: neuron\.beta: must be at least exp\(-2\)"):
        predictor.predict(rows)


@pytest.mark.parametrize("value", [4.5, True, "5.5", [5]])
def test_a_number_between_good_ones_may_be_bad(predictor, value):
    rows = pd.DataFrame({"training.epochs": [1, 3, 9, 5, 1, 7, 5]}, dtype=object).assign(
        dataset="nmnist-saccade", network="10"
    )
    assert_as_one_by_one(predictor, rows)
    cells = rows["training.epochs"].tolist()
    for place in (3, 6):
        cells[place] = value
    with pytest.raises(ConfigError, match=r"row 3: training\.epochs: "):
        predictor.predict(rows.assign(**{"training.epochs": cells}))


def test_cores_are_held_against_their_own_network(predictor):
    """More cores than another network has channels are no reason to refuse a row."""
    networks = ["8C3-MP2-12C3-MP2-10", "16C3-MP2-4C3-MP2-10"] * 10
    cores = [[8, 12, 10], [16, 4, 10]] * 10
    rows = pd.DataFrame({"network": networks}).assign(dataset="nmnist-saccade")
    rows["hardware.neural_cores"] = cores
    assert_as_one_by_one(predictor, rows)
    cores[13] = [8, 12, 10]
    rows["hardware.neural_cores"] = cores
    with pytest.raises(ConfigError, match=r"row 13: hardware\.neural_cores\.1: .* 4 output"):
        predictor.predict(rows)


def test_no_cores_at_all_are_refused_beside_automatic_ones(predictor):
    row = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10"}
    rows = pd.DataFrame([{**row, "hardware.neural_cores": cores} for cores in ("auto", [])])
    with pytest.raises(ConfigError, match=r"row 1: hardware\.neural_cores"):
        predictor.predict(rows)


def test_a_data_set_that_nobody_knows_is_refused_by_row(predictor):
    rows = pd.DataFrame({"dataset": ["nmnist-saccade", "cifar10-dvs"], "network": ["10", "10"]})
    with pytest.raises(PredictorError, match=r"row 1: dataset: this predictor knows"):
        predictor.predict(rows)


def test_knobs_that_do_not_fit_are_refused_by_row(predictor, backend):
    rows = pd.DataFrame({"hardware.backend": ["engine", str(backend)]}).assign(**BASE)
    with pytest.raises(ConfigError, match=r"row 1: hardware\.knobs\.cores: required"):
        predictor.predict(rows)


def test_a_column_stands_once(predictor):
    rows = pd.DataFrame([["nmnist-saccade", "10", "20"]], columns=["dataset", "network", "network"])
    with pytest.raises(InputError, match="network: must be one column, got two"):
        predictor.predict(rows)


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_limited_by_an_interval_alone(key):
    section, _, name = key.partition(".")
    field = Config.model_fields[section].annotation.model_fields[name]
    optional = type(None) in getattr(field.annotation, "__args__", ())
    inner = next(x for x in field.annotation.__args__ if x is not type(None)) if optional else field
    limits = getattr(inner, "__metadata__", None) or inner.metadata
    limits = getattr(limits[0], "metadata", limits)
    kinds = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)
    assert limits
    assert all(isinstance(limit, kinds) for limit in limits)
    kind = getattr(inner, "__origin__", None) or inner.annotation
    assert kind in (int, float)


def test_one_estimate_and_a_table_load_from_the_same_configuration(predictor):
    config = load_config({"dataset": "nmnist-saccade", "network": "8C3-MP2-10"})
    rows = pd.DataFrame({"dataset": ["nmnist-saccade"], "network": ["8C3-MP2-10"]})
    assert_like(predictor.predict(rows).loc[0].to_dict(), predictor.estimate(config))
