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

__all__ = ["Plan", "fit_predictor", "read_plan", "read_table", "run_campaign", "simulate_run"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Plan": ".plan",
        "fit_predictor": ".fit",
        "read_plan": ".plan",
        "read_table": ".table",
        "run_campaign": ".campaign",
        "simulate_run": ".campaign",
    },
)
