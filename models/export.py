"""From the fake-quantised module to the integers that the hardware holds."""

from __future__ import annotations

import numpy as np
import torch

from ..config import Config
from ._settings import reproducible
from .integer import IntegerNetwork
from .network import SpikingLayer, SpikingNetwork
from .rounding import ScaledLayer, integer_network

__all__ = ["export_network"]


def export_network(network: SpikingNetwork, config: Config) -> IntegerNetwork:
    """Turn a trained module into the integer network of the hardware.

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
    with reproducible(), torch.no_grad():
        layers = [_scaled(layer, config) for layer in network.spiking_layers]
    return integer_network(layers, config.hardware.membrane_bits)


def _scaled(layer: SpikingLayer, config: Config) -> ScaledLayer:
    quantised = layer.weighted.quant_weight()
    return ScaledLayer(
        name=f"layer {layer.geometry.name}",
        geometry=layer.geometry,
        weight=quantised.int().cpu().numpy().astype(np.int8),
        weight_bits=config.training.weight_bits,
        scale=float(quantised.scale),
        bias=layer.weighted.bias.cpu().double().numpy(),
        neuron=config.neuron,
    )
