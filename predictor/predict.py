"""From a configuration, or from known spikes, to cycles: as exact as the source allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config, HardwareConfig, load_config
from ..errors import ConfigError, PredictorError, RunFolderError
from ..network import served_by_tap
from .calibrated_runs import read_runs
from .estimate import FIDELITIES, Fidelity, LatencyEstimate, LayerEstimate
from .events import KnownInput, expected_counts, expected_taps, input_events
from .features import layer_features
from .folder import PredictorParts, estimation_doubt, read_folder
from .forecast import checked_rates, forecast_features
from .intervals import (
    OUTSIDE_FACTOR,
    WIDEST,
    checked_confidence,
    quantisation_errors,
    statistics_errors,
)
from .machine import TimingModel, mean_of_samples
from .profile import Profile
from .sparsity import Predicted, accuracy_interval
from .spikes import KnownSpikes, StatisticsLevel, known_spikes, read_spikes
from .timing import EngineTiming, Timing, timing_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ExpectedSpikes",
    "LatencyPredictor",
    "expected_spikes",
    "mean_cycles",
    "predict_latency",
]

Source = Config | Mapping[str, Any] | str | Path

_WITHOUT_TAPS = (
    "spikes: taps_i are not known; where spikes sit in their frames is taken from the calibrated "
    "runs, and the interval is wider"
)
_OF_MEANS = (
    "spikes: counts_i are not whole, as means over samples are; the mean latency of samples is "
    "above that of their mean counts, and the interval is wider"
)
_OF_FLOATS = (
    "spikes: of a network in floating point; with {bits}-bit weights it fires somewhat "
    "differently, and the interval is wider"
)


def predict_latency(
    source: Source,
    *,
    confidence: float = 0.9,
    predictor: LatencyPredictor | None = None,
    fidelity: str | None = None,
    samples: int | None = None,
    spikes: Mapping[str, NDArray[np.generic]] | None = None,
) -> LatencyEstimate:
    """Predict the latency of a spiking network on the accelerator.

    Parameters
    ----------
    source : Config, mapping, str or Path
        A configuration, its keys, a YAML file, or a run folder (``config.yaml`` and
        ``trace.npz``). A ``spikes`` key names a file beside the YAML file, or from the working
        directory if there is none.
    confidence : float, optional
        Share of cases in which the interval shall hold the mean; in (0, 1).
    predictor : LatencyPredictor, optional
        Default: the one that ships with the package, loaded when it is needed.
    fidelity : {"hyperparameters", "statistics", "trace"}, optional
        Forces a lower fidelity than the source allows. Default: the best.
    samples : int, optional
        Uses the first samples of the known spikes alone. Default: all. Without effect on a
        prediction from hyperparameters.
    spikes : mapping of str to array, optional
        Known spikes in memory instead of those of the source, named as in an ``.npz`` file:
        ``inputs_i`` (spike trains that enter weighted layer i), or ``counts_i`` (time_steps,
        channels) and, where known, ``taps_i``; see `read_spikes` for the shapes.

    Returns
    -------
    LatencyEstimate
        From a trace, cycles are those of the hardware and the interval is empty. From statistics
        the interval covers what counts cannot say; from hyperparameters, also the spikes that
        training may yet bring. Of spikes of a network in floating point it covers what rounding
        may change. Where the timing itself is no more than a formula, published or
        fitted to measurements, every interval is wider by what it was found to be off.

    Raises
    ------
    ConfigError
        If the configuration is refused.
    RunFolderError
        If a run folder is incomplete or damaged.
    PredictorError
        If the question cannot be answered: fidelity, confidence, samples, or data set.

    Examples
    --------
    >>> estimate = predict_latency({"dataset": "nmnist-saccade", "network": "16C3-MP2-10"})
    >>> estimate.fidelity
    'hyperparameters'
    """
    confidence = checked_confidence(confidence)
    config, known, wanted = _resolved(source, fidelity, samples, spikes)
    if wanted == "trace":
        assert known is not None
        return _from_trace(config, known, confidence)
    predictor = predictor or LatencyPredictor.default()
    if wanted == "statistics":
        assert known is not None
        return _from_statistics(config, known, confidence, predictor.parts)
    return _from_hyperparameters(config, confidence, predictor.parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyPredictor:
    """A calibrated predictor, as a folder on disk keeps it.

    Attributes
    ----------
    parts : PredictorParts
        What calibration found.
    """

    parts: PredictorParts

    @classmethod
    def load(cls, path: str | Path) -> LatencyPredictor:
        """Read a predictor folder.

        Raises
        ------
        PredictorError
            If it is missing, incomplete, damaged, or of another version.
        """
        return cls(parts=read_folder(Path(path)))

    @classmethod
    def default(cls) -> LatencyPredictor:
        """Read the predictor that ships with the package, once."""
        return _default()

    def estimate(
        self,
        source: Source,
        *,
        confidence: float = 0.9,
        fidelity: str | None = None,
        samples: int | None = None,
        spikes: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> LatencyEstimate:
        """Predict one latency; see `predict_latency`."""
        return predict_latency(
            source,
            confidence=confidence,
            predictor=self,
            fidelity=fidelity,
            samples=samples,
            spikes=spikes,
        )

    def predict(
        self,
        rows: pd.DataFrame,
        *,
        confidence: float = 0.9,
        hardware: Sequence[HardwareConfig | Mapping[str, Any]] | None = None,
    ) -> pd.DataFrame:
        """Predict many latencies from hyperparameters.

        Rows that differ in their hardware or their seed alone are learned about once, so that the
        same networks on much hardware take little time.

        Parameters
        ----------
        rows : DataFrame
            One configuration per row; columns are flat keys (``neuron.beta``). Absent or empty
            values take their defaults; result columns of a calibration table are left aside,
            but ``input.events`` stands in for a missing data set.
        confidence : float, optional
            As in `predict_latency`.
        hardware : sequence of HardwareConfig or mapping, optional
            Sections ``hardware`` of a configuration, to predict every row on each of them. Default:
            every row on its own.

        Returns
        -------
        DataFrame
            Columns ``cycles``, ``microseconds``, ``interval_cycles.low``,
            ``interval_cycles.high``, ``initiation_interval_cycles``, ``accuracy``,
            ``interval_accuracy.low``, ``interval_accuracy.high``, ``in_domain`` and ``warnings``
            (sentences joined by "; "), with the index of `rows`. With `hardware` its number is a
            further level of the index, so that ``["cycles"].unstack()`` has a row for each network
            and a column for each hardware.

        Raises
        ------
        InputError
            If a column is no key of a configuration, or a row is refused; names the first one.
        """
        from .many import predict_many

        return predict_many(rows, self.parts, checked_confidence(confidence), hardware)

    def forecast(
        self,
        source: Source,
        firing_rates: NDArray[np.float64] | Sequence[Sequence[float]],
        *,
        confidence: float = 0.9,
    ) -> LatencyEstimate:
        """Predict the latency of the finished network from the first epochs of its training.

        Parameters
        ----------
        source : Config, mapping, str or Path
            As in `predict_latency`; spikes that it names are left aside.
        firing_rates : array of float, shape (epochs, layers)
            Spikes per neuron and step of every weighted layer, mean over each epoch so far, as
            ``firing_rate_per_epoch`` of a run's ``result.json`` has them.
        confidence : float, optional
            As in `predict_latency`.

        Returns
        -------
        LatencyEstimate
            Of the fidelity ``forecast``; its interval narrows from epoch to epoch.

        Raises
        ------
        ConfigError, PredictorError
            As `predict_latency`; or if the rates do not fit the configuration.
        """
        confidence = checked_confidence(confidence)
        config = load_config(source)
        rates = checked_rates(firing_rates, config)
        return _from_hyperparameters(config, confidence, self.parts, rates)

    def table(self) -> pd.DataFrame:
        """Read the runs that this predictor was calibrated on.

        Raises
        ------
        PredictorError
            If they are no table, or too large a one.
        """
        return read_runs(self.parts.table)


def mean_cycles(
    configs: Sequence[Config], spikes: Sequence[ExpectedSpikes]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cycles of many networks whose expected spikes are known, hardware by hardware.

    Parameters
    ----------
    configs : sequence of Config
    spikes : sequence of ExpectedSpikes
        Of each configuration.

    Returns
    -------
    cycles, initiation_interval_cycles : ndarray of float, shape (configs,)
    """
    cycles, interval = np.empty(len(configs)), np.empty(len(configs))
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, config in enumerate(configs):
        size = config.input
        shape = (size.height, size.width, size.channels, size.time_steps)
        machine = (config.network, shape, config.neuron.model, repr(config.hardware))
        alike.setdefault(machine, []).append(index)
    for members in alike.values():
        counts, taps = (
            [np.stack(layer) for layer in zip(*of_members, strict=True)]
            for of_members in (
                [spikes[index].counts for index in members],
                [spikes[index].taps for index in members],
            )
        )
        timing = timing_model(configs[members[0]]).statistics(counts, taps)
        cycles[members] = timing.cycles
        interval[members] = timing.initiation_interval_cycles
    return cycles, interval


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpectedSpikes:
    """Spikes that are expected to enter each weighted layer, and their kernel taps.

    Attributes
    ----------
    counts, taps : list of ndarray of float, shape (time_steps, channels)
    """

    counts: list[NDArray[np.float64]]
    taps: list[NDArray[np.float64]]


