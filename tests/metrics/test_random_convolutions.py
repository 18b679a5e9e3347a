"""The features that no training uses: the same everywhere, and further for each kind of damage the more there is."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from damaged_digits import blurred, digits, few, heldout, noisy, without_classes
from torch import Tensor

from edgegen.errors import DataError
from edgegen.metrics import frechet, random_convolutions
from edgegen.support.pixels import scaled


def test_they_depend_on_nothing_but_the_image() -> None:
    torch.manual_seed(1)
    first = random_convolutions(3)
    torch.manual_seed(2)
    second = random_convolutions(3)
    images = torch.rand(5, 3, 9, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert first.name == second.name == "random-convolutions-v1"
    features = first.features(images)
    assert np.array_equal(features, second.features(images))
    assert features.shape == (5, 160)
    np.testing.assert_allclose(first.features(images[2:3])[0], features[2], rtol=1e-5, atol=1e-6)
    # Version 1, as it is: another value is another space, and needs another name.
    assert float(first.kernels[2].sum()) == pytest.approx(GOLDEN, abs=1e-4)


GOLDEN = 11.45092


def test_they_are_means_and_deviations_of_three_layers() -> None:
    space, image = random_convolutions(1), heldout()[:1]
    h, expected = image.double(), []
    for kernel in space.kernels:
        padded = np.pad(h[0].numpy(), ((0, 0), (1, 1), (1, 1)), mode="edge")
        maps = F.conv2d(torch.from_numpy(padded)[None], kernel.double()).clamp(min=0)
        expected.append([*maps[0].mean(dim=(1, 2)), *maps[0].flatten(1).std(dim=1)])
        h = F.avg_pool2d(maps, 2)
    np.testing.assert_allclose(space.features(image)[0], np.concatenate(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (4, 9)])
def test_small_images_have_features_that_are_finite(size: tuple[int, int]) -> None:
    assert np.isfinite(random_convolutions(1).features(torch.rand(3, 1, *size) * 2 - 1)).all()


def damaged(kind: str) -> list[Tensor]:
    _, _, _, labels = digits()
    return {
        "noise": [noisy(heldout(), s) for s in (0, 0.05, 0.1, 0.2, 0.4)],
        "blur": [blurred(heldout(), s) for s in (0, 0.4, 0.5, 0.7, 1.0)],
        "missing classes": [without_classes(heldout(), labels, missing)[0] for missing in (0, 1, 2, 4, 7)],
        "few distinct images": [few(heldout(), distinct) for distinct in (500, 250, 100, 30, 10)],
        "shift": [torch.roll(heldout(), pixels, 3) for pixels in (0, 1, 2)],
        "contrast": [heldout() * (1 - part) for part in (0, 0.05, 0.1, 0.2)],
    }[kind]


@pytest.mark.parametrize("kind", ["noise", "blur", "missing classes", "few distinct images", "shift", "contrast"])
def test_the_distance_grows_with_damage(kind: str) -> None:
    space = random_convolutions(1)
    real = space.features(scaled(digits()[0])).astype(np.float64)
    distances = [frechet(real, space.features(images).astype(np.float64)) for images in damaged(kind)]
    assert all(less < more for less, more in itertools.pairwise(distances)), distances


def test_values_that_are_not_finite() -> None:
    with pytest.raises(DataError, match="not finite"):
        random_convolutions(1).features(torch.full((1, 1, 8, 8), torch.nan))
