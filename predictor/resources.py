"""What a configuration takes of an FPGA, without synthesising it.

The RTL says of every memory how deep and wide it is, and a rule says what yosys maps it to: block
RAM, distributed RAM or, where it is a single word, flip-flops. What is left is logic. That of each
part of a layer grows with a few sizes that the hardware keys set: so many LUTs for a core, so many
for each bit of its membrane, and so on. The coefficients were fitted to synthesised layers by
non-negative least squares (``benchmarks/resources.py``); they ship with their errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import ConfigError
from .resource_parts import BlockSizes, Part, block_parts, layer_blocks

__all__ = [
    "KINDS",
    "BlockEstimate",
    "ResourceEstimate",
    "amounts",
    "block_resources",
    "check_estimable",
    "estimate_resources",
]

KINDS = ("lut", "ff", "bram", "dsp")
"""Resources that are estimated."""

_MODEL = Path(__file__).parent / "resources.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEstimate:
    """What a layer, or the spike buffer behind it, takes.

    Attributes
    ----------
    name : str
        Of the layer, or what the buffer holds.
    lut, ff, bram, dsp : int
        LUTs, flip-flops, block RAMs of 18 Kbit, DSP slices.
    """

    name: str
    lut: int
    ff: int
    bram: int
    dsp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceEstimate:
    """What an accelerator takes of an FPGA of the Xilinx 7 series, as yosys would map it.

    Attributes
    ----------
    layers : tuple of BlockEstimate
        Weighted layers, in their order.
    buffers : tuple of BlockEstimate
        Spike buffers: of the input, then behind each layer.
    lut, ff, bram, dsp : int
        Of all layers and buffers. BRAM counts blocks of 18 Kbit; one of 36 Kbit is two.
    intervals : mapping of str to (int, int)
        Of each of these four: low and high, 90 % of networks that the fit had not seen lay within.
    membrane_bits : int
        Width of the membranes; with ``auto`` assumed.
    """

    layers: tuple[BlockEstimate, ...]
    buffers: tuple[BlockEstimate, ...]
    lut: int
    ff: int
    bram: int
    dsp: int
    intervals: Mapping[str, tuple[int, int]]
    membrane_bits: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def estimate_resources(config: Config) -> ResourceEstimate:
    """Estimate what a configuration takes of an FPGA.

    Parameters
    ----------
    config : Config
        Network and hardware.

    Returns
    -------
    ResourceEstimate

    Raises
    ------
    ConfigError
        If the model was not fitted to the machine.

    Examples
    --------
    >>> from ..config import load_config
    >>> content = {"dataset": "nmnist-saccade", "network": "16C3-MP2-32C3-MP2-10"}
    >>> estimate_resources(load_config(content)).dsp
    0
    """
    check_estimable(config)
    content = _model()
    blocks = layer_blocks(config, config.neural_cores)
    names = [f"input of {config.layers[0].name}"]
    for layer, after in zip(config.layers, [*config.layers[1:], None], strict=True):
        names += [layer.name, "output" if after is None else f"input of {after.name}"]
    estimates = [
        BlockEstimate(name=name, **block_resources(block))
        for name, block in zip(names, blocks, strict=True)
    ]
    total = {kind: sum(getattr(each, kind) for each in estimates) for kind in KINDS}
    return ResourceEstimate(
        layers=tuple(estimates[1::2]),
        buffers=tuple(estimates[::2]),
        **total,
        intervals={
            kind: _interval(value, content["errors"][kind]["network"]["p90"])
            for kind, value in total.items()
        },
        membrane_bits=blocks[0].membrane_bits,
    )


def check_estimable(config: Config) -> None:
    """Refuse a machine that the model was not fitted to.

    Raises
    ------
    ConfigError
        If it is not the engine, or one with other taps per cycle than were synthesised.
    """
    hardware, fitted = config.hardware, _model()["taps_per_cycle"]
    if hardware.backend != "engine":
        rule = "must be engine to estimate resources, no other machine has RTL here"
        raise ConfigError(f"hardware.backend: {rule}; got {hardware.backend!r}")
    if hardware.taps_per_cycle not in fitted:
        rule = f"must be {' or '.join(map(str, fitted))} to estimate resources"
        raise ConfigError(f"hardware.taps_per_cycle: {rule}; got {hardware.taps_per_cycle}")


@lru_cache(maxsize=4096)
def block_resources(block: BlockSizes) -> Mapping[str, int]:
    """Estimate a block: LUTs, flip-flops, block RAMs and DSPs."""
    found = amounts(block_parts(block), _model()["coefficients"])
    return {kind: round(amount) for kind, amount in found.items()}


def amounts(
    parts: Mapping[str, Part], coefficients: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> dict[str, float]:
    """Add up what is known of the parts of a block and what coefficients make of their sizes."""
    found = dict.fromkeys(KINDS, 0.0)
    for name, part in parts.items():
        for kind in KINDS:
            found[kind] += part.known[kind]
            fitted = coefficients[name].get(kind, {})
            found[kind] += sum(fitted[size] * value for size, value in part.sizes(kind).items())
    return found


def _interval(value: int, share: float) -> tuple[int, int]:
    return math.floor(value * (1 - share)), math.ceil(value * (1 + share))


@cache
def _model() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_MODEL.read_text())
    return content
