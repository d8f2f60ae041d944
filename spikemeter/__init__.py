"""Predict the hardware latency of a spiking neural network from its training choices.

Public names load when they are first used, so that importing the package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config, load_config
    from .errors import SpikemeterError
    from .predictor import LatencyEstimate, LatencyPredictor, predict_latency

__all__ = [
    "Config",
    "LatencyEstimate",
    "LatencyPredictor",
    "SpikemeterError",
    "load_config",
    "predict_latency",
]

__version__ = version("spikemeter")

_HOMES = {
    "Config": ".config",
    "LatencyEstimate": ".predictor",
    "LatencyPredictor": ".predictor",
    "SpikemeterError": ".errors",
    "load_config": ".config",
    "predict_latency": ".predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
