"""Single changes of training choices that make a network faster at the least cost in accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ConfigError
from ..space import configured
from .differences import CalibratedRuns, accuracy_half_widths, difference_errors, half_widths
from .estimate import LatencyEstimate
from .events import input_events
from .features import knob_of, layer_features
from .knobs import Knob, cells_of, display_values, frame_of

if TYPE_CHECKING:
    import pandas as pd

    from .predict import LatencyPredictor

__all__ = ["RULE", "Change", "cheapest_changes"]

RULE = (
    "One change of each training choice, the cheapest first: least predicted accuracy lost for the "
    "log of cycles saved; of those that lose none, the largest saving. Only changes within the "
    "calibrated domain count that are predicted to save at least 2 % of cycles, and to lose at "
    "most a point of accuracy for each percent. Intervals hold the difference of two trainings, "
    "each with its own seed: one that reaches above zero may as well save nothing."
)
"""How changes are chosen, for people."""

_NONE = (
    "No single change of a training choice within the calibrated domain is predicted to save at "
    "least 2 % of cycles, and to lose at most a point of accuracy for each percent."
)
_NOTHING_TO_TURN = "The space varies no training choice, so there is none to change."

_OUTSIDE = (
    "This configuration lies outside the calibrated domain ({keys}), and so does every single "
    "change of a training choice, so none is proposed."
)
_LEAST_SAVED = 0.02
_MOST_LOST = 1.0
"""Accuracy for a share of cycles."""
_VALUES = 9
"""Most values of a knob that are tried."""

_TURNED = (
    Knob(name="neuron", keys=("neuron.model", "neuron.match")),
    Knob(name="neuron.beta", keys=("neuron.beta",)),
    Knob(name="neuron.threshold", keys=("neuron.threshold",)),
    Knob(name="neuron.reset", keys=("neuron.reset",)),
    Knob(name="surrogate", keys=("surrogate.name", "surrogate.slope", "surrogate.width")),
    Knob(name="training.epochs", keys=("training.epochs",)),
    Knob(name="training.lr", keys=("training.lr",)),
    Knob(name="training.batch_size", keys=("training.batch_size",)),
    Knob(name="training.weight_bits", keys=("training.weight_bits",)),
    Knob(name="training.batch_norm", keys=("training.batch_norm",)),
    Knob(name="training.dropout", keys=("training.dropout",)),
    Knob(name="training.loss", keys=("training.loss",)),
    Knob(name="input.time_steps", keys=("input.time_steps",)),
)
"""Training choices. Data set and network are given, and `allocate_cores` is for the hardware."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Change:
    """One knob turned.

    Attributes
    ----------
    knob : str
        For instance ``neuron.beta``.
    before, after : str
        Its values for people: ``"0.95"``, ``"0.8"``.
    config : Config
        With the change.
    estimate : LatencyEstimate
        Of it.
    cycles : float
        Change as a share: -0.18 is 18 % fewer.
    interval_cycles : (float, float)
        Of that share; holds the change between two trainings with the confidence asked for.
    accuracy : float
        Change of test accuracy, as a share of all samples: -0.003 is 0.3 points.
    interval_accuracy : (float, float)
    """

    knob: str
    before: str
    after: str
    config: Config
    estimate: LatencyEstimate
    cycles: float
    interval_cycles: tuple[float, float]
    accuracy: float
    interval_accuracy: tuple[float, float]

    @property
    def certain(self) -> bool:
        """Whether all of the interval saves cycles."""
        return self.interval_cycles[1] < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "knob": self.knob,
            "before": self.before,
            "after": self.after,
            "cycles": self.cycles,
            "interval_cycles": list(self.interval_cycles),
            "certain": self.certain,
            "accuracy": self.accuracy,
            "interval_accuracy": list(self.interval_accuracy),
            "config": self.config.model_dump(mode="json"),
            "estimate": self.estimate.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    knob: Knob
    config: Config


