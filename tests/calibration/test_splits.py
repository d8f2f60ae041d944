import json
import threading

import pytest

from spikemeter.calibration.plan import Plan
from spikemeter.calibration.splits import (
    SPLITS,
    choose_splits,
    freeze_splits,
    is_held_out,
    read_splits,
    split_columns,
)
from spikemeter.calibration.store import append_rows
from spikemeter.config import load_config
from spikemeter.errors import ConfigError, InputError

NETWORKS = ["4C3-MP4-10", "8C3-MP4-10", "16C3-MP4-10", "32C3-MP4-10"]
CONTENT = {
    "base": {"dataset": "nmnist-saccade", "network": NETWORKS[0]},
    "vary": {
        "network": NETWORKS,
        "surrogate.name": ["fast_sigmoid", "atan"],
        "input.time_steps": [4, 8],
        "hardware.encoder_width": [16, 32],
        "neuron.beta": {"low": 0.3, "high": 0.99},
    },
    "runs": 200,
    "repeats": {"points": 20, "seeds": [1, 2]},
}


def plan(**changes):
    return Plan.model_validate(CONTENT | changes)


def configs_of(plan):
    return [plan.config(number) for number in range(plan.size)]


def test_splits_are_chosen_once_and_kept(tmp_path):
    chosen = freeze_splits(plan(), tmp_path)
    assert set(chosen.held_out) == set(SPLITS) - {"random"}
    assert len(chosen.held_out["unseen_topology"]) == 1
    assert len(chosen.held_out["unseen_surrogate"]) == 1
    assert chosen.held_out["unseen_dataset"] == []  # there is one alone
    assert 1 <= len(chosen.held_out["unseen_hardware"]) <= 3
    other = plan(vary={"network": ["10", "20-10"]}, runs=2)
    assert freeze_splits(other, tmp_path) == chosen == read_splits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["splits.json"]


