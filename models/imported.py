"""Networks that were made elsewhere: from floating-point layers to what can be predicted and run.

`spikemeter.models.tracing` and `spikemeter.models.nir` find the layers; here they become a
configuration and an integer network. No torch in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Config, HardwareConfig, NeuronConfig, load_config
from ..errors import ConfigError
from ..network import Layer
from .integer import IntegerNetwork, network_spikes
from .rounding import ScaledLayer, integer_network

__all__ = ["FloatLayer", "ImportedNetwork", "assemble"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FloatLayer:
    """One weighted layer as it was found, batch normalisation folded in.

    Attributes
    ----------
    name : str
        What its author called it; stands in every refusal.
    kind : {"conv", "dense"}
        A dense layer reads its map flattened in (channel, row, column) order.
    weight : ndarray of float64
        (out_channels, in_channels, kernel, kernel), or (features, inputs).
    bias : ndarray of float64, shape (out_channels,)
        Added to the current in every step.
    scale : float or None
        Distance of the grid that the weights lie on already; None if they must be put on one.
    padded : bool
        Whether a convolution keeps the size of its map.
    pool : int
        Side of the max pooling behind the neurons; 1 for none.
    neuron : NeuronConfig
        Its constants.
    """

    name: str
    kind: Literal["conv", "dense"]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    scale: float | None
    padded: bool
    pool: int
    neuron: NeuronConfig

    @property
    def notation(self) -> str:
        """The layer and its pooling in the notation of a configuration."""
        if self.kind == "dense":
            return str(len(self.weight))
        kernel = self.weight.shape[-1]
        valid = "" if self.padded or kernel == 1 else "v"
        pooling = f"-MP{self.pool}" if self.pool > 1 else ""
        return f"{len(self.weight)}C{kernel}{valid}{pooling}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImportedNetwork:
    """A network that was made elsewhere, ready to be predicted and simulated.

    `network` is not the network that was imported, but what the hardware can hold of it: weights
    are rounded to `weight_bits`, the decay of a LIF neuron to three powers of two, thresholds,
    biases and membranes to integers. It therefore fires somewhat differently.

    Attributes
    ----------
    config : Config
        Notation, frames, neuron and hardware. Where neurons differ from layer to layer, `neuron`
        holds the means of their constants; `network` holds each layer's own.
    network : IntegerNetwork
        For ``simulate(config, network, frames)``.
    spikes : dict of str to ndarray of bool
        ``inputs_i``, the spikes of the sample that enter each weighted layer, ``outputs`` and
        ``quantised``; for ``predict_latency(config, spikes=spikes)``.
    quantised : bool
        Whose spikes these are: of `network`, which is what the hardware does, cycle for cycle; or
        of the network as it was imported, in floating point.
    input_rates, firing_rates : tuple of float
        Spikes per input line and step that enter each weighted layer, and per neuron and step that
        it emits before pooling; they belong to `spikes`.
    modules : tuple of str
        Names of the weighted layers where they come from.
    """

    config: Config
    network: IntegerNetwork
    spikes: dict[str, NDArray[np.bool_]]
    quantised: bool
    input_rates: tuple[float, ...]
    firing_rates: tuple[float, ...]
    modules: tuple[str, ...]

    @property
    def frames(self) -> NDArray[np.bool_]:
        """The sample as frames, shape (samples, time_steps, channels, height, width)."""
        return _as_maps(self.spikes["inputs_0"], self.config.layers[0])


def assemble(
    layers: Sequence[FloatLayer],
    spikes: Mapping[str, NDArray[np.bool_]],
    *,
    input_shape: tuple[int, int, int],
    firing_rates: Sequence[float],
    weight_bits: int,
    hardware: HardwareConfig | Mapping[str, Any] | None,
    quantised: bool,
) -> ImportedNetwork:
    """Turn layers and their spikes into a configuration and an integer network.

    Parameters
    ----------
    layers : sequence of FloatLayer
        In the order of the network.
    spikes : mapping of str to ndarray of bool
        ``inputs_i`` and ``outputs`` of the network in floating point, samples first, then steps.
    input_shape : (int, int, int)
        Channels, height and width of the frames.
    firing_rates : sequence of float
        Spikes per neuron and step that each layer emits, before pooling.
    weight_bits : int
        Of every weight, sign included; 2 to 8.
    hardware : HardwareConfig, mapping or None
        The section of a configuration; None for its defaults.
    quantised : bool
        Give the spikes of the integer network instead.

    Returns
    -------
    ImportedNetwork

    Raises
    ------
    ConfigError
        If the configuration is refused: sizes, hardware, or neurons of several models.
    """
    config = _config(layers, spikes["inputs_0"], input_shape, weight_bits, hardware)
    network = _integer_network(layers, config)
    arrays = dict(spikes)
    if quantised:
        frames = _as_maps(spikes["inputs_0"], config.layers[0])
        trains = network_spikes(network, frames)
        pairs = zip(trains.inputs, config.layers, strict=True)
        arrays = {f"inputs_{i}": _as_lines(train, each) for i, (train, each) in enumerate(pairs)}
        arrays["outputs"] = trains.outputs
        firing_rates = [float(share.mean()) for share in trains.fired]
    arrays["quantised"] = np.array(quantised)
    for array in arrays.values():
        array.setflags(write=False)
    return ImportedNetwork(
        config=config,
        network=network,
        spikes=arrays,
        quantised=quantised,
        input_rates=tuple(float(arrays[f"inputs_{i}"].mean()) for i in range(len(layers))),
        firing_rates=tuple(firing_rates),
        modules=tuple(layer.name for layer in layers),
    )


def _config(
    layers: Sequence[FloatLayer],
    inputs: NDArray[np.bool_],
    input_shape: tuple[int, int, int],
    weight_bits: int,
    hardware: HardwareConfig | Mapping[str, Any] | None,
) -> Config:
    channels, height, width = input_shape
    samples, steps = inputs.shape[:2]
    counts = inputs.reshape(samples, steps, channels, -1).sum(axis=3).mean(axis=0)
    if isinstance(hardware, HardwareConfig):
        hardware = hardware.model_dump()
    elif not isinstance(hardware, Mapping | None):
        rule = "must be a section of a configuration, its keys and their values"
        raise ConfigError(f"hardware: {rule}; got {hardware!r}")
    return load_config(
        {
            "network": "-".join(layer.notation for layer in layers),
            "input": {
                "height": height,
                "width": width,
                "channels": channels,
                "time_steps": steps,
                "statistics": counts.tolist(),
            },
            "neuron": _common_neuron(layers),
            "training": {"weight_bits": weight_bits},
            "hardware": dict(hardware or {}),
        }
    )


def _common_neuron(layers: Sequence[FloatLayer]) -> dict[str, Any]:
    """One section for all neurons: the same model and reset, the means of their constants."""
    first = layers[0]
    for layer in layers[1:]:
        for key in ("model", "reset"):
            given, wanted = getattr(layer.neuron, key), getattr(first.neuron, key)
            if given != wanted:
                rule = f"{key} of its neurons must be {wanted}, as in {first.name!r}: one machine "
                raise ConfigError(f"{layer.name!r}: {rule}has one kind of neuron; got {given}")
    neuron: dict[str, Any] = {"model": first.neuron.model, "reset": first.neuron.reset}
    for key in ("beta", "R", "C", "threshold"):
        values = [getattr(layer.neuron, key) for layer in layers]
        if values[0] is not None:
            neuron[key] = values[0] if len(set(values)) == 1 else float(np.mean(values))
    return neuron


def _integer_network(layers: Sequence[FloatLayer], config: Config) -> IntegerNetwork:
    """Put weights on a grid of so many bits, and round everything else."""
    bits = config.training.weight_bits
    scaled = [
        _scaled(layer, geometry, bits)
        for layer, geometry in zip(layers, config.layers, strict=True)
    ]
    return integer_network(scaled, config.hardware.membrane_bits)


def _scaled(layer: FloatLayer, geometry: Layer, weight_bits: int) -> ScaledLayer:
    scale = _grid(layer, weight_bits)
    return ScaledLayer(
        name=repr(layer.name),
        geometry=geometry,
        weight=np.round(layer.weight / scale).astype(np.int8),
        weight_bits=weight_bits,
        scale=scale,
        bias=layer.bias,
        neuron=layer.neuron,
    )


def _grid(layer: FloatLayer, weight_bits: int) -> float:
    """Scale of the signed weights: their own where that fits, else the finest that does."""
    largest = 2 ** (weight_bits - 1) - 1
    top = float(np.abs(layer.weight).max(initial=0))
    if layer.scale is not None and round(top / layer.scale) <= largest:
        return layer.scale
    return top / largest or 1.0


def _as_maps(spikes: NDArray[np.bool_], layer: Layer) -> NDArray[np.bool_]:
    """Spikes into a layer as maps, whatever its kind."""
    maps = (layer.in_channels, layer.in_height, layer.in_width)
    return spikes.reshape(*spikes.shape[:2], *maps)


def _as_lines(spikes: NDArray[np.bool_], layer: Layer) -> NDArray[np.bool_]:
    """Spikes into a layer as a trace keeps them: flat for a dense one."""
    return spikes.reshape(*spikes.shape[:2], -1) if layer.kind == "dense" else spikes
