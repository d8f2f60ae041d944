"""What runs inside a PyTorch module, in which order, on which values: recorded by hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import snntorch as snn
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError, SpikemeterError

__all__ = [
    "Call",
    "Forward",
    "Trace",
    "checked_sample",
    "first_run",
    "measuring",
    "record",
    "sample_tensor",
    "tensor_of",
]

Forward = Callable[[Tensor], object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """What entered a module and what left it, once."""

    entered: Tensor
    left: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Every call of every module without parts, by its name, in the order of the first calls."""

    steps: int
    batch: int
    modules: dict[str, nn.Module] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)

    def of(self, name: str) -> list[Call]:
        """Give the calls of a module, one after the other."""
        return self.calls[name]

    def entered(self, name: str) -> Tensor:
        """Give the inputs of all steps, shape (time_steps, batch, ...)."""
        return torch.stack([call.entered for call in self.of(name)])

    def left(self, name: str) -> Tensor:
        """Give the outputs of all steps, shape (time_steps, batch, ...)."""
        return torch.stack([call.left for call in self.of(name)])

    def named(self, kinds: tuple[type, ...]) -> list[str]:
        """Names of the modules of some kinds, in the order in which they ran first."""
        return [name for name in self.calls if isinstance(self.modules[name], kinds)]

    def label(self, name: str) -> str:
        """Name and type, as refusals give them."""
        return f"{name!r} ({type(self.modules[name]).__name__})"

    def between(self, first: str, last: str) -> list[str]:
        """Names of the modules that ran after one and before another."""
        names = list(self.calls)
        return names[names.index(first) + 1 : names.index(last)]

    def covers(self) -> bool:
        """Whether all neurons ran once per step, on the whole batch."""
        neurons = self.named((snn.SpikingNeuron,))
        return bool(neurons) and all(
            len(self.of(name)) == self.steps
            and all(call.entered.ndim in (2, 4) for call in self.of(name))
            and all(len(call.entered) == self.batch for call in self.of(name))
            for name in neurons
        )


def checked_sample(module: nn.Module, sample: Tensor | NDArray[np.generic]) -> Tensor:
    """Bring a sample to where the module's weights are; refuse what has no steps and batch."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"module: must be a torch.nn.Module, got {type(module).__name__}")
    steps = sample_tensor(sample)
    parameter = next((each for each in module.parameters() if each.is_floating_point()), None)
    if parameter is None:
        raise ConfigError(f"module: {type(module).__name__} has no weights, so no weighted layer")
    return steps.to(parameter)


def sample_tensor(sample: Tensor | NDArray[np.generic]) -> Tensor:
    """Give a sample as a tensor of its own numbers; refuse what has no steps and batch."""
    try:
        # Arrays are copied: PyTorch warns of those that cannot be written
        steps = torch.as_tensor(np.array(sample) if isinstance(sample, np.ndarray) else sample)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        rule = "must be a tensor or an array of numbers"
        kind = f"an array of {sample.dtype}" if isinstance(sample, np.ndarray) else _kind(sample)
        raise ConfigError(f"sample: {rule}, got {kind}") from error
    if steps.is_complex():
        raise ConfigError(
            f"sample: must be a tensor or an array of real numbers, got {steps.dtype}"
        )
    if steps.ndim < 3 or not steps.numel():
        rule = "must have shape (time_steps, batch, ...) with one step and sample or more"
        raise ConfigError(f"sample: {rule}, got {tuple(steps.shape)}")
    return steps.detach()


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} {value!r:.60}"


@contextmanager
def measuring(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Switch to evaluation without gradients; leave the random generators as they were found."""
    parts = list(module.modules())
    modes = [part.training for part in parts]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            module.eval()
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


@contextmanager
def _fresh_state(module: nn.Module) -> Iterator[None]:
    """Reset the neurons; afterwards give every part the attributes and buffers that it had."""
    parts = [(part, dict(vars(part)), dict(part._buffers)) for part in module.modules()]
    try:
        for part, *_ in parts:
            if isinstance(part, snn.SpikingNeuron) and hasattr(part, "reset_mem"):
                part.reset_mem()
        yield
    finally:
        for part, attributes, buffers in parts:
            vars(part).clear()
            vars(part).update(attributes)
            part._buffers.clear()
            part._buffers.update(buffers)


