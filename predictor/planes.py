"""The two phases of the paper's search as maps: surrogate and slope, then neuron, beta, threshold.

A plane is one configuration with two of its knobs turned over a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ConfigError
from ..space import configured
from .knobs import cells_of, frame_of

if TYPE_CHECKING:
    import pandas as pd

    from .predict import LatencyPredictor

__all__ = ["Plane", "search_planes"]

_SLOPES, _BETAS, _THRESHOLDS = 25, 21, 17
_SMALLEST_LAPICQUE_BETA = 0.14
"""Smallest beta that every Lapicque neuron can have; see `spikemeter._checks`."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """One map.

    Attributes
    ----------
    title : str
    x_key, y_key : str
        Flat keys of the axes.
    x, y : tuple
        Numbers or names along them.
    microseconds, cycles, accuracy : ndarray of float, shape (y, x)
        Predicted; NaN where a cell is no valid configuration.
    inside : ndarray of bool, shape (y, x)
        Cells within the calibrated domain.
    at : (int, int) or None
        Column and row of the cell nearest the configuration, if this plane holds it.
    """

    title: str
    x_key: str
    y_key: str
    x: tuple[Any, ...]
    y: tuple[Any, ...]
    microseconds: _Floats
    cycles: _Floats
    accuracy: _Floats
    inside: NDArray[np.bool_]
    at: tuple[int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for a cell that is no valid configuration."""
        maps = {
            name: [[value if value == value else None for value in row] for row in rows]
            for name, rows in (
                ("microseconds", self.microseconds.tolist()),
                ("cycles", self.cycles.tolist()),
                ("accuracy", self.accuracy.tolist()),
            )
        }
        return {
            "title": self.title,
            "x_key": self.x_key,
            "y_key": self.y_key,
            "x": list(self.x),
            "y": list(self.y),
            **maps,
            "inside": self.inside.tolist(),
            "at": None if self.at is None else list(self.at),
        }


def search_planes(
    predictor: LatencyPredictor,
    config: Config,
    calibrated: pd.DataFrame,
    *,
    space: pd.DataFrame | None = None,
) -> tuple[tuple[Plane, ...], tuple[Plane, ...]]:
    """Map both phases of the search around a configuration.

    Parameters
    ----------
    predictor : LatencyPredictor
    config : Config
        All other knobs are its own.
    calibrated : DataFrame
        Calibrated configurations by flat key: they say which names and ranges there are.
    space : DataFrame, optional
        Configurations by flat key: where surrogate or neuron model vary among them, only their
        names are mapped.

    Returns
    -------
    first, second : tuple of Plane
        Surrogate by slope in one plane; then beta by threshold, in a plane for each neuron model.

    Notes
    -----
    Slopes of different surrogates are different parameters, over other ranges. They share an axis,
    and `Plane.inside` tells which cells of a row were calibrated for its surrogate.
    """
    planes = [_surrogates(config, calibrated, space)]
    planes += [
        _neurons(config, calibrated, model) for model in _names(calibrated, space, "neuron.model")
    ]
    drawn = _drawn(predictor, config, [plane for plane in planes if plane is not None])
    first = 0 if planes[0] is None else 1
    return tuple(drawn[:first]), tuple(drawn[first:])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Grid:
    """A plane that is not predicted yet; `fixed` holds for all of its cells."""

    title: str
    x_key: str
    y_key: str
    x: tuple[Any, ...]
    y: tuple[Any, ...]
    fixed: Mapping[str, Any]
    at: tuple[int, int] | None


