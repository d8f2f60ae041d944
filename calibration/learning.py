"""What the sparsity model learns from observed runs: features, targets, weights and folds.

Every score and every interval rests on runs that the model had not seen, with all seeds of a
point on one side of every split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import PredictorError
from ..predictor.ensemble import Ensemble, TreeSettings, fit_head
from ..predictor.events import (
    InputStatistics,
    KnownInput,
    TapRatios,
    coding_of,
    expected_counts,
    expected_taps,
    input_events,
)
from ..predictor.features import layer_features
from ..predictor.predict import ExpectedSpikes, expected_spikes, mean_cycles
from ..predictor.profile import Profile, fit_profile
from ..predictor.sparsity import Predicted, SparsityModel, logit
from ..predictor.timing import even_taps
from .observed import Observed

__all__ = [
    "USUAL_RATES",
    "Lessons",
    "estimated_inputs",
    "folds",
    "frames_of",
    "grow_head",
    "known_statistics",
    "lessons",
    "log_cycles_at_rate",
    "measured_log_cycles",
    "predicted_log_cycles",
    "tap_ratios_of",
    "teach",
    "usual_rate",
    "with_inputs",
]

_LEARNED = ("firing", "output", "taps", "early", "late", "accuracy")
_STEP = 0.25
"""Change of log odds by which the weight of a layer is found."""

_LEAST_WEIGHT = 0.02
USUAL_RATES = (0.02, 0.04, 0.07, 0.1, 0.13, 0.17, 0.22, 0.28, 0.35)
"""Rates of all layers between the first and the last, from which a baseline takes the best."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lessons:
    """Observed runs as the model sees them: one row per weighted layer.

    Attributes
    ----------
    configs : list of Config
    entering : list of KnownInput
        What enters each network.
    features : ndarray of float32, shape (rows, features)
    ends : ndarray of int, shape (runs,)
        Row behind the last one of each run.
    targets : dict of str to ndarray of float, shape (rows,)
        For each head but ``spread``, on its scale; NaN where there is nothing to learn.
    weights : dict of str to ndarray of float, shape (rows,)
        How much each row counts, where that is not the same for all.
    profile : Profile
    """

    configs: list[Config]
    entering: list[KnownInput]
    features: NDArray[np.float32]
    ends: NDArray[np.int64]
    targets: dict[str, _Floats]
    weights: dict[str, _Floats]
    profile: Profile

    def rows_of(self, runs: Iterable[int]) -> NDArray[np.int64]:
        """Rows of some runs, in their order."""
        starts = np.concatenate([[0], self.ends[:-1]])
        parts = [np.arange(starts[run], self.ends[run]) for run in runs]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def known_statistics(observed: Observed) -> dict[str, tuple[InputStatistics, ...]]:
    """Mean events of every data set, camera, coding and frame size that a table holds."""
    found: dict[tuple[str, str, tuple[int, int, int]], list[int]] = {}
    for run, config in enumerate(observed.configs):
        if config.dataset is not None:
            size = (config.input.height, config.input.width, config.input.time_steps)
            coding = repr(sorted(coding_of(config).items()))
            found.setdefault((config.dataset, coding, size), []).append(run)
    ratios = _input_tap_ratios(observed)
    known: dict[str, list[InputStatistics]] = {}
    for (name, _, (height, width, steps)), runs in sorted(found.items()):
        usual = [ratio for run in runs if (ratio := ratios[run]) is not None]
        known.setdefault(name, []).append(
            InputStatistics(
                height=height,
                width=width,
                time_steps=steps,
                events=np.mean([observed.train_events[run] for run in runs], axis=0),
                coding=coding_of(observed.configs[runs[0]]),
                tap_ratio=float(np.mean(usual)) if usual else 1.0,
            )
        )
    return {name: tuple(entries) for name, entries in known.items()}


def _input_tap_ratios(observed: Observed) -> list[float | None]:
    """Of each run, where its first layer has a kernel and gets events."""
    return [
        float(taps[0]) / even_taps(config.layers[0])
        if config.layers[0].kernel > 1 and taps[0] > 0
        else None
        for config, taps in zip(observed.configs, observed.taps, strict=True)
    ]


