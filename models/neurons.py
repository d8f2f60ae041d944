"""Neurons over all time steps at once, and the pooling of their spikes.

A neuron's steps depend on one another, but nothing else does: with the currents of all steps known,
a layer of neurons is a recursion of a few elementwise operations per step. Here it is one node of
the graph, whose gradient is the same recursion backwards, instead of a dozen nodes per step. Spikes
are those of snnTorch's neurons to the bit, and so are gradients, but for reset to zero of Lapicque
neurons, where snnTorch adds and subtracts terms that cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .surrogates import SurrogateGradient

__all__ = ["NeuronConstants", "fire", "pool_spikes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronConstants:
    """What sets a neuron's recursion.

    ``U[t] = decay U[t-1] + gain I[t] - threshold R[t]`` with ``R[t] = U[t-1] > threshold``; a
    neuron that resets to zero forgets instead of subtracting.

    Attributes
    ----------
    decay, gain, threshold : float
        As above.
    zero : bool
        Reset to zero.
    whole_step : bool
        Reset to zero forgets the input current of that step too, as Lapicque neurons do.
    """

    decay: float
    gain: float
    threshold: float
    zero: bool = False
    whole_step: bool = False


def fire(current: Tensor, constants: NeuronConstants, gradient: SurrogateGradient) -> Tensor:
    """Integrate currents and fire, from a membrane of zero.

    Parameters
    ----------
    current : Tensor, shape (time_steps, ...)
        Input current of each neuron and step.
    constants : NeuronConstants
        Decay, gain, threshold and reset.
    gradient : callable
        Surrogate gradient of a spike. Resets have none, as in snnTorch.

    Returns
    -------
    Tensor, shape of `current`
        Ones where a neuron fires, zeros elsewhere.
    """
    if torch.is_grad_enabled() and current.requires_grad:
        spikes: Tensor = _Fire.apply(current, constants, gradient)  # type: ignore[no-untyped-call]
        return spikes
    with torch.no_grad():
        # Two rows are enough: a step needs the membrane before it, and no gradient needs any.
        return _integrate(current, torch.empty_like(current[:2]), constants)


def pool_spikes(spikes: Tensor, size: int) -> Tensor:
    """Max pooling of spikes: a window spikes where any of its neurons does.

    Equals `torch.nn.functional.max_pool2d` in value and gradient, which goes to the first neuron
    of a window that spikes, or to its first where none does; several times faster on a CPU.

    Parameters
    ----------
    spikes : Tensor of float32, shape (..., height, width)
        Zeros and ones.
    size : int
        Side and stride of a window; rows and columns left over are dropped.

    Returns
    -------
    Tensor, shape (..., height // size, width // size)
        Zeros and ones.
    """
    pooled: Tensor = _Pool.apply(spikes, size)  # type: ignore[no-untyped-call]
    return pooled


def _integrate(current: Tensor, mems: Tensor, constants: NeuronConstants) -> Tensor:
    """Give spikes, and leave the membrane of step t in row t of `mems`, modulo its rows.

    No operation may join a product and a sum before rounding unless the product is exact.
    """
    spikes = torch.empty_like(current)
    for step, entering in enumerate(current):
        mem = mems[step % len(mems)]
        drive = entering if constants.gain == 1 else entering * constants.gain
        if step == 0:
            mem.copy_(drive)
        else:
            before, reset = mems[(step - 1) % len(mems)], spikes[step - 1]
            torch.mul(before, constants.decay, out=mem)
            if constants.zero and not constants.whole_step:
                mem.mul_(1 - reset)
            mem.add_(drive)
            if constants.zero and constants.whole_step:
                mem.mul_(1 - reset)
            elif not constants.zero:
                mem.sub_(reset, alpha=constants.threshold)
        torch.gt(mem, constants.threshold, out=spikes[step])
    return spikes


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, constants: NeuronConstants, gradient: SurrogateGradient
    ) -> Tensor:
        mems = torch.empty_like(current)
        spikes = _integrate(current, mems, constants)
        ctx.constants, ctx.gradient = constants, gradient
        ctx.save_for_backward(mems, spikes if constants.zero else None)
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None, None]:
        constants: NeuronConstants = ctx.constants
        mems, spikes = ctx.saved_tensors
        grads = torch.empty_like(mems)  # with respect to membranes; at the end, to currents
        for step in reversed(range(len(mems))):
            offset = mems[step] - constants.threshold
            through_spike = ctx.gradient(grad_spikes[step], offset)
            if step == len(mems) - 1:
                grads[step] = through_spike
                continue
            through_decay = grads[step + 1] * constants.decay
            if constants.zero:
                through_decay.mul_(1 - spikes[step])
            torch.add(through_spike, through_decay, out=grads[step])
        if constants.gain != 1:
            grads.mul_(constants.gain)
        if constants.zero and constants.whole_step:
            grads[1:].mul_(1 - spikes[:-1])
        return grads, None, None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, size: int) -> Tensor:
        height, width = spikes.shape[-2:]
        pixels = height * width
        index = torch.arange(pixels, dtype=spikes.dtype, device=spikes.device)
        index = index.reshape(height, width)
        # The first spike of a window has the highest number; without one the maximum is 0.
        numbered = spikes * (pixels - index)
        highest = _window_maximum(numbered, size)
        pooled = highest.clamp(max=1)
        if ctx.needs_input_grad[0]:
            corner = index[: height // size * size : size, : width // size * size : size]
            corner = corner.contiguous()
            chosen = torch.addcmul(corner, pooled, pixels - corner - highest)
            ctx.save_for_backward(chosen.long().flatten(-2))
            ctx.shape = spikes.shape
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_pooled: Tensor) -> tuple[Tensor, None]:
        (chosen,) = ctx.saved_tensors
        grad = grad_pooled.new_zeros(ctx.shape)
        grad.flatten(-2).scatter_(-1, chosen, grad_pooled.flatten(-2))
        return grad, None


def _window_maximum(values: Tensor, size: int) -> Tensor:
    """Largest value of each whole window; rows first, where memory is contiguous."""
    height, width = (side // size * size for side in values.shape[-2:])
    rows = [values[..., phase:height:size, :] for phase in range(size)]
    highest = reduce(torch.maximum, rows)
    return reduce(torch.maximum, [highest[..., phase:width:size] for phase in range(size)])
