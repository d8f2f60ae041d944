"""Known spikes: reading ``trace.npz`` of a run, or the file that ``spikes`` names.

Such a file holds, for every weighted layer i, either the spike trains that enter it
(``inputs_i``) or their counts per step and channel (``counts_i``, and ``taps_i`` where known), or
per step alone with a single channel. ``outputs`` and ``labels`` may stand beside them, and
``quantised``, a single false for spikes of a network in floating point. What has another name, or
does not fit the configuration, is refused by the name of the array.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..network import Layer
from .machine import AXES, SLACK, count_problem, place, tap_bounds, tap_problem
from .timing import spike_taps

__all__ = ["KnownSpikes", "StatisticsLevel", "known_spikes", "read_spikes"]

_LARGEST_BYTES = 2 * 2**30
_LINES_AT_A_TIME = 2**22
"""Input lines, over samples and steps, whose taps are counted at a time."""
_NAME = re.compile(r"(inputs|counts|taps)_(0|[1-9][0-9]*)")
_BESIDE = ("outputs", "labels", "quantised")
_RULE = "arrays are inputs_i, counts_i, taps_i, outputs, labels and quantised, i a layer from 0"

_Floats = NDArray[np.float64]
_Arrays = Mapping[str, NDArray[np.generic]]

StatisticsLevel = Literal["taps", "channels", "layers"]
"""What is known of counted spikes: per step and channel with their taps, without, or per step."""


# Without slots, which leave no room for what is worked out later
@dataclass(frozen=True, kw_only=True, eq=False)
class KnownSpikes:
    """Spikes of some samples, as trains or as counts.

    Attributes
    ----------
    layers : tuple of Layer
        What they enter.
    inputs : tuple of ndarray of bool, or None
        Spike trains that enter each weighted layer: (samples, time_steps, channels, height, width)
        for a convolution, (samples, time_steps, features) for a dense layer. None if only counts
        are known.
    counted : tuple, or None
        `counts` and `taps`, if those are what was given; None beside trains, whose counts are
        worked out when they are asked for.
    outputs : ndarray of bool, shape (samples, time_steps, features), or None
        Spikes of the output layer, if known.
    every_channel : bool
        Whether the counts of all layers are known per channel.
    quantised : bool
        Whether these are spikes of the integer network, and not of one in floating point.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[NDArray[np.bool_], ...] | None
    counted: tuple[tuple[_Floats, ...], tuple[_Floats, ...] | None] | None
    outputs: NDArray[np.bool_] | None
    every_channel: bool
    quantised: bool = True

    @property
    def samples(self) -> int:
        """Samples that are known."""
        return len(self.counts[0] if self.inputs is None else self.inputs[0])

    @property
    def level(self) -> StatisticsLevel:
        """What is known of the counts of every layer."""
        if not self.every_channel:
            return "layers"
        return "channels" if self.inputs is None and self.taps is None else "taps"

    @property
    def counts(self) -> tuple[_Floats, ...]:
        """Spikes that enter each weighted layer, shape (samples, time_steps, channels).

        Per step and channel of the incoming map; a last axis of 1 holds those of all channels
        together.
        """
        return (self.counted or self._of_trains)[0]

    @property
    def taps(self) -> tuple[_Floats, ...] | None:
        """Kernel taps of `counts` inside the frame; None if not known of every layer."""
        return (self.counted or self._of_trains)[1]

    @cached_property
    def _of_trains(self) -> tuple[tuple[_Floats, ...], tuple[_Floats, ...]]:
        assert self.inputs is not None
        trains = tuple(zip(self.inputs, self.layers, strict=True))
        return tuple(_counted(*each) for each in trains), tuple(_tapped(*each) for each in trains)

    @property
    def input_rates(self) -> list[float]:
        """Spikes per input line and step of every layer."""
        if self.inputs is not None:
            return [int(np.count_nonzero(train)) / train.size for train in self.inputs]
        counts = self.counts
        steps = len(counts[0]) * counts[0].shape[1]
        return [
            float(np.add.reduce(count, axis=None)) / (steps * layer.inputs)
            for layer, count in zip(self.layers, counts, strict=True)
        ]

    def first(self, samples: int) -> KnownSpikes:
        """Keep the first samples alone."""
        counted = self.counted
        if counted is not None:
            counts, taps = counted
            counted = (_first(counts, samples), None if taps is None else _first(taps, samples))
        return KnownSpikes(
            layers=self.layers,
            inputs=None if self.inputs is None else _first(self.inputs, samples),
            counted=counted,
            outputs=None if self.outputs is None else self.outputs[:samples],
            every_channel=self.every_channel,
            quantised=self.quantised,
        )