def lessons(
    observed: Observed,
    known: Mapping[str, Sequence[InputStatistics]],
    categories: Mapping[str, tuple[str, ...]],
    usual_tap_ratio: float = 1.0,
) -> Lessons:
    """Turn observed runs into rows to learn from.

    Parameters
    ----------
    observed : Observed
    known : mapping
        Statistics of data sets, as a predictor keeps them.
    categories : mapping
        Names of every categorical key that get a feature.
    usual_tap_ratio : float, optional
        As for `input_events`.

    Returns
    -------
    Lessons
    """
    entering = [input_events(config, known, usual_tap_ratio) for config in observed.configs]
    ends = np.cumsum([len(config.layers) for config in observed.configs])
    courses = [
        course
        for steps in observed.step_counts
        for course in (*steps[1:], np.zeros(len(steps[0])))  # what leaves the last is of no use
    ]
    profile, coefficients = fit_profile(courses)
    coefficients[[not course.any() for course in courses]] = np.nan
    last = np.zeros(ends[-1], dtype=bool)
    last[ends - 1] = True
    accuracy = np.full(ends[-1], np.nan)
    accuracy[ends - 1] = logit(observed.accuracy)
    return Lessons(
        configs=observed.configs,
        entering=entering,
        features=_features(observed.configs, entering, categories),
        ends=ends,
        targets={
            "firing": logit(np.concatenate(observed.firing_rates)),
            "output": logit(np.concatenate(observed.output_rates)),
            "taps": np.concatenate(
                [
                    _tap_targets(config, taps)
                    for config, taps in zip(observed.configs, observed.taps, strict=True)
                ]
            ),
            "early": coefficients[:, 0],
            "late": coefficients[:, 1],
            "accuracy": accuracy,
        },
        weights={"output": _weights(observed)},
        profile=profile,
    )


def _features(
    configs: Sequence[Config],
    entering: Sequence[KnownInput],
    categories: Mapping[str, tuple[str, ...]],
) -> NDArray[np.float32]:
    return np.concatenate(
        [
            layer_features(config, given.events, categories)
            for config, given in zip(configs, entering, strict=True)
        ]
    )


def with_inputs(
    given: Lessons, entering: Mapping[int, KnownInput], categories: Mapping[str, tuple[str, ...]]
) -> Lessons:
    """Give the same runs as they look if something else is known of what enters some of them."""
    changed = [entering.get(run, known) for run, known in enumerate(given.entering)]
    features = _features(given.configs, changed, categories)
    return replace(given, entering=changed, features=features)


def estimated_inputs(
    observed: Observed, known: Mapping[str, Sequence[InputStatistics]]
) -> dict[int, KnownInput]:
    """Say what would be taken to enter each run if none of its frames had been measured.

    Frames are those of one height and width, at any number of steps: from other steps alone events
    are easy to estimate. Runs whose events no other frames allow to estimate are left out.
    """
    found = {}
    for run, config in enumerate(observed.configs):
        if config.dataset is None or config.input.statistics is not None:
            continue
        frame = (config.input.height, config.input.width)
        entries = known.get(config.dataset, ())
        others = [entry for entry in entries if (entry.height, entry.width) != frame]
        try:
            found[run] = input_events(config, {config.dataset: others})
        except PredictorError:  # no other size with this camera and coding
            continue
    return found


def frames_of(observed: Observed) -> NDArray[np.int64]:
    """Give runs with the same data set, camera, coding, height and width the same number."""
    frames = [
        (config.dataset, sorted(coding_of(config).items()), config.input.height, config.input.width)
        for config in observed.configs
    ]
    return np.unique([repr(frame) for frame in frames], return_inverse=True)[1].astype(np.int64)