def cheapest_changes(
    predictor: LatencyPredictor,
    config: Config,
    runs: CalibratedRuns,
    *,
    confidence: float,
    space: pd.DataFrame | None = None,
    most: int = 5,
) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Find the changes of one training choice each that save cycles at the least cost.

    Parameters
    ----------
    predictor : LatencyPredictor
    config : Config
        What to change.
    runs : CalibratedRuns
        Of the predictor, predicted with the same confidence.
    confidence : float
        Of the intervals.
    space : DataFrame, optional
        Configurations by flat key: only what varies among them is changed, to values that it has
        there. Default: to values that were calibrated.
    most : int, optional
        So many changes at most.

    Returns
    -------
    changes : tuple of Change
        The cheapest first.
    notes : tuple of str
        The rule, or why there is none, and then how far to trust the intervals.

    Notes
    -----
    Data set, network and hardware stay as they are, and with them what `spikemeter allocate` is
    for. Time steps change only to those whose events were measured. See `RULE`, and
    `difference_errors` for the intervals.
    """
    source = runs.frame if space is None else space
    varied = _varied(source)
    if space is not None and not varied:
        return (), (_NOTHING_TO_TURN,)
    candidates = list(_candidates(predictor, config, source, varied, rounded=space is None))
    predicted = predictor.predict(
        frame_of([config, *(each.config for each in candidates)]), confidence=confidence
    )
    errors = difference_errors(predictor, runs, confidence)
    halves, of_accuracy = half_widths(predicted), accuracy_half_widths(predicted)
    logs = np.log(predicted["cycles"].to_numpy())
    saved = logs[0] - logs[1:]
    accuracy = predicted["accuracy"].to_numpy()
    gained = accuracy[1:] - accuracy[0]
    half = errors.of_cycles(halves[1:], halves[:1])
    half_accuracy = errors.of_accuracy(of_accuracy[1:], of_accuracy[:1])
    inside = predicted["in_domain"].to_numpy()[1:]
    shares = -np.expm1(-saved)
    worth = inside & (shares >= _LEAST_SAVED) & (-gained <= _MOST_LOST * shares)
    changes = [
        _change(
            predictor, config, candidates[number], confidence,
            cycles=(-saved[number], half[number]),
            accuracy=(float(accuracy[0]), gained[number], half_accuracy[number]),
        )
        for number in _cheapest(candidates, saved, gained, worth)[:most]
    ]  # fmt: skip
    note = RULE if changes else _NONE if inside.any() else _outside(predictor, config)
    notes = (note, *([errors.warning] if errors.warning else []))
    return tuple(changes), notes


def _outside(predictor: LatencyPredictor, config: Config) -> str:
    """Say by which keys a configuration lies outside, whatever else changes."""
    parts = predictor.parts
    entering = input_events(config, parts.statistics, parts.tap_ratios.input)
    features = layer_features(config, entering.events, parts.domain.categories)
    keys = sorted({knob_of(name) for name in parts.domain.excursions(config, features)})
    return _OUTSIDE.format(keys=", ".join(keys) or "input")


def _varied(frame: pd.DataFrame) -> tuple[Knob, ...]:
    """Training choices that vary among configurations."""
    cells = cells_of(frame[[key for knob in _TURNED for key in knob.keys]])
    return tuple(
        knob for knob in _TURNED if any(len(set(map(repr, cells[key]))) > 1 for key in knob.keys)
    )


def _candidates(
    predictor: LatencyPredictor,
    config: Config,
    source: pd.DataFrame,
    knobs: Sequence[Knob],
    *,
    rounded: bool,
) -> Iterator[_Candidate]:
    """Turn each knob by itself, to all of its values that suit the configuration."""
    content = config.model_dump()
    (own,) = frame_of([config]).to_dict("records")
    for knob in knobs:
        if knob.name == "input.time_steps" and config.dataset is None:
            continue  # statistics are given for each step
        for values in _values(source, knob, rounded=rounded):
            if all(values[key] == own[key] for key in knob.keys):
                continue
            try:
                changed = configured(content, values)
            except ConfigError:
                continue
            if knob.name != "input.time_steps" or _is_measured(predictor, changed):
                yield _Candidate(knob=knob, config=changed)


def _values(frame: pd.DataFrame, knob: Knob, *, rounded: bool) -> list[Mapping[str, Any]]:
    """Values of a knob that occur, each once; of many, some that are spread over all."""
    cells = cells_of(frame[list(knob.keys)])
    rows = {tuple(map(repr, row)): row for row in zip(*cells.values(), strict=True)}
    names: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for row in rows.values():
        names.setdefault(tuple(cell for cell in row if isinstance(cell, str)), []).append(row)
    return [
        {key: _rounded(cell) if rounded else cell for key, cell in zip(knob.keys, row, strict=True)}
        for alike in names.values()
        for row in _some(sorted(alike, key=lambda row: [(cell is None, cell) for cell in row]))
    ]


def _some(values: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    if len(values) <= _VALUES:
        return values
    places = np.linspace(0.05, 0.95, _VALUES) * (len(values) - 1)
    return [values[place] for place in places.round().astype(int)]


def _rounded(cell: Any) -> Any:
    """Three digits of a number: more would say that they matter."""
    return float(f"{cell:.3g}") if isinstance(cell, float) else cell


def _is_measured(predictor: LatencyPredictor, config: Config) -> bool:
    """Whether the events that enter were measured with so many steps."""
    parts = predictor.parts
    return not input_events(config, parts.statistics, parts.tap_ratios.input).estimated


def _cheapest(
    candidates: Sequence[_Candidate],
    saved: _Floats,
    gained: _Floats,
    worth: NDArray[np.bool_],
) -> list[int]:
    """Candidates that are worth it, one of each knob, the cheapest first."""
    cost = np.maximum(-gained, 0.0) / np.maximum(saved, 1e-12)
    order = np.lexsort((-saved, cost))
    best: dict[str, int] = {}
    for number in order[worth[order]].tolist():
        best.setdefault(candidates[number].knob.name, number)
    return list(best.values())


def _change(
    predictor: LatencyPredictor,
    config: Config,
    candidate: _Candidate,
    confidence: float,
    *,
    cycles: tuple[float, float],
    accuracy: tuple[float, float, float],
) -> Change:
    """Say a change in shares, from its middle and half width in logs and in accuracy.

    Before the latter stands the accuracy before the change.
    """
    middle, half = cycles
    low, share, high = np.expm1([middle - half, middle, middle + half]).tolist()
    before_accuracy, gained, around = accuracy
    shown = display_values(frame_of([config, candidate.config]), [candidate.knob])
    before, after = (_said(value) for value in shown[candidate.knob.name])
    return Change(
        knob=candidate.knob.name,
        before=before,
        after=after,
        config=candidate.config,
        estimate=predictor.estimate(
            candidate.config, confidence=confidence, fidelity="hyperparameters"
        ),
        cycles=share,
        interval_cycles=(low, high),
        accuracy=float(gained),
        interval_accuracy=(
            max(float(gained - around), -before_accuracy),
            min(float(gained + around), 1 - before_accuracy),
        ),
    )


def _said(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
