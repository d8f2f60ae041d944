"""Data sets: events of a camera, binned into the spikes that enter a network."""

from __future__ import annotations

from .events import Recordings
from .frames import DataSplits, EventFrames, input_statistics
from .saccade import SaccadeCamera, record
from .splits import DATA_VERSION, load_splits

__all__ = [
    "DATA_VERSION",
    "DataSplits",
    "EventFrames",
    "Recordings",
    "SaccadeCamera",
    "input_statistics",
    "load_splits",
    "record",
]
