from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from spikemeter.config import Config
from spikemeter.models.export import export_network
from spikemeter.models.network import SpikingNetwork
from spikemeter.models.tracing import from_module

MakeConfig = Callable[..., Config]
CONSTANTS = ("threshold", "gain_shift", "decay", "membrane_bits", "weight_bits", "neuron", "reset")


@pytest.mark.parametrize("weight_bits", [2, 4, 8])
@pytest.mark.parametrize("membrane_bits", ["auto", 12])
def test_a_network_of_ours_is_rounded_alike_when_it_is_imported(
    make_config: MakeConfig, weight_bits: int, membrane_bits: int | str
) -> None:
    config = make_config(
        neuron={"beta": 0.875, "threshold": 0.7}, hardware={"membrane_bits": membrane_bits},
        training={"batch_norm": False, "weight_bits": weight_bits},
    )  # fmt: skip
    torch.manual_seed(5)
    network = SpikingNetwork(config).eval()
    conv, dense = network.spiking_layers
    parts = [
        conv.weighted, snn.Leaky(beta=0.875, threshold=0.7, init_hidden=True), nn.MaxPool2d(2),
        nn.Flatten(), dense.weighted, snn.Leaky(beta=0.875, threshold=0.7, init_hidden=True),
    ]  # fmt: skip
    sample = (torch.rand(4, 2, 2, 8, 8) < 0.4).float()
    found = from_module(
        nn.Sequential(*parts), sample, weight_bits=weight_bits,
        hardware={"membrane_bits": membrane_bits},
    )  # fmt: skip
    for ours, theirs in zip(
        export_network(network, config).layers, found.network.layers, strict=True
    ):
        np.testing.assert_array_equal(theirs.weight, ours.weight)
        np.testing.assert_array_equal(theirs.bias, ours.bias)
        for name in CONSTANTS:
            assert getattr(theirs, name) == getattr(ours, name), name


def test_rounding_needs_no_torch() -> None:
    program = "import sys, spikemeter.models.imported; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
