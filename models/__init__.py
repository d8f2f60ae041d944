"""Networks: trained with snnTorch and Brevitas, run exactly on integers.

Importing this loads no torch; `train_run` does when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .folder import QUANTISE_VERSION, TRACE_SAMPLES, TRAIN_VERSION, Run, load_run
from .integer import (
    DECAY_FRACTION_BITS,
    IntegerLayer,
    IntegerNetwork,
    SpikeTrains,
    class_accuracy,
    decay_terms,
    layer_spikes,
    load_network,
    membrane_bound,
    network_spikes,
    neuron_decay,
    quantised_decay,
    save_network,
)

if TYPE_CHECKING:
    from .run import train_run

__all__ = [
    "DECAY_FRACTION_BITS",
    "QUANTISE_VERSION",
    "TRACE_SAMPLES",
    "TRAIN_VERSION",
    "IntegerLayer",
    "IntegerNetwork",
    "Run",
    "SpikeTrains",
    "class_accuracy",
    "decay_terms",
    "layer_spikes",
    "load_network",
    "load_run",
    "membrane_bound",
    "network_spikes",
    "neuron_decay",
    "quantised_decay",
    "save_network",
    "train_run",
]


def __getattr__(name: str) -> Any:
    if name != "train_run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(".run", __name__).train_run
