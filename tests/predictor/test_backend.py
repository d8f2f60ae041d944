from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from spikemeter.errors import PredictorError
from spikemeter.predictor.backend import MANIFEST, _checksum, _Content, read_backend, write_backend
from spikemeter.predictor.ensemble import TreeSettings, fit_head
from spikemeter.predictor.fitted import Backend, amount_names
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.structure import Structure

COUNT = len(amount_names([])) + 1
"""Features of a residual model without knobs."""


def learned(features=COUNT, rounds=20):
    """Trees that say 0.2 where the last feature, of log cycles, is above 5."""
    rows = np.random.default_rng(0).uniform(0, 20, (200, features)).astype(np.float32)
    target = 0.2 * (rows[:, -1] > 5)
    settings = TreeSettings(rounds=rounds, eta=0.5, subsample=1, colsample_bytree=1, max_depth=2)
    return fit_head(rows, target, settings)


@pytest.fixture
def backend():
    names = amount_names([])
    return Backend(
        structure=Structure(),
        costs={},
        knobs={},
        low=np.zeros(len(names)),
        high=np.full(len(names), 1e9),
        residuals=Residuals(error=np.full(9, 0.5), group=np.arange(9)),
        booster=learned().booster(),
        report={"terms": []},
    )


@pytest.fixture
def folder(backend, tmp_path):
    write_backend(backend, tmp_path / "backend")
    return tmp_path / "backend"


def put(folder, residual):
    """Put another residual model there, with checksums that fit."""
    (folder / "residual.ubj").write_bytes(residual)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["content"]["residual_sha256"] = hashlib.sha256(residual).hexdigest()
    manifest["sha256"] = _checksum(_Content.model_validate(manifest["content"]))
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_residual_model_says_the_same_when_it_is_read_again(backend, folder):
    rows = np.random.default_rng(1).uniform(0, 20, (50, COUNT)).astype(np.float32)
    again = read_backend(folder).booster
    expected = backend.booster.inplace_predict(rows)
    np.testing.assert_array_equal(again.inplace_predict(rows), expected)
    assert np.ptp(expected) > 0.1
    assert sorted(file.name for file in folder.iterdir()) == [MANIFEST, "residual.ubj"]


@pytest.mark.parametrize(
    ("residual", "sentence"),
    [
        (b"nonsense", "is no type"),
        (b"", "end in the middle"),
        (learned(COUNT + 1).content, f"residual.ubj must read {COUNT} features, got {COUNT + 1}"),
        (learned(COUNT - 1).content, f"residual.ubj must read {COUNT} features, got {COUNT - 1}"),
        (learned().content[:-1], "end in the middle"),
    ],
)
def test_a_residual_model_that_does_not_fit_is_refused(folder, residual, sentence):
    put(folder, residual)
    with pytest.raises(PredictorError) as caught:
        read_backend(folder)
    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()


def nested(levels):
    found: dict = {}
    for _ in range(levels):
        found = {"in": found}
    return found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"error": ["x"] * 100_000}, "content.error.0: Input should be a valid number"),
        ({"group": [0.5] * 100_000}, "content.group.0: Input should be a valid integer"),
        ({"costs": {str(n): 1.0 for n in range(2000)}}, "content.costs: "),
        ({"knobs": {str(n): 1.0 for n in range(2000)}}, "at most 1000 keys, got 2000"),
        ({"report": nested(200)}, "nested at most 50 deep"),
        ({"structure": nested(200)}, "nested at most 50 deep"),
        ({"structure": {"cores": 4}}, "structure must have the keys cores, width, borders"),
        ({"structure": {"speed": 4}}, "structure must have the keys cores, width, borders"),
        ({"structure": {"conv": "fast"}}, "structure: conv: Input should be 'sum'"),
        ({"structure": {"cores": "x" * 100_000}}, "structure must have the keys"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_a_stranger_sends_is_refused_with_its_first_problem(folder, change, sentence):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["content"].update(change)
    text = json.dumps(manifest["content"], sort_keys=True)
    manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    said = refusal(folder)
    assert sentence in said
    assert len(said) < 700


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"schema_version": 1}'.encode("utf-16"), "manifest.json is not valid JSON"),
        (b"[" * 100_000, "manifest.json is not valid JSON"),
        (b'{"schema_version": "' + b"x" * 100_000 + b'"}', "schema version must be 1, got xxxx"),
        (b'{"schema_version": true}', "schema version must be 1, got True"),
        (b" " * (8 * 2**20 + 1), "at most 8388608 bytes"),
    ],
    ids=["another encoding", "deep", "long", "no number", "large"],
)
def test_what_is_no_manifest_is_refused(folder, content, sentence):
    (folder / MANIFEST).write_bytes(content)
    said = refusal(folder)
    assert sentence in said
    assert len(said) < 700


def refusal(folder) -> str:
    with pytest.raises(PredictorError) as caught:
        read_backend(folder)
    assert str(caught.value).isprintable()
    return str(caught.value)
