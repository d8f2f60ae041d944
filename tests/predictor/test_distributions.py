"""Search spaces of Optuna as spaces of configurations, and back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from spikemeter.errors import ConfigError, InputError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.distributions import known_distributions, space_of, suggest_params
from spikemeter.predictor.pruning import prune_space
from spikemeter.space import Range, WholeRange, configured, read_space

BASE = {"dataset": "nmnist-saccade", "input": {"time_steps": 8}, "training": {"epochs": 5}}
SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "network": CategoricalDistribution(["8C3-MP2-16C3-MP2-10", "8C3-8C3-MP2-10"]),
    "neuron.threshold": FloatDistribution(0.4, 1.8, log=True),
    "neuron.beta": FloatDistribution(0.4, 0.95),
    "training.weight_bits": IntDistribution(2, 8),
    "surrogate.slope": FloatDistribution(2, 50, step=4),
    "hardware.clock_mhz": FloatDistribution(200, 200),
}


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    """The one that ships, whatever it has learned."""
    return LatencyPredictor.default()


def test_a_search_space_of_optuna_is_pruned_and_fed_back(
    predictor: LatencyPredictor,
) -> None:
    rows = space_of(SPACE, BASE).frame(0, 256)
    budget = float((predictor.predict(rows)["interval_cycles.low"] / 200).quantile(0.1))
    ask = partial(prune_space, base=BASE, budget_us=budget, candidates=512, predictor=predictor)
    pruned = ask(distributions=SPACE)
    assert pruned.tightened is not None
    assert list(pruned.tightened) == list(SPACE)
    kept = pruned.kept
    threshold = pruned.tightened["neuron.threshold"]
    expected = FloatDistribution(
        kept["neuron.threshold"].min(), kept["neuron.threshold"].max(), log=True
    )
    assert threshold == expected != SPACE["neuron.threshold"]
    slope = pruned.tightened["surrogate.slope"]
    assert isinstance(slope, FloatDistribution)
    assert (slope.low, slope.high) == (kept["surrogate.slope"].min(), kept["surrogate.slope"].max())
    assert set(kept["surrogate.slope"]) <= {2 + 4 * step for step in range(13)}
    bits = pruned.tightened["training.weight_bits"]
    assert isinstance(bits, IntDistribution)
    assert (bits.low, bits.high) == (2, 8)
    assert pruned.tightened["hardware.clock_mhz"] == SPACE["hardware.clock_mhz"]
    again = ask(distributions=pruned.tightened).report
    assert again.kept > 1.2 * pruned.report.kept
    trial = optuna.create_study(sampler=RandomSampler(0)).ask()
    assert configured(BASE, suggest_params(trial, pruned.tightened)).neuron.threshold


def test_the_search_space_of_a_study_is_what_its_trials_share(predictor: LatencyPredictor) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=RandomSampler(0))
    with pytest.raises(InputError, match="the finished trials of the study have none in common"):
        known_distributions(study)
    for extra in ("mine", "yours"):
        trial = study.ask()
        suggest_params(trial, SPACE)
        study.tell(trial, [trial.suggest_float(extra, 0, 1), 1])
    assert known_distributions(study) == SPACE
    report = prune_space(
        distributions=study, base=BASE, budget_us=1e9, predictor=predictor, candidates=64
    ).report
    assert list(report.tightened) == sorted(SPACE)


def test_distributions_become_ranges_and_choices() -> None:
    distributions = {
        "neuron.threshold": IntDistribution(1, 9),
        "training.epochs": IntDistribution(2, 8, step=3),
        "training.batch_size": IntDistribution(1, 512, log=True),
        "neuron.beta": FloatDistribution(0.5, 0.9),
        "surrogate.name": CategoricalDistribution(["atan", "fast_sigmoid"]),
    }
    space = space_of(distributions, BASE | {"network": "10"})
    assert space.vary == {
        "neuron.threshold": WholeRange(low=1, high=9),
        "training.epochs": (2, 5, 8),
        "training.batch_size": WholeRange(low=1, high=512, log=True),
        "neuron.beta": Range(low=0.5, high=0.9),
        "surrogate.name": ("atan", "fast_sigmoid"),
    }
    frame = space.frame(0, 300)
    assert set(frame["neuron.threshold"]) == set(range(1, 10))
    assert read_space(space).config(7) == configured(BASE, dict(frame.loc[7].items()))
    assert np.log2(frame["training.batch_size"]).mean() == pytest.approx(4.2, abs=0.2)


@pytest.mark.parametrize(
    ("distributions", "part"),
    [
        ({"training.epochs": FloatDistribution(1, 9)}, "training.epochs: must be an Int"),
        ({"neuron.betta": FloatDistribution(0, 1)}, "distributions.neuron.betta: unknown key"),
        ({"beta": FloatDistribution(0, 1)}, "distributions.beta: is no key of a configuration"),
        ({"neuron.beta": FloatDistribution(0, 1, step=1e-6)}, "must have at most 100000 steps"),
    ],
)  # fmt: skip
def test_distributions_that_suit_no_key_are_refused(
    distributions: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        prune_space(distributions=distributions, base=BASE, budget_us=1)
    with pytest.raises(InputError, match="base: required with distributions"):
        prune_space(distributions=distributions, budget_us=1)