def expected_spikes(
    config: Config, entering: KnownInput, predicted: Predicted, profile: Profile
) -> ExpectedSpikes:
    """Turn what was learned of each layer into spikes per step and channel.

    Parameters
    ----------
    config : Config
    entering : KnownInput
        What enters the first layer.
    predicted : Predicted
        One row per weighted layer.
    profile : Profile
        Of the predictor.

    Returns
    -------
    ExpectedSpikes
    """
    courses = profile.over_steps(predicted.course[:-1], config.input.time_steps)
    rates = predicted.output_rate[:-1].tolist()
    counts = expected_counts(config, entering.events, rates, courses)
    ratios = [entering.tap_ratio, *predicted.tap_ratio[1:].tolist()]
    return ExpectedSpikes(counts=counts, taps=expected_taps(config, counts, ratios))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    """How far the timing itself may be off, in log cycles; half widths add up.

    An error of the timing shifts every sample alike, whatever the spikes are.
    """

    half_width: float = 0.0
    warnings: tuple[str, ...] = ()
    in_domain: bool = True


def _doubt(model: TimingModel, confidence: float, outside: Sequence[str]) -> _Doubt:
    half_width, warnings = model.doubt(confidence, outside)
    return _Doubt(half_width=half_width, warnings=warnings, in_domain=not outside)


