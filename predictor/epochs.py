"""Latency of every epoch of a training, in microseconds: to a CSV file and to TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingToolError
from ..files import write_whole
from .estimate import LatencyEstimate

__all__ = ["EpochLog", "microseconds"]


class EpochLog:
    """Rows of ``epoch``, ``microseconds``, ``microseconds_low`` and ``microseconds_high``.

    Low and high are the ends of the interval. Where there is a forecast of the finished network,
    the same three follow with ``forecast_`` before them. TensorBoard has them under ``latency/``.

    Parameters
    ----------
    path : str, Path or None
        CSV file, written anew, and whole, with every row.
    tensorboard : SummaryWriter, str, Path or None
        A writer, or the folder of one that is made here.

    Attributes
    ----------
    rows : list of dict
        One for each epoch so far.

    Raises
    ------
    MissingToolError
        If TensorBoard is wanted and not installed.
    """

    def __init__(self, path: str | Path | None, tensorboard: Any) -> None:
        self.rows: list[dict[str, float]] = []
        self._path = None if path is None else Path(path)
        if self._path is not None and self._path.is_dir():
            raise InputError(f"csv: must be a file, got the folder {str(self._path)!r}")
        self._is_own = isinstance(tensorboard, str | Path)
        self._writer = _new_writer(tensorboard) if self._is_own else tensorboard

    def add(self, epoch: int, estimate: LatencyEstimate, forecast: LatencyEstimate | None) -> None:
        """Log an epoch.

        Raises
        ------
        InputError
            If the CSV file cannot be written.
        """
        numbers = microseconds(estimate)
        if forecast is not None:
            numbers |= {f"forecast_{name}": each for name, each in microseconds(forecast).items()}
        rows = [*self.rows, {"epoch": epoch, **numbers}]
        if self._path is not None:
            write_whole(self._path, _as_csv(rows).encode())
        self.rows = rows
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(f"latency/{name}", value, epoch)
            self._writer.flush()

    def close(self) -> None:
        """Close the writer, if it was made here; may be called again."""
        if self._is_own and self._writer is not None:
            self._writer.close()
        self._writer = None


def microseconds(estimate: LatencyEstimate) -> dict[str, float]:
    """Give the latency of an estimate and the ends of its interval, in microseconds."""
    per_cycle = estimate.microseconds / estimate.cycles
    low, high = estimate.interval_cycles
    return {
        "microseconds": estimate.microseconds,
        "microseconds_low": low * per_cycle,
        "microseconds_high": high * per_cycle,
    }


def _new_writer(folder: str | Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingToolError(
            "tensorboard is not installed, and this needs it; install spikemeter[loop]"
        ) from error
    return SummaryWriter(log_dir=str(folder))


def _as_csv(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
