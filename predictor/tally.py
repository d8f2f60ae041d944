"""What is counted while the points of a space are judged, block by block."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..space import Range, Space
from .judging import Verdicts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Tally"]

_SENTENCES = re.compile(r"; (?=[\w.]+: )")
"""What joins warnings; each begins with its key."""


@dataclass(slots=True, eq=False)
class Tally:
    """Counts over the points of a space.

    Attributes
    ----------
    space : Space
    judged, valid, kept, in_domain : int
        Points; the last two are of the valid ones.
    good, lost : float
        Sum over the valid points, and over the removed ones, of the probability to be good.
    work, saved : float
        Training work of the valid points, and of the removed ones.
    first_invalid : int or None
        Number of a point.
    best : dict
        The best point so far; see `PruneReport`.
    """

    space: Space
    judged: int = 0
    valid: int = 0
    kept: int = 0
    in_domain: int = 0
    good: float = 0.0
    lost: float = 0.0
    work: float = 0.0
    saved: float = 0.0
    first_invalid: int | None = None
    best: dict[str, Any] = field(default_factory=dict)
    _best_score: tuple[int, float] = (-1, 0.0)
    _warned: dict[str, tuple[int, str]] = field(default_factory=dict)
    _left: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, verdicts: Verdicts, start: int) -> None:
        """Count some points, of which the first has this number."""
        kept, predicted = verdicts.kept, verdicts.predicted
        invalid = np.flatnonzero(~verdicts.valid)
        if len(invalid) and self.first_invalid is None:
            self.first_invalid = start + int(invalid[0])
        self.judged += len(verdicts.valid)
        self.valid += len(kept)
        self.kept += int(kept.sum())
        self.in_domain += int(predicted["in_domain"].sum())
        self.good += float(verdicts.good.sum())
        self.lost += float(verdicts.good[~kept].sum())
        self.work += float(verdicts.work.sum())
        self.saved += float(verdicts.work[~kept].sum())
        self._look_at_knobs(verdicts)
        self._look_for_the_best(verdicts)
        for text, count in predicted["warnings"].value_counts().items():
            self._warn(str(text), int(count))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each key, with the number of points that it was said of."""
        return tuple(
            f"{sentence} [{count:,} of {self.valid:,} candidates]"
            for count, sentence in self._warned.values()
        )

    def left(self) -> dict[str, tuple[Any, ...] | Range]:
        """Give the variations of the kept points; empty if there are none."""
        found: dict[str, tuple[Any, ...] | Range] = {}
        for name, variation in self.space.vary.items() if self.kept else ():
            if isinstance(variation, Range):
                low, high = self._left[name].tolist()
                one = low == high
                kind = type(variation)
                found[name] = (low,) if one else kind(low=low, high=high, log=variation.log)
            else:
                known = {repr(variation[place]) for place in np.flatnonzero(self._left[name])}
                found[name] = tuple(each for each in variation if repr(each) in known)
        return found

    def _look_at_knobs(self, verdicts: Verdicts) -> None:
        """Note the smallest and largest kept value of ranges, and the kept choices."""
        chosen = np.flatnonzero(verdicts.valid)[verdicts.kept]
        for name, variation in self.space.vary.items() if len(chosen) else ():
            drawn = verdicts.drawn[name][chosen]
            if isinstance(variation, Range):
                known = np.append(drawn, self._left.get(name, drawn[:0]))
                self._left[name] = np.array([known.min(), known.max()])
            else:
                flags = self._left.setdefault(name, np.zeros(len(variation), dtype=bool))
                flags[drawn] = True

    def _look_for_the_best(self, verdicts: Verdicts) -> None:
        predicted, kept, accurate = verdicts.predicted, verdicts.kept, verdicts.accurate
        if not len(kept):
            return
        rank = np.where(kept, 2, np.where(accurate, 1, 0))
        best = int(rank.max())
        score = (predicted["interval_accuracy.high"], -predicted["low_us"], predicted["accuracy"])
        scores = np.where(rank == best, score[best].to_numpy(), -np.inf)
        place = int(scores.argmax())
        if (best, float(scores[place])) > self._best_score:
            self._best_score = (best, float(scores[place]))
            self.best = self._described(int(verdicts.rows.index[place]), predicted.iloc[place])

    def _described(self, number: int, row: pd.Series[Any]) -> dict[str, Any]:
        return {
            "candidate": number,
            "knobs": self.space.changes(number),
            "microseconds": float(row["microseconds"]),
            "interval_microseconds": [float(row["low_us"]), float(row["high_us"])],
            "accuracy": float(row["accuracy"]),
            "interval_accuracy": [
                float(row[f"interval_accuracy.{end}"]) for end in ("low", "high")
            ],
            "in_domain": bool(row["in_domain"]),
        }

    def _warn(self, text: str, count: int) -> None:
        for sentence in _SENTENCES.split(text) if text else ():
            key = sentence.partition(":")[0]
            before, first = self._warned.get(key, (0, sentence))
            self._warned[key] = (before + count, first)
