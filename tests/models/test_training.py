from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from snntorch import functional

from spikemeter.config import Config
from spikemeter.datasets import DataSplits, EventFrames
from spikemeter.errors import ConfigError
from spikemeter.models import _memory, _settings
from spikemeter.models import training as training_module
from spikemeter.models.checkpoint import Checkpoint, run_checkpoint
from spikemeter.models.export import export_network
from spikemeter.models.folder import TRAIN_VERSION
from spikemeter.models.training import Training, count_loss, evaluate, train

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


@pytest.mark.parametrize("loss", ["mse_count", "ce_count"])
def test_population_codes_are_learned_class_by_class(
    make_config: MakeConfig, splits: DataSplits, loss: str
) -> None:
    config = make_config(
        network="4C3-MP2-30", training={"population": 3, "epochs": 6, "loss": loss}
    )
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


def older_settings() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device(),
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"), cudnn.deterministic, cudnn.benchmark,
    )  # fmt: skip


def precisions() -> list[str]:
    return [scope.fp32_precision for scope in _settings._precision_scopes()]


@contextmanager
def changed(target: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


@contextmanager
def called(function: Callable[[Any], object], value: object, before: object) -> Iterator[None]:
    function(value)
    try:
        yield
    finally:
        function(before)


CUDNN: Any = torch.backends.cudnn
SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "double precision": lambda: called(torch.set_default_dtype, torch.float64, torch.float32),
    "another device": lambda: torch.device("meta"),
    "rounded products": lambda: called(torch.set_float32_matmul_precision, "medium", "highest"),
    "threads": lambda: called(torch.set_num_threads, 2, torch.get_num_threads()),
    "no TF32": lambda: changed(CUDNN, "allow_tf32", False),
}
if hasattr(torch.backends, "fp32_precision"):
    SETTINGS |= {
        "precision of one operation": lambda: changed(CUDNN.conv, "fp32_precision", "ieee"),
        "precision of all": lambda: changed(torch.backends, "fp32_precision", "tf32"),
        "precision of products": lambda: changed(
            torch.backends.mkldnn.matmul, "fp32_precision", "bf16"
        ),
    }


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_callers_settings_change_nothing_and_are_given_back(
    make_config: MakeConfig, splits: DataSplits, setting: str
) -> None:
    config = make_config(network="4C3-MP2-6C3-10", training={"epochs": 2, "loss": "ce_count"})
    expected = train(config, splits)
    exported = export_network(expected.network, config)
    with SETTINGS[setting]():
        before = older_settings(), precisions()
        found = train(config, splits)
        again = evaluate(found.network, splits.validation, 10)
        layers = export_network(found.network, config).layers
        assert (older_settings(), precisions()) == before
    assert all(map(torch.equal, weights(found), weights(expected)))
    assert found.epochs == expected.epochs
    assert again in expected.epochs
    assert all(value.dtype == torch.float32 for value in weights(found))
    for layer, other in zip(layers, exported.layers, strict=True):
        np.testing.assert_array_equal(layer.weight, other.weight)
        np.testing.assert_array_equal(layer.bias, other.bias)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_mixed_precision_casts_the_weights_of_each_step(
    make_config: MakeConfig, splits: DataSplits, batch_norm: bool
) -> None:
    config = make_config(training={"epochs": 2, "precision": "mixed", "batch_norm": batch_norm})
    with torch.random.fork_rng(), called(torch.set_num_threads, 1, torch.get_num_threads()):
        trainer = training_module.Trainer(config, splits)
        while not trainer.is_done:
            trainer.train_epoch()
            trainer.validate()
        expected = weights(trainer.result())
    assert all(map(torch.equal, weights(train(config, splits)), expected))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, weights(train(config, splits)), expected))


