import json
import threading

import pytest

from spikemeter.calibration.plan import Plan
from spikemeter.calibration.splits import (
    SPLITS,
    freeze_splits,
    is_held_out,
    read_splits,
    split_columns,
)
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
    plans = [plan(held_out={"unseen_topology": [network]}) for network in NETWORKS]
    chosen = []
    threads = [
        threading.Thread(target=lambda each=each: chosen.append(freeze_splits(each, tmp_path)))
        for each in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found == read_splits(tmp_path) for found in chosen)


def test_a_row_is_on_one_side_whatever_else_there_is(tmp_path):
    splits = freeze_splits(plan(), tmp_path)
    configs = plan().configs
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
        "unseen_hardware": ["auto 32 1 layer_serial"],
    }
    configs = [load_config({**CONTENT["base"], "neuron": {"beta": 0.05 * n}}) for n in range(1, 19)]
    assert [n for n in range(18) if is_held_out(configs[n], "random", splits)] == [10, 12, 17]


def test_an_encoding_makes_another_data_set(tmp_path):
    vary = {"input.encoding": ["rate", "latency"], "input.gain": [0.5, 1.0]}
    base = {"dataset": "nmnist-saccade", "network": "10", "input": {"channels": 1}}
    grid = Plan.model_validate({"base": base, "vary": vary, "sampler": "grid"})
    held = freeze_splits(grid, tmp_path).held_out["unseen_dataset"]
    assert len(held) == 1
    assert held[0] in ("nmnist-saccade rate 0.5", "nmnist-saccade rate 1", "nmnist-saccade latency")


def test_a_plan_may_name_what_it_holds_out(tmp_path):
    named = {"unseen_topology": [NETWORKS[2]]}
    splits = freeze_splits(plan(held_out=named), tmp_path)
    assert splits.held_out["unseen_topology"] == [NETWORKS[2]]
    assert splits.held_out["unseen_surrogate"]


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
    (tmp_path / "splits.json").write_text(json.dumps({"held": 3}))
    with pytest.raises(InputError, match="cannot use the splits"):
        read_splits(tmp_path)
    with pytest.raises(InputError, match="cannot read the splits"):
        read_splits(tmp_path / "nowhere")
