"""Try predictor folders that a stranger may have sent: load and answer, or one `PredictorError`.

Nothing else may happen, in Python or in XGBoost. It is a program of its own, because a crash of
XGBoost or Arrow ends the process:

    python tests/support/try_folders.py FOLDER --cases 20000 --seed 7

FOLDER is a good one, written by `write_folder`. Prints one JSON object; the first folder that is
neither refused nor fine is named, and stays in --keep.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hostile_folders import Files, damaged, made_on_purpose

from spikemeter.errors import PredictorError
from spikemeter.predictor import LatencyPredictor
from spikemeter.predictor.ensemble import Ensemble
from spikemeter.predictor.folder import write_folder

CONFIGS = (
    {"dataset": "nmnist-saccade", "network": "8C3-MP2-10", "training": {"epochs": 4}},
    {"dataset": "nmnist-saccade", "network": "6C5-MP2-24-10", "input": {"time_steps": 6}},
    {
        "dataset": "nmnist-saccade", "network": "4C3-10", "training": {"epochs": 400},
        "input": {"height": 24, "width": 20, "time_steps": 11}, "surrogate": {"name": "sigmoid"},
    },
    {"dataset": "nmnist-saccade", "network": "10", "input": {"camera_threshold": 0.2}},
    {"dataset": "digits-saccade", "network": "10"},
    {"network": "5", "input": {"time_steps": 2, "statistics": [[9.0, 0.0], [0.0, 256.0]]}},
)  # fmt: skip
"""Questions to a folder that loads: inside its domain and outside, data sets known and not."""

_LONGEST_SENTENCE = 700
_SECONDS_PER_CASE = 60
_LARGEST_MEMORY = 2 * 2**30
_FORBIDDEN = ("compile", "exec", "import", "marshal.", "os.", "pickle.", "socket.", "subprocess.",
              "ctypes.", "shutil.")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Watch:
    """What is opened and run while a folder is read, seen by Python's audit events."""

    folder: Path
    active: bool = False
    seen: str = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or self.seen:
            return
        if event == "open":
            place, _, flags = arguments
            handle = isinstance(place, int)  # of a file that was opened by its name before
            if not (handle or Path(place).parent == self.folder) or flags & _WRITING:
                self.seen = f"opened {place!r}"
        elif event.startswith(_FORBIDDEN) and not event.startswith(("os.listdir", "os.scandir")):
            self.seen = f"{event}{arguments!r:.200}"


def outcome(folder: Path, watch: Watch) -> str:
    """Load a folder, ask it everything, and say how it ended; anything wrong is an error."""
    watch.active, watch.seen = True, ""
    try:
        predictor = LatencyPredictor.load(folder)
    except PredictorError as error:
        _check_sentence(str(error))
        return "refused"
    finally:
        watch.active = False
        assert not watch.seen, watch.seen
    ask(predictor)
    _check_xgboost(predictor)
    if (folder / "manifest.json").stat().st_size > 2**20:
        return "loaded"  # what is said of a large one again takes long
    with tempfile.TemporaryDirectory(dir=folder.parent) as other:
        write_folder(predictor.parts, Path(other))
        again = LatencyPredictor.load(other).estimate(CONFIGS[-1])
        assert again == predictor.estimate(CONFIGS[-1])
    return "loaded"


def ask(predictor: LatencyPredictor) -> None:
    """Ask for estimates, which must be finite and positive, or refused."""
    rows = []
    for config in CONFIGS:
        try:
            estimates = [predictor.estimate(config, confidence=share) for share in (0.5, 0.99999)]
        except PredictorError as error:
            _check_sentence(str(error))
            continue
        if config["network"] == "8C3-MP2-10":
            estimates.append(predictor.forecast(config, [[0.2, 0.1], [0.9, 0.0]]))
        for estimate in estimates:
            low, high = estimate.interval_cycles
            numbers = [low, estimate.cycles, high, estimate.microseconds,
                       estimate.initiation_interval_cycles]  # fmt: skip
            assert all(math.isfinite(number) and number > 0 for number in numbers), numbers
            assert low <= estimate.cycles <= high, numbers
            lowest, highest = estimate.interval_accuracy
            assert 0 <= lowest <= estimate.accuracy <= highest <= 1, estimate
            assert all(text.isprintable() for text in estimate.warnings), estimate.warnings
        rows.append({"dataset": config.get("dataset"), "network": config["network"]})
    if any(row["dataset"] == "nmnist-saccade" for row in rows):
        frame = pd.DataFrame([row for row in rows if row["dataset"] == "nmnist-saccade"])
        try:
            many = predictor.predict(frame)
        except PredictorError as error:
            _check_sentence(str(error))
        else:
            numbers = many[["cycles", "interval_cycles.low", "interval_cycles.high", "accuracy"]]
            assert np.isfinite(numbers.to_numpy()).all(), many
            assert (numbers > 0).all(axis=None), many
    try:
        assert isinstance(predictor.table(), pd.DataFrame)
    except PredictorError as error:
        _check_sentence(str(error))


