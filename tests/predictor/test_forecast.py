from __future__ import annotations

import json

import numpy as np
import pytest

from spikemeter.errors import InputError, PredictorError
from spikemeter.predictor.features import config_from_row
from spikemeter.predictor.forecast import (
    FEATURES,
    PROGRESS,
    Forecaster,
    forecast_features,
    read_rates,
)
from spikemeter.predictor.intervals import Residuals
from spikemeter.predictor.sparsity import logit


@pytest.fixture(scope="module")
def run(table):
    """A row of a trained network of several layers and epochs."""
    chosen = table[table["network"].str.count("-") > 2].iloc[0]
    return config_from_row(chosen), np.array(chosen["epochs.firing_rate"])


def test_an_interval_narrows_from_epoch_to_epoch(predictor, run):
    config, rates = run
    before = predictor.estimate(config)
    widths = [np.diff(np.log(before.interval_cycles))[0]]
    for epochs in range(1, len(rates) + 1):
        estimate = predictor.forecast(config, rates[:epochs])
        assert estimate.fidelity == "forecast"
        assert estimate.layers[0].firing_rate == rates[epochs - 1, 0]
        widths.append(np.diff(np.log(estimate.interval_cycles))[0])
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.8 * widths[0]


def test_forecasts_come_closer_than_what_was_known_before_training(predictor, table):
    errors = {"before": [], "after": []}
    for row in table.to_dict("records"):
        config = config_from_row(row)
        rates = np.array([list(epoch) for epoch in row["epochs.firing_rate"]])
        errors["before"].append(predictor.estimate(config).cycles / row["cycles.mean"] - 1)
        errors["after"].append(predictor.forecast(config, rates).cycles / row["cycles.mean"] - 1)
    assert np.std(errors["after"]) < 0.85 * np.std(errors["before"])
    unseen = [residuals.error for residuals in predictor.parts.forecaster.residuals]
    assert np.std(unseen[-1]) < np.std(unseen[0]) * 1.1


def test_more_spikes_while_training_mean_more_cycles_after_it(predictor, run):
    config, rates = run
    few, many = (predictor.forecast(config, np.clip(k * rates[:2], 0, 1)) for k in (0.3, 1.5))
    assert few.cycles < many.cycles


def test_a_half_width_never_grows(predictor):
    def residuals(size):
        return Residuals(error=np.full(40, size), group=np.arange(40))

    forecaster = Forecaster(
        ensemble=predictor.parts.forecaster.ensemble,
        residuals=tuple(residuals(size) for size in (0.3, 0.4, 0.1, 0.2)),
    )
    widths = [forecaster.half_width(share, 0.5, 1.0, 0.9) for share in (0.1, *PROGRESS)]
    assert widths == pytest.approx([0.46, 0.4, 0.4, 0.2, 0.2])
    # No width is less than what was measured, and what is hard to predict is hard to forecast
    assert forecaster.half_width(0.25, 0.2, 1.0, 0.9) == pytest.approx(0.4)
    assert forecaster.half_width(1.0, 9.0, 4.0, 0.9) == pytest.approx(2 * 0.2)


def test_features_say_where_rates_stand_and_where_they_came_from(predictor, run):
    config, rates = run
    expected = predictor.parts.model.predict(features_of(predictor, config))
    rows = dict(zip(FEATURES, forecast_features(config, rates[:3], expected).T, strict=True))
    epochs = config.training.epochs
    assert rows["progress"] == pytest.approx(np.full(len(config.layers), 3 / epochs))
    assert rows["rate.now"] == pytest.approx(logit(rates[2]), rel=1e-5)
    assert rows["rate.change"] == pytest.approx(logit(rates[2]) - logit(rates[1]), abs=1e-5)
    assert rows["rate.since_first"] == pytest.approx(logit(rates[2]) - logit(rates[0]), abs=1e-5)
    first = dict(zip(FEATURES, forecast_features(config, rates[:1], expected).T, strict=True))
    assert not first["rate.change"].any()


def features_of(predictor, config):
    from spikemeter.predictor.events import input_events
    from spikemeter.predictor.features import layer_features

    entering = input_events(config, predictor.parts.statistics)
    return layer_features(config, entering.events, predictor.parts.domain.categories)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rates: rates[:, :1], "a rate for each layer"),
        (lambda rates: rates[0], "shape"),
        (lambda rates: rates[:0], "shape"),
        (lambda rates: np.concatenate([rates, rates]), "at most the 4 training.epochs, got 8"),
        (lambda rates: rates + 1, "between 0 and 1, got 1.* in epoch 1 of layer 0"),
        (lambda rates: rates.astype(str), "one list per epoch of one number per layer"),
        (lambda rates: rates > 0, "one list per epoch of one number per layer"),
        (lambda rates: rates * np.nan, "between 0 and 1, got nan"),
        (lambda rates: [[0.1], [0.1, 0.2]], "one list per epoch"),
        (lambda rates: "many", "firing_rates"),
    ],
)
def test_rates_that_do_not_fit_are_refused(predictor, run, change, sentence):
    config, rates = run
    with pytest.raises(PredictorError, match=sentence):
        predictor.forecast(config, change(rates))


def test_rates_are_read_from_a_list_or_from_the_result_of_a_run(tmp_path):
    rates = [[0.1, 0.2], [0.2, 0.3]]
    (tmp_path / "list.json").write_text(json.dumps(rates))
    (tmp_path / "result.json").write_text(json.dumps({"firing_rate_per_epoch": rates}))
    assert read_rates(tmp_path / "list.json") == rates
    assert read_rates(tmp_path / "result.json", 1) == rates[:1]


@pytest.mark.parametrize(
    ("content", "epochs", "sentence"),
    [
        (None, None, "cannot read the firing rates"),
        ("[", None, "not valid JSON"),
        ("3", None, "must hold a list for each epoch"),
        ("[]", None, "must hold a list for each epoch"),
        ("{}", None, "must hold a list for each epoch"),
        ("[[0.1]]", 2, "epochs: must be 1 to 1"),
        ("[[0.1]]", 0, "epochs: must be 1 to 1"),
    ],
)
def test_files_without_rates_are_refused(tmp_path, content, epochs, sentence):
    path = tmp_path / "rates.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_rates(path, epochs)
