"""From weights on a grid and constants in floating point to the integers that the hardware holds.

A membrane unit is ``gain scale / 2^gain_shift``, with the neuron's input gain (1 for LIF) and the
scale of the weights. Weights are already integers of the scale; threshold and bias are rounded to
units, so the gain shift is what gives them resolution. No torch in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..config import NeuronConfig
from ..errors import ConfigError
from ..network import Layer
from .integer import MAX_GAIN_SHIFT, IntegerLayer, IntegerNetwork, membrane_bound, neuron_decay

__all__ = ["ScaledLayer", "integer_network"]

_RESOLUTION = 4096
"""Membrane units that a threshold should have at least: its rounding then errs by 0.01 %."""

_HEADROOM_BITS = 4
"""Bits that this resolution leaves free in a given membrane width, sign included."""

_AUTO_WIDTHS = (16, 24, 32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScaledLayer:
    """One weighted layer whose weights are integers of a scale.

    Attributes
    ----------
    name : str
        What refusals call it.
    geometry : Layer
        Sizes, padding and pooling.
    weight : ndarray of int8, in the shape of `Layer.weight_shape`
        Signed integers of `weight_bits` bits.
    weight_bits : int
        Sign included.
    scale : float
        What one unit of a weight stands for.
    bias : ndarray of float64, shape (out_channels,)
        Added to the current in every step.
    neuron : NeuronConfig
        Its constants.
    """

    name: str
    geometry: Layer
    weight: NDArray[np.int8]
    weight_bits: int
    scale: float
    bias: NDArray[np.float64]
    neuron: NeuronConfig


def integer_network(
    layers: Sequence[ScaledLayer], membrane_bits: int | Literal["auto"]
) -> IntegerNetwork:
    """Round thresholds, biases and decays to what the hardware can hold.

    Parameters
    ----------
    layers : sequence of ScaledLayer
        In the order of the network.
    membrane_bits : int or "auto"
        ``auto`` takes one width for all layers, the smallest of 16, 24 and 32 in which no membrane
        can saturate: few widths, so that runs share compiled simulators.

    Returns
    -------
    IntegerNetwork
        The same neurons, apart from the rounding of thresholds, biases and decayed membranes.

    Raises
    ------
    ConfigError
        If `membrane_bits` cannot hold a threshold, or ``auto`` finds no width.
    """
    widest = _AUTO_WIDTHS[-1] if membrane_bits == "auto" else membrane_bits
    integers = [_integer_layer(layer, widest) for layer in layers]
    if membrane_bits == "auto":
        bits = _auto_bits(layers, integers)
        integers = [replace(layer, membrane_bits=bits) for layer in integers]
    return IntegerNetwork(layers=tuple(integers))


def _integer_layer(layer: ScaledLayer, bits: int) -> IntegerLayer:
    """Constants of one layer, with the smallest gain shift that resolves its threshold.

    The shift stops earlier where a finer unit would take membranes out of 32 bits, as it does
    when weights have grown to many thresholds.
    """
    resolution = min(_RESOLUTION, 2 ** (bits - _HEADROOM_BITS))
    coarse = _with_gain_shift(layer, bits, 0)
    for shift in range(1, MAX_GAIN_SHIFT + 1):
        if coarse.threshold >= resolution:
            break
        finer = _with_gain_shift(layer, bits, shift)
        if membrane_bound(finer) >= 2**31:
            break
        coarse = finer
    return coarse


def _with_gain_shift(layer: ScaledLayer, bits: int, gain_shift: int) -> IntegerLayer:
    """Constants of one layer in membrane units of ``gain scale / 2^gain_shift``."""
    limit = 2 ** (bits - 1) - 1
    neuron = layer.neuron
    unit = neuron.gain * layer.scale / 2**gain_shift
    threshold = max(1, round(neuron.threshold / unit))
    if threshold > limit:
        rule = f"must hold the threshold of {layer.name}"
        raise ConfigError(
            f"hardware.membrane_bits: {rule}, {threshold} membrane units; got {bits} bits"
        )
    bias = np.round(neuron.gain * layer.bias / unit)
    return IntegerLayer(
        geometry=layer.geometry,
        weight=layer.weight,
        bias=np.clip(bias, -limit, limit).astype(np.int32),
        threshold=threshold,
        gain_shift=gain_shift,
        decay=neuron_decay(neuron),
        membrane_bits=bits,
        weight_bits=layer.weight_bits,
        neuron=neuron.model,
        reset=neuron.reset,
    )


def _auto_bits(layers: Sequence[ScaledLayer], integers: Sequence[IntegerLayer]) -> int:
    """Smallest width in which no membrane of any layer can saturate."""
    bounds = [membrane_bound(layer) for layer in integers]
    bound = max(bounds)
    for bits in _AUTO_WIDTHS:
        if bound < 2 ** (bits - 1):
            return bits
    raise ConfigError(
        f"hardware.membrane_bits: 'auto' goes up to {_AUTO_WIDTHS[-1]} bits, but membranes of "
        f"{layers[bounds.index(bound)].name} may reach {bound}; give a width to let them saturate"
    )