@cache
def _default() -> LatencyPredictor:
    path = Path(__file__).parent / "default"
    if not path.is_dir():
        raise PredictorError("predictor: this installation ships none; fit one and name its folder")
    return LatencyPredictor.load(path)


def _resolved(
    source: Source,
    fidelity: str | None,
    samples: int | None,
    arrays: Mapping[str, NDArray[np.generic]] | None,
) -> tuple[Config, KnownSpikes | None, Fidelity]:
    """Find configuration, known spikes and fidelity of a question."""
    if fidelity is not None and not (isinstance(fidelity, str) and fidelity in FIDELITIES):
        raise PredictorError(f"fidelity: must be one of {', '.join(FIDELITIES)}; got {fidelity!r}")
    if samples is not None and not (_is_whole(samples) and samples >= 1):
        raise PredictorError(f"samples: must be at least 1 and a whole number, got {samples!r}")
    config = load_config(source)
    if fidelity == "hyperparameters":
        return config, None, "hyperparameters"
    if arrays is None:
        spikes = _known_spikes(source, config)
    else:
        spikes = known_spikes(arrays, config, refusal=ConfigError)
    best: Fidelity = "hyperparameters"
    if spikes is not None:
        best = "statistics" if spikes.inputs is None else "trace"
        if samples is not None and samples > spikes.samples:
            rule = f"must be at most the {spikes.samples} samples that are known"
            raise PredictorError(f"samples: {rule}, got {samples}")
        if samples is not None:
            spikes = spikes.first(samples)
    wanted: Fidelity = next((name for name in FIDELITIES if name == fidelity), best)
    if FIDELITIES.index(wanted) > FIDELITIES.index(best):
        raise PredictorError(f"fidelity: this source allows {best} at most, got {wanted!r}")
    return config, spikes, wanted


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _known_spikes(source: Source, config: Config) -> KnownSpikes | None:
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            trace = path / "trace.npz"
            if not trace.is_file():
                raise RunFolderError(
                    f"the run folder {str(path)!r} holds no trace.npz; give its config.yaml for a "
                    "prediction from hyperparameters"
                )
            return read_spikes(trace, config, refusal=RunFolderError)
        folder = path.parent
    else:
        folder = Path()
    if config.spikes is None:
        return None
    return read_spikes(folder / config.spikes, config, refusal=ConfigError)


def _from_trace(config: Config, spikes: KnownSpikes, confidence: float) -> LatencyEstimate:
    assert spikes.inputs is not None
    model = timing_model(config)
    timing = model.trace(spikes.inputs)
    input_rates = spikes.input_rates
    doubt = _doubt(model, confidence, _most_outside(timing))
    doubt = _rounded(doubt, config, spikes, timing, confidence)
    return _estimate(
        config,
        timing,
        confidence=confidence,
        fidelity="trace",
        half_width=doubt.half_width,
        in_domain=doubt.in_domain,
        warnings=doubt.warnings,
        input_rates=input_rates,
        firing_rates=_known_firing_rates(config, spikes, input_rates),
        sample_cycles=tuple(float(value) for value in timing.cycles),
        quantised=spikes.quantised,
    )


