"""The command `explain`: what it prints, what it writes, what it refuses before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikemeter import _cli_explain
from spikemeter.cli import main
from spikemeter.predictor import LatencyPredictor

pytest.importorskip("plotly")
pytest.importorskip("shap")

from rich.console import Console

from spikemeter.calibration.explanation import VerifiedChange
from spikemeter.predictor.changes import Change
from spikemeter.predictor.explanation import explain_latency
from spikemeter.predictor.report.sections import report_sections

CONTENT: dict[str, Any] = {
    "dataset": "nmnist-saccade",
    "network": "8C3-MP2-12C3-MP2-10",
    "input": {"time_steps": 8},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONTENT), encoding="utf-8")
    return path


@pytest.fixture
def spikemeter(capsys: pytest.CaptureFixture[str]):
    """Run a command; its exit code, standard output and standard error."""

    def run(*words: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def changed(predictor: LatencyPredictor):
    """An explanation with one change, and what training and RTL made of it."""
    explanation = explain_latency(CONTENT, predictor=predictor)
    change = Change(
        knob="neuron.beta",
        before="0.9",
        after="0.5",
        config=explanation.config,
        estimate=explanation.estimate,
        cycles=-0.18,
        interval_cycles=(-0.22, -0.13),
        accuracy=-0.003,
        interval_accuracy=(-0.021, 0.012),
    )
    verified = VerifiedChange(
        change=change,
        before_cycles=50_000.0,
        after_cycles=45_000.0,
        before_accuracy=0.8,
        after_accuracy=0.79,
        samples=24,
        seeds=(0,),
    )
    return explanation, change, verified


def test_what_it_prints_is_what_python_gives(spikemeter, config, folder, predictor):
    code, out, err = spikemeter("explain", config, "--predictor", folder, "--json")
    assert (code, err) == (0, "")
    expected = explain_latency(config, predictor=predictor).to_dict()
    assert json.loads(out) == json.loads(json.dumps(expected))


def test_a_report_is_written_and_named(spikemeter, config, folder, predictor, tmp_path):
    path = tmp_path / "report.html"
    words = ["--predictor", folder, "--out", path, "--confidence", 0.8, "--seed", 3]
    code, out, err = spikemeter("explain", config, *words)
    assert (code, err) == (0, "")
    expected = explain_latency(config, predictor=predictor, confidence=0.8, seed=3)
    assert f"{expected.estimate.cycles:,.0f} cycles" in out
    assert "80 % interval" in out
    for knob in expected.cycles.importance(0.8)["knob"][:3]:
        assert knob in out
    assert out.rstrip().endswith(f"report: {path}")
    assert "neuron.threshold" in path.read_text(encoding="utf-8")


def test_without_a_place_nothing_is_written(spikemeter, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = spikemeter("explain", "--predictor", folder)
    assert code == 0
    assert "No configuration was given" in " ".join(out.split())
    assert not list(tmp_path.iterdir())


def test_a_space_is_compared_with(spikemeter, config, folder, tmp_path):
    space = tmp_path / "space.yaml"
    keys = {"neuron.beta": {"low": 0.5, "high": 0.95}, "surrogate.slope": [5, 25]}
    space.write_text(yaml.safe_dump({"base": CONTENT, "vary": keys}), encoding="utf-8")
    code, out, err = spikemeter("explain", "--space", space, "--predictor", folder, "--json")
    assert (code, err) == (0, "")
    knobs = {each["knob"] for each in json.loads(out)["cycles"]["importance"]}
    assert knobs == {"neuron.beta", "surrogate.slope"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "."], "out: must be the name of a file, got the folder"),
        (["--out", "missing/report.html"], "out: its folder must be there"),
        (["--verify", -1], "--verify: must be a number of changes, 0 to 5; got -1"),
        (["--verify", 6], "--verify: must be a number of changes, 0 to 5; got 6"),
        (["--seed", -1], "--seed: must be 0 or more, got -1"),
        (["--confidence", 1.5], "confidence"),
        (["--predictor", "missing"], "there is no predictor folder 'missing'"),
        (["--space", "missing.yaml"], "missing.yaml"),
        (["missing.yaml"], "missing.yaml"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(spikemeter, words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = spikemeter("explain", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_verified_is_refused_first(spikemeter, tmp_path):
    config = tmp_path / "config.yaml"
    content = CONTENT | {"hardware": {"backend": "published"}}
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    code, out, err = spikemeter("explain", config, "--verify", 1)
    assert (code, out) == (2, "")
    assert "hardware.backend" in err


@pytest.mark.rtl
def test_changes_are_trained_and_simulated(spikemeter, tmp_path):
    config, path = tmp_path / "config.yaml", tmp_path / "report.html"
    content = {
        "dataset": "digits-saccade",
        "network": "4C3-MP2-8C3-MP2-10",
        "input": {"height": 12, "width": 12, "time_steps": 4},
        "training": {"epochs": 4, "batch_size": 64},
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    code, out, err = spikemeter("explain", config, "--verify", 1, "--out", path, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    (verified,) = report["verified"]
    assert verified["knob"] == report["changes"][0]["knob"]
    before, after = verified["cycles"]["before"], verified["cycles"]["after"]
    assert verified["measured_cycles"] == pytest.approx(after / before - 1)
    assert report["report"] == str(path)
    assert f"<td>{round(after):,}</td>" in path.read_text(encoding="utf-8")


def test_where_no_change_is_proposed_nothing_is_verified(spikemeter, config, folder, predictor):
    assert not explain_latency(CONTENT, predictor=predictor).changes
    code, out, err = spikemeter("explain", config, "--predictor", folder, "--verify", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["verified"] == []


def test_changes_are_shown_beside_what_was_measured(changed):
    explanation, change, verified = changed
    explained = replace(explanation, changes=(change,), changes_note="[b]The rule.[/b]")
    console = Console(record=True, width=120)
    _cli_explain._show(console, {"report": "r.html"}, explanation=explained, verified=(verified,))
    shown = " ".join(console.export_text().split())
    assert "neuron.beta 0.9 -> 0.5 │ -18.0 % [-22.0, -13.0] │ -0.3 [-2.1, +1.2]" in shown
    assert "trained and simulated, 24 samples" in shown
    assert "-18.0 % [-22.0, -13.0] │ -10.0 % │ -0.3 [-2.1, +1.2] │ -1.0 │ outside" in shown
    assert "[b]The rule.[/b]" in shown


def test_the_page_has_a_table_of_what_was_measured(changed):
    explanation, _, verified = changed
    sections = report_sections(explanation, (verified,))
    (changes,) = [section for section in sections if section.id == "changes"]
    row = dict(zip(changes.tables[-1].columns, changes.tables[-1].rows[0], strict=True))
    assert row["cycles, predicted (%)"] == -18.0
    assert row["measured (%)"] == -10.0
    assert row["inside"] is False
    assert row["measured (points)"] == -1.0
