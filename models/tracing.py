"""Your own PyTorch module, measured: finds its weighted layers and snnTorch neurons by running it.

Nothing is read from source code or names. The module runs on the sample, watched by hooks: once as
it is, which gives its spikes, and again with the spikes of every neuron replaced by random ones,
which proves what feeds what: a value that equals the max-pooled random spikes of a neuron at
every step came from there and from nowhere else. So it does not matter whether pooling, flattening
and loops are modules or plain functions, and a skip connection is found though it may be silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import snntorch as snn
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from ..config import HardwareConfig, NeuronConfig, error_sentence
from ..errors import ConfigError
from ._recording import Forward, Trace, checked_sample, first_run, measuring, record, tensor_of
from .imported import FloatLayer, ImportedNetwork, assemble

__all__ = ["from_module"]

_KERNELS = (1, 3, 5)
_POOLS = (1, 2, 4)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_NEURONS = (snn.Leaky, snn.Lapicque)
_PROBED_STEPS = 32
"""Time steps, over the samples of a batch and all probes, that make coincidence unlikely."""
_MOST_PROBES = 8
"""So that a sample of one step costs no more than a few runs."""

_REASONS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.MaxPool2d, "max pooling stands behind neurons, 2x2 or 4x4, without overlap or padding"),
    (nn.AvgPool2d, "averages of spikes are no spikes; pool by maximum"),
    (nn.AdaptiveAvgPool2d, "averages of spikes are no spikes; pool by maximum"),
    (nn.BatchNorm2d, "batch normalisation stands between a convolution and its neurons"),
    (nn.BatchNorm1d, "batch normalisation stands between a linear layer and its neurons"),
    (nn.Conv2d, "layers stand in one row, without branches and skip connections"),
    (nn.Linear, "layers stand in one row, without branches and skip connections"),
    (snn.SpikingNeuron, "layers stand in one row, without branches and skip connections"),
)
"""Why a module that ran in the wrong place cannot be there."""


def from_module(
    module: nn.Module,
    sample: Tensor | NDArray[np.generic],
    *,
    forward: Forward | None = None,
    weight_bits: int = 4,
    hardware: HardwareConfig | Mapping[str, Any] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    quantised: bool = False,
) -> ImportedNetwork:
    """Find the network that a module of yours is, so that it can be predicted and simulated.

    Parameters
    ----------
    module : nn.Module
        Any module whose spiking neurons are `snn.Leaky` or `snn.Lapicque`, with hidden or explicit
        states, each behind a `Conv2d` or `Linear` (Brevitas' quantised ones too). Batch
        normalisation is folded, dropout is off. It is left as it was found: weights, training
        mode, neuron states.
    sample : Tensor or ndarray, shape (time_steps, batch, ...)
        Spikes, 0 or 1: the more typical samples of your data, the better the estimate.
    forward : callable, optional
        Runs the module over a whole sample, all time steps from a fresh state; its result is not
        used. Default: ``module(sample)`` if that runs every neuron once per time step, else
        ``module(step)`` for one step after the other.
    weight_bits : int, optional
        Of every weight on the hardware. Brevitas' weights that fit are taken as they are.
    hardware : HardwareConfig or mapping, optional
        The section of a configuration, for instance ``{"neural_cores": [4, 8, 10]}``.
    input_shape : (int, int, int), optional
        Channels, height and width of the frames, where the first layer is linear; by default those
        of the sample.
    quantised : bool, optional
        Give the spikes of the integer network, which are those of the hardware, instead of the
        module's own. The two differ: the hardware's weights have few bits, its decay is a sum of
        three powers of two.

    Returns
    -------
    ImportedNetwork
        For ``predict_latency(result.config, spikes=result.spikes)`` and ``simulate(result.config,
        result.network, result.frames)``. With `quantised` the two agree in every cycle.

    Raises
    ------
    ConfigError
        If an argument is of no use, `forward` raises, or the hardware has no place for a part; the
        sentence names it.
    """
    steps = checked_sample(module, sample)
    with measuring(module, steps.device):
        run, trace = first_run(module, steps, forward)
        for seed in range(_probes(trace)):
            stages = _chain(trace, record(module, run, steps, probe_seed=seed))
        layers = [_float_layer(trace, stage) for stage in stages]
        for stage in stages:
            _check_dynamics(trace, stage.neuron)
        shape = _input_shape(trace.entered(stages[0].weighted), steps, input_shape)
        spikes = {
            f"inputs_{index}": _batch_first(trace.entered(stage.weighted))
            for index, stage in enumerate(stages)
        }
        spikes["outputs"] = _batch_first(trace.left(stages[-1].neuron))
        rates = [trace.left(stage.neuron).double().mean().item() for stage in stages]
    return assemble(
        layers,
        spikes,
        input_shape=shape,
        firing_rates=rates,
        weight_bits=weight_bits,
        hardware=hardware,
        quantised=quantised,
    )


def _probes(trace: Trace) -> int:
    """Count the probes that a sample needs: small ones prove little at a time."""
    return max(1, min(_MOST_PROBES, -(-_PROBED_STEPS // (trace.steps * trace.batch))))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Names of the modules that make one layer; `pool` stands behind its neurons."""

    weighted: str
    norm: str | None
    neuron: str
    pool: int


# What feeds what


def _chain(trace: Trace, probe: Trace) -> list[_Stage]:
    """Follow the random spikes of the probe from layer to layer."""
    weighted = trace.named((nn.Conv2d, nn.Linear))
    if not weighted:
        raise ConfigError("module: no Conv2d and no Linear ran, so there is no weighted layer")
    for name in trace.named((snn.SpikingNeuron,)):
        _check_neuron(trace, name)
    for name in weighted:
        _check_weighted(trace, name)
    _check_first(trace, probe, weighted[0])
    stages: list[_Stage] = []
    for name in weighted:
        if stages:
            pool = _pool_between(probe, stages[-1].neuron, name)
            stages[-1] = replace(stages[-1], pool=pool)
        norm, neuron = _fed(probe, name)
        stages.append(_Stage(weighted=name, norm=norm, neuron=neuron, pool=1))
    return stages


def _check_calls(trace: Trace, name: str) -> None:
    calls = trace.of(name)
    if len(calls) != trace.steps:
        rule = f"must run once in each of the {trace.steps} time steps, on a layer of its own"
        raise ConfigError(f"{trace.label(name)}: {rule}; it ran {len(calls)} times")
    for call in calls:
        if len(call.entered) != trace.batch:
            rule = f"must run on the {trace.batch} samples of the batch, its first axis"
            raise ConfigError(f"{trace.label(name)}: {rule}; got {tuple(call.entered.shape)}")


def _check_weighted(trace: Trace, name: str) -> None:
    """Refuse what the hardware's layers do not have."""
    part, label = trace.modules[name], trace.label(name)
    _check_finite(part, label)
    _check_calls(trace, name)
    shape = tuple(trace.of(name)[0].entered.shape)
    if isinstance(part, nn.Linear):
        if len(shape) != 2:
            raise ConfigError(f"{label}: must run on flat features (batch, features), got {shape}")
        return
    assert isinstance(part, nn.Conv2d)
    if len(shape) != 4:
        raise ConfigError(
            f"{label}: must run on maps (batch, channels, rows, columns), got {shape}"
        )
    for key, wanted in (("stride", (1, 1)), ("dilation", (1, 1)), ("groups", 1)):
        if getattr(part, key) != wanted:
            raise ConfigError(f"{label}: its {key} must be 1, got {getattr(part, key)}")
    side = part.kernel_size[0]
    if part.kernel_size != (side, side) or side not in _KERNELS:
        rule = f"must be square with a side of {', '.join(map(str, _KERNELS))}"
        raise ConfigError(f"{label}: its kernel {rule}, got {part.kernel_size}")
    if part.padding_mode != "zeros" and any(part._reversed_padding_repeated_twice):
        raise ConfigError(f"{label}: it must pad with zeros, got {part.padding_mode!r}")
    if part.padding not in ("same", "valid", (0, 0), (side // 2, side // 2)):
        rule = f"must be {side // 2}, which keeps the size, or 0"
        raise ConfigError(f"{label}: its padding {rule}, got {part.padding}")


def _check_finite(part: nn.Module, label: str) -> None:
    """Refuse weights and statistics that are no numbers, before anything else looks wrong."""
    for key, values in (*part.named_parameters(), *part.named_buffers()):
        odd = values.detach()[~values.detach().isfinite()]
        if len(odd):
            raise ConfigError(f"{label}: its {key} must be finite, got {float(odd[0])}")


def _check_neuron(trace: Trace, name: str) -> None:
    """Refuse neurons that the hardware does not have."""
    part, label = trace.modules[name], trace.label(name)
    if not isinstance(part, _NEURONS):
        raise ConfigError(f"{label}: neurons must be snn.Leaky or snn.Lapicque")
    _check_calls(trace, name)
    if part.reset_mechanism == "none":
        rule = "its reset_mechanism must be subtract or zero; the hardware's neurons all reset"
        raise ConfigError(f"{label}: {rule}, got none")
    late = getattr(part, "reset_delay", True)
    if not late and part.reset_mechanism == "subtract":
        rule = "reset_delay must be True to subtract: the hardware does so in the next step"
        raise ConfigError(f"{label}: {rule}; got False")
    if part.inhibition:
        raise ConfigError(f"{label}: inhibition must be False, neurons fire on their own; got True")
    if part.state_quant:
        raise ConfigError(f"{label}: state_quant must be False, hardware has its own rounding")
    if _constant(trace, name, "graded_spikes_factor") != 1:
        raise ConfigError(f"{label}: graded_spikes_factor must be 1, spikes have no size")


def _constant(trace: Trace, name: str, key: str) -> float:
    """Give a number that must be the same for all neurons of a layer."""
    values = torch.unique(torch.as_tensor(getattr(trace.modules[name], key)).detach())
    if not values.isfinite().all():
        odd = float(values[~values.isfinite()][0])
        raise ConfigError(f"{trace.label(name)}: {key} must be finite, got {odd}")
    if len(values) != 1:
        rule = f"{key} must be the same for all neurons of a layer"
        low, high = float(values[0]), float(values[-1])
        raise ConfigError(f"{trace.label(name)}: {rule}, got {low:g} to {high:g}")
    return float(str(values[0].cpu().numpy()))  # 0.9, not what 0.9 is in single precision


def _check_first(trace: Trace, probe: Trace, name: str) -> None:
    """Hold what enters the first layer: spikes, and those of the sample alone."""
    entered, again = trace.entered(name), probe.entered(name)
    odd = entered[(entered != 0) & (entered != 1)]
    if len(odd):
        raise ConfigError(
            f"{trace.label(name)}: only spikes, 0 or 1, may enter the first layer, for the "
            f"hardware takes nothing else; got {float(odd[0]):g}; encode the input as spikes"
        )
    if not torch.equal(entered, again):
        rule = "what enters the first layer must not depend on neurons: there is no feedback"
        raise ConfigError(f"{trace.label(name)}: {rule}")


def _pool_between(probe: Trace, neuron: str, weighted: str) -> int:
    """Side of the max pooling that turns a neuron's spikes into what enters the next layer."""
    spikes, entered = probe.left(neuron).flatten(0, 1), probe.entered(weighted).flatten(0, 1)
    for pool in _POOLS:
        if pool > 1 and (spikes.ndim != 4 or min(spikes.shape[2:]) < pool):
            continue
        maps = F.max_pool2d(spikes, pool) if pool > 1 else spikes
        maps = maps.flatten(1) if entered.ndim == 2 else maps
        if maps.shape == entered.shape and torch.equal(maps, entered):
            return pool
    raise ConfigError(
        f"{probe.label(weighted)}: what enters must be the spikes of {probe.label(neuron)}, as "
        f"they are or max-pooled by 2 or 4; {_culprits(probe, neuron, weighted)}"
    )


def _fed(probe: Trace, weighted: str) -> tuple[str | None, str]:
    """Names of the batch normalisation, if any, and of the neurons that a layer feeds."""
    current = probe.left(weighted)
    norm = next((name for name in probe.named(_NORMS) if _is_fed(probe, name, current)), None)
    if norm is not None:
        _check_norm(probe, norm)
        current = probe.left(norm)
    neurons = probe.named((snn.SpikingNeuron,))
    neuron = next((name for name in neurons if _is_fed(probe, name, current)), None)
    if neuron is not None:
        return norm, neuron
    order = list(probe.calls)
    later = [name for name in neurons if order.index(name) > order.index(weighted)]
    if not later:
        rule = "spiking neurons must stand behind every weighted layer, the last one too"
        raise ConfigError(f"{probe.label(weighted)}: {rule}; got none")
    raise ConfigError(
        f"{probe.label(later[0])}: what enters must be the output of {probe.label(weighted)}, as "
        f"it is or batch-normalised; {_culprits(probe, weighted, later[0])}"
    )


def _is_fed(probe: Trace, name: str, current: Tensor) -> bool:
    entered = [call.entered for call in probe.of(name)]
    if len(entered) != len(current) or any(each.shape != current.shape[1:] for each in entered):
        return False
    return torch.equal(torch.stack(entered), current)


def _check_norm(probe: Trace, name: str) -> None:
    part = probe.modules[name]
    assert isinstance(part, _NORMS)
    if part.running_mean is None or part.running_var is None:
        rule = "must track running statistics: batches have no place in the hardware"
        raise ConfigError(f"{probe.label(name)}: {rule}")
    _check_finite(part, probe.label(name))


def _culprits(probe: Trace, first: str, last: str) -> str:
    """Name what ran between two modules, and why it has no place there."""
    harmless = (nn.Identity, nn.Dropout, nn.Flatten)
    names = [
        name for name in probe.between(first, last) if not isinstance(probe.modules[name], harmless)
    ]
    if not names:
        return "skip connections, sums, scaling and other pooling have no place in the hardware"
    part = probe.modules[names[0]]
    reason = next((reason for kind, reason in _REASONS if isinstance(part, kind)), None)
    labels = ", ".join(probe.label(name) for name in names)
    return f"between them ran {labels}: {reason or 'the hardware has no such layer'}"


# What was found


def _float_layer(trace: Trace, stage: _Stage) -> FloatLayer:
    part = trace.modules[stage.weighted]
    assert isinstance(part, nn.Conv2d | nn.Linear)
    weight, scale = _weights(part)
    bias = torch.zeros(len(weight)) if part.bias is None else part.bias.detach()
    _check_current(trace, stage.weighted, weight, bias)
    dense = isinstance(part, nn.Linear)
    weight, bias = weight.double().cpu(), bias.double().cpu()
    if stage.norm is not None:
        weight, bias = _folded(trace.modules[stage.norm], weight, bias)
        scale = None
    return FloatLayer(
        name=stage.weighted,
        kind="dense" if dense else "conv",
        weight=weight.numpy(),
        bias=bias.numpy(),
        scale=scale,
        padded=not dense and part.padding not in ("valid", (0, 0)),
        pool=stage.pool,
        neuron=_neuron(trace, stage.neuron),
    )


def _weights(part: nn.Conv2d | nn.Linear) -> tuple[Tensor, float | None]:
    """Weights as they are used, and their scale if Brevitas put them on one grid around zero."""
    quantise = getattr(part, "quant_weight", None)
    quantised = part.weight if quantise is None else quantise()
    scale, zero = (getattr(quantised, key, None) for key in ("scale", "zero_point"))
    values = tensor_of(quantised)
    assert values is not None
    if not isinstance(scale, Tensor) or scale.numel() != 1:
        return values, None
    return values, None if isinstance(zero, Tensor) and zero.any() else float(scale)


def _check_current(trace: Trace, name: str, weight: Tensor, bias: Tensor) -> None:
    """Hold what a layer gives against its weights, in case that it does more than that."""
    part, call = trace.modules[name], trace.of(name)[0]
    offset = bias.to(weight)
    if isinstance(part, nn.Conv2d):
        expected = F.conv2d(call.entered, weight, offset, padding=part.padding)
    else:
        expected = F.linear(call.entered, weight, offset)
    span = float(expected.abs().max())
    if not torch.allclose(call.left, expected, rtol=1e-3, atol=1e-3 * span):
        rule = "must do no more than weigh and sum its inputs: no quantised inputs or outputs"
        raise ConfigError(f"{trace.label(name)}: {rule}")


def _folded(norm: nn.Module, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and bias that do what batch normalisation does by its running statistics."""
    assert isinstance(norm, _NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double().cpu(), norm.running_var.double().cpu()
    gain = torch.rsqrt(variance + norm.eps)
    shift = torch.zeros_like(mean)
    if norm.affine:
        gain = gain * norm.weight.detach().double().cpu()
        shift = norm.bias.detach().double().cpu()
    return weight * gain.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * gain + shift


def _neuron(trace: Trace, name: str) -> NeuronConfig:
    """Constants of the neurons of one layer."""
    part = trace.modules[name]
    assert isinstance(part, _NEURONS)
    content: dict[str, Any] = {
        "threshold": _constant(trace, name, "threshold"),
        "reset": part.reset_mechanism,
    }
    if isinstance(part, snn.Lapicque):
        step = _constant(trace, name, "time_step")
        content["model"] = "lapicque"
        content["R"] = _constant(trace, name, "R")
        content["C"] = _constant(trace, name, "C") / step
    else:
        content["beta"] = min(1.0, max(0.0, _constant(trace, name, "beta")))
    try:
        return NeuronConfig(**content)
    except ValidationError as error:
        raise ConfigError(f"{trace.label(name)}: {error_sentence(error, NeuronConfig)}") from error


def _check_dynamics(trace: Trace, name: str) -> None:
    """Hold the spikes of neurons against a plain neuron with their constants, from rest."""
    part, calls = trace.modules[name], trace.of(name)
    mem = torch.zeros_like(calls[0].entered)
    twin = _twin(part, mem.device)
    for call in calls:
        fired, mem = twin(call.entered, mem)
        if not torch.equal(fired, call.left):
            raise ConfigError(
                f"{trace.label(name)}: must fire as a plain neuron with its constants does that "
                "starts at rest and keeps its membrane from step to step; if the module resets it "
                "on the way, give forward, which runs all time steps from a fresh state"
            )


def _twin(part: nn.Module, device: torch.device) -> nn.Module:
    """Make a neuron of the same constants and nothing else."""
    own = {"threshold": part.threshold.cpu(), "reset_mechanism": part.reset_mechanism}
    twin: nn.Module
    if isinstance(part, snn.Lapicque):
        circuit = {"R": part.R.cpu(), "C": part.C.cpu(), "time_step": part.time_step.cpu()}
        twin = snn.Lapicque(**circuit, **own)
    else:
        twin = snn.Leaky(beta=part.beta.cpu(), **own)
    snn.SpikingNeuron.instances.remove(twin)
    return twin.to(device)


def _input_shape(
    entered: Tensor, sample: Tensor, given: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Channels, height and width of the frames."""
    if given is not None and not _are_sides(given):
        rule = "must be channels, height and width, three whole numbers above 0"
        raise ConfigError(f"input_shape: {rule}; got {given!r}")
    if entered.ndim == 5:
        found = tuple(entered.shape[2:])
        shape = given or found
        fits = shape == found
    else:
        found = (entered.shape[2], 1, 1)
        same = sample.ndim in (4, 5) and torch.equal(sample.flatten(2), entered)
        maps = (1, 1, *sample.shape[2:])[-3:]
        shape = given or (maps if same else found)
        fits = int(np.prod(shape)) == entered.shape[2]
    if not fits:
        rule = f"must be channels, height and width of the {found} values that enter"
        raise ConfigError(f"input_shape: {rule}, got {tuple(shape)}")
    channels, height, width = (int(side) for side in shape)
    return channels, height, width


def _are_sides(given: object) -> bool:
    sides = list(given) if isinstance(given, Sequence) else []
    return len(sides) == 3 and all(isinstance(side, int) and side > 0 for side in sides)


def _batch_first(steps: Tensor) -> NDArray[np.bool_]:
    """Spikes as a trace keeps them, samples first."""
    spikes: NDArray[np.bool_] = (steps.transpose(0, 1) > 0).cpu().numpy()
    return np.ascontiguousarray(spikes)
