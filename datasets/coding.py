"""Spikes of still images without a camera: their rate or their time is the grey value.

The coding is snnTorch's; it and torch load only when something is coded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingToolError

if TYPE_CHECKING:
    import torch

__all__ = ["latency_coded", "rate_coded"]

_DARKEST = 0.01  # grey values below never spike


def rate_coded(
    images: NDArray[np.uint8], *, time_steps: int, gain: float, seed: int = 0
) -> Iterator[NDArray[np.bool_]]:
    """Draw spikes: in every step, each pixel spikes with a probability of gain x grey / 255.

    Parameters
    ----------
    images : ndarray of uint8, shape (images, height, width)
        Grey values.
    time_steps : int
        Steps.
    gain : float
        Probability of the brightest pixel, in (0, 1].
    seed : int, optional
        The noise of image i comes from (`seed`, i); the global generator is left as it was.

    Yields
    ------
    ndarray of bool, shape (time_steps, 1, height, width)
        Spikes of the next image.

    Raises
    ------
    MissingToolError
        If snnTorch is not installed.
    """
    _require_snntorch()
    import torch
    from snntorch import spikegen

    for number, image in enumerate(images):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(seed, number))
            spikes = spikegen.rate(_grey(image), num_steps=time_steps, gain=gain)
        yield spikes.numpy().astype(np.bool_)


def latency_coded(images: NDArray[np.uint8], *, time_steps: int) -> Iterator[NDArray[np.bool_]]:
    """Let every pixel spike once, the brightest in the first step and the darkest in the last.

    Parameters
    ----------
    images : ndarray of uint8, shape (images, height, width)
        Grey values.
    time_steps : int
        Steps, over which the grey values are spread linearly. Below 1 % of grey there is no spike.

    Yields
    ------
    ndarray of bool, shape (time_steps, 1, height, width)
        Spikes of the next image.

    Raises
    ------
    MissingToolError
        If snnTorch is not installed.
    """
    _require_snntorch()
    from snntorch import spikegen

    for image in images:
        spikes = spikegen.latency(
            _grey(image),
            num_steps=time_steps,
            threshold=_DARKEST,
            normalize=True,
            linear=True,
            clip=True,
        )
        yield spikes.numpy().astype(np.bool_)


def _require_snntorch() -> None:
    try:
        import snntorch  # noqa: F401
    except ImportError as error:
        raise MissingToolError(
            "coding images as spikes needs snnTorch, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error


def _grey(image: NDArray[np.uint8]) -> torch.Tensor:
    """Grey values from 0 to 1, with the one channel of an image."""
    import torch

    return torch.from_numpy(image[None].astype(np.float32) / np.float32(255))


def _seed(seed: int, number: int) -> int:
    """Turn the seed and the number of an image into a seed that has nothing to do with others."""
    digest = hashlib.sha256(f"rate:{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
