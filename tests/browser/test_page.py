"""The report in a real browser: on a laptop, on a phone, in the dark, on paper, without scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.report import write_report
from spikemeter.predictor.report.sections import report_sections

pytest.importorskip("shap")

from spikemeter.predictor.explanation import LatencyExplanation, explain_latency

OpenPage = Callable[..., Page]
CONFIG = Path(__file__).parents[2] / "examples" / "digits.yaml"
HOSTILE = "<b>&amp;\"'</script><img src=x onerror=alert(1)>"
WIDTHS = (1280, 390)
PRINTED = 680
PLOTS = """() => [...document.querySelectorAll(".plot")].map((plot) => {
  const box = plot.getBoundingClientRect();
  const texts = [...plot.querySelectorAll(".main-svg text")].filter((it) => it.textContent.trim());
  const out = texts.map((text) => [text.textContent, text.getBoundingClientRect()]).filter(
    ([, at]) => at.width && (at.left < box.left - 1 || at.right > box.right + 1
                             || at.top < box.top - 1 || at.bottom > box.bottom + 1));
  const svg = plot.querySelector(".main-svg").getBoundingClientRect();
  return {
    id: plot.dataset.figure, left: box.left, right: box.right, svg: svg.width,
    marks: plot.querySelectorAll(".plot path, .plot rect, .plot image, .heatmaplayer image").length,
    texts: texts.length, out: out.map(([text]) => text),
  };
})"""
CONTRASTS = """() => {
  const channels = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).map((part) => part / 255).map(
      (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (channels(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, style, noscript, .heatmaplayer, .unseen, .skip")) continue;
    const inSvg = element instanceof SVGElement;
    const color = inSvg ? getComputedStyle(element).fill : getComputedStyle(element).color;
    const plot = element.closest(".plot");
    const [a, b] = [light(color), light(behind(plot || element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40), color]);
  }
  return found;
}"""


@pytest.fixture(scope="session")
def explanation() -> LatencyExplanation:
    return explain_latency(CONFIG)


@pytest.fixture(scope="session")
def report(explanation: LatencyExplanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(explanation, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def opened(report: Path, open_page: OpenPage) -> OpenPage:
    """Open the report and wait until all of it is drawn."""

    def open_report(path: Path = report, **settings: Any) -> Page:
        page = open_page(path, **settings)
        if settings.get("java_script", True):
            page.wait_for_selector("html[data-ready]")
        return page

    return open_report


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a predictor whose data set, and of runs whose networks, are named as markup."""
    table, shipped = io.BytesIO(), LatencyPredictor.default()
    parts = shipped.parts
    runs = shipped.table()
    runs.assign(dataset=runs["dataset"].replace("nmnist-saccade", HOSTILE)).to_parquet(table)
    names = tuple(HOSTILE if name == "nmnist-saccade" else name for name in parts.domain.datasets)
    crafted = LatencyPredictor(
        parts=replace(
            parts,
            statistics={**parts.statistics, HOSTILE: parts.statistics["nmnist-saccade"]},
            domain=replace(parts.domain, datasets=names),
            table=table.getvalue(),
        )
    )
    explanation = explain_latency({"dataset": HOSTILE, "network": "8C3-MP2-10"}, predictor=crafted)
    named = replace(explanation, runs=explanation.runs.assign(network=HOSTILE), chosen=HOSTILE)
    return write_report(
        named, tmp_path_factory.mktemp("hostile") / "report.html", predictor=crafted
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_every_plot_is_drawn_and_none_is_cut(opened, explanation, width):
    page = opened(width=width)
    plots = page.evaluate(PLOTS)
    charts = [chart.id for section in report_sections(explanation) for chart in section.charts]
    assert [plot["id"] for plot in plots] == charts
    for plot in plots:
        assert plot["marks"] > 0, plot
        assert plot["texts"] > 3, plot
        assert plot["out"] == [], plot
        assert plot["right"] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(opened, width):
    page = opened(width=width)
    for details in page.locator("details").all():
        details.evaluate("(it) => { it.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate(
        """(width) => [...document.querySelectorAll("main *")].filter(
          (it) => !it.closest(".scroll, pre, svg, .unseen") && it.checkVisibility()
                  && it.getBoundingClientRect().right > width + 1
        ).map((it) => it.outerHTML.slice(0, 80))""",
        width,
    )
    assert wide == []


def test_a_page_that_is_made_narrow_is_drawn_again(opened):
    page = opened(width=1280)
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every((it) => it.dataset.width < 390)"
    )
    assert all(plot["out"] == [] for plot in page.evaluate(PLOTS))


def table_of(page: Page, chart: str) -> list[list[str]]:
    rows = f"#{chart} tbody tr"
    return page.eval_on_selector_all(
        rows, "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def numbers(page: Page, chart: str, column: int) -> list[float]:
    return [float(row[column].replace(",", "")) for row in table_of(page, chart)]


def test_tables_sort_both_ways_by_mouse_and_by_keyboard(opened):
    page = opened()
    page.locator("#parity summary").click()
    headers = page.locator("#parity thead th")
    for start in (lambda it: it.click(), lambda it: it.press("Enter"), lambda it: it.press(" ")):
        header = headers.nth(2)
        start(header.get_by_role("button"))
        expect(header).to_have_attribute("aria-sort", "ascending")
        values = numbers(page, "parity", 2)
        assert values == sorted(values)
        start(header.get_by_role("button"))
        expect(header).to_have_attribute("aria-sort", "descending")
        assert numbers(page, "parity", 2) == sorted(values, reverse=True)
        headers.nth(0).get_by_role("button").click()
        expect(header).to_have_attribute("aria-sort", "none")
        names = [row[0] for row in table_of(page, "parity")]
        assert names in (sorted(names), sorted(names, reverse=True))


def test_numbers_of_a_plot_are_copied_as_they_are(opened, explanation):
    page = opened()
    page.locator("#cycles-importance summary").click()
    copy = page.locator("#cycles-importance").get_by_role("button", name="Copy as CSV")
    copy.click()
    expect(page.locator("#cycles-importance .said")).to_have_text("Copied.")
    copied = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    ranked = explanation.cycles.importance(explanation.estimate.confidence)
    shares = 100 * np.expm1(ranked["mean_abs"][: len(copied)])
    assert [row["knob"] for row in copied] == list(ranked["knob"][: len(copied)])
    found = [float(row["mean effect (percent)"]) for row in copied]
    np.testing.assert_allclose(found, shares, rtol=1e-5)


def test_copying_works_where_the_clipboard_is_refused(opened):
    page = opened()
    page.evaluate(
        """() => {
          Object.defineProperty(navigator, "clipboard", {value: undefined});
          const keep = () => { window.copied = document.activeElement.value; };
          document.addEventListener("copy", keep);
        }"""
    )
    page.locator("#changes").get_by_role("button", name="Copy as CSV").first.click()
    page.wait_for_function("() => window.copied")
    assert page.evaluate("window.copied").startswith("change,cycles (%)")
    assert page.evaluate("document.activeElement.textContent") == "Copy as CSV"


def test_a_plot_is_saved_as_a_vector_picture(opened):
    page = opened()
    page.locator("#waterfall summary").click()
    with page.expect_download() as started:
        page.locator("#waterfall").get_by_role("button", name="Save plot as SVG").click()
    assert started.value.suggested_filename == "waterfall.svg"
    assert "this configuration" in started.value.path().read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened, scheme):
    page = opened(color_scheme=scheme)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 300
    assert [each for each in found if each[0] < 4.5] == []


def test_plots_follow_a_change_to_dark(opened):
    page = opened(color_scheme="light")
    ground = (
        "() => getComputedStyle(document.querySelector('#waterfall .main-svg')).backgroundColor"
    )
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => ({ground})() === 'rgb(20, 24, 29)'")
    assert [each for each in page.evaluate(CONTRASTS) if each[0] < 4.5] == []


def test_print_clips_no_plot_and_is_light(opened):
    page = opened(color_scheme="dark")
    page.locator("#buckets summary").click()
    page.emulate_media(media="print")
    page.wait_for_function(f"() => document.querySelector('.plot').dataset.width === '{PRINTED}'")
    for plot in page.evaluate(PLOTS):
        assert plot["out"] == [], plot
        assert plot["left"] >= 0
        assert plot["right"] <= PRINTED
        assert plot["svg"] <= plot["right"] - plot["left"]
    ground = "getComputedStyle(document.querySelector('#waterfall .main-svg')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert [each for each in page.evaluate(CONTRASTS) if each[0] < 4.5] == []
    expect(page.locator("nav")).to_be_hidden()
    # Numbers that a reader has opened are printed, the others are not
    expect(page.locator("#buckets table")).to_be_visible()
    expect(page.locator("#parity details")).to_be_hidden()


def test_a_pdf_is_made_of_plots_drawn_for_paper(opened):
    page = opened(width=390)
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
          window.printed = [...document.querySelectorAll(".plot .main-svg")].map(
            (it) => it.getBoundingClientRect().width);
        })"""
    )
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert pdf.startswith(b"%PDF")
    widths = page.evaluate("window.printed")
    assert max(widths) == PRINTED
    assert set(widths) == {PRINTED, (PRINTED - 20) / 2}
    assert page.evaluate("Number(document.querySelector('.plot').dataset.width)") < 390


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(opened):
    page = opened()
    controls = page.evaluate(
        """() => {
          const all = "a[href], button, input, select, summary, textarea, [tabindex='0']";
          const found = [...document.querySelectorAll(all)].filter(
            (it) => it.checkVisibility({visibilityProperty: true}) && !it.disabled);
          found.forEach((it, place) => { it.dataset.place = place; });
          return found.length;
        }"""
    )
    reached, unseen = set(), []
    for _ in range(controls + 5):
        page.keyboard.press("Tab")
        place, outline, name = page.evaluate(
            """() => {
              const it = document.activeElement, style = getComputedStyle(it);
              const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
              return [it.dataset.place, seen, it.outerHTML.slice(0, 80)];
            }"""
        )
        if place is None:
            break
        reached.add(place)
        if not outline:
            unseen.append(name)
    assert len(reached) == controls > 60
    assert unseen == []


def test_every_control_and_picture_has_a_name(opened):
    page = opened()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
          "button, input, select, summary, img, [role=img], [role=region], table"
        )].filter((it) => {
          const labels = [...(it.labels || [])].map((label) => label.textContent).join("");
          const referred = (it.getAttribute("aria-labelledby") || "").split(" ").map(
            (id) => (document.getElementById(id) || {}).textContent || "").join("");
          const caption = it.caption ? it.caption.textContent : "";
          const own = it.matches("button, summary") ? it.textContent : "";
          const said = [it.getAttribute("aria-label"), it.alt, labels, referred, caption, own];
          return !said.some((text) => text && text.trim());
        }).map((it) => it.outerHTML.slice(0, 80))"""
    )
    assert nameless == []


