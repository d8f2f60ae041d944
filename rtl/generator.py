"""The network as SystemVerilog: writes the top module and names the sources beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..config import Config, HardwareConfig
from ..models.integer import IntegerLayer, IntegerNetwork
from ..network import Layer, banks, packed_words, pixels_at_once

__all__ = [
    "LINT_WAIVERS",
    "RTL_FOLDER",
    "SOURCES",
    "layer_line_words",
    "line_words",
    "source_files",
    "top_source",
]

RTL_FOLDER = Path(__file__).parent
"""Folder of the modules, of the template of the top module and of the waivers."""

_MODULES = (
    "spike_buffer",
    "event_control",
    "neuron_bank",
    "neural_core",
    "core_array",
    "line_packer",
    "spike_packer",
    "strip_packer",
    "perf_counters",
    "snn_layer",
)


def source_files(folder: Path = RTL_FOLDER) -> tuple[Path, ...]:
    """Modules that every network is made of, in the order in which they are compiled."""
    return tuple(folder / f"{name}.sv" for name in _MODULES)


SOURCES = source_files()
"""Modules of the engine as it is installed."""

LINT_WAIVERS = RTL_FOLDER / "lint_waivers.vlt"
"""Verilator's waivers, each with its reason."""


def line_words(cores: int, encoder_width: int) -> int:
    """Words that a layer's cores fill at most in one cycle, and so write at once."""
    return math.ceil(cores / encoder_width)


def layer_line_words(layer: Layer, cores: int, hardware: HardwareConfig) -> int:
    """Words that a layer writes at once: `line_words`, or with nine banks those of some pixels."""
    if banks(layer, hardware.taps_per_cycle) == 1:
        return line_words(cores, hardware.encoder_width)
    pixels = pixels_at_once(layer.pool, -(-layer.out_channels // cores))
    return packed_words(pixels * layer.out_channels, hardware.encoder_width)


def top_source(config: Config, network: IntegerNetwork, folder: Path = RTL_FOLDER) -> str:
    """Write the top module of a network.

    Parameters
    ----------
    config : Config
        Network, time steps and hardware.
    network : IntegerNetwork
        Its widths and neurons are used: weights and constants are loaded at run time.
    folder : Path
        Holds the template, ``snn_top.sv.j2``.

    Returns
    -------
    str
        SystemVerilog source of ``snn_top``; equal for all networks that one simulator serves.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is SystemVerilog
    )
    size = config.input
    return environment.get_template("snn_top.sv.j2").render(
        network=config.network,
        in_channels=size.channels,
        in_height=size.height,
        in_width=size.width,
        time_steps=size.time_steps,
        encoder_width=config.hardware.encoder_width,
        layers=[
            _layer_values(layer, cores, config, integer)
            for layer, cores, integer in zip(
                config.layers, config.neural_cores, network.layers, strict=True
            )
        ],
        output={"words": packed_words(config.layers[-1].outputs, config.hardware.encoder_width)},
    )


def _layer_values(
    layer: Layer, cores: int, config: Config, integer: IntegerLayer
) -> dict[str, Any]:
    """Values of one layer for the template."""
    encoder_width = config.hardware.encoder_width
    words, out_words = (
        packed_words(spikes, encoder_width) for spikes in (layer.inputs, layer.outputs)
    )
    wide = layer_line_words(layer, cores, config.hardware)
    lines = 2 * config.input.time_steps * math.ceil(out_words / wide)
    return {
        "name": layer.name,
        "in_channels": layer.in_channels,
        "in_height": layer.in_height,
        "in_width": layer.in_width,
        "out_channels": layer.out_channels,
        "out_height": layer.out_height,
        "out_width": layer.out_width,
        "kernel": layer.kernel,
        "padding": layer.padding,
        "pool": layer.pool,
        "dense": layer.kind == "dense",
        "cores": cores,
        "banks": banks(layer, config.hardware.taps_per_cycle),
        "weight_bits": integer.weight_bits,
        "membrane_bits": integer.membrane_bits,
        "lapicque": integer.neuron == "lapicque",
        "words": words,
        "out_words": out_words,
        "line_words": wide,
        "out_line_bits": (lines - 1).bit_length(),
        "out_sub_bits": max(1, (wide - 1).bit_length()),
    }
