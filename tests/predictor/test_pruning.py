"""Pruning a space, held against predictions of all its points and errors drawn at random."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from spikemeter import cli
from spikemeter.errors import ConfigError, InputError, PredictorError
from spikemeter.predictor import LatencyPredictor, pruning
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.judging import ErrorShares
from spikemeter.predictor.pruning import PrunedSpace, prune_space
from spikemeter.space import Range, read_space

BASE = {"dataset": "nmnist-saccade", "input": {"time_steps": 8}, "training": {"epochs": 5}}
VARY: dict[str, Any] = {
    "network": ["8C3-MP2-16C3-MP2-10", "8C3-8C3-MP2-10"],
    "neuron.beta": {"low": 0.4, "high": 0.95},
    "neuron.threshold": {"low": 0.4, "high": 1.8, "log": True},
    "surrogate.slope": [2, 10, 50],
    "training.lr": {"low": 5e-4, "high": 2e-2, "log": True},
    "hardware.neural_cores": [[8, 2, 10], [8, 4, 10]],
}
POINTS = 1024
SPACE = {"base": BASE, "vary": VARY, "sampler": "sobol", "runs": POINTS}


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    """The one that ships, whatever it has learned."""
    return LatencyPredictor.default()


@pytest.fixture(scope="module")
def predicted(predictor: LatencyPredictor) -> pd.DataFrame:
    """Every point of the space, predicted."""
    table = predictor.predict(read_space(SPACE).frame(0, POINTS))
    for end in ("low", "high"):
        table[f"{end}_us"] = table[f"interval_cycles.{end}"] / 100  # MHz
    return table


@pytest.fixture(scope="module")
def budget(predicted: pd.DataFrame) -> float:
    return float(predicted["microseconds"].quantile(0.3))


def kept_by_hand(predicted: pd.DataFrame, budget: float, accuracy: float = 0.0) -> pd.Series[bool]:
    return (predicted["low_us"] <= budget) & (predicted["interval_accuracy.high"] >= accuracy)


def test_kept_are_all_whose_interval_meets_the_budget(
    predictor: LatencyPredictor, predicted: pd.DataFrame, budget: float, tmp_path: Path
) -> None:
    wanted = float(predicted["interval_accuracy.high"].median())
    out = tmp_path / "kept.csv"
    ask = partial(prune_space, SPACE, budget_us=budget, predictor=predictor)
    pruned = ask(min_accuracy=wanted, out=out)
    report, kept = pruned.report, kept_by_hand(predicted, budget, wanted)
    assert list(pruned.kept.index) == list(np.flatnonzero(kept))
    assert (report.kept, report.removed, report.invalid) == (kept.sum(), (~kept).sum(), 0)
    assert 0 < report.kept < kept_by_hand(predicted, budget).sum() < report.candidates == POINTS
    lists = {"hardware.neural_cores": json.loads}
    written = pd.read_csv(out, index_col="candidate", converters=lists)
    pd.testing.assert_frame_equal(written, pruned.kept, check_dtype=False)
    assert list(written)[:6] == list(VARY)
    low = written["interval_microseconds.low"]
    np.testing.assert_allclose(written["microseconds"], predicted["microseconds"][kept], atol=1e-3)
    np.testing.assert_allclose(low, predicted["low_us"][kept], atol=1e-3)
    best = int(predicted["accuracy"][kept].idxmax())
    assert report.best["candidate"] == best
    assert report.best["knobs"] == read_space(SPACE).changes(best)
    assert report.best["microseconds"] == pytest.approx(predicted["microseconds"][best])


def test_what_is_left_of_a_knob_is_what_the_kept_points_have(
    predictor: LatencyPredictor, predicted: pd.DataFrame
) -> None:
    budget = float(predicted["low_us"].quantile(0.03))
    pruned = prune_space(SPACE, budget_us=budget, predictor=predictor)
    tightened = pruned.report.tightened
    assert list(tightened) == list(VARY)
    assert tightened["neuron.threshold"]["before"] == {"low": 0.4, "high": 1.8, "log": True}
    for key in ("neuron.beta", "neuron.threshold", "training.lr"):
        after = tightened[key]["after"]
        assert (after["low"], after["high"]) == (pruned.kept[key].min(), pruned.kept[key].max())
        assert pruned.space.vary[key] == Range(**after)
    slopes = set(pruned.kept["surrogate.slope"])
    left = [slope for slope in VARY["surrogate.slope"] if slope in slopes]
    assert tightened["surrogate.slope"]["after"]["choices"] == left
    assert tightened["hardware.neural_cores"]["after"]["choices"] == [[8, 4, 10]]  # faster
    again = prune_space(pruned.space, budget_us=budget, predictor=predictor).report
    assert again.kept / again.candidates > 1.5 * pruned.report.kept / POINTS


def test_blocks_come_to_the_same_as_the_whole(
    predictor: LatencyPredictor, budget: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pruned(name: str) -> tuple[PrunedSpace, bytes]:
        out = tmp_path / name
        done: list[tuple[int, int]] = []
        found = prune_space(
            SPACE, budget_us=budget, predictor=predictor, out=out, most_rows=200,
            progress=lambda *counts: done.append(counts),
        )  # fmt: skip
        assert done[-1] == (POINTS, POINTS)
        return found, out.read_bytes()

    whole, content = pruned("whole.csv")
    monkeypatch.setattr(pruning, "_AT_A_TIME", 300)
    parts, parts_content = pruned("parts.csv")
    assert parts_content == content
    assert len(parts.kept) == 200
    pd.testing.assert_frame_equal(parts.kept, whole.kept)
    for key, value in asdict(replace(whole.report, out=parts.report.out)).items():
        expected = pytest.approx(value) if isinstance(value, float) else value
        assert asdict(parts.report)[key] == expected, key


def test_memory_does_not_grow_with_the_candidates(
    predictor: LatencyPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_AT_A_TIME", 128)
    peaks = []
    for candidates in (256, 256, 1536):  # the first fills caches
        tracemalloc.start()
        prune_space(
            SPACE, budget_us=1e9, candidates=candidates, predictor=predictor, most_rows=10,
            out=tmp_path / "kept.csv",
        )  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]
    assert len((tmp_path / "kept.csv").read_text().splitlines()) == 1537


def test_expected_losses_are_those_of_errors_drawn_at_random(
    predictor: LatencyPredictor, predicted: pd.DataFrame, budget: float
) -> None:
    confidence, wanted = 0.5, float(predicted["accuracy"].median())
    report = prune_space(
        SPACE, budget_us=budget, confidence=confidence, min_accuracy=wanted, predictor=predictor
    ).report
    rng, good, lost = np.random.default_rng(0), [], []
    latency = predictor.parts.residuals["hyperparameters"]
    accuracy = predictor.parts.residuals["accuracy"]
    at_half = predictor.predict(read_space(SPACE).frame(0, POINTS), confidence=confidence)
    kept = (at_half["interval_cycles.low"] <= 100 * budget) & (
        at_half["interval_accuracy.high"] >= wanted
    )
    scale = np.log(predicted["high_us"] / predicted["microseconds"]) / latency.half_width(0.9)[0]
    odds = np.log(predicted["accuracy"] / (1 - predicted["accuracy"]))
    for _ in range(300):
        true_us = predicted["microseconds"] * np.exp(scale * drawn(latency, rng))
        true_accuracy = 1 / (1 + np.exp(-(odds + drawn(accuracy, rng))))
        truly = (true_us <= budget) & (true_accuracy >= wanted)
        good.append(truly.sum())
        lost.append((truly & ~kept).sum())
    assert report.kept == kept.sum()
    assert np.mean(lost) > 2
    for found, seen in ((report.expected_good, good), (report.expected_loss, lost)):
        assert found == pytest.approx(np.mean(seen), abs=4 * np.std(seen) / np.sqrt(300))
    assert report.expected_loss_share == report.expected_loss / report.expected_good


def drawn(residuals: Residuals, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Draw an error for every candidate: of a point at random, from one of its runs."""
    order = np.argsort(residuals.group, kind="stable")
    _, starts, sizes = np.unique(residuals.group[order], return_index=True, return_counts=True)
    point = rng.integers(len(starts), size=POINTS)
    return residuals.error[order][starts[point] + (rng.random(POINTS) * sizes[point]).astype(int)]


