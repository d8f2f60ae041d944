"""Which knobs drive sparsity and latency, by how much, and what to change.

One explanation has two halves. Cycles are attributed to knobs through the whole chain, and sparsity
to the features of the model that learned it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config, load_config
from ..errors import InputError
from ..space import Space
from .attribution import KnobAttribution, LayerAttribution, attribute_sparsity
from .chain import attribute_cycles
from .changes import Change, cheapest_changes
from .comparison import Comparison, compared, spread_over
from .differences import read_calibrated
from .estimate import LatencyEstimate
from .features import config_from_row, plain_cell
from .folder import PredictorParts
from .intervals import checked_confidence
from .knobs import associations, knobs_of
from .planes import Plane, search_planes
from .shapley import ShapleyValues
from .unknowns import unknowns

if TYPE_CHECKING:
    import pandas as pd

    from .predict import LatencyPredictor, Source

__all__ = ["LatencyExplanation", "explain_latency", "feeding_layers", "knob_importance"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, what is done of it, and how much there is."""

_POINTS, _BACKGROUND, _ROUNDS = 128, 64, 2
"""Explained configurations of the global view, those behind them, and permutations for each."""

_SPIKES_UNUSED = "The spikes of this configuration are known, but not used here."

_WALKS = 2048
"""Walks to one configuration at least, each there and back, for the local view."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyExplanation:
    """Which knobs drive sparsity and latency, by how much, and what to change.

    Attributes
    ----------
    config : Config
    chosen : str or None
        A sentence that says why this one, if none was given.
    estimate : LatencyEstimate
        From hyperparameters, also where spikes are known.
    scope : str
        A sentence: what the configuration is compared with, its background.
    cycles : KnobAttribution
        Of up to 128 configurations of the background, by up to 64 of it: the global view. Both are
        spread evenly over predicted cycles.
    local : KnobAttribution
        Of the configuration, one point, by the whole background. Same knobs as `cycles`.
    layer_cycles : ndarray of float, shape (layers, knobs), or None
        Shapley values of the cycles of each layer, in cycles, for the knobs of `local`; rows sum to
        the layer's cycles less `layer_base`. With ``step_pipelined`` layers overlap, and these are
        their cycles but for waiting for the layer before. None if networks of the background
        differ.
    layer_base : ndarray of float, shape (layers,), or None
        Mean cycles of each layer over the background.
    sparsity : LayerAttribution
        Of the background.
    local_sparsity : LayerAttribution
        Of the configuration.
    changes : tuple of Change
        At most five, the cheapest first.
    changes_note : str
        A sentence: by what rule they were chosen, or why there is none.
    planes : tuple of two tuples of Plane
        Of the two phases of the search.
    correlated : DataFrame
        Columns ``first``, ``second``, ``strength``: knobs that are associated in the background.
    runs : DataFrame
        Calibrated runs: ``dataset``, ``network``, ``predicted``, ``low``, ``high`` (out of fold),
        ``measured``, ``accuracy``, ``status``, and ``same``: whether data set and network are those
        of `config`.
    scores : mapping
        Of the predictor, from its fit.
    unknowns : tuple of str
        Sentences: what this does not know; warnings of the estimate come first.
    warnings : tuple of str
        For instance that the space leaves the calibrated domain, and by which knobs.
    """

    config: Config
    chosen: str | None
    estimate: LatencyEstimate
    scope: str
    cycles: KnobAttribution
    local: KnobAttribution
    layer_cycles: NDArray[np.float64] | None
    layer_base: NDArray[np.float64] | None
    sparsity: LayerAttribution
    local_sparsity: LayerAttribution
    changes: tuple[Change, ...]
    changes_note: str
    planes: tuple[tuple[Plane, ...], tuple[Plane, ...]]
    correlated: pd.DataFrame
    runs: pd.DataFrame
    scores: Mapping[str, Any]
    unknowns: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; attributions of sparsity over many configurations as means."""
        confidence = self.estimate.confidence
        first, second = self.planes
        return {
            "config": self.config.model_dump(mode="json"),
            "chosen": self.chosen,
            "estimate": self.estimate.to_dict(),
            "scope": self.scope,
            "cycles": self.cycles.to_dict()
            | {"importance": _records(self.cycles.importance(confidence))},
            "local": self.local.to_dict(),
            "layer_cycles": None if self.layer_cycles is None else self.layer_cycles.tolist(),
            "layer_base": None if self.layer_base is None else self.layer_base.tolist(),
            "sparsity": {
                "importance": _records(self.sparsity.importance(confidence)),
                "per_layer": _records(self.sparsity.per_layer().reset_index()),
                "top_pairs": _records(self.sparsity.top_pairs()),
            },
            "local_sparsity": self.local_sparsity.to_dict(),
            "changes": [change.to_dict() for change in self.changes],
            "changes_note": self.changes_note,
            "planes": [
                [plane.to_dict() for plane in first],
                [plane.to_dict() for plane in second],
            ],
            "correlated": _records(self.correlated),
            "runs": _records(self.runs),
            "scores": dict(self.scores),
            "unknowns": list(self.unknowns),
            "warnings": list(self.warnings),
        }


