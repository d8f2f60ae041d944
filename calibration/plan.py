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
    sampler: halton
    runs: 12
    seed: 1
    samples: 16
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from ..config import Config, error_sentence, load_config, read_yaml, require_rtl
from ..errors import ConfigError

__all__ = ["Plan", "Range", "Repeats", "read_plan"]

_SIGNIFICANT_DIGITS = 4

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

    def at(self, share: float) -> float:
        """Value at a share in [0, 1) of the way from `low` to `high`."""
        if self.log:
            return math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)


class Repeats(_Section):
    """Points that are run again with other training seeds, to measure the noise of seeds."""

    points: Annotated[int, Field(ge=1, description="the first so many points")]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


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
        Key of a configuration, joined by dots, to a list of choices or a `Range`.
    sampler : {"halton", "sobol", "grid"}
        Scrambled Halton points, for plans of any size; scrambled Sobol points, better balanced
        from 64 on; or all combinations of the choices. Fewer Sobol points than that tie choices
        together: of 11 knobs in 30 points, some two always change at once.
    runs : int or None
        Sampled points; None for a grid.
    seed : int
        Seed of the sampler, and of whatever draws from the plan later.
    samples : int
        Test samples that are simulated per run.
    repeats : Repeats or None
        Points to run again with other training seeds.
    """

    base: dict[str, Any]
    vary: dict[str, _Variation] = {}
    sampler: Literal["halton", "sobol", "grid"] = "halton"
    runs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    samples: Annotated[int, Field(ge=1, le=64)] = 16
    repeats: Repeats | None = None

    @model_validator(mode="after")
    def _check_sampler(self) -> Self:
        ranges = [key for key, variation in self.vary.items() if isinstance(variation, Range)]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"vary.{ranges[0]}: must be a list of choices in a grid, got a range")
        if self.sampler == "grid" and self.runs is not None:
            raise ValueError(f"runs: a grid runs every combination, got {self.runs}")
        if self.sampler != "grid" and self.runs is None:
            raise ValueError(f"runs: required with the sampler {self.sampler}, got nothing")
        return self

    @cached_property
    def configs(self) -> tuple[Config, ...]:
        """Every run, in order and each once: sampled points first, then their repeats.

        Raises
        ------
        ConfigError
            If a point is no valid configuration, names no data set to train on, or a machine
            without RTL to measure.
        """
        sample = _grid if self.sampler == "grid" else _sequence
        points = [_config(self.base, point, number) for number, point in enumerate(sample(self))]
        if self.repeats is not None:
            for number, point in enumerate(points[: self.repeats.points]):
                for seed in self.repeats.seeds:
                    points.append(_config(point.model_dump(), {"training.seed": seed}, number))
        return tuple({config.digest: config for config in points}.values())


def read_plan(path: str | Path) -> Plan:
    """Read a plan and validate every run of it.

    Parameters
    ----------
    path : str or Path
        YAML file.

    Returns
    -------
    Plan
        With valid `Plan.configs`.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key, a value or one of its runs is not allowed.
    """
    try:
        plan = Plan.model_validate(dict(read_yaml(Path(path), "plan")))
    except ValidationError as error:
        raise ConfigError(error_sentence(error, Plan)) from error
    _ = plan.configs
    return plan


def _grid(plan: Plan) -> list[dict[str, Any]]:
    choices = [variation for variation in plan.vary.values() if not isinstance(variation, Range)]
    return [dict(zip(plan.vary, values, strict=True)) for values in product(*choices)]


def _sequence(plan: Plan) -> list[dict[str, Any]]:
    """Points of a sequence; a longer plan of the same seed starts with the same ones."""
    runs = plan.runs or 0
    if not plan.vary:
        return [{}]
    return [
        {
            key: _value(key, variation, share)
            for (key, variation), share in zip(plan.vary.items(), shares, strict=True)
        }
        for shares in _shares(plan.sampler, len(plan.vary), runs, plan.seed)
    ]


def _shares(sampler: str, dimensions: int, points: int, seed: int) -> list[list[float]]:
    """Shares in [0, 1), shape (points, dimensions)."""
    from scipy.stats import qmc

    if sampler == "halton":
        shares = qmc.Halton(dimensions, scramble=True, rng=seed).random(points)
    else:  # whole powers of two are what Sobol points are balanced for
        sequence = qmc.Sobol(dimensions, scramble=True, rng=seed)
        shares = sequence.random_base2(math.ceil(math.log2(points)))[:points]
    return [[float(share) for share in row] for row in shares]


def _value(key: str, variation: tuple[Any, ...] | Range, share: float) -> Any:
    if not isinstance(variation, Range):
        return variation[int(share * len(variation))]
    if _is_whole(key):
        bounds = Range(low=variation.low, high=variation.high + 1, log=variation.log)
        return math.floor(bounds.at(share))
    return float(f"{variation.at(share):.{_SIGNIFICANT_DIGITS}g}")


def _is_whole(key: str) -> bool:
    """Tell whether the configuration asks for a whole number under this key."""
    model: type[BaseModel] = Config
    annotation: Any = None
    for part in key.split("."):
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return annotation is int


def _config(base: Mapping[str, Any], changes: Mapping[str, Any], number: int) -> Config:
    content = deepcopy(dict(base))
    try:
        for key, value in changes.items():
            _set(content, key.split("."), value)
        config = load_config(content)
        require_rtl(config)
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
