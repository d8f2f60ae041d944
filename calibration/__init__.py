"""Plan, runs, table, fitted predictor: whatever needs training, RTL and prediction together.

Names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .acquisition import acquire
    from .campaign import campaign_table, dry_run, plan_of, run_campaign
    from .evaluation import evaluate
    from .fit import fit_predictor
    from .measure import simulate_run
    from .plan import Plan, read_plan
    from .splits import is_held_out, read_splits
    from .store import read_table
    from .timelines import run_timelines
    from .timing_fit import fit_timing, score_timing

__all__ = [
    "Plan",
    "acquire",
    "campaign_table",
    "dry_run",
    "evaluate",
    "fit_predictor",
    "fit_timing",
    "is_held_out",
    "plan_of",
    "read_plan",
    "read_splits",
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
        "acquire": ".acquisition",
        "campaign_table": ".campaign",
        "dry_run": ".campaign",
        "evaluate": ".evaluation",
        "fit_predictor": ".fit",
        "fit_timing": ".timing_fit",
        "is_held_out": ".splits",
        "plan_of": ".campaign",
        "read_plan": ".plan",
        "read_splits": ".splits",
        "read_table": ".store",
        "run_campaign": ".campaign",
        "run_timelines": ".timelines",
        "score_timing": ".timing_fit",
        "simulate_run": ".measure",
    },
)
