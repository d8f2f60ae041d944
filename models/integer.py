"""The integer network that the hardware runs, and the reference that says which neuron fires.

The reference is the golden model of the RTL: plain numpy on integers, exact, no torch. One time
step of a neuron with integer input current I (the sum of the weights of the inputs that spike) is

    R[t] = U[t-1] > threshold
    U[t] = floor(decay U[t-1]) + I[t] 2^gain_shift + bias - threshold R[t]
    S[t] = U[t] > threshold

which is a neuron of snnTorch 1.0 (`snn.Leaky` or `snn.Lapicque`, reset by subtraction one step
late) in units of ``gain weight_scale / 2^gain_shift``, with the neuron's own input gain (1 for
LIF, 1/C for Lapicque). Reset to zero differs between the two, as it does there: where R[t] is set,
a LIF neuron forgets U[t-1], a Lapicque neuron the whole step. U saturates to `membrane_bits` when
it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import NeuronConfig
from ..errors import RunFolderError
from ..network import Layer
from ._arrays import read_arrays, write_arrays

__all__ = [
    "DECAY_FRACTION_BITS",
    "FACTOR_FRACTION_BITS",
    "MAX_GAIN_SHIFT",
    "IntegerLayer",
    "IntegerNetwork",
    "SpikeTrains",
    "class_accuracy",
    "decay_terms",
    "layer_spikes",
    "load_network",
    "membrane_bound",
    "network_spikes",
    "neuron_decay",
    "quantised_decay",
    "save_network",
]

DECAY_FRACTION_BITS = 8
"""Bits behind the binary point of a decay that is shifted and added, so the unit is 1/256."""
FACTOR_FRACTION_BITS = 16
"""Bits behind the binary point of a decay that is multiplied, so the unit is 1/65536."""

MAX_GAIN_SHIFT = 15
"""Most bits by which an input current is shifted."""

_PATCH_VALUES = 2**22  # inputs under the kernel at a time, which bounds memory
_WEIGHT_BITS = range(2, 9)
_MEMBRANE_BITS = range(8, 33)
_SCALARS = ("threshold", "gain_shift", "decay", "membrane_bits", "weight_bits")
_NAMES: dict[str, tuple[str, ...]] = {"neuron": ("lif", "lapicque"), "reset": ("subtract", "zero")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerLayer:
    """Constants of one weighted layer as they are loaded into the hardware.

    Attributes
    ----------
    geometry : Layer
        Sizes, padding and pooling.
    weight : ndarray of int8, in the shape of `Layer.weight_shape`
        Signed weights of `weight_bits` bits.
    bias : ndarray of int32, shape (out_channels,)
        Added at every step, in membrane units.
    threshold : int
        A neuron fires above this; in membrane units, positive.
    gain_shift : int
        Input current counts 2^gain_shift membrane units; 0 to 15.
    decay : int
        Membrane decay per step. LIF: in 1/256, a sum of at most three signed powers of two, above
        0. Lapicque: in 1/65536, from -65536 to 65536.
    membrane_bits, weight_bits : int
        Widths in bits, sign included.
    neuron : {"lif", "lapicque"}
        A LIF neuron shifts and adds its decay, a Lapicque neuron multiplies.
    reset : {"subtract", "zero"}
        What a spike does to the next step.
    """

    geometry: Layer
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    threshold: int
    gain_shift: int
    decay: int
    membrane_bits: int
    weight_bits: int
    neuron: Literal["lif", "lapicque"] = "lif"
    reset: Literal["subtract", "zero"] = "subtract"

    def __post_init__(self) -> None:
        name = self.geometry.name
        _require(self.weight_bits in _WEIGHT_BITS, name, "weight_bits", self.weight_bits)
        _require(self.membrane_bits in _MEMBRANE_BITS, name, "membrane_bits", self.membrane_bits)
        largest = 2 ** (self.weight_bits - 1) - 1
        limit = 2 ** (self.membrane_bits - 1) - 1
        _require(self.weight.shape == self.geometry.weight_shape, name, "weight", self.weight.shape)
        _require(
            int(np.abs(self.weight.astype(np.int64)).max(initial=0)) <= largest,
            name, "weight_bits", self.weight_bits,
        )  # fmt: skip
        _require(self.bias.shape == (self.geometry.out_channels,), name, "bias", self.bias.shape)
        largest_bias = int(np.abs(self.bias.astype(np.int64)).max(initial=0))
        _require(largest_bias <= limit, name, "bias", largest_bias)
        _require(0 < self.threshold <= limit, name, "threshold", self.threshold)
        _require(0 <= self.gain_shift <= MAX_GAIN_SHIFT, name, "gain_shift", self.gain_shift)
        for field, allowed in _NAMES.items():
            _require(getattr(self, field) in allowed, name, field, getattr(self, field))
        one = 2**FACTOR_FRACTION_BITS
        multiplied = self.neuron == "lapicque" and -one <= self.decay <= one
        _require(multiplied or self.decay in _DECAY_TERMS, name, "decay", self.decay)
        for array in (self.weight, self.bias):
            array.setflags(write=False)

    @property
    def fraction_bits(self) -> int:
        """Bits behind the binary point of `decay`."""
        return FACTOR_FRACTION_BITS if self.neuron == "lapicque" else DECAY_FRACTION_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerNetwork:
    """Integer layers in the order of the network."""

    layers: tuple[IntegerLayer, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpikeTrains:
    """Spikes of every layer for a batch of samples.

    Attributes
    ----------
    inputs : tuple of ndarray of bool
        Spikes that enter each weighted layer, after pooling, shape
        (samples, time_steps, channels, height, width).
    outputs : ndarray of bool, shape (samples, time_steps, features)
        Spikes of the output layer.
    fired : tuple of ndarray of float, shape (samples, time_steps)
        Share of each layer's neurons that fire, before pooling.
    """

    inputs: tuple[NDArray[np.bool_], ...]
    outputs: NDArray[np.bool_]
    fired: tuple[NDArray[np.float64], ...]


def _require(holds: bool, layer: str, name: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} of layer {layer} does not fit the hardware, got {value}")


def _decay_table() -> dict[int, tuple[tuple[int, int], ...]]:
    """Fewest signed shifts for every decay that three of them reach."""
    unit = 2**DECAY_FRACTION_BITS
    digits = [(sign, shift) for shift in range(DECAY_FRACTION_BITS + 1) for sign in (1, -1)]
    table: dict[int, tuple[tuple[int, int], ...]] = {}
    for count in (1, 2, 3):
        for terms in product(digits, repeat=count):
            value = sum(sign * (unit >> shift) for sign, shift in terms)
            if 0 < value <= unit:
                table.setdefault(value, terms)
    return table


_DECAY_TERMS = _decay_table()


def quantised_decay(beta: float) -> int:
    """Nearest decay that the hardware can apply, in 1/256.

    Parameters
    ----------
    beta : float
        Membrane decay per step, in (0, 1].

    Returns
    -------
    int
        A sum of at most three signed powers of two; the lower one of two equally near.

    Examples
    --------
    >>> quantised_decay(0.9), quantised_decay(0.9) / 256
    (232, 0.90625)
    """
    if not 0 < beta <= 1:
        raise ValueError(f"beta must be in (0, 1], got {beta}")
    target = beta * 2**DECAY_FRACTION_BITS
    return min(sorted(_DECAY_TERMS), key=lambda value: abs(value - target))


def neuron_decay(neuron: NeuronConfig) -> int:
    """Decay of a neuron as the hardware applies it; its unit is that of `IntegerLayer.decay`.

    A Lapicque neuron whose decay matches that of LIF takes the quantised one, so that with its
    gain matched too it fires exactly as that LIF neuron. That holds for reset by subtraction; a
    configuration refuses the other.

    Examples
    --------
    >>> neuron_decay(NeuronConfig(beta=0.9))
    232
    >>> neuron_decay(NeuronConfig(model="lapicque", beta=0.9, match="both")) / 256
    232.0
    >>> neuron_decay(NeuronConfig(model="lapicque", R=5, C=2))
    58982
    """
    if neuron.model == "lif":
        return quantised_decay(neuron.decay)
    if neuron.match in ("decay", "both"):
        return quantised_decay(neuron.decay) << (FACTOR_FRACTION_BITS - DECAY_FRACTION_BITS)
    one = 1 << FACTOR_FRACTION_BITS
    return round(neuron.decay * one)


def decay_terms(decay: int) -> tuple[tuple[int, int], ...]:
    """Signs and right shifts that the hardware adds up to apply a decay.

    Parameters
    ----------
    decay : int
        In 1/256, as `quantised_decay` gives it.

    Returns
    -------
    tuple of (sign, shift)
        At most three terms; ``sum(sign * 2**-shift)`` is the decay.

    Examples
    --------
    >>> decay_terms(224)
    ((1, 0), (-1, 3))
    """
    return _DECAY_TERMS[decay]


def membrane_bound(layer: IntegerLayer) -> int:
    """Largest magnitude that a membrane potential of a layer can ever reach.

    From ``|U[t]| <= |a| |U[t-1]| + 1 + g |I|max + |bias| + threshold``, summed over 1024 steps (the
    most that a configuration allows) or to its limit, whichever is smaller. Every step is taken at
    its worst, so the bound is safe, not tight.
    """
    fan_in = layer.weight.reshape(layer.weight.shape[0], -1).astype(np.int64)
    current = np.abs(fan_in).sum(axis=1) << layer.gain_shift
    step = int((current + np.abs(layer.bias.astype(np.int64))).max()) + layer.threshold + 1
    one = 2**layer.fraction_bits
    leak = one - abs(layer.decay)
    return step * (1024 if leak == 0 else min(1024, -(-one // leak)))


def layer_spikes(
    layer: IntegerLayer, spikes: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Run one layer on the integers that the hardware holds.

    Parameters
    ----------
    layer : IntegerLayer
        Weights and constants.
    spikes : ndarray of bool, shape (samples, time_steps, in_channels, in_height, in_width)
        Spikes that enter.

    Returns
    -------
    pooled : ndarray of bool, shape (samples, time_steps, out_channels, height, width)
        Spikes that leave, after max pooling.
    fired : ndarray of float, shape (samples, time_steps)
        Share of the neurons that fire, before pooling.

    Raises
    ------
    ValueError
        If `spikes` does not fit the layer.

    References
    ----------
    .. [1] ``rtl/neural_core.sv``, the fire pipeline.
    """
    geometry = layer.geometry
    expected = (geometry.in_channels, geometry.in_height, geometry.in_width)
    if spikes.ndim != 5 or spikes.shape[2:] != expected or not len(spikes):
        raise ValueError(
            f"spikes into {geometry.name} must have shape (samples, time_steps, "
            f"{', '.join(map(str, expected))}) with a sample or more, got {spikes.shape}"
        )
    bias = layer.bias.astype(np.int64).reshape(1, -1, 1, 1)
    limit = 2 ** (layer.membrane_bits - 1)
    mem = np.zeros((1, 1, 1, 1), dtype=np.int64)
    pooled, fired = [], []
    for step in range(spikes.shape[1]):
        current = _current(layer, spikes[:, step]) << layer.gain_shift
        mem = np.clip(_integrated(layer, mem, current + bias), -limit, limit - 1)
        spike = mem > layer.threshold
        fired.append(spike.mean(axis=(1, 2, 3)))
        pooled.append(_pooled(spike, geometry))
    return np.stack(pooled, axis=1), np.stack(fired, axis=1)


