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
    from .optuna import FeasibleSampler, LatencyGate
    from .predict import LatencyPredictor, predict_latency
    from .pruning import PrunedSpace, PruneReport, prune_space

__all__ = [
    "Allocation",
    "FeasibleSampler",
    "LatencyEstimate",
    "LatencyGate",
    "LatencyPredictor",
    "LayerEstimate",
    "PruneReport",
    "PrunedSpace",
    "TorchTiming",
    "allocate_cores",
    "predict_latency",
    "prune_space",
    "suggest_params",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Allocation": ".allocation",
        "FeasibleSampler": ".optuna",
        "LatencyEstimate": ".estimate",
        "LatencyGate": ".optuna",
        "LatencyPredictor": ".predict",
        "LayerEstimate": ".estimate",
        "PruneReport": ".pruning",
        "PrunedSpace": ".pruning",
        "TorchTiming": ".differentiable",
        "allocate_cores": ".allocation",
        "predict_latency": ".predict",
        "prune_space": ".pruning",
        "suggest_params": ".distributions",
    },
)
