"""From the fake-quantised module to the integers that the hardware holds.

A membrane unit is ``gain weight_scale / 2^gain_shift``, with the neuron's input gain (1 for LIF).
Weights are already integers of the scale; threshold and bias are rounded to units, so the gain
shift is what gives them resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..config import Config
from ..errors import ConfigError
from .integer import IntegerLayer, IntegerNetwork, membrane_bound, neuron_decay
from .network import SpikingLayer, SpikingNetwork

__all__ = ["export_network"]

_RESOLUTION = 4096
"""Membrane units that a threshold should have at least: its rounding then errs by 0.01 %."""

_HEADROOM_BITS = 4
"""Bits that this resolution leaves free in a given membrane width, sign included."""

_AUTO_WIDTHS = (16, 24, 32)
_MAX_GAIN_SHIFT = 15


def export_network(network: SpikingNetwork, config: Config) -> IntegerNetwork:
    """Turn a trained module into the integer network of the hardware.

    ``membrane_bits: auto`` takes one width for all layers, the smallest of 16, 24 and 32 in which
    no membrane can saturate: few widths, so that runs share compiled simulators.

    Parameters
    ----------
    network : SpikingNetwork
        Folded, so that its weights are quantised.
    config : Config
        The configuration that it was made from.

    Returns
    -------
    IntegerNetwork
        The same neurons, apart from the rounding of thresholds, biases and decayed membranes.

    Raises
    ------
    ConfigError
        If `hardware.membrane_bits` cannot hold a threshold, or ``auto`` finds no width.
    """
    assert not network.warming_up
    given = config.hardware.membrane_bits
    widest = _AUTO_WIDTHS[-1] if given == "auto" else given
    with torch.no_grad():
        layers = [_integer_layer(layer, config, widest) for layer in network.spiking_layers]
    if given == "auto":
        bits = _auto_bits(layers)
        layers = [replace(layer, membrane_bits=bits) for layer in layers]
    return IntegerNetwork(layers=tuple(layers))


def _integer_layer(layer: SpikingLayer, config: Config, bits: int) -> IntegerLayer:
    """Constants of one layer, with the smallest gain shift that resolves its threshold.

    The shift stops earlier where a finer unit would take membranes out of 32 bits, as it does
    when weights have grown to many thresholds.
    """
    resolution = min(_RESOLUTION, 2 ** (bits - _HEADROOM_BITS))
    coarse = _with_gain_shift(layer, config, bits, 0)
    for shift in range(1, _MAX_GAIN_SHIFT + 1):
        if coarse.threshold >= resolution:
            break
        finer = _with_gain_shift(layer, config, bits, shift)
        if membrane_bound(finer) >= 2**31:
            break
        coarse = finer
    return coarse


def _with_gain_shift(
    layer: SpikingLayer, config: Config, bits: int, gain_shift: int
) -> IntegerLayer:
    """Constants of one layer in membrane units of ``gain weight_scale / 2^gain_shift``."""
    limit = 2 ** (bits - 1) - 1
    quantised = layer.weighted.quant_weight()
    gain = config.neuron.gain
    unit = gain * float(quantised.scale) / 2**gain_shift
    threshold = max(1, round(config.neuron.threshold / unit))
    if threshold > limit:
        rule = f"must hold the threshold of layer {layer.geometry.name}"
        raise ConfigError(
            f"hardware.membrane_bits: {rule}, {threshold} membrane units; got {bits} bits"
        )
    bias = np.round(gain * layer.weighted.bias.cpu().double().numpy() / unit)
    return IntegerLayer(
        geometry=layer.geometry,
        weight=quantised.int().cpu().numpy().astype(np.int8),
        bias=np.clip(bias, -limit, limit).astype(np.int32),
        threshold=threshold,
        gain_shift=gain_shift,
        decay=neuron_decay(config.neuron),
        membrane_bits=bits,
        weight_bits=config.training.weight_bits,
        neuron=config.neuron.model,
        reset=config.neuron.reset,
    )


def _auto_bits(layers: Sequence[IntegerLayer]) -> int:
    """Smallest width in which no membrane of any layer can saturate."""
    widest = max(layers, key=membrane_bound)
    for bits in _AUTO_WIDTHS:
        if membrane_bound(widest) < 2 ** (bits - 1):
            return bits
    name, bound = widest.geometry.name, membrane_bound(widest)
    raise ConfigError(
        f"hardware.membrane_bits: 'auto' goes up to {_AUTO_WIDTHS[-1]} bits, but membranes of "
        f"layer {name} may reach {bound}; give a width to let them saturate"
    )
