"""The network as geometry: what the notation ``16C3-MP2-32C3-MP2-10`` means, layer by layer.

`parse_network` turns the field's notation into one `Layer` per weighted layer. Training, RTL and
timing all read their sizes here, so padding and pooling cannot differ between them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from .errors import ConfigError

__all__ = [
    "Layer",
    "banks",
    "packed_words",
    "parse_network",
    "pixels_at_once",
    "served_by_tap",
    "taps_inside",
]

_CONV = re.compile(r"(?P<channels>[1-9][0-9]{0,4})C(?P<kernel>0|[1-9][0-9]{0,2})(?P<valid>v?)")
_POOL = re.compile(r"MP(?P<factor>0|[1-9][0-9]{0,2})")
_DENSE = re.compile(r"(?P<features>[1-9][0-9]{0,5})")

_KERNELS = (1, 3, 5)
_POOLS = (2, 4)
"""What our own engine has; other machines may have any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weighted layer with its neurons and the max pooling behind them.

    Attributes
    ----------
    name : str
        Index and notation, for instance ``"0:16C3"``.
    kind : {"conv", "dense"}
        A dense layer reads its input map flattened in (channel, row, column) order and has an
        output map of 1 x 1.
    in_channels, in_height, in_width : int
        Size of the spike map that enters.
    out_channels, out_height, out_width : int
        Size of the map of neurons, before pooling.
    kernel, padding : int
        Side of the square kernel and zero padding on each side; 1 and 0 for a dense layer.
    pool : int
        Side and stride of the max pooling that follows (it floors); 1 for none.
    """

    name: str
    kind: Literal["conv", "dense"]
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel: int
    padding: int
    pool: int

    @property
    def inputs(self) -> int:
        """Input lines, each of which spikes or not in a time step."""
        return self.in_channels * self.in_height * self.in_width

    @property
    def neurons(self) -> int:
        """Neurons, all of which are updated in every time step."""
        return self.out_channels * self.out_height * self.out_width

    @property
    def fan_in(self) -> int:
        """Weights that reach one neuron."""
        if self.kind == "dense":
            return self.inputs
        return self.in_channels * self.kernel**2

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights as PyTorch keeps them."""
        if self.kind == "dense":
            return (self.out_channels, self.inputs)
        return (self.out_channels, self.in_channels, self.kernel, self.kernel)

    @property
    def pooled_height(self) -> int:
        """Rows of the spike map that leaves, after pooling."""
        return self.out_height // self.pool

    @property
    def pooled_width(self) -> int:
        """Columns of the spike map that leaves, after pooling."""
        return self.out_width // self.pool

    @property
    def outputs(self) -> int:
        """Output lines after pooling: the inputs of the next layer."""
        return self.out_channels * self.pooled_height * self.pooled_width


