"""The extractor: shapes for every size, its pretext task, and a name that changes with the weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgegen.data import load, split
from edgegen.errors import DataError
from edgegen.metrics import (
    CLASSIFIER,
    SmallCNN,
    accuracy,
    fd_name,
    frechet,
    local_extractor,
    pretext_labels,
)
from edgegen.metrics.extractor import _quarters
from edgegen.support.pixels import to_float


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (9, 14), (32, 32), (64, 64), (4, 4)])
def test_64_features_for_every_size(channels: int, size: tuple[int, int]) -> None:
    network = SmallCNN(channels=channels, classes=7)
    images = torch.randn(3, channels, *size)
    assert network(images).shape == (3, 7)
    assert network.features(images).shape == (3, 64)
    assert network.features(images).min() >= 0


@pytest.mark.parametrize("shape", [(2, 2), (7, 7), (5, 6), (1, 3), (16, 16)])
def test_quarters_are_adaptive_average_pooling(shape: tuple[int, int]) -> None:
    h = torch.randn(2, 5, *shape, dtype=torch.float64)
    torch.testing.assert_close(_quarters(h), F.adaptive_avg_pool2d(h, 2).flatten(1))


def test_accuracy_against_the_formula() -> None:
    network = SmallCNN(channels=1, classes=4)
    images, labels = torch.randn(1100, 1, 8, 8), torch.randint(4, (1100,))
    with torch.no_grad():
        logits = network(images).double()
    assert accuracy(network, images, labels) == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_pretext_labels_are_quarter_turns() -> None:
    images = torch.arange(2 * 3 * 16, dtype=torch.float32).reshape(2, 3, 4, 4)
    turned, labels = pretext_labels(images)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for i, label in enumerate(labels.tolist()):
        np.testing.assert_array_equal(turned[i].numpy(), np.rot90(images[i % 2].numpy(), label, axes=(1, 2)))


def test_pretext_of_images_that_are_not_square_turns_both_ends() -> None:
    images = torch.arange(2 * 1 * 24, dtype=torch.float32).reshape(2, 1, 4, 6)
    turned, labels = pretext_labels(images)
    assert turned.shape == (16, 1, 4, 4)
    ends = [*images[..., :4], *images[..., 2:]]
    for i, label in enumerate(labels.tolist()):
        np.testing.assert_array_equal(turned[i].numpy(), np.rot90(ends[i % 4].numpy(), label, axes=(1, 2)))


def test_the_name_follows_the_weights() -> None:
    network = SmallCNN(channels=1, classes=3)
    first = local_extractor(network, task=CLASSIFIER, source="digits", accuracy=0.5)
    assert fd_name(first).startswith("fd_local[cnn-v1,digits,sha256:")
    same = SmallCNN(channels=1, classes=3)
    same.load_state_dict(network.state_dict())
    assert local_extractor(same, task=CLASSIFIER, source="digits", accuracy=0.5).name == first.name
    with torch.no_grad():
        same.conv3.bias[0] += 1e-3
    assert local_extractor(same, task=CLASSIFIER, source="digits", accuracy=0.5).name != first.name


def test_features_are_float64_of_the_8_bit_image_in_any_number() -> None:
    extractor = local_extractor(SmallCNN(channels=3, classes=3), task=CLASSIFIER, source="x", accuracy=0.0)
    images = torch.rand(600, 3, 8, 8) * 2 - 1
    features = extractor.features(images)
    assert (features.dtype, features.shape) == (np.float64, (600, 64))
    levels = ((images + 1) * 127.5).round()
    np.testing.assert_array_equal(extractor.features(levels / 127.5 - 1), features)
    np.testing.assert_allclose(extractor.features(images[:7]), features[:7], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(extractor.features(images * 0 + 9), extractor.features(images * 0 + 1))
    whole = to_float(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3))
    with torch.no_grad():
        exact = extractor.network.features(whole).double().numpy()
    np.testing.assert_allclose(extractor.features(whole), exact, atol=1e-6)
    images[3, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite, so they have no features"):
        extractor.features(images)


def test_it_learns_the_digits_and_tells_them_from_noise() -> None:
    """Seconds of training: the held-out digits are far nearer to the training ones than noise or one class alone."""
    from pathlib import Path

    train, held = split(load("digits", base=Path()), holdout=0.25, seed=0)
    assert train.labels is not None
    assert held.labels is not None
    images, labels = to_float(train.images), torch.from_numpy(train.labels)
    network = SmallCNN(channels=1, classes=10)
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(120):
        rows = torch.randint(len(images), (64,))
        adam.zero_grad()
        F.cross_entropy(network(images[rows]), labels[rows]).backward()
        adam.step()
    seen = accuracy(network, to_float(held.images), torch.from_numpy(held.labels))
    assert seen > 0.85
    extractor = local_extractor(network, task=CLASSIFIER, source=train.source, accuracy=seen)
    real = extractor.features(to_float(held.images))
    floor = frechet(real, extractor.features(images[torch.randperm(len(images))[: len(real)]]))
    one_class = frechet(real, extractor.features(images[labels == 3]))
    noise = frechet(real, extractor.features(torch.randn(len(real), 1, 8, 8)))
    assert floor * 5 < min(one_class, noise)
