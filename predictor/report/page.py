"""One file of HTML that holds a whole report: markup, styles, scripts, numbers and pictures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, MissingToolError
from ...files import write_whole
from ..predict import LatencyPredictor
from .sections import report_sections
from .static import picture
from .style import THEME, amount, cell_text, percent
from .whatif import fallback_html, panel_model, panel_script, panel_style, script_json

if TYPE_CHECKING:
    from ..explanation import LatencyExplanation

__all__ = ["check_report_path", "render_report", "write_report"]

_PLOTLY = "plotly-cartesian.min.js"
_NEEDED = ("jinja2", "matplotlib", "plotly")
_DIGEST_SHOWN = 12


def write_report(
    explanation: LatencyExplanation,
    path: str | Path,
    *,
    predictor: LatencyPredictor | None = None,
    verified: Sequence[Any] = (),
) -> Path:
    """Write an explanation as one HTML file that needs no network.

    Parameters
    ----------
    explanation : LatencyExplanation
        From `explain_latency`.
    path : str or Path
        File to write, whole or not at all; its folder must be there.
    predictor : LatencyPredictor, optional
        That made it, for the what-if panel. Default: the one that ships.
    verified : sequence of VerifiedChange, optional
        Changes that were trained and simulated.

    Returns
    -------
    Path
        Where the report is.

    Raises
    ------
    InputError
        If `path` is a folder, or its folder is not there, or it cannot be written.
    MissingToolError
        If plotly, jinja2 or matplotlib is not installed.
    """
    path = check_report_path(path)
    predictor = predictor or LatencyPredictor.default()
    content = render_report(explanation, predictor, verified)
    # A lone surrogate in a name has no UTF-8
    write_whole(path, content.encode("utf-8", errors="replace"))
    return path


def check_report_path(path: str | Path) -> Path:
    """Refuse a place for a report before any work is done for it.

    Raises
    ------
    InputError
        If it is a folder, or its folder is not there.
    MissingToolError
        If a package is missing that a report needs.
    """
    from importlib.util import find_spec

    path = Path(path)
    if path.is_dir():
        raise InputError(f"out: must be the name of a file, got the folder {str(path)!r}")
    if not path.parent.is_dir():
        raise InputError(f"out: its folder must be there, got {str(path)!r}")
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingToolError(
                f"{package} is not installed, and a report needs it; install spikemeter[explain]"
            )
    return path


def render_report(
    explanation: LatencyExplanation, predictor: LatencyPredictor, verified: Sequence[Any] = ()
) -> str:
    """Make the HTML of a report.

    Notes
    -----
    A policy in the page lets nothing be fetched, and no script run but those that are written
    here: their hashes are in it. So a name with markup could do no harm even if it became markup.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = cell_text
    sections = report_sections(explanation, verified)
    charts = {chart.id: chart for section in sections for chart in section.charts}
    assert len(charts) == sum(len(section.charts) for section in sections), "anchors are unique"
    model = panel_model(explanation.config, predictor.parts, explanation.estimate.confidence)
    scripts = [_read(_PLOTLY), panel_script(), _read("report.js")]
    return environment.get_template("report.html.j2").render(
        sections=sections,
        pictures={
            name: base64.b64encode(picture(chart.figure, half=chart.half)).decode()
            for name, chart in charts.items()
        },
        tiles=_tiles(explanation),
        title=explanation.config.network,
        config=explanation.config,
        yaml=explanation.config.to_yaml(),
        fallback=fallback_html(explanation.estimate),
        data={
            "figures": script_json({name: _plain(chart.figure) for name, chart in charts.items()}),
            "theme": script_json(dict(THEME.values())),
            "model": script_json(model),
        },
        theme=THEME,
        style=_read("report.css") + panel_style(),
        scripts=scripts,
        policy=_policy(scripts),
        provenance=_provenance(predictor),
    )


def _tiles(explanation: LatencyExplanation) -> list[tuple[str, str, str]]:
    """Give the figures at the head of the page: name, value, interval."""
    estimate = explanation.estimate
    low, high = estimate.interval_cycles
    scale = estimate.microseconds / estimate.cycles
    tiles = [
        ("latency", f"{amount(estimate.microseconds)} µs",
         f"{amount(low * scale)} to {amount(high * scale)} µs"),
        ("cycles", amount(estimate.cycles), f"{amount(low)} to {amount(high)}"),
    ]  # fmt: skip
    if estimate.accuracy is not None and estimate.interval_accuracy is not None:
        worst, best = estimate.interval_accuracy
        tiles.append(
            ("accuracy", percent(estimate.accuracy), f"{percent(worst)} to {percent(best)}")
        )
    return tiles


def _provenance(predictor: LatencyPredictor) -> str:
    parts = predictor.parts
    digest = hashlib.sha256(parts.table).hexdigest()[:_DIGEST_SHOWN]
    runs = parts.scores.get("runs")
    counted = f"{runs:,} runs" if isinstance(runs, int) else "runs"
    return (
        f"Made by Spikemeter {version('spikemeter')}, with a predictor calibrated on {counted} "
        f"(SHA-256 of its table: {digest}...)."
    )


def _policy(scripts: Iterable[str]) -> str:
    """Content security policy: nothing is fetched, and only these scripts run."""
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _plain(figure: Any) -> Any:
    """Give a figure as plain values for JSON; arrays are bytes in base64."""
    return json.loads(figure.to_json(validate=False))


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