def test_a_higher_confidence_keeps_more_and_loses_less(
    predictor: LatencyPredictor, budget: float
) -> None:
    reports = [
        prune_space(SPACE, budget_us=budget, confidence=confidence, predictor=predictor).report
        for confidence in (0.3, 0.6, 0.9)
    ]
    assert [report.kept for report in reports] == sorted({report.kept for report in reports})
    losses = [report.expected_loss for report in reports]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1] >= 0
    for report in reports:  # how many are good does not hang on how they are judged
        assert report.expected_good == pytest.approx(reports[0].expected_good)


def test_runs_of_one_point_share_its_weight() -> None:
    residuals = Residuals(error=np.array([3.0, 1.0, -1.0, 2.0]), group=np.array([2, 1, 0, 1]))
    shares = ErrorShares(residuals, 0.5)
    half_width = np.full(5, residuals.half_width(0.5)[0])
    distances = np.array([-2.0, -1.0, 1.5, 2.5, 3.0])
    expected = [0, 1 / 3, 1 / 2, 2 / 3, 1]
    assert shares.below(distances, half_width) == pytest.approx(expected)
    assert shares.below(2 * distances, 2 * half_width) == pytest.approx(expected)
    assert shares.below(np.array([-0.1, 0.1]), np.zeros(2)).tolist() == [0, 1]


