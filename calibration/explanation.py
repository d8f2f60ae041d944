"""Proposed changes verified: trained and simulated in RTL, beside what was predicted of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..config import Config, require_rtl
from ..errors import InputError, SimulationError
from ..space import configured
from .measure import measure

if TYPE_CHECKING:
    from ..predictor.changes import Change
    from ..predictor.explanation import LatencyExplanation

__all__ = ["VerifiedChange", "verify_changes"]

_SAMPLES = 24
"""Test samples through the RTL; the calibrated runs were measured on as many."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, what is done of it, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedChange:
    """A proposed change beside what training and RTL made of it; means over the seeds.

    Attributes
    ----------
    change : Change
        As it was predicted.
    before_cycles, after_cycles : float
        Measured in RTL, of the configuration and of the changed one.
    before_accuracy, after_accuracy : float
        Of the integer networks on the whole test part, in [0, 1].
    samples : int
        Test samples that each network was simulated on.
    seeds : tuple of int
        Of the trainings.
    """

    change: Change
    before_cycles: float
    after_cycles: float
    before_accuracy: float
    after_accuracy: float
    samples: int
    seeds: tuple[int, ...]

    @property
    def cycles(self) -> float:
        """Measured change of cycles as a share: -0.18 is 18 % fewer."""
        return self.after_cycles / self.before_cycles - 1

    @property
    def accuracy(self) -> float:
        """Measured change of test accuracy, as a share of all samples."""
        return self.after_accuracy - self.before_accuracy

    @property
    def held(self) -> bool:
        """Whether the interval of the predicted change of cycles holds the measured one."""
        low, high = self.change.interval_cycles
        return low <= self.cycles <= high

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "knob": self.change.knob,
            "before": self.change.before,
            "after": self.change.after,
            "predicted_cycles": self.change.cycles,
            "interval_cycles": list(self.change.interval_cycles),
            "measured_cycles": self.cycles,
            "predicted_accuracy": self.change.accuracy,
            "interval_accuracy": list(self.change.interval_accuracy),
            "measured_accuracy": self.accuracy,
            "held": self.held,
            "cycles": {"before": self.before_cycles, "after": self.after_cycles},
            "accuracy": {"before": self.before_accuracy, "after": self.after_accuracy},
            "samples": self.samples,
            "seeds": list(self.seeds),
        }


def verify_changes(
    explanation: LatencyExplanation,
    count: int,
    *,
    seeds: Sequence[int] = (0,),
    samples: int = _SAMPLES,
    progress: Progress | None = None,
) -> tuple[VerifiedChange, ...]:
    """Train and simulate a configuration and the first changes that were proposed for it.

    Parameters
    ----------
    explanation : LatencyExplanation
        Has the configuration and its changes.
    count : int
        Changes to verify, from the first on.
    seeds : sequence of int, optional
        Training seeds; every network is trained once with each of them. Interval and prediction
        are of one training, and the mean of several scatters less.
    samples : int, optional
        Test samples to simulate, from the first on.
    progress : callable, optional
        Told about each training.

    Returns
    -------
    tuple of VerifiedChange
        In the order of the changes.

    Raises
    ------
    InputError
        If there are not so many changes, no seeds, or nothing to train on.
    ConfigError
        If the machine has no RTL, or a seed is none.
    SimulationError
        If a training diverges.
    SpikemeterError
        If a tool is missing, training or simulation fails, or RTL, integer reference and timing
        model disagree.
    """
    check_verification(explanation.config)
    changes = explanation.changes
    if not changes:
        raise InputError(f"verify: there is no change to verify; {explanation.changes_note}")
    if not 1 <= count <= len(changes):
        rule = f"must be 1 to {len(changes)}, the changes that are proposed"
        raise InputError(f"verify: {rule}; got {count}")
    if not seeds:
        raise InputError("seeds: at least one is needed to train, got none")
    chosen = changes[:count]
    configs = [explanation.config, *(change.config for change in chosen)]
    (before_cycles, before_accuracy), *after = _measured(configs, seeds, samples, progress)
    return tuple(
        VerifiedChange(
            change=change,
            before_cycles=before_cycles,
            after_cycles=cycles,
            before_accuracy=before_accuracy,
            after_accuracy=accuracy,
            samples=samples,
            seeds=tuple(seeds),
        )
        for change, (cycles, accuracy) in zip(chosen, after, strict=True)
    )


def check_verification(config: Config) -> None:
    """Refuse a configuration that cannot be trained and simulated here.

    Raises
    ------
    ConfigError
        If the machine has no RTL.
    InputError
        If there is no data set to train on.
    """
    require_rtl(config)
    if config.dataset is None:
        raise InputError(
            "dataset: required to verify changes, which are trained; got input.statistics alone"
        )


def _measured(
    configs: Sequence[Config], seeds: Sequence[int], samples: int, progress: Progress | None
) -> list[tuple[float, float]]:
    """Mean cycles and accuracy of every configuration over the seeds."""
    report = progress or (lambda step, done, total: None)
    total, done = len(configs) * len(seeds), 0
    found = []
    with TemporaryDirectory(prefix="spikemeter-verify-") as folder:
        for number, config in enumerate(configs):
            rows = []
            for seed in seeds:
                report("training and simulating", done, total)
                rows.append(_row(config, seed, Path(folder) / f"{number}-{seed}", samples))
                done += 1
            cycles = fmean(row["cycles.mean"] for row in rows)
            found.append((cycles, fmean(row["accuracy.integer.test"] for row in rows)))
    report("training and simulating", total, total)
    return found


def _row(config: Config, seed: int, folder: Path, samples: int) -> dict[str, Any]:
    row = measure(configured(config.model_dump(), {"training.seed": seed}), folder, samples)
    if row["status"] == "diverged":
        raise SimulationError(f"training.seed: with {seed} the training diverged: {row['reason']}")
    return row