def read_spikes(
    path: Path, config: Config, *, refusal: type[InputError] = InputError
) -> KnownSpikes:
    """Read the spikes of every weighted layer and hold them against the configuration.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with ``inputs_0``, ``inputs_1``, … or ``counts_0``, ``counts_1``, …; the
        axis of samples may be missing. ``taps_i`` beside counts are optional, and so are
        ``outputs``, the spikes of the output layer, ``labels``, which are left aside, and
        ``quantised``: false for spikes of a network in floating point.
    config : Config
        The network that the spikes belong to.
    refusal : type of InputError, optional
        The error to raise.

    Returns
    -------
    KnownSpikes
        Trains if the file has them, counts in any case.

    Raises
    ------
    InputError
        If the file cannot be read, an array is missing or has no meaning, or one has another shape
        or impossible values; the sentence names the array, what it must be, and what it is.
    """
    try:
        return _checked(*_read(path, config, refusal), config)
    except _UnfitError as error:
        raise refusal(f"{error} (in {str(path)!r})") from error


def known_spikes(
    arrays: _Arrays,
    config: Config,
    *,
    refusal: type[InputError] = InputError,
) -> KnownSpikes:
    """Hold spikes in memory against the configuration; arrays are named as in a file.

    Parameters
    ----------
    arrays : mapping of str to array_like
        ``inputs_i``, or ``counts_i`` and perhaps ``taps_i``; see `read_spikes`.
    config : Config
        The network that the spikes belong to.
    refusal : type of InputError, optional
        The error to raise.

    Returns
    -------
    KnownSpikes
        Trains if there are any, counts in any case.

    Raises
    ------
    InputError
        If an array is missing or has no meaning, or has another shape or impossible values.
    """
    if not isinstance(arrays, Mapping):
        raise refusal(f"spikes: must map names to arrays, got {type(arrays).__name__}")
    try:
        names = _named(arrays, config)
        return _checked(names, {name: _as_array(arrays, name) for name in names.wanted}, config)
    except _UnfitError as error:
        raise refusal(str(error)) from error


class _UnfitError(Exception):
    """An array does not fit; becomes the refusal that the caller wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Names of the arrays that are there, layer by layer."""

    kind: str
    spikes: tuple[str, ...]
    taps: tuple[str | None, ...]
    # All that is to be read
    wanted: tuple[str, ...]


def _named(arrays: _Arrays, config: Config) -> _Names:
    layers = tuple([(layer.name, layer.kernel) for layer in config.layers])
    return _names(tuple(arrays), layers, config.network)


@lru_cache(maxsize=256)
def _names(given: tuple[str, ...], layers: tuple[tuple[str, int], ...], network: str) -> _Names:
    """Tell arrays by their names, for layers of these names and kernels."""
    for name in given:
        _check_name(name, len(layers), network)
    kind = next((kind for kind in ("inputs", "counts") if f"{kind}_0" in given), None)
    if kind is None:
        raise _UnfitError("inputs_0 or counts_0: one of them must be there, got neither")
    for index, (layer, _) in enumerate(layers):
        if f"{kind}_{index}" not in given:
            raise _UnfitError(f"{kind}_{index}: required for layer {layer}, got nothing")
    others = [name for name in given if _NAME.fullmatch(name) and not name.startswith(kind)]
    unwanted = [name for name in others if kind == "inputs" or name.startswith("inputs")]
    if unwanted:
        raise _UnfitError(f"{unwanted[0]}: must not be there beside {kind}_0")
    for index, (layer, kernel) in enumerate(layers):
        if others and kernel > 1 and f"taps_{index}" not in given:
            raise _UnfitError(
                f"taps_{index}: required for layer {layer} beside {others[0]}, got nothing"
            )
    spikes = tuple(f"{kind}_{index}" for index in range(len(layers)))
    taps = [f"taps_{index}" for index in range(len(layers))]
    return _Names(
        kind=kind,
        spikes=spikes,
        taps=tuple(name if name in given else None for name in taps),
        wanted=tuple(name for name in (*spikes, *taps, "outputs", "quantised") if name in given),
    )


def _check_name(name: object, layers: int, network: str) -> None:
    if not isinstance(name, str):
        raise _UnfitError(f"{name!r}: must be the name of an array; {_RULE}")
    match = _NAME.fullmatch(name)
    if match is None and name not in _BESIDE:
        raise _UnfitError(f"{name}: {_RULE}")
    # By its length first: Python refuses to turn very long text into a number
    if match is not None and (len(match[2]) > len(str(layers)) or int(match[2]) >= layers):
        raise _UnfitError(f"{name}: must not be there, {network} has {layers} weighted layers")


