"""Pruning: which points of a search space cannot meet a latency budget, before any training.

A point is removed if even the lower end of its latency interval is above the budget, or the upper
end of its accuracy interval below what is asked for. So what is removed is what the predictor is
sure of; what it is not sure of is kept. Which good points were lost is not known before they are
trained, but the errors behind the intervals say how many to expect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import ConfigError, InputError
from ..files import write_whole
from ..space import Range, Space, is_whole, read_space
from .intervals import checked_confidence
from .judging import (
    Criteria,
    Judge,
    check_positive,
    check_whole,
    checked_accuracy,
    checked_budget,
)
from .predict import LatencyPredictor
from .tally import Tally

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study
    from optuna.distributions import BaseDistribution

__all__ = ["PruneReport", "PrunedSpace", "prune_space"]

_CANDIDATES = 2**16
"""Points that are judged where nobody says how many."""

_MOST_CANDIDATES = 10**8
_AT_A_TIME = 2**16
"""Points that are judged together, to bound memory."""

_GIVEN_HOURS = "seconds_per_run on average, shared by the training work of each run"
_UNKNOWN_HOURS = "unknown, without seconds_per_run"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What pruning a space came to; the keys of ``spikemeter prune --json``.

    Attributes
    ----------
    candidates : int
        Points that were judged: `kept`, `removed` and `invalid` together.
    kept, removed : int
        Valid points that may meet what is asked for, and those that cannot.
    invalid : int
        Points that are no valid configuration, such as more neural cores than a layer has channels.
    invalid_reason : str or None
        What is wrong with the first of them.
    budget_us : float
        Latency that is allowed.
    min_accuracy : float or None
        Test accuracy of the integer network that is asked for.
    confidence : float
        Of the intervals.
    expected_good : float
        Valid points that are expected to be truly good: trained and measured, within the budget
        and as accurate as asked for. The sum over points of the probability that they are, by the
        errors of the predictor on runs that it had not seen, to the scale of each interval.
    expected_loss : float
        The same sum over the removed points: truly good ones that are expected to be lost.
    expected_loss_share : float
        Their share of `expected_good`.
    training_share_saved : float
        Share of the training work of all valid points that falls to the removed ones. The work of
        a point is the multiply-accumulates of a time step, times steps, times epochs.
    training_hours_saved : float or None
        That share of the hours that all would take, if it was said what a run takes on average.
    training_hours_from : str
        Where these hours come from.
    in_domain : int
        Valid points inside the calibrated domain; the intervals of others are twice as wide.
    tightened : dict
        For each knob, ``before`` and ``after``: ``low``, ``high`` and ``log`` of a range, which
        then goes from the smallest kept value to the largest, or ``choices``. Empty if nothing is
        kept.
    best : dict
        Of the kept points the one that is expected to be most accurate. If none is kept, the one
        that is nearest to it: of those that may be accurate enough, the one whose latency interval
        begins lowest; else the one that may be most accurate. It has ``candidate``, ``knobs`` and
        what is predicted.
    warnings : tuple of str
        One sentence for each key that gives reason to trust the predictions less.
    out : str or None
        File of the kept points.
    """

    candidates: int
    kept: int
    removed: int
    invalid: int
    invalid_reason: str | None
    budget_us: float
    min_accuracy: float | None
    confidence: float
    expected_good: float
    expected_loss: float
    expected_loss_share: float
    training_share_saved: float
    training_hours_saved: float | None
    training_hours_from: str
    in_domain: int
    tightened: dict[str, dict[str, dict[str, Any]]]
    best: dict[str, Any]
    warnings: tuple[str, ...]
    out: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrunedSpace:
    """A space without the points that cannot meet what is asked for.

    Attributes
    ----------
    report : PruneReport
    kept : DataFrame
        The first kept points, as many as were asked for, which fill the space as evenly as all of
        them. The index is the number of the candidate, for `Space.config`; columns are the flat
        keys that vary, and what is predicted.
    space : Space
        With tightened ranges and choices, to be pruned, sampled or written again (`to_yaml`).
    tightened : dict or None
        The tightened ranges as Optuna distributions, if such were given.
    """

    report: PruneReport
    kept: pd.DataFrame
    space: Space
    tightened: dict[str, BaseDistribution] | None


