"""Campaigns that choose their runs: those next whose interval is widest.

The plan is the pool. Its first points, which fill the space, are measured as they come; then, in
rounds, a predictor is fitted to what is there, and of the other points those are run of which it
knows least, until intervals are narrow enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..predictor import LatencyPredictor
from ..predictor.events import InputStatistics, coding_of
from ..predictor.features import row_from_config
from .campaign import run_campaign
from .drive import Progress
from .fit import fitted_parts
from .learning import known_statistics, tap_ratios_of
from .observed import MIN_RUNS, Observed, observed_runs
from .plan import Plan
from .runs import run_numbers
from .store import read_table
from .tuning import DEFAULT_SETTINGS

__all__ = ["AcquireReport", "Round", "acquire", "interval_widths", "widest"]

_CONFIDENCE = 0.9
_MOST_CANDIDATES = 5000


class Round(TypedDict):
    """State after some runs: 90 % intervals of the points without one, high over low, less 1."""

    runs: int
    left: int
    mean_width: float
    widest: float


class AcquireReport(TypedDict):
    """What `acquire` did; plain values, ready for JSON."""

    folder: str
    rounds: list[Round]
    stopped: str
    target_width: float | None


def acquire(
    plan: Plan,
    out: str | Path,
    *,
    first: int = 64,
    each_round: int = 32,
    target_width: float | None = None,
    most_runs: int | None = None,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    **options: Any,
) -> AcquireReport:
    """Do the runs of a plan of which least is known, round after round.

    Parameters
    ----------
    plan : Plan
        Its points are the pool; far more than will be run. Their repeats are no part of it.
    out : str or Path
        Folder of the campaign; rows that are there count, and the same folder again goes on.
    first : int, optional
        Points to begin with, in the plan's own order.
    each_round : int, optional
        Points to choose at a time.
    target_width : float, optional
        Stop when the mean width of the intervals of the points without a run, their high over
        their low end, less 1, is at most this. Default: never.
    most_runs : int, optional
        Stop at so many. Default: all points of the plan.
    progress : callable, optional
        As for `run_campaign`.
    on_round : callable, optional
        Told each `Round`.
    **options
        Further keywords of `run_campaign`.

    Returns
    -------
    AcquireReport

    Raises
    ------
    InputError
        If a number is impossible, or too few of the first runs could be measured; and whatever
        `run_campaign` raises.
    """
    most = plan.points if most_runs is None else min(most_runs, plan.points)
    _check(first, each_round, target_width, most)
    out = Path(out)
    chosen = set(range(min(first, most)))
    numbers = run_numbers(plan)
    rounds: list[Round] = []
    while True:
        run_campaign(plan, out, only=chosen, progress=progress, **options)
        table = read_table(out)
        done = {numbers[run_id] for run_id in table["run_id"] if run_id in numbers}
        chosen |= done
        candidates = [number for number in range(plan.points) if number not in chosen]
        if not candidates:
            return _report(out, rounds, "every point of the plan is done", target_width)
        widths = _widths(plan, table, candidates)
        rounds.append(
            Round(
                runs=len(done),
                left=len(candidates),
                mean_width=float(widths.mean()),
                widest=float(widths.max()),
            )
        )
        if on_round is not None:
            on_round(rounds[-1])
        if target_width is not None and rounds[-1]["mean_width"] <= target_width:
            return _report(out, rounds, "intervals are as narrow as was asked for", target_width)
        if len(chosen) >= most:
            return _report(out, rounds, f"{len(chosen)} runs, the most that was asked for",
                           target_width)  # fmt: skip
        count = min(each_round, most - len(chosen))
        chosen |= {candidates[place] for place in widest(widths, count)}


def widest(widths: NDArray[np.float64], count: int) -> list[int]:
    """Places of the widest intervals, widest first."""
    return [int(place) for place in np.argsort(-widths, kind="stable")[:count]]


def interval_widths(predictor: LatencyPredictor, configs: Sequence[Config]) -> NDArray[np.float64]:
    """Widths of 90 % intervals, high over low end, less 1; shape (configs,)."""
    import pandas as pd

    rows = pd.DataFrame([row_from_config(config) for config in configs])
    found = predictor.predict(rows, confidence=_CONFIDENCE)
    ratio = found["interval_cycles.high"] / found["interval_cycles.low"] - 1
    widths: NDArray[np.float64] = ratio.to_numpy(dtype=np.float64)
    return widths


def _widths(plan: Plan, table: Any, candidates: Sequence[int]) -> NDArray[np.float64]:
    """Fit to what is there, and ask about the others."""
    try:
        observed = observed_runs(table)
    except InputError as error:
        rule = f"at least {MIN_RUNS} of the first runs must be measured to choose others"
        raise InputError(f"acquire: {rule}; {error}") from error
    parts, _ = fitted_parts(observed, DEFAULT_SETTINGS, known=_statistics(plan, observed))
    configs = [plan.config(number) for number in candidates]
    return interval_widths(LatencyPredictor(parts=parts), configs)


def _statistics(plan: Plan, observed: Observed) -> Mapping[str, Sequence[InputStatistics]]:
    """Mean events of everything that a plan shows to networks, measured; frames are cached.

    Where events sit in their frames is known of those that runs have seen; of the others, it is
    taken to be as usual.
    """
    from ..datasets import input_statistics, load_splits

    seen = {
        (name, repr(sorted(entry.coding.items())), entry.size): entry.tap_ratio
        for name, entries in known_statistics(observed).items()
        for entry in entries
    }
    usual = tap_ratios_of(observed).input
    known: dict[str, list[InputStatistics]] = {}
    for number in plan.examples("dataset", "input", "data_root"):
        config = plan.config(number)
        name, size, coding = str(config.dataset), config.input, coding_of(config)
        shape = (size.height, size.width, size.time_steps)
        entry = InputStatistics(
            height=size.height,
            width=size.width,
            time_steps=size.time_steps,
            events=input_statistics(load_splits(config).train),
            coding=coding,
            tap_ratio=seen.get((name, repr(sorted(coding.items())), shape), usual),
        )
        known.setdefault(name, []).append(entry)
    return known


def _check(first: int, each_round: int, target_width: float | None, most: int) -> None:
    if first < MIN_RUNS:
        raise InputError(f"first: must be at least {MIN_RUNS}, got {first}")
    if each_round < 1:
        raise InputError(f"each_round: must be at least 1, got {each_round}")
    if target_width is not None and not target_width > 0:
        raise InputError(f"target_width: must be above 0, got {target_width}")
    if most < first:
        raise InputError(f"most_runs: must be at least the {first} first ones, got {most}")


def _report(
    out: Path, rounds: list[Round], stopped: str, target_width: float | None
) -> AcquireReport:
    return AcquireReport(folder=str(out), rounds=rounds, stopped=stopped, target_width=target_width)
