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
quantised epochs is kept (the later one of equals). With `training.patience`, training stops after
so many quantised epochs without a better accuracy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..config import Config
from ..datasets import DataSplits, EventFrames
from ..errors import ConfigError
from ._memory import kept_memory
from ._settings import reproducible
from .checkpoint import Checkpoint
from .integer import class_accuracy
from .network import SpikingNetwork

__all__ = ["Evaluation", "Status", "Trainer", "Training", "count_loss", "evaluate", "train"]

Status = Literal["ok", "diverged", "silent"]
OnEpoch = Callable[[int, int, Mapping[str, float]], None]

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
    stopped_at_epoch : int or None
        The last epoch, if patience ran out before all were done.
    seconds : float
        Time that the epochs took, those before an interruption included.
    """

    network: SpikingNetwork
    status: Status
    epochs: tuple[Evaluation, ...]
    stopped_at_epoch: int | None
    seconds: float


def train(
    config: Config,
    splits: DataSplits,
    *,
    on_epoch: OnEpoch | None = None,
    checkpoint: Checkpoint | None = None,
) -> Training:
    """Train the network of a configuration.

    On a CPU it runs in one thread and repeats bit for bit on the same machine and versions,
    whatever precision, data type or gradient mode the caller has set in PyTorch; these, the random
    state and the threads are given back as they were. Of several threads of a process one trains
    at a time. A GPU is used where there is one, with deterministic kernels.

    Parameters
    ----------
    config : Config
        Network and training settings.
    splits : DataSplits
        Trains on one split, chooses the epoch on validation; never looks at test.
    on_epoch : callable, optional
        Called after each epoch with the epochs done, the epochs in all, and ``loss``,
        ``validation_accuracy``, ``firing_rate`` (mean over layers) and ``seconds``.
    checkpoint : Checkpoint, optional
        Written after each epoch, before `on_epoch` is called. If it holds an interrupted training,
        that one goes on, and ends as it would have; the caller removes it.

    Returns
    -------
    Training
        Network, status and what each epoch reached.

    Raises
    ------
    ConfigError
        If batch normalisation would see a batch of a single value.
    """
    with reproducible(), kept_memory(), torch.random.fork_rng():
        trainer = Trainer(config, splits)
        if checkpoint is not None:
            trainer = _resumed(trainer, config, splits, checkpoint)
        while not trainer.is_done:
            start = time.perf_counter()
            loss = trainer.train_epoch()
            if loss is None:
                break
            evaluation = trainer.validate()
            seconds = time.perf_counter() - start
            trainer.seconds += seconds
            if checkpoint is not None:
                checkpoint.save(trainer.state())
            if on_epoch is not None:
                metrics = {
                    "loss": loss,
                    "validation_accuracy": evaluation.accuracy,
                    "firing_rate": float(np.mean(evaluation.firing_rate)),
                    "seconds": seconds,
                }
                on_epoch(len(trainer.epochs), config.training.epochs, metrics)
        return trainer.result()


class Trainer:
    """A training on its way: network, optimiser, random state and what was reached.

    Drawing weights seeds PyTorch's global random generator; `train` protects the caller's.

    Parameters
    ----------
    config : Config
        Network and training settings.
    splits : DataSplits
        Trains on one split, chooses the epoch on validation.

    Attributes
    ----------
    network : SpikingNetwork
        As it stands.
    epochs : list of Evaluation
        On the validation split, after each epoch that was completed.
    seconds : float
        Time that they took; kept by the caller.
    """

    def __init__(self, config: Config, splits: DataSplits) -> None:
        self.config, self.splits, self.settings = config, splits, config.training
        _check_batches(config, len(splits.train.labels))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(self.settings.seed)
        self.network = SpikingNetwork(config).to(self.device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=self.settings.lr)
        self.order = torch.Generator().manual_seed(self.settings.seed)
        self.epochs: list[Evaluation] = []
        self.seconds = 0.0
        self.diverged = False
        self._quantised = 0  # how many of the epochs, from the last, ended with quantised weights
        self._best: tuple[Evaluation, dict[str, Tensor]] | None = None

    @property
    def is_done(self) -> bool:
        """Whether all epochs are done, patience has run out, or training diverged."""
        if self.diverged or len(self.epochs) == self.settings.epochs:
            return True
        patience = self.settings.patience
        if patience is None or not self._quantised:
            return False
        accuracy = [epoch.accuracy for epoch in self.epochs[-self._quantised :]]
        return self._quantised - 1 - accuracy.index(max(accuracy)) >= patience

    def train_epoch(self) -> float | None:
        """Train on every sample once; the mean loss, or None if training diverged."""
        size, samples = self.settings.batch_size, len(self.splits.train.labels)
        batches = math.ceil(samples / size)
        step, steps = len(self.epochs) * batches, self.settings.epochs * batches
        loss_sum = 0.0
        self.network.train()
        for frames, labels in _batches(self.splits.train, size, self.order, self.device):
            if self.network.warming_up and step >= steps // 2:
                self.network.fold()
                self.optimiser.state.clear()
            for group in self.optimiser.param_groups:
                group["lr"] = self.settings.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            self.optimiser.zero_grad()
            loss = count_loss(self.network(frames)[-1], labels, self.config)
            torch.autograd.backward(loss)
            if not _is_finite(self.network, loss):
                self.diverged = True
                return None
            self.optimiser.step()
            loss_sum += loss.item()
            step += 1
        return loss_sum / batches

    def validate(self) -> Evaluation:
        """Measure the network on the validation split, which ends an epoch."""
        evaluation = evaluate(self.network, self.splits.validation, self.config.classes)
        self.epochs.append(evaluation)
        if not self.network.warming_up:
            self._quantised += 1
            if self._best is None or evaluation.accuracy >= self._best[0].accuracy:
                state = {name: value.clone() for name, value in self.network.state_dict().items()}
                self._best = (evaluation, state)
        return evaluation

    def result(self) -> Training:
        """Leave the best quantised state in the network, and say how training ended."""
        status: Status = "diverged"
        if not self.diverged:
            assert (
                self._best is not None
            )  # the fold comes no later than the last epoch's first step
            self.network.load_state_dict(self._best[1])
            status = "silent" if self._best[0].firing_rate[-1] == 0 else "ok"
        self.network.eval()
        early = not self.diverged and len(self.epochs) < self.settings.epochs
        return Training(
            network=self.network,
            status=status,
            epochs=tuple(self.epochs),
            stopped_at_epoch=len(self.epochs) if early else None,
            seconds=self.seconds,
        )

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, as tensors, numbers and names."""
        cuda = self.device.type == "cuda"
        best = self._best
        return {
            "network": self.network.state_dict(),
            "warming_up": self.network.warming_up,
            "optimiser": self.optimiser.state_dict(),
            "random": torch.random.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if cuda else None,
            "order": self.order.get_state(),
            "epochs": [_plain(epoch) for epoch in self.epochs],
            "quantised": self._quantised,
            "best": None if best is None else [_plain(best[0]), best[1]],
            "seconds": self.seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; raises anything if that is something else."""
        if self.network.warming_up and not state["warming_up"]:
            self.network.fold()
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.random.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])
        self.order.set_state(state["order"])
        self.epochs = [_evaluation(epoch) for epoch in state["epochs"]]
        self.seconds = float(state["seconds"])
        self._quantised = int(state["quantised"])
        best = state["best"]
        self._best = None if best is None else (_evaluation(best[0]), dict(best[1]))


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
    with reproducible(), torch.no_grad():
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


def count_loss(spikes: Tensor, labels: Tensor, config: Config) -> Tensor:
    """Loss of the output spike counts, as snnTorch defines it.

    Parameters
    ----------
    spikes : Tensor, shape (time_steps, batch, features)
        Of the output layer; each class owns ``features / classes`` consecutive neurons.
    labels : Tensor of int64, shape (batch,)
        Classes.
    config : Config
        Names the loss: ``mse_count``, the squared error to spikes in every step for the right class
        and none for the others, over the time steps; or ``ce_count``, the cross-entropy of the
        counts.

    Returns
    -------
    Tensor
        A number, the mean over the batch.
    """
    counts = spikes.reshape(*spikes.shape[:-1], config.classes, -1).sum(dim=(0, -1))
    if config.training.loss == "ce_count":
        return F.cross_entropy(counts, labels)
    time_steps = len(spikes)
    wanted = F.one_hot(labels, config.classes) * float(time_steps * config.training.population)
    return F.mse_loss(counts, wanted) / time_steps


def _resumed(
    trainer: Trainer, config: Config, splits: DataSplits, checkpoint: Checkpoint
) -> Trainer:
    """Give the training that a checkpoint holds, or the one that is about to begin."""
    state = checkpoint.load()
    if state is None:
        return trainer
    try:
        trainer.restore(state)
    except Exception:  # the file is whole, but what it holds may be anything
        checkpoint.set_aside("it does not fit the network")
        return Trainer(config, splits)  # the other may have been changed by half
    return trainer


def _check_batches(config: Config, samples: int) -> None:
    """Refuse a batch that has one value to normalise, which has no variance."""
    layers = [layer for layer in config.layers if layer.kind == "conv"]
    single = [layer for layer in layers if layer.out_height == layer.out_width == 1]
    settings = config.training
    if not settings.batch_norm or not single or config.input.time_steps > 1:
        return
    batches = math.ceil(samples / settings.batch_size)
    last = samples - (batches - 1) * settings.batch_size
    alone = 0 if settings.batch_size == 1 else batches - 1  # the first step with one sample
    if last == 1 and alone < settings.epochs * batches // 2:
        rule = f"must not leave one of the {samples} samples for a batch of its own, whose single "
        rule += f"value of a channel of {single[0].name} training.batch_norm cannot normalise"
        raise ConfigError(f"training.batch_size: {rule}; got {settings.batch_size}")


def _plain(evaluation: Evaluation) -> list[Any]:
    return [evaluation.accuracy, list(evaluation.firing_rate)]


def _evaluation(plain: Sequence[Any]) -> Evaluation:
    return Evaluation(accuracy=float(plain[0]), firing_rate=tuple(map(float, plain[1])))


def _batches(
    split: EventFrames, size: int, order: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the split once in random order: frames (batch, time_steps, ...) and labels."""
    permutation = torch.randperm(len(split.labels), generator=order).numpy()
    for start in range(0, len(permutation), size):
        chosen = permutation[start : start + size]
        yield _tensor(split.frames[chosen], device), torch.tensor(split.labels[chosen]).to(device)


def _is_finite(network: SpikingNetwork, loss: Tensor) -> bool:
    """Tell whether loss, gradients and running statistics are finite.

    The loss alone does not tell: it counts spikes, and a membrane that is no number never spikes.
    """
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    buffers = [value for value in network.buffers() if value.is_floating_point()]
    sums = torch.stack([value.sum() for value in (loss.detach(), *gradients, *buffers)])
    return bool(sums.isfinite().all())  # of the sums, which are not where a term is not


def _tensor(frames: NDArray[np.bool_], device: torch.device) -> Tensor:
    """Copy frames, which may be read-only, to where the network is."""
    return torch.tensor(frames).to(device)


def _device(network: SpikingNetwork) -> torch.device:
    return next(network.parameters()).device
