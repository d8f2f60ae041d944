import math
from pathlib import Path

import numpy as np
import pytest
import yaml

import spikemeter.calibration
from spikemeter.calibration.plan import Plan, Range, read_plan
from spikemeter.calibration.runs import run_numbers
from spikemeter.calibration.splits import freeze_splits
from spikemeter.config import Config
from spikemeter.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples" / "plans"
PLAN = {
    "base": {"dataset": "nmnist-saccade", "training": {"epochs": 2}},
    "vary": {
        "network": ["8C3-MP2-10", "8C3-MP2-16C3-MP2-10"],
        "neuron.beta": {"low": 0.3, "high": 0.99},
        "training.lr": {"low": 3e-4, "high": 2e-2, "log": True},
        "training.weight_bits": {"low": 2, "high": 8},
    },
    "sampler": "sobol",
    "runs": 64,
    "seed": 1,
}


def shipped(name: str) -> Plan:
    return read_plan(Path(spikemeter.calibration.__file__).parent / f"{name}.yaml")


def plan_of(**changes) -> Plan:
    content = PLAN | changes
    return Plan.model_validate({key: value for key, value in content.items() if value is not None})


def configs_of(plan: Plan) -> list[Config]:
    """Every run in order, those that are the same too."""
    return [plan.config(number) for number in range(plan.size)]


