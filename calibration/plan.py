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
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..config import Config, TrainingConfig, error_sentence, read_yaml, require_rtl
from ..datasets import require_binary
from ..errors import ConfigError
from ..space import (
    MOST_RUNS,
    Range,
    Space,
    SpaceSection,
    choices_of,
    configured,
    is_below,
    is_bundle,
)

__all__ = ["Limits", "Plan", "Range", "Repeats", "read_plan"]

_SEED = "training.seed"


class Repeats(SpaceSection):
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


class Limits(SpaceSection):
    """What a run may take before it is given up as a row with that reason."""

    seconds: Annotated[float, Field(gt=0)] = 3600.0
    gibibytes: Annotated[float, Field(gt=0, description="memory of all its processes")] = 8.0


class Plan(Space):
    """A sampled part of the design space.

    Attributes
    ----------
    base, vary, sampler, seed
        As those of a `Space`; the seed also serves whatever draws from the plan later.
    runs : int or None
        Sampled points; None for a grid.
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

    samples: Annotated[int, Field(ge=1, le=64)] = 16
    repeats: Repeats | None = None
    timing_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    spot_checks: Annotated[int, Field(ge=1, le=64)] = 1
    limits: Limits = Limits()
    held_out: dict[
        Literal["unseen_topology", "unseen_surrogate", "unseen_dataset"],
        Annotated[tuple[str, ...], Field(min_length=1)],
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.sampler != "grid" and self.runs is None:
            raise ValueError(f"runs: required with the sampler {self.sampler}, got nothing")
        if self.size > MOST_RUNS:
            key, what = ("vary", "combinations") if self.sampler == "grid" else ("runs", "runs")
            again = " with repeats" if self.repeats is not None else ""
            raise ValueError(f"{key}: at most {MOST_RUNS} {what}{again}, got {self.size}")
        if self.spot_checks > self.samples:
            raise ValueError(f"spot_checks: at most the {self.samples} samples, "
                             f"got {self.spot_checks}")  # fmt: skip
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
        bundles = (choices_of(*knob) for knob in self.vary.items() if is_bundle(knob[0]))
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
    def size(self) -> int:
        """Count the runs by number, of which two may be the same."""
        repeats = self.repeats
        again = 0 if repeats is None else repeats.of(self.points) * len(repeats.seeds)
        return self.points + again

    def config(self, number: int) -> Config:
        """Give the configuration of one run: the points by number, then their repeats."""
        point, changes = self._changes(number)
        try:
            config = configured(self.base, changes)
            require_rtl(config)
            require_binary(config)
        except ConfigError as error:
            raise ConfigError(f"point {point + 1} of the plan: {error}") from error
        if config.dataset is None:
            raise ConfigError(f"point {point + 1} of the plan: dataset: required to train")
        return config

    def examples(self, *keys: str, among: Iterable[int] | None = None) -> list[int]:
        """Give one run for each combination of what some keys of a configuration vary over.

        Parameters
        ----------
        *keys : str
            Keys or sections.
        among : iterable of int, optional
            Runs by number; all by default.
        """
        if not any(is_below(name, keys) or is_bundle(name) for name in self.vary):
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
            if keys is None or is_below(_SEED, keys):
                repeat = {_SEED: self.repeats.seeds[place]}
        return point, self.changes(point, keys) | repeat


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
