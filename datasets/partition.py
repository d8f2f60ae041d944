"""Which samples train, choose and report: chosen by hashes, so that no library can change it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Indices", "official_split", "split_indices", "user_split"]

Numbers = NDArray[np.int64]
Indices = tuple[Numbers, Numbers, Numbers]
"""Numbers of the samples of train, validation and test."""

_SHARES = (0.7, 0.1)
"""Share of every class in train and validation; the rest is the test."""
_OFFICIAL_SHARES = (0.9, 0.1)
"""Share of every class of an official training split in train and validation."""
_VALIDATION_USERS = 8  # one of so many


def split_indices(name: str, labels: Numbers, keys: Sequence[str] | None = None) -> Indices:
    """Choose the samples of train, validation and test where nobody else has.

    Samples are put in the order of a hash of their key, which no library can change; each class
    gives its first 70 % to train, the next 10 % to validation and the rest to test.

    Parameters
    ----------
    name : str
        Name of the samples' source.
    labels : ndarray of int64, shape (samples,)
        Class of each sample.
    keys : sequence of str, optional
        What tells each sample from the others; by default its number.

    Returns
    -------
    tuple of ndarray of int64
        Numbers of the samples, classes mixed.
    """
    train, validation, test = _dealt(name, labels, np.arange(len(labels)), _SHARES, keys)
    return train, validation, test


def official_split(
    name: str, labels: Numbers, is_test: NDArray[np.bool_], keys: Sequence[str] | None = None
) -> Indices:
    """Keep an official test split, and cut the validation split from the other samples.

    Parameters
    ----------
    name, labels, keys
        As in `split_indices`.
    is_test : ndarray of bool, shape (samples,)
        Samples that others test on.

    Returns
    -------
    tuple of ndarray of int64
        Of every class 90 % of the other samples train; classes are mixed.
    """
    train, validation, _ = _dealt(name, labels, np.flatnonzero(~is_test), _OFFICIAL_SHARES, keys)
    return train, validation, _shuffled(f"{name}:split", np.flatnonzero(is_test), keys)


def user_split(
    name: str,
    users: NDArray[np.int64],
    is_test: NDArray[np.bool_],
    keys: Sequence[str] | None = None,
) -> Indices:
    """Keep an official test split, and set some users of the other samples aside to validate.

    Parameters
    ----------
    name, is_test, keys
        As in `official_split`.
    users : ndarray of int64, shape (samples,)
        Who was recorded.

    Returns
    -------
    tuple of ndarray of int64
        One user in eight validates, at least one; nobody is in two splits.

    Raises
    ------
    ValueError
        If fewer than two users are left for training, or one of them is in the test, too.
    """
    known = np.unique(users[~is_test])
    if shared := sorted(set(known.tolist()) & set(users[is_test].tolist())):
        raise ValueError(f"no user may be in train and test, got user {shared[0]} in both")
    if known.size < 2:
        raise ValueError(f"two users or more must be there to train, got {known.size}")
    chosen = _shuffled(f"{name}:users", known, None)[
        : max(1, round(known.size / _VALIDATION_USERS))
    ]
    validates = np.isin(users, chosen)
    parts = (~is_test & ~validates, validates, is_test)
    train, validation, test = (
        _shuffled(f"{name}:split", np.flatnonzero(part), keys) for part in parts
    )
    return train, validation, test


def _dealt(
    name: str,
    labels: Numbers,
    members: NDArray[np.intp],
    shares: tuple[float, float],
    keys: Sequence[str] | None,
) -> Indices:
    """Deal the members of each class into three parts: two shares and the rest."""
    order = _shuffled(name, members, keys)
    part = np.empty(len(order), dtype=np.int64)
    for label in np.unique(labels[members]):
        of_class = np.flatnonzero(labels[order] == label)
        ends = [round(len(of_class) * share) for share in (shares[0], shares[0] + shares[1])]
        part[of_class] = np.searchsorted(ends, np.arange(len(of_class)), side="right")
    # Shuffled again: classes cross the ends of the shares at different places of the first order
    train, validation, rest = (_shuffled(f"{name}:split", order[part == i], keys) for i in range(3))
    return train, validation, rest


def _shuffled(name: str, numbers: NDArray[np.int64], keys: Sequence[str] | None) -> Numbers:
    """Order sample numbers by the hash of their key, so that no library's random stream matters."""
    hashes = {
        number: hashlib.sha256(f"{name}:{number if keys is None else keys[number]}".encode())
        for number in numbers.tolist()
    }
    order = sorted(hashes, key=lambda number: hashes[number].digest())
    return np.array(order, dtype=np.int64)
