"""What each knob contributes to a prediction: Shapley values of cycles, and SHAP of sparsity.

Two attributions, each of the function that it can be exact about. `KnobAttribution` is of log
cycles through the whole chain, by sampling permutations of knobs; `LayerAttribution` is of the
learned half alone, exact for trees. Both add up to the prediction less a base.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from .events import input_events
from .features import POOL_COLUMN, knob_of, layer_features
from .folder import PredictorParts
from .knobs import Knob, display_values
from .plots import tool
from .sparsity import HEADS

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MOST_INTERACTIONS",
    "KnobAttribution",
    "LayerAttribution",
    "attribute_sparsity",
    "bootstrapped",
]

MOST_INTERACTIONS = 100
"""Rows whose interactions are explained; they cost some hundred times what values cost."""

_RESAMPLES = 400
_COMPARED = 32
"""Rows that stand for a background: the cost of SHAP values is proportional to them."""

_KNOBS = {"neuron.model": "neuron", "surrogate.name": "surrogate", "surrogate.slope": "surrogate"}
"""Keys that belong to a knob of several, as `knobs_of` bundles them."""

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnobAttribution:
    """Interventional Shapley values of log cycles over the knobs, through the whole chain.

    Attributes
    ----------
    knobs : tuple of Knob
        Those that differ among the background and the explained configurations.
    frame : DataFrame, shape (points, keys)
        The explained configurations by flat key.
    values : ndarray of float, shape (points, knobs)
        Natural log: ``exp(value) - 1`` is a share of cycles, and factors multiply.
    errors : ndarray of float, shape (points, knobs)
        Standard errors of the sampling, of the same unit.
    base : float
        Mean log cycles of the background.
    predicted : ndarray of float, shape (points,)
        Log cycles; ``base + values.sum(axis=1)`` up to rounding.
    """

    knobs: tuple[Knob, ...]
    frame: pd.DataFrame
    values: _Floats
    errors: _Floats
    base: float
    predicted: _Floats

    def display(self) -> pd.DataFrame:
        """Value of each knob of each point for people: see `display_values`."""
        return display_values(self.frame, self.knobs)

    def importance(self, confidence: float = 0.9) -> pd.DataFrame:
        """Rank the knobs by how far they move cycles.

        Returns
        -------
        DataFrame
            Columns ``knob``, ``mean_abs`` (mean over points of the absolute value, in log cycles),
            ``low`` and ``high`` (by resampling points, with `confidence`); largest first.
        """
        names = [knob.name for knob in self.knobs]
        return _ranked(names, self.values, np.arange(len(self.values)), confidence)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what each knob is set to is in ``settings``."""
        return {
            "knobs": [{"name": knob.name, "keys": list(knob.keys)} for knob in self.knobs],
            "base": self.base,
            "predicted": self.predicted.tolist(),
            "values": self.values.tolist(),
            "errors": self.errors.tolist(),
            "settings": self.display().to_dict("records"),
        }

    def explanation(self) -> Any:
        """Give the same as a `shap.Explanation`, for shap's own plots.

        Returns
        -------
        shap.Explanation, shape (points, knobs)
            In log cycles. Names are numbered in ``data`` and spelled in ``display_data``.

        Raises
        ------
        MissingToolError
            If shap is not installed.
        """
        shown = self.display()
        return tool("shap").Explanation(
            values=self.values,
            base_values=np.full(len(self.values), self.base),
            data=_numbered(shown),
            display_data=shown.to_numpy(dtype=object),
            feature_names=[knob.name for knob in self.knobs],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerAttribution:
    """Exact SHAP values of the rate at which each layer's output spikes, in logits.

    A row is one layer of one configuration. It is of the head that decides what the next layer
    receives: ``output`` where the layer pools, ``firing`` where it does not. The two heads are
    models of their own, so each row has the base of its head.

    Attributes
    ----------
    feature_names : tuple of str
    layers : tuple of str
        Names of positions: of one network those of its layers (``"0:16C3"``), else ``"layer 0"``.
    point : ndarray of int, shape (rows,)
        Explained configuration of each row.
    layer : ndarray of int, shape (rows,)
        Place in `layers` of each row.
    values : ndarray of float, shape (rows, features)
    data : ndarray of float32, shape (rows, features)
    base : ndarray of float, shape (rows,)
    predicted : ndarray of float, shape (rows,)
        Logit of the rate; ``base + values.sum(axis=1)`` within float32.
    interactions : ndarray of float, shape (some rows, features, features)
        SHAP interaction values; each matrix sums to its row's ``predicted - base``.
    interaction_rows : ndarray of int, shape (some rows,)
        Which rows these are.
    """

    feature_names: tuple[str, ...]
    layers: tuple[str, ...]
    point: _Indices
    layer: _Indices
    values: _Floats
    data: NDArray[np.float32]
    base: _Floats
    predicted: _Floats
    interactions: _Floats
    interaction_rows: _Indices

    def rows(self, chosen: NDArray[np.bool_]) -> LayerAttribution:
        """Give some of the rows, without interactions."""
        some = {
            name: getattr(self, name)[chosen]
            for name in ("point", "layer", "values", "data", "base", "predicted")
        }
        return replace(
            self, **some, interactions=self.interactions[:0], interaction_rows=np.arange(0)
        )

    def by_knob(self) -> tuple[tuple[str, ...], _Floats]:
        """Add up the features of each knob that moves any row: names, and shape (rows, knobs)."""
        keys = [knob_of(name) for name in self.feature_names]
        of_feature = [_KNOBS.get(key, key) for key in keys]
        moved = np.any(self.values != 0, axis=0).tolist()
        names = tuple(dict.fromkeys(itertools.compress(of_feature, moved)))
        total = np.zeros((len(self.values), len(names)))
        for column in np.flatnonzero(moved).tolist():
            total[:, names.index(of_feature[column])] += self.values[:, column]
        return names, total

    def importance(self, confidence: float = 0.9) -> pd.DataFrame:
        """Rank the knobs by how far they move the rate of spikes.

        Returns
        -------
        DataFrame
            Columns ``knob``, ``mean_abs`` (mean over rows of the absolute value, in logits),
            ``low`` and ``high`` (by resampling configurations, with `confidence`); largest first.
        """
        names, values = self.by_knob()
        return _ranked(names, values, self.point, confidence)

    def per_layer(self) -> pd.DataFrame:
        """Mean absolute logits: index `layers`, a column for each knob, the largest first."""
        import pandas as pd

        names, values = self.by_knob()
        table = pd.DataFrame(np.abs(values), columns=list(names)).groupby(self.layer).mean()
        table.index = pd.Index([self.layers[number] for number in table.index], name="layer")
        return table[table.mean().sort_values(ascending=False, kind="stable").index]

    def top_pairs(self, most: int = 5) -> pd.DataFrame:
        """Rank pairs of features by how far they move a rate together, beyond each by itself.

        Returns
        -------
        DataFrame
            Columns ``first``, ``second`` and ``mean_abs``, in logits: mean over `interaction_rows`
            of the absolute interaction, both of its halves.
        """
        import pandas as pd

        names = self.feature_names
        sizes = 2 * np.abs(self.interactions).mean(axis=0) if len(self.interactions) else None
        found = [
            (names[first], names[second], float(sizes[first, second]))
            for first in range(len(names))
            for second in range(first + 1, len(names))
            if sizes is not None and sizes[first, second] > 0
        ]
        found.sort(key=lambda pair: -pair[2])
        return pd.DataFrame(found[:most], columns=["first", "second", "mean_abs"])

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain values for JSON, an entry for each row, by knob."""
        names, values = self.by_knob()
        return [
            {
                "layer": self.layers[self.layer[row]],
                "base": float(self.base[row]),
                "predicted": float(self.predicted[row]),
                "values": dict(zip(names, values[row].tolist(), strict=True)),
            }
            for row in range(len(values))
        ]

    def explanation(self, layer: int | None = None) -> Any:
        """Give the rows, or those of one layer, as a `shap.Explanation`.

        Parameters
        ----------
        layer : int, optional
            Place in `layers`.

        Raises
        ------
        InputError
            If there is no such layer.
        MissingToolError
            If shap is not installed.
        """
        if layer is not None and not 0 <= layer < len(self.layers):
            raise InputError(f"layer: must be 0 to {len(self.layers) - 1}, got {layer}")
        chosen = slice(None) if layer is None else self.layer == layer
        return tool("shap").Explanation(
            values=self.values[chosen],
            base_values=self.base[chosen],
            data=self.data[chosen],
            feature_names=list(self.feature_names),
        )


def attribute_sparsity(
    parts: PredictorParts,
    configs: Sequence[Config],
    *,
    background: Sequence[Config] | None = None,
    interactions: int = MOST_INTERACTIONS,
) -> LayerAttribution:
    """Attribute the rate at which each layer's output spikes to the features of the model.

    Parameters
    ----------
    parts : PredictorParts
    configs : sequence of Config
        At least one.
    background : sequence of Config, optional
        What they are compared with: features take the values that they have there, and the base is
        the mean logit. Where all have the layers of the configurations, a layer is compared with
        the same layer. Default: the rows that the trees were grown on.
    interactions : int, optional
        Rows to find interactions of, spread evenly over all.

    Returns
    -------
    LayerAttribution
        Of every layer, the last included.

    Raises
    ------
    InputError
        If there is no configuration.
    MissingToolError
        If shap is not installed.

    Notes
    -----
    SHAP values of trees are exact, with a background for expectations over its rows
    (``interventional``), of which at most `_COMPARED` stand for all. Without one, and for
    interactions, they are for the conditional expectations that the trees themselves hold
    (``tree_path_dependent``): a feature that was never varied apart from another shares its credit.

    References
    ----------
    .. [1] Lundberg et al., "From local explanations to global understanding with explainable AI
       for trees", Nature Machine Intelligence 2020.
    """
    if not configs:
        raise InputError("rows: at least one configuration is needed to explain, got none")
    rows = _feature_rows(parts, configs)
    data = np.concatenate(rows)
    sizes = [len(each) for each in rows]
    layer = np.concatenate([np.arange(size) for size in sizes])
    others = None if background is None else _feature_rows(parts, background)
    alike = len({config.layers for config in (*configs, *(background or ()))}) == 1
    chosen = np.unique(np.linspace(0, len(data) - 1, min(interactions, len(data))).astype(np.int64))
    pooled = data[:, POOL_COLUMN] != 1
    heads = parts.model.heads(data)
    values, base = np.zeros(data.shape), np.zeros(len(data))
    of_pairs = np.zeros((len(chosen), data.shape[1], data.shape[1]))
    for head, of_head in (("firing", ~pooled), ("output", pooled)):
        if not of_head.any():
            continue
        booster = parts.model.ensembles[head].booster()
        for number in np.unique(layer[of_head]) if alike and others else [None]:
            members = of_head if number is None else of_head & (layer == number)
            compared = None if others is None else _compared_rows(others, number, head)
            explainer = _explainer(booster, compared)
            values[members] = explainer.shap_values(data[members])
            base[members] = np.ravel(explainer.expected_value)[0]
        some = of_head[chosen]
        if some.any():
            of_pairs[some] = _explainer(booster).shap_interaction_values(data[chosen[some]])
    return LayerAttribution(
        feature_names=parts.domain.feature_names,
        layers=_layer_names(configs),
        point=np.repeat(np.arange(len(configs)), sizes),
        layer=layer,
        values=values,
        data=data,
        base=base,
        predicted=np.where(
            pooled, heads[:, HEADS.index("output")], heads[:, HEADS.index("firing")]
        ),
        interactions=of_pairs,
        interaction_rows=chosen,
    )


def _feature_rows(parts: PredictorParts, configs: Sequence[Config]) -> list[NDArray[np.float32]]:
    """Rows of the layers of each configuration."""
    rows = []
    for config in configs:
        entering = input_events(config, parts.statistics, parts.tap_ratios.input)
        rows.append(layer_features(config, entering.events, parts.domain.categories))
    return rows


def _compared_rows(
    rows: Sequence[NDArray[np.float32]], layer: int | None, head: str
) -> NDArray[np.float32]:
    """Rows to compare with: of the same layer, or of all layers that the same head is asked about.

    Of many, some that are spread over all.
    """
    if layer is not None:
        data = np.stack([each[layer] for each in rows])
    else:
        data = np.concatenate(rows)
        data = data[(data[:, POOL_COLUMN] != 1) == (head == "output")]
    places = np.linspace(0, len(data) - 1, min(len(data), _COMPARED)).round().astype(np.int64)
    return data[places]


def _explainer(booster: Any, compared: NDArray[np.float32] | None = None) -> Any:
    if compared is None or not len(compared):
        return tool("shap").TreeExplainer(booster)
    return tool("shap").TreeExplainer(
        booster, data=compared, feature_perturbation="interventional", model_output="raw"
    )


def bootstrapped(
    sizes: _Floats, point: _Indices, confidence: float
) -> tuple[_Floats, _Floats, _Floats]:
    """Means over rows with intervals, resampling points with all of their rows.

    Parameters
    ----------
    sizes : ndarray of float, shape (rows, columns)
    point : ndarray of int, shape (rows,)
    confidence : float

    Returns
    -------
    mean, low, high : ndarray of float, shape (columns,)
        Percentiles of 400 resamples; the same for the same input.
    """
    _, member = np.unique(point, return_inverse=True)
    points = int(member.max()) + 1
    total = np.zeros((points, sizes.shape[1]))
    np.add.at(total, member, sizes)
    rows = np.bincount(member)
    drawn = np.random.default_rng(0).multinomial(points, np.full(points, 1 / points), _RESAMPLES)
    means = (drawn @ total) / (drawn @ rows)[:, None]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return sizes.mean(axis=0), low, high


def _ranked(
    names: Sequence[str], values: _Floats, point: _Indices, confidence: float
) -> pd.DataFrame:
    import pandas as pd

    if not 0 < confidence < 1:
        raise InputError(f"confidence: must be above 0 and below 1, got {confidence!r}")
    mean, low, high = bootstrapped(np.abs(values), point, confidence)
    table = pd.DataFrame({"knob": list(names), "mean_abs": mean, "low": low, "high": high})
    table = table.sort_values(["mean_abs", "knob"], ascending=[False, True])
    return table.reset_index(drop=True)


def _numbered(shown: pd.DataFrame) -> _Floats:
    """Values as numbers; names by their place in the alphabet."""
    import pandas as pd

    columns = [
        pd.Categorical(shown[name]).codes if shown[name].dtype == object else shown[name]
        for name in shown.columns
    ]
    if not columns:
        return np.zeros((len(shown), 0))
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _layer_names(configs: Sequence[Config]) -> tuple[str, ...]:
    if len({config.layers for config in configs}) == 1:
        return tuple(layer.name for layer in configs[0].layers)
    return tuple(f"layer {number}" for number in range(max(len(each.layers) for each in configs)))