def _read(
    path: Path, config: Config, refusal: type[InputError]
) -> tuple[_Names, dict[str, NDArray[np.generic]]]:
    """Read the arrays of a file that have a meaning; a file with others is refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _LARGEST_BYTES:
            raise ValueError(f"its arrays take {size} bytes, at most {_LARGEST_BYTES} are allowed")
        with np.load(path, allow_pickle=False) as file:
            names = _named(file, config)
            arrays = {name: file[name] for name in names.wanted}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} is no array")
    except _UnfitError:
        raise
    except Exception as error:  # a damaged archive fails in more ways than can be listed
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise refusal(f"cannot read the spikes in {str(path)!r}: {reason}") from error
    return names, arrays


def _as_array(arrays: _Arrays, name: str) -> NDArray[np.generic]:
    try:
        return np.asarray(arrays[name])
    except Exception as error:  # lists of different lengths, and whatever other objects refuse
        reason = " ".join(str(error).split())
        if "inhomogeneous" in reason:
            reason = "lists of different lengths"
        raise _UnfitError(f"{name}: must be an array, got {reason}") from error


def _checked(names: _Names, arrays: _Arrays, config: Config) -> KnownSpikes:
    layers, steps = config.layers, config.input.time_steps
    inputs = counted = outputs = None
    every_channel = True
    if names.kind == "inputs":
        inputs = tuple(
            _trains(name, arrays[name], layer, steps)
            for name, layer in zip(names.spikes, layers, strict=True)
        )
        for name, train in zip(names.spikes, inputs, strict=True):
            _same_samples(name, len(train), len(inputs[0]))
        samples = len(inputs[0])
    else:
        counts, taps, every_channel = _counts_and_taps(arrays, names, layers, steps)
        counted, samples = (counts, taps), len(counts[0])
    if "outputs" in arrays:
        outputs = _outputs(arrays["outputs"], (steps, layers[-1].neurons))
        _same_samples("outputs", len(outputs), samples)
    return KnownSpikes(
        layers=layers,
        inputs=inputs,
        counted=counted,
        outputs=outputs,
        every_channel=every_channel,
        quantised=_quantised(arrays["quantised"]) if "quantised" in arrays else True,
    )


def _quantised(array: NDArray[np.generic]) -> bool:
    if array.shape not in ((), (1,)) or array.dtype.kind != "b":
        rule = "must be a single true or false"
        raise _UnfitError(f"quantised: {rule}, got {array.dtype} of shape {array.shape}")
    return bool(array.reshape(-1)[0])


def _same_samples(name: str, samples: int, expected: int) -> None:
    if samples != expected or samples == 0:
        rule = f"must hold the {expected} samples of layer 0" if expected else "needs a sample"
        raise _UnfitError(f"{name}: {rule}, got {samples}")


def _trains(name: str, array: NDArray[np.generic], layer: Layer, steps: int) -> NDArray[np.bool_]:
    whole = (steps, layer.in_channels, layer.in_height, layer.in_width)
    flat = (steps, layer.inputs)
    batch = array if array.ndim in (3, 5) else array[None]
    if batch.shape[1:] not in (whole, flat):
        wanted = flat if layer.kind == "dense" else whole
        rule = f"must have shape (samples, {', '.join(map(str, wanted))})"
        raise _UnfitError(f"{name}: {rule}, got {array.shape}")
    spikes = _binary(name, batch)
    return spikes.reshape(len(batch), *(flat if layer.kind == "dense" else whole))


def _outputs(array: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.bool_]:
    batch = array if array.ndim == 3 else array[None]
    if batch.shape[1:] != shape:
        rule = f"must have shape (samples, {shape[0]}, {shape[1]})"
        raise _UnfitError(f"outputs: {rule}, got {array.shape}")
    return _binary("outputs", batch)


def _binary(name: str, array: NDArray[np.generic]) -> NDArray[np.bool_]:
    if array.dtype == np.bool_:
        return array.astype(np.bool_, copy=False)
    _require_numbers(name, array)
    binary = (array == 0) | (array == 1)
    if not binary.all():
        index = int(binary.argmin())
        axes = AXES if array.ndim == 5 else (*AXES[:2], "feature")
        where = place(index, array.shape, axes)
        raise _UnfitError(f"{name}: spikes must be 0 or 1, got {array.flat[index]}{where}")
    return array.astype(np.bool_)


def _counts_and_taps(
    arrays: _Arrays, names: _Names, layers: tuple[Layer, ...], steps: int
) -> tuple[tuple[_Floats, ...], tuple[_Floats, ...] | None, bool]:
    """Check counts of all layers, and their taps, if those are known; tell if of every channel.

    Values are checked side by side, which is one pass for all layers, and one by one only to say
    what is wrong.
    """
    given = []
    for name, layer in zip(names.spikes, layers, strict=True):
        array = arrays[name]
        channels = 1 if array.shape[-1:] == (1,) else layer.in_channels
        given.append(_batch(name, array, (steps, channels)))
        _same_samples(name, len(given[-1]), len(given[0]))
    columns = _columns(layers, tuple([array.shape[2] for array in given]))
    together = np.concatenate(given, axis=2, dtype=np.float64)
    counts = columns.split(together)
    if not _lie_within(together, columns.largest - together):
        for name, layer, count in zip(names.spikes, layers, counts, strict=True):
            _require(name, count_problem(layer, count))
    if columns.choice and names.taps == (None,) * len(layers):
        return counts, None, columns.every_channel
    known = [
        count if name is None else _taps_of(name, arrays[name], count)
        for name, count in zip(names.taps, counts, strict=True)
    ]
    of_all = np.concatenate(known, axis=2, dtype=np.float64)
    taps = columns.split(of_all)
    if not _lie_within(of_all - columns.fewest * together, columns.most * together - of_all):
        for index, layer in enumerate(layers):
            _require(f"taps_{index}", tap_problem(layer, taps[index], counts[index]))
    return counts, taps, columns.every_channel


def _taps_of(name: str, array: NDArray[np.generic], count: _Floats) -> NDArray[np.generic]:
    """Taps in the shape of their counts."""
    taps = _batch(name, array, count.shape[1:])
    if len(taps) != len(count):
        rule = f"must hold the {len(count)} samples of its counts"
        raise _UnfitError(f"{name}: {rule}, got {len(taps)}")
    return taps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """All layers side by side, channel by channel; bounds are as wide as rounding needs."""

    bounds: tuple[tuple[int, int], ...]
    largest: _Floats
    fewest: _Floats
    most: _Floats
    choice: bool
    every_channel: bool

    def split(self, together: _Floats) -> tuple[_Floats, ...]:
        """One array per layer."""
        return tuple([together[:, :, first:past] for first, past in self.bounds])


@lru_cache(maxsize=256)
def _columns(layers: tuple[Layer, ...], channels: tuple[int, ...]) -> _Columns:
    ends = np.cumsum(channels).tolist()
    lines = [
        layer.in_height * layer.in_width if count == layer.in_channels else layer.inputs
        for layer, count in zip(layers, channels, strict=True)
    ]
    bounds = np.array([tap_bounds(layer) for layer in layers], dtype=np.float64)
    return _Columns(
        bounds=tuple(zip([0, *ends[:-1]], ends, strict=True)),
        largest=np.repeat(np.array(lines, dtype=np.float64), channels) * (1 + SLACK),
        fewest=np.repeat(bounds[:, 0], channels) * (1 - SLACK),
        most=np.repeat(bounds[:, 1], channels) * (1 + SLACK),
        choice=any(layer.kernel > 1 for layer in layers),
        every_channel=channels == tuple(layer.in_channels for layer in layers),
    )


def _lie_within(above_least: _Floats, below_most: _Floats) -> bool:
    """Tell whether all is well, in as few passes as that takes; NaN compares as false."""
    least = np.minimum.reduce(above_least, axis=None)
    rest = np.minimum.reduce(below_most, axis=None)
    return bool(least >= 0 and rest >= -SLACK)


def _batch(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Numbers of shape (samples, *shape); the axis of samples may be missing."""
    batch = array if array.ndim == 3 else array[None]
    if batch.shape[1:] != shape:
        rule = f"must have shape ({shape[0]}, {shape[1]}) or (samples, {shape[0]}, {shape[1]})"
        raise _UnfitError(f"{name}: {rule}, got {array.shape}")
    _require_numbers(name, batch)
    return batch