def prune_space(
    space: Space | Mapping[str, Any] | str | Path | None = None,
    *,
    budget_us: float,
    distributions: Mapping[str, BaseDistribution] | Study | None = None,
    base: Mapping[str, Any] | None = None,
    confidence: float = 0.9,
    min_accuracy: float | None = None,
    candidates: int | None = None,
    seconds_per_run: float | None = None,
    out: str | Path | None = None,
    most_rows: int = 10_000,
    predictor: LatencyPredictor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PrunedSpace:
    """Remove the points of a search space that cannot meet a latency budget.

    Points are drawn, predicted and written in blocks, so that memory does not grow with them.

    Parameters
    ----------
    space : Space, mapping, str or Path, optional
        A space, its keys, or a YAML file of them; a calibration plan is one. See
        `spikemeter.space`.
    budget_us : float
        Mean latency of an inference that is allowed, in microseconds.
    distributions : mapping of str to optuna distribution, or Study, optional
        Instead of `space`: the search space of Optuna, by flat key of a configuration
        (``neuron.beta``); of a study, what its finished trials have in common.
    base : mapping, optional
        With `distributions`: the keys of a configuration that stay.
    confidence : float, optional
        Of the intervals; in (0, 1). A truly good point is lost with a probability of at most
        1 - confidence for each interval that it is judged by, or half of that where errors are as
        often too high as too low.
    min_accuracy : float, optional
        Test accuracy that is asked for; in (0, 1).
    candidates : int, optional
        Points to judge. Default: all of a grid, the `runs` of the space, or 65536.
    seconds_per_run : float, optional
        Seconds that the training of a point takes on average, to tell the hours saved.
    out : str or Path, optional
        CSV file to write the kept points to, whole or not at all.
    most_rows : int, optional
        Kept points to give back in memory.
    predictor : LatencyPredictor, optional
        Default: the one that ships with the package.
    progress : callable, optional
        Called with the points judged so far and all of them.

    Returns
    -------
    PrunedSpace

    Raises
    ------
    InputError
        If an argument is not allowed, or the predictor cannot answer for a point.
    ConfigError
        If the space is refused, or every point of it.
    MissingToolError
        If there are distributions, but no Optuna.

    Examples
    --------
    >>> space = {
    ...     "base": {"dataset": "nmnist-saccade", "network": "8C3-MP2-10"},
    ...     "vary": {"neuron.beta": [0.5, 0.9]},
    ...     "sampler": "grid",
    ... }
    >>> pruned = prune_space(space, budget_us=1e-3)
    >>> pruned.report.kept, pruned.report.removed
    (0, 2)
    """
    criteria = Criteria(
        budget_us=checked_budget(budget_us),
        min_accuracy=checked_accuracy(min_accuracy),
        confidence=checked_confidence(confidence),
    )
    if seconds_per_run is not None:
        check_positive("seconds_per_run", seconds_per_run)
    check_whole("most_rows", most_rows, 0, _MOST_CANDIDATES)
    searched, known = _searched(space, distributions, base)
    points = _count(searched, candidates)
    path = None if out is None else _csv_path(out)
    judge = Judge(searched, criteria, predictor or LatencyPredictor.default())
    tally, first_kept = Tally(searched), []

    def judge_all(file: IO[bytes] | None = None) -> None:
        found = 0
        for start in range(0, points, _AT_A_TIME):
            stop = min(start + _AT_A_TIME, points)
            verdicts = judge.judge(start, stop)
            tally.add(verdicts, start)
            rows = verdicts.kept_rows(searched.varied_keys)
            if file is not None:
                file.write(_csv(rows, header=start == 0))
            first_kept.append(rows[: most_rows - found])
            found += len(first_kept[-1])
            if progress is not None:
                progress(stop, points)
        _refuse_if_all_are_invalid(tally)

    if path is None:
        judge_all()
    else:
        write_whole(path, judge_all)
    return _pruned(tally, criteria, first_kept, seconds_per_run, path, known)


def _searched(
    space: Space | Mapping[str, Any] | str | Path | None,
    distributions: Mapping[str, BaseDistribution] | Study | None,
    base: Mapping[str, Any] | None,
) -> tuple[Space, dict[str, BaseDistribution] | None]:
    """Find the space that is asked about, and its distributions if it has some."""
    if (space is None) == (distributions is None):
        given = "neither" if space is None else "both"
        raise InputError(f"space: either this or distributions is required, got {given}")
    if distributions is None:
        if base is not None:
            raise InputError("base: is for distributions; a space has its own")
        assert space is not None
        return read_space(space), None
    if base is None:
        raise InputError("base: required with distributions, got nothing")
    from .distributions import known_distributions, space_of

    known = known_distributions(distributions)
    return space_of(known, base), known


def _count(space: Space, candidates: int | None) -> int:
    """Count the points to judge."""
    if candidates is None:
        points = space.points or _CANDIDATES
        if points > _MOST_CANDIDATES:  # of a grid
            rule = f"must have at most {_MOST_CANDIDATES} combinations in a grid"
            raise InputError(f"vary: {rule}, got {points}")
        return points
    if space.sampler == "grid" or not space.vary:
        what = "a grid" if space.vary else "a space in which nothing varies"
        raise InputError(f"candidates: must be absent for {what}, got {candidates}")
    check_whole("candidates", candidates, 1, _MOST_CANDIDATES)
    return candidates


def _csv_path(out: str | Path) -> Path:
    path = Path(out)
    if path.suffix != ".csv":
        raise InputError(f"out: must end in .csv, got {str(out)!r}")
    return path


def _refuse_if_all_are_invalid(tally: Tally) -> None:
    if not tally.valid:
        reason = _invalid_reason(tally)
        raise ConfigError(f"space: none of its {tally.judged} candidates is valid; {reason}")


def _invalid_reason(tally: Tally) -> str | None:
    """Sentence about the first invalid point."""
    if tally.first_invalid is None:
        return None
    try:
        tally.space.config(tally.first_invalid)
    except ConfigError as error:
        return f"candidate {tally.first_invalid}: {error}"
    raise AssertionError(f"candidate {tally.first_invalid} is valid")


def _csv(rows: pd.DataFrame, *, header: bool) -> bytes:
    """Lines of a CSV file; lists as JSON."""
    objects = [key for key in rows if rows[key].dtype.kind == "O"]
    rows = rows.assign(**{str(key): rows[key].map(_as_json) for key in objects})
    return rows.to_csv(header=header).encode()


def _as_json(cell: Any) -> Any:
    return json.dumps(cell) if isinstance(cell, list | tuple) else cell


def _pruned(
    tally: Tally,
    criteria: Criteria,
    first_kept: list[pd.DataFrame],
    seconds_per_run: float | None,
    path: Path | None,
    distributions: Mapping[str, BaseDistribution] | None,
) -> PrunedSpace:
    import pandas as pd

    left = tally.left()
    narrowed = tally.space.narrowed(left)
    tightened = None
    if distributions is not None:
        from .distributions import tightened_distributions

        tightened = tightened_distributions(distributions, narrowed)
    saved = tally.saved / tally.work
    hours = None if seconds_per_run is None else seconds_per_run * tally.valid * saved / 3600
    report = PruneReport(
        candidates=tally.judged,
        kept=tally.kept,
        removed=tally.valid - tally.kept,
        invalid=tally.judged - tally.valid,
        invalid_reason=_invalid_reason(tally),
        budget_us=criteria.budget_us,
        min_accuracy=criteria.min_accuracy,
        confidence=criteria.confidence,
        expected_good=tally.good,
        expected_loss=tally.lost,
        expected_loss_share=tally.lost / tally.good if tally.good else 0.0,
        training_share_saved=saved,
        training_hours_saved=hours,
        training_hours_from=_UNKNOWN_HOURS if hours is None else _GIVEN_HOURS,
        in_domain=tally.in_domain,
        tightened={
            name: {
                "before": _described(name, tally.space.vary[name]),
                "after": _described(name, variation, tally.space.vary[name]),
            }
            for name, variation in left.items()
        },
        best=tally.best,
        warnings=tally.warnings,
        out=None if path is None else str(path),
    )
    kept = pd.concat(first_kept)
    return PrunedSpace(report=report, kept=kept, space=narrowed, tightened=tightened)


def _described(
    name: str, left: tuple[Any, ...] | Range, before: tuple[Any, ...] | Range | None = None
) -> dict[str, Any]:
    """Range or choices in plain values; of a range there may be one value left."""
    whole = before if before is not None else left
    if not isinstance(whole, Range):
        assert not isinstance(left, Range)
        return {"choices": list(left)}
    low, high = (left.low, left.high) if isinstance(left, Range) else (left[0], left[0])
    if whole.whole or is_whole(name):
        low, high = (int(end) if end == int(end) else end for end in (low, high))
    return {"low": low, "high": high, "log": whole.log}
