"""Plan, runs, table, fitted predictor: whatever needs training, RTL and prediction together.

Names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .campaign import run_campaign, simulate_run
    from .fit import fit_predictor
    from .plan import Plan, read_plan
    from .table import read_table
    from .timelines import run_timelines
    from .timing_fit import fit_timing, score_timing

__all__ = [
    "Plan",
    "fit_predictor",
    "fit_timing",
    "read_plan",
    "read_table",
    "run_campaign",
    "run_timelines",
    "score_timing",
    "simulate_run",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Plan": ".plan",
        "fit_predictor": ".fit",
        "fit_timing": ".timing_fit",
        "read_plan": ".plan",
        "read_table": ".table",
        "run_campaign": ".campaign",
        "run_timelines": ".timelines",
        "score_timing": ".timing_fit",
        "simulate_run": ".campaign",
    },
)
