"""Calibration plans: which training runs a campaign does.

A plan is a YAML file. `base` holds keys of a configuration, `vary` names what changes from run to
run. Every run of a plan is a valid `Config` before the first one starts.

    base:
      dataset: nmnist-saccade
      training: {epochs: 4}
    vary:
      network: [8C3-MP2-10, 8C3-MP2-16C3-MP2-10]
      neuron.beta: {low: 0.3, high: 0.99}
      training.lr: {low: 3.0e-4, high: 2.0e-2, log: true}
      camera:
        - {input.camera_threshold: 0.38}
        - {input.encoding: latency, input.channels: 1}
    sampler: halton
    runs: 12
    seed: 1
    samples: 16
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cache, cached_property
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from ..config import (
    Config,
    TrainingConfig,
    error_sentence,
    load_config,
    read_yaml,
    require_rtl,
)
from ..datasets import require_binary
from ..errors import ConfigError

__all__ = ["Limits", "Plan", "Range", "Repeats", "read_plan"]

_SIGNIFICANT_DIGITS = 4
_MOST_RUNS = 1_000_000
_SEED = "training.seed"

_Choices = Annotated[tuple[Any, ...], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Section):
    """Numbers between two bounds; whole numbers where the configuration asks for them."""

    low: float
    high: float
    log: Annotated[bool, Field(description="spread evenly over magnitudes")] = False

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("low must be positive on a log scale")
        return self

    @property
    def holds_whole(self) -> bool:
        """Whether there is a whole number between them."""
        return math.ceil(self.low) <= math.floor(self.high)

    def at(self, share: float) -> float:
        """Value at a share in [0, 1) of the way from `low` to `high`."""
        if self.log:
            return math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)


class Repeats(_Section):
    """Points that are run again with other training seeds, to measure the noise of seeds."""

    points: Annotated[
        Annotated[int, Field(ge=1)] | None, Field(description="the first so many points")
    ] = None
    share: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="instead of points: the first ones, up to this share of all"),
    ] = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_seeds(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"repeats.seeds: must differ, got {list(self.seeds)}")
        return self

    @model_validator(mode="after")
    def _check_points(self) -> Self:
        if (self.points is None) == (self.share is None):
            given = "neither" if self.points is None else "both"
            raise ValueError(f"repeats.points: either this or share is required, got {given}")
        return self

    def of(self, points: int) -> int:
        """Count the points that are run again, out of so many."""
        if self.share is not None:
            return math.ceil(self.share * points)
        return min(self.points or 0, points)


class Limits(_Section):
    """What a run may take before it is given up as a row with that reason."""

    seconds: Annotated[float, Field(gt=0)] = 3600.0
    gibibytes: Annotated[float, Field(gt=0, description="memory of all its processes")] = 8.0


_Variation = Annotated[
    Annotated[_Choices, Tag("[choices]")] | Annotated[Range, Tag("[range]")],
    Discriminator(lambda value: "[range]" if isinstance(value, Mapping | Range) else "[choices]"),
]


class Plan(_Section):
    """A sampled part of the design space.

    Attributes
    ----------
    base : dict
        Keys of a configuration that hold for every run.
    vary : dict
        Key of a configuration, joined by dots, to a list of choices or a `Range`. Under any other
        name, a list of mappings from such keys to values: knobs that change together. No two may
        set the same key.
    sampler : {"halton", "sobol", "grid"}
        Scrambled Halton points, for plans of any size; scrambled Sobol points, better balanced
        from 64 on; or all combinations of the choices. Fewer Sobol points than that tie choices
        together: of 11 knobs in 30 points, some two always change at once.
    runs : int or None
        Sampled points; None for a grid.
    seed : int
        Seed of the sampler, and of whatever draws from the plan later.
    samples : int
        Test samples that are measured per run.
    timing_share : float
        Share of the runs, chosen by their hash, whose cycles come from the timing model; of their
        samples only `spot_checks` run through the RTL, which must agree to the cycle.
    spot_checks : int
        See `timing_share`.
    limits : Limits
        Time and memory of a run.
    held_out : dict
        Values that make up the test part of a frozen split, by its name; see
        `spikemeter.calibration.splits`.
    repeats : Repeats or None
        Points to run again with other training seeds than they have.
    """

    base: dict[str, Any]
    vary: dict[str, _Variation] = {}
    sampler: Literal["halton", "sobol", "grid"] = "halton"
    runs: Annotated[int, Field(ge=1, le=_MOST_RUNS)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    samples: Annotated[int, Field(ge=1, le=64)] = 16
    repeats: Repeats | None = None
    timing_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    spot_checks: Annotated[int, Field(ge=1, le=64)] = 1
    limits: Limits = Limits()
    held_out: dict[Literal["unseen_topology", "unseen_surrogate", "unseen_dataset"],
                   Annotated[tuple[str, ...], Field(min_length=1)]] = {}  # fmt: skip

    @model_validator(mode="after")
    def _check_sampler(self) -> Self:
        ranges = [key for key, variation in self.vary.items() if isinstance(variation, Range)]
        for key, choices in self.vary.items():
            if _is_bundle(key) and not _are_mappings(choices):
                rule = "is no key of a configuration; choices under another name must be mappings"
                raise ValueError(f"vary.{key}: {rule} of keys to values, got {choices!r}")
        if self.sampler == "grid" and ranges:
            raise ValueError(f"vary.{ranges[0]}: must be a list of choices in a grid, got a range")
        if self.sampler == "grid" and self.runs is not None:
            raise ValueError(f"runs: a grid runs every combination, got {self.runs}")
        if self.sampler != "grid" and self.runs is None:
            raise ValueError(f"runs: required with the sampler {self.sampler}, got nothing")
        if self.size > _MOST_RUNS:
            key, what = ("vary", "combinations") if self.sampler == "grid" else ("runs", "runs")
            again = " with repeats" if self.repeats is not None else ""
            raise ValueError(f"{key}: at most {_MOST_RUNS} {what}{again}, got {self.size}")
        if self.spot_checks > self.samples:
            raise ValueError(f"spot_checks: at most the {self.samples} samples, "
                             f"got {self.spot_checks}")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _check_knobs(self) -> Self:
        setters: dict[str, str] = {}
        for name, variation in self.vary.items():
            if isinstance(variation, Range) and _is_whole(name) and not variation.holds_whole:
                given = f"got {variation.low:g} to {variation.high:g}"
                raise ValueError(f"vary.{name}: must hold a whole number, {given}")
            for choice in _choices_of(name, variation):
                _refuse_clash(name, choice, setters)
            setters |= {key: name for choice in _choices_of(name, variation) for key in choice}
        return self

    @model_validator(mode="after")
    def _check_repeats(self) -> Self:
        for seed in () if self.repeats is None else self.repeats.seeds:
            if self._is_own_seed(seed):
                rule = "must be other seeds than the points have"
                raise ValueError(f"repeats.seeds: {rule}, got {seed}")
        return self

    def _is_own_seed(self, seed: int) -> bool:
        """Tell whether a point may have a training seed by itself."""
        varied = self.vary.get(_SEED)
        if isinstance(varied, Range):
            return varied.low <= seed <= varied.high
        training = self.base.get("training")
        given = training.get("seed") if isinstance(training, Mapping) else None
        own = [TrainingConfig().seed if given is None else given] if varied is None else [*varied]
        bundles = (_choices_of(*knob) for knob in self.vary.items() if _is_bundle(knob[0]))
        own += [choice[_SEED] for choices in bundles for choice in choices if _SEED in choice]
        return seed in own

    def simulated(self, run_id: str) -> int:
        """Count the samples of a run that go through the RTL."""
        by_timing = int(run_id[:8], 16) / 16**8 < self.timing_share
        return self.spot_checks if by_timing else self.samples

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan, as 64 hexadecimal digits; the order of the knobs matters."""
        text = json.dumps(self.model_dump(mode="json"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Digest of every run's configuration, by number; validates each one.

        A plan of many runs is not kept in memory as a whole.

        Raises
        ------
        ConfigError
            If a point is no valid configuration, names no data set to train on, or a machine
            without RTL to measure.
        """
        return tuple(self.config(number).digest for number in range(self.size))

    @property
    def points(self) -> int:
        """Count the sampled points, without repeats."""
        if self.sampler == "grid":
            return math.prod(len(choices) for choices in self._choices)
        return (self.runs or 0) if self.vary else 1

    @property
    def size(self) -> int:
        """Count the runs by number, of which two may be the same."""
        repeats = self.repeats
        again = 0 if repeats is None else repeats.of(self.points) * len(repeats.seeds)
        return self.points + again

    def config(self, number: int) -> Config:
        """Give the configuration of one run: the points by number, then their repeats."""
        point, changes = self._changes(number)
        return _config(self.base, changes, point)

    def examples(self, *keys: str, among: Iterable[int] | None = None) -> list[int]:
        """Give one run for each combination of what some keys of a configuration vary over.

        Parameters
        ----------
        *keys : str
            Keys or sections.
        among : iterable of int, optional
            Runs by number; all by default.
        """
        if not any(_is_below(name, keys) or _is_bundle(name) for name in self.vary):
            return list(among if among is not None else [0])[:1]
        found: dict[str, int] = {}
        for number in range(self.size) if among is None else among:
            part = self._changes(number, keys)[1]
            found.setdefault(repr(part), number)
        return list(found.values())

    def _changes(
        self, number: int, keys: Sequence[str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Point behind a run, and what the run changes in the base, or of that some keys alone."""
        point, repeat = number, {}
        if number >= self.points:
            assert self.repeats is not None
            point, place = divmod(number - self.points, len(self.repeats.seeds))
            if keys is None or _is_below(_SEED, keys):
                repeat = {_SEED: self.repeats.seeds[place]}
        grid = self.sampler == "grid"
        drawn = _combination(self._choices, point) if grid else self._shares[point].tolist()
        changes: dict[str, Any] = {}
        for (key, variation), share in zip(self.vary.items(), drawn, strict=True):
            value = share if grid else _value(key, variation, share)
            changes |= value if _is_bundle(key) else {key: value}
        if keys is not None:
            changes = {key: value for key, value in changes.items() if _is_below(key, keys)}
        return point, changes | repeat

    @property
    def _choices(self) -> list[tuple[Any, ...]]:
        return [choices for choices in self.vary.values() if not isinstance(choices, Range)]

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """Points of the sequence, shape (points, knobs); a longer plan starts with the same."""
        if not self.vary:
            return np.empty((1, 0))
        return _sequence(self.sampler, len(self.vary), self.points, self.seed)


def read_plan(path: str | Path, *, every_run: bool = True) -> Plan:
    """Read a plan and validate every run of it.

    Parameters
    ----------
    path : str or Path
        YAML file.
    every_run : bool, optional
        Without it the runs of a plan that was validated before are taken on trust.

    Returns
    -------
    Plan
        With valid runs.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key, a value or one of its runs is not allowed.
    """
    try:
        plan = Plan.model_validate(dict(read_yaml(Path(path), "plan")))
    except ValidationError as error:
        raise ConfigError(error_sentence(error, Plan)) from error
    if every_run:
        _ = plan.digests
    return plan


def _is_bundle(name: str) -> bool:
    """Tell whether a name of `Plan.vary` is no key, but stands for knobs that change together."""
    return name.partition(".")[0] not in Config.model_fields and "." not in name


def _is_below(name: str, keys: Sequence[str]) -> bool:
    """Tell whether a key is one of some, or in a section of them."""
    return any(name == key or name.startswith(f"{key}.") for key in keys)


def _are_mappings(choices: object) -> bool:
    """Tell whether these are choices of keys and values."""
    return isinstance(choices, tuple) and all(
        isinstance(choice, Mapping) and all(isinstance(key, str) for key in choice)
        for choice in choices
    )


def _choices_of(name: str, variation: tuple[Any, ...] | Range) -> Sequence[Mapping[str, Any]]:
    """Keys and values that a knob may set, one mapping for each choice; a range is one choice."""
    if _is_bundle(name) and not isinstance(variation, Range):
        return variation
    return [{name: variation}]


def _refuse_clash(name: str, choice: Mapping[str, Any], setters: Mapping[str, str]) -> None:
    """Refuse a choice whose keys, or sections of them, are also set by it or by another knob."""
    seen = dict(setters)
    for key in choice:
        for other, setter in seen.items():
            if _is_below(key, [other]) or _is_below(other, [key]):
                raise ValueError(f"vary.{name}: sets {key}, and vary.{setter} sets {other}")
        seen[key] = name


def _combination(choices: Sequence[Sequence[Any]], number: int) -> list[Any]:
    """One of all combinations, counted with the last one changing fastest."""
    chosen = []
    for options in reversed(choices):
        number, place = divmod(number, len(options))
        chosen.append(options[place])
    return chosen[::-1]


def _sequence(sampler: str, dimensions: int, points: int, seed: int) -> NDArray[np.float64]:
    """Shares in [0, 1), shape (points, dimensions)."""
    from scipy.stats import qmc

    if sampler == "halton":
        shares = qmc.Halton(dimensions, scramble=True, rng=seed).random(points)
    else:  # whole powers of two are what Sobol points are balanced for
        sequence = qmc.Sobol(dimensions, scramble=True, rng=seed)
        shares = sequence.random_base2(math.ceil(math.log2(points)))[:points]
    return np.asarray(shares, dtype=np.float64)


def _value(key: str, variation: tuple[Any, ...] | Range, share: float) -> Any:
    if not isinstance(variation, Range):
        return variation[int(share * len(variation))]
    if _is_whole(key):
        bounds = Range(low=variation.low, high=variation.high + 1, log=variation.log)
        return min(max(math.floor(bounds.at(share)), math.ceil(variation.low)),
                   math.floor(variation.high))  # fmt: skip
    rounded = float(f"{variation.at(share):.{_SIGNIFICANT_DIGITS}g}")
    return min(max(rounded, variation.low), variation.high)


@cache
def _is_whole(key: str) -> bool:
    """Tell whether the configuration asks for a whole number under this key, if for a number."""
    model: type[BaseModel] = Config
    annotation: Any = None
    for part in key.split("."):
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    kinds = _kinds(annotation)
    return int in kinds and float not in kinds


def _kinds(annotation: Any) -> set[Any]:
    """Types among which a value may choose."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation}


def _config(base: Mapping[str, Any], changes: Mapping[str, Any], number: int) -> Config:
    content = deepcopy(dict(base))
    try:
        for key, value in changes.items():
            _set(content, key.split("."), value)
        config = load_config(content)
        require_rtl(config)
        require_binary(config)
    except ConfigError as error:
        raise ConfigError(f"point {number + 1} of the plan: {error}") from error
    if config.dataset is None:
        raise ConfigError(f"point {number + 1} of the plan: dataset: required to train")
    return config


def _set(content: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        section = content.setdefault(part, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{part}: should hold keys and values, got {section!r}")
        content = section
    content[path[-1]] = value
