"""The parts of a layer's hardware: what of them is known, and what sizes their logic grows with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import Config
from ..network import Layer, packed_words
from .memories import RamCells, ram_cells

__all__ = ["ASSUMED_MEMBRANE_BITS", "BlockSizes", "Features", "Part", "block_parts", "layer_blocks"]

ASSUMED_MEMBRANE_BITS = 24
"""What ``membrane_bits: auto`` is taken for before training; it nearly always comes to that."""

_DSP_BITS = 25
"""Longest factor of a DSP slice of the 7 series; the other, the decay, has 18 bits."""

Features = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a block: its memories and multipliers, and the sizes that its logic grows with.

    Attributes
    ----------
    known : mapping of str to float
        By kind of resource.
    lut, ff : mapping of str to float
        Sizes by name, each of which has a coefficient.
    """

    known: Features
    lut: Features
    ff: Features

    def sizes(self, kind: str) -> Features:
        """Sizes that a kind of resource grows with; none of block RAMs and DSPs."""
        return {"lut": self.lut, "ff": self.ff}.get(kind, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSizes:
    """A layer with its cores and widths, or a buffer: all that its hardware depends on.

    Attributes
    ----------
    layer : Layer
        The layer; for a buffer the layer that writes it, or the first for the input.
    cores : int
        Of the layer; 0 for a buffer.
    lapicque : bool
        Neuron model.
    time_steps, encoder_width, weight_bits, membrane_bits : int
        As configured.
    words, line_words : int
        Of a buffer: words of a step, and how many of them are written at once.
    """

    layer: Layer
    cores: int
    lapicque: bool
    time_steps: int
    encoder_width: int
    weight_bits: int
    membrane_bits: int
    words: int
    line_words: int


def layer_blocks(config: Config, neural_cores: Sequence[int]) -> list[BlockSizes]:
    """Give the sizes of all blocks: the buffer of the input, then each layer and its buffer."""
    hardware, first = config.hardware, config.layers[0]
    bits = hardware.membrane_bits
    width = hardware.encoder_width
    fixed: dict[str, Any] = {
        "lapicque": config.neuron.model == "lapicque",
        "time_steps": config.input.time_steps,
        "encoder_width": width,
        "weight_bits": config.training.weight_bits,
        "membrane_bits": ASSUMED_MEMBRANE_BITS if bits == "auto" else bits,
    }
    words = packed_words(first.inputs, width)
    blocks = [BlockSizes(layer=first, cores=0, words=words, line_words=1, **fixed)]
    for layer, cores in zip(config.layers, neural_cores, strict=True):
        wide, words = math.ceil(cores / width), packed_words(layer.outputs, width)
        blocks.append(BlockSizes(layer=layer, cores=cores, words=words, line_words=wide, **fixed))
        blocks.append(BlockSizes(layer=layer, cores=0, words=words, line_words=wide, **fixed))
    return blocks


def block_parts(block: BlockSizes) -> dict[str, Part]:
    """Tell what is known of each part of a block, and what its logic grows with."""
    if not block.cores:
        return {"buffer": _buffer(block)}
    return {
        "cores_lapicque" if block.lapicque else "cores_lif": _cores(block),
        "control": _control(block),
        "packer": _packer(block),
    }


def _cores(block: BlockSizes) -> Part:
    """Describe the cores of a layer; ``rtl/core_array.sv``, ``rtl/neural_core.sv``."""
    layer, cores, bits = block.layer, block.cores, block.membrane_bits
    phases = -(-layer.out_channels // cores)
    neurons = layer.out_height * layer.out_width * phases
    current = block.weight_bits + (layer.fan_in).bit_length()
    memories = {
        "weight": (layer.fan_in * phases, block.weight_bits),
        "bias": (phases, bits),
        "current": (neurons, current),
        "membrane": (neurons, bits),
    }
    cells = {name: ram_cells(*shape) for name, shape in memories.items()}
    known = _of_memories(list(cells.values()), cores)
    if block.lapicque:
        known["dsp"] = cores * _slices(bits)
    # What is read stands in a register, which a block RAM brings along
    read = sum(width for name, (_, width) in memories.items() if cells[name].lut)
    registers = sum(each.ff for each in cells.values())
    drive = max(current + 15, bits) + 2
    slices = _slices(bits) if block.lapicque else 0
    lut = {
        "core": cores,
        "core, membrane bit": cores * bits,
        "core, drive bit": cores * drive,
        "core, current bit": cores * current,
        "core, joined bit": cores * sum(each.joins for each in cells.values()),
        "core, bank": cores * sum(each.banks - 1 for each in cells.values()),
        "core, register bit": cores * registers,
        "layer": 1,
    }
    ff = {
        "core": cores,
        "core, membrane bit": cores * bits,
        "core, drive bit": cores * drive,
        "core, current bit": cores * current,
        "core, read bit": cores * read,
        "core, register bit": cores * registers,
        "core, product bit": cores * bits * (slices == 1),
        "layer": 1,
        "address bit": _bits(neurons),
    }
    return Part(known=known, lut=lut, ff=ff)


def _control(block: BlockSizes) -> Part:
    """Describe what makes operations of spikes, and counts cycles; ``rtl/event_control.sv``."""
    layer, width = block.layer, block.encoder_width
    phases = -(-layer.out_channels // block.cores)
    words = packed_words(layer.inputs, width)
    neurons = layer.out_height * layer.out_width * phases
    weights = layer.fan_in * phases
    flat, pixel = (words * width - 1).bit_length(), (layer.in_height * layer.in_width).bit_length()
    index = _bits(words)
    lists = [ram_cells(words, width), ram_cells(words, index)]
    conv = layer.kind == "conv"
    by_channel = 0 if _is_power(layer.in_channels) else flat * (_bits(layer.in_channels) + 1)
    by_width = 0 if _is_power(layer.in_width) or not conv else pixel * (_bits(layer.in_width) + 1)
    lut = {
        "layer": 1,
        "word bit": width,
        "convolution": conv,
        "flat bit": flat,
        "divider of channels": by_channel if conv else 0,
        "divider of columns": by_width,
        "product of words": flat * (width.bit_count() - 1),
        "product of phases, weight": _bits(weights) * (phases.bit_count() - 1),
        "product of phases, neuron": _bits(neurons) * (phases.bit_count() - 1) * conv,
        "product of columns": _bits(neurons) * layer.out_width.bit_count() * conv,
        "product of taps": _bits(weights) * (layer.kernel > 1),
        "address bit": _bits(neurons) + _bits(weights),
        "list joined bit": sum(each.joins for each in lists),
        "list register bit": sum(each.ff for each in lists),
    }
    ff = {
        "layer": 1,
        "word bit": width,
        "convolution": conv,
        "flat bit": flat,
        "flat bit of a dense layer": 0 if conv else flat,
        "index bit": index,
        "address bit": _bits(neurons) + _bits(weights),
        "membrane bit": block.membrane_bits,
        "list bit": sum(w for cells, w in zip(lists, (width, index), strict=True) if cells.lut),
        "list register bit": sum(each.ff for each in lists),
    }
    return Part(known=_of_memories(lists, 1), lut=lut, ff=ff)


def _packer(block: BlockSizes) -> Part:
    """Describe what pools and packs spikes; ``rtl/spike_packer.sv``."""
    layer, cores = block.layer, block.cores
    phases = -(-layer.out_channels // cores)
    line = block.line_words * block.encoder_width
    pooled = layer.pool > 1
    row = ram_cells(layer.out_width // layer.pool * phases, cores, single_port=True)
    cells = [row] if pooled else []
    lut = {
        "layer": 1,
        "line bit": line,
        "line bit, levels of the shift": line * math.log2(min(cores, line)),
        "line bit, core": line * min(cores, line) ** 0.5,
        "core": cores,
        "pooling": pooled,
        "pooling, core": cores * pooled,
        "pooling, joined bit": sum(each.joins for each in cells),
        "pooling, register bit": sum(each.ff for each in cells),
    }
    ff = {
        "layer": 1,
        "line bit": line,
        "phase bit": _bits(phases) if phases > 1 else 0,
        "fill bit": line.bit_length(),
        "pooling": pooled,
        "pooling, place bit": (layer.out_height * layer.out_width).bit_length() * pooled,
        "pooling, register bit": sum(each.ff for each in cells),
    }
    return Part(known=_of_memories(cells, 1), lut=lut, ff=ff)


def _buffer(block: BlockSizes) -> Part:
    """Describe a spike buffer; ``rtl/spike_buffer.sv``."""
    width, wide = block.encoder_width, block.line_words
    depth = 2 * block.time_steps * -(-block.words // wide)
    memory = ram_cells(depth, wide * width)
    lut = {
        "buffer": 1,
        "address bit": _bits(depth),
        "word bit, words of a line": width * (wide - 1),
        "joined bit": memory.joins,
    }
    ff = {
        "buffer": 1,
        "address bit": _bits(depth),
        "counter bit": _bits(block.words) + 2 * _bits(block.time_steps),
        "read bit": wide * width if memory.lut else 0,
        "bank": memory.banks - 1,
    }
    return Part(known=_of_memories([memory], 1), lut=lut, ff=ff)


def _of_memories(cells: Sequence[RamCells], times: int) -> dict[str, float]:
    """Add up what memories take, so many times."""
    return {
        "lut": float(times * sum(each.lut for each in cells)),
        "ff": float(times * sum(each.ff for each in cells)),
        "bram": float(times * sum(each.bram for each in cells)),
        "dsp": 0.0,
    }


def _slices(bits: int) -> int:
    """Count the DSP slices of a product of a membrane and its decay."""
    return 1 if bits <= _DSP_BITS else 2


def _bits(places: int) -> int:
    """Bits of an address."""
    return max(1, (places - 1).bit_length())


def _is_power(number: int) -> bool:
    return number.bit_count() == 1