def _surrogates(
    config: Config, calibrated: pd.DataFrame, space: pd.DataFrame | None
) -> _Grid | None:
    """Surrogates that have a slope, over the range of all of them."""
    cells = cells_of(calibrated[["surrogate.name", "surrogate.slope"]])
    sloped = [pair for pair in zip(*cells.values(), strict=True) if pair[1] is not None]
    have = {name for name, _ in sloped}
    names = tuple(name for name in _names(calibrated, space, "surrogate.name") if name in have)
    slopes = [slope for name, slope in sloped if name in names]
    if not names:
        return None
    axis = _axis(np.geomspace(min(slopes), max(slopes), _SLOPES))
    surrogate, at = config.surrogate, None
    if surrogate.name in names and surrogate.steepness > 0:
        column = int(np.abs(np.log(np.array(axis) / surrogate.steepness)).argmin())
        at = (column, names.index(surrogate.name))
    return _Grid(
        title="Surrogate and slope",
        x_key="surrogate.slope",
        y_key="surrogate.name",
        x=axis,
        y=names,
        fixed={"surrogate.width": None},
        at=at,
    )


def _neurons(config: Config, calibrated: pd.DataFrame, model: str) -> _Grid | None:
    """One neuron model over the calibrated ranges of its beta and threshold."""
    alike = calibrated[calibrated["neuron.model"] == model]
    cells = cells_of(alike[["neuron.beta", "neuron.threshold"]])
    least = 0.0 if model == "lif" else _SMALLEST_LAPICQUE_BETA
    betas = [beta for beta in cells["neuron.beta"] if beta is not None and beta >= least]
    if not betas:
        return None
    thresholds = cells["neuron.threshold"]
    x = _axis(np.linspace(min(betas), max(betas), _BETAS))
    y = _axis(np.linspace(min(thresholds), max(thresholds), _THRESHOLDS))
    neuron, at = config.neuron, None
    if neuron.model == model and neuron.beta is not None:
        at = _nearest(x, neuron.beta), _nearest(y, neuron.threshold)
    match = neuron.match if neuron.model == model else "none"
    title = model if match == "none" else f"{model}, match {match}"
    return _Grid(
        title=title,
        x_key="neuron.beta",
        y_key="neuron.threshold",
        x=x,
        y=y,
        fixed={
            "neuron.model": model, "neuron.match": match, "neuron.R": None, "neuron.C": None,
        },
        at=at,
    )  # fmt: skip


def _drawn(predictor: LatencyPredictor, config: Config, grids: Sequence[_Grid]) -> list[Plane]:
    """Predict all cells of all grids together."""
    content = config.model_dump()
    configs: list[Config] = []
    places: list[NDArray[np.int64]] = []
    for grid in grids:
        place = np.full((len(grid.y), len(grid.x)), -1)
        for row, y in enumerate(grid.y):
            for column, x in enumerate(grid.x):
                changes = {**grid.fixed, grid.x_key: x, grid.y_key: y}
                try:
                    configs.append(configured(content, changes))
                except ConfigError:
                    continue
                place[row, column] = len(configs) - 1
        places.append(place)
    if not configs:
        return []
    predicted = predictor.predict(frame_of(configs))
    return [_plane(grid, place, predicted) for grid, place in zip(grids, places, strict=True)]


def _plane(grid: _Grid, place: NDArray[np.int64], predicted: pd.DataFrame) -> Plane:
    def values(column: str) -> _Floats:
        found: _Floats = np.where(place < 0, np.nan, predicted[column].to_numpy()[place])
        return found

    inside = predicted["in_domain"].to_numpy(dtype=np.bool_)[place] & (place >= 0)
    return Plane(
        title=grid.title,
        x_key=grid.x_key,
        y_key=grid.y_key,
        x=grid.x,
        y=grid.y,
        microseconds=values("microseconds"),
        cycles=values("cycles"),
        accuracy=values("accuracy"),
        inside=inside,
        at=grid.at,
    )


def _names(calibrated: pd.DataFrame, space: pd.DataFrame | None, key: str) -> list[str]:
    """Calibrated names, or those of the space if it varies them."""
    if space is not None and len(set(space[key])) > 1:
        return sorted(space[key].unique())
    return sorted(calibrated[key].unique())


def _axis(values: _Floats) -> tuple[float, ...]:
    """Numbers of three digits; the ends may lie a little beyond the calibrated ones."""
    return tuple(dict.fromkeys(float(f"{value:.3g}") for value in values.tolist()))


def _nearest(axis: Sequence[float], value: float) -> int:
    return int(np.abs(np.array(axis) - value).argmin())
