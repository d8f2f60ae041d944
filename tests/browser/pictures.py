"""Take the pictures of a report that the documentation shows: on a laptop, and on a phone.

python tests/browser/pictures.py docs/images
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from spikemeter.predictor.explanation import explain_latency
from spikemeter.predictor.report import write_report

CONFIG = Path(__file__).parents[2] / "examples" / "digits.yaml"
LAPTOP, PHONE = (1280, 900), (390, 1500)
# On the laptop one beside the other, each from the top of an element on
REGIONS = (("header", "light"), ("#latency", "light"), ("#search", "dark"))
SCREENS = (("header", "light"), ("#waterfall", "light"), ("#search", "dark"), ("#pareto", "dark"))
HEIGHT = 2150
SHOWN = 0.62
COLORS = 256


def main(folder: Path) -> None:
    with TemporaryDirectory() as scratch, sync_playwright() as playwright:
        report = write_report(explain_latency(CONFIG), Path(scratch) / "report.html")
        root = os.geteuid() == 0  # Chromium refuses its sandbox to root
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            args=["--disable-gpu", *(["--no-sandbox"] if root else [])],
        )
        laptop = [taken(browser, report, LAPTOP, HEIGHT, *region) for region in REGIONS]
        keep([each.resize(scaled(each, SHOWN)) for each in laptop], folder / "report-1280.png")
        phone = [taken(browser, report, PHONE, PHONE[1], *screen) for screen in SCREENS]
        keep(phone, folder / "report-390.png")
        browser.close()


def taken(
    browser: Browser, report: Path, size: tuple[int, int], height: int, selector: str, scheme: str
) -> Image.Image:
    """Take a part of a page, from the top of an element on."""
    width = size[0]
    page: Page = browser.new_page(
        viewport={"width": width, "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    left = 0.0 if selector == "header" else max(box["x"] - 20, 0.0)
    shown = min(width - left, box["width"] + 40 if left else width)
    clip = {"x": left, "y": box["y"], "width": shown, "height": float(height)}
    content = page.screenshot(full_page=True, clip=clip)  # type: ignore[arg-type]
    page.close()
    return Image.open(io.BytesIO(content)).convert("RGB")


def scaled(image: Image.Image, share: float) -> tuple[int, int]:
    return round(share * image.width), round(share * image.height)


def keep(parts: list[Image.Image], path: Path, gap: int = 12) -> None:
    """Put parts side by side into one small picture."""
    width = sum(part.width for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (width, max(part.height for part in parts)), "#b6c0ca")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + gap
    # Rare colors count as much as frequent ones
    few = whole.quantize(COLORS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {whole.width} x {whole.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
