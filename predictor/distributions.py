"""Search spaces of Optuna as spaces of configurations, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, InputError, MissingToolError
from ..space import Range, Space, WholeRange, is_whole, read_space

try:
    import optuna
except ImportError as error:
    raise MissingToolError(
        "optuna is not installed, and this needs it; install spikemeter[sweep]"
    ) from error

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

__all__ = [
    "known_distributions",
    "optuna",
    "single_value",
    "space_of",
    "suggest_params",
    "tightened_distributions",
]

_MOST_STEPS = 100_000
_Float = optuna.distributions.FloatDistribution
_Int = optuna.distributions.IntDistribution
_Categorical = optuna.distributions.CategoricalDistribution


def suggest_params(trial: Trial, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Suggest parameters whose distributions are given.

    Parameters
    ----------
    trial : optuna.Trial
    distributions : mapping of str to distribution

    Returns
    -------
    dict of str to value
        For `spikemeter.space.configured`, if the names are keys of a configuration.
    """
    params: dict[str, Any] = {}
    for name, each in known_distributions(distributions).items():
        if isinstance(each, _Float):
            params[name] = trial.suggest_float(
                name, each.low, each.high, step=each.step, log=each.log
            )
        elif isinstance(each, _Int):
            params[name] = trial.suggest_int(
                name, each.low, each.high, step=each.step, log=each.log
            )
        elif isinstance(each, _Categorical):
            params[name] = trial.suggest_categorical(name, each.choices)
    return params


def known_distributions(
    distributions: Mapping[str, BaseDistribution] | optuna.Study,
) -> dict[str, BaseDistribution]:
    """Read a search space; of a study, what its finished trials have in common.

    Raises
    ------
    InputError
        If there is none, or something else than distributions.
    """
    if isinstance(distributions, optuna.Study):
        trials = distributions.get_trials(deepcopy=False)
        distributions = optuna.search_space.intersection_search_space(trials)
        if not distributions:
            raise InputError("distributions: the finished trials of the study have none in common")
    if not isinstance(distributions, Mapping) or not distributions:
        rule = "must hold a distribution for each knob, one at least"
        raise InputError(f"distributions: {rule}; got {distributions!r}")
    for name, each in distributions.items():
        if not isinstance(each, _Float | _Int | _Categorical):
            raise InputError(f"distributions.{name}: must be one of Optuna's, got {each!r}")
    return dict(distributions)


def space_of(distributions: Mapping[str, BaseDistribution], base: Mapping[str, Any]) -> Space:
    """Make a space of a search space of Optuna.

    Parameters
    ----------
    distributions : mapping of str to distribution
        Names are flat keys of a configuration.
    base : mapping
        Keys of a configuration that stay.

    Raises
    ------
    ConfigError
        If a name is no key, or a distribution does not suit it.
    """
    vary = {name: _variation(name, each) for name, each in distributions.items()}
    try:
        return read_space({"base": base, "vary": vary, "sampler": "sobol"})
    except ConfigError as error:
        raise ConfigError(str(error).replace("vary.", "distributions.")) from error


def tightened_distributions(
    distributions: Mapping[str, BaseDistribution], space: Space
) -> dict[str, BaseDistribution]:
    """Give the distributions what is left of their ranges and choices in a space."""
    tightened: dict[str, BaseDistribution] = {}
    for name, each in distributions.items():
        left = space.vary[name]
        low, high = (left.low, left.high) if isinstance(left, Range) else (left[0], left[-1])
        if isinstance(each, _Float):
            tightened[name] = _Float(low, high, log=each.log, step=each.step)
        elif isinstance(each, _Int):
            tightened[name] = _Int(int(low), int(high), log=each.log, step=each.step)
        else:
            assert not isinstance(left, Range)
            tightened[name] = _Categorical(left)
    return tightened


def _variation(name: str, distribution: BaseDistribution) -> tuple[Any, ...] | Range:
    """Range or choices of a distribution."""
    if isinstance(distribution, _Categorical):
        return tuple(distribution.choices)
    assert isinstance(distribution, _Float | _Int)
    low, high, step = distribution.low, distribution.high, distribution.step
    whole = isinstance(distribution, _Int)
    if is_whole(name) and not whole:
        rule = "must be an IntDistribution, because the key takes whole numbers"
        raise ConfigError(f"distributions.{name}: {rule}; got {distribution}")
    if distribution.single():
        return (low,)
    if step is not None and not (whole and step == 1):
        steps = round((high - low) / step)
        if steps > _MOST_STEPS:
            rule = f"must have at most {_MOST_STEPS} steps"
            raise ConfigError(f"distributions.{name}: {rule}, got {steps}")
        return tuple(min(low + place * step, high) for place in range(steps + 1))
    kind = WholeRange if whole else Range
    return kind(low=low, high=high, log=distribution.log)


def single_value(distribution: BaseDistribution) -> Any:
    """Give the value of a distribution that has no other."""
    if isinstance(distribution, _Categorical):
        return distribution.choices[0]
    assert isinstance(distribution, _Float | _Int)
    return distribution.low
