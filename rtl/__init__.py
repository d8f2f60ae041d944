"""The accelerator in SystemVerilog, its generator and its simulation."""

from __future__ import annotations

from .generator import top_source
from .simulator import RTL_VERSION, Simulation, Span, check_spikes, simulate, simulated_spans
from .toolchain import missing_tools

__all__ = [
    "RTL_VERSION",
    "Simulation",
    "Span",
    "check_spikes",
    "missing_tools",
    "simulate",
    "simulated_spans",
    "top_source",
]
