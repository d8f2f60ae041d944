"""Predict the hardware latency of a spiking neural network from its training choices.

Public names load when they are first used, so that importing the package stays cheap.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from ._lazy import lazy_names

if TYPE_CHECKING:
    from .calibration import fit_timing, score_timing
    from .config import Config, load_config
    from .errors import SpikemeterError
    from .models import ImportedNetwork, from_module, from_nir
    from .predictor import (
        FeasibleSampler,
        LatencyCallback,
        LatencyEstimate,
        LatencyExplanation,
        LatencyGate,
        LatencyLoss,
        LatencyMonitor,
        LatencyPredictor,
        LatencyPruner,
        allocate_cores,
        explain_latency,
        predict_latency,
        prune_space,
        write_report,
    )
    from .space import Space, read_space

__all__ = [
    "Config",
    "FeasibleSampler",
    "ImportedNetwork",
    "LatencyCallback",
    "LatencyEstimate",
    "LatencyExplanation",
    "LatencyGate",
    "LatencyLoss",
    "LatencyMonitor",
    "LatencyPredictor",
    "LatencyPruner",
    "Space",
    "SpikemeterError",
    "allocate_cores",
    "explain_latency",
    "fit_timing",
    "from_module",
    "from_nir",
    "load_config",
    "predict_latency",
    "prune_space",
    "read_space",
    "score_timing",
    "write_report",
]

__version__ = version("spikemeter")

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Config": ".config",
        "FeasibleSampler": ".predictor",
        "ImportedNetwork": ".models",
        "LatencyCallback": ".predictor",
        "LatencyEstimate": ".predictor",
        "LatencyExplanation": ".predictor",
        "LatencyGate": ".predictor",
        "LatencyLoss": ".predictor",
        "LatencyMonitor": ".predictor",
        "LatencyPredictor": ".predictor",
        "LatencyPruner": ".predictor",
        "Space": ".space",
        "SpikemeterError": ".errors",
        "allocate_cores": ".predictor",
        "explain_latency": ".predictor",
        "fit_timing": ".calibration",
        "from_module": ".models",
        "from_nir": ".models",
        "load_config": ".config",
        "predict_latency": ".predictor",
        "prune_space": ".predictor",
        "read_space": ".space",
        "score_timing": ".calibration",
        "write_report": ".predictor",
    },
)
