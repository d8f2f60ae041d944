"""Training: Adam on spike counts, with a float warm-up under batch normalisation.

The schedule counts optimiser steps, so that a single epoch has all phases:

1. With batch normalisation the first half of the steps trains float weights under it. Then it is
   folded into weights and bias by its running statistics, which changes nothing but the
   quantisation that starts in the same step: the grid must fit the folded weights, and would be
   wrong for the ones before.
2. The rest trains with quantised weights and no batch normalisation, so that what is deployed is
   what was tuned. Without batch normalisation nothing rescales the weights on the way, so this
   phase is the whole training.

The learning rate falls along one cosine over both phases; Adam starts afresh at the fold, since
its moments belong to the weights before. The state with the best validation accuracy among the
quantised epochs is kept (the later one of equals).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from snntorch import functional
from torch import Tensor

from ..config import Config
from ..datasets import DataSplits, EventFrames
from .integer import class_accuracy
from .network import SpikingNetwork

__all__ = ["Evaluation", "Status", "Training", "evaluate", "train"]

Status = Literal["ok", "diverged", "silent"]

_EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a network does on a set of samples.

    Attributes
    ----------
    accuracy : float
        Share of samples whose class spikes most.
    firing_rate : tuple of float
        Spikes per neuron and time step of each weighted layer, before pooling.
    """

    accuracy: float
    firing_rate: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """A network and how it was trained.

    Attributes
    ----------
    network : SpikingNetwork
        In evaluation mode, with the weights that were kept; of no use when diverged.
    status : {"ok", "diverged", "silent"}
        Diverged: a loss or gradient was not finite, and training stopped there. Silent: no output
        neuron spikes for any validation sample.
    epochs : tuple of Evaluation
        On the validation split, after each epoch that was completed.
    """

    network: SpikingNetwork
    status: Status
    epochs: tuple[Evaluation, ...]


def train(
    config: Config,
    splits: DataSplits,
    *,
    on_epoch: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> Training:
    """Train the network of a configuration.

    On a CPU it runs in one thread and repeats bit for bit on the same machine and versions; the
    caller's random state and threads are left as they were. A GPU is used where there is one.

    Parameters
    ----------
    config : Config
        Network and training settings.
    splits : DataSplits
        Trains on one split, chooses the epoch on validation; never looks at test.
    on_epoch : callable, optional
        Called after each epoch with the epochs done, the epochs in all, and ``loss``,
        ``validation_accuracy``, ``firing_rate`` (mean over layers) and ``seconds``.

    Returns
    -------
    Training
        Network, status and what each epoch reached.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _one_thread(), torch.random.fork_rng(enabled=True):
        torch.manual_seed(config.training.seed)
        network = SpikingNetwork(config).to(device)
        status, epochs = _run_epochs(network, config, splits, on_epoch)
    network.eval()
    return Training(network=network, status=status, epochs=tuple(epochs))


def evaluate(network: SpikingNetwork, frames: EventFrames, classes: int) -> Evaluation:
    """Measure accuracy and firing rates of a network as it stands.

    Parameters
    ----------
    network : SpikingNetwork
        Evaluated in evaluation mode, left in the mode it was in.
    frames : EventFrames
        Samples with labels.
    classes : int
        Classes that the output layer tells apart.

    Returns
    -------
    Evaluation
        Accuracy and firing rates over all samples.
    """
    was_training = network.training
    network.eval()
    device = _device(network)
    outputs: list[NDArray[np.bool_]] = []
    totals = np.zeros(len(network.spiking_layers))
    with torch.no_grad(), _one_thread():
        for start in range(0, len(frames.labels), _EVALUATION_BATCH):
            batch = frames.frames[start : start + _EVALUATION_BATCH]
            fired = network(_tensor(batch, device))
            totals += [float(spikes.mean()) * len(batch) for spikes in fired]
            outputs.append(fired[-1].transpose(0, 1).cpu().numpy() > 0)
    network.train(was_training)
    return Evaluation(
        accuracy=class_accuracy(np.concatenate(outputs), frames.labels, classes),
        firing_rate=tuple((totals / len(frames.labels)).tolist()),
    )


def _run_epochs(
    network: SpikingNetwork,
    config: Config,
    splits: DataSplits,
    on_epoch: Callable[[int, int, Mapping[str, float]], None] | None,
) -> tuple[Status, list[Evaluation]]:
    """Train the network in place and leave the best quantised state in it."""
    settings, device = config.training, _device(network)
    batches = math.ceil(len(splits.train.labels) / settings.batch_size)
    steps = settings.epochs * batches
    loss_function = _loss(config)
    order = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
    evaluations: list[Evaluation] = []
    best: tuple[Evaluation, dict[str, Tensor]] | None = None
    for epoch in range(settings.epochs):
        start, loss_sum = time.perf_counter(), 0.0
        network.train()
        data = _batches(splits.train, settings.batch_size, order, device)
        for step, (frames, labels) in enumerate(data, start=epoch * batches):
            if network.warming_up and step >= steps // 2:
                network.fold()
                optimiser.state.clear()
            for group in optimiser.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.zero_grad()
            loss = loss_function(network(frames)[-1], labels)
            torch.autograd.backward(loss)
            if not _is_finite(network, loss):
                return "diverged", evaluations
            optimiser.step()
            loss_sum += loss.item()
        evaluation = evaluate(network, splits.validation, config.classes)
        evaluations.append(evaluation)
        if not network.warming_up and (best is None or evaluation.accuracy >= best[0].accuracy):
            state = {name: value.clone() for name, value in network.state_dict().items()}
            best = (evaluation, state)
        if on_epoch is not None:
            metrics = {
                "loss": loss_sum / batches,
                "validation_accuracy": evaluation.accuracy,
                "firing_rate": float(np.mean(evaluation.firing_rate)),
                "seconds": time.perf_counter() - start,
            }
            on_epoch(epoch + 1, settings.epochs, metrics)
    assert best is not None  # the fold comes no later than the first step of the last epoch
    network.load_state_dict(best[1])
    return "silent" if best[0].firing_rate[-1] == 0 else "ok", evaluations


def _batches(
    split: EventFrames, size: int, order: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the split once in random order: frames (batch, time_steps, ...) and labels."""
    permutation = torch.randperm(len(split.labels), generator=order).numpy()
    for start in range(0, len(permutation), size):
        chosen = permutation[start : start + size]
        yield _tensor(split.frames[chosen], device), torch.tensor(split.labels[chosen]).to(device)


def _loss(config: Config) -> Callable[[Tensor, Tensor], Tensor]:
    """Squared error of spike counts: every step for the right class, none for the others."""
    population = config.training.population > 1
    loss: Callable[[Tensor, Tensor], Tensor] = functional.mse_count_loss(
        correct_rate=1, incorrect_rate=0, population_code=population, num_classes=config.classes
    )
    return loss


def _is_finite(network: SpikingNetwork, loss: Tensor) -> bool:
    """Tell whether loss, gradients and running statistics are finite.

    The loss alone does not tell: it counts spikes, and a membrane that is no number never spikes.
    """
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    return all(bool(value.isfinite().all()) for value in (loss, *gradients, *network.buffers()))


def _tensor(frames: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Copy frames, which may be read-only, to where the network is."""
    return torch.tensor(frames).to(device).float()


def _device(network: SpikingNetwork) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sum in one order on every machine, whatever its cores; workers run side by side anyway."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
