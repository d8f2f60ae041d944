"""Many latencies from hyperparameters at once: what one takes in turn, column by column.

Rows that differ in their hardware or seed alone share what is learned, and layers that get the same
spikes on as many cores share what they cost. The numbers are those of one prediction at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import HardwareConfig
from ..errors import ConfigError
from .columns import Asked, read_columns
from .events import input_events
from .features import FLAT_KEYS, KNOB_PREFIX
from .folder import PredictorParts, estimation_doubt
from .hardware import Hardware, read_places, time_hardware
from .intervals import OUTSIDE_FACTOR, WIDEST
from .points import Question, add_sentences, learn, stack_networks
from .sparsity import accuracy_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cycles_of_many", "predict_many"]

# Columns of a calibration table that are results, so that a table can be predicted as it is.
_RESULTS = frozenset(
    (
        "initiation_interval_cycles",
        "input.events",
        "input.train_events",
        "reason",
        "run_id",
        "samples",
        "spikes_match",
        "stale",
        "status",
    )
)
_RESULT_GROUPS = (
    "accuracy.", "cycles.", "epochs.", "layers.", "package.", "samples.", "seconds.", "test.",
    "timing.", "version.",
)  # fmt: skip
_COLUMNS = {
    "cycles": np.float64,
    "microseconds": np.float64,
    "interval_cycles.low": np.float64,
    "interval_cycles.high": np.float64,
    "initiation_interval_cycles": np.float64,
    "accuracy": np.float64,
    "interval_accuracy.low": np.float64,
    "interval_accuracy.high": np.float64,
    "in_domain": np.bool_,
    "warnings": np.object_,
}
_AT_A_TIME = 2**14
"""Latencies that are predicted together, to bound memory."""

_ANY_CONFIDENCE = 0.5
"""Where only cycles are asked for, not how far they may be off."""

_Answer = dict[str, NDArray[Any]]
_Found = TypeVar("_Found")


def predict_many(
    rows: pd.DataFrame,
    parts: PredictorParts,
    confidence: float,
    hardware: Sequence[HardwareConfig | Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Predict the latency of every row; see `LatencyPredictor.predict`."""
    import pandas as pd

    asked, index = _asked(rows, hardware)
    asked.validate()
    results: dict[str, NDArray[Any]] = {
        name: np.empty(len(asked), dtype=kind) for name, kind in _COLUMNS.items()
    }
    questions = _questions(asked, parts)
    answer = partial(_answer, parts=parts, places=read_places(asked), confidence=confidence)
    for question, found in zip(questions, _on_all_processors(answer, questions), strict=True):
        for name, values in found.items():
            results[name][question.chosen] = values
    texts = results.pop("warnings")
    table = pd.DataFrame(results, index=index)
    table["warnings"] = pd.Series(texts, index=index, dtype=object)  # not copied into Arrow's text
    return table


