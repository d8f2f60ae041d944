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
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import InputError
from ..network import Layer
from .timing import spike_taps

__all__ = ["KnownSpikes", "StatisticsLevel", "known_spikes", "read_spikes"]

_LARGEST_BYTES = 2 * 2**30

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
        return _checked({name: np.asarray(array) for name, array in arrays.items()}, config)
    except _UnfitError as error:
        raise refusal(str(error)) from error


class _UnfitError(Exception):
    """An array does not fit; becomes the refusal that the caller wants."""


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
        counts = tuple(_counted(x, layer) for x, layer in zip(inputs, layers, strict=True))
        taps = tuple(spike_taps(layer, x) for x, layer in zip(inputs, layers, strict=True))
        if "outputs" in arrays:
            outputs = _outputs(arrays["outputs"], (steps, layers[-1].out_channels))
    else:
        inputs = None
        counts = tuple(_counts(arrays, index, layer, steps) for index, layer in enumerate(layers))
        taps = _taps(arrays, counts, layers, steps)
    for index, array in enumerate(counts):
        _same_samples(f"{kind}_{index}", len(array), len(counts[0]))
    if outputs is not None:
        _same_samples("outputs", len(outputs), len(counts[0]))
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


def _counts(
    arrays: dict[str, NDArray[np.generic]], index: int, layer: Layer, steps: int
) -> NDArray[np.float64]:
    name = f"counts_{index}"
    array = arrays[name]
    pixels = layer.in_height * layer.in_width
    if array.ndim and array.shape[-1] == 1:
        return _amounts(
            name, array, (steps, 1), f"{layer.inputs} inputs of the layer", layer.inputs
        )
    limit = f"{pixels} neurons of a channel"
    return _amounts(name, array, (steps, layer.in_channels), limit, pixels)


def _taps(
    arrays: dict[str, NDArray[np.generic]],
    counts: tuple[NDArray[np.float64], ...],
    layers: tuple[Layer, ...],
    steps: int,
) -> tuple[NDArray[np.float64], ...] | None:
    """Taps of all layers, or None if some are missing; with a 1x1 kernel a spike has one."""
    taps = []
    for index, (layer, count) in enumerate(zip(layers, counts, strict=True)):
        name, most = f"taps_{index}", layer.kernel**2
        if name in arrays:
            limit, shape = f"{most} taps of a spike", (steps, count.shape[2])
            taps.append(_amounts(name, arrays[name], shape, limit, most * count))
            _same_samples(name, len(taps[-1]), len(count))
        elif layer.kernel == 1:
            taps.append(count)
    return tuple(taps) if len(taps) == len(layers) else None


def _amounts(
    name: str,
    array: NDArray[np.generic],
    shape: tuple[int, int],
    limit: str,
    most: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    batch = array if array.ndim == 3 else array[None]
    if batch.shape[1:] != shape:
        rule = f"must have shape ({shape[0]}, {shape[1]}) or (samples, {shape[0]}, {shape[1]})"
        raise _UnfitError(f"{name}: {rule}, got {array.shape}")
    _require_numbers(name, batch)
    amounts = batch.astype(np.float64)
    same_shape = not isinstance(most, np.ndarray) or most.shape == amounts.shape
    if same_shape and _lie_within(amounts, most):
        return amounts
    if not np.isfinite(amounts).all():
        raise _UnfitError(f"{name}: must be finite, got {amounts[~np.isfinite(amounts)].flat[0]}")
    if amounts.min(initial=0) < 0:
        raise _UnfitError(f"{name}: must not be negative, got {amounts.min():g}")
    if not same_shape:
        rule = f"must hold the {len(np.asarray(most))} samples of its counts"
        raise _UnfitError(f"{name}: {rule}, got {len(amounts)}")
    if (amounts > np.asarray(most) + 1e-6).any():
        rule = f"must be at most the {limit}"
        raise _UnfitError(f"{name}: {rule}, got {amounts[amounts > np.asarray(most) + 1e-6][0]:g}")
    return amounts


def _lie_within(amounts: NDArray[np.float64], most: float | NDArray[np.float64]) -> bool:
    """Tell whether all is well, in as few passes as that takes; NaN compares as false."""
    return bool(((amounts >= 0) & (amounts <= most + 1e-6)).all())


def _require_numbers(name: str, array: NDArray[np.generic]) -> None:
    if array.dtype.kind not in "iuf":
        raise _UnfitError(f"{name}: must hold numbers, got {array.dtype}")


def _counted(spikes: NDArray[np.bool_], layer: Layer) -> NDArray[np.float64]:
    pixels = layer.in_height * layer.in_width
    maps = spikes.reshape(*spikes.shape[:2], layer.in_channels, pixels)
    counts: NDArray[np.float64] = maps.sum(axis=3, dtype=np.float64)
    return counts