def _from_statistics(
    config: Config, spikes: KnownSpikes, confidence: float, parts: PredictorParts
) -> LatencyEstimate:
    model = timing_model(config)
    if isinstance(model, EngineTiming):
        ratios = parts.tap_ratios.of(len(config.layers))
        taps = spikes.taps or expected_taps(config, spikes.counts, ratios)
        timing = model.expected(spikes.counts, taps)
        # Of a layer whose counts are all in one the taps are as good as by channel
        level: StatisticsLevel = spikes.level
        if spikes.taps is not None or not _taps_matter(config):
            level = "taps"
        doubt = _counted_doubt(config, level, timing, confidence, parts)
    else:
        timing = model.statistics(spikes.counts, spikes.taps)
        doubt = _doubt(model, confidence, _most_outside(timing))
    doubt = _rounded(doubt, config, spikes, timing, confidence)
    input_rates = spikes.input_rates
    return _estimate(
        config,
        timing,
        confidence=confidence,
        fidelity="statistics",
        statistics_level=spikes.level,
        half_width=doubt.half_width,
        in_domain=doubt.in_domain,
        warnings=doubt.warnings,
        input_rates=input_rates,
        firing_rates=_known_firing_rates(config, spikes, input_rates),
        quantised=spikes.quantised,
    )


def _rounded(
    doubt: _Doubt, config: Config, spikes: KnownSpikes, timing: Timing, confidence: float
) -> _Doubt:
    """Add how far rounding moves a latency, if the spikes are those of a float network.

    What enters the first layer stays as it is, and so do its cycles.
    """
    if spikes.quantised:
        return doubt
    bits = config.training.weight_bits
    units, warning = quantisation_errors(bits, len(config.layers)).half_width(confidence)
    first = float(mean_of_samples(timing.layer_cycles)[0] / mean_of_samples(timing.cycles))
    half_width = units * max(1 - first, 0.0)
    notes = [_OF_FLOATS.format(bits=bits), *([warning] if warning else [])]
    return _Doubt(
        half_width=doubt.half_width + half_width,
        warnings=(*doubt.warnings, *notes),
        in_domain=doubt.in_domain,
    )


def _counted_doubt(
    config: Config,
    level: StatisticsLevel,
    timing: Timing,
    confidence: float,
    parts: PredictorParts,
) -> _Doubt:
    """How far the engine's cycles may be off for what counts do not say.

    Where taps are not known, also by what they cost on the runs of the predictor.
    """
    errors = statistics_errors()
    units, warning = errors.half_width(level, confidence)
    half_width = units * errors.deviation(
        config.layers,
        timing,
        taps_known=level == "taps",
        taps_per_cycle=config.hardware.taps_per_cycle,
    )
    warnings = [warning] if warning else []
    if level != "taps":
        without, too_few = parts.residuals["statistics"].half_width(confidence)
        half_width = max(half_width, without)
        warnings += [_WITHOUT_TAPS, *([too_few] if too_few else [])]
    if timing.chance is not None and timing.chance.convexity is not None:
        warnings.append(_OF_MEANS)
    return _Doubt(half_width=half_width, warnings=tuple(warnings))


def _taps_matter(config: Config) -> bool:
    """Whether the cycles of the engine depend on how many taps of a spike are in the frame."""
    taps_per_cycle = config.hardware.taps_per_cycle
    return any(served_by_tap(layer, taps_per_cycle) for layer in config.layers)


