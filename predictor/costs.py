"""What a machine pays for the work that spikes make: the terms of a fitted timing model.

A step of a layer costs what is done once (`step`, `sync`, `fire`, and `layer` in the first step)
and what is done for spikes: they are looked for and sent (`scan`, `idle`, `list`, `emit`,
`send`) and their weights are added (`accumulate`, `event`, `receive`, `start`). Where the hardware
does both at once, the longer takes the place of their sum, over the whole step or input map by
input map:

    cost = step + sync + layer + fire + max(search, start + receive + accumulate + event)

and where neurons are updated meanwhile, `fire` is a third side of the maximum of a step.

Every part is a cost, never negative, times the work that `PARTS` names. Steps then follow one
another in one of the orders, and an inference has a fixed cost. Which of these a machine does, and
what it pays, is found by `spikemeter.calibration.fit_timing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .orders import critical_steps, finish_times
from .structure import PARTS, KnobRole, Structure, Term, structure_terms
from .workload import Workload

__all__ = ["CostModel", "StepCycles", "cost_model"]

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]
_Indices = NDArray[np.int64]

_COLUMN = {name: index for index, name in enumerate(PARTS)}
_SEARCH = np.array([_COLUMN[name] for name in ("idle", "scan", "list", "emit", "send")])
_ADDITION = np.array([_COLUMN[name] for name in ("start", "receive", "accumulate", "event")])
_FIRE = _COLUMN["fire"]


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
    terms : tuple of Term
        Costs that it leaves open.
    shares : tuple of ndarray of float, shape (rows,)
        How much of its work each row pays to a term, by kind of layer and knob.
    share_of : tuple of int
        The share of each term but the last, which is paid once.
    gross : ndarray of float, shape (rows, parts)
        All work of a row, as if one thing were done after the other.
    words, phases, taps : ndarray of float, shape (rows,)
        Words of a search, output channels by cores, and kernel taps.
    by_step : ndarray of bool, shape (rows,)
        Rows whose longer side counts for the whole step.
    maps : MapWork or None
        Work of the rows whose longer side counts for each input map.
    """

    work: Workload
    structure: Structure
    terms: tuple[Term, ...]
    shares: tuple[_Floats, ...]
    share_of: tuple[int, ...]
    gross: _Floats
    words: _Floats
    phases: _Floats
    taps: _Floats
    by_step: _Flags
    maps: MapWork | None

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
        if costs is None:
            work = self.gross if waiting is None else self._work(None, waiting)
        else:
            paid = self._paid(costs)
            work = self._work(paid)
            if self.structure.order != "serial":
                total = self._grid(np.einsum("rp,rp->r", work, paid))
                critical = critical_steps(total, self.structure.order, self.work.pipelined)
                at = (self.work.sample, self.work.layer, self.work.step)
                work = work * critical[at][:, None]
        columns = np.empty((self.work.samples, len(self.terms)))
        for number, share in enumerate(self.shares):
            own = [index for index, other in enumerate(self.share_of) if other == number]
            parts = [_COLUMN[self.terms[index].part] for index in own]
            columns[:, own] = np.add.reduceat(work[:, parts] * share[:, None], self.work.starts)
        columns[:, -1] = 1.0
        return columns

    def cycles(self, costs: _Floats) -> StepCycles:
        """Cycles of every sample, layer and step."""
        paid = self._paid(costs)
        spent = self._work(paid) * paid
        # What is done at once counts as firing first, then as adding
        firing = self.gross[:, _FIRE] * paid[:, _FIRE]
        others = spent[:, [*_SEARCH, *_ADDITION, _FIRE]].sum(axis=1) - firing
        adding = (self.gross[:, _ADDITION[1:]] * paid[:, _ADDITION[1:]]).sum(axis=1)
        adding = np.clip(adding, 0.0, np.maximum(others, 0.0))
        total = self._grid(spent.sum(axis=1))
        start, finish = finish_times(total, self.structure.order, self.work.pipelined)
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
        events = self.gross[:, _COLUMN["receive"]]
        return np.column_stack(
            [
                self.work.step == 0,
                np.ones(len(events)),
                self.words,
                events,
                events * self.phases,
                self.taps * self.phases,
                self.gross[:, _FIRE],
            ]
        )

    def _paid(self, costs: _Floats) -> _Floats:
        """Cost of every part in every row, shape (rows, parts)."""
        paid = np.zeros(self.gross.shape)
        for term, share, cost in zip(self.terms[:-1], self.share_of, costs, strict=False):
            if cost:
                paid[:, _COLUMN[term.part]] += cost * self.shares[share]
        return paid

    def _work(self, paid: _Floats | None, waiting: float | None = None) -> _Floats:
        """Work on the longer side of every maximum, shape (rows, parts)."""
        work = self.gross.copy()
        if self.by_step.any():
            longest = self._sides(paid, waiting).argmax(axis=0)
            work[np.ix_(self.by_step & (longest != 0), _SEARCH)] = 0.0
            work[np.ix_(self.by_step & (longest != 1), _ADDITION)] = 0.0
            if self.structure.fire_overlaps:
                work[self.by_step & (longest != 2), _FIRE] = 0.0
        if self.maps is not None:
            self.maps.fill(work, paid, waiting)
        return work

    def _sides(self, paid: _Floats | None, waiting: float | None) -> _Floats:
        """Weigh what the maximum of a step is taken of: search, addition, and perhaps firing."""
        if paid is None:  # as if a tap and a neuron took one cycle
            waits = _are_few(self.gross[:, _COLUMN["receive"]], waiting)
            sides = [
                np.where(waits, np.inf, 0.0),
                self.gross[:, _COLUMN["accumulate"]],
                self.gross[:, _FIRE],
            ]
        else:
            spent = self.gross * paid
            sides = [
                spent[:, _SEARCH].sum(axis=1),
                spent[:, _ADDITION].sum(axis=1),
                spent[:, _FIRE],
            ]
        return np.stack(sides if self.structure.fire_overlaps else sides[:2])

    def _grid(self, values: _Floats) -> _Floats:
        return _grid(self.work, values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapWork:
    """Work of the rows whose maxima are taken map by map.

    Attributes
    ----------
    rows : ndarray of int, shape (map rows,)
        Which rows of the workload they are.
    first : ndarray of int, shape (map rows,)
        First cell, that is map, of each of them.
    cell_row : ndarray of int, shape (cells,)
        The one of `rows` that a cell belongs to.
    search : ndarray of float, shape (map rows, 5)
        Search of one map (`idle`, `scan`), and what an event adds to it (`list`, `emit`, `send`).
    addition : ndarray of float, shape (cells, 4)
        Work of adding the weights of a map: `start`, `receive`, `accumulate`, `event`.
    """

    rows: _Indices
    first: _Indices
    cell_row: _Indices
    search: _Floats
    addition: _Floats

    def fill(self, work: _Floats, paid: _Floats | None, waiting: float | None) -> None:
        """Put the longer side of every map into the work of its row."""
        events = self.addition[:, 1]
        if paid is None:
            waits = _are_few(events, waiting)
        else:
            price = paid[self.rows]
            search = self.search * price[:, _SEARCH]
            fixed, per_event = search[:, :2].sum(axis=1), search[:, 2:].sum(axis=1)
            adding = price[:, _ADDITION][self.cell_row]
            longer = fixed[self.cell_row] + per_event[self.cell_row] * events
            waits = longer >= np.einsum("cp,cp->c", self.addition, adding)
        searching = np.add.reduceat(np.stack([waits, waits * events], axis=1), self.first)
        work[np.ix_(self.rows, _SEARCH)] = self.search * searching[:, [0, 0, 1, 1, 1]]
        added = np.add.reduceat(self.addition * ~waits[:, None], self.first)
        work[np.ix_(self.rows, _ADDITION)] = added


def cost_model(
    work: Workload, structure: Structure, references: Mapping[str, float] | None = None
) -> CostModel:
    """Count the work of some samples as a structure does.

    Parameters
    ----------
    work : Workload
        Spikes and sizes.
    structure : Structure
        The machine.
    references : mapping of str to float, optional
        For each knob the value at which its scale is one, in the order of the workload's knobs.
    """
    references = references or {}
    cores = _setting(work, structure.cores, work.cores, list(references))
    width = _setting(work, structure.width, work.width, list(references))
    by_map = _overlapping(work, structure, "map")
    # An input map is scanned by itself where maps overlap
    words = np.ceil(np.where(by_map, work.pixels, work.inputs) / width)
    phases = np.ceil(work.channels / cores)
    searches = np.where(
        np.where(work.dense, structure.dense_repeats, structure.conv_repeats), phases, 1.0
    )
    senders = _cores_before(work, cores)
    per_event = [np.ones_like(senders), 1 / senders, cores / senders]
    search = np.column_stack([np.ones_like(words), words, *per_event]) * searches[:, None]
    first = np.cumsum(work.maps) - work.maps
    events = np.add.reduceat(work.events, first)
    taps = events * work.kernel_taps if structure.borders else np.add.reduceat(work.taps, first)
    maps = None
    gross = np.zeros((len(words), len(PARTS)))
    gross[:, _COLUMN["step"]] = 1.0
    gross[:, _COLUMN["layer"]] = work.step == 0
    gross[:, _COLUMN["sync"]] = cores
    gross[:, _FIRE] = work.area * phases
    gross[:, _SEARCH] = np.column_stack([search[:, :2], search[:, 2:] * events[:, None]])
    active = np.minimum(events, 1.0) * _overlapping(work, structure, "step")
    gross[:, _ADDITION] = np.column_stack([active, events, taps * phases, events * phases])
    if by_map.any():
        maps = _map_work(work, structure, by_map, search[by_map], phases)
        gross[np.ix_(maps.rows, _SEARCH[:2])] *= work.maps[by_map][:, None]
        starts = np.add.reduceat(maps.addition[:, 0], maps.first)
        gross[maps.rows, _ADDITION[0]] = starts
    terms = structure_terms(structure)
    pairs = list(dict.fromkeys((term.kind, term.role) for term in terms[:-1]))
    return CostModel(
        work=work,
        structure=structure,
        terms=terms,
        shares=tuple(_share(work, kind, role, references) for kind, role in pairs),
        share_of=tuple(pairs.index((term.kind, term.role)) for term in terms[:-1]),
        gross=gross,
        words=words,
        phases=phases,
        taps=taps,
        by_step=_overlapping(work, structure, "step"),
        maps=maps,
    )


def _overlapping(work: Workload, structure: Structure, way: str) -> _Flags:
    """Rows of layers whose search and addition overlap in a way."""
    return np.where(work.dense, structure.dense == way, structure.conv == way)


def _setting(
    work: Workload, wanted: int | str | None, configured: _Floats, names: Sequence[str]
) -> _Floats:
    """Cores, or lines scanned at once, of every row."""
    if wanted is None:
        return configured
    if isinstance(wanted, str):
        knob: _Floats = work.knobs[work.sample, names.index(wanted)]
        return knob
    return np.full(len(configured), float(wanted))


def _cores_before(work: Workload, cores: _Floats) -> _Floats:
    """Cores of the layer that sends; one sends the input."""
    grid = _grid(work, cores)
    before = np.concatenate([np.ones_like(grid[:, :1]), grid[:, :-1]], axis=1)
    return before[work.sample, work.layer, work.step]


def _share(
    work: Workload, kind: str, role: KnobRole | None, references: Mapping[str, float]
) -> _Floats:
    """Rows of one kind of layer, scaled by a knob."""
    dense = work.dense
    share = {"conv": ~dense, "dense": dense, "all": np.ones_like(dense)}[kind].astype(float)
    if role is None:
        return share
    value = work.knobs[work.sample, list(references).index(role.knob)]
    scale: _Floats = value / references[role.knob]
    scaled: _Floats = share / scale if role.inverse else share * scale
    return scaled


def _map_work(
    work: Workload, structure: Structure, by_map: _Flags, search: _Floats, phases: _Floats
) -> MapWork:
    chosen = np.repeat(by_map, work.maps)
    sizes = work.maps[by_map]
    cell_row = np.repeat(np.arange(len(sizes)), sizes)
    events = work.events[chosen]
    taps = events * work.kernel_taps[by_map][cell_row] if structure.borders else work.taps[chosen]
    again = phases[by_map][cell_row]
    return MapWork(
        rows=np.flatnonzero(by_map),
        first=np.cumsum(sizes) - sizes,
        cell_row=cell_row,
        search=search,
        addition=np.column_stack([np.minimum(events, 1.0), events, taps * again, events * again]),
    )


def _are_few(events: _Floats, waiting: float | None) -> _Flags:
    """Where so few spikes arrive that the search is waited for, before costs are known."""
    few: _Flags = events < (waiting or 0.0) * events.mean()
    return few


def _grid(work: Workload, values: _Floats) -> _Floats:
    """Numbers of rows by sample, layer and step; 0 where a sample has no such row."""
    shape = (work.samples, int(work.layer.max()) + 1, int(work.step.max()) + 1)
    grid = np.zeros(shape)
    grid[work.sample, work.layer, work.step] = values
    return grid
