"""Folders of strangers: some hundred here, more with SPIKEMETER_FUZZ_CASES or by `try_folders`."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import try_folders
from hostile_folders import damaged, fitting

from spikemeter.errors import PredictorError
from spikemeter.predictor import LatencyPredictor

CASES = int(os.environ.get("SPIKEMETER_FUZZ_CASES", "300"))
SCRIPT = Path(try_folders.__file__)


def tried(folder, *arguments):
    """Try folders in another process, which a crash of XGBoost or Arrow would end."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *arguments],
        capture_output=True, text=True, timeout=60 + CASES, check=False,
    )  # fmt: skip
    assert done.returncode == 0, "\n".join(done.stderr.splitlines()[-30:])
    return json.loads(done.stdout)


def test_folders_that_were_damaged_at_random_load_or_are_refused(small_folder):
    report = tried(small_folder, "--random", "--cases", str(CASES), "--seed", "0")
    assert report["refused"] + report["loaded"] == CASES
    assert report["refused"] > 0.2 * CASES
    assert report["loaded"] > 0.1 * CASES


def test_folders_that_were_made_on_purpose_load_or_are_refused(small_folder):
    report = tried(small_folder, "--cases", "0")
    assert report["refused"] > 60
    assert report["loaded"] > 25
    assert report["slowest_seconds"] < 20
    assert report["memory"] < 1.5 * 2**30


def test_damage_is_repeatable_and_passes_the_checksums(small_folder):
    files = {each.name: each.read_bytes() for each in small_folder.iterdir()}
    kinds = set()
    for number in range(60):
        what, changed = damaged(files, np.random.default_rng([0, number]))
        assert (what, changed) == damaged(files, np.random.default_rng([0, number]))
        assert changed != files
        kinds.add(what.split()[0])
        if "manifest" not in what:
            assert fitting(changed) == changed
    assert len(kinds) > 10


# That the checks would notice


@pytest.mark.parametrize(
    ("event", "arguments", "seen"),
    [
        ("open", ("FOLDER/manifest.json", None, os.O_RDONLY), ""),
        ("open", (7, "r", os.O_RDONLY), ""),
        ("open", ("/etc/passwd", None, os.O_RDONLY), "opened '/etc/passwd'"),
        ("open", ("FOLDER/../x", "r", os.O_RDONLY), "opened 'FOLDER/../x'"),
        ("open", ("FOLDER/manifest.json", "w", os.O_WRONLY | os.O_CREAT), "opened 'FOLDER/man"),
        ("os.system", (b"true",), "os.system"),
        ("subprocess.Popen", ("true", ["true"], None, None), "subprocess.Popen"),
        ("pickle.find_class", ("os", "system"), "pickle.find_class"),
        ("exec", (None,), "exec"),
        ("import", ("antigravity", None, None, None, None), "import"),
        ("object.__getattr__", (None,), ""),
    ],
)
def test_what_leaves_the_folder_is_seen(tmp_path, event, arguments, seen):
    first = str(arguments[0]).replace("FOLDER", str(tmp_path))
    given = (first if isinstance(arguments[0], str) else arguments[0], *arguments[1:])
    watch = try_folders.Watch(tmp_path, active=True)
    watch(event, given)
    assert watch.seen.startswith(seen.replace("FOLDER", str(tmp_path)))
    assert bool(watch.seen) == bool(seen)


def test_a_sound_folder_is_fine(small_folder):
    assert try_folders.outcome(small_folder, try_folders.Watch(small_folder)) == "loaded"


@pytest.mark.parametrize(
    "changes",
    [
        {"cycles": math.nan},
        {"cycles": 0.0},
        {"interval_cycles": (1.0, math.inf)},
        {"interval_cycles": (1e9, 1e9)},
        {"interval_accuracy": (-0.1, 1.0)},
        {"microseconds": -1.0},
        {"warnings": ("\x1b[2J",)},
    ],
)
def test_an_answer_that_is_none_is_noticed(small_folder, monkeypatch, changes):
    usual = LatencyPredictor.estimate
    monkeypatch.setattr(
        LatencyPredictor,
        "estimate",
        lambda self, *arguments, **keys: replace(usual(self, *arguments, **keys), **changes),
    )
    with pytest.raises(AssertionError):
        try_folders.ask(LatencyPredictor.load(small_folder))


@pytest.mark.parametrize("sentence", ["two\nlines of it", "x" * 1000, "<object at 0x7f00>", "no"])
def test_a_refusal_that_is_no_sentence_is_noticed(small_folder, monkeypatch, sentence):
    def load(path):
        raise PredictorError(sentence)

    monkeypatch.setattr(LatencyPredictor, "load", load)
    with pytest.raises(AssertionError):
        try_folders.outcome(small_folder, try_folders.Watch(small_folder))


def test_other_trees_than_xgboost_has_are_noticed(small_folder):
    parts = LatencyPredictor.load(small_folder).parts
    firing = parts.model.ensembles["firing"]
    first, *rest = firing.trees
    # XGBoost gets the trees themselves, and not the arrays that were made of them.
    condition = np.where(first.left < 0, first.condition + 1e-4, first.condition)
    other = replace(firing, trees=(replace(first, condition=condition.astype("f4")), *rest))
    model = replace(parts.model, ensembles={**parts.model.ensembles, "firing": other})
    with pytest.raises(AssertionError):
        try_folders._check_xgboost(LatencyPredictor(parts=replace(parts, model=model)))
