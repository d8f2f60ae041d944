"""Surrogate gradients: what stands in for the derivative of a spike while training.

A spike is 1 where x = U - threshold is above 0, so its derivative is 0 almost everywhere. Training
uses one of these instead, with k the steepness of `spikemeter.config.SurrogateConfig`:

=====================  ===================================================
``fast_sigmoid``       1 / (1 + k |x|)^2
``atan``               k / 2 / (1 + (pi k x / 2)^2)
``spike_rate_escape``  k exp(-b |x - 1|), with b = ln 2 / width
``sso``                1 above threshold, noise in [-k/2, k/2) below
``sigmoid``            k e / (1 + e)^2, with e = exp(-k |x|)
``triangular``         max(0, 1 - k |x|)
``straight_through``   1
=====================  ===================================================

The first four, the last and the noise are those of snnTorch 1.0, to the bit. Its sigmoid overflows
below threshold, and its triangular is a constant of either sign; these two are what their names
say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..config import SurrogateConfig

__all__ = ["SurrogateGradient", "spike_function", "surrogate_gradient"]

SurrogateGradient = Callable[[Tensor, Tensor], Tensor]
"""Takes a gradient with respect to spikes, and x; gives the one with respect to x.

It leaves the first as it is and may overwrite the second, which saves a copy in every step.
"""


def surrogate_gradient(config: SurrogateConfig) -> SurrogateGradient:
    """Give the gradient of a spike that a configuration names.

    Parameters
    ----------
    config : SurrogateConfig
        Name and steepness.

    Returns
    -------
    callable
        Of the gradient with respect to the spikes and of x = U - threshold, both of one shape.
        ``sso`` draws from PyTorch's global random generator at every call.
    """
    if config.name == "straight_through":
        return _straight_through
    if config.name == "spike_rate_escape":
        decay = math.log(2) / config.half_width
        return partial(_spike_rate_escape, height=config.steepness, decay=decay)
    by_steepness: dict[str, Callable[..., Tensor]] = {
        "fast_sigmoid": _fast_sigmoid,
        "atan": _atan,
        "sso": _sso,
        "sigmoid": _sigmoid,
        "triangular": _triangular,
    }
    return partial(by_steepness[config.name], k=config.steepness)


def spike_function(gradient: SurrogateGradient) -> Callable[[Tensor], Tensor]:
    """Give a step function with this gradient, as snnTorch's neurons take it."""

    def spike(x: Tensor) -> Tensor:
        spikes: Tensor = _Spike.apply(x, gradient)  # type: ignore[no-untyped-call]
        return spikes

    return spike


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: SurrogateGradient) -> Tensor:
        ctx.save_for_backward(x)
        ctx.gradient = gradient
        return (x > 0).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.gradient(grad_spikes, x.clone()), None


def _fast_sigmoid(grad: Tensor, x: Tensor, *, k: float) -> Tensor:
    return torch.div(grad, x.abs_().mul_(k).add_(1.0).pow_(2), out=x)


def _atan(grad: Tensor, x: Tensor, *, k: float) -> Tensor:
    return x.mul_(torch.pi / 2 * k).pow_(2).add_(1).reciprocal_().mul_(k / 2).mul_(grad)


def _spike_rate_escape(grad: Tensor, x: Tensor, *, height: float, decay: float) -> Tensor:
    return x.sub_(1).abs_().mul_(-decay).exp_().mul_(grad * height)


def _sso(grad: Tensor, x: Tensor, *, k: float) -> Tensor:
    noise = torch.rand_like(x).sub_(0.5).mul_(k)
    return torch.where(x > 0, grad, noise.mul_(grad))


def _sigmoid(grad: Tensor, x: Tensor, *, k: float) -> Tensor:
    fall = x.abs_().mul_(-k).exp_()
    return fall.div_((fall + 1).square_()).mul_(k).mul_(grad)


def _triangular(grad: Tensor, x: Tensor, *, k: float) -> Tensor:
    return x.abs_().mul_(-k).add_(1).clamp_(min=0).mul_(grad)


def _straight_through(grad: Tensor, _: Tensor) -> Tensor:
    return grad
