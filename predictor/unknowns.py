"""What an explanation does not know, in sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .comparison import Comparison
from .folder import PredictorParts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["unknowns"]


def unknowns(parts: PredictorParts, given: Comparison, correlated: pd.DataFrame) -> list[str]:
    """Say what an explanation does not know.

    Parameters
    ----------
    parts : PredictorParts
    given : Comparison
    correlated : DataFrame
        From `associations`.

    Returns
    -------
    list of str
        Sentences.
    """
    said = [
        "Attributions say what the predictor answers when knobs are replaced, which need not be "
        "what causes it.",
        "Knobs are replaced one without another, also where nobody would train such a mix.",
        "Intervals of changes come from pairs of calibrated runs of one network and data set, "
        "which differ in several choices and not in one; of the values of a choice the best is "
        "shown, which makes its saving look a little larger than it is.",
    ]
    if len(correlated):
        pairs = [f"{a} and {b} ({s:.2f})" for a, b, s in correlated.itertuples(index=False)]
        said.append(f"Knobs that go together in what is compared: {', '.join(pairs)}.")
    if (floor := parts.scores.get("noise_floor_log")) is not None:
        said.append(
            f"Trainings that differ in their seed alone scatter by {math.expm1(floor):.0%} in "
            "cycles (one standard deviation); no prediction before training can say by how much."
        )
    if given.config.network not in parts.domain.networks and "network" in parts.domain.unseen:
        factor = parts.domain.unseen["network"]
        said.append(
            f"The network {given.config.network} is none of the calibrated ones; the interval is "
            f"{factor:.2g} times as wide as for those."
        )
    if constant := _never_varied(parts):
        said.append(f"The same in all calibrated runs, so nothing is known of {constant}.")
    said.append(
        "Predictions do not read training.patience and training.precision, nor how training went."
    )
    return said


def _never_varied(parts: PredictorParts) -> str:
    domain = parts.domain
    names = [key for key, values in domain.categories.items() if len(values) == 1]
    ranges = zip(domain.feature_names, domain.low, domain.high, strict=True)
    names += [
        name for name, low, high in ranges
        if low == high and "=" not in name and name.startswith(("training.", "neuron.", "input.t"))
    ]  # fmt: skip
    return ", ".join(name for name in names if name != "training.travel")