def test_training_saved_is_by_the_work_of_what_is_removed(predictor: LatencyPredictor) -> None:
    short, longer = {"training.epochs": 4}, {"training.epochs": 8}
    choices = [
        {"network": "8C3-MP2-10"} | short,
        {"network": "8C3-MP2-10", "input.time_steps": 16} | short,
        {"network": "8C3-MP2-12C3-MP2-10"} | longer,
    ]
    space = {"base": BASE, "vary": {"all": choices}, "sampler": "grid"}
    pixels = 16 * 16
    small = pixels * 8 * (2 * 9) + 10 * (8 * pixels // 4)
    large = pixels * 8 * (2 * 9) + pixels // 4 * 12 * (8 * 9) + 10 * (12 * pixels // 16)
    work = np.array([small * 8 * 4, small * 16 * 4, large * 8 * 8])
    cycles = predictor.predict(read_space(space).frame(0, 3))["microseconds"].to_numpy()
    assert cycles[0] < min(cycles[1:])
    budget = float(np.sqrt(cycles[0] * min(cycles[1:])))
    ask = partial(prune_space, space, budget_us=budget, confidence=0.01, predictor=predictor)
    report = ask(seconds_per_run=900).report
    assert (report.kept, report.candidates) == (1, 3)
    saved = work[1:].sum() / work.sum()
    assert report.training_share_saved == pytest.approx(saved)
    assert report.training_hours_saved == pytest.approx(3 * 900 / 3600 * saved)
    unsaid = ask().report
    assert (unsaid.training_hours_saved, unsaid.training_hours_from) == (
        None, "unknown, without seconds_per_run",
    )  # fmt: skip


def test_if_nothing_meets_the_budget_the_nearest_is_told(
    predictor: LatencyPredictor, predicted: pd.DataFrame
) -> None:
    pruned = prune_space(SPACE, budget_us=1e-3, predictor=predictor)
    assert (pruned.report.kept, pruned.report.tightened, len(pruned.kept)) == (0, {}, 0)
    assert pruned.report.best["candidate"] == predicted["low_us"].idxmin()
    assert pruned.report.expected_loss == pruned.report.expected_loss_share == 0
    assert pruned.space == read_space(SPACE)
    wanted = float(predicted["interval_accuracy.high"].quantile(0.9))
    best = prune_space(SPACE, budget_us=1e-3, min_accuracy=wanted, predictor=predictor).report.best
    accurate = predicted[predicted["interval_accuracy.high"] >= wanted]
    assert best["candidate"] == accurate["low_us"].idxmin()
    best = prune_space(SPACE, budget_us=1, min_accuracy=1 - 1e-12, predictor=predictor).report.best
    assert best["candidate"] == predicted["interval_accuracy.high"].idxmax()


def test_candidates_that_are_no_configuration_are_counted_and_one_is_told(
    predictor: LatencyPredictor, tmp_path: Path
) -> None:
    space = SPACE | {"vary": VARY | {"hardware.neural_cores": ["auto", [4, 10], [4, 8, 10]]}}
    searched = read_space(space)
    allowed = [is_valid(searched, number) for number in range(400)]
    pruned = prune_space(space, budget_us=1e9, candidates=400, predictor=predictor)
    report = pruned.report
    assert (report.kept, report.removed, report.invalid) == (sum(allowed), 0, 400 - sum(allowed))
    assert 50 < report.invalid < 350
    first = allowed.index(False)
    assert report.invalid_reason is not None
    assert report.invalid_reason.startswith(f"candidate {first}: hardware.neural_cores")
    assert list(pruned.kept.index) == list(np.flatnonzero(allowed))
    assert report.in_domain == report.kept
    left = report.tightened["hardware.neural_cores"]["after"]
    assert left == {"choices": ["auto", [4, 8, 10]]}
    lowest = report.tightened["neuron.beta"]["after"]["low"]
    assert lowest == pruned.kept["neuron.beta"].min()


def is_valid(space: Any, number: int) -> bool:
    try:
        return bool(space.config(number))
    except ConfigError:
        return False


def test_if_every_candidate_is_refused_nothing_is_written(
    predictor: LatencyPredictor, tmp_path: Path
) -> None:
    out = tmp_path / "kept.csv"
    out.write_text("older")
    space = SPACE | {"vary": VARY | {"hardware.neural_cores": [[9, 99]]}}
    with pytest.raises(ConfigError) as caught:
        prune_space(space, budget_us=100, candidates=50, predictor=predictor, out=out)
    assert str(caught.value).startswith(
        "space: none of its 50 candidates is valid; candidate 0: hardware.neural_cores"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


def test_what_the_predictor_cannot_answer_is_told_and_nothing_written(
    predictor: LatencyPredictor, tmp_path: Path
) -> None:
    space = {"base": BASE, "vary": {"dataset": ["nmnist-saccade", "nmnist"]}}
    space["base"] = BASE | {"network": "8C3-MP2-10"}
    with pytest.raises(PredictorError, match=r"^candidate \d+: dataset: this predictor knows"):
        prune_space(space, budget_us=1, predictor=predictor, out=tmp_path / "kept.csv")
    assert list(tmp_path.iterdir()) == []


def test_knobs_outside_the_domain_are_told_once_each(predictor: LatencyPredictor) -> None:
    vary = VARY | {"training.lr": {"low": 1e-3, "high": 5}, "surrogate.name": ["atan", "sso"]}
    pruned = prune_space(SPACE | {"vary": vary}, budget_us=1e9, predictor=predictor)
    keys = [warning.partition(":")[0] for warning in pruned.report.warnings]
    assert keys.count("training.lr") == keys.count("surrogate.name") == 1
    highest = predictor.parts.domain.high[predictor.parts.domain.feature_names.index("training.lr")]
    fast = pruned.kept["training.lr"] > 1.25 * highest
    (sentence,) = (text for text in pruned.report.warnings if text.startswith("training.lr"))
    assert sentence.endswith(f"[{fast.sum():,} of {POINTS:,} candidates]")
    assert pruned.report.in_domain == pruned.kept["in_domain"].sum() < (~fast).sum()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"budget_us": 0}, ["budget_us: must be above 0 and finite, got 0"]),
        ({"budget_us": float("nan")}, ["budget_us: must be above 0", "nan"]),
        ({"budget_us": "fast"}, ["budget_us", "'fast'"]),
        ({"confidence": 1}, ["confidence: must be above 0 and below 1, got 1"]),
        ({"min_accuracy": 90}, ["min_accuracy: must be above 0 and below 1, got 90"]),
        ({"min_accuracy": True}, ["min_accuracy", "True"]),
        ({"candidates": 0}, ["candidates: must be a whole number from 1", "got 0"]),
        ({"candidates": 2.5}, ["candidates", "2.5"]),
        ({"seconds_per_run": -1}, ["seconds_per_run: must be above 0", "-1"]),
        ({"most_rows": -1}, ["most_rows: must be a whole number from 0", "-1"]),
        ({"out": "kept.parquet"}, ["out: must end in .csv, got 'kept.parquet'"]),
        ({"space": None}, ["space: either this or distributions is required, got neither"]),
        ({"base": BASE}, ["base: is for distributions"]),
        ({"space": SPACE | {"sampler": "grid", "runs": None, "vary": {"neuron.beta": [1]}},
          "candidates": 5}, ["candidates: must be absent for a grid, got 5"]),
        ({"space": {"base": BASE | {"network": "10"}}, "candidates": 5}, ["nothing varies"]),
        ({"space": SPACE | {"vary": {"neuron.betta": [1]}}}, ["unknown key 'neuron.betta'"]),
        ({"space": {"base": BASE, "sampler": "grid", "vary": {
            f"training.{key}": [*range(100)] for key in ("seed", "epochs", "lr", "loss", "patience")
        }}}, ["vary: must have at most 100000000 combinations in a grid, got 10000000000"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    predictor: LatencyPredictor, changes: dict[str, Any], parts: list[str]
) -> None:
    asked = {"space": SPACE, "budget_us": 100, "predictor": predictor} | changes
    with pytest.raises(InputError) as caught:
        prune_space(**asked)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_command_says_what_the_function_says(
    capsys: pytest.CaptureFixture[str], predictor: LatencyPredictor, tmp_path: Path, budget: float
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE | {"samples": 8}, sort_keys=False))  # as a plan
    out = tmp_path / "kept.csv"
    words = ["prune", path, "--budget-us", budget, "--out", out]
    words += ["--min-accuracy", 0.5, "--candidates", 512, "--seconds-per-run", 60]
    code, printed, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    expected = prune_space(
        SPACE, budget_us=budget, min_accuracy=0.5, candidates=512, seconds_per_run=60,
        predictor=predictor,
    ).report  # fmt: skip
    assert json.loads(printed) == json.loads(json.dumps(asdict(replace(expected, out=str(out)))))
    assert len(out.read_text().splitlines()) == 1 + expected.kept
    code, printed, _ = run(capsys, *words)
    assert code == 0
    assert f"{expected.kept:,} of 512 candidates" in printed
    assert "neuron.threshold" in printed
    code, printed, _ = run(capsys, *words[:2], "--budget-us", 1e-3, "--json")
    assert (code, json.loads(printed)["kept"]) == (0, 0)


def test_the_command_refuses_in_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    out = tmp_path / "kept.csv"
    for words, part in (
        (["none.yaml", "--budget-us", 1], "cannot read the space 'none.yaml'"),
        ([path, "--budget-us", -1], "budget_us: must be above 0"),
        ([path, "--budget-us", 1, "--confidence", 2], "confidence: must be above 0"),
        ([path, "--budget-us", 1, "--min-accuracy", 95], "min_accuracy: must be above 0"),
    ):
        code, printed, err = run(capsys, "prune", *words, "--out", out, "--json")
        assert (code, printed, err.count("\n")) == (2, "", 1)
        assert part in err
    assert list(tmp_path.iterdir()) == [path]
    code, printed, _ = run(capsys, "prune", "--help")
    assert (code, "Example: spikemeter prune" in printed) == (0, True)
