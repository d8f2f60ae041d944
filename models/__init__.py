"""Networks: trained with snnTorch and Brevitas, run exactly on integers.

Importing this loads no torch; what trains or traces does when it is first used.
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
    from .imported import ImportedNetwork
    from .nir import from_nir
    from .run import train_run
    from .tracing import from_module

__all__ = [
    "DECAY_FRACTION_BITS",
    "QUANTISE_VERSION",
    "TRACE_SAMPLES",
    "TRAIN_VERSION",
    "ImportedNetwork",
    "IntegerLayer",
    "IntegerNetwork",
    "Run",
    "SpikeTrains",
    "class_accuracy",
    "decay_terms",
    "from_module",
    "from_nir",
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


_LAZY = {
    "ImportedNetwork": ".imported",
    "from_module": ".tracing",
    "from_nir": ".nir",
    "train_run": ".run",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
