"""Counting spikes inside a module while it runs, on its device, without waiting for it.

Hooks see what enters every weighted layer and what leaves its neurons. A neuron whose membrane is
not the one that it left behind starts from a fresh state, which is how a new inference is told from
the next step of the last one: it does not matter whether the loop over the steps stands inside the
module or around it. Hooks only take hold of tensors; a step is counted, all layers at once, when it
is over. Counts stay where the module is until somebody asks for them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..network import Layer
from .counting import Counts, SpikeCounter, StepCounts
from .hooks import Hooks, Pace, first_tensor

__all__ = ["Places", "Watch"]

_MOST_STEPS = 4096
"""After so many steps without a fresh state it is clear that nothing resets the neurons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the spikes of a network pass.

    Attributes
    ----------
    layers : tuple of Layer
        The weighted layers.
    entries, neurons : tuple of Module
        What the spikes of each layer enter, and what they leave.
    dropouts : tuple of Module
        What drops spikes in front of a layer while training; the hardware drops none.
    whole : bool
        Whether each of these runs once on all time steps, the first axis, from a fresh state.
    """

    layers: tuple[Layer, ...]
    entries: tuple[nn.Module, ...]
    neurons: tuple[nn.Module, ...]
    dropouts: tuple[nn.Module, ...] = ()
    whole: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class _Inference:
    """What is known so far of an inference under way; keys are layers."""

    counting: bool = False
    holding: bool = False
    steps: int = 0
    entered: dict[int, Tensor] = field(default_factory=dict)
    left: dict[int, Tensor] = field(default_factory=dict)
    """Spikes of the step under way."""
    counts: list[StepCounts] = field(default_factory=list)
    held: dict[int, list[Tensor]] = field(default_factory=dict)


class Watch:
    """Counts the spikes of inferences, and holds those of the last one with their gradients.

    Parameters
    ----------
    places : Places
    module : Module
        The whole; training and evaluation are counted apart.
    time_steps : int or None
        Of an inference; None: those of the first.
    every : int or None
        Counts one inference in so many; None: as many as take half a percent of the time.
        The first of an epoch, and of training or evaluation in it, is always counted.
    samples : int
        Keeps the counts of the last inferences, as many as hold this number of samples.
    gradient : bool
        Holds the spikes of an inference until the next, where gradients are recorded.
    """

    def __init__(
        self,
        places: Places,
        module: nn.Module,
        *,
        time_steps: int | None,
        every: int | None,
        samples: int,
        gradient: bool,
    ) -> None:
        self.places, self.time_steps = places, time_steps
        self._module, self._gradient = module, gradient
        self._counter = SpikeCounter(places.layers, whole=places.whole, samples=samples)
        self._pace, self._training = Pace(every), module.training
        self._sentinel, self._first, self._others = Hooks(), Hooks(), Hooks()
        self._now, self._held = _Inference(), dict[int, list[Tensor]]()
        self._stale = self._has_new = False
        self._matched = self._warned = False
        self._guessed_steps = 0
        self._agreed = 2 if time_steps else 0  # inferences that had as many steps
        self._weight = getattr(places.entries[0], "weight", None)
        self._weight_version, self._warned_of_update = 0, False
        self._unsure = False
        self._dropped: tuple[Tensor, Tensor] | None = None
        self._waiting: Tensor | None = None
        self._last_mem: tuple[Tensor, int] | None = None
        self._began_late = torch.tensor(False)

    def attach(self) -> None:
        """Watch from now on: the first layer, and the others only while they are counted.

        Hooks cost time by their number, and cost the more the less a layer has to do.
        """
        self._sentinel.remove()
        entry, neuron = self.places.entries[0], self.places.neurons[0]
        if self.places.whole:
            self._first.before(entry, self._before_all_steps)
        else:
            self._first.before(entry, self._before_first_entry)
            self._first.before(neuron, self._before_first_neuron)
        self._first.after(neuron, self._after_first_neuron)

    def detach(self) -> None:
        """Take off all hooks."""
        for hooks in (self._sentinel, self._first, self._others):
            hooks.remove()

    def counts(self) -> Counts | None:
        """Fetch what was counted; None if nothing was yet.

        Raises
        ------
        ConfigError
            If neurons did not begin at 0.
        """
        self._finish()
        if self._began_late:
            rule = (
                "its neurons must begin a batch at 0 and be handed their states as they left them"
            )
            raise ConfigError(f"module: {rule}; got a batch that begins with others")
        return self._counter.fetch()

    def known_steps(self) -> int | None:
        """Give the time steps of an inference; None if none has run yet."""
        self._finish()
        return self.time_steps

    def spikes(self) -> list[Tensor]:
        """Hand over the spikes that entered each layer in the last inference, time first.

        Empty if there are none, or if they were handed over before.
        """
        self._finish()
        held, self._held = self._held, {}
        if self._now.steps or len(held) < len(self.places.layers):
            return []
        of_layers = [held[index] for index in sorted(held)]
        return [each[0] if self.places.whole else torch.stack(each) for each in of_layers]

    def end_epoch(self) -> bool:
        """Count what follows apart; tell whether anything was counted since the last time."""
        self._finish()
        had, self._has_new = self._has_new, False
        self._stale = True
        self._pace.start()
        return had

    def forget(self) -> None:
        """Drop all counts, and the inference under way."""
        self._counter.forget()
        self._has_new = False
        self._begin(_Inference())

    # Inferences and their steps

    def _step(self, *, fresh: bool, steps: int = 1) -> None:
        """Begin a step, and with a fresh state an inference."""
        if fresh:
            self._close()
            if self._training != self._module.training:
                self._training, self._stale = self._module.training, True
                self._pace.start()
            counting = self._pace.is_due()
            if not (counting or self._gradient or self._pace.every):
                self._sleep()
                return
            holding = self._gradient and torch.is_grad_enabled()
            self._begin(_Inference(counting=counting, holding=holding))
        elif self._guessed_steps:  # somebody asked in the middle of the first inference
            self._now = _Inference(steps=self._guessed_steps)
            self.time_steps, self._matched = None, False
            self._counter.forget()
        else:
            self._check_update()
            self._count_step()
        self._guessed_steps = 0
        self._now.steps += steps
        if self._now.steps > _MOST_STEPS:
            rule = f"its neurons ran {self._now.steps} steps without a fresh state"
            raise ConfigError(f"module: {rule}; reset them before every batch")

    def _check_update(self) -> None:
        """Warn if weights changed in the middle of an inference."""
        if self._version_of_weight() == self._weight_version or self._warned_of_update:
            return
        self._warned_of_update = True
        warnings.warn(
            f"weights were updated {self._now.steps} steps into an inference, as no neuron began "
            "afresh; if they are to, reset them before every batch",
            stacklevel=2,
        )

    def _version_of_weight(self) -> int:
        return _version(self._weight) if isinstance(self._weight, Tensor) else 0

    def _begin(self, inference: _Inference) -> None:
        self._weight_version = self._version_of_weight()
        if not (inference.counting or inference.holding):
            self._others.remove()
        elif not self._others:
            self._attach_others()
        self._now, self._held = inference, {}

    def _finish(self) -> None:
        """End the inference under way if its steps are all there, as far as one can tell."""
        if self._now.steps and self.time_steps in (None, self._now.steps):
            self._guessed_steps = 0 if self.time_steps else self._now.steps
            self._close()

    def _close(self) -> None:
        """End the inference under way, if there is one, and keep what was counted of it."""
        self._count_step()
        now, self._now = self._now, _Inference()
        expected = 1 if self.places.whole else now.steps
        if not now.steps or (now.counting and len(now.counts) < expected):
            return  # it ended in the middle, by an exception
        if self._agreed < 2 and now.steps != self.time_steps:
            self._counter.forget()  # one that ran alone was a trial
            self.time_steps, self._agreed = now.steps, 0
        if now.steps != self.time_steps:
            self._refuse(now.steps)
            return
        self._agreed += 1
        self._matched, self._held = True, now.held
        if now.counting:
            if self._stale:
                self._counter.forget()
            self._stale, self._has_new = False, True
            with self._pace.clocked(now.counts[0].fired.device):
                self._counter.keep(now.counts)

    def _refuse(self, steps: int) -> None:
        """Leave an inference aside that has another number of steps.

        Before training one may be a trial; if no other has what was asked for, that is wrong.
        """
        if not self._matched and self._warned:
            rule = f"must be the {steps} time steps that the module runs from a fresh state"
            raise ConfigError(f"input.time_steps: {rule}, got {self.time_steps}")
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"an inference of {steps} time steps was left aside, and so will be others: those "
                f"that count have {self.time_steps}",
                stacklevel=2,
            )

    def _count_step(self) -> None:
        """Count the step that is over, unless an exception ended it."""
        now = self._now
        entered, now.entered, left, now.left = now.entered, {}, now.left, {}
        if now.counting and len(left) == len(self.places.layers):
            with self._pace.clocked(left[0].device):
                now.counts.append(self._counter.count(entered, left))

    # Hooks

    def _attach_others(self) -> None:
        places = self.places
        pairs = zip(places.entries[1:], places.neurons[1:], strict=True)
        for index, (entry, neuron) in enumerate(pairs, start=1):
            self._others.before(entry, partial(self._before_entry, index))
            self._others.after(neuron, partial(self._after_neuron, index))
        for dropout in places.dropouts:
            self._others.after(dropout, self._after_dropout)

    def _sleep(self) -> None:
        """Look at nothing but the clock, until there is time to count again."""
        self._begin(_Inference())
        self._last_mem = self._waiting = None
        self._first.remove()
        self._sentinel.before(self._module, self._before_module)

    def _before_module(self, part: nn.Module, args: Any, kwargs: Any) -> None:
        new = self._stale or part.training is not self._training
        if new or self._pace.has_time():
            self._unsure = not new  # it may be in the middle of an inference
            self.attach()

    def _before_all_steps(self, part: nn.Module, args: Any, kwargs: Any) -> None:
        spikes = _the_tensor(args, kwargs)
        self._step(fresh=True, steps=len(spikes))
        self._take(0, spikes)

    def _before_first_entry(self, part: nn.Module, args: Any, kwargs: Any) -> None:
        self._waiting = first_tensor(args, kwargs)  # the neuron tells which inference it is of

    def _before_first_neuron(self, part: Any, args: Any, kwargs: Any) -> None:
        mem = args[1] if len(args) > 1 else kwargs.get("mem")
        mem = part.mem if mem is None else mem
        fits = mem.shape == _the_tensor(args, kwargs).shape  # else the neuron begins at 0
        same = fits and self._last_mem is not None and _is_same(mem, *self._last_mem)
        if self._unsure and (self._last_mem is None or same):
            return
        self._unsure = False
        if fits and not same:
            self._began_late = self._began_late.to(mem.device) | mem.detach().any()
        self._step(fresh=not same)
        if self._waiting is not None:
            self._take(0, self._waiting)
            self._waiting = None

    def _after_first_neuron(self, part: Any, args: Any, kwargs: Any, output: Any) -> None:
        if not self.places.whole:
            self._last_mem = part.mem.detach(), _version(part.mem)
        self._after_neuron(0, part, args, kwargs, output)

    def _before_entry(self, index: int, part: nn.Module, args: Any, kwargs: Any) -> None:
        self._take(index, _the_tensor(args, kwargs))

    def _after_neuron(self, index: int, part: Any, args: Any, kwargs: Any, output: Any) -> None:
        if self._now.counting:
            self._now.left[index] = _the_tensor(output).detach()

    def _after_dropout(self, part: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        if part.training:
            self._dropped = (output, _the_tensor(args, kwargs))

    def _take(self, index: int, spikes: Tensor) -> None:
        """Take spikes that enter a layer, of one step or, if the places are whole, of all."""
        spikes, now = self._undropped(spikes), self._now
        if now.counting:
            now.entered[index] = spikes.detach()
        if now.holding:
            now.held.setdefault(index, []).append(spikes)

    def _undropped(self, spikes: Tensor) -> Tensor:
        """Spikes as they were before dropout right in front of the layer, flattened or not."""
        if self._dropped is None:
            return spikes
        (after, before), self._dropped = self._dropped, None
        is_it = after is spikes or after is spikes._base
        return before.reshape(spikes.shape) if is_it else spikes


def _is_same(mem: Tensor, last: Tensor, version: int) -> bool:
    """Tell whether a membrane is the one that was left, by its memory: detached it still is."""
    return mem.data_ptr() == last.data_ptr() and _version(mem) == version


def _version(mem: Tensor) -> int:
    """Count how often a tensor was written in place, for instance to reset it."""
    return 0 if mem.is_inference() else mem._version


def _the_tensor(*values: Any) -> Tensor:
    found = first_tensor(*values)
    assert found is not None  # the module was seen to run on one
    return found
