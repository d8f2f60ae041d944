from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from spikemeter.config import Config
from spikemeter.datasets import DataSplits
from spikemeter.models.folder import TRAIN_VERSION
from spikemeter.models.training import Training, evaluate, train

MakeConfig = Callable[..., Config]


def weights(training: Training) -> list[torch.Tensor]:
    return [value.detach() for value in training.network.parameters()]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_classes_that_can_be_told_apart_are_learned(
    make_config: MakeConfig, splits: DataSplits, batch_norm: bool
) -> None:
    config = make_config(training={"batch_norm": batch_norm, "epochs": 6})
    training = train(config, splits)
    assert training.status == "ok"
    assert evaluate(training.network, splits.test, 10).accuracy > 0.9


def test_population_codes_are_learned_class_by_class(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    config = make_config(network="4C3-MP2-30", training={"population": 3, "epochs": 6})
    training = train(config, splits)
    assert evaluate(training.network, splits.test, 10).accuracy > 0.9


def test_the_seed_decides_everything(make_config: MakeConfig, splits: DataSplits) -> None:
    config = make_config(training={"epochs": 2, "dropout": 0.2})
    torch.manual_seed(1)
    first = train(config, splits)
    torch.manual_seed(2)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    again = train(config, splits)
    other = train(make_config(training={"epochs": 2, "dropout": 0.2, "seed": 1}), splits)
    assert all(map(torch.equal, weights(first), weights(again)))
    assert first.epochs == again.epochs
    assert not all(map(torch.equal, weights(first), weights(other)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_what_remains_is_quantised_and_the_best_of_its_kind(
    make_config: MakeConfig, splits: DataSplits, epochs: int
) -> None:
    training = train(make_config(training={"epochs": epochs, "lr": 0.05}), splits)
    assert not training.network.warming_up
    assert not training.network.training
    assert len(training.epochs) == epochs
    quantised = training.epochs[(epochs - 1) // 2 :] if epochs != 2 else training.epochs[1:]
    kept = evaluate(training.network, splits.validation, 10)
    assert kept.accuracy == max(epoch.accuracy for epoch in quantised)
    assert kept in quantised


def test_progress_reports_every_epoch(make_config: MakeConfig, splits: DataSplits) -> None:
    seen: list[tuple[int, int, Mapping[str, float]]] = []
    training = train(
        make_config(training={"epochs": 2}), splits, on_epoch=lambda *report: seen.append(report)
    )
    assert [report[:2] for report in seen] == [(1, 2), (2, 2)]
    for (_, _, metrics), epoch in zip(seen, training.epochs, strict=True):
        assert set(metrics) == {"loss", "validation_accuracy", "firing_rate", "seconds"}
        assert metrics["validation_accuracy"] == epoch.accuracy
        assert metrics["firing_rate"] == pytest.approx(np.mean(epoch.firing_rate))
        assert metrics["loss"] > 0


def test_firing_rates_are_spikes_per_neuron_and_step(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    training = train(make_config(training={"epochs": 1}), splits)
    with torch.no_grad():
        fired = training.network(torch.tensor(splits.test.frames).float())
    expected = [float(spikes.mean()) for spikes in fired]
    found = evaluate(training.network, splits.test, 10).firing_rate
    assert found == pytest.approx(expected, rel=1e-5)
    assert all(0 < rate < 1 for rate in found)


def test_training_that_diverges_ends_with_a_status(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    config = make_config(training={"epochs": 2})
    beyond = config.training.model_copy(update={"lr": 1e30})  # more than a configuration allows
    training = train(Config.model_copy(config, update={"training": beyond}), splits)
    assert training.status == "diverged"
    assert training.epochs == ()


def test_a_network_without_output_spikes_is_silent(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    config = make_config(
        neuron={"threshold": 100}, training={"epochs": 1, "batch_norm": False, "lr": 1e-5}
    )
    training = train(config, splits)
    assert training.status == "silent"
    assert training.epochs[0].firing_rate == (0, 0)


def test_losses_are_those_of_this_version(make_config: MakeConfig, splits: DataSplits) -> None:
    # Loose enough for another processor's rounding, tight enough for any change of method. When
    # they change on purpose, raise TRAIN_VERSION.
    losses: list[float] = []
    train(
        make_config(training={"epochs": 2, "seed": 7}),
        splits,
        on_epoch=lambda epoch, epochs, metrics: losses.append(metrics["loss"]),
    )
    assert {TRAIN_VERSION: losses} == {1: pytest.approx([0.2225, 0.1083], rel=0.02)}
