"""Known spikes: reading ``trace.npz`` of a run, or the file that ``spikes`` names.

Such a file holds, for every weighted layer i, either the spike trains that enter it
(``inputs_i``) or their counts per step and channel (``counts_i``, and ``taps_i`` where known), or
per step alone with a single channel. What does not fit the configuration is refused by the name of
the array.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..network import Layer
from .machine import SLACK, count_problem, tap_problem
from .timing import spike_taps

__all__ = ["KnownSpikes", "StatisticsLevel", "known_spikes", "read_spikes"]

_LARGEST_BYTES = 2 * 2**30

_Floats = NDArray[np.float64]

StatisticsLevel = Literal["taps", "channels", "layers"]
"""What is known of counted spikes: with their taps, per step and channel, or per step alone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownSpikes:
    """Spikes of some samples, as trains or as counts.

    Attributes
    ----------
    inputs : tuple of ndarray of bool, or None
        Spike trains that enter each weighted layer: (samples, time_steps, channels, height, width)
        for a convolution, (samples, time_steps, features) for a dense layer. None if only counts
        are known.
    counts : tuple of ndarray of float, shape (samples, time_steps, channels)
        Spikes that enter each weighted layer, per step and channel of the incoming map; a last
        axis of 1 holds those of all channels together.
    taps : tuple of ndarray of float, shape (samples, time_steps, channels), or None
        Kernel taps inside the frame of those spikes, if known of every layer that has any choice.
    outputs : ndarray of bool, shape (samples, time_steps, features), or None
        Spikes of the output layer, if known.
    every_channel : bool
        Whether the counts of all layers are known per channel.
    """

    inputs: tuple[NDArray[np.bool_], ...] | None
    counts: tuple[NDArray[np.float64], ...]
    taps: tuple[NDArray[np.float64], ...] | None
    outputs: NDArray[np.bool_] | None
    every_channel: bool

    @property
    def samples(self) -> int:
        """Samples that are known."""
        return len(self.counts[0])

    @property
    def level(self) -> StatisticsLevel:
        """What is known of the counts of every layer."""
        if self.taps is not None:
            return "taps"
        return "channels" if self.every_channel else "layers"

    def first(self, samples: int) -> KnownSpikes:
        """Keep the first samples alone."""
        return KnownSpikes(
            inputs=None if self.inputs is None else tuple(x[:samples] for x in self.inputs),
            counts=tuple(x[:samples] for x in self.counts),
            taps=None if self.taps is None else tuple(x[:samples] for x in self.taps),
            outputs=None if self.outputs is None else self.outputs[:samples],
            every_channel=self.every_channel,
        )


def read_spikes(
    path: Path, config: Config, *, refusal: type[InputError] = InputError
) -> KnownSpikes:
    """Read the spikes of every weighted layer and hold them against the configuration.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with ``inputs_0``, ``inputs_1``, … or ``counts_0``, ``counts_1``, …; the
        axis of samples may be missing. ``taps_i`` beside counts and ``outputs`` beside trains are
        optional.
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
        If the file cannot be read, an array is missing, or one has another shape or impossible
        values; the sentence names the array, what it must be, and what it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _LARGEST_BYTES:
            raise ValueError(f"its arrays take {size} bytes, at most {_LARGEST_BYTES} are allowed")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if _is_wanted(name)}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} is no array")
    except Exception as error:  # a damaged archive fails in more ways than can be listed
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise refusal(f"cannot read the spikes in {str(path)!r}: {reason}") from error
    try:
        return _checked(arrays, config)
    except _UnfitError as error:
        raise refusal(f"{error} (in {str(path)!r})") from error


def known_spikes(
    arrays: Mapping[str, NDArray[np.generic]],
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
        If an array is missing, or has another shape or impossible values.
    """
    try:
        for name in arrays:
            if not _is_wanted(name):
                raise _UnfitError(f"{name}: arrays are inputs_i, counts_i, taps_i and outputs")
        return _checked({name: _as_array(name, array) for name, array in arrays.items()}, config)
    except _UnfitError as error:
        raise refusal(str(error)) from error


class _UnfitError(Exception):
    """An array does not fit; becomes the refusal that the caller wants."""


