"""The report as a file: whole, readable, safe, and of the numbers of the explanation."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from spikemeter.errors import InputError, MissingToolError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.report import check_report_path, render_report, write_report
from spikemeter.predictor.report.sections import report_sections
from spikemeter.predictor.report.sentences import change_sentence, summary_sentences
from spikemeter.predictor.report.style import amount, cell_text, percent

pytest.importorskip("plotly")
pytest.importorskip("shap")

from spikemeter.predictor.explanation import LatencyExplanation, explain_latency

CONTENT = {
    "dataset": "nmnist-saccade",
    "network": "8C3-MP2-12C3-MP2-10",
    "input": {"time_steps": 8},
}
HOSTILE = "<b>&amp;\"'</script><img src=x onerror=alert(1)>"
VOID = {"br", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Page(HTMLParser):
    """What stands in a page: elements with their attributes, text, and what each script holds."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.headings: list[int] = []
        self.rows: list[list[str]] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif self.open and self.open[-1] != "style":
            self.words.append(data)
        if self.open and self.open[-1] == "td":
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self, name: str) -> object:
        (found,) = [text for attributes, text in self.scripts if attributes.get("id") == name]
        return json.loads(found)


@pytest.fixture(scope="module")
def explanation(predictor: LatencyPredictor) -> LatencyExplanation:
    return explain_latency(CONTENT, predictor=predictor)


@pytest.fixture(scope="module")
def content(explanation: LatencyExplanation, predictor: LatencyPredictor) -> str:
    return render_report(explanation, predictor)


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


@pytest.fixture(scope="module")
def hostile(predictor: LatencyPredictor) -> Page:
    """The report of a predictor whose data set has a name with markup."""
    table = io.BytesIO()
    predictor.table().assign(dataset=HOSTILE).to_parquet(table)
    parts = predictor.parts
    crafted = LatencyPredictor(
        parts=replace(
            parts,
            statistics={HOSTILE: parts.statistics["nmnist-saccade"]},
            domain=replace(parts.domain, datasets=(HOSTILE,)),
            table=table.getvalue(),
        )
    )
    found = explain_latency(CONTENT | {"dataset": HOSTILE}, predictor=crafted)
    names = found.runs.assign(network=HOSTILE)
    return Page(render_report(replace(found, runs=names, chosen=HOSTILE), crafted))


def test_a_page_is_one_file_that_points_at_nothing_outside(page, content):
    assert content.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert len(content.encode()) < 8 * 2**20
    assert page.of("link") == page.of("iframe") == page.of("object") == []
    for tag, attributes in page.elements:
        assert (attributes.get("src") or "data:").startswith("data:"), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert not any(name.startswith("on") for name in attributes), tag
    styles = re.findall(r"<style>(.*?)</style>", content, flags=re.DOTALL)
    assert not any("url(" in style or "@import" in style for style in styles)