def first_run(module: nn.Module, steps: Tensor, forward: Forward | None) -> tuple[Forward, Trace]:
    """Run the module as it is; find out how, if nobody says so."""
    if forward is not None:
        if not callable(forward):
            rule = "must be a function that runs the module over a whole sample"
            raise ConfigError(f"forward: {rule}, got {_kind(forward)}")
        run = _refusing(forward, "forward: must run the module over a whole sample, but it raised")
        return run, record(module, run, steps)

    def step_by_step(sample: Tensor) -> None:
        for step in sample:
            module(step)

    name = type(module).__name__
    broken = f"module: {name} must run whatever its neurons fire, but with random spikes it raised"
    try:
        trace = record(module, module, steps)
        whole = "it does not run every neuron once per step"
        if trace.covers():
            return _refusing(module, broken), trace
    except Exception as error:  # whatever a module raises that wants a single step
        whole = _first_line(error)
    try:
        return _refusing(step_by_step, broken), record(module, step_by_step, steps)
    except Exception as error:
        raise ConfigError(
            f"module: {name} runs neither on a whole sample ({whole}) nor step by "
            f"step ({_first_line(error)}); give forward, which runs it over all time steps"
        ) from error


def _refusing(run: Forward, rule: str) -> Forward:
    """Turn whatever a run raises into one sentence."""

    def refusing(sample: Tensor) -> object:
        try:
            return run(sample)
        except SpikemeterError:
            raise
        except Exception as error:  # somebody else's code
            raise ConfigError(f"{rule} {_first_line(error)}") from error

    return refusing


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def record(
    module: nn.Module, run: Forward, steps: Tensor, *, probe_seed: int | None = None
) -> Trace:
    """Run a module and keep what enters and leaves its parts.

    With a seed it is a probe: the spikes of all neurons are replaced by random ones.
    """
    trace = Trace(steps=steps.shape[0], batch=steps.shape[1])
    generator = None if probe_seed is None else torch.Generator().manual_seed(probe_seed)
    handles = []
    try:
        with _fresh_state(module):
            for name, part in _watched(module):
                trace.modules[name] = part
                hook = _hook(trace.calls, name, generator if _fires(part) else None)
                handles.append(part.register_forward_hook(hook, with_kwargs=True))
            run(steps.clone())
    finally:
        for handle in handles:
            handle.remove()
    return trace


def _watched(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Weighted layers, norms and neurons, and whatever else has no parts and is in none of them."""
    whole = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, snn.SpikingNeuron)
    inside: set[nn.Module] = set()
    for name, part in module.named_modules():
        if part in inside:
            continue
        if isinstance(part, whole):
            inside.update(part.modules())
        elif any(True for _ in part.children()):
            continue
        yield name or type(part).__name__, part


def _fires(part: nn.Module) -> bool:
    return isinstance(part, snn.SpikingNeuron)


def _hook(
    calls: dict[str, list[Call]], name: str, generator: torch.Generator | None
) -> Callable[..., Any]:
    """Give a forward hook that records a call, and that fires at random if it has a generator."""

    def keep(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        entered = tensor_of(args) if args else tensor_of(tuple(kwargs.values()))
        left = tensor_of(output)
        if entered is None or left is None:
            return None
        if generator is not None:
            # From few spikes, which wide pooling tells apart, to many
            share = 0.05 + 0.45 * torch.rand(1, generator=generator)
            left = (torch.rand(left.shape, generator=generator) < share).to(left)
        calls.setdefault(name, []).append(Call(entered=entered.clone(), left=left.clone()))
        if generator is None:
            return None
        return (left, *output[1:]) if isinstance(output, tuple) else left

    return keep


def tensor_of(value: Any) -> Tensor | None:
    """Find the tensor of an input or output: the first of several, the values if quantised."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(getattr(value, "value", None), Tensor):  # Brevitas' quantised tensors
        return tensor_of(value.value)
    if isinstance(value, tuple | list) and value:
        return tensor_of(value[0])
    return None
