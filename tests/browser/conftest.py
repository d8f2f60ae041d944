"""A real browser for the report: headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    sync_playwright,
)

from spikemeter.predictor.report.whatif import panel_script, panel_style, script_json

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_WITHOUT_BROWSER = (
    "browser: these tests need Chromium; install Debian's chromium, or name one in CHROMIUM"
)
_QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_IN_THE_PAGE = ("data:", "blob:", "about:")

OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("browser")


def _chromium() -> str:
    """Path of the browser; the tests fail without one, since a skipped check looks like a pass."""
    named = os.environ.get("CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        pytest.fail(_WITHOUT_BROWSER, pytrace=False)
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; every page gets a context of its own."""
    path = _chromium()
    # Chromium refuses its sandbox to root.
    arguments = [*_QUIET, "--no-sandbox"] if os.geteuid() == 0 else list(_QUIET)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Open a file in a fresh context; at the end nothing may have been complained or fetched.

    ``open_page(path, width=1280, height=800, color_scheme="light", java_script=True)`` gives the
    `Page`. Errors and warnings of the console, uncaught exceptions, and every request but that of
    the file itself are collected, and fail the test when it is over.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_file(
        path: Path,
        width: int = 1280,
        height: int = 800,
        color_scheme: str = "light",
        java_script: bool = True,
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=color_scheme,  # type: ignore[arg-type]
            java_script_enabled=java_script,
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        address = path.resolve().as_uri()

        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                complaints.append(f"console {message.type}: {message.text}")

        def on_request(request: Request) -> None:
            own = request.url.partition("#")[0] == address
            if not (own or request.url.startswith(_IN_THE_PAGE)):
                complaints.append(f"request: {request.url}")

        page.on("console", on_console)
        page.on("request", on_request)
        page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        page.goto(address)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def panel_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a page with nothing but the panel of the first of some models: ``panel_file(*models)``.

    ``models`` holds all of them, for scripts.
    """

    def write(*models: dict[str, Any], fallback: str = "") -> Path:
        page = tmp_path / "panel.html"
        page.write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>What if</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<style>{panel_style()}</style>"
            f'<main><div id="panel"></div><noscript>{fallback}</noscript></main>'
            f'<script type="application/json" id="models">{script_json(models)}</script>'
            f"<script>{panel_script()}</script><script>"
            'const models = JSON.parse(document.getElementById("models").textContent);'
            'spikemeter.mount(document.getElementById("panel"), models[0]);'
            "</script></html>",
            encoding="utf-8",
        )
        return page

    return write
