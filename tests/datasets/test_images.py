"""Still images: read, scaled, and coded as spikes."""

import gzip
import struct
from fractions import Fraction

import numpy as np
import pytest

from spikemeter.datasets.coding import latency_coded, rate_coded
from spikemeter.datasets.images import fashion_images, mnist_images, resized, sklearn_digits
from spikemeter.errors import InputError

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def idx(array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def write_fashion(folder, train=30, test=10, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    arrays = {}
    for split, count in (("train", train), ("t10k", test)):
        arrays[f"{split}-images-idx3"] = rng.integers(0, 256, (count, 28, 28))
        arrays[f"{split}-labels-idx1"] = np.arange(count) % 10
    for name, array in arrays.items():
        (folder / f"{name}-ubyte.gz").write_bytes(idx(array))
    return arrays


def test_packages_carry_the_digits_that_are_registered():
    mnist, digits = mnist_images(), sklearn_digits()
    assert mnist.pixels.shape == (5_000, 28, 28)
    assert np.bincount(mnist.labels).tolist() == [500] * 10
    assert digits.pixels.shape == (1_797, 20, 20)
    assert digits.pixels.dtype == np.uint8
    assert digits.pixels.max() == 255
    assert len(np.unique(digits.labels)) == 10


def test_digits_are_enlarged_by_linear_interpolation():
    from sklearn.datasets import load_digits

    small = load_digits().images[5].astype(int)
    large = sklearn_digits().pixels[5]
    for y in range(20):
        for x in range(20):
            value = Fraction(0)
            for i, a in taps(y):
                for j, b in taps(x):
                    value += a * b * small[i, j]
            assert large[y, x] == int(value * 255 / 16 + Fraction(1, 2))


def taps(place):
    """Pixels of eight between which the middle of one of twenty lies, and their shares."""
    middle = Fraction(2 * place + 1, 2) * Fraction(8, 20) - Fraction(1, 2)
    left = middle.numerator // middle.denominator
    right = middle - left
    return (max(left, 0), 1 - right), (min(left + 1, 7), right)


@pytest.mark.parametrize("size", [(28, 28), (16, 16), (7, 14), (34, 5), (1, 1)])
def test_resized_pixels_are_the_mean_of_their_area(size):
    image = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    scaled = resized(image, size)
    assert scaled.shape == (2, *size)
    # On a grid that both sizes divide, every pixel is a block
    fine = image.repeat(size[0], axis=1).repeat(size[1], axis=2).astype(np.float64)
    blocks = fine.reshape(2, size[0], 28, size[1], 28).mean(axis=(2, 4))
    np.testing.assert_array_equal(scaled, np.floor(blocks + 0.5))


def test_fashion_keeps_its_splits(tmp_path):
    arrays = write_fashion(tmp_path / "data")
    images = fashion_images(tmp_path / "data")
    np.testing.assert_array_equal(images.pixels[:30], arrays["train-images-idx3"])
    np.testing.assert_array_equal(images.pixels[30:], arrays["t10k-images-idx3"])
    assert images.labels.tolist() == [*(n % 10 for n in range(30)), *range(10)]
    assert images.test.tolist() == [False] * 30 + [True] * 10


def test_only_the_beginning_of_a_large_set_is_taken(tmp_path):
    write_fashion(tmp_path / "data", train=6_010, test=1_001)
    images = fashion_images(tmp_path / "data")
    assert (len(images.pixels), images.test.sum()) == (7_000, 1_000)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (0, None, "No such file"),
        (0, b"no gzip", "it is damaged or no compressed idx file"),
        (0, idx(np.zeros((30, 28, 28)))[:-20], "it is damaged or no compressed idx file"),
        (0, gzip.compress(b"\0\0\x08"), "it is damaged or no compressed idx file"),
        (0, gzip.compress(idx(np.zeros(3))), "must be an idx file of n x 28 x 28 bytes"),
        (0, idx(np.zeros((30, 20, 28))), r"n x 28 x 28 bytes, got kind 0x08, 30 x 20 x 28"),
        (
            0,
            gzip.compress(gzip.decompress(idx(np.zeros((30, 28, 28))))[:-9]),
            "ends before entry 30",
        ),
        (0, idx(np.zeros((29, 28, 28))), "as many images as .* has labels, 30; got 29"),
        (1, idx(np.full(30, 11)), "must hold labels 0 to 9, got 11"),
    ],
)
def test_malformed_idx_files_are_named(tmp_path, name, content, said):
    write_fashion(tmp_path / "data")
    path = tmp_path / "data" / f"{NAMES[name]}-ubyte.gz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"(?=.*{path.name}).*{said}") as caught:
        fashion_images(tmp_path / "data")
    assert "\n" not in str(caught.value)


IMAGES = np.random.default_rng(2).integers(0, 256, (40, 6, 7), dtype=np.uint8)


def test_rates_follow_grey_values_and_gain():
    greys = np.array([[[0, 64, 128, 255]]], dtype=np.uint8)
    for gain in (1.0, 0.5):
        (spikes,) = rate_coded(greys, time_steps=4_000, gain=gain)
        assert spikes.shape == (4_000, 1, 1, 4)
        rates = spikes.mean(axis=0).ravel()
        np.testing.assert_allclose(rates, gain * greys.ravel() / 255, atol=0.03)
        assert rates[0] == 0


def test_rate_noise_belongs_to_the_image_and_leaves_the_generator_alone():
    import torch

    before = torch.get_rng_state()
    first = list(rate_coded(IMAGES, time_steps=5, gain=0.8))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    again = list(rate_coded(IMAGES[:3], time_steps=5, gain=0.8))
    for one, other in zip(first[:3], again, strict=True):
        np.testing.assert_array_equal(one, other)
    same = list(rate_coded(np.stack([IMAGES[0]] * 2), time_steps=5, gain=0.8))
    assert not np.array_equal(same[0], same[1])
    other_seed = next(rate_coded(IMAGES, time_steps=5, gain=0.8, seed=1))
    assert not np.array_equal(first[0], other_seed)


def test_latency_is_linear_in_grey_over_all_steps():
    greys = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for time_steps in (1, 2, 5, 11):
        (spikes,) = latency_coded(greys, time_steps=time_steps)
        assert spikes.shape == (time_steps, 1, 16, 16)
        flat = spikes.reshape(time_steps, 256)
        bright = np.arange(256) >= 0.01 * 255
        np.testing.assert_array_equal(flat.sum(axis=0), bright)
        first = flat[:, bright].argmax(axis=0)
        expected = (1 - np.arange(256)[bright] / 255) * (time_steps - 1)
        assert np.all(np.abs(first - expected) <= 0.5 + 1e-6)
        assert {0, time_steps - 1} <= set(first.tolist())
