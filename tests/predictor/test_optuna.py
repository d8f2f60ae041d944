"""The latency gate and the feasible sampler in real studies."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    BaseSampler,
    NSGAIISampler,
    PartialFixedSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState

from spikemeter.errors import ConfigError, InputError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.distributions import space_of, suggest_params
from spikemeter.predictor.optuna import FeasibleSampler, LatencyGate
from spikemeter.space import configured

BASE = {"dataset": "nmnist-saccade", "input": {"time_steps": 8}, "training": {"epochs": 5}}
SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "network": CategoricalDistribution(["8C3-MP2-16C3-MP2-10", "8C3-8C3-MP2-10"]),
    "neuron.threshold": FloatDistribution(0.4, 1.8, log=True),
    "neuron.beta": FloatDistribution(0.4, 0.95),
    "training.weight_bits": IntDistribution(2, 8),
    "surrogate.slope": FloatDistribution(2, 50, step=4),
    "hardware.clock_mhz": FloatDistribution(200, 200),
}
EVERY_SAMPLER: dict[str, Callable[[], BaseSampler]] = {
    "tpe": lambda: TPESampler(seed=1, n_startup_trials=6),
    "multivariate tpe": lambda: TPESampler(seed=1, n_startup_trials=6, multivariate=True),
    "nsga-ii": lambda: NSGAIISampler(seed=1, population_size=8),
    "random": lambda: RandomSampler(seed=1),
    "qmc": lambda: QMCSampler(seed=1),
}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    """The one that ships, whatever it has learned."""
    return LatencyPredictor.default()


@pytest.fixture(scope="module")
def budget(predictor: LatencyPredictor) -> float:
    """Microseconds that about a third of the space may reach."""
    table = predictor.predict(space_of(SPACE, BASE).frame(0, 256))
    return float((table["interval_cycles.low"] / 200).quantile(0.35))


@pytest.fixture
def gate(predictor: LatencyPredictor, budget: float) -> LatencyGate:
    return LatencyGate(predictor, budget)


def two_objectives(sampler: BaseSampler) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def swept(
    study: optuna.Study, gate: LatencyGate, trials: int, distributions: Mapping[str, Any] = SPACE
) -> list[dict[str, Any]]:
    """Optimise by what is predicted; give the parameters that got past the gate."""
    trained = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        params = suggest_params(trial, distributions)
        estimate = gate.check(trial, configured(BASE, params))
        trained.append(params)
        assert estimate.accuracy is not None
        return estimate.accuracy, estimate.microseconds

    study.optimize(objective, n_trials=trials)
    return trained


def lowest_us(gate: LatencyGate, params: Mapping[str, Any]) -> float:
    estimate = gate.predictor.estimate(configured(BASE, params), confidence=gate.confidence)
    return estimate.interval_cycles[0] / 200


@pytest.mark.parametrize("name", EVERY_SAMPLER)
def test_only_what_may_meet_the_budget_is_trained(name: str, gate: LatencyGate) -> None:
    study = two_objectives(EVERY_SAMPLER[name]())
    trained = swept(study, gate, 30)
    pruned = study.get_trials(states=[TrialState.PRUNED])
    assert len(trained) + len(pruned) == len(study.trials) == 30
    assert 0 < len(trained) < 30
    for trial in study.trials:
        lowest = lowest_us(gate, trial.params)
        assert trial.constraints == {"latency": pytest.approx(math.log(lowest / gate.budget_us))}
        assert (trial.state == TrialState.PRUNED) == (lowest > gate.budget_us)
        estimate = gate.predictor.estimate(configured(BASE, trial.params))
        assert trial.user_attrs == {
            "predicted_microseconds": estimate.microseconds,
            "predicted_accuracy": estimate.accuracy,
        }
    assert all(lowest_us(gate, trial.params) <= gate.budget_us for trial in study.best_trials)


def test_tpe_learns_from_what_the_gate_ends(gate: LatencyGate) -> None:
    study = two_objectives(TPESampler(seed=3, n_startup_trials=10))
    swept(study, gate, 60)
    ended = [trial.state == TrialState.PRUNED for trial in study.trials]
    assert sum(ended[30:]) < 0.6 * 30 * 0.65  # at random, 65 % would be


def test_a_single_objective_has_the_gate_too(gate: LatencyGate) -> None:
    study = optuna.create_study(sampler=TPESampler(seed=2))

    def objective(trial: optuna.Trial) -> float:
        return gate.check(trial, configured(BASE, suggest_params(trial, SPACE))).microseconds

    study.optimize(objective, n_trials=12)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_value <= gate.budget_us * 2


def test_an_accuracy_may_be_asked_for(predictor: LatencyPredictor, budget: float) -> None:
    config = configured(BASE, {"network": "8C3-8C3-MP2-10"})
    estimate = predictor.estimate(config)
    assert estimate.interval_accuracy is not None
    upper = estimate.interval_accuracy[1]
    study = optuna.create_study()
    trial = study.ask()
    LatencyGate(predictor, 1e9, min_accuracy=upper - 0.01).check(trial, config)
    assert study.trials[0].constraints["accuracy"] == pytest.approx(-0.01)
    strict = LatencyGate(predictor, 1e9, min_accuracy=upper + 0.001, name="board")
    with pytest.raises(optuna.TrialPruned, match=r"an accuracy of at most 0\.\d+, below 0\.\d+"):
        strict.check(study.ask(), config)
    assert set(study.trials[1].constraints) == {"board", "accuracy"}
    with pytest.raises(optuna.TrialPruned, match=r"at least \d+ us, above the budget of 1 us"):
        LatencyGate(predictor, 1).check(study.ask(), config)


def test_leaving_the_domain_is_told_once_for_each_knob(predictor: LatencyPredictor) -> None:
    gate = LatencyGate(predictor, 1e9)
    study = optuna.create_study()
    config = configured(BASE, {"network": "8C3-MP2-10", "training.lr": 5})
    with pytest.warns(UserWarning, match=r"training.lr: 5 is outside .*told once") as told:
        gate.check(study.ask(), config)
    assert sum("training.lr" in str(each.message) for each in told) == 1
    gate.check(study.ask(), config)  # a warning would be an error here


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"budget_us": 0}, "budget_us: must be above 0 and finite, got 0"),
        ({"confidence": 90}, "confidence: must be above 0 and below 1, got 90"),
        ({"min_accuracy": 0}, "min_accuracy: must be above 0 and below 1, got 0"),
    ],
)
def test_an_impossible_gate_is_refused(
    predictor: LatencyPredictor, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(InputError, match=part):
        LatencyGate(predictor, **({"budget_us": 100} | changes))


@pytest.mark.parametrize("name", EVERY_SAMPLER)
def test_a_feasible_sampler_lets_nothing_reach_the_gate_that_it_ends(
    name: str, gate: LatencyGate
) -> None:
    study = two_objectives(FeasibleSampler(EVERY_SAMPLER[name](), gate, SPACE, BASE, seed=0))
    trained = swept(study, gate, 20)
    assert len(trained) == 20
    assert all(params["hardware.clock_mhz"] == 200 for params in trained)
    told = study.get_trials(states=[TrialState.PRUNED])
    assert len(told) + 20 == len(study.trials)
    assert len(told) > 3
    for trial in told:
        excess = math.log(lowest_us(gate, trial.params) / gate.budget_us)
        assert trial.constraints == {"latency": pytest.approx(excess)}
        assert excess > 0


def test_if_no_try_passes_the_nearest_is_taken(predictor: LatencyPredictor) -> None:
    gate, tried = LatencyGate(predictor, 1.0), []

    def config_of(params: Mapping[str, Any]) -> Any:
        config = configured(BASE, params)
        tried.append(lowest_us(gate, params))
        return config

    study = two_objectives(FeasibleSampler(RandomSampler(0), gate, SPACE, config_of, tries=9))
    assert swept(study, gate, 1) == []
    assert len(tried) == 9
    ended = study.trials[0]
    assert lowest_us(gate, ended.params) == min(tried)
    assert len({repr(trial.params) for trial in study.trials}) == len(study.trials) > 1


def test_points_that_are_no_configuration_are_never_proposed(
    predictor: LatencyPredictor,
) -> None:
    gate = LatencyGate(predictor, 1e9)
    networks = CategoricalDistribution(["8C3-MP2-9", "8C3-8C3-MP2-10", "8C-10", "8C3-MP2-20"])
    distributions = {"network": networks, "neuron.threshold": SPACE["neuron.threshold"]}
    study = two_objectives(FeasibleSampler(TPESampler(seed=0), gate, distributions, BASE, seed=0))
    trained = swept(study, gate, 8, distributions)
    assert {params["network"] for params in trained} == {"8C3-8C3-MP2-10"}
    stubborn = PartialFixedSampler({"network": "8C3-MP2-9"}, TPESampler(seed=0))
    study = two_objectives(FeasibleSampler(stubborn, gate, distributions, BASE, seed=0))
    assert len(swept(study, gate, 3, distributions)) == 3  # drawn at random
    hopeless = {"network": CategoricalDistribution(["8C3-MP2-9", "8C3-MP2-20"])}
    study = two_objectives(FeasibleSampler(RandomSampler(0), gate, hopeless, BASE))
    with pytest.raises(
        ConfigError, match="none of the 64 points that were tried is valid; network"
    ):
        swept(study, gate, 1, hopeless)


def test_parameters_that_the_gate_does_not_know_are_those_of_the_sampler(gate: LatencyGate) -> None:
    study = two_objectives(FeasibleSampler(TPESampler(seed=0), gate, SPACE, BASE))
    trial = study.ask()
    suggest_params(trial, SPACE)
    assert 5 <= trial.suggest_float("mine", 5, 6) <= 6
    assert "TPESampler" in str(study.sampler)


def test_tries_at_random_are_others_than_those_of_the_same_seed(gate: LatencyGate) -> None:
    study = two_objectives(FeasibleSampler(RandomSampler(0), gate, SPACE, BASE, tries=4, seed=0))
    swept(study, LatencyGate(gate.predictor, 1e-3), 6)
    assert len({repr(trial.params) for trial in study.trials}) == len(study.trials) >= 6


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sampler": optuna.samplers.GridSampler({"x": [1]})}, "none that visits every point once"),
        ({"sampler": "tpe"}, "sampler: must be an Optuna sampler"),
        ({"tries": 0}, "tries: must be a whole number from 1"),
        ({"distributions": {}}, "distributions: must hold a distribution for each knob"),
        ({"distributions": {"neuron.beta": 3}}, "neuron.beta: must be one of Optuna's"),
    ],
)  # fmt: skip
def test_an_impossible_sampler_is_refused(
    gate: LatencyGate, changes: dict[str, Any], part: str
) -> None:
    asked = {"sampler": RandomSampler(), "gate": gate, "distributions": SPACE, "config_of": BASE}
    with pytest.raises(InputError, match=part):
        FeasibleSampler(**(asked | changes))


SWEEP = """
import json, os, sys
import optuna
from optuna.distributions import json_to_distribution
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.distributions import suggest_params
from spikemeter.predictor.optuna import FeasibleSampler, LatencyGate
from spikemeter.space import configured

