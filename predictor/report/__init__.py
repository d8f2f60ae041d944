"""The report of an explanation: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .page import check_report_path, render_report, write_report

__all__ = ["check_report_path", "render_report", "write_report"]

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, ".page"))