def test_the_first_of_two_at_once_holds(tmp_path):
    plans = [plan(vary={"network": NETWORKS[number:]}) for number in range(3)]
    alone = [choose_splits(each, tmp_path) for each in plans]
    chosen = []
    threads = [
        threading.Thread(target=lambda each=each: chosen.append(freeze_splits(each, tmp_path)))
        for each in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chosen == [read_splits(tmp_path)] * 3
    assert chosen[0] in alone


def test_what_another_has_chosen_meanwhile_holds(tmp_path, monkeypatch):
    plans = [plan(vary={"network": NETWORKS[number:]}) for number in range(2)]

    def choose_slowly(chosen, folder):
        found = choose_splits(chosen, folder)
        if chosen is plans[0]:
            freeze_splits(plans[1], folder)
        return found

    monkeypatch.setattr("spikemeter.calibration.splits.choose_splits", choose_slowly)
    assert freeze_splits(plans[0], tmp_path) == read_splits(tmp_path)


def test_a_row_is_on_one_side_whatever_else_there_is(tmp_path):
    splits = freeze_splits(plan(), tmp_path)
    configs = configs_of(plan())
    sides = {config.digest: split_columns(config, splits) for config in configs}
    assert 0.12 < sum(side["test.random"] for side in sides.values()) / len(sides) < 0.28
    for config in configs[200:]:  # seeds of one point stay together
        training = config.training.model_copy(update={"seed": 0})
        first = config.model_copy(update={"training": training})
        assert sides[first.digest] == sides[config.digest]
    (unseen,) = splits.held_out["unseen_topology"]
    for config in configs:
        assert is_held_out(config, "unseen_topology", splits) == (config.network == unseen)
        assert split_columns(config, splits)["test.unseen_dataset"] is False


def test_these_sides_never_move(tmp_path):
    # A change here would score others on other rows
    splits = freeze_splits(plan(), tmp_path)
    assert splits.held_out == {
        "unseen_topology": ["4C3-MP4-10"],
        "unseen_surrogate": ["fast_sigmoid"],
        "unseen_dataset": [],
        "unseen_hardware": ["2,10 16 1 layer_serial", "8,10 16 1 layer_serial"],
    }
    configs = [load_config({**CONTENT["base"], "neuron": {"beta": 0.05 * n}}) for n in range(1, 19)]
    assert [n for n in range(18) if is_held_out(configs[n], "random", splits)] == [10, 12, 17]


@pytest.mark.parametrize(
    ("vary", "size"),
    [
        ({"input.camera_threshold": [None, 0.3, 0.5]}, {}),
        ({"input.gain": [0.5, 0.6, 0.7, 1.0]}, {"channels": 1, "encoding": "rate"}),
        (
            {
                "eye": [
                    {"input.camera_threshold": 0.3},
                    {"input.encoding": "latency", "input.channels": 1},
                    {"input.encoding": "rate", "input.channels": 1},
                ]
            },
            {},
        ),
    ],
    ids=["camera", "gain", "coding"],
)
def test_the_same_pictures_are_on_one_side(tmp_path, vary, size):
    base = {"network": "10", "input": size}
    vary = vary | {"dataset": ["nmnist-saccade", "digits-saccade"]}
    grid = Plan.model_validate({"base": base, "vary": vary, "sampler": "grid"})
    splits = freeze_splits(grid, tmp_path)
    (held,) = splits.held_out["unseen_dataset"]
    sides = {(c.dataset, is_held_out(c, "unseen_dataset", splits)) for c in configs_of(grid)}
    assert sides == {("nmnist-saccade", held == "nmnist-saccade"),
                     ("digits-saccade", held == "digits-saccade")}  # fmt: skip


def test_hardware_that_comes_to_the_same_is_on_one_side(tmp_path):
    base = CONTENT["base"] | {"network": "20-10"}
    automatic = load_config(base)
    cores = ["auto", list(automatic.neural_cores)]
    vary = {"hardware.neural_cores": cores, "hardware.encoder_width": [16, 32]}
    grid = Plan.model_validate({"base": base, "vary": vary, "sampler": "grid"})
    splits = freeze_splits(grid, tmp_path)
    assert len(splits.held_out["unseen_hardware"]) == 1
    sides = [
        (c.hardware.encoder_width, is_held_out(c, "unseen_hardware", splits))
        for c in configs_of(grid)
    ]
    assert len(set(sides)) == 2


@pytest.mark.parametrize(
    ("size", "key"),
    [
        ({"gain": 0.5}, "gain"),
        ({"encoding": "latency", "channels": 1, "gain": 0.5}, "gain"),
        ({"encoding": "latency", "channels": 1, "camera_threshold": 0.3}, "camera_threshold"),
    ],
)
def test_a_key_that_does_nothing_cannot_put_a_point_on_the_other_side(size, key):
    with pytest.raises(ConfigError, match=rf"input\.{key}"):
        load_config({**CONTENT["base"], "input": size})


def test_a_plan_may_name_what_it_holds_out(tmp_path):
    named = {"unseen_topology": [NETWORKS[2]]}
    splits = freeze_splits(plan(held_out=named), tmp_path)
    assert splits.held_out["unseen_topology"] == [NETWORKS[2]]
    assert splits.held_out["unseen_surrogate"]
    assert freeze_splits(plan(held_out=named), tmp_path) == splits
    other = plan(held_out={"unseen_topology": [NETWORKS[1]]})
    with pytest.raises(ConfigError, match=r"held_out\.unseen_topology: must be what .* got 8C3"):
        freeze_splits(other, tmp_path)


def test_splits_that_are_gone_are_not_chosen_anew_beside_rows(tmp_path):
    chosen = freeze_splits(plan(), tmp_path)
    append_rows(tmp_path, [{"run_id": "a", "status": "ok"}])
    assert freeze_splits(plan(), tmp_path) == chosen
    (tmp_path / "splits.json").unlink()
    with pytest.raises(InputError, match="there is no such file, though there are rows"):
        freeze_splits(plan(), tmp_path)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"unseen_topology": ["5C3-10"]},
            r"held_out\.unseen_topology: must be .* got '5C3-10'",
        ),
        ({"unseen_surrogate": ["atan", "fast_sigmoid"]}, r"held_out\.unseen_surrogate: must leave"),
    ],
)
def test_impossible_names_are_refused(tmp_path, named, message):
    with pytest.raises(ConfigError, match=message):
        freeze_splits(plan(held_out=named), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_splits_that_cannot_be_used_are_refused(tmp_path):
    splits = freeze_splits(plan(), tmp_path)
    with pytest.raises(InputError, match="split: must be one of random, unseen_topology"):
        is_held_out(plan().config(0), "unseen", splits)
    older = {"schema_version": 1, "held_out": {"unseen_hardware": ["auto 32 1 layer_serial"]}}
    for content in ({"held": 3}, {"held_out": {"unseen_luck": []}}, older):
        (tmp_path / "splits.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match="cannot use the splits"):
            read_splits(tmp_path)
    older["held_out"] = {"unseen_hardware": [], "unseen_surrogate": ["atan"]}
    (tmp_path / "splits.json").write_text(json.dumps(older))
    assert read_splits(tmp_path).held_out == older["held_out"]
    with pytest.raises(InputError, match="cannot read the splits"):
        read_splits(tmp_path / "nowhere")