def tap_ratios_of(observed: Observed) -> TapRatios:
    """Mean over the convolutions whose spikes have a choice of taps; 1 if there are none."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for config, taps in zip(observed.configs, observed.taps, strict=True):
        for index, (layer, per_spike) in enumerate(zip(config.layers, taps, strict=True)):
            if layer.kernel > 1 and per_spike > 0:
                found[index == 0].append(float(per_spike) / even_taps(layer))
    entering, between = (float(np.mean(found[key])) if found[key] else 1.0 for key in (True, False))
    return TapRatios(input=entering, hidden=between)


def _tap_targets(config: Config, taps: _Floats) -> _Floats:
    """Log of the taps per spike between layers, relative to spikes spread evenly."""
    found = np.full(len(taps), np.nan)
    for index, (layer, per_spike) in enumerate(zip(config.layers, taps, strict=True)):
        if index and layer.kernel > 1 and per_spike > 0:
            found[index] = np.log(per_spike / even_taps(layer))
    return found


def _weights(observed: Observed) -> _Floats:
    """How much log cycles depend on the log odds of each output rate, shape (rows,).

    The square of the derivative at the measured rates, over the mean; the last layer, whose
    spikes nothing waits for, and silent ones keep a little.
    """
    depth = max(len(config.layers) for config in observed.configs)
    before = measured_log_cycles(observed)
    slopes = [np.zeros(len(config.layers)) for config in observed.configs]
    for layer in range(depth - 1):
        runs = [
            run for run, config in enumerate(observed.configs) if len(config.layers) > layer + 1
        ]
        moved = [_moved(observed.output_rates[run], layer) for run in runs]
        after = measured_log_cycles(observed.chosen(runs), moved)
        for run, value in zip(runs, after, strict=True):
            slopes[run][layer] = (value - before[run]) / _STEP
    squares = np.concatenate(slopes) ** 2
    hidden = squares[squares > 0]
    weights: _Floats = squares / (hidden.mean() if len(hidden) else 1.0) + _LEAST_WEIGHT
    return weights


def _moved(rates: _Floats, layer: int) -> _Floats:
    moved = rates.copy()
    moved[layer] = 1 / (1 + np.exp(-logit(moved[layer : layer + 1])[0] - _STEP))
    return moved


def measured_log_cycles(
    observed: Observed,
    output_rates: Sequence[_Floats] | None = None,
    *,
    tap_ratios: TapRatios | None = None,
) -> _Floats:
    """Log cycles of the timing from rates and taps per layer, by default the measured ones.

    Known counts per step and channel say more than rates per layer, so an interval from what these
    leave open is rather too wide than too narrow.
    """
    rates = observed.output_rates if output_rates is None else output_rates
    spikes = []
    for config, events, leaving, taps in zip(
        observed.configs, observed.events, rates, observed.taps, strict=True
    ):
        counts = expected_counts(config, events, leaving[:-1].tolist())
        ratios = [
            float(per_spike) / even_taps(layer) if per_spike > 0 else 1.0
            for layer, per_spike in zip(config.layers, taps, strict=True)
        ]
        if tap_ratios is not None:
            ratios = tap_ratios.of(len(config.layers))
        spikes.append(ExpectedSpikes(counts=counts, taps=expected_taps(config, counts, ratios)))
    return np.log(mean_cycles(observed.configs, spikes)[0])


def usual_rate(log_cycles: _Floats, at_rates: _Floats) -> float:
    """Choose the one of `USUAL_RATES` with which exact timing comes closest.

    Parameters
    ----------
    log_cycles : ndarray of float, shape (runs,)
        Measured.
    at_rates : ndarray of float, shape (rates, runs)
        As `log_cycles_at_rate` gives them.
    """
    errors = np.mean((log_cycles - at_rates) ** 2, axis=1)
    return USUAL_RATES[int(errors.argmin())]


def log_cycles_at_rate(given: Lessons, runs: NDArray[np.int64], rate: float) -> _Floats:
    """Log cycles of some runs if every layer between the first and the last had one rate."""
    spikes = []
    for run in runs:
        config, entering = given.configs[run], given.entering[run]
        between = len(config.layers) - 1
        counts = expected_counts(config, entering.events, [rate] * between)
        taps = expected_taps(config, counts, [entering.tap_ratio] + [1.0] * between)
        spikes.append(ExpectedSpikes(counts=counts, taps=taps))
    return np.log(mean_cycles([given.configs[run] for run in runs], spikes)[0])


def teach(
    given: Lessons, runs: Sequence[int] | NDArray[np.int64], settings: Mapping[str, TreeSettings]
) -> SparsityModel:
    """Grow all heads but ``spread``, which stays at 1, from some runs.

    Parameters
    ----------
    given : Lessons
    runs : sequence of int
        Runs to learn from.
    settings : mapping of str to TreeSettings
        Of each head.
    """
    ensembles = {name: grow_head(given, runs, name, settings[name]) for name in _LEARNED}
    one = given.features[given.rows_of(runs)]
    ensembles["spread"] = fit_head(one, np.zeros(len(one)), TreeSettings(rounds=1))
    return SparsityModel(ensembles=ensembles)


def grow_head(
    given: Lessons, runs: Sequence[int] | NDArray[np.int64], name: str, settings: TreeSettings
) -> Ensemble:
    """Grow one head; see `teach`."""
    rows = given.rows_of(runs)
    target = given.targets[name][rows]
    taught = np.isfinite(target)
    if not taught.any():  # nothing to learn: even spikes, no accuracy
        taught[:], target = True, np.zeros(len(target))
    weight = given.weights[name][rows][taught] if name in given.weights else None
    return fit_head(given.features[rows][taught], target[taught], settings, weight)


def predicted_log_cycles(
    given: Lessons, runs: Sequence[int] | NDArray[np.int64], model: SparsityModel
) -> tuple[_Floats, list[Predicted]]:
    """Log cycles of some runs from their hyperparameters, and what the model says of each."""
    numbers = [int(run) for run in runs]
    everything = model.predict(given.features[given.rows_of(numbers)])
    predicted, spikes, start = [], [], 0
    for run in numbers:
        config = given.configs[run]
        predicted.append(everything.rows(start, start + len(config.layers)))
        start += len(config.layers)
        spikes.append(expected_spikes(config, given.entering[run], predicted[-1], given.profile))
    return np.log(mean_cycles([given.configs[run] for run in numbers], spikes)[0]), predicted


def folds(groups: NDArray[np.int64], count: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """Split runs into folds of whole groups; few groups are left out one by one."""
    points = np.random.default_rng(seed).permutation(np.unique(groups))
    chunks = np.array_split(points, min(count, len(points)))
    return [np.flatnonzero(np.isin(groups, chunk)) for chunk in chunks]