def refusal(tmp_path: Path, **changes) -> str:
    path = tmp_path / "plan.yaml"
    content = {key: value for key, value in (PLAN | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_points_fill_the_ranges_evenly():
    configs = configs_of(plan_of())
    assert len(configs) == 64
    assert {config.training.epochs for config in configs} == {2}
    networks = [config.network for config in configs]
    assert networks.count("8C3-MP2-10") == networks.count("8C3-MP2-16C3-MP2-10") == 32
    betas = sorted(config.neuron.beta for config in configs)
    assert all(abs(beta - (0.3 + 0.69 * (i + 0.5) / 64)) < 0.012 for i, beta in enumerate(betas))
    below = sum(config.training.lr < math.sqrt(3e-4 * 2e-2) for config in configs)
    assert below == 32
    assert {config.training.weight_bits for config in configs} == {2, 3, 4, 5, 6, 7, 8}


@pytest.mark.parametrize("sampler", ["halton", "sobol"])
def test_a_longer_plan_starts_with_the_same_runs(sampler):
    longer = configs_of(plan_of(sampler=sampler, runs=64))
    assert configs_of(plan_of(sampler=sampler, runs=20)) == longer[:20]
    assert configs_of(plan_of(sampler=sampler, runs=20, seed=2)) != longer[:20]


def value_of(config, key):
    """Value under a key of a configuration, as a plan writes it."""
    section, _, inner = key.rpartition(".")
    value = getattr(getattr(config, section) if section else config, inner)
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("name", "limit"), [("demo", 0.6), ("default/plan", 0.15)])
def test_no_two_knobs_of_a_shipped_plan_change_together(name, limit):
    plan = shipped(name)
    configs = configs_of(plan)[: plan.runs]
    columns = []
    for key, variation in plan.vary.items():
        if not isinstance(variation, tuple):
            columns.append([value_of(config, key) for config in configs])
            continue
        choices = [each if isinstance(each, dict) else {key: each} for each in variation]
        columns.append(
            [
                next(
                    place
                    for place, choice in enumerate(choices)
                    if all(value_of(config, name) == value for name, value in choice.items())
                )
                for config in configs
            ]
        )
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < limit


def test_the_seed_decides_the_points():
    assert configs_of(plan_of()) == configs_of(plan_of())
    assert configs_of(plan_of(seed=2)) != configs_of(plan_of())


def test_repeats_are_the_first_points_with_other_seeds():
    configs = configs_of(plan_of(runs=5, repeats={"points": 2, "seeds": [7, 8]}))
    assert len(configs) == 9
    assert configs[:5] == configs_of(plan_of(runs=5))
    assert [config.training.seed for config in configs[5:]] == [7, 8, 7, 8]
    points = [configs[0], configs[0], configs[1], configs[1]]
    for repeat, point in zip(configs[5:], points, strict=True):
        training = repeat.training.model_copy(update={"seed": point.training.seed})
        assert repeat.model_copy(update={"training": training}) == point


def test_repeats_may_be_a_share_of_the_points():
    repeated = plan_of(runs=5, repeats={"share": 0.3, "seeds": [7, 8]})
    assert repeated.digests == plan_of(runs=5, repeats={"points": 2, "seeds": [7, 8]}).digests


def test_a_grid_is_every_combination():
    vary = {"network": ["8C3-10", "10"], "neuron.beta": [0.5, 0.6, 0.7]}
    configs = configs_of(plan_of(sampler="grid", runs=None, vary=vary))
    assert [(config.network, config.neuron.beta) for config in configs] == [
        (network, beta) for network in ["8C3-10", "10"] for beta in [0.5, 0.6, 0.7]
    ]


def test_points_that_coincide_are_one_run():
    assert len(run_numbers(plan_of(vary={"network": ["8C3-10"]}))) == 1


def test_a_key_of_the_base_is_kept_beside_the_one_that_varies():
    base = {"dataset": "nmnist-saccade", "network": "10", "neuron": {"threshold": 0.4}}
    (config,) = configs_of(plan_of(base=base, vary={"neuron.beta": [0.5]}, runs=1))
    assert (config.neuron.beta, config.neuron.threshold) == (0.5, 0.4)
    assert base["neuron"] == {"threshold": 0.4}


def test_a_range_ends_where_it_says():
    assert Range(low=2, high=5).at(0) == 2
    assert Range(low=1, high=100, log=True).at(0.5) == pytest.approx(10)


@pytest.mark.parametrize(
    ("key", "low", "high", "kind"),
    [
        ("training.patience", 1, 5, int),
        ("hardware.membrane_bits", 16, 24, int),
        ("training.epochs", 1.5, 3.5, int),
        ("input.camera_threshold", 0.2, 0.5, float),
        ("neuron.threshold", 1.00004, 1.00009, float),
        ("neuron.beta", 0.5, 0.99996, float),
    ],
)
def test_a_range_suits_its_key_and_keeps_its_bounds(key, low, high, kind):
    base = PLAN["base"] | {"network": "10"}
    vary = {key: {"low": low, "high": high}}
    plan = plan_of(base=base, vary=vary, sampler="halton", runs=2000)
    values = [plan._changes(number)[1][key] for number in range(plan.size)]
    assert {type(value) for value in values} == {kind}
    assert low <= min(values) <= max(values) <= high
    section, _, inner = key.partition(".")
    assert getattr(getattr(plan.config(0), section), inner) == values[0]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"run": 3}, ["unknown key 'run'", "runs"]),
        ({"runs": None}, ["runs", "required with the sampler sobol", "nothing"]),
        ({"runs": 0}, ["runs", "1", "0"]),
        ({"samples": 65}, ["samples", "64", "65"]),
        ({"sampler": "random"}, ["sampler", "'halton', 'sobol' or 'grid'", "'random'"]),
        ({"vary": {}, "sampler": "grid"}, ["runs", "a grid runs every combination", "64"]),
        ({"sampler": "grid", "runs": None}, ["vary.neuron.beta", "list of choices"]),
        ({"base": 3}, ["base: should hold keys and values, got 3"]),
        ({"base": {}}, ["point 1 of the plan", "dataset"]),
        (
            {"vary": {"network": ["10"], "hardware.backend": ["engine", "published"]}},
            ["of the plan: hardware.backend: must be engine to simulate", "'published'"],
        ),
        ({"vary": {"neuron.beta": 3}}, ["vary.neuron.beta: should be a list, got 3"]),
        (
            {"vary": {"neuron.beta": []}},
            ["vary.neuron.beta: should be a list of 1 or more, got []"],
        ),
        ({"vary": {"neuron.beta": {"low": 1}}}, ["vary.neuron.beta.high", "required"]),
        ({"vary": {"neuron.beta": {"low": 1, "high": 1}}}, ["vary.neuron.beta", "below"]),
        (
            {"vary": {"training.lr": {"low": 0, "high": 1, "log": True}}},
            ["vary.training.lr", "positive"],
        ),
        ({"vary": {"network": ["10"], "neuron.betta": [1]}}, ["unknown key 'neuron.betta'"]),
        ({"vary": {"network": ["10", "8C2-10"]}}, ["of the plan: network", "'8C2'"]),
        (
            {"base": PLAN["base"] | {"network": "10"}, "vary": {"network.x": [1]}},
            ["network", "keys and values", "'10'"],
        ),
        (
            {"vary": {"network": ["10"], "network.x": [1]}},
            ["vary.network.x: sets network.x, and vary.network sets network"],
        ),
        (
            {"vary": {"eye": [{"input.gain": 0.5}], "input.gain": [0.6]}},
            ["vary.input.gain: sets input.gain, and vary.eye sets input.gain"],
        ),
        (
            {"vary": {"input": [{"gain": 0.5}], "eye": [{"network": "10"}, {"input.gain": 0.6}]}},
            ["vary.input: sets input, and vary.eye sets input.gain"],
        ),
        (
            {"vary": {"eye": [{"input.gain": 0.6, "input": {"gain": 0.5}}]}},
            ["vary.eye: sets input.gain, and vary.eye sets input"],
        ),
        (
            {"vary": {"training.epochs": {"low": 1.2, "high": 1.8}}},
            ["vary.training.epochs: must hold a whole number, got 1.2 to 1.8"],
        ),
        (
            {"repeats": {"points": 1, "seeds": [3, 4, 3]}},
            ["repeats.seeds: must differ", "[3, 4, 3]"],
        ),
        (
            {"repeats": {"points": 1, "seeds": [1, 0]}},
            ["repeats.seeds: must be other seeds than the points have, got 0"],
        ),
        (
            {
                "base": {"dataset": "nmnist-saccade", "training": {"seed": 5}},
                "repeats": {"points": 1, "seeds": [5]},
            },
            ["repeats.seeds: must be other", "got 5"],
        ),
        (
            {
                "vary": PLAN["vary"] | {"training.seed": [3, 4]},
                "repeats": {"points": 1, "seeds": [4]},
            },
            ["repeats.seeds: must be other", "got 4"],
        ),
        (
            {
                "vary": PLAN["vary"] | {"training.seed": {"low": 1, "high": 9}},
                "repeats": {"points": 1, "seeds": [20, 9]},
            },
            ["repeats.seeds: must be other", "got 9"],
        ),
        (
            {
                "vary": PLAN["vary"] | {"luck": [{"training.seed": 3}, {"training.seed": 4}]},
                "repeats": {"points": 1, "seeds": [3]},
            },
            ["repeats.seeds: must be other", "got 3"],
        ),
        (
            {"runs": 900_000, "repeats": {"points": 100_001, "seeds": [1]}},
            ["runs: at most 1000000 runs with repeats, got 1000001"],
        ),
        (
            {"vary": {"network": ["10"], "neuron.beta": {"low": 0.5, "high": 1.5}}},
            ["of the plan: neuron.beta", "less than or equal to 1"],
        ),
        ({"repeats": {"points": 1}}, ["repeats.seeds", "required"]),
        ({"repeats": {"seeds": [1]}}, ["repeats.points", "share is required", "neither"]),
        ({"repeats": {"points": 1, "share": 0.1, "seeds": [1]}}, ["repeats.points", "both"]),
        ({"timing_share": 1.5}, ["timing_share", "1", "1.5"]),
        ({"spot_checks": 20}, ["spot_checks: at most the 16 samples, got 20"]),
        ({"limits": {"seconds": 0}}, ["limits.seconds", "0"]),
        ({"limits": {"minutes": 3}}, ["limits", "unknown key"]),
        ({"held_out": {"unseen_luck": ["x"]}}, ["held_out", "unseen_luck"]),
        (
            {
                "sampler": "grid",
                "runs": None,
                "vary": {f"input.{key}": [*range(10)] for key in "abcdefg"},
            },
            ["vary: at most 1000000 combinations, got 10000000"],
        ),
        (
            {
                "sampler": "grid",
                "runs": None,
                "vary": {f"input.{key}": [*range(10)] for key in "abcdef"},
                "repeats": {"points": 1, "seeds": [1]},
            },
            ["vary: at most 1000000 combinations with repeats, got 1000001"],
        ),
    ],
)
def test_a_refusal_names_key_rule_and_value(tmp_path, changes, parts):
    message = refusal(tmp_path, **changes)
    for part in parts:
        assert part in message, message


