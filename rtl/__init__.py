"""The accelerator in SystemVerilog, its generator and its simulation."""

from __future__ import annotations

from .generator import top_source
from .simulator import RTL_VERSION, Simulation, check_spikes, simulate
from .toolchain import missing_tools

__all__ = [
    "RTL_VERSION",
    "Simulation",
    "check_spikes",
    "missing_tools",
    "simulate",
    "top_source",
]
