"""From a configuration, or from known spikes, to cycles with an honest interval.

Public names load when they are first used; the exact path from a spike train needs no XGBoost.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .estimate import LatencyEstimate, LayerEstimate
    from .predict import LatencyPredictor, predict_latency

__all__ = ["LatencyEstimate", "LatencyPredictor", "LayerEstimate", "predict_latency"]

_HOMES = {
    "LatencyEstimate": ".estimate",
    "LatencyPredictor": ".predict",
    "LayerEstimate": ".estimate",
    "predict_latency": ".predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