def test_what_makes_training_repeat_is_set_while_it_runs(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    seen = []

    def look(*_: object) -> None:
        older = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        seen.append((older_settings(), older, set(precisions())))

    with called(torch.set_num_threads, 2, torch.get_num_threads()), torch.no_grad():
        train(make_config(training={"epochs": 1}), splits, on_epoch=look)
    cpu = torch.device("cpu")
    expected = (1, torch.float32, cpu, True, False, False, True, False), ("highest", False)
    newer = {"ieee"} if hasattr(torch.backends, "fp32_precision") else set()
    assert seen == [(*expected, newer)]


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="of PyTorch 2.9")
def test_a_precision_that_was_inherited_still_is(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    train(make_config(training={"epochs": 1}), splits)
    with changed(torch.backends, "fp32_precision", "tf32"):
        assert torch.backends.mkldnn.conv.fp32_precision == "tf32"


def test_trainings_in_threads_do_not_disturb_one_another(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    config = make_config(training={"epochs": 3, "dropout": 0.3})
    expected = train(config, splits)
    begin = threading.Barrier(3)

    def together(_: int) -> Training:
        begin.wait()
        return train(config, splits)

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(together, range(3)):
            assert all(map(torch.equal, weights(found), weights(expected)))


def test_a_callback_may_train_and_evaluate(make_config: MakeConfig, splits: DataSplits) -> None:
    config = make_config(training={"epochs": 2, "dropout": 0.3})
    expected, inner = train(config, splits), []
    found = train(config, splits, on_epoch=lambda *_: inner.append(train(config, splits)))
    for each in (found, *inner):
        assert all(map(torch.equal, weights(each), weights(expected)))


def single_pixels(splits: DataSplits, samples: int) -> DataSplits:
    """One step of frames that a 3x3 kernel without padding reduces to a single pixel."""
    parts = {
        name: EventFrames(frames=part.frames[:samples, :1, :, :3, :3], labels=part.labels[:samples])
        for name, part in (("train", splits.train), ("validation", splits.validation))
    }
    return DataSplits(**parts, test=splits.test)


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_a_batch_of_one_value_is_refused_where_it_cannot_be_normalised(
    make_config: MakeConfig,
    splits: DataSplits,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
    batch_size: int,
) -> None:
    config = make_config(
        network="4C3v-10", input={"height": 3, "width": 3, "time_steps": 1},
        training={"epochs": epochs, "batch_size": batch_size},
    )  # fmt: skip
    for samples in range(1, 8):
        data = single_pixels(splits, samples)
        with monkeypatch.context() as patch:
            patch.setattr(training_module, "_check_batches", lambda *_: None)
            try:
                train(config, data)
                reason = None
            except ValueError as error:
                reason = str(error)
        if reason is None:
            train(config, data)
            continue
        assert "more than 1 value per channel" in reason
        rule = rf"training\.batch_size: must not leave one of the {samples} samples .* 0:4C3v "
        with pytest.raises(ConfigError, match=rf"{rule}.*; got {batch_size}$"):
            train(config, data)


@pytest.mark.parametrize("name", ["spike_rate_escape", "sso", "sigmoid", "triangular"])
def test_every_surrogate_trains_and_repeats(
    make_config: MakeConfig, splits: DataSplits, name: str
) -> None:
    slope = {"spike_rate_escape": 1, "sso": 0.2, "sigmoid": 5, "triangular": 1}[name]
    config = make_config(surrogate={"name": name, "slope": slope}, training={"epochs": 3})
    first, again = train(config, splits), train(config, splits)
    assert all(map(torch.equal, weights(first), weights(again)))
    assert max(epoch.accuracy for epoch in first.epochs) > 0.3


@pytest.mark.parametrize("population", [1, 3])
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mse_count", functional.mse_count_loss),
        ("ce_count", functional.ce_count_loss),
    ],
)
def test_losses_are_snntorchs_in_value_and_gradient(
    make_config: MakeConfig, name: str, published: Callable[..., Any], population: int
) -> None:
    config = make_config(
        network=f"{10 * population}", training={"loss": name, "population": population}
    )
    theirs = published(population_code=population > 1, num_classes=10)
    torch.manual_seed(0)
    values = (torch.rand(4, 16, 10 * population) < 0.3).float()
    labels = torch.arange(16) % 10
    results = []
    for function in (lambda x, y: count_loss(x, y, config), theirs):
        spikes = values.clone().requires_grad_()
        loss = function(spikes, labels)
        loss.backward()
        results.append((loss.detach(), spikes.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_training_stops_when_patience_with_validation_runs_out(
    make_config: MakeConfig, splits: DataSplits, patience: int
) -> None:
    epochs = 16
    training = train(
        make_config(
            training={"epochs": epochs, "batch_norm": False, "patience": patience, "lr": 0.05}
        ),
        splits,
    )
    accuracy = [epoch.accuracy for epoch in training.epochs]
    assert training.stopped_at_epoch == len(accuracy) < epochs
    assert accuracy.index(max(accuracy)) == len(accuracy) - 1 - patience
    for end in range(1, len(accuracy)):  # and it did not run out before
        assert end - 1 - accuracy.index(max(accuracy[:end])) < patience


def test_epochs_of_the_warm_up_do_not_use_up_patience(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    training = {"epochs": 10, "lr": 1e-9, "patience": 2}
    stopped = train(make_config(training=training), splits)
    assert stopped.stopped_at_epoch == 5 + 1 + 2
    without = train(make_config(training=training | {"batch_norm": False}), splits)
    assert without.stopped_at_epoch == 1 + 2
    patient = train(make_config(training=training | {"patience": None, "epochs": 3}), splits)
    assert patient.stopped_at_epoch is None
    assert len(patient.epochs) == 3


class Interruption(Exception):  # noqa: N818  # not an error
    """Stands for whatever ends a process."""


def interrupt_at(epoch: int) -> Callable[[int, int, Mapping[str, float]], None]:
    def on_epoch(done: int, total: int, metrics: Mapping[str, float]) -> None:
        if done == epoch:
            raise Interruption

    return on_epoch


@pytest.mark.parametrize("sections", [
    {},
    {"surrogate": {"name": "sso", "slope": 0.2}},
    {"training": {"batch_norm": False, "patience": 1, "lr": 0.05}},
])  # fmt: skip
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    make_config: MakeConfig, splits: DataSplits, tmp_path: Path, sections: dict[str, Any]
) -> None:
    training = {"epochs": 5, "dropout": 0.2} | sections.get("training", {})
    config = make_config(**(sections | {"training": training}))
    expected = train(config, splits)
    checkpoint = run_checkpoint(tmp_path / "run", config, splits)
    for epoch in range(1, len(expected.epochs) + 1):  # in the warm-up, after it, at the very end
        with pytest.raises(Interruption):
            train(config, splits, checkpoint=checkpoint, on_epoch=interrupt_at(epoch))
        torch.rand(3)  # whatever happens in between
    found = train(config, splits, checkpoint=checkpoint)
    assert all(map(torch.equal, weights(found), weights(expected)))
    assert (found.epochs, found.status) == (expected.epochs, expected.status)
    assert found.stopped_at_epoch == expected.stopped_at_epoch
    assert found.seconds > 0
    assert checkpoint.warnings == []


def as_text(path: Path, state: dict[str, Any], key: str) -> None:
    path.write_text("not a checkpoint")


def as_half(path: Path, state: dict[str, Any], key: str) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def as_foreign(path: Path, state: dict[str, Any], key: str) -> None:
    torch.save({"key": "another", "state": state}, path)


def as_other_network(path: Path, state: dict[str, Any], key: str) -> None:
    state["network"] = {name: value[:1] for name, value in state["network"].items() if value.dim()}
    torch.save({"key": key, "state": state}, path)


def as_code(path: Path, state: dict[str, Any], key: str) -> None:
    torch.save({"key": key, "state": state, "code": Interruption}, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (as_text, "it is damaged"), (as_half, "it is damaged"), (as_code, "it is damaged"),
        (as_foreign, "it belongs to another training"),
        (as_other_network, "it does not fit the network"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_used_is_set_aside_in_one_sentence(
    make_config: MakeConfig,
    splits: DataSplits,
    tmp_path: Path,
    damage: Callable[[Path, dict[str, Any], str], None],
    reason: str,
) -> None:
    config = make_config(training={"epochs": 2})
    checkpoint = run_checkpoint(tmp_path / "run", config, splits)
    with pytest.raises(Interruption):
        train(config, splits, checkpoint=checkpoint, on_epoch=interrupt_at(1))
    state = checkpoint.load()
    assert state is not None
    damage(checkpoint.path, state, checkpoint.key)
    content = checkpoint.path.read_bytes()
    found = train(config, splits, checkpoint=checkpoint)
    assert all(map(torch.equal, weights(found), weights(train(config, splits))))
    (warning,) = checkpoint.warnings
    assert reason in warning
    assert str(checkpoint.path) in warning
    assert "\n" not in warning
    assert checkpoint.path.with_name(f"{checkpoint.path.name}.unused").read_bytes() == content
    assert checkpoint.path.name not in warning.replace(str(checkpoint.path), "")
    checkpoint.remove()
    assert not checkpoint.path.parent.exists()


def test_checkpoints_of_earlier_configurations_go_too_and_nothing_else(
    make_config: MakeConfig, splits: DataSplits, tmp_path: Path
) -> None:
    earlier = run_checkpoint(tmp_path / "run", make_config(), splits)
    checkpoint = run_checkpoint(tmp_path / "run", make_config(training={"seed": 1}), splits)
    folder = checkpoint.path.parent
    earlier.save({"seconds": 1.0})
    earlier.set_aside("it is damaged")
    earlier.save({"seconds": 1.0})
    (folder / f".{earlier.path.name}.{'0' * 32}").write_bytes(b"half of")  # as a kill leaves it
    checkpoint.save({"seconds": 2.0})
    notes = folder / "notes.pt"
    notes.write_text("mine")
    checkpoint.remove()
    assert list(folder.iterdir()) == [notes]
    notes.unlink()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_a_checkpoint_is_what_decides_the_weights(
    make_config: MakeConfig, splits: DataSplits, tmp_path: Path
) -> None:
    def key(config: Config, data: DataSplits = splits) -> str:
        return run_checkpoint(tmp_path / "run", config, data).key

    config = make_config()
    assert key(make_config(hardware={"membrane_bits": 24})) == key(config)
    assert key(make_config(training={"seed": 1})) != key(config)
    assert key(make_config(surrogate={"slope": 3})) != key(config)
    frames = splits.train.frames.copy()
    frames[5, 0, 0, 0, 0] ^= True
    other = EventFrames(frames=frames, labels=splits.train.labels)
    data = DataSplits(train=other, validation=splits.validation, test=splits.test)
    assert key(config, data) != key(config)


def test_a_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint = Checkpoint(path=tmp_path / "a" / "b.pt", key="k")
    checkpoint.remove()
    checkpoint.save({"seconds": 1.0})
    assert checkpoint.load() == {"seconds": 1.0}
    checkpoint.remove()
    assert checkpoint.load() is None
    assert list(tmp_path.iterdir()) == []


def test_mixed_precision_trains_and_is_measured_in_full(
    make_config: MakeConfig, splits: DataSplits
) -> None:
    config = make_config(training={"precision": "mixed", "epochs": 6})
    training = train(config, splits)
    assert evaluate(training.network, splits.test, 10).accuracy > 0.9
    full = train(make_config(training={"epochs": 6}), splits)
    assert not all(map(torch.equal, weights(training), weights(full)))
    layer = training.network.spiking_layers[0]
    frames = torch.tensor(splits.test.frames[:8]).transpose(0, 1).float()
    exact = layer.weighted(frames.flatten(0, 1))
    assert torch.equal(layer._currents(frames.flatten(0, 1)), exact)
    layer.train()
    rounded = layer._currents(frames.flatten(0, 1))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_a_gpu_trains_and_repeats(
    make_config: MakeConfig, splits: DataSplits, tmp_path: Path, precision: str
) -> None:
    config = make_config(
        network="4C3-MP2-6C3-10", training={"epochs": 6, "precision": precision, "dropout": 0.1}
    )
    expected = train(config, splits)
    assert weights(expected)[0].is_cuda
    checkpoint = run_checkpoint(tmp_path / "run", config, splits)
    with pytest.raises(Interruption):
        train(config, splits, checkpoint=checkpoint, on_epoch=interrupt_at(4))
    found = train(config, splits, checkpoint=checkpoint)
    assert all(map(torch.equal, weights(found), weights(expected)))
    assert evaluate(found.network, splits.test, 10).accuracy > 0.9


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


@pytest.mark.skipif(
    _memory._glibc() is None or _memory._is_set_by_user(), reason="for the C library of Linux"
)
def test_memory_of_a_batch_is_kept_for_the_next() -> None:
    import resource

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def faults_of_a_batch() -> int:
        before = faults()
        torch.ones(10_000_000)
        return faults() - before

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    pages = 10_000_000 * 4 // resource.getpagesize()
    with _memory.kept_memory():
        kept = [faults_of_a_batch() for _ in range(8)]
        held = resident()
    assert max(kept[-3:]) < pages / 10  # until then the heap grows
    assert held - resident() > pages / 2  # it was given back


class Libc:
    """Stands for the C library, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.trimmed = 0

    def mallopt(self, parameter: int, value: int) -> None:
        self.told.append((parameter, value))

    def malloc_trim(self, pad: int) -> None:
        self.trimmed += 1


def test_the_c_library_is_told_once_and_never_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    libc = Libc()
    monkeypatch.setattr(_memory, "_glibc", lambda: libc)
    for _ in range(2):
        with _memory.kept_memory():
            pass
    assert sorted(libc.told) == [(-3, 2**30), (-1, 2**30)]
    assert libc.trimmed == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "0"),
        ("MALLOC_ARENA_MAX", "2"),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=4:glibc.malloc.mmap_threshold=65536"),
    ],
)
def test_memory_settings_of_the_user_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    libc = Libc()
    monkeypatch.setattr(_memory, "_glibc", lambda: libc)
    monkeypatch.setenv(name, value)
    with _memory.kept_memory():
        pass
    assert libc.told == []
    assert libc.trimmed == 0


def test_training_needs_no_particular_c_library(
    make_config: MakeConfig, splits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(training={"epochs": 1})
    expected = train(config, splits)
    monkeypatch.setattr(_memory, "_glibc", lambda: None)
    assert all(map(torch.equal, weights(train(config, splits)), weights(expected)))


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