optuna.logging.set_verbosity(optuna.logging.ERROR)
storage, kind, asked = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
space = {name: json_to_distribution(each) for name, each in asked["space"].items()}
gate = LatencyGate(LatencyPredictor.default(), asked["budget_us"])
sampler = optuna.samplers.NSGAIISampler(seed=0)
if kind == "feasible":
    sampler = FeasibleSampler(optuna.samplers.TPESampler(seed=1), gate, space, asked["base"])
study = optuna.load_study(study_name="sweep", storage=storage, sampler=sampler)

def objective(trial):
    trial.set_user_attr("kind", kind)
    estimate = gate.check(trial, configured(asked["base"], suggest_params(trial, space)))
    return estimate.accuracy, estimate.microseconds

study.optimize(objective, n_trials=8)
"""


def test_processes_share_a_study_in_a_database(gate: LatencyGate, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(
        study_name="sweep", storage=storage, directions=["maximize", "minimize"]
    )
    space = {name: optuna.distributions.distribution_to_json(each) for name, each in SPACE.items()}
    asked = json.dumps({"space": space, "base": BASE, "budget_us": gate.budget_us})
    processes = [
        subprocess.Popen([sys.executable, "-c", SWEEP, storage, kind, asked])
        for kind in ("feasible", "gate")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    trials = study.get_trials()
    kinds = Counter(trial.user_attrs.get("kind", "told") for trial in trials)
    assert (kinds["feasible"], kinds["gate"]) == (8, 8)
    assert len(trials) == 16 + kinds["told"]
    for trial in trials:
        excess = math.log(lowest_us(gate, trial.params) / gate.budget_us)
        assert trial.constraints == {"latency": pytest.approx(excess)}
        assert trial.state == (TrialState.PRUNED if excess > 0 else TrialState.COMPLETE)
        if "kind" in trial.user_attrs:
            assert excess <= 0 or trial.user_attrs["kind"] == "gate"
        else:
            assert excess > 0


WITHOUT = """
import sys
sys.modules["optuna"] = None
from spikemeter.errors import MissingToolError
from spikemeter.predictor.pruning import prune_space
base = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10"}
print(prune_space({"base": base}, budget_us=1).report.removed)
try:
    from spikemeter.predictor.optuna import LatencyGate
except MissingToolError as error:
    print(error)
"""


def test_without_optuna_spaces_are_pruned_and_the_rest_says_what_is_missing() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "1", "optuna is not installed, and this needs it; install spikemeter[sweep]",
    ], done.stderr  # fmt: skip
