"""The network of a configuration as a PyTorch module: snnTorch neurons, Brevitas weights.

Layers do not feed back into earlier ones, so each layer runs its convolution or matrix product
over all time steps at once and only its neurons step through time; see `neurons`. Tensors inside
have time first.
"""

from __future__ import annotations

from collections.abc import Callable

import brevitas.nn as qnn
import snntorch as snn
import torch
from brevitas.quant import Int8WeightPerTensorFloat
from torch import Tensor, nn

from ..config import Config, NeuronConfig
from ..network import Layer
from .integer import DECAY_FRACTION_BITS, FACTOR_FRACTION_BITS, neuron_decay
from .neurons import NeuronConstants, fire, pool_spikes
from .surrogates import spike_function, surrogate_gradient

__all__ = ["SpikingLayer", "SpikingNetwork"]


class SpikingLayer(nn.Module):
    """One weighted layer and its neurons.

    Weights are quantised in the forward pass, signed, symmetric and with one scale for the
    layer. The bias stays in floating point: on the hardware it is an integer of membrane units.

    Parameters
    ----------
    geometry : Layer
        Sizes of the layer.
    config : Config
        Neuron, surrogate and training settings.

    Attributes
    ----------
    weighted : QuantConv2d or QuantLinear
        Weights and bias.
    norm : BatchNorm2d or Identity
        Batch normalisation of a convolution's currents, until it is folded.
    neuron : snntorch.Leaky or snntorch.Lapicque
        Decays by what the hardware can apply; resets one step late. It says what the neurons are;
        the forward pass computes the same for all steps at once.
    """

    def __init__(self, geometry: Layer, config: Config) -> None:
        super().__init__()
        self.geometry = geometry
        training, neuron = config.training, config.neuron
        quantisation = {
            "bias": True,
            "weight_quant": Int8WeightPerTensorFloat,
            "weight_bit_width": training.weight_bits,
        }
        self.dropout = nn.Dropout(training.dropout if geometry.kind == "dense" else 0.0)
        if geometry.kind == "dense":
            self.weighted = qnn.QuantLinear(geometry.inputs, geometry.neurons, **quantisation)
        else:
            self.weighted = qnn.QuantConv2d(
                geometry.in_channels,
                geometry.out_channels,
                geometry.kernel,
                padding=geometry.padding,
                **quantisation,
            )
        normalised = training.batch_norm and geometry.kind == "conv"
        self.norm = nn.BatchNorm2d(geometry.out_channels) if normalised else nn.Identity()
        self.mixed = training.precision == "mixed"
        self.constants = _constants(neuron)
        self.gradient = surrogate_gradient(config.surrogate)
        self.neuron = _neuron(neuron, self.constants, spike_function(self.gradient))
        # snnTorch lists every neuron for as long as the process lives, which is of use only
        # for hidden states; a campaign trains thousands of networks in one process.
        snn.SpikingNeuron.instances.remove(self.neuron)

    def forward(self, spikes: Tensor) -> Tensor:
        """Turn spikes that enter into spikes of the neurons.

        Parameters
        ----------
        spikes : Tensor, shape (time_steps, batch, in_channels, in_height, in_width)
            Zeros and ones.

        Returns
        -------
        Tensor, shape (time_steps, batch, out_channels, out_height, out_width)
            Spikes before pooling.
        """
        time_steps, batch = spikes.shape[:2]
        geometry = self.geometry
        incoming = spikes.flatten(2) if geometry.kind == "dense" else spikes
        current = self.norm(self._currents(self.dropout(incoming.flatten(0, 1))))
        maps = (geometry.out_channels, geometry.out_height, geometry.out_width)
        current = current.reshape(time_steps, batch, *maps)
        return fire(current, self.constants, self.gradient)

    def fold(self) -> None:
        """Move batch normalisation into weights and bias, exactly, by its running statistics.

        A layer without it stays as it is.
        """
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        norm, weighted = self.norm, self.weighted
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weighted.weight.mul_(gain.reshape(-1, 1, 1, 1))
            weighted.bias.sub_(norm.running_mean).mul_(gain).add_(norm.bias)
        self.norm = nn.Identity()

    def quantise(self, enabled: bool) -> None:
        """Quantise weights in the forward pass, or use them as they are."""
        self.weighted.weight_quant.disable_quant = not enabled

    def _currents(self, spikes: Tensor) -> Tensor:
        """Weighted sums, in bfloat16 while a network of mixed precision trains.

        Whatever follows is in float32: neurons integrate, and what is evaluated is exported.
        """
        mixed = self.mixed and self.training
        with torch.autocast(spikes.device.type, dtype=torch.bfloat16, enabled=mixed):
            current: Tensor = self.weighted(spikes)
        return current.float()