def test_a_share_of_the_runs_is_spot_checked():
    plan = plan_of(timing_share=0.25, spot_checks=2)
    simulated = [plan.simulated(f"{number:02x}{'0' * 62}") for number in range(256)]
    assert simulated == [2] * 64 + [16] * 192
    assert plan_of().simulated("0" * 64) == 16
    assert plan_of(timing_share=1.0).simulated("f" * 64) == 1


def test_one_run_stands_for_all_that_share_some_values():
    plan = plan_of(repeats={"points": 2, "seeds": [7]})
    examples = plan.examples("network")
    networks = [plan.config(number).network for number in examples]
    assert sorted(networks) == ["8C3-MP2-10", "8C3-MP2-16C3-MP2-10"]
    assert plan.examples("dataset", "input") == [0]
    assert plan.examples("dataset", among=[5, 6]) == [5]
    assert plan.examples("network", among=[]) == []
    assert len(plan.examples("neuron")) == 64


def test_runs_by_number_are_those_of_the_whole():
    plan = plan_of(repeats={"points": 2, "seeds": [7, 8]})
    assert plan.size == 68
    assert [plan.config(number).digest for number in range(68)] == list(plan.digests)
    assert plan_of(runs=32).digest != plan.digest
    reordered = dict(reversed(PLAN["vary"].items()))
    assert plan_of(vary=reordered).digest != plan_of().digest  # it samples other points


