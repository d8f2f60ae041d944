"""The network of a configuration as a PyTorch module: snnTorch neurons, Brevitas weights.

Layers do not feed back into earlier ones, so each layer runs its convolution or matrix product
over all time steps at once and only its neurons step through time. Tensors inside have time first.
"""

from __future__ import annotations

from collections.abc import Callable

import brevitas.nn as qnn
import snntorch as snn
import torch
import torch.nn.functional as F
from brevitas.quant import Int8WeightPerTensorFloat
from snntorch import surrogate
from torch import Tensor, nn

from ..config import Config, NeuronConfig, SurrogateConfig
from ..network import Layer
from .integer import DECAY_FRACTION_BITS, FACTOR_FRACTION_BITS, neuron_decay

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
        Decays by what the hardware can apply; resets one step late.
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
        self.neuron = _neuron(neuron, _surrogate(config.surrogate))
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
        current = self.norm(self.weighted(self.dropout(incoming.flatten(0, 1))))
        maps = (geometry.out_channels, geometry.out_height, geometry.out_width)
        return self._fire(current.reshape(time_steps, batch, *maps))

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

    def _fire(self, current: Tensor) -> Tensor:
        mem = torch.zeros_like(current[0])
        spikes = []
        for step in current.unbind(0):
            spike, mem = self.neuron(step, mem)
            spikes.append(spike)
        self.neuron.reset_mem()  # the module would keep the graph of its last step alive
        return torch.stack(spikes)


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
            Zeros and ones.

        Returns
        -------
        list of Tensor
            Spikes of every weighted layer before pooling, shape (time_steps, batch, channels,
            height, width); of the output layer, the last, (time_steps, batch, features).
        """
        spikes = frames.transpose(0, 1)
        fired = []
        for layer in self.spiking_layers:
            spikes = layer(spikes)
            fired.append(spikes)
            if layer.geometry.pool > 1:
                pooled = F.max_pool2d(spikes.flatten(0, 1), layer.geometry.pool)
                spikes = pooled.reshape(*spikes.shape[:2], *pooled.shape[1:])
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


def _neuron(config: NeuronConfig, spike_grad: Callable[[Tensor], Tensor]) -> snn.SpikingNeuron:
    """Neuron of snnTorch with the decay that the hardware applies."""
    neuron: snn.SpikingNeuron
    if config.model == "lif":
        neuron = snn.Leaky(
            beta=neuron_decay(config) / 2**DECAY_FRACTION_BITS,
            threshold=config.threshold,
            spike_grad=spike_grad,
            reset_mechanism=config.reset,
        )
    else:
        neuron = _Lapicque(
            decay=neuron_decay(config) / 2**FACTOR_FRACTION_BITS,
            gain=config.gain,
            threshold=config.threshold,
            spike_grad=spike_grad,
            reset_mechanism=config.reset,
        )
    return neuron


def _surrogate(config: SurrogateConfig) -> Callable[[Tensor], Tensor]:
    """Gradient of a spike, as snnTorch defines it."""
    if config.name == "fast_sigmoid":
        gradient: Callable[[Tensor], Tensor] = surrogate.fast_sigmoid(slope=config.slope)
    else:
        gradient = surrogate.atan(alpha=config.slope)
    return gradient