def network_spikes(network: IntegerNetwork, spikes: NDArray[np.bool_]) -> SpikeTrains:
    """Run the whole network; see `layer_spikes`.

    Parameters
    ----------
    network : IntegerNetwork
        Layers in order.
    spikes : ndarray of bool, shape (samples, time_steps, channels, height, width)
        Input frames.

    Returns
    -------
    SpikeTrains
        Spikes that enter every layer, and those of the output layer.

    Raises
    ------
    ValueError
        If `spikes` does not fit the first layer.
    """
    inputs: list[NDArray[np.bool_]] = []
    rates = []
    for layer in network.layers:
        geometry = layer.geometry
        if inputs and geometry.kind == "dense":  # what it reads may be a map or features
            shape = (geometry.in_channels, geometry.in_height, geometry.in_width)
            spikes = spikes.reshape(*spikes.shape[:2], *shape)
        inputs.append(spikes)
        spikes, rate = layer_spikes(layer, spikes)
        rates.append(rate)
    return SpikeTrains(
        inputs=tuple(inputs), outputs=spikes.reshape(*spikes.shape[:2], -1), fired=tuple(rates)
    )


def save_network(network: IntegerNetwork, path: Path) -> None:
    """Write an integer network as ``network.npz``, whole or not at all."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for index, layer in enumerate(network.layers):
        arrays[f"weight_{index}"] = layer.weight
        arrays[f"bias_{index}"] = layer.bias
        for name in _SCALARS:
            arrays[f"{name}_{index}"] = np.array(getattr(layer, name), dtype=np.int64)
        for name in _NAMES:
            arrays[f"{name}_{index}"] = np.array(getattr(layer, name))
    write_arrays(path, arrays)


def load_network(path: Path, geometry: Sequence[Layer]) -> IntegerNetwork:
    """Read ``network.npz`` and hold it against the network that it should be.

    Parameters
    ----------
    path : Path
        File written by `save_network`.
    geometry : sequence of Layer
        The layers of the configuration.

    Returns
    -------
    IntegerNetwork
        Checked against the geometry.

    Raises
    ------
    RunFolderError
        If the file is missing, damaged or holds another network.
    """
    names = ("weight", "bias", *_SCALARS, *_NAMES)
    arrays = read_arrays(
        path, [f"{name}_{index}" for index in range(len(geometry)) for name in names]
    )
    try:
        layers = tuple(
            IntegerLayer(
                geometry=layer,
                weight=_typed(arrays, f"weight_{index}", np.int8),
                bias=_typed(arrays, f"bias_{index}", np.int32),
                **{name: _typed(arrays, f"{name}_{index}", np.int64).item() for name in _SCALARS},
                **{name: _typed(arrays, f"{name}_{index}", np.str_).item() for name in _NAMES},
            )
            for index, layer in enumerate(geometry)
        )
    except ValueError as error:
        raise RunFolderError(f"cannot use the network in {str(path)!r}: {error}") from error
    return IntegerNetwork(layers=layers)


def class_accuracy(outputs: NDArray[np.bool_], labels: NDArray[np.int64], classes: int) -> float:
    """Share of samples whose class spikes most; the lowest of equal classes counts.

    Parameters
    ----------
    outputs : ndarray of bool, shape (samples, time_steps, features)
        Spikes of the output layer; each class owns ``features / classes`` consecutive neurons.
    labels : ndarray of int64, shape (samples,)
        Classes.
    classes : int
        Divides the features.

    Returns
    -------
    float
        In [0, 1].
    """
    votes = outputs.sum(axis=1).reshape(len(outputs), classes, -1).sum(axis=2)
    return float((votes.argmax(axis=1) == labels).mean())


def _typed(
    arrays: Mapping[str, NDArray[np.generic]], name: str, dtype: type[np.generic]
) -> NDArray[Any]:
    array = arrays[name]
    if not np.issubdtype(array.dtype, dtype):
        raise ValueError(f"{name} must be {dtype.__name__}, got {array.dtype}")
    return array


def _integrated(
    layer: IntegerLayer, mem: NDArray[np.int64], drive: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Membranes after a step from those before and what is added, before saturation."""
    reset = mem > layer.threshold
    forget = layer.reset == "zero"
    if forget and layer.neuron == "lif":
        mem = np.where(reset, 0, mem)
    mem = (mem * layer.decay >> layer.fraction_bits) + drive
    if forget:
        return np.where(reset, 0, mem) if layer.neuron == "lapicque" else mem
    return mem - reset * layer.threshold


