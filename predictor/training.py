"""Prediction inside a training loop: what a module of yours is, found when it first runs.

Of this folder only this file knows modules and what they are made of, through `spikemeter.models`.
`LatencyMonitor` watches a module, `LatencyLoss` makes its latency part of the loss.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..config import Config, HardwareConfig, load_config
from ..errors import ConfigError
from ..network import Layer
from .hooks import first_tensor
from .latency_loss import LatencyLoss
from .monitor import LatencyMonitor
from .watching import Places

if TYPE_CHECKING:
    from ..models._recording import Trace
    from ..models.imported import ImportedNetwork

__all__ = ["FoundNetwork", "LatencyLoss", "LatencyMonitor", "found_network", "own_network"]

_FEW = 16
"""Samples of a batch that a module is understood by."""

_CLOSE = 0.01
"""Decays that are trained alike."""

Section = HardwareConfig | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundNetwork:
    """What a module was found to be.

    Attributes
    ----------
    config : Config
        Of a single time step, if the loop over the steps stands outside of the module.
    places : Places
        Where its spikes pass.
    time_steps : int or None
        Of an inference; None if only the first inference will tell.
    weighted : tuple of Module
        Convolutions and linear layers.
    exact_decays : bool
        Whether the hardware applies the decays of the neurons as they are.
    """

    config: Config
    places: Places
    time_steps: int | None
    weighted: tuple[nn.Module, ...]
    exact_decays: bool

    def over_steps(self, time_steps: int) -> Config:
        """Give the configuration of inferences of so many steps."""
        size = self.config.input
        if size.time_steps == time_steps:
            return self.config
        content = self.config.model_dump()
        content["input"]["time_steps"] = time_steps
        content["input"]["statistics"] = list(size.statistics or ()) * time_steps
        return load_config(content)

    def is_quantised(self, module: nn.Module) -> bool:
        """Tell whether the module, as it stands, computes what the hardware does.

        Its weights are then on a grid of `weight_bits`, nothing is normalised, and decays are sums
        of three powers of two. Biases and thresholds are not rounded, which changes next to
        nothing.
        """
        bits = self.config.training.weight_bits
        normalised = any(isinstance(part, _BatchNorm) for part in module.modules())
        widest = max(_weight_bits(part) for part in self.weighted)
        return self.exact_decays and not normalised and widest <= bits


def own_network(module: nn.Module, given: Config | Section) -> FoundNetwork | None:
    """Give the network of a `SpikingNetwork` of this package; None for any other module.

    Raises
    ------
    ConfigError
        If it is not the network of the configuration, or only the section ``hardware`` is given.
    """
    # Whoever has made one has loaded its home, which others, without Brevitas, cannot
    home = sys.modules.get(f"{__name__.split('.')[0]}.models.network")
    if home is None or not isinstance(module, home.SpikingNetwork):
        return None
    if not isinstance(given, Config):
        rule = "must be the whole configuration of a SpikingNetwork"
        raise ConfigError(f"hardware: {rule}; got the section alone")
    parts: tuple[Any, ...] = tuple(module.spiking_layers)
    _check_layers(tuple(part.geometry for part in parts), given)
    return FoundNetwork(
        config=given,
        places=Places(layers=given.layers, entries=parts, neurons=parts, whole=True),
        time_steps=given.input.time_steps,
        weighted=tuple(part.weighted for part in parts),
        exact_decays=True,
    )


def found_network(
    module: nn.Module, given: Config | Section, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> FoundNetwork:
    """Find the network of a module that is about to run on these arguments.

    It runs on them before, watched and left as it was found; see `from_module`.

    Parameters
    ----------
    module : nn.Module
    given : Config, HardwareConfig or mapping
        A configuration whose network the module must be, or its section ``hardware``.
    args, kwargs
        A batch, or the first time step of one.

    Returns
    -------
    FoundNetwork

    Raises
    ------
    ConfigError
        As `from_module` does; or if the module is not the network of the configuration.
    """
    from ..models.tracing import from_module

    call = _Call(module=module, args=args, kwargs=kwargs)
    trace = call.trace()
    weighted, neurons = trace.named((nn.Conv2d, nn.Linear)), trace.named((snn.SpikingNeuron,))
    steps = len(trace.of(neurons[0])) if neurons else 1
    entered = trace.entered(weighted[0]) if weighted else torch.zeros(1, 1, 1)
    config = given if isinstance(given, Config) else None
    settings: dict[str, Any] = {"hardware": given}
    if config is not None:
        size = config.input
        settings = {"hardware": config.hardware, "weight_bits": config.training.weight_bits}
        if entered.ndim == 3 and entered.shape[2] == size.channels * size.height * size.width:
            settings["input_shape"] = (size.channels, size.height, size.width)

    def found_by(samples: int) -> ImportedNetwork:
        less = call.cut(steps, entered.shape[1], samples)
        sample = less.like(entered[:, :samples])
        return from_module(module, sample, forward=lambda _: less.run(), **settings)

    try:
        found = found_by(_FEW)
    except ConfigError:
        if entered.shape[1] <= _FEW:
            raise
        found = found_by(entered.shape[1])  # the batch may lie along another axis
    if config is not None:
        _check_layers(found.config.layers, config)
        _check_rest(found.config, config, steps)
    fires = [trace.modules[_next(list(trace.calls), name, neurons)] for name in found.modules]
    entries = tuple(trace.modules[name] for name in found.modules)
    if config is not None:
        _warn_of_differences(module, fires[0], config)
    dropouts = tuple(part for part in module.modules() if isinstance(part, _DropoutNd))
    return FoundNetwork(
        config=config or found.config,
        places=Places(
            layers=found.config.layers, entries=entries, neurons=tuple(fires), dropouts=dropouts
        ),
        time_steps=config.input.time_steps if config else steps if steps > 1 else None,
        weighted=entries,
        exact_decays=all(_is_exact(neuron) for neuron in fires),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    """A module and what it is called with."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        entering = first_tensor(self.args, self.kwargs)
        return torch.device("cpu") if entering is None else entering.device

    def run(self) -> None:
        """Call it; each time with the same random numbers, if it encodes its input by chance."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            self.module(*self.args, **self.kwargs)

    def trace(self) -> Trace:
        """Call it watched, and leave it as it was found."""
        from ..models._recording import measuring, record

        with measuring(self.module, self.device):
            return record(self.module, lambda _: self.run(), torch.zeros(1, 1))

    def cut(self, steps: int, batch: int, samples: int) -> _Call:
        """Keep the first samples of every tensor that has the batch along one of its axes."""

        def cut(value: Any) -> Any:
            if isinstance(value, Tensor):
                if steps > 1 and value.shape[:2] == (steps, batch):
                    return value[:, :samples]
                return value[:samples] if value.shape[:1] == (batch,) else value
            if type(value) in (tuple, list):
                return type(value)(map(cut, value))
            return {key: cut(each) for key, each in value.items()} if type(value) is dict else value

        return _Call(module=self.module, args=cut(self.args), kwargs=cut(dict(self.kwargs)))

    def like(self, entered: Tensor) -> Tensor:
        """Give what entered a linear layer with the axes of maps, if it was called with such."""
        given = first_tensor(self.args, self.kwargs)
        for maps in () if given is None or entered.ndim > 3 else (given, given[None]):
            if maps.ndim > 3 and maps.flatten(2).shape == entered.shape:
                return maps
        return entered


def _next(order: list[str], name: str, among: list[str]) -> str:
    """Give the first of some modules that ran after another."""
    return next(each for each in order[order.index(name) :] if each in among)


def _check_layers(found: tuple[Layer, ...], config: Config) -> None:
    if found != config.layers:
        rule = f"must be that of the module, {_notation(found)}"
        raise ConfigError(f"network: {rule}; got {_notation(config.layers)}")


def _notation(layers: tuple[Layer, ...]) -> str:
    tokens = [layer.name.partition(":")[2] for layer in layers]
    pools = [f"-MP{layer.pool}" if layer.pool > 1 else "" for layer in layers]
    network = "-".join(token + pool for token, pool in zip(tokens, pools, strict=True))
    first = layers[0]
    return f"{network} on {first.in_channels} channels of {first.in_height}x{first.in_width}"


def _check_rest(found: Config, config: Config, steps: int) -> None:
    if found.neuron.model != config.neuron.model:
        rule = f"must be that of the module's neurons, {found.neuron.model}"
        raise ConfigError(f"neuron.model: {rule}; got {config.neuron.model}")
    if steps > 1 and steps != config.input.time_steps:
        rule = f"must be the {steps} time steps that the module runs"
        raise ConfigError(f"input.time_steps: {rule}; got {config.input.time_steps}")


def _warn_of_differences(module: nn.Module, neuron: Any, config: Config) -> None:
    """Say where a module is trained otherwise than its configuration says, for forecasts."""
    said = []
    beta: Any = getattr(neuron, "beta", None)
    fixed = isinstance(neuron, snn.Leaky) and not isinstance(beta, nn.Parameter)
    if fixed and config.neuron.beta is not None and abs(float(beta) - config.neuron.beta) > _CLOSE:
        said.append(f"neuron.beta {config.neuron.beta:g} and the module {float(beta):g}")
    normalised = any(isinstance(part, _BatchNorm) for part in module.modules())
    if normalised != config.training.batch_norm:
        has = "has" if normalised else "lacks"
        asked = str(config.training.batch_norm).lower()
        said.append(f"training.batch_norm {asked}, which the module {has}")
    if said:
        warnings.warn(
            f"the configuration says {'; '.join(said)}: forecasts are of the configuration",
            stacklevel=2,
        )


def _is_exact(neuron: nn.Module) -> bool:
    """Tell whether a decay is one that the hardware can apply."""
    from ..models.integer import DECAY_FRACTION_BITS, quantised_decay

    if not isinstance(neuron, snn.Leaky):
        return True  # multiplied, by 16 bits
    beta = float(neuron.beta.detach().clamp(0, 1))
    return beta > 0 and abs(quantised_decay(beta) / 2**DECAY_FRACTION_BITS - beta) < 1e-6


def _weight_bits(part: nn.Module) -> float:
    """Bits of the weights as a layer uses them; infinite in floating point."""
    quantiser: Any = getattr(part, "weight_quant", None)
    if quantiser is None or not quantiser.is_quant_enabled:
        return math.inf
    return float(quantiser.bit_width())