def _from_hyperparameters(
    config: Config,
    confidence: float,
    parts: PredictorParts,
    rates: NDArray[np.float64] | None = None,
) -> LatencyEstimate:
    """Answer from the configuration and, while training, the firing rates of the epochs so far."""
    entering = input_events(config, parts.statistics, parts.tap_ratios.input)
    features = layer_features(config, entering.events, parts.domain.categories)
    predicted = parts.model.predict(features)
    firing_rates = predicted.firing_rate
    if rates is not None:
        output = parts.forecaster.output_rates(forecast_features(config, rates, predicted))
        predicted, firing_rates = predicted.with_output(output), rates[-1]
    spikes = expected_spikes(config, entering, predicted, parts.profile)
    model = timing_model(config)
    counts, taps = ([x[None] for x in arrays] for arrays in (spikes.counts, spikes.taps))
    if isinstance(model, EngineTiming):
        timing = model.expected(counts, taps, chance=False)
    else:
        timing = model.statistics(counts, taps)
    units, warning = parts.residuals["hyperparameters"].half_width(confidence)
    spread = float(predicted.spread[-1])
    half_width = units * spread
    if rates is not None:
        progress = len(rates) / config.training.epochs
        half_width = parts.forecaster.half_width(progress, half_width, spread, confidence)
    doubt = _doubt(model, confidence, _most_outside(timing))
    outside = parts.domain.excursions(config, features)
    shift, said = estimation_doubt(parts, confidence) if entering.estimated else (0.0, None)
    notes = [text for text in (entering.warning, said, warning) if text]
    wider = parts.domain.widening(config.network, [*outside, *(["input"] if shift is None else [])])
    known_well = not outside and shift is not None
    pixels = config.input.height * config.input.width
    return _estimate(
        config,
        timing,
        confidence=confidence,
        fidelity="hyperparameters" if rates is None else "forecast",
        half_width=(half_width + (shift or 0.0)) * wider + doubt.half_width,
        in_domain=known_well and doubt.in_domain,
        warnings=(*outside.values(), *notes, *doubt.warnings),
        input_rates=[float(entering.events.mean()) / pixels, *predicted.output_rate[:-1].tolist()],
        firing_rates=firing_rates.tolist(),
        accuracy=_accuracy(float(predicted.accuracy[-1]), confidence, parts, not known_well),
    )


def _accuracy(
    expected: float, confidence: float, parts: PredictorParts, outside: bool
) -> tuple[float, float, float]:
    """Accuracy and its interval, whose half width is one of log odds."""
    half_width, _ = parts.residuals["accuracy"].half_width(confidence)
    half_width *= OUTSIDE_FACTOR if outside else 1.0
    middle, low, high = accuracy_interval(np.array(expected), half_width)
    return float(middle), float(low), float(high)


def _most_outside(timing: Timing) -> tuple[str, ...]:
    """Take what lies outside from the sample where most does."""
    return max(timing.outside, key=len, default=())


def _known_firing_rates(
    config: Config, spikes: KnownSpikes, input_rates: Sequence[float]
) -> list[float | None]:
    """Without pooling a layer fires as often as the next one hears it; pooling hides the rest."""
    heard: list[float | None] = list(input_rates[1:])
    heard.append(None if spikes.outputs is None else float(spikes.outputs.mean()))
    return [
        rate if layer.pool == 1 else None for layer, rate in zip(config.layers, heard, strict=True)
    ]


def _estimate(
    config: Config,
    timing: Timing,
    *,
    confidence: float,
    fidelity: Fidelity,
    half_width: float,
    input_rates: Sequence[float],
    firing_rates: Sequence[float | None],
    statistics_level: StatisticsLevel | None = None,
    in_domain: bool = True,
    warnings: tuple[str, ...] = (),
    sample_cycles: tuple[float, ...] = (),
    quantised: bool = True,
    accuracy: tuple[float, float, float] | None = None,
) -> LatencyEstimate:
    cycles = float(mean_of_samples(timing.cycles))
    factor = math.exp(min(half_width, WIDEST))
    layer_cycles = mean_of_samples(timing.layer_cycles).tolist()
    buckets = {name: mean_of_samples(value).tolist() for name, value in timing.buckets.items()}
    layers = tuple(
        LayerEstimate(
            name=layer.name,
            input_rate=input_rates[index],
            firing_rate=firing_rates[index],
            cycles=layer_cycles[index],
            buckets={name: values[index] for name, values in buckets.items()},
        )
        for index, layer in enumerate(config.layers)
    )
    return LatencyEstimate(
        cycles=cycles,
        microseconds=cycles / config.hardware.clock_mhz,
        interval_cycles=(cycles / factor, cycles * factor),
        confidence=confidence,
        fidelity=fidelity,
        statistics_level=statistics_level,
        in_domain=in_domain,
        warnings=warnings,
        layers=layers,
        initiation_interval_cycles=float(mean_of_samples(timing.initiation_interval_cycles)),
        worst_case_cycles=max(sample_cycles) if sample_cycles else None,
        sample_cycles=sample_cycles,
        quantised=quantised,
        accuracy=accuracy[0] if accuracy else None,
        interval_accuracy=accuracy[1:] if accuracy else None,
    )
