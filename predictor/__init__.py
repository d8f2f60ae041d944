"""From a configuration, or from known spikes, to cycles with an honest interval.

Public names load when they are first used; the exact path from a spike train needs no XGBoost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .differentiable import TorchTiming
    from .distributions import suggest_params
    from .estimate import LatencyEstimate, LayerEstimate
    from .optuna import FeasibleSampler, LatencyGate
    from .predict import LatencyPredictor, predict_latency
    from .pruning import PrunedSpace, PruneReport, prune_space

__all__ = [
    "FeasibleSampler",
    "LatencyEstimate",
    "LatencyGate",
    "LatencyPredictor",
    "LayerEstimate",
    "PruneReport",
    "PrunedSpace",
    "TorchTiming",
    "predict_latency",
    "prune_space",
    "suggest_params",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FeasibleSampler": ".optuna",
        "LatencyEstimate": ".estimate",
        "LatencyGate": ".optuna",
        "LatencyPredictor": ".predict",
        "LayerEstimate": ".estimate",
        "PruneReport": ".pruning",
        "PrunedSpace": ".pruning",
        "TorchTiming": ".differentiable",
        "predict_latency": ".predict",
        "prune_space": ".pruning",
        "suggest_params": ".distributions",
    },
)
