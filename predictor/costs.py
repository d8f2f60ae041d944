"""What a machine pays for the work that spikes make: the terms of a fitted timing model.

A step of a layer costs what is done once (`step`, `sync`, `fire`, and `layer` in the first step)
and what is done for spikes: they are looked for and sent (`scan`, `idle`, `list`, `emit`,
`send`) and their weights are added (`accumulate`, `event`, `receive`, `start`). Where the hardware
does both at once, the longer takes the place of their sum, over the whole step or input map by
input map:

    cost = step + sync + layer + fire + max(search, start + accumulate + event)

and where neurons are updated meanwhile, `fire` is a third side of the maximum of a step.

Every part is a cost, never negative, times the work that `PARTS` names. Steps then follow one
another in one of the `ORDERS`, and an inference has a fixed cost. Which of these a machine does,
and what it pays, is found by `spikemeter.calibration.fit_timing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .workload import Workload

__all__ = [
    "INFERENCE",
    "PARTS",
    "CostModel",
    "Group",
    "KnobRole",
    "Order",
    "Overlap",
    "Part",
    "StepCycles",
    "Structure",
    "Term",
    "structure_terms",
]

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]

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

_COLUMN = {name: index for index, name in enumerate(PARTS)}
_SEARCH = [_COLUMN[name] for name in ("idle", "scan", "list", "emit", "send")]
_ADDITION = [_COLUMN[name] for name in ("start", "receive", "accumulate", "event")]
_FIRE = _COLUMN["fire"]


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepCycles:
    """Cycles of samples by layer and step; shapes are (samples, layers, time_steps).

    Attributes
    ----------
    total, encode, accumulate, fire : ndarray of float
        All of a step, and what of it goes into looking for spikes, adding weights and firing.
    start, finish : ndarray of float
        When a step begins and ends.
    cycles : ndarray of float, shape (samples,)
        Latency, with the fixed cost of an inference.
    """

    total: _Floats
    encode: _Floats
    accumulate: _Floats
    fire: _Floats
    start: _Floats
    finish: _Floats
    cycles: _Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostModel:
    """The work of some samples, counted as a structure does; costs turn it into cycles.

    Attributes
    ----------
    work : Workload
        Spikes and sizes.
    structure : Structure
        The machine.
    references : mapping of str to float
        For each knob the value at which its scale is one, in the order of the workload's knobs.
    """

    work: Workload
    structure: Structure
    references: Mapping[str, float]
    terms: tuple[Term, ...] = field(init=False)
    _shares: list[_Floats] = field(init=False, repr=False)
    _share_of: list[int] = field(init=False, repr=False)
    _phases: _Floats = field(init=False, repr=False)
    _words: _Floats = field(init=False, repr=False)
    _searches: _Floats = field(init=False, repr=False)
    _events: _Floats = field(init=False, repr=False)
    _cores: _Floats = field(init=False, repr=False)
    _senders: _Floats = field(init=False, repr=False)
    _taps: _Floats = field(init=False, repr=False)
    _overlap: NDArray[np.int64] = field(init=False, repr=False)
    _maps: _MapCells | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        work, structure = self.work, self.structure
        names = list(self.references)
        cores = self._setting(structure.cores, work.cores, names)
        width = self._setting(structure.width, work.width, names)
        phases = np.ceil(work.channels / cores)
        repeats = np.where(work.dense, structure.dense_repeats, structure.conv_repeats)
        kinds = get_args(Overlap)
        overlap = np.where(work.dense, kinds.index(structure.dense), kinds.index(structure.conv))
        by_map = overlap == kinds.index("map")
        # An input map is scanned by itself where maps overlap
        words = np.ceil(np.where(by_map, work.pixels, work.inputs) / width)
        first = np.cumsum(work.maps) - work.maps
        events = np.add.reduceat(work.events, first)
        taps = events * work.kernel_taps
        if not structure.borders:
            taps = np.add.reduceat(work.taps, first)
        terms = structure_terms(structure)
        pairs = list(dict.fromkeys((term.kind, term.role) for term in terms))
        for name, value in {
            "terms": terms,
            "_shares": [self._share(kind, role, names) for kind, role in pairs],
            "_share_of": [pairs.index((term.kind, term.role)) for term in terms],
            "_phases": phases,
            "_words": words,
            "_searches": np.where(repeats, phases, 1.0),
            "_events": events,
            "_cores": cores,
            "_senders": self._cores_before(cores),
            "_taps": taps,
            "_overlap": overlap,
            "_maps": _map_cells(work, structure, by_map) if by_map.any() else None,
        }.items():
            object.__setattr__(self, name, value)

    def features(self, costs: _Floats | None = None, *, waiting: float | None = 0.0) -> _Floats:
        """Work of every sample along its critical path, shape (samples, terms).

        Parameters
        ----------
        costs : ndarray of float, shape (terms,), optional
            What decides the maxima. Default: steps and maps with fewer spikes than `waiting` times
            the mean wait for the search, and layers follow one another.
        waiting : float or None, optional
            See `costs`; None takes sums instead of maxima.

        Notes
        -----
        ``features(costs) @ costs`` are the cycles of `costs`: along its critical path the latency
        is linear in them.
        """
        gross = self._gross(costs, waiting)
        path = np.ones(len(gross))
        if costs is not None and self.structure.order != "serial":
            path = self._path((gross * self._paid(costs)).sum(axis=1))
        starts = self.work.starts
        by_share = [
            np.add.reduceat(gross * (path * share)[:, None], starts, axis=0)
            for share in self._shares
        ]
        columns = [
            by_share[share][:, _COLUMN[term.part]]
            for term, share in zip(self.terms[:-1], self._share_of, strict=False)
        ]
        return np.stack([*columns, np.ones(self.work.samples)], axis=1)

    def cycles(self, costs: _Floats) -> StepCycles:
        """Cycles of every sample, layer and step."""
        paid = self._paid(costs)
        gross = self._gross(costs, 0.0)
        spent = gross * paid
        # What is done at once counts as firing first, then as adding
        firing = self.work.area * self._phases * paid[:, _FIRE]
        others = spent[:, [*_SEARCH, *_ADDITION, _FIRE]].sum(axis=1) - firing
        adding = (self._full_addition() * paid[:, _ADDITION[1:]]).sum(axis=1)
        adding = np.clip(adding, 0.0, np.maximum(others, 0.0))
        total = self._grid(spent.sum(axis=1))
        start, finish = self._times(total)
        return StepCycles(
            total=total,
            encode=self._grid(np.maximum(others - adding, 0.0)),
            accumulate=self._grid(adding),
            fire=self._grid(firing),
            start=start,
            finish=finish,
            cycles=finish.max(axis=(1, 2)) + costs[-1],
        )

    def counted(self) -> _Floats:
        """Layers, steps, words, events, events by phase, by tap and phase, and neurons of a core.

        Returns
        -------
        ndarray of float, shape (rows, 7)
        """
        first = self.work.step == 0
        return np.column_stack(
            [
                first,
                np.ones(len(first)),
                self._words,
                self._events,
                self._events * self._phases,
                self._taps * self._phases,
                self.work.area * self._phases,
            ]
        )

    def _setting(self, wanted: int | str | None, configured: _Floats, names: list[str]) -> _Floats:
        """Cores, or lines scanned at once, of every row."""
        if wanted is None:
            return configured
        if isinstance(wanted, str):
            knob: _Floats = self.work.knobs[self.work.sample, names.index(wanted)]
            return knob
        return np.full(len(configured), float(wanted))

    def _cores_before(self, cores: _Floats) -> _Floats:
        """Cores of the layer that sends; one sends the input."""
        grid = self._grid(cores)
        before = np.concatenate([np.ones_like(grid[:, :1]), grid[:, :-1]], axis=1)
        work = self.work
        return before[work.sample, work.layer, work.step]

    def _share(self, kind: str, role: KnobRole | None, names: list[str]) -> _Floats:
        """Rows of one kind of layer, scaled by a knob."""
        dense = self.work.dense
        share = {"conv": ~dense, "dense": dense, "all": np.ones_like(dense)}[kind].astype(float)
        if role is None:
            return share
        value = self.work.knobs[self.work.sample, names.index(role.knob)]
        scale: _Floats = value / self.references[role.knob]
        scaled: _Floats = share / scale if role.inverse else share * scale
        return scaled

    def _paid(self, costs: _Floats) -> _Floats:
        """Cost of every part in every row, shape (rows, parts)."""
        paid = np.zeros((len(self._phases), len(PARTS)))
        for term, share, cost in zip(self.terms[:-1], self._share_of, costs, strict=False):
            if cost:
                paid[:, _COLUMN[term.part]] += cost * self._shares[share]
        return paid

    def _full_addition(self) -> _Floats:
        """Events, by tap and phase, and by phase, whether or not the search takes longer."""
        phases = self._phases
        return np.column_stack([self._events, self._taps * phases, self._events * phases])

    def _gross(self, costs: _Floats | None, waiting: float | None) -> _Floats:
        """Work of every row on the longer side of its maxima, shape (rows, parts)."""
        work, searches = self.work, self._searches
        gross = np.empty((len(searches), len(PARTS)))
        gross[:, _COLUMN["step"]] = 1.0
        gross[:, _COLUMN["layer"]] = work.step == 0
        gross[:, _COLUMN["sync"]] = self._cores
        gross[:, _FIRE] = work.area * self._phases
        by_event = self._by_event()
        search = np.column_stack(
            [np.ones_like(searches), self._words, self._events[:, None] * by_event]
        )
        search *= searches[:, None]
        addition = np.column_stack([np.minimum(self._events, 1.0), self._full_addition()])
        kinds = get_args(Overlap)
        by_step = self._overlap == kinds.index("step")
        paid = None if costs is None else self._paid(costs)
        if by_step.any() and not (paid is None and waiting is None):
            sides = self._sides(search, addition, gross[:, _FIRE], paid, waiting)
            longest = sides.argmax(axis=0)
            search[by_step & (longest != 0)] = 0.0
            addition[by_step & (longest != 1)] = 0.0
            if self.structure.fire_overlaps:
                gross[by_step & (longest != 2), _FIRE] = 0.0
        if self._maps is not None:
            self._fill_maps(search, addition, paid, waiting)
        addition[self._overlap == kinds.index("sum"), 0] = 0.0
        gross[:, _SEARCH] = search
        gross[:, _ADDITION] = addition
        return gross

    def _by_event(self) -> _Floats:
        """Count what an event adds to the search, shape (rows, 3): itself, to emit, messages."""
        senders = self._senders
        return np.column_stack([np.ones_like(senders), 1 / senders, self._cores / senders])

    def _sides(
        self,
        search: _Floats,
        addition: _Floats,
        firing: _Floats,
        paid: _Floats | None,
        waiting: float | None,
    ) -> _Floats:
        """Weigh what the maximum of a step is taken of: search, addition, and perhaps firing."""
        if paid is None:  # as if a tap and a neuron took one cycle
            waits = self._events < (waiting or 0.0) * self._events.mean()
            sides = [np.where(waits, np.inf, 0.0), addition[:, 2]]
        else:
            sides = [
                (search * paid[:, _SEARCH]).sum(axis=1),
                (addition * paid[:, _ADDITION]).sum(axis=1),
            ]
        if self.structure.fire_overlaps:
            sides.append(firing if paid is None else firing * paid[:, _FIRE])
        return np.stack(sides)

    def _fill_maps(
        self, search: _Floats, addition: _Floats, paid: _Floats | None, waiting: float | None
    ) -> None:
        """Put in the work of rows whose maxima are taken map by map."""
        maps = self._maps
        assert maps is not None
        rows = maps.rows
        searches, words, phases = self._searches[rows], self._words[rows], self._phases[rows]
        active = np.minimum(maps.events, 1.0)
        if paid is None:
            waits = maps.events < (waiting or 0.0) * maps.events.mean()
        else:
            cost = paid[rows]
            fixed = searches * (cost[:, _SEARCH[0]] + cost[:, _SEARCH[1]] * words)
            per_event = searches * (cost[:, _SEARCH[2:]] * self._by_event()[rows]).sum(axis=1)
            start = cost[:, _ADDITION[0]]
            per_tap = phases * cost[:, _ADDITION[2]]
            per_spike = cost[:, _ADDITION[1]] + phases * cost[:, _ADDITION[3]]
            cells = np.repeat(np.arange(len(rows)), maps.sizes)
            longer = fixed[cells] + per_event[cells] * maps.events
            adding = (
                start[cells] * active + per_tap[cells] * maps.taps + per_spike[cells] * maps.events
            )
            waits = longer >= adding
        adds = np.ones_like(waits) if paid is None and waiting is None else ~waits
        waits = waits | adds if paid is None and waiting is None else waits
        spikes = adds * maps.events
        parts = np.stack(
            [waits, waits * maps.events, adds * active, spikes, adds * maps.taps, spikes], axis=1
        )
        sums = np.add.reduceat(parts, np.cumsum(maps.sizes) - maps.sizes, axis=0)
        search[rows] = np.column_stack(
            [sums[:, 0], sums[:, 0] * words, sums[:, 1:2] * self._by_event()[rows]]
        )
        search[rows] *= searches[:, None]
        addition[rows] = sums[:, 2:]
        addition[rows, 2:] *= phases[:, None]

    def _grid(self, values: _Floats) -> _Floats:
        """Numbers of rows by sample, layer and step; 0 where a sample has no such row."""
        work = self.work
        shape = (work.samples, int(work.layer.max()) + 1, int(work.step.max()) + 1)
        grid = np.zeros(shape)
        grid[work.sample, work.layer, work.step] = values
        return grid

    def _pipelined(self) -> _Flags:
        """Tell samples whose layers start a step as soon as they can."""
        if self.structure.order == "schedule":
            return self.work.pipelined
        return np.full(self.work.samples, self.structure.order == "pipelined")

    def _times(self, total: _Floats) -> tuple[_Floats, _Floats]:
        """When the steps of a grid begin and end."""
        samples, layers, steps = total.shape
        if self.structure.order == "lockstep":
            finish = np.cumsum(total.max(axis=1), axis=1)[:, None].repeat(layers, axis=1)
            start = np.concatenate([np.zeros((samples, layers, 1)), finish[..., :-1]], axis=2)
            return start, finish
        if self.structure.order == "slowest":
            finish = np.cumsum(total, axis=2)
            return finish - total, finish
        in_turn = np.cumsum(total.reshape(samples, -1), axis=1).reshape(total.shape)
        pipelined = self._pipelined()
        if not pipelined.any():
            return in_turn - total, in_turn
        finish = np.zeros_like(total)
        for layer in range(layers):
            for step in range(steps):
                before = finish[:, layer - 1, step] if layer else np.zeros(samples)
                own = finish[:, layer, step - 1] if step else before
                finish[:, layer, step] = np.maximum(before, own) + total[:, layer, step]
        finish = np.where(pipelined[:, None, None], finish, in_turn)
        return finish - total, finish

    def _path(self, row_cycles: _Floats) -> _Floats:
        """Rows on the critical path of their sample, as ones."""
        work = self.work
        total = self._grid(row_cycles)
        samples, layers, steps = total.shape
        on_path = np.zeros(total.shape)
        everyone = np.arange(samples)
        if self.structure.order == "lockstep":
            slowest = total.argmax(axis=1)
            on_path[everyone[:, None], slowest, np.arange(steps)] = 1.0
        elif self.structure.order == "slowest":
            on_path[everyone, total.sum(axis=2).argmax(axis=1)] = 1.0
        else:
            _, finish = self._times(total)
            layer, step = np.full(samples, layers - 1), np.full(samples, steps - 1)
            for _ in range(layers + steps - 1):
                on_path[everyone, layer, step] = 1.0
                before = np.where(layer > 0, finish[everyone, layer - 1, step], -1.0)
                own = np.where(step > 0, finish[everyone, layer, step - 1], -1.0)
                up = before >= own
                layer, step = (
                    np.maximum(layer - (up & (before >= 0)), 0),
                    np.maximum(step - (~up), 0),
                )
            on_path[~self._pipelined()] = 1.0
        return on_path[work.sample, work.layer, work.step]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _MapCells:
    """Cells of the rows whose maxima are taken map by map."""

    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    events: _Floats
    taps: _Floats


def _map_cells(work: Workload, structure: Structure, by_map: _Flags) -> _MapCells:
    chosen = np.repeat(by_map, work.maps)
    rows = np.flatnonzero(by_map)
    events = work.events[chosen]
    taps = work.taps[chosen]
    if structure.borders:
        taps = events * np.repeat(work.kernel_taps[rows], work.maps[rows])
    return _MapCells(rows=rows, sizes=work.maps[rows], events=events, taps=taps)