def _current(layer: IntegerLayer, spikes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sum of the weights of the inputs that spike, shape (samples, channels, height, width).

    Summed in floating point, where matrix products are fast; exact, since every sum stays far
    below 2^53.
    """
    geometry = layer.geometry
    weight = layer.weight.reshape(geometry.out_channels, -1).astype(np.float64)
    if geometry.kind == "dense":
        current = spikes.reshape(spikes.shape[0], -1).astype(np.float64) @ weight.T
        return current[:, :, None, None].astype(np.int64)
    pad = geometry.padding
    padded = np.pad(spikes, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (geometry.kernel, geometry.kernel), axis=(2, 3)
    ).transpose(0, 2, 3, 1, 4, 5)
    positions = geometry.out_height * geometry.out_width
    chunk = max(1, _PATCH_VALUES // (positions * geometry.fan_in))
    current = np.empty((spikes.shape[0], positions, geometry.out_channels))
    for start in range(0, len(current), chunk):
        patches = windows[start : start + chunk].reshape(-1, positions, geometry.fan_in)
        np.matmul(patches.astype(np.float64), weight.T, out=current[start : start + chunk])
    shape = (len(current), geometry.out_height, geometry.out_width, geometry.out_channels)
    return current.reshape(shape).transpose(0, 3, 1, 2).astype(np.int64)


def _pooled(spikes: NDArray[np.bool_], geometry: Layer) -> NDArray[np.bool_]:
    """Max pooling of spikes: OR over squares; rows and columns left over are dropped."""
    pool, height, width = geometry.pool, geometry.pooled_height, geometry.pooled_width
    whole = spikes[:, :, : height * pool, : width * pool]
    squares = whole.reshape(*spikes.shape[:2], height, pool, width, pool)
    return np.asarray(squares.any(axis=(3, 5)))
