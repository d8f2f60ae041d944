"""The RTL of a network synthesised for a Xilinx FPGA: LUTs, flip-flops and RAM of every layer.

Every module that the generator instantiates, with the parameters that the generated top gives it,
is synthesised by itself: each layer, and each spike buffer between them. Nothing is placed or
routed, so these are estimates, and nothing is said about the clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Config
from ..errors import ConfigError
from ..models.integer import IntegerLayer, IntegerNetwork
from .generator import RTL_FOLDER, source_files, top_source
from .yosys import FAMILY, Block, Resources, synthesise_module, yosys_version

__all__ = ["ASSUMED_MEMBRANE_BITS", "Synthesis", "instances", "plain_network", "synthesise"]

ASSUMED_MEMBRANE_BITS = 24
"""What ``membrane_bits: auto`` is taken for before training; it nearly always comes to that."""

_AT_A_TIME = 2
_INSTANCE = re.compile(
    r"^  (\w+) #\(\n((?: +\.\w+ *\(.*\),?\n)+)  \) u_(?:layer|buffer)_\d+ \($", re.M
)
_PARAMETER = re.compile(r"\.(\w+) *\((.*)\),?$", re.M)
_CONSTANT = re.compile(r"localparam int unsigned (\w+) *= *([^;]+);")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Synthesis:
    """What an accelerator takes of an FPGA, as yosys maps it.

    Attributes
    ----------
    layers : tuple of Block
        Weighted layers, in their order.
    buffers : tuple of Block
        Spike buffers: of the input, then behind each layer.
    total : Resources
        Of all layers and buffers; the few registers of the top module are left out.
    membrane_bits : int
        Width of the membranes; with ``auto`` that of the trained network, or else assumed.
    tool : str
        Name and version of what synthesised.
    """

    layers: tuple[Block, ...]
    buffers: tuple[Block, ...]
    total: Resources
    membrane_bits: int
    tool: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "tool": self.tool,
            "family": FAMILY,
            "membrane_bits": self.membrane_bits,
            "layers": [block.to_dict() for block in self.layers],
            "buffers": [block.to_dict() for block in self.buffers],
            "total": asdict(self.total),
        }


def synthesise(
    config: Config,
    network: IntegerNetwork | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    folder: Path = RTL_FOLDER,
) -> Synthesis:
    """Synthesise every layer of an accelerator, and the buffers between them.

    Parameters
    ----------
    config : Config
        Network and hardware.
    network : IntegerNetwork, optional
        A trained one, whose widths are then used. Default: the widths of `config`, and
        `ASSUMED_MEMBRANE_BITS` for ``auto``.
    progress : callable, optional
        Told (step, done, total).
    folder : Path, optional
        Holds the RTL.

    Returns
    -------
    Synthesis
        Equal for equal widths: weights and constants are loaded at run time.

    Raises
    ------
    ConfigError
        If `config` names a machine without RTL.
    MissingToolError
        If yosys or jinja2 is missing; says how to get it.
    SynthesisError
        If yosys fails, or finds a latch.
    """
    if config.hardware.backend != "engine":
        rule = "must be engine to synthesise, no other machine has RTL here"
        raise ConfigError(f"hardware.backend: {rule}; got {config.hardware.backend!r}")
    tool = yosys_version()
    network = network or plain_network(config)
    found = instances(top_source(config, network, folder))
    blocks = _synthesised(_block_names(config), found, folder, progress)
    return Synthesis(
        layers=tuple(blocks[1::2]),
        buffers=tuple(blocks[::2]),
        total=sum((block.resources for block in blocks), Resources()),
        membrane_bits=network.layers[0].membrane_bits,
        tool=tool,
    )


def _block_names(config: Config) -> list[str]:
    """Name all blocks in the order of the top module: a buffer, then each layer and its buffer."""
    names = [layer.name for layer in config.layers]
    read_by = [*(f"input of {name}" for name in names), "output"]
    behind = zip(names, read_by[1:], strict=True)
    return [read_by[0], *(name for pair in behind for name in pair)]


def plain_network(config: Config) -> IntegerNetwork:
    """Make a network that has the widths of a configuration, and no weights."""
    bits = config.hardware.membrane_bits
    return IntegerNetwork(
        layers=tuple(
            IntegerLayer(
                geometry=layer,
                weight=np.zeros(layer.weight_shape, dtype=np.int8),
                bias=np.zeros(layer.out_channels, dtype=np.int32),
                threshold=1,
                gain_shift=0,
                decay=256,
                membrane_bits=ASSUMED_MEMBRANE_BITS if bits == "auto" else bits,
                weight_bits=config.training.weight_bits,
                neuron=config.neuron.model,
                reset=config.neuron.reset,
            )
            for layer in config.layers
        )
    )


def instances(top: str) -> list[tuple[str, dict[str, int]]]:
    """Read modules and parameters of buffers and layers from a generated top module."""
    constants = {name: _value(text, {}) for name, text in _CONSTANT.findall(top)}
    return [
        (module, {key: _value(text, constants) for key, text in _PARAMETER.findall(block)})
        for module, block in _INSTANCE.findall(top)
    ]


def _value(text: str, constants: Mapping[str, int]) -> int:
    """Work out a product of numbers and names; a bit is written 1'b0 or 1'b1."""
    factors = (factor.strip().rpartition("'b")[2] for factor in text.split("*"))
    return math.prod(constants[name] if name in constants else int(name) for name in factors)


def _synthesised(
    names: Sequence[str],
    instances: Sequence[tuple[str, Mapping[str, int]]],
    folder: Path,
    progress: Callable[[str, int, int], None] | None,
) -> list[Block]:
    """Synthesise modules two at a time; what several have in common is done once."""
    sources = source_files(folder)
    named = list(zip(names, instances, strict=True))
    jobs = {_key(*instance): (name, *instance) for name, instance in reversed(named)}
    blocks: dict[str, Block] = {}
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        futures = {key: pool.submit(synthesise_module, *job, sources) for key, job in jobs.items()}
        try:
            for key, future in futures.items():
                blocks[key] = future.result()
                if progress is not None:
                    progress("synthesising", len(blocks), len(futures))
        finally:
            pool.shutdown(cancel_futures=True)
    return [replace(blocks[_key(*instance)], name=name) for name, instance in named]


def _key(module: str, parameters: Mapping[str, int]) -> str:
    return f"{module} {sorted(parameters.items())}"
