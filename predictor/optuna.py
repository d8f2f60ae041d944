"""Optuna with a latency budget: no training of what is known to be too slow.

`LatencyGate` stands at the beginning of an objective, where it ends a trial that cannot meet the
budget before anything is trained, and tells the sampler so. `FeasibleSampler` goes one step
further: it asks another sampler again until a point may be within the budget.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Config, load_config
from ..errors import ConfigError, InputError
from ..space import configured
from .distributions import known_distributions, optuna, single_value
from .estimate import LatencyEstimate
from .intervals import WIDEST, checked_confidence
from .judging import check_whole, checked_accuracy, checked_budget
from .predict import LatencyPredictor

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial, TrialState

__all__ = ["FeasibleSampler", "LatencyGate"]

_OWN_SHARE = 0.25
"""Of the tries, that the wrapped sampler has."""

Params = Mapping[str, Any]
ConfigOf = Mapping[str, Any] | Callable[[Params], Config | Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class LatencyGate:
    """Ends trials that cannot meet a latency budget before anything is trained.

    It may be shared by studies and threads; each process makes its own.

    Attributes
    ----------
    predictor : LatencyPredictor
    budget_us : float
        Mean latency of an inference that is allowed, in microseconds.
    min_accuracy : float or None
        Test accuracy that is asked for; in (0, 1).
    confidence : float
        Of the intervals; see `prune_space`.
    name : str
        Of the constraint. Several gates in one objective, for several machines, need several.

    Raises
    ------
    InputError
        If one of them is not allowed.

    Examples
    --------
    A trial that may be within the budget goes on, with the estimate:

    >>> gate = LatencyGate(LatencyPredictor.default(), budget_us=1e6)
    >>> study = optuna.create_study()
    >>> config = {"dataset": "nmnist-saccade", "network": "8C3-MP2-10"}
    >>> gate.check(study.ask(), config).fidelity
    'hyperparameters'
    """

    predictor: LatencyPredictor
    budget_us: float
    min_accuracy: float | None = field(default=None, kw_only=True)
    confidence: float = field(default=0.9, kw_only=True)
    name: str = field(default="latency", kw_only=True)
    _warned: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        checked_budget(self.budget_us)
        checked_accuracy(self.min_accuracy)
        checked_confidence(self.confidence)

    def check(self, trial: Trial, config: Config | Mapping[str, Any]) -> LatencyEstimate:
        """Hold a configuration against the budget.

        The trial gets its constraints, of which 0 and less are feasible: under `name` the logarithm
        of the lower end of the latency over the budget, and under ``accuracy``, if one is asked
        for, how far the upper end of the accuracy is below that. What is expected becomes its user
        attributes ``predicted_microseconds`` and ``predicted_accuracy``.

        Parameters
        ----------
        trial : optuna.Trial
            Of a study of any number of objectives.
        config : Config or mapping
            What the trial would train.

        Returns
        -------
        LatencyEstimate

        Raises
        ------
        optuna.TrialPruned
            If the latency is sure to be above the budget, or the accuracy too low.
        ConfigError, PredictorError
            If the configuration is refused, or the predictor cannot answer for it.

        Warns
        -----
        UserWarning
            Once for each key that gives reason to trust predictions less, such as a knob outside
            the calibrated domain.
        """
        estimate, constraints = self.judge(config)
        for key, value in constraints.items():
            trial.set_constraint(key, value)
        trial.set_user_attr("predicted_microseconds", estimate.microseconds)
        trial.set_user_attr("predicted_accuracy", estimate.accuracy)
        for sentence in estimate.warnings:
            key = sentence.partition(":")[0]
            if key not in self._warned:
                self._warned.add(key)
                warnings.warn(f"{sentence} (told once for {key})", stacklevel=2)
        if any(value > 0 for value in constraints.values()):
            raise optuna.TrialPruned(self._reason(estimate))
        return estimate

    def judge(self, config: Config | Mapping[str, Any]) -> tuple[LatencyEstimate, dict[str, float]]:
        """Give the estimate of a configuration and its constraints, as `check` sets them."""
        estimate = self.predictor.estimate(
            load_config(config), confidence=self.confidence, fidelity="hyperparameters"
        )
        constraints = {self.name: math.log(_lowest_us(estimate) / self.budget_us)}
        if self.min_accuracy is not None and estimate.interval_accuracy is not None:
            constraints["accuracy"] = self.min_accuracy - estimate.interval_accuracy[1]
        return estimate, constraints

    def _reason(self, estimate: LatencyEstimate) -> str:
        lowest = _lowest_us(estimate)
        if lowest > self.budget_us:
            return f"at least {lowest:.4g} us, above the budget of {self.budget_us:g} us"
        assert estimate.interval_accuracy is not None
        most = estimate.interval_accuracy[1]
        return f"an accuracy of at most {most:.3g}, below {self.min_accuracy:g}"


class FeasibleSampler(optuna.samplers.BaseSampler):
    """Asks another sampler again until a point may be within the budget.

    It takes the first point that passes the gate. A quarter of the tries are the sampler's, the
    others are drawn at random: many samplers learn from finished trials alone, and would propose
    what they know nothing of again and again. So that they do learn, points of theirs that did not
    pass enter the study as pruned trials, with their constraints; they do not count as trials of
    ``optimize``. If no try passes, the point that came nearest is taken, and the gate ends it.

    Parameters
    ----------
    sampler : BaseSampler
        Any but those that decide for themselves when all points have been visited.
    gate : LatencyGate
    distributions : mapping of str to distribution
        All parameters that the gate must know; `suggest_params` suggests them. The objective may
        suggest others, which the sampler gives as ever.
    config_of : mapping or callable
        Base of the configurations, whose keys the parameters are (``neuron.beta``); or what makes
        a configuration of the parameters.
    tries : int, optional
        Most points to try for a trial.
    seed : int, optional
        Of the tries at random.

    Raises
    ------
    InputError
        If one of them is not allowed.
    ConfigError
        While sampling, if no point that was tried is a valid configuration.
    """

    def __init__(
        self,
        sampler: optuna.samplers.BaseSampler,
        gate: LatencyGate,
        distributions: Mapping[str, BaseDistribution],
        config_of: ConfigOf,
        *,
        tries: int = 64,
        seed: int | None = None,
    ) -> None:
        samplers = optuna.samplers
        visiting = samplers.GridSampler | samplers.BruteForceSampler
        if not isinstance(sampler, samplers.BaseSampler) or isinstance(sampler, visiting):
            rule = "must be an Optuna sampler, but none that visits every point once"
            raise InputError(f"sampler: {rule}; got {type(sampler).__name__}")
        check_whole("tries", tries, 1, 10**6)
        self._sampler = sampler
        self._gate = gate
        self._distributions = known_distributions(distributions)
        self._config_of = partial(configured, config_of) if not callable(config_of) else config_of
        self._tries = tries
        if seed is not None:  # other points than those of a sampler with the same seed
            seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
        self._random = samplers.RandomSampler(seed)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._sampler})"

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Give all parameters that the gate must know, for they are judged together."""
        known = self._distributions.items()
        return {name: distribution for name, distribution in known if not distribution.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Try points until one passes the gate."""
        best: _Point | None = None
        rejected = []
        for number in range(self._tries):
            own = number < self._tries * _OWN_SHARE
            sampler = self._sampler if own else self._random
            point = self._judged(self._proposed(study, trial, search_space, sampler))
            best = point if best is None or point.excess < best.excess else best
            if best.excess <= 0:
                break
            if own:
                rejected.append(point)
        assert best is not None
        if best.error is not None:
            rule = f"none of the {self._tries} points that were tried is valid"
            raise ConfigError(f"distributions: {rule}; {best.error}") from best.error
        for point in rejected:
            if point is not best:
                self._tell(study, point)
        return {name: best.params[name] for name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Leave parameters that the gate does not know to the sampler."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Tell the sampler."""
        self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Give the sampler, and the tries at random, other random numbers."""
        self._sampler.reseed_rng()
        self._random.reseed_rng()

    def _proposed(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        sampler: optuna.samplers.BaseSampler,
    ) -> dict[str, Any]:
        """Give a point of a sampler, in the order of the parameters."""
        inner = sampler.infer_relative_search_space(study, trial)
        inner = {name: each for name, each in inner.items() if name in search_space}
        together = sampler.sample_relative(study, trial, inner) if inner else {}
        return {
            name: together[name]
            if name in together
            else sampler.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def _judged(self, params: Params) -> _Point:
        single = {
            name: single_value(distribution)
            for name, distribution in self._distributions.items()
            if distribution.single()
        }
        params = {**single, **params}
        try:
            _, constraints = self._gate.judge(self._config_of(params))
        except ConfigError as error:
            return _Point(params, {self._gate.name: WIDEST}, error)
        return _Point(params, constraints)

    def _tell(self, study: optuna.Study, point: _Point) -> None:
        """Let the study know of a point that did not pass."""
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED,
                params=dict(point.params),
                distributions=self._distributions,
                constraints=dict(point.constraints),
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """Parameters that were tried, their constraints, and why they are refused if they are."""

    params: Params
    constraints: Mapping[str, float]
    error: ConfigError | None = None

    @property
    def excess(self) -> float:
        """How far it is from passing the gate."""
        return sum(max(value, 0.0) for value in self.constraints.values())


def _lowest_us(estimate: LatencyEstimate) -> float:
    """Lower end of the latency, in microseconds."""
    return estimate.microseconds * estimate.interval_cycles[0] / estimate.cycles