@pytest.mark.parametrize("width", WIDTHS)
def test_without_scripts_there_are_pictures_and_tables(opened, explanation, width):
    page = opened(width=width, java_script=False)
    charts = [chart for section in report_sections(explanation) for chart in section.charts]
    pictures = page.locator("img.picture")
    assert pictures.count() == len(charts)
    for picture, chart in zip(pictures.all(), charts, strict=True):
        expect(picture).to_be_visible()
        assert picture.get_attribute("alt") == chart.alt
        box = picture.bounding_box()
        assert box is not None
        assert box["height"] > 80
        assert box["x"] + box["width"] <= width
    expect(page.locator(".plot").first).to_be_hidden()
    expect(page.get_by_role("button", name="Copy as CSV").first).to_be_hidden()
    page.locator("#parity summary").click()
    expect(page.locator("#parity table")).to_be_visible()
    assert f"{explanation.estimate.cycles:,.0f}" in page.locator("#what-if").inner_text()


def test_names_with_markup_do_nothing_and_are_read_as_they_are(opened, hostile):
    page = opened(hostile)
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    assert page.locator("img, b").count() == 0
    assert HOSTILE in page.locator("header .on").inner_text()
    assert HOSTILE in page.locator("#settings code").inner_text()
    page.locator("#pareto-front summary").click()
    assert HOSTILE in [row[0] for row in table_of(page, "pareto-front")]
    page.locator("#pareto-front .plot").scroll_into_view_if_needed()
    page.evaluate(
        """() => Plotly.Fx.hover(
          document.querySelector("#pareto-front .plot"), [{curveNumber: 0, pointNumber: 0}])"""
    )
    assert HOSTILE[:30] in (page.locator("#pareto-front .hoverlayer").text_content() or "")
