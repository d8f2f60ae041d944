"""From knobs to cycles: Shapley values through the whole chain of a prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InputError
from .attribution import KnobAttribution
from .columns import Asked, Columns, read_columns
from .folder import PredictorParts
from .knobs import Knob
from .many import cycles_of_many
from .shapley import ShapleyValues, shapley_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attribute_cycles"]

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]


def attribute_cycles(
    parts: PredictorParts,
    frame: pd.DataFrame,
    knobs: Sequence[Knob],
    points: _Indices,
    background: _Indices,
    *,
    rounds: int,
    rng: np.random.Generator,
    by_layer: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[KnobAttribution, ShapleyValues | None]:
    """Attribute log cycles to knobs, through the whole chain from hyperparameters.

    Parameters
    ----------
    parts : PredictorParts
    frame : DataFrame
        Configurations by flat key, as `frame_of` gives them.
    knobs : sequence of Knob
        Those that differ among them, from `knobs_of`.
    points, background : ndarray of int
        Rows of `frame` to explain, and to explain them by.
    rounds, rng, progress
        As in `shapley_values`.
    by_layer : bool, optional
        Attribute the cycles of each layer, too; then all must have as many layers.

    Returns
    -------
    KnobAttribution
    ShapleyValues or None
        Of the cycles of each layer but for waiting for the one before, an output for each; None
        unless `by_layer`.

    Raises
    ------
    InputError
        If a configuration that takes some knobs from one row and some from another is refused.
    """
    chain = _Chain(parts, frame, knobs, by_layer)
    found = shapley_values(
        chain, chain.codes, points, background, rounds=rounds, rng=rng, progress=progress
    )
    attribution = KnobAttribution(
        knobs=tuple(knobs),
        frame=frame.iloc[points].reset_index(drop=True),
        values=found.credit[:, :, 0],
        errors=found.errors[:, :, 0],
        base=float(found.base[0]),
        predicted=found.predicted[:, 0],
    )
    if not by_layer:
        return attribution, None
    layers = ShapleyValues(
        credit=found.credit[:, :, 1:],
        errors=found.errors[:, :, 1:],
        base=found.base[1:],
        predicted=found.predicted[:, 1:],
    )
    return attribution, layers


class _Chain:
    """From rows of a table, each knob from one of them, to log cycles (and those of layers)."""

    def __init__(
        self, parts: PredictorParts, frame: pd.DataFrame, knobs: Sequence[Knob], by_layer: bool
    ) -> None:
        self._parts, self._by_layer = parts, by_layer
        self._columns = read_columns(frame)
        self._knob_of = {key: number for number, knob in enumerate(knobs) for key in knob.keys}
        self.codes = np.zeros((len(frame), len(knobs)), dtype=np.int64)
        for number, knob in enumerate(knobs):
            texts = [repr(row) for row in frame[list(knob.keys)].itertuples(index=False)]
            self.codes[:, number] = np.unique(texts, return_inverse=True)[1]

    def __call__(self, rows: _Indices) -> _Floats:
        mixed = self._mixed(rows)
        numbers, names = np.arange(len(rows)), range(len(rows))
        asked = Asked(rows=mixed, hardware=mixed, row=numbers, machine=numbers, names=names)
        try:
            cycles, of_layers = cycles_of_many(asked, self._parts)
        except ConfigError as error:
            sentence = str(error).partition(": ")[2]
            raise InputError(
                f"knobs of two configurations do not go together: {sentence}"
            ) from error
        logs = np.log(cycles)[:, None]
        return np.concatenate([logs, of_layers], axis=1) if self._by_layer else logs

    def _mixed(self, rows: _Indices) -> Columns:
        """Take each key from the row that its knob is taken from; what never varies, from any."""
        columns = self._columns
        first = np.zeros(len(rows), dtype=np.int64)

        def row_of(key: str) -> _Indices:
            return rows[:, self._knob_of[key]] if key in self._knob_of else first

        return Columns(
            cells={key: cells[row_of(key)] for key, cells in columns.cells.items()},
            codes={
                key: codes[row_of(key)]
                for key, codes in columns.codes.items()
                if key in self._knob_of
            },
            numbers={key: numbers[row_of(key)] for key, numbers in columns.numbers.items()},
            cores=columns.cores[row_of("hardware.neural_cores")],
            odd=columns.odd,
        )
