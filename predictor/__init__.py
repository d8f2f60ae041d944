"""From a configuration, or from known spikes, to cycles with an honest interval.

Public names load when they are first used; the exact path from a spike train needs no XGBoost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .allocation import Allocation, allocate_cores
    from .differentiable import TorchTiming
    from .distributions import suggest_params
    from .estimate import LatencyEstimate, LayerEstimate
    from .explanation import LatencyExplanation, explain_latency
    from .lightning import LatencyCallback
    from .optuna import FeasibleSampler, LatencyGate
    from .predict import LatencyPredictor, predict_latency
    from .pruning import PrunedSpace, PruneReport, prune_space
    from .report import write_report
    from .training import LatencyLoss, LatencyMonitor
    from .trials import LatencyPruner

__all__ = [
    "Allocation",
    "FeasibleSampler",
    "LatencyCallback",
    "LatencyEstimate",
    "LatencyExplanation",
    "LatencyGate",
    "LatencyLoss",
    "LatencyMonitor",
    "LatencyPredictor",
    "LatencyPruner",
    "LayerEstimate",
    "PruneReport",
    "PrunedSpace",
    "TorchTiming",
    "allocate_cores",
    "explain_latency",
    "predict_latency",
    "prune_space",
    "suggest_params",
    "write_report",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Allocation": ".allocation",
        "FeasibleSampler": ".optuna",
        "LatencyCallback": ".lightning",
        "LatencyEstimate": ".estimate",
        "LatencyExplanation": ".explanation",
        "LatencyGate": ".optuna",
        "LatencyLoss": ".training",
        "LatencyMonitor": ".training",
        "LatencyPredictor": ".predict",
        "LatencyPruner": ".trials",
        "LayerEstimate": ".estimate",
        "PruneReport": ".pruning",
        "PrunedSpace": ".pruning",
        "TorchTiming": ".differentiable",
        "allocate_cores": ".allocation",
        "explain_latency": ".explanation",
        "predict_latency": ".predict",
        "prune_space": ".pruning",
        "suggest_params": ".distributions",
        "write_report": ".report",
    },
)
