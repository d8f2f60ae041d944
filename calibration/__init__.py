"""Plan, runs, table, fitted predictor: whatever needs training, RTL and prediction together.

Names load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .campaign import run_campaign, simulate_run
    from .fit import fit_predictor
    from .plan import Plan, read_plan
    from .table import read_table

__all__ = ["Plan", "fit_predictor", "read_plan", "read_table", "run_campaign", "simulate_run"]

_HOMES = {
    "Plan": ".plan",
    "fit_predictor": ".fit",
    "read_plan": ".plan",
    "read_table": ".table",
    "run_campaign": ".campaign",
    "simulate_run": ".campaign",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
