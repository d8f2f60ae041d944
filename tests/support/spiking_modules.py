"""One small network, written in the ways that people write snnTorch modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import snntorch as snn
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS, BATCH = 5, 6
HARDWARE = {"neural_cores": [1, 2]}
WHOLE = {
    "dataset": "digits-saccade",
    "network": "4C3-MP2-10",
    "input": {"height": 8, "width": 8, "time_steps": STEPS},
    "neuron": {"beta": 0.875},
    "training": {"epochs": 4, "batch_norm": False},
    "hardware": HARDWARE,
}


def frames(seed: int = 0, *, steps: int = STEPS, batch: int = BATCH, share: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, batch, 2, 8, 8, generator=generator) < share).float()


def leaky(beta: float = 0.875, **settings: Any) -> snn.Leaky:
    """A neuron that can be pickled, and is on no list of snnTorch, so that it can be forgotten."""
    neuron = snn.Leaky(beta=beta, spike_grad=spike, **settings)
    snn.SpikingNeuron.instances.remove(neuron)
    return neuron


def spike(offset: Tensor) -> Tensor:
    return snn.surrogate.FastSigmoid.apply(offset, 5)


class Hidden(nn.Sequential):
    """4C3-MP2-10 with hidden states, called step by step."""

    def __init__(self, *dropouts: nn.Module) -> None:
        parts = [
            nn.Conv2d(2, 4, 3, padding=1), leaky(init_hidden=True), nn.MaxPool2d(2),
            *dropouts, nn.Flatten(), nn.Linear(64, 10), leaky(0.5, init_hidden=True, output=True),
        ]  # fmt: skip
        super().__init__(*parts)
        lively(self)

    def run(self, sample: Tensor) -> Tensor:
        for part in self:
            if isinstance(part, snn.Leaky):
                part.reset_mem()
        return torch.stack([self(step)[0] for step in sample])


class Explicit(nn.Module):
    """The same with explicit states, functions for pooling, and the loop inside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"conv": nn.Conv2d(2, 4, 3, padding=1), "lif": leaky()})
        self.head, self.out = nn.Linear(64, 10), leaky(0.5)
        lively(self)

    def forward(self, sample: Tensor) -> Tensor:
        mem1, mem2 = self.body["lif"].reset_mem(), self.out.reset_mem()
        spikes = []
        for step in sample:
            fired, mem1 = self.body["lif"](self.body["conv"](step), mem1)
            fired, mem2 = self.out(self.head(F.max_pool2d(fired, 2).flatten(1)), mem=mem2)
            spikes.append(fired)
        return torch.stack(spikes)

    def run(self, sample: Tensor) -> Tensor:
        return self(sample)


class BatchFirst(Explicit):
    """The same, where samples come before time steps, with a keyword."""

    def forward(self, *, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1))

    def run(self, sample: Tensor) -> Tensor:
        return self(x=sample.transpose(0, 1))


class Stateless(Explicit):
    """The same, where states are passed in and out, step by step."""

    def forward(self, step: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        fired, mem1 = self.body["lif"](self.body["conv"](step), state[0])
        fired, mem2 = self.out(self.head(F.max_pool2d(fired, 2).flatten(1)), state[1])
        return fired, [mem1, mem2]

    def run(self, sample: Tensor) -> Tensor:
        batch = sample.shape[1]
        state = [torch.zeros(batch, 4, 8, 8), torch.zeros(batch, 10)]
        spikes = []
        for step in sample:
            fired, state = self(step, [mem.detach() for mem in state])
            spikes.append(fired)
        return torch.stack(spikes)


STYLES: tuple[Callable[[], Any], ...] = (Hidden, Explicit, BatchFirst, Stateless)


def lively(module: nn.Module) -> nn.Module:
    """Weights that make neurons fire; the same for each of these modules."""
    generator = torch.Generator().manual_seed(7)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            noise = torch.randn(part.weight.shape, generator=generator)
            part.weight.data = (noise + 0.1) * 1.5 / part.weight[0].numel() ** 0.5
            assert part.bias is not None
            part.bias.data.uniform_(-0.1, 0.2, generator=generator)
    return module


@contextmanager
def entering(
    module: nn.Module, kinds: Any = (nn.Conv2d, nn.Linear)
) -> Iterator[list[list[Tensor]]]:
    """Collect by hand what enters each weighted layer, step by step."""
    parts = [part for part in module.modules() if isinstance(part, kinds)]
    seen: list[list[Tensor]] = [[] for _ in parts]
    handles = [
        part.register_forward_pre_hook(lambda _, args, each=each: each.append(args[0]))
        for part, each in zip(parts, seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
