"""The panel in the hands of a reader: sliders, keys, a phone, a printer, a screen reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

from spikemeter import Config, LatencyPredictor, predict_latency
from spikemeter.config import load_config
from spikemeter.predictor.report.whatif import fallback_html, panel_model

CONFIG = load_config({"dataset": "nmnist-saccade", "network": "16C3-MP2-16C3-MP2-10"})
TOLD_OTHERWISE = {
    "a circuit": {"neuron": {"model": "lapicque", "R": 2, "C": 4}},
    "a matched neuron": {"neuron": {"model": "lapicque", "beta": 0.8, "match": "both"}},
    "a beta that Lapicque cannot have": {"neuron": {"beta": 0.1, "reset": "zero"}},
    "a width": {"surrogate": {"name": "atan", "width": 0.4}},
    "a height and a width": {"surrogate": {"name": "spike_rate_escape", "slope": 3, "width": 0.5}},
    "no slope": {"surrogate": {"name": "straight_through"}},
}
MOVES = 30
MOST_MS = 50
HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>"


def model_of(config: Config) -> dict[str, Any]:
    return panel_model(config, LatencyPredictor.default().parts, 0.9)


def panel_of(**sections: Any) -> dict[str, Any]:
    return model_of(load_config({**CONFIG.model_dump(), **sections}))


@pytest.fixture
def panel(open_page, panel_file) -> Page:
    return open_page(panel_file(model_of(CONFIG)))


def figures(page: Page) -> dict[str, str]:
    """What the result says, by its terms."""
    return dict(
        zip(
            page.locator(".whatif-result dt").all_inner_texts(),
            page.locator(".whatif-result dd").all_inner_texts(),
            strict=True,
        )
    )


def texts(config: Config, before: Config) -> dict[str, str]:
    """What it has to say."""
    estimate, own = predict_latency(config), predict_latency(before)
    (low, high), clock = estimate.interval_cycles, config.hardware.clock_mhz
    assert estimate.accuracy is not None
    assert estimate.interval_accuracy is not None
    least, most = (100 * share for share in estimate.interval_accuracy)
    change = f"{100 * (estimate.microseconds / own.microseconds - 1):+.1f}"
    return {
        "Predicted latency": f"{estimate.microseconds:,.1f} µs",
        "90 % interval": f"{low / clock:,.1f} to {high / clock:,.1f} µs",
        "Cycles": f"{estimate.cycles:,.0f} ({low:,.0f} to {high:,.0f})",
        "Change": "no change" if float(change) == 0 else f"{change} %",
        "Accuracy": f"{100 * estimate.accuracy:.1f} % ({least:.1f} to {most:.1f} %)",
    }


def changed(page: Page, config: Config) -> Config:
    """Put the settings that the panel offers to copy over those of the configuration."""
    content = config.model_dump()
    for section, values in (yaml.safe_load(page.locator("pre").inner_text()) or {}).items():
        content[section] |= values
    return load_config(content)


def check_figures(page: Page, config: Config) -> None:
    assert figures(page) == texts(changed(page, config), config)


def controls(page: Page) -> Locator:
    return page.locator(".whatif-controls :is(input, select):visible")


def test_every_slider_shows_the_numbers_of_python(panel):
    check_figures(panel, CONFIG)
    for slider in panel.get_by_role("slider").all():
        values = set()
        for key in ("ArrowRight", "ArrowLeft", "End", "Home"):
            slider.press(key)
            check_figures(panel, CONFIG)
            values.add(slider.get_attribute("aria-valuetext"))
        assert len(values) >= 2
    assert changed(panel, CONFIG).neural_cores == (1, 1, 1)
    layers = predict_latency(changed(panel, CONFIG)).layers
    rows = [row.split("\t") for row in panel.locator("tbody tr").all_inner_texts()]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [each.name, f"{each.input_rate:.3f}", f"{each.firing_rate:.3f}", f"{each.cycles:,.0f}"]
        for each in layers
    ]


def test_a_mouse_moves_a_slider(panel):
    slider = panel.get_by_label("threshold")
    box = slider.bounding_box()
    assert box is not None
    panel.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    panel.mouse.down()
    panel.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
    panel.mouse.up()
    assert changed(panel, CONFIG).neuron.threshold > 1.5
    check_figures(panel, CONFIG)


@pytest.mark.parametrize("sections", TOLD_OTHERWISE.values(), ids=TOLD_OTHERWISE)
def test_every_name_leads_to_a_whole_configuration(open_page, panel_file, sections):
    config = load_config({**CONFIG.model_dump(), **sections})
    page = open_page(panel_file(model_of(config)))
    check_figures(page, config)
    for _ in range(2):  # there, and back to where each name was left
        for choice in page.locator("select:visible").all():
            for name in choice.locator("option").all_inner_texts():
                choice.select_option(name)
                check_figures(page, config)
    page.get_by_role("button", name="Reset").click()
    assert changed(page, config) == config


def test_a_name_brings_back_the_slope_that_it_was_left_with(panel):
    name, slope = panel.get_by_label("name"), panel.get_by_label("slope")
    slope.press("ArrowRight")
    left = slope.get_attribute("aria-valuetext")
    name.select_option("atan")
    assert changed(panel, CONFIG).surrogate.slope == 2
    name.select_option("fast_sigmoid")
    assert slope.get_attribute("aria-valuetext") == left == "30"
    panel.get_by_role("button", name="Reset").click()
    name.select_option("atan")
    name.select_option("fast_sigmoid")
    assert slope.get_attribute("aria-valuetext") == "25"


def test_a_beta_means_the_same_under_another_model(panel):
    panel.get_by_label("beta").press("ArrowLeft")
    panel.get_by_label("model").select_option("lapicque")
    assert changed(panel, CONFIG).neuron.beta == 0.89


def test_what_is_changed_is_marked_and_reset_takes_it_back(panel):
    first = figures(panel)
    panel.get_by_label("beta").press("ArrowLeft")
    panel.get_by_label("schedule").select_option("step_pipelined")
    panel.get_by_label("batch_norm").uncheck()
    marked = panel.locator(".whatif-changed")
    assert [row.strip() for row in marked.locator("label").all_inner_texts()] == [
        "beta", "batch_norm", "schedule",
    ]  # fmt: skip
    assert "was 0.9" in marked.first.inner_text()
    assert panel.locator("pre").inner_text().splitlines() == [
        "neuron:", "  beta: 0.89",
        "training:", "  batch_norm: false",
        "hardware:", "  schedule: step_pipelined",
    ]  # fmt: skip
    panel.get_by_role("button", name="Reset").press("Enter")
    assert marked.count() == 0
    assert figures(panel) == first
    assert panel.locator("pre").inner_text() == "# no setting is changed"


def test_settings_are_copied(panel):
    panel.get_by_label("cores of 1:16C3").press("End")
    panel.get_by_role("button", name="Copy settings").click()
    expect(panel.locator(".whatif-status")).to_have_text("Copied.")
    copied = panel.evaluate("navigator.clipboard.readText()")
    assert yaml.safe_load(copied) == {"hardware": {"neural_cores": [4, 16, 10]}}


def test_settings_are_selected_where_the_clipboard_is_closed(panel):
    panel.get_by_label("epochs").press("Home")
    panel.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject('closed'); }")
    panel.get_by_role("button", name="Copy settings").click()
    expect(panel.locator(".whatif-status")).to_contain_text("Selected")
    assert panel.evaluate("getSelection().toString()").split() == ["training:", "epochs:", "4"]


def test_a_keyboard_reaches_everything_in_order(panel):
    wanted = [*controls(panel).all(), *panel.get_by_role("button", name="Reset").all()]
    wanted += [panel.locator("pre"), panel.get_by_role("button", name="Copy settings")]
    for element in wanted:
        panel.keyboard.press("Tab")
        expect(element).to_be_focused()
        outline = element.evaluate("element => getComputedStyle(element).outlineWidth")
        assert float(outline.removesuffix("px")) >= 2


def test_every_control_has_a_name_in_a_named_group_and_a_value_as_text(panel):
    groups = panel.get_by_role("group")
    assert groups.locator("legend").all_inner_texts() == [
        "Neuron", "Surrogate", "Training", "Hardware",
    ]  # fmt: skip
    for control in controls(panel).all():
        number = control.get_attribute("id")
        label = panel.locator(f"label[for={number}]").inner_text()
        output = panel.locator(f"output[for={number}]")
        assert label
        assert output.text_content()
        assert output.get_attribute("aria-live") == "off"
        expect(control).to_have_accessible_name(label)
    slider = panel.get_by_role("slider", name="lr")
    assert slider.get_attribute("aria-valuetext") == "0.001"
    panel.get_by_label("beta").press("Home")
    expect(panel.get_by_label("beta")).to_have_accessible_description("was 0.9")


def test_a_screen_reader_hears_the_last_of_many_moves_only(panel):
    status = panel.locator(".whatif-status")
    status.evaluate(
        "element => { globalThis.heard = []; new MutationObserver(() => "
        "heard.push(element.textContent)).observe(element, {childList: true}); }"
    )
    for _ in range(10):
        panel.get_by_label("beta").press("ArrowLeft")
    latency, change = figures(panel)["Predicted latency"], figures(panel)["Change"]
    said = f"{latency.removesuffix(' µs')} microseconds, {change}."
    expect(status).to_contain_text(said)
    assert [text.strip() for text in panel.evaluate("heard")] == [said]


def test_a_move_shows_at_once(panel):
    taken = panel.evaluate(
        """moves => {
          const slider = document.querySelector("input[type=range]");
          const times = [];
          for (let move = 0; move < moves; move += 1) {
            slider.value = move;
            const start = performance.now();
            slider.dispatchEvent(new Event("input"));
            document.body.offsetHeight;  // with the layout that it takes
            times.push(performance.now() - start);
          }
          return times;
        }""",
        MOVES,
    )
    assert len(taken) == MOVES
    assert sorted(taken)[MOVES // 2] < MOST_MS


def test_leaving_the_calibrated_range_is_said_by_its_knobs(open_page, panel_file):
    page = open_page(
        panel_file(
            panel_of(
                network="64C3-MP2-10",
                neuron={"beta": 0.05, "threshold": 9},
                surrogate={"name": "sso"},
                training={"lr": 0.5},
            )
        )
    )
    said = page.locator(".whatif-outside").inner_text()
    assert said.startswith("Outside the calibrated range: ")
    knobs = set(re.split(", ", said.partition(": ")[2].removesuffix(".")))
    assert knobs == {
        "network", "neuron.beta", "neuron.threshold", "surrogate.name", "training.lr",
    }  # fmt: skip
    page.get_by_label("beta").press("End")
    assert "neuron.beta" not in page.locator(".whatif-outside").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, panel_file, scheme):
    page = open_page(panel_file(model_of(CONFIG)), color_scheme=scheme)
    page.get_by_label("beta").press("Home")
    selectors = ("strong", "dt", "legend", ".whatif-before:not(:empty)", "caption", "button", "pre")
    for selector in selectors:
        ink, ground = colors(page, selector)
        lighter, darker = sorted([luminance(ink), luminance(ground)], reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (selector, ink, ground)
    assert (luminance(ground) < 0.2) == (scheme == "dark")


def colors(page: Page, selector: str) -> Iterator[tuple[float, ...]]:
    """Ink of an element, and what is painted behind it; each color as red, green and blue."""
    return page.locator(f".whatif {selector}").first.evaluate(
        """element => {
          const pixel = (...colors) => {
            const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
            const context = canvas.getContext("2d");
            for (const color of colors) {
              context.fillStyle = color;
              context.fillRect(0, 0, 1, 1);
            }
            return Array.from(context.getImageData(0, 0, 1, 1).data.slice(0, 3));
          };
          const grounds = [];
          for (let each = element; each; each = each.parentElement) {
            grounds.unshift(getComputedStyle(each).backgroundColor);
          }
          const probe = Object.assign(document.createElement("p"), {style: "color: Canvas"});
          document.body.append(probe);
          const canvas = getComputedStyle(probe).color;
          probe.remove();
          return [pixel(getComputedStyle(element).color), pixel(canvas, ...grounds)];
        }"""
    )


def luminance(color: tuple[float, ...]) -> float:
    """Relative luminance of WCAG 2."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in color)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_phone_shows_all_of_it(open_page, panel_file):
    page = open_page(panel_file(model_of(CONFIG)), width=390, height=844)
    page.get_by_label("beta").press("Home")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in page.locator(".whatif :is(label, input, select, output, td, dd, button)").all():
        box = part.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 390)
    page.get_by_label("clock_mhz").press("End")
    expect(page.locator(".whatif-result strong")).to_be_in_viewport()
    for control in reversed(controls(page).all()[:-1]):
        page.keyboard.press("Shift+Tab")
        result, focused = page.locator(".whatif-result").bounding_box(), control.bounding_box()
        assert focused["y"] >= result["y"] + result["height"] or focused["y"] < result["y"]