def cycles_of_many(
    asked: Asked, parts: PredictorParts
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict cycles alone, and what each layer spends of them.

    Parameters
    ----------
    asked : Asked
    parts : PredictorParts

    Returns
    -------
    cycles : ndarray of float, shape (asked,)
        As `predict_many` gives them.
    layer_cycles : ndarray of float, shape (asked, most layers)
        That each layer takes but for waiting for the one before; NaN behind the last one. With
        ``step_pipelined`` layers overlap, and their cycles add up to more than all.

    Raises
    ------
    InputError
        If one is refused; names the first one.
    """
    asked.validate()
    questions, places = _questions(asked, parts), read_places(asked)
    most = max((question.networks.pixels.shape[1] for question in questions), default=0)
    cycles, of_layers = np.empty(len(asked)), np.full((len(asked), most), np.nan)

    def answer(question: Question) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        first, point = _points(question)
        learned = learn(question, first, parts)
        timed = time_hardware(question, learned, point, places, _ANY_CONFIDENCE)
        return timed.cycles, timed.layer_cycles

    for question, found in zip(questions, _on_all_processors(answer, questions), strict=True):
        cycles[question.chosen] = found[0]
        of_layers[question.chosen, : found[1].shape[1]] = found[1]
    return cycles, of_layers


def _asked(
    rows: pd.DataFrame, hardware: Sequence[HardwareConfig | Mapping[str, Any]] | None
) -> tuple[Asked, pd.Index[Any]]:
    """Read what is asked, and give the index of the answers."""
    import pandas as pd

    _check_columns(rows)
    columns, numbers = read_columns(rows), np.arange(len(rows))
    if hardware is None:
        own = Asked(rows=columns, hardware=columns, row=numbers, machine=numbers, names=rows.index)
        return own, rows.index
    sections = pd.DataFrame([_flat(section) for section in hardware])
    _check_columns(sections)
    asked = Asked(
        rows=columns,
        hardware=read_columns(sections),
        row=np.repeat(numbers, len(sections)),
        machine=np.tile(np.arange(len(sections)), len(rows)),
        names=rows.index,
    )
    names = [rows.index.name, "hardware"]
    return asked, pd.MultiIndex.from_product([rows.index, range(len(sections))], names=names)


def _questions(asked: Asked, parts: PredictorParts) -> list[Question]:
    """Put those together that have as many layers and steps, and then those of one point."""
    first = asked.networks.tolist()
    configs = [asked.config(index) for index in first]
    entering = []
    for index, config in zip(first, configs, strict=True):
        with asked.naming(index):
            entering.append(input_events(config, parts.statistics, parts.tap_ratios.input))
    shapes = [(len(config.layers), config.input.time_steps) for config in configs]
    questions = []
    for shape in dict.fromkeys(shapes):
        alike = [number for number, other in enumerate(shapes) if other == shape]
        networks = stack_networks([configs[i] for i in alike], [entering[i] for i in alike])
        position = np.full(len(configs), -1)
        position[alike] = np.arange(len(alike))
        network = position[asked.network][asked.row]
        chosen = np.flatnonzero(network >= 0)
        chosen = chosen[np.argsort(asked.point[asked.row[chosen]], kind="stable")]
        for start in range(0, len(chosen), _AT_A_TIME):
            some = chosen[start : start + _AT_A_TIME]
            questions.append(
                Question(asked=asked, networks=networks, chosen=some, network=network[some])
            )
    return questions


def _on_all_processors(
    answer: Callable[[Question], _Found], questions: Sequence[Question]
) -> Iterator[_Found]:
    """Answer questions in turn; one needs no thread."""
    workers = min(_processors(), len(questions))
    if workers <= 1:
        yield from map(answer, questions)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(answer, questions)


def _answer(
    question: Question, parts: PredictorParts, places: Hardware, confidence: float
) -> _Answer:
    first, point = _points(question)
    shift, doubtful = estimation_doubt(parts, confidence)
    learned = learn(question, first, parts)
    timed = time_hardware(question, learned, point, places, confidence)
    units, warning = parts.residuals["hyperparameters"].half_width(confidence)
    logits, _ = parts.residuals["accuracy"].half_width(confidence)
    estimated = question.networks.estimated[question.network]
    inside = (learned.texts == "")[point] & ~(estimated & (shift is None))
    outside = np.where(inside, 1.0, OUTSIDE_FACTOR)
    learned_half_width = units * learned.spread[point] + np.where(estimated, shift or 0.0, 0.0)
    half_width = learned_half_width * learned.widening[point] + timed.half_width
    factor = np.exp(np.minimum(half_width, WIDEST))
    accuracy, low, high = accuracy_interval(learned.accuracy[point], logits * outside)
    warnings = _with_notes(question, learned.texts, first, doubtful, warning)[point]
    for members, sentences in timed.warnings:
        for sentence in sentences:
            add_sentences(warnings, members, sentence)
    return {
        "cycles": timed.cycles,
        "microseconds": timed.microseconds,
        "interval_cycles.low": timed.cycles / factor,
        "interval_cycles.high": timed.cycles * factor,
        "initiation_interval_cycles": timed.initiation_interval_cycles,
        "accuracy": accuracy,
        "interval_accuracy.low": low,
        "interval_accuracy.high": high,
        "in_domain": inside & timed.in_domain,
        "warnings": warnings,
    }


def _points(question: Question) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each point is asked about first, and which one each is of, shape (chosen,)."""
    asked = question.asked
    _, first, point = np.unique(
        asked.point[asked.row[question.chosen]], return_index=True, return_inverse=True
    )
    return first, point


def _with_notes(
    question: Question,
    texts: NDArray[np.object_],
    first: NDArray[np.int64],
    doubtful: str | None,
    warning: str | None,
) -> NDArray[np.object_]:
    """Add to the text of each point what is to be said of its input, and of all of them."""
    notes = texts.copy()
    said = [question.networks.entering[number].warning for number in question.network[first]]
    warned = np.array([index for index, text in enumerate(said) if text], dtype=np.int64)
    add_sentences(notes, warned, [text for text in said if text])
    if doubtful:
        add_sentences(notes, warned, doubtful)
    if warning:
        add_sentences(notes, np.arange(len(notes)), warning)
    return notes


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _flat(section: HardwareConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Flat keys and values of a section of hardware."""
    if isinstance(section, HardwareConfig):
        section = section.model_dump()
    if not isinstance(section, Mapping):
        raise ConfigError(f"hardware: should hold keys and values, got {type(section).__name__}")
    flat = {f"hardware.{key}": value for key, value in section.items()}
    knobs = flat.get("hardware.knobs")
    if isinstance(knobs, Mapping):
        del flat["hardware.knobs"]
        flat |= {f"{KNOB_PREFIX}{name}": value for name, value in knobs.items()}
    return flat


def _check_columns(rows: pd.DataFrame) -> None:
    for column in map(str, rows.columns):
        known = column in (*FLAT_KEYS, "input.statistics") or column.startswith(KNOB_PREFIX)
        if not (known or column in _RESULTS or column.startswith(_RESULT_GROUPS)):
            keys = ", ".join(FLAT_KEYS)
            raise ConfigError(f"unknown key {column!r} as a column; keys are: {keys}")
    twice = rows.columns[rows.columns.duplicated()]
    if len(twice):
        raise ConfigError(f"{twice[0]}: must be one column, got two")
