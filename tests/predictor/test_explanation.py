from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import synthetic_train_events

from spikemeter.errors import InputError, MissingToolError
from spikemeter.predictor import explanation
from spikemeter.predictor.explanation import knob_importance, parity_plot, shap_plot

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


def test_the_knobs_that_made_the_rates_come_first(predictor):
    table = knob_importance(predictor)
    assert list(table.columns) == ["knob", "mean_abs_shap"]
    assert table["mean_abs_shap"].is_monotonic_decreasing
    assert set(table["knob"][:3]) == {"network", "surrogate.slope", "neuron.threshold"}
    # Nothing varied there, so nothing can be said of them.
    of = dict(zip(table["knob"], table["mean_abs_shap"], strict=True))
    assert of["training.weight_bits"] == of["training.epochs"] == 0


def test_shap_values_add_up_to_the_prediction(predictor, table):
    import xgboost

    values, features = explanation._shap_values(predictor, None)
    output = predictor.parts.model.ensembles["output"]
    whole = output.booster().predict(xgboost.DMatrix(features), pred_contribs=True)
    np.testing.assert_allclose(values, whole[:, :-1], atol=1e-4)
    np.testing.assert_allclose(
        values.sum(axis=1) + whole[:, -1], output.values(features), atol=1e-3
    )


def test_layers_that_feed_others_are_explained(predictor, table):
    _, features = explanation._shap_values(predictor, table)
    names = predictor.parts.domain.feature_names
    assert len(features) == sum(len(rates) - 1 for rates in table["layers.output_rate"])
    assert (features[:, names.index("layer.position_from_output")] > 0).all()
    density = features[:, names.index("input.density")]
    expected = [synthetic_train_events(steps).mean() / 256 for steps in (6, 8)]
    np.testing.assert_allclose(np.unique(density), sorted(expected), rtol=1e-6)


def test_other_rows_can_be_explained(predictor, table):
    some = knob_importance(predictor, table[:4])
    assert not some.equals(knob_importance(predictor))
    with pytest.raises(InputError, match="at least one configuration"):
        knob_importance(predictor, table[:0])


def test_plots_are_written_whole(predictor, tmp_path):
    for path in (
        shap_plot(predictor, tmp_path / "new" / "shap.png"),
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
        explanation._tool("package_that_is_not_there")