def test_a_run_that_cannot_be_trained_is_refused(tmp_path):
    base = {"input": {"time_steps": 1, "statistics": [[1, 2]]}}
    assert "dataset: required to train" in refusal(tmp_path, base=base)


def test_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(f"{yaml.safe_dump(PLAN)}runs: 32\n")
    with pytest.raises(ConfigError, match=r"the plan '.*' must have each key once, .* 'runs' in"):
        read_plan(path)


def test_seeds_of_repeats_may_be_those_that_the_base_has_but_no_point():
    vary = PLAN["vary"] | {"training.seed": [3, 4]}
    plan = plan_of(vary=vary, repeats={"points": 2, "seeds": [0, 1]})
    assert len(run_numbers(plan)) == 68


def test_a_missing_plan_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the plan"):
        read_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["demo", "default/plan"])
def test_shipped_plans_are_valid(name):
    assert len(run_numbers(shipped(name))) >= 12


@pytest.mark.parametrize(("name", "runs"), [("small", 24), ("large", 9480)])
def test_example_plans_are_valid(name, runs, tmp_path):
    plan = read_plan(EXAMPLES / f"{name}.yaml")
    assert len(set(plan.digests)) == runs
    freeze_splits(plan, tmp_path)


def test_knobs_change_together_under_a_name_of_their_own(tmp_path: Path):
    eyes = [{"input.camera_threshold": 0.3}, {"input.encoding": "latency", "input.channels": 1}]
    base = PLAN["base"] | {"network": "8C3-10"}
    vary = {"eye": eyes, "neuron.beta": [0.5, 0.9]}
    plan = plan_of(base=base, vary=vary, sampler="grid", runs=None)
    seen = [(c.input.camera_threshold, c.input.encoding, c.neuron.beta) for c in configs_of(plan)]
    assert seen == [
        (0.3, "events", 0.5), (0.3, "events", 0.9), (None, "latency", 0.5), (None, "latency", 0.9),
    ]  # fmt: skip
    sampled = configs_of(plan_of(base=base, vary={"eye": eyes}, runs=16))
    assert {config.input.encoding for config in sampled} == {"events", "latency"}
    message = refusal(tmp_path, vary={"eye": [1, 2]})
    assert "vary.eye: is no key" in message
    message = refusal(tmp_path, vary={"eye": {"low": 1, "high": 2}})
    assert "vary.eye: is no key" in message
