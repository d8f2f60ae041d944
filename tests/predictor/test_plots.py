from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from spikemeter.errors import InputError, MissingToolError
from spikemeter.predictor.explanation import feeding_layers
from spikemeter.predictor.plots import parity_plot, shap_plot, tool

pytest.importorskip("shap")
pytest.importorskip("matplotlib")

PNG = b"\x89PNG\r\n\x1a\n"


def points(count: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    measured = np.exp(rng.uniform(9, 12, count))
    predicted = measured * np.exp(0.2 * rng.normal(size=count))
    return pd.DataFrame(
        {
            "predicted": predicted,
            "low": predicted / 1.3,
            "high": predicted * 1.3,
            "measured": measured,
        }
    )


def test_plots_are_written_whole(predictor, tmp_path):
    for path in (
        shap_plot(feeding_layers(predictor), tmp_path / "new" / "shap.png"),
        parity_plot(points(), tmp_path / "new" / "parity.png"),
        parity_plot(points(1), tmp_path / "new" / "one.png", title="One"),
    ):
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 10_000
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "one.png",
        "parity.png",
        "shap.png",
    ]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (points().drop(columns="low"), "must have a column 'low'"),
        (points().assign(measured=0.0), "measured must be positive"),
        (points().assign(high=np.inf), "high must be positive and finite"),
        (points()[:0], "at least one"),
    ],
)
def test_points_that_cannot_be_drawn_are_refused(table, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        parity_plot(table, tmp_path / "parity.png")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_remedy():
    with pytest.raises(MissingToolError, match=r"spikemeter\[explain\]"):
        tool("package_that_is_not_there")


def test_a_package_that_warns_while_it_loads_loads_all_the_same(tmp_path, monkeypatch):
    code = "import warnings\nwarnings.warn('old', PendingDeprecationWarning)\nvalue = 3\n"
    (tmp_path / "package_that_warns.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tool("package_that_warns").value == 3