def explain_latency(
    source: Source | None = None,
    *,
    space: Space | Mapping[str, Any] | str | Path | None = None,
    predictor: LatencyPredictor | None = None,
    confidence: float = 0.9,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatencyExplanation:
    """Explain which knobs drive sparsity and latency, by how much, and what to change.

    Parameters
    ----------
    source : Config, mapping, str or Path, optional
        A configuration, as for `predict_latency`. Default: the one of the background whose
        predicted cycles are the median.
    space : Space, mapping, str or Path, optional
        What to compare it with. Default: the ways to train of the runs that the predictor was
        calibrated on, for data set, input, network and hardware of the configuration; without a
        configuration these runs as they are.
    predictor : LatencyPredictor, optional
        Default: the one that ships with the package.
    confidence : float, optional
        Of every interval; in (0, 1).
    seed : int, optional
        Of what is drawn: points of a large grid, configurations to explain, and permutations.
    progress : callable, optional
        Told about each step.

    Returns
    -------
    LatencyExplanation

    Raises
    ------
    ConfigError
        If the configuration or the space is refused.
    InputError
        If nothing varies in what is compared, or the seed is negative.
    PredictorError
        If the question cannot be answered: confidence, or data set.
    MissingToolError
        If shap is not installed.

    Examples
    --------
    >>> found = explain_latency({"dataset": "nmnist-saccade", "network": "16C3-MP2-10"})
    >>> bool(abs(found.local.base + found.local.values.sum() - found.local.predicted[0]) < 1e-9)
    True
    """
    from .predict import LatencyPredictor

    confidence = checked_confidence(confidence)
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed: must be a whole number, 0 or more; got {seed!r}")
    report = progress or (lambda step, done, total: None)
    predictor = predictor or LatencyPredictor.default()
    report("what is known", 0, 1)
    config = None if source is None else load_config(source)
    if config is not None:  # before what it is compared with, so that errors are about itself
        predictor.estimate(config, confidence=confidence, fidelity="hyperparameters")
    runs = read_calibrated(predictor, confidence)
    given = compared(config, space, predictor, runs, confidence=confidence, seed=int(seed))
    estimate = predictor.estimate(given.config, confidence=confidence, fidelity="hyperparameters")
    report("what is known", 1, 1)
    overall, local, layers = _cycles(predictor.parts, given, int(seed), report)
    report("sparsity", 0, 1)
    sparsity, local_sparsity = (
        attribute_sparsity(predictor.parts, configs, background=given.background)
        for configs in (given.background, [given.config])
    )
    report("sparsity", 1, 1)
    report("changes and maps", 0, 2)
    changes, notes = cheapest_changes(
        predictor, given.config, runs, confidence=confidence, space=given.space
    )
    report("changes and maps", 1, 2)
    planes = search_planes(predictor, given.config, runs.frame, space=given.space)
    report("changes and maps", 2, 2)
    correlated = associations(given.frame.iloc[:-1], overall.knobs)
    return LatencyExplanation(
        config=given.config,
        chosen=given.chosen,
        estimate=estimate,
        scope=given.scope,
        cycles=overall,
        local=local,
        layer_cycles=None if layers is None else layers.credit[0].T,
        layer_base=None if layers is None else layers.base,
        sparsity=sparsity,
        local_sparsity=local_sparsity,
        changes=changes,
        changes_note=notes[0],
        planes=planes,
        correlated=correlated,
        runs=runs.beside_measured(given.config),
        scores=predictor.parts.scores,
        unknowns=(
            *estimate.warnings,
            *unknowns(predictor.parts, given, correlated),
            *([_SPIKES_UNUSED] if _has_spikes(source, given.config) else []),
            *([runs.doubt] if runs.doubt else []),
            *notes[1:],
        ),
        warnings=given.warnings,
    )


def feeding_layers(
    predictor: LatencyPredictor, rows: pd.DataFrame | None = None
) -> LayerAttribution:
    """Attribute the rates of the layers whose spikes another layer must process.

    Parameters
    ----------
    predictor : LatencyPredictor
    rows : DataFrame, optional
        Configurations by flat key. Default: the runs that the predictor was calibrated on.

    Returns
    -------
    LayerAttribution
        Without interactions. Of a network of one layer, of that one.

    Raises
    ------
    MissingToolError
        If shap is not installed.
    InputError
        If there are no rows.
    """
    frame = predictor.table() if rows is None else rows
    configs = [config_from_row(row) for row in frame.to_dict("records")]
    found = attribute_sparsity(predictor.parts, configs, interactions=0)
    last = np.append(np.diff(found.point) > 0, True)
    return found.rows(~last | (last & (found.layer == 0)))


def knob_importance(predictor: LatencyPredictor, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rank the knobs by how far they move the rate of spikes between layers.

    Parameters
    ----------
    predictor, rows
        As in `feeding_layers`.

    Returns
    -------
    DataFrame
        Columns ``knob`` and ``mean_abs_shap`` (mean over layers and runs of the absolute SHAP
        value, in logits of the output rate), largest first. Features of one knob are added up
        before the absolute value; ``network`` is the knob of all sizes of layers.

    Raises
    ------
    MissingToolError
        If shap is not installed.
    InputError
        If there are no rows.
    """
    ranked = feeding_layers(predictor, rows).importance()
    return ranked[["knob", "mean_abs"]].rename(columns={"mean_abs": "mean_abs_shap"})


def _cycles(
    parts: PredictorParts, given: Comparison, seed: int, report: Progress
) -> tuple[KnobAttribution, KnobAttribution, ShapleyValues | None]:
    """Attribute cycles of some of the background, and of the configuration."""
    frame, size, rng = given.frame, len(given.background), np.random.default_rng(seed)
    knobs, logs = knobs_of(frame), np.log(given.predicted["cycles"].to_numpy())
    overall, _ = attribute_cycles(
        parts, frame, knobs,
        spread_over(logs, _POINTS, rng), spread_over(logs, _BACKGROUND, rng),
        rounds=_ROUNDS, rng=rng, progress=lambda done, total: report("cycles", done, total),
    )  # fmt: skip
    alike = len(set(frame["network"])) == 1
    local, layers = attribute_cycles(
        parts, frame, knobs, np.array([size]), np.arange(size),
        rounds=max(2, math.ceil(_WALKS / size)), rng=rng, by_layer=alike,
    )  # fmt: skip
    return overall, local, layers


def _has_spikes(source: Source | None, config: Config) -> bool:
    """Whether a better estimate than from hyperparameters could be had."""
    folder = isinstance(source, str | Path) and (Path(source) / "trace.npz").is_file()
    return folder or config.spikes is not None


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): plain_cell(cell) for key, cell in row.items()}
        for row in table.to_dict("records")
    ]
