"""Which machine it is: the choices and the costs that a fitted timing model is made of.

A `Structure` says how a machine works, its terms (`structure_terms`) what it may pay for. What
that comes to in cycles is counted by `spikemeter.predictor.costs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "INFERENCE",
    "PARTS",
    "Group",
    "KnobRole",
    "Order",
    "Overlap",
    "Part",
    "Structure",
    "Term",
    "structure_terms",
]

Kind = Literal["conv", "dense", "all"]
Group = Literal["fixed", "encode", "accumulate", "fire"]
Overlap = Literal["sum", "step", "map"]
Order = Literal["serial", "lockstep", "pipelined", "slowest", "schedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of work.

    Attributes
    ----------
    unit : str
        What a cost is paid for.
    group : {"fixed", "encode", "accumulate", "fire"}
        Parts that a knob scales together.
    """

    unit: str
    group: Group


PARTS: dict[str, Part] = {
    "step": Part(unit="step", group="fixed"),
    "layer": Part(unit="layer", group="fixed"),
    "sync": Part(unit="step x core", group="fixed"),
    "idle": Part(unit="search for spikes", group="encode"),
    "scan": Part(unit="word scanned", group="encode"),
    "list": Part(unit="event found", group="encode"),
    "emit": Part(unit="event / core before", group="encode"),
    "send": Part(unit="event x core / core before", group="encode"),
    "start": Part(unit="first event of a step or map", group="accumulate"),
    "receive": Part(unit="event received", group="accumulate"),
    "accumulate": Part(unit="event x tap x phase", group="accumulate"),
    "event": Part(unit="event x phase", group="accumulate"),
    "fire": Part(unit="neuron of a core", group="fire"),
}
"""Work of a step of a layer. Phases are output channels by cores; a core has H W P neurons."""

INFERENCE = "inference"
"""Name of the fixed cost of an inference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobRole:
    """A knob that scales some work.

    Attributes
    ----------
    knob : str
        Its name.
    group : {"fixed", "encode", "accumulate", "fire"}
        The parts that it scales.
    inverse : bool
        Whether more of it costs less.
    """

    knob: str
    group: Group
    inverse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Which machine it is, apart from its costs.

    Attributes
    ----------
    cores : int, str or None
        Cores that share the output channels of a layer: as configured (None), one number for all
        layers, or the knob of that name.
    width : int, str or None
        Lines scanned at once: as configured (None), one number, or the knob of that name.
    borders : bool
        Whether a tap outside the frame takes its time, too.
    conv, dense : {"sum", "step", "map"}
        In layers of that kind, whether search and addition follow one another, or overlap within a
        step or within an input map.
    conv_repeats, dense_repeats : bool
        Whether every phase searches again.
    fire_overlaps : bool
        Whether layers that overlap within a step update neurons meanwhile, too.
    separate : bool
        Whether convolutions and dense layers have costs of their own.
    order : {"serial", "lockstep", "pipelined", "slowest", "schedule"}
        How layers follow one another: in turn; all at once, the slowest ending each step; each
        step as soon as its input and its layer are ready; all at once, the slowest ending the
        inference; or ``serial`` or ``pipelined`` as `hardware.schedule` says.
    roles : tuple of KnobRole
        Knobs that scale some work, beside the same work unscaled.
    """

    cores: int | str | None = None
    width: int | str | None = None
    borders: bool = False
    conv: Overlap = "sum"
    dense: Overlap = "sum"
    conv_repeats: bool = False
    dense_repeats: bool = False
    fire_overlaps: bool = False
    separate: bool = False
    order: Order = "serial"
    roles: tuple[KnobRole, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A cost that a structure leaves open.

    Attributes
    ----------
    kind : {"conv", "dense", "all"}
        Layers that pay it.
    part : str
        One of `PARTS`, or `INFERENCE`.
    role : KnobRole or None
        The knob that scales it.
    """

    kind: Kind
    part: str
    role: KnobRole | None = None

    @property
    def name(self) -> str:
        """Unique text, for instance ``"conv.accumulate"`` or ``"all.scan/width"``."""
        if self.part == INFERENCE:
            return INFERENCE
        scale = "" if self.role is None else ("/" if self.role.inverse else "*") + self.role.knob
        return f"{self.kind}.{self.part}{scale}"


def structure_terms(structure: Structure) -> tuple[Term, ...]:
    """Costs that a structure leaves open, apart from those that it cannot tell from others.

    Examples
    --------
    >>> [term.name for term in structure_terms(Structure())]
    ['all.step', 'all.layer', 'all.sync', 'all.scan', 'all.list', 'all.emit', 'all.send', \
'all.accumulate', 'all.event', 'all.fire', 'inference']
    """
    kinds: tuple[Kind, ...] = ("conv", "dense") if structure.separate else ("all",)
    terms = [
        Term(kind=kind, part=part, role=role)
        for role in (None, *structure.roles)
        for kind in kinds
        for part, about in PARTS.items()
        if (role is None or role.group == about.group) and _is_told_apart(structure, kind, part)
    ]
    return (*terms, Term(kind="all", part=INFERENCE))


def _is_told_apart(structure: Structure, kind: str, part: str) -> bool:
    conv = (structure.conv, structure.conv_repeats)
    dense = (structure.dense, structure.dense_repeats)
    concerned = {"conv": [conv], "dense": [dense], "all": [conv, dense]}[kind]
    overlaps = any(overlap != "sum" for overlap, _ in concerned)
    if part == "idle":
        return overlaps or any(repeats for _, repeats in concerned)
    if part in ("start", "receive"):
        return overlaps
    return (kind, part) != ("dense", "event")  # the one tap of an event