def _as_array(name: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise _UnfitError(f"{name}: must be an array, got lists of different lengths") from error


def _is_wanted(name: str) -> bool:
    return name.startswith(("inputs_", "counts_", "taps_")) or name == "outputs"


def _checked(arrays: dict[str, NDArray[np.generic]], config: Config) -> KnownSpikes:
    layers, steps = config.layers, config.input.time_steps
    kind = next((kind for kind in ("inputs", "counts") if f"{kind}_0" in arrays), None)
    if kind is None:
        raise _UnfitError("inputs_0 or counts_0: one of them must be there, got neither")
    for index, layer in enumerate(layers):
        if f"{kind}_{index}" not in arrays:
            raise _UnfitError(f"{kind}_{index}: required for layer {layer.name}, got nothing")
    if f"{kind}_{len(layers)}" in arrays:
        rule = f"must not be there, {config.network} has {len(layers)} weighted layers"
        raise _UnfitError(f"{kind}_{len(layers)}: {rule}")
    outputs = None
    taps: tuple[NDArray[np.float64], ...] | None
    if kind == "inputs":
        inputs = tuple(
            _trains(f"inputs_{index}", arrays[f"inputs_{index}"], layer, steps)
            for index, layer in enumerate(layers)
        )
        for index, train in enumerate(inputs):
            _same_samples(f"inputs_{index}", len(train), len(inputs[0]))
        counts = tuple(_counted(x, layer) for x, layer in zip(inputs, layers, strict=True))
        taps = tuple(spike_taps(layer, x) for x, layer in zip(inputs, layers, strict=True))
        if "outputs" in arrays:
            outputs = _outputs(arrays["outputs"], (steps, layers[-1].out_channels))
            _same_samples("outputs", len(outputs), len(inputs[0]))
    else:
        inputs = None
        counts, taps = _counts_and_taps(arrays, layers, steps)
    every_channel = all(
        count.shape[2] == layer.in_channels for count, layer in zip(counts, layers, strict=True)
    )
    return KnownSpikes(
        inputs=inputs, counts=counts, taps=taps, outputs=outputs, every_channel=every_channel
    )


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
    if not np.isin(array, (0, 1)).all():
        odd = array[~np.isin(array, (0, 1))].flat[0]
        raise _UnfitError(f"{name}: spikes must be 0 or 1, got {odd}")
    return array.astype(np.bool_)


def _counts_and_taps(
    arrays: dict[str, NDArray[np.generic]], layers: tuple[Layer, ...], steps: int
) -> tuple[tuple[_Floats, ...], tuple[_Floats, ...] | None]:
    """Check counts of all layers, and their taps, if those are known of every layer with a choice.

    Values are checked side by side, which is one pass for all layers, and one by one only to say
    what is wrong.
    """
    given = []
    for index, layer in enumerate(layers):
        name = f"counts_{index}"
        array = arrays[name]
        channels = 1 if array.shape[-1:] == (1,) else layer.in_channels
        given.append(_batch(name, array, (steps, channels)))
        _same_samples(name, len(given[-1]), len(given[0]))
    columns = _columns(layers, tuple(array.shape[2] for array in given))
    together = np.concatenate(given, axis=2, dtype=np.float64)
    counts = columns.split(together)
    if not _lie_within(together, columns.most):
        for index, (layer, count) in enumerate(zip(layers, counts, strict=True)):
            _require(f"counts_{index}", count_problem(layer, count))
    known: dict[int, NDArray[np.generic]] = {}
    for index, (layer, count) in enumerate(zip(layers, counts, strict=True)):
        name = f"taps_{index}"
        if name in arrays:
            known[index] = _batch(name, arrays[name], count.shape[1:])
            if len(known[index]) != len(count):
                rule = f"must hold the {len(count)} samples of its counts"
                raise _UnfitError(f"{name}: {rule}, got {len(known[index])}")
        elif layer.kernel == 1:  # a spike has one
            known[index] = count
    if len(known) == len(layers):
        of_all = np.concatenate(list(known.values()), axis=2, dtype=np.float64)
        if _lie_within(of_all, columns.kernel * together):
            return counts, columns.split(of_all)
    for index, tap in known.items():
        problem = tap_problem(layers[index], tap.astype(np.float64), counts[index])
        _require(f"taps_{index}", problem)
    return counts, None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """All layers side by side, channel by channel."""

    bounds: tuple[tuple[int, int], ...]
    most: _Floats
    kernel: _Floats

    def split(self, together: _Floats) -> tuple[_Floats, ...]:
        """One array per layer."""
        return tuple(together[:, :, first:past] for first, past in self.bounds)


@lru_cache(maxsize=256)
def _columns(layers: tuple[Layer, ...], channels: tuple[int, ...]) -> _Columns:
    ends = np.cumsum(channels).tolist()
    lines = [
        layer.in_height * layer.in_width if count == layer.in_channels else layer.inputs
        for layer, count in zip(layers, channels, strict=True)
    ]
    return _Columns(
        bounds=tuple(zip([0, *ends[:-1]], ends, strict=True)),
        most=np.repeat(np.array(lines, dtype=np.float64), channels),
        kernel=np.repeat(np.array([layer.kernel**2 for layer in layers], np.float64), channels),
    )


def _lie_within(amounts: _Floats, most: _Floats) -> bool:
    """Tell whether all is well, in as few passes as that takes; NaN compares as false."""
    least = np.minimum.reduce(amounts, axis=None)
    rest = np.minimum.reduce(most - amounts, axis=None)
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
    if array.dtype.kind not in "iuf":
        raise _UnfitError(f"{name}: must hold numbers, got {array.dtype}")


def _counted(spikes: NDArray[np.bool_], layer: Layer) -> NDArray[np.float64]:
    pixels = layer.in_height * layer.in_width
    maps = spikes.reshape(*spikes.shape[:2], layer.in_channels, pixels)
    counts: NDArray[np.float64] = maps.sum(axis=3, dtype=np.float64)
    return counts
