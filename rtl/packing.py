"""Spikes and constants as the hardware holds them: packed words and configuration writes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..models.integer import IntegerLayer, IntegerNetwork, decay_terms
from ..network import Layer, banks, packed_words
from .generator import layer_line_words

__all__ = ["ConfigWrite", "config_writes", "pack_spikes", "peek_addresses", "unpack_spikes"]

SPACE_WEIGHT, SPACE_BIAS, SPACE_CONSTANT = range(3)
"""Spaces of a configuration write; ``rtl/snn_layer.sv``, `space_e`."""


LANE_BITS = 4
"""Of the address of a weight that shares a word with others; ``rtl/snn_layer.sv``, `cfg_lane`."""


class ConfigWrite(NamedTuple):
    """One write on the configuration port of ``snn_top``."""

    layer: int
    space: int
    core: int
    addr: int
    data: int


def pack_spikes(spikes: NDArray[np.bool_], encoder_width: int) -> list[int]:
    """Pack the spikes of one sample as ``rtl/spike_buffer.sv`` describes.

    Parameters
    ----------
    spikes : ndarray of bool, shape (time_steps, channels, height, width)
        Spikes of one inference.
    encoder_width : int
        Bits of a word.

    Returns
    -------
    list of int
        The words of step 0, then of step 1, and so on.
    """
    steps = spikes.shape[0]
    flat = spikes.transpose(0, 2, 3, 1).reshape(steps, -1)
    words = packed_words(flat.shape[1], encoder_width)
    padded = np.zeros((steps, words * encoder_width), dtype=np.bool_)
    padded[:, : flat.shape[1]] = flat
    packed = np.packbits(padded.reshape(steps * words, encoder_width), axis=1, bitorder="little")
    return [int.from_bytes(word.tobytes(), "little") for word in packed]


def unpack_spikes(
    words: list[int], encoder_width: int, shape: tuple[int, int, int, int]
) -> NDArray[np.bool_]:
    """Undo `pack_spikes`; `shape` is (time_steps, channels, height, width)."""
    steps, channels, height, width = shape
    size = -(-encoder_width // 8)
    raw = np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), dtype=np.uint8)
    bits = np.unpackbits(raw.reshape(-1, size), axis=1, bitorder="little")[:, :encoder_width]
    flat = bits.reshape(steps, -1)[:, : channels * height * width].astype(np.bool_)
    return flat.reshape(steps, height, width, channels).transpose(0, 3, 1, 2)


def peek_addresses(config: Config, buffer: int, half: int) -> list[tuple[int, int]]:
    """Line and word in it of every packed word that a buffer holds of one inference.

    Buffer 0 is the input, buffer i + 1 the output of weighted layer i.
    """
    width, steps = config.hardware.encoder_width, config.input.time_steps
    if buffer == 0:
        spikes, wide = config.layers[0].inputs, 1
    else:
        layer = config.layers[buffer - 1]
        spikes = layer.outputs
        wide = layer_line_words(layer, config.neural_cores[buffer - 1], config.hardware)
    words = packed_words(spikes, width)
    lines = -(-words // wide)
    return [
        ((half * steps + step) * lines + word // wide, word % wide)
        for step in range(steps)
        for word in range(words)
    ]


def config_writes(config: Config, network: IntegerNetwork) -> list[ConfigWrite]:
    """Every configuration write that loads a network into the engine.

    Parameters
    ----------
    config : Config
        Gives the cores of each layer.
    network : IntegerNetwork
        Weights and constants.

    Returns
    -------
    list of ConfigWrite
        In the order of the layers.
    """
    writes = []
    for index, (layer, cores) in enumerate(zip(network.layers, config.neural_cores, strict=True)):
        writes += _constant_writes(index, layer)
        phases = -(-layer.geometry.out_channels // cores)
        lanes = banks(layer.geometry, config.hardware.taps_per_cycle)
        for channel, rows in enumerate(_weights_by_address(layer)):
            phase, core = divmod(channel, cores)
            bias = int(layer.bias[channel])
            writes.append(ConfigWrite(index, SPACE_BIAS, core, phase, bias))
            writes += [
                ConfigWrite(
                    index, SPACE_WEIGHT, core, _weight_address(row, phase, phases, lanes), weight
                )
                for row, weight in enumerate(rows.tolist())
            ]
    return writes


def _constant_writes(index: int, layer: IntegerLayer) -> list[ConfigWrite]:
    decay = layer.decay
    if layer.neuron == "lif":
        decay = 0
        for field, (sign, shift) in enumerate(decay_terms(layer.decay)):
            decay |= (0b100000 | (sign < 0) << 4 | shift) << 6 * field
    values = (layer.threshold, layer.gain_shift, decay, layer.reset == "zero")
    return [
        ConfigWrite(index, SPACE_CONSTANT, 0, addr, int(value)) for addr, value in enumerate(values)
    ]


def _weight_address(row: int, phase: int, phases: int, lanes: int) -> int:
    """Address of a weight; a word of nine is written lane by lane, in the lowest four bits."""
    word, lane = divmod(row, lanes)
    word = word * phases + phase
    return word if lanes == 1 else word << LANE_BITS | lane


def _weights_by_address(layer: IntegerLayer) -> NDArray[np.int8]:
    """Weights per output channel, in the order of the core's addresses.

    A convolution's rows are (input channel, kernel row, kernel column); a dense layer's are its
    input lines as they are packed, (row, column, channel).
    """
    geometry: Layer = layer.geometry
    if geometry.kind == "conv":
        return layer.weight.reshape(geometry.out_channels, -1)
    maps = (geometry.in_channels, geometry.in_height, geometry.in_width)
    by_map = layer.weight.reshape(geometry.out_channels, *maps)
    return by_map.transpose(0, 2, 3, 1).reshape(geometry.out_channels, -1)