def _check_xgboost(predictor: LatencyPredictor) -> None:
    """XGBoost takes the trees, and says of many rows what our own evaluation says."""
    parts = predictor.parts
    rng = np.random.default_rng(0)
    count = len(parts.domain.feature_names)
    rows = rng.normal(size=(300, count)).astype(np.float32)
    # Some as the domain has them, as far as that is one
    low, high = np.clip([parts.domain.low, parts.domain.high], -1e6, 1e6)
    rows[:150] = low + rng.random((150, count)) * (high - low)
    for column, ensemble in zip(
        parts.model.heads(rows).T, parts.model.ensembles.values(), strict=True
    ):
        _check_ensemble(ensemble, rows, column)
    forecaster = parts.forecaster.ensemble
    rows = rng.normal(size=(300, forecaster.features)).astype(np.float32)
    _check_ensemble(forecaster, rows, forecaster.values(rows))


_agreed: set[bytes] = set()
"""Models that need not be tried again: most of a damaged folder is as it was."""


def _check_ensemble(ensemble: Ensemble, rows: Any, ours: Any) -> None:
    import xgboost

    content = ensemble.content
    if content in _agreed:
        return
    booster = ensemble.booster()
    theirs = booster.inplace_predict(rows)
    assert np.isfinite(theirs).all()
    size = np.abs(ensemble.leaf).max(axis=1).sum() + abs(ensemble.bias)
    # XGBoost adds up in float32.
    share = 1e-6 if len(ensemble.trees) < 1000 else 1e-4
    for values in (ours, ensemble.values(rows)):
        assert np.abs(values - theirs).max() <= share * size, (np.abs(values - theirs).max(), size)
    if len(ensemble.trees) < 1000:
        told = booster.predict(xgboost.DMatrix(rows[:4], nthread=1), pred_contribs=True)
        np.testing.assert_allclose(told.sum(axis=1), theirs[:4], atol=1e-4 * max(size, 1e-3))
    _agreed.add(content)


def _check_sentence(sentence: str) -> None:
    assert sentence.isprintable(), repr(sentence)
    assert 10 < len(sentence) <= _LONGEST_SENTENCE, len(sentence)
    assert "Traceback" not in sentence
    assert " at 0x" not in sentence, sentence


# Many of them


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Put files into a folder, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def cases(files: Files, chosen: argparse.Namespace) -> Iterator[tuple[int, str, Files]]:
    """Number, description and files of every case, those made on purpose first."""
    if not chosen.random:
        for number, (name, changed) in enumerate(made_on_purpose(files), start=1):
            if chosen.only in (None, -number):
                yield -number, name, changed
    for number in range(chosen.cases):
        if chosen.only in (None, number):
            yield number, *damaged(files, np.random.default_rng([chosen.seed, number]))


def main() -> int:
    """Try folders until one is neither refused nor fine."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of the one case to try")
    parser.add_argument("--random", action="store_true", help="none that are made on purpose")
    parser.add_argument("--keep", type=Path, help="where to leave the folder that failed")
    chosen = parser.parse_args()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = {each.name: each.read_bytes() for each in chosen.folder.iterdir()}
    counts = {"refused": 0, "loaded": 0}
    slowest, memory = (0.0, ""), 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "folder"
        watch = Watch(folder)
        write(files, folder)
        outcome(folder, watch)  # imports what is imported late
        sys.addaudithook(watch)
        for number, name, changed in cases(files, chosen):
            write(changed, folder)
            faulthandler.dump_traceback_later(_SECONDS_PER_CASE, exit=True)
            start = time.process_time()
            # Said before, because a crash says nothing.
            print(f"case {number} of seed {chosen.seed}: {name}", file=sys.stderr, flush=True)
            try:
                counts[outcome(folder, watch)] += 1
            except BaseException:
                if chosen.keep is not None:
                    write(changed, chosen.keep)
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, (time.process_time() - start, name))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            assert memory < _LARGEST_MEMORY, f"{memory / 2**20:.0f} MiB are too much"
    report = {**counts, "slowest_seconds": slowest[0], "slowest": slowest[1], "memory": memory}
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