def taps_inside(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Count the kernel rows, and columns, that reach a neuron from each input row, and column.

    A spike at row y and column x of a map has ``rows[y] * columns[x]`` taps inside the frame.

    Examples
    --------
    >>> (layer,) = parse_network("2C3", channels=1, height=4, width=1, any_machine=True)
    >>> taps_inside(layer)
    ((2, 3, 3, 2), (1,))
    """
    if layer.kind == "dense":
        return (1,) * layer.in_height, (1,) * layer.in_width
    kernel, padding = layer.kernel, layer.padding
    return (
        _taps_along(layer.in_height, layer.out_height, kernel, padding),
        _taps_along(layer.in_width, layer.out_width, kernel, padding),
    )


@lru_cache(maxsize=1024)
def _taps_along(inputs: int, outputs: int, kernel: int, padding: int) -> tuple[int, ...]:
    """Count the kernel taps that reach a neuron from each place along one side of a map."""
    return tuple(
        sum(0 <= place + padding - tap < outputs for tap in range(kernel))
        for place in range(inputs)
    )


def packed_words(spikes: int, encoder_width: int) -> int:
    """Words of `encoder_width` bits that hold the spikes of one step; ``rtl/spike_buffer.sv``."""
    return -(-spikes // encoder_width)


def banks(layer: Layer, taps_per_cycle: int) -> int:
    """Banks of a core: nine where it serves all taps of a 3x3 kernel in a cycle, else one.

    Other layers keep one tap per cycle, whatever `hardware.taps_per_cycle` says.

    Examples
    --------
    >>> layers = parse_network("8C3-4C5-10", channels=2, height=8, width=8)
    >>> [banks(layer, 9) for layer in layers]
    [9, 1, 1]
    """
    return 9 if taps_per_cycle == 9 and layer.kind == "conv" and layer.kernel == 3 else 1


def served_by_tap(layer: Layer, taps_per_cycle: int) -> bool:
    """Whether a spike takes a core as many cycles as it has taps inside the frame."""
    return layer.kernel > 1 and banks(layer, taps_per_cycle) == 1


def pixels_at_once(pool: int, phases: int) -> int:
    """Pooled pixels that cores with nine banks write back per cycle; ``rtl/strip_packer.sv``.

    A tile of 3x3 neurons takes `phases` cycles to fire, and ``pool**2`` tiles make nine pooled
    pixels: as few at once as keep up with that.
    """
    rate = pool**2 * phases
    return 1 if rate >= 9 else 3 if rate >= 3 else 9


def parse_network(
    notation: str, *, channels: int, height: int, width: int, any_machine: bool = False
) -> tuple[Layer, ...]:
    """Read the notation of the field for an input map of the given size.

    Parameters
    ----------
    notation : str
        Tokens joined by ``-``: ``nCk`` is a convolution with n channels, a k x k kernel and zero
        padding that keeps the size (``nCkv``: no padding), ``MPk`` a k x k max pooling, a bare
        ``n`` a dense layer. The last token is the dense output layer.
    channels, height, width : int
        Size of the input spike map.
    any_machine : bool, optional
        Allow what other machines than our own engine may have: any kernel (an even one without
        padding) and any pooling, and a network that ends in a convolution, such as a single layer
        that was measured. Default: kernels and poolings of the engine, a dense output layer.

    Returns
    -------
    tuple of Layer
        One entry per weighted layer, in the order of the notation.

    Raises
    ------
    ConfigError
        If a token is unknown, stands where it cannot, or leaves an empty map.

    Examples
    --------
    >>> [layer.name for layer in parse_network("16C3-MP2-10", channels=2, height=16, width=16)]
    ['0:16C3', '1:10']
    >>> parse_network("16C3-MP2-10", channels=2, height=16, width=16)[1].inputs
    1024
    """
    tokens = notation.split("-")
    layers: list[Layer] = []
    shape = (channels, height, width)
    previous = ""
    for position, token in enumerate(tokens):
        if match := _POOL.fullmatch(token):
            if not layers or layers[-1].kind == "dense" or _POOL.fullmatch(previous):
                raise _refusal(notation, token, position, "max pooling must follow a convolution")
            factor = int(match["factor"])
            if factor not in _POOLS and not (any_machine and factor > 1):
                rule = "at least 2" if any_machine else f"one of {_POOLS}"
                raise _refusal(notation, token, position, f"the pooling must be {rule}")
            layers[-1] = _with_pool(notation, token, position, layers[-1], factor)
        elif match := _CONV.fullmatch(token):
            if layers and layers[-1].kind == "dense":
                raise _refusal(notation, token, position, "a convolution cannot follow a dense one")
            _check_kernel(notation, token, position, match, any_machine)
            layers.append(_conv(notation, token, position, len(layers), shape, match))
        elif match := _DENSE.fullmatch(token):
            layers.append(_dense(token, len(layers), shape, int(match["features"])))
        else:
            rule = "tokens are nCk or nCkv (convolution), MPk (max pooling) and n (dense)"
            raise _refusal(notation, token, position, rule)
        last = layers[-1]
        shape = (last.out_channels, last.pooled_height, last.pooled_width)
        previous = token
    if layers[-1].kind != "dense" and not any_machine:
        raise _refusal(notation, tokens[-1], len(tokens) - 1, "the last layer must be dense")
    return tuple(layers)


def _check_kernel(
    notation: str, token: str, position: int, match: re.Match[str], any_machine: bool
) -> None:
    kernel = int(match["kernel"])
    if not any_machine and kernel not in _KERNELS:
        raise _refusal(notation, token, position, f"the kernel must be one of {_KERNELS}")
    if kernel < 1 or (kernel % 2 == 0 and not match["valid"]):
        rule = "the kernel must be odd where it is padded, or at least 1 without padding (nCkv)"
        raise _refusal(notation, token, position, rule)


def _conv(
    notation: str,
    token: str,
    position: int,
    index: int,
    shape: tuple[int, int, int],
    match: re.Match[str],
) -> Layer:
    kernel = int(match["kernel"])
    padding = 0 if match["valid"] else kernel // 2
    channels, height, width = shape
    out_height, out_width = (side + 2 * padding - kernel + 1 for side in (height, width))
    if min(out_height, out_width) < 1:
        raise _refusal(notation, token, position, f"the kernel exceeds its {height}x{width} input")
    return Layer(
        name=f"{index}:{token}",
        kind="conv",
        in_channels=channels,
        in_height=height,
        in_width=width,
        out_channels=int(match["channels"]),
        out_height=out_height,
        out_width=out_width,
        kernel=kernel,
        padding=padding,
        pool=1,
    )


def _dense(token: str, index: int, shape: tuple[int, int, int], features: int) -> Layer:
    channels, height, width = shape
    return Layer(
        name=f"{index}:{token}",
        kind="dense",
        in_channels=channels,
        in_height=height,
        in_width=width,
        out_channels=features,
        out_height=1,
        out_width=1,
        kernel=1,
        padding=0,
        pool=1,
    )


def _with_pool(notation: str, token: str, position: int, layer: Layer, factor: int) -> Layer:
    if min(layer.out_height, layer.out_width) < factor:
        size = f"{layer.out_height}x{layer.out_width}"
        raise _refusal(notation, token, position, f"the pooling exceeds its {size} map")
    return replace(layer, pool=factor)


def _refusal(notation: str, token: str, position: int, rule: str) -> ConfigError:
    return ConfigError(f"network: {rule}; got {token!r} as token {position + 1} of {notation!r}")