def test_the_policy_lets_exactly_these_scripts_run(page):
    (policy,) = [
        meta["content"]
        for meta in page.of("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    running = [text for attributes, text in page.scripts if "type" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in running]
    assert rules["script-src"].split() == [f"'sha256-{digest.decode()}'" for digest in digests]
    assert "http" not in policy


def test_links_lead_to_a_place_and_places_have_one_name(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    links = [attributes["href"][1:] for attributes in page.of("a")]
    assert len(links) > 10
    assert set(links) <= set(names)
    assert not {
        label
        for _, attributes in page.elements
        if (label := attributes.get("aria-labelledby")) and label not in names
    }


def test_headings_leave_no_level_out(page):
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(page.headings))


def test_every_chart_has_words_a_picture_and_its_numbers(explanation, page):
    charts = [chart for section in report_sections(explanation) for chart in section.charts]
    figures = page.data("figures")
    assert list(figures) == [chart.id for chart in charts]
    plots = {attributes.get("data-figure"): attributes for attributes in page.of("div")}
    pictures = [image["alt"] for image in page.of("img")]
    rows = {tuple(row) for row in page.rows}
    for chart in charts:
        assert plots[chart.id]["role"] == "img"
        assert plots[chart.id]["aria-label"] == chart.alt
        assert chart.alt in pictures
        assert len(chart.alt) > 30
        assert " ".join(chart.text.split()) in page.text
        assert chart.table.rows
        for row in chart.table.rows:
            assert len(row) == len(chart.table.columns)
            assert tuple(map(cell_text, row)) in rows


def test_the_summary_says_the_prediction_and_its_reasons_in_numbers(explanation, page):
    sentences = summary_sentences(explanation)
    whole = " ".join(sentences)
    estimate = explanation.estimate
    low, high = estimate.interval_cycles
    for value in (estimate.cycles, estimate.microseconds, low, high):
        assert amount(value) in sentences[0]
    most = max(estimate.layers, key=lambda layer: layer.cycles)
    total = sum(layer.cycles for layer in estimate.layers)
    assert f"Layer {most.name} takes {percent(most.cycles / total)}" in whole
    first = explanation.cycles.importance(0.9).iloc[0]
    assert f"{first['knob']} by {percent(np.expm1(first['mean_abs']))}" in whole
    assert explanation.changes_note in whole or change_sentence(explanation.changes[0]) in whole
    assert all(" ".join(sentence.split()) in page.text for sentence in sentences)


def test_where_knobs_go_together_it_is_said_beside_their_importance(explanation):
    pairs = pd.DataFrame({"first": ["neuron.beta"], "second": ["surrogate"], "strength": [0.71]})
    sections = report_sections(replace(explanation, correlated=pairs))
    (latency,) = [section for section in sections if section.id == "latency"]
    assert "neuron.beta and surrogate (0.71)" in " ".join(latency.paragraphs)


def test_where_nothing_moves_sparsity_it_is_said(predictor):
    space = {"base": CONTENT, "vary": {"hardware.encoder_width": [16, 32]}}
    found = explain_latency(space=space, predictor=predictor)
    (sparsity,) = [part for part in report_sections(found) if part.id == "sparsity"]
    assert sparsity.charts == ()
    assert sparsity.paragraphs[-1] == "Nothing that varies here moves sparsity."
    assert Page(render_report(found, predictor)).open == []


def test_what_is_not_known_and_how_to_read_it_are_there(explanation, page):
    assert explanation.unknowns
    for sentence in (*explanation.unknowns, explanation.scope):
        assert " ".join(sentence.split()) in page.text
    assert "Shapley value" in page.text
    assert (
        explanation.config.to_yaml().split()
        == page.text.split("defaults included.")[1].split("Made by")[0].split()
    )


def test_warnings_stand_in_the_summary(explanation):
    warned = replace(explanation, warnings=("space: it leaves the domain: training.lr",))
    summary, *_ = report_sections(warned)
    assert summary.id == "summary"
    assert summary.points == (*warned.warnings, *warned.estimate.warnings)


def test_names_with_markup_stay_text(hostile):
    assert hostile.open == []
    assert all(image["src"].startswith("data:") for image in hostile.of("img"))
    assert not hostile.of("b")
    assert hostile.text.count(" ".join(HOSTILE.split())) > 10
    assert yaml.safe_dump({"dataset": HOSTILE}).strip() in hostile.text
    figures = json.dumps(hostile.data("figures"))
    assert "<img" not in figures
    assert "&lt;img" in figures


def test_a_report_is_written_whole_under_any_name(explanation, predictor, tmp_path):
    path = tmp_path / "any name"
    path.write_text("older", encoding="utf-8")
    assert write_report(explanation, str(path), predictor=predictor) == path
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [file.name for file in tmp_path.iterdir()] == ["any name"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "must be the name of a file, got the folder"),
        ("new/a.html", "its folder must be there"),
    ],
)
def test_places_that_cannot_be_written_are_refused_first(name, rule, tmp_path):
    with pytest.raises(InputError, match=f"out: {rule}"):
        check_report_path(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingToolError, match=r"plotly .* install spikemeter\[explain\]"):
        check_report_path(tmp_path / "report.html")


def test_nothing_heavy_loads_before_a_report_is_made():
    command = (
        "import sys, spikemeter.predictor.report.page; "
        "print(sorted({'jinja2', 'plotly', 'matplotlib', 'shap', 'PIL'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_the_shipped_scripts_carry_their_licence():
    script = Path(__file__).parents[2] / "predictor" / "report" / "plotly-cartesian.min.js"
    head = script.read_text(encoding="utf-8")[:400]
    assert "plotly.js (cartesian - minified) v4.1.1" in head
    assert "MIT" in head