class SpikingNetwork(nn.Module):
    """The network of a configuration.

    With batch normalisation a network starts `warming_up`: float weights, normalised currents.
    `fold` ends that for good; from then on, and from the start without batch normalisation,
    weights are quantised and the module is what can be exported.

    Parameters
    ----------
    config : Config
        Geometry, neurons, surrogate and training settings. Weights are drawn from PyTorch's
        global random generator.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SpikingLayer(layer, config) for layer in config.layers)
        self.warming_up = config.training.batch_norm and any(
            layer.kind == "conv" for layer in config.layers
        )
        for layer in self.spiking_layers:
            layer.quantise(not self.warming_up)

    @property
    def spiking_layers(self) -> list[SpikingLayer]:
        """Weighted layers in order."""
        return [layer for layer in self.layers if isinstance(layer, SpikingLayer)]

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Run all time steps.

        Parameters
        ----------
        frames : Tensor, shape (batch, time_steps, channels, height, width)
            Zeros and ones, or booleans.

        Returns
        -------
        list of Tensor
            Spikes of every weighted layer before pooling, shape (time_steps, batch, channels,
            height, width); of the output layer, the last, (time_steps, batch, features).
        """
        spikes = frames.transpose(0, 1).contiguous().float()
        fired = []
        for layer in self.spiking_layers:
            spikes = layer(spikes)
            fired.append(spikes)
            if layer.geometry.pool > 1:
                spikes = pool_spikes(spikes, layer.geometry.pool)
        fired[-1] = fired[-1].flatten(2)
        return fired

    def fold(self) -> None:
        """End the warm-up: fold batch normalisation away and quantise weights from now on."""
        for layer in self.spiking_layers:
            layer.fold()
            layer.quantise(True)
        self.warming_up = False


class _Lapicque(snn.Lapicque):  # type: ignore[misc]  # snnTorch gives it no type
    """snnTorch's Lapicque neuron with decay and gain given, which R and C cannot always express."""

    def __init__(
        self,
        *,
        decay: float,
        gain: float,
        threshold: float,
        spike_grad: Callable[[Tensor], Tensor],
        reset_mechanism: str,
    ) -> None:
        super().__init__(
            R=1.0, C=1.0, threshold=threshold, spike_grad=spike_grad,
            reset_mechanism=reset_mechanism,
        )  # fmt: skip
        self.decay = decay
        self.gain = gain

    def _base_state_function(self, input_: Tensor) -> Tensor:
        mem: Tensor = self.gain * input_ + self.decay * self.mem
        return mem


def _constants(config: NeuronConfig) -> NeuronConstants:
    """Constants of a neuron, with the decay that the hardware applies."""
    lif = config.model == "lif"
    return NeuronConstants(
        decay=neuron_decay(config) / 2 ** (DECAY_FRACTION_BITS if lif else FACTOR_FRACTION_BITS),
        gain=config.gain,
        threshold=config.threshold,
        zero=config.reset == "zero",
        whole_step=not lif,
    )


def _neuron(
    config: NeuronConfig, constants: NeuronConstants, spike_grad: Callable[[Tensor], Tensor]
) -> snn.SpikingNeuron:
    """Neuron of snnTorch with these constants."""
    neuron: snn.SpikingNeuron
    if config.model == "lif":
        neuron = snn.Leaky(
            beta=constants.decay,
            threshold=constants.threshold,
            spike_grad=spike_grad,
            reset_mechanism=config.reset,
        )
    else:
        neuron = _Lapicque(
            decay=constants.decay,
            gain=constants.gain,
            threshold=constants.threshold,
            spike_grad=spike_grad,
            reset_mechanism=config.reset,
        )
    return neuron
