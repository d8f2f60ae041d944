"""What a configuration is compared with: the background of every attribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ConfigError, InputError
from ..space import Space, configured, read_space
from .differences import CalibratedRuns
from .events import input_events
from .features import knob_of, layer_features
from .knobs import NOT_READ, frame_of

if TYPE_CHECKING:
    import pandas as pd

    from .predict import LatencyPredictor

__all__ = ["Comparison", "compared", "spread_over"]

_MOST_POINTS = 256
"""Points of a space that are drawn."""

_HELD = ("training.population", "training.seed", "training.patience", "training.precision")
"""Keys of training that stay with the network, or that no prediction reads."""

_NO_KNOB = "must hold configurations that differ in what predictions read, got none"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """A configuration and its background.

    Attributes
    ----------
    config : Config
    chosen : str or None
        A sentence that says why this one, if none was given.
    scope : str
        A sentence: what it is compared with.
    background : list of Config
        Each once.
    frame : DataFrame
        The background by flat key, and the configuration in the last row.
    predicted : DataFrame
        What the predictor says of the background.
    space : DataFrame or None
        The background again, if it is of a space.
    warnings : tuple of str
    """

    config: Config
    chosen: str | None
    scope: str
    background: list[Config]
    frame: pd.DataFrame
    predicted: pd.DataFrame
    space: pd.DataFrame | None
    warnings: tuple[str, ...]


def compared(
    config: Config | None,
    space: Space | Mapping[str, Any] | str | Path | None,
    predictor: LatencyPredictor,
    runs: CalibratedRuns,
    *,
    confidence: float,
    seed: int,
) -> Comparison:
    """Find the configuration to explain, and what to compare it with; see `explain_latency`.

    Raises
    ------
    ConfigError
        If the space is refused, or every point of it.
    InputError
        If nothing varies among what is compared.
    """
    drawn: list[Config] | None = None
    warnings: list[str] = []
    if space is not None:
        whole = read_space(space)
        drawn, warnings = _drawn(whole, seed)
        background = _each_once(drawn)
        points = f", drawn from its {whole.points:,} points" if whole.points > _MOST_POINTS else ""
        scope = f"{len(background)} configurations of the space{points}."
    elif config is not None:
        background = _each_once(_trained_as(config, runs.configs))
        scope = (
            f"{len(background)} ways to train, those of the calibrated runs, each with the data "
            "set, input (with its time steps), network and hardware of this configuration: "
            "training choices alone vary."
        )
    else:
        background = _each_once(runs.configs)
        scope = (
            f"{len(background)} calibrated configurations as they are: data sets, networks and "
            "hardware vary, too."
        )
    predicted = predictor.predict(frame_of(background), confidence=confidence)
    chosen = None
    if config is None:
        config = background[_median(predicted["cycles"].to_numpy())]
        of = "point of the space" if space is not None else "calibrated configuration"
        chosen = (
            f"No configuration was given, so this is the {of} whose predicted cycles are the "
            "median."
        )
    frame = frame_of([*background, config])
    if drawn is not None:
        warnings += _outside(predictor, background, predicted["in_domain"].to_numpy())
    return Comparison(
        config=config,
        chosen=chosen,
        scope=scope,
        background=background,
        frame=frame,
        predicted=predicted,
        space=None if drawn is None else frame.iloc[:-1],
        warnings=tuple(warnings),
    )


def spread_over(
    values: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose some of many such that they are spread evenly over the order of their values.

    Their mean is then close to that of all, much closer than that of a random choice.

    Parameters
    ----------
    values : ndarray of float, shape (many,)
    count : int
        So many, or all.
    rng : Generator
        Decides where the first of them is.

    Returns
    -------
    ndarray of int
        Places, each once.
    """
    order = np.argsort(values, kind="stable")
    if count >= len(values):
        return np.sort(order)
    places = (np.arange(count) + rng.random()) * (len(values) / count)
    return order[places.astype(np.int64)]


def _drawn(space: Space, seed: int) -> tuple[list[Config], list[str]]:
    """Draw points, and say how many of them are no valid configurations."""
    count = min(space.points or _MOST_POINTS, _MOST_POINTS)
    numbers = list(range(count))
    if space.sampler == "grid" and space.points > count:
        numbers = sorted(Random(seed).sample(range(space.points), count))  # noqa: S311
    configs: list[Config] = []
    refused: list[str] = []
    for number in numbers:
        try:
            configs.append(space.config(number))
        except ConfigError as error:
            refused.append(str(error))
    if not configs:
        raise ConfigError(f"space: no point is a valid configuration; the first: {refused[0]}")
    if not refused:
        return configs, []
    share = f"{len(refused)} of {len(numbers)} points are no valid configurations"
    return configs, [f"space: {share} and are left out; the first: {refused[0]}"]


def _trained_as(config: Config, others: Sequence[Config]) -> list[Config]:
    """Give a configuration the training choices of others."""
    content = config.model_dump()
    held = {key: content["training"][key.partition(".")[2]] for key in _HELD}
    return [
        configured(
            content,
            {
                "neuron": other.neuron.model_dump(),
                "surrogate": other.surrogate.model_dump(),
                "training": other.training.model_dump(),
                **held,
            },
        )
        for other in others
    ]


def _each_once(configs: Sequence[Config]) -> list[Config]:
    """Leave out repetitions that differ in nothing that a prediction reads.

    Raises
    ------
    InputError
        If one is left.
    """
    rows = frame_of(configs).drop(columns=list(NOT_READ)).to_dict("records")
    different = {
        repr(row): config for row, config in zip(reversed(rows), configs[::-1], strict=True)
    }
    if len(different) < 2:
        raise InputError(f"the background {_NO_KNOB}; give a space that varies some key")
    return list(different.values())[::-1]


def _median(values: NDArray[np.float64]) -> int:
    return int(np.argsort(values, kind="stable")[(len(values) - 1) // 2])


def _outside(
    predictor: LatencyPredictor, configs: Sequence[Config], inside: NDArray[np.bool_]
) -> list[str]:
    """Say how many configurations leave the calibrated domain, and by which knobs."""
    if inside.all():
        return []
    parts, by_knob = predictor.parts, Counter[str]()
    for config in (each for each, good in zip(configs, inside, strict=True) if not good):
        entering = input_events(config, parts.statistics, parts.tap_ratios.input)
        features = layer_features(config, entering.events, parts.domain.categories)
        by_knob.update({knob_of(name) for name in parts.domain.excursions(config, features)})
    named = ", ".join(f"{knob} ({count})" for knob, count in by_knob.most_common())
    share = f"{int((~inside).sum())} of {len(inside)} configurations"
    return [
        f"space: {share} lie outside the calibrated domain, by {named or 'their hardware'}; "
        "predictions of those are less certain"
    ]
