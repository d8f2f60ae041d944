"""Replays sweeps on a table of points that were trained and measured once; see `sweep.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from spikemeter import LatencyPredictor
from spikemeter.config import Config
from spikemeter.predictor.optuna import FeasibleSampler, LatencyGate
from spikemeter.predictor.pruning import prune_space
from spikemeter.space import Range, Space, configured, is_whole, read_space

PLAN = Path(__file__).parent / "sweep/plan.yaml"
CANDIDATES = 4096
LEAST_ACCURACY = 0.5
POPULATION, WARM_UP = 20, 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A way to sweep."""

    name: str
    sampler: str = "tpe"
    stops_at: str | None = None
    gated: bool = False
    min_accuracy: float | None = None
    feasible: bool = False
    tightened: bool = False

    @property
    def asks(self) -> str:
        """What it holds trials against, if anything."""
        if self.min_accuracy is not None:
            return "budget, accuracy"
        return "budget" if self.gated or self.stops_at == "fitted" else ""


ARMS = (
    Arm(name="random", sampler="random"),
    Arm(name="tpe"),
    Arm(name="nsga2", sampler="nsga2"),
    Arm(name="spikes", stops_at="median"),
    Arm(name="spikes, fitted", stops_at="fitted"),
    Arm(name="gate", gated=True),
    Arm(name="gate, accuracy", gated=True, min_accuracy=LEAST_ACCURACY),
    Arm(name="feasible", gated=True, feasible=True),
    Arm(name="feasible, accuracy", gated=True, min_accuracy=LEAST_ACCURACY, feasible=True),
    Arm(name="tightened", gated=True, tightened=True),
)


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows that were trained and measured, and the space that they are points of."""

    table: pd.DataFrame
    space: Space

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def params(self) -> list[dict[str, Any]]:
        return self.table[list(self.space.vary)].to_dict("records")

    @cached_property
    def configs(self) -> list[Config]:
        return [configured(self.space.base, params) for params in self.params]

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {key: distribution(key, varied) for key, varied in self.space.vary.items()}

    @cached_property
    def places(self) -> Floats:
        return np.array([self.place(params) for params in self.params])

    def place(self, params: Mapping[str, Any]) -> Floats:
        """Where parameters lie, so that distances are sums of absolute differences."""
        parts = [placed(varied, params[key]) for key, varied in self.space.vary.items()]
        parts[[*self.space.vary].index("network")] *= len(parts)  # a network comes before all else
        return np.concatenate(parts)

    @property
    def accuracy(self) -> Floats:
        return self.table["accuracy"].to_numpy()

    @cached_property
    def microseconds(self) -> Floats:
        clock = np.array([config.hardware.clock_mhz for config in self.configs])
        return np.asarray(self.table["cycles"] / clock)

    @cached_property
    def training_seconds(self) -> Floats:
        rows = self.table.assign(epoch=self.table["seconds.train"] / self.table["training.epochs"])
        epoch = rows.groupby(["network", "training.batch_size"])["epoch"].transform("median")
        return np.asarray(epoch * self.table["training.epochs"])

    @cached_property
    def simulation_seconds(self) -> Floats:
        return np.asarray(
            self.table.groupby("network")["seconds.simulate"].transform("median"), dtype=float
        )


def read_pool(path: Path) -> Pool:
    pool = Pool(pd.read_parquet(path), read_space(PLAN))
    for point, params in zip(pool.table["point"], pool.params, strict=True):
        if pool.space.changes(point) != params:
            raise SystemExit(f"--pool: {path} is of another plan, or drawn by another SciPy")
    return pool


def distribution(key: str, varied: tuple[Any, ...] | Range) -> BaseDistribution:
    if not isinstance(varied, Range):
        return CategoricalDistribution(varied)
    if varied.whole or is_whole(key):
        return IntDistribution(int(varied.low), int(varied.high), log=varied.log)
    return FloatDistribution(varied.low, varied.high, log=varied.log)


def placed(varied: tuple[Any, ...] | Range, value: Any) -> Floats:
    """Place of a value: one number in its range or order, or which of the choices it is."""
    if isinstance(varied, Range):
        scale = math.log if varied.log else float
        low, high, at = (scale(number) for number in (varied.low, varied.high, value))
        return np.array([(at - low) / (high - low)])
    place = varied.index(value)
    if all(isinstance(choice, int | float) and choice is not True and choice is not False
           for choice in varied):  # fmt: skip
        return np.array([place / (len(varied) - 1)])
    return np.eye(len(varied))[place] / 2


def contains(known: BaseDistribution, value: Any) -> bool:
    if isinstance(known, CategoricalDistribution):
        return value in known.choices
    assert isinstance(known, FloatDistribution | IntDistribution)
    return known.low <= value <= known.high


class PoolSampler(optuna.samplers.BaseSampler):
    """Lets another sampler propose, and takes the nearest row of the pool that is left."""

    def __init__(
        self, inner: optuna.samplers.BaseSampler, pool: Pool, space: Mapping[str, BaseDistribution]
    ) -> None:
        self.inner, self.pool, self.space = inner, pool, space
        self.left = [row for row, params in enumerate(pool.params)
                     if all(contains(space[name], params[name]) for name in space)]  # fmt: skip
        self.row = -1

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return {name: each for name, each in self.space.items() if not each.single()}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        inner = self.inner.infer_relative_search_space(study, trial)
        together = self.inner.sample_relative(study, trial, inner) if inner else {}
        proposed = dict(self.pool.params[self.left[0]])  # for what has a single value
        for name, each in search_space.items():
            proposed[name] = (
                together[name] if name in together
                else self.inner.sample_independent(study, trial, name, each)
            )  # fmt: skip
        far = np.abs(self.pool.places[self.left] - self.pool.place(proposed)).sum(axis=1)
        self.row = self.left.pop(int(np.argmin(far)))
        return {name: self.pool.params[self.row][name] for name in search_space}

    def sample_independent(self, study: Any, trial: Any, name: str, known: Any) -> Any:
        raise AssertionError(f"{name} is no parameter of the space")

    def before_trial(self, study: Any, trial: Any) -> None:
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)


@dataclass(slots=True)
class Sweep:
    """What a replayed sweep has paid, and what it has got for it."""

    seconds: float = 0.0
    own_seconds: float = 0.0
    trained: list[int] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def think(self, begin: float) -> None:
        """Pay for CPU time since `begin`."""
        taken = time.process_time() - begin
        self.seconds, self.own_seconds = self.seconds + taken, self.own_seconds + taken


def replay(
    pool: Pool,
    predictor: LatencyPredictor,
    arm: Arm,
    budget_us: float,
    seed: int,
    has_all: Callable[[Sweep], bool],
) -> Sweep:
    """Sweep until there is nothing left to be had, or no row of the pool."""
    sweep, begin = Sweep(), time.process_time()
    space = pool.distributions
    if arm.tightened:
        pruned = prune_space(distributions=space, base=pool.space.base, budget_us=budget_us,
                             candidates=CANDIDATES, predictor=predictor)  # fmt: skip
        assert pruned.tightened is not None
        space = pruned.tightened
    gate = LatencyGate(predictor, budget_us, min_accuracy=arm.min_accuracy)
    inner = inner_sampler(arm.sampler, seed)
    if arm.feasible:
        inner = FeasibleSampler(inner, gate, space, pool.space.base, seed=seed)
    sampler = PoolSampler(inner, pool, space)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    sweep.think(begin)
    while sampler.left and not has_all(sweep):
        begin = time.process_time()
        trial = study.ask(dict(space))
        row = sampler.row
        try:
            if arm.gated:
                gate.check(trial, pool.configs[row])
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            sweep.refused.append(row)
            sweep.think(begin)
            continue
        sweep.think(begin)
        if arm.stops_at is not None and too_many_spikes(pool, arm.stops_at, sweep, row, budget_us):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            sweep.seconds += pool.training_seconds[row] / pool.table["training.epochs"].iloc[row]
            sweep.stopped.append(row)
            continue
        sweep.seconds += pool.training_seconds[row] + pool.simulation_seconds[row]
        sweep.trained.append(row)
        sweep.paid.append(sweep.seconds)
        begin = time.process_time()
        study.tell(trial, [pool.accuracy[row], pool.microseconds[row]])
        sweep.think(begin)
    return sweep


def inner_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def too_many_spikes(pool: Pool, rule: str, sweep: Sweep, row: int, budget_us: float) -> bool:
    """Whether somebody who counts spikes after the first epoch would end this training."""
    if len(sweep.trained) < WARM_UP:
        return False
    spikes = np.log1p(pool.table["spikes.first_epoch"].to_numpy())
    if rule == "median":
        return bool(spikes[row] > np.median(spikes[sweep.trained + sweep.stopped]))
    slope, offset = np.polyfit(spikes[sweep.trained], np.log(pool.microseconds[sweep.trained]), 1)
    return bool(slope * spikes[row] + offset > math.log(budget_us))
