"""From a configuration, or from known spikes, to cycles with an honest interval.

Public names load when they are first used; the exact path from a spike train needs no XGBoost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .differentiable import TorchTiming
    from .estimate import LatencyEstimate, LayerEstimate
    from .predict import LatencyPredictor, predict_latency

__all__ = [
    "LatencyEstimate",
    "LatencyPredictor",
    "LayerEstimate",
    "TorchTiming",
    "predict_latency",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LatencyEstimate": ".estimate",
        "LatencyPredictor": ".predict",
        "LayerEstimate": ".estimate",
        "TorchTiming": ".differentiable",
        "predict_latency": ".predict",
    },
)