def _require(name: str, problem: str | None) -> None:
    if problem is not None:
        raise _UnfitError(f"{name}: {problem}")


def _require_numbers(name: str, array: NDArray[np.generic]) -> None:
    if array.dtype.kind not in "biuf":
        raise _UnfitError(f"{name}: must hold numbers, got {array.dtype}")


def _counted(spikes: NDArray[np.bool_], layer: Layer) -> NDArray[np.float64]:
    pixels = layer.in_height * layer.in_width
    maps = spikes.reshape(*spikes.shape[:2], layer.in_channels, pixels)
    counts: NDArray[np.float64] = maps.sum(axis=3, dtype=np.float64)
    return counts


def _tapped(spikes: NDArray[np.bool_], layer: Layer) -> _Floats:
    """Taps of spike trains, some samples at a time: they are floats in between."""
    some = max(1, _LINES_AT_A_TIME // (spikes.shape[1] * layer.inputs))
    parts = [spike_taps(layer, spikes[at : at + some]) for at in range(0, len(spikes), some)]
    return np.concatenate(parts)


_Array = TypeVar("_Array", bound=np.generic)


def _first(arrays: tuple[NDArray[_Array], ...], samples: int) -> tuple[NDArray[_Array], ...]:
    return tuple(array[:samples] for array in arrays)