def test_paper_shows_the_current_values(panel):
    panel.get_by_label("beta").press("ArrowLeft")
    panel.emulate_media(media="print")
    expect(panel.get_by_text("0.89", exact=True)).to_be_visible()
    expect(panel.locator("output", has_text="fast_sigmoid")).to_be_visible()
    assert controls(panel).count() == 0
    assert panel.get_by_role("button").count() == 0
    assert panel.evaluate("document.documentElement.scrollWidth") <= 1280


def test_without_scripts_the_prediction_stands_there(open_page, panel_file):
    fallback = fallback_html(predict_latency(CONFIG))
    page = open_page(panel_file(model_of(CONFIG), fallback=fallback), java_script=False)
    said, wanted = page.locator("main").inner_text(), texts(CONFIG, CONFIG)
    for name in ("Predicted latency", "90 % interval", "Cycles", "Accuracy"):
        assert wanted[name] in said


def test_another_machine_has_a_sentence_and_no_controls(open_page, panel_file):
    page = open_page(panel_file(panel_of(hardware={"backend": "published"})))
    assert "hardware.backend 'published'" in page.locator("#panel").inner_text()
    assert controls(page).count() == 0


def test_hostile_names_are_text(open_page, panel_file):
    model = panel_of(dataset=HOSTILE, input={"statistics": [[9, 4]] * 8})
    model["layers"][0]["name"] = HOSTILE
    model["domain"]["strange"] = [HOSTILE]
    model["controls"][-1]["label"] = HOSTILE
    page = open_page(panel_file(model))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    assert page.get_by_text(HOSTILE).count() == 3
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
