"""Data sets: events of a camera, binned into the spikes that enter a network."""

from __future__ import annotations

from .catalogue import ROOT_VARIABLE, describe
from .events import Recordings
from .frames import DataSplits, EventFrames, input_statistics, require_binary
from .recordings import fetch
from .saccade import SaccadeCamera, record
from .splits import DATA_VERSION, load_splits

__all__ = [
    "DATA_VERSION",
    "ROOT_VARIABLE",
    "DataSplits",
    "EventFrames",
    "Recordings",
    "SaccadeCamera",
    "describe",
    "fetch",
    "input_statistics",
    "load_splits",
    "record",
    "require_binary",
]
