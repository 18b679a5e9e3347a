"""Features that are no measure of quality are found: by their own task, and by known damage to real images."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.metrics.sanity import DAMAGE, check_features

REAL = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5


@dataclass(frozen=True)
class Features:
    """An extractor of one number for each kind of image statistic; `blind` ones see the mean colour alone."""

    accuracy: float
    blind: bool = False
    name: str = "made up"

    def features(self, images: Tensor) -> NDArray[np.float64]:
        flat = images.flatten(1).double()
        mean, spread = flat.mean(dim=1), flat.std(dim=1)
        values = torch.stack([mean, torch.zeros_like(mean) if self.blind else spread], dim=1)
        return values.numpy()


@dataclass(frozen=True)
class NearNoise(Features):
    """Sees little of pure noise."""

    def features(self, images: Tensor) -> NDArray[np.float64]:
        is_pure = (images.abs() == 1).flatten(1).all(dim=1)
        return np.where(is_pure.numpy()[:, None], super().features(REAL[: len(images)]), super().features(images))


def fault(extractor: Features, classes: int = 4) -> str:
    real, heldout = extractor.features(REAL[:200]), REAL[200:]
    return check_features(extractor, real, heldout, classes=classes, seed=0).fault


def test_features_that_see_damage_are_taken() -> None:
    extractor = Features(0.9)
    sanity = check_features(extractor, extractor.features(REAL[:200]), REAL[200:], classes=4, seed=0)
    assert sanity.fault == ""
    assert len(sanity.distances) == len(DAMAGE)
    assert list(sanity.distances) == sorted(sanity.distances)
    assert sanity.pure_noise > sanity.distances[-1]


@pytest.mark.parametrize(
    ("extractor", "classes", "message"),
    [
        (Features(1.0), 1, "gets 100% of its 1 classes right, where guessing gets 100%"),
        (Features(0.27), 4, "gets 27% of its 4 classes right, where guessing gets 25%"),
        (NearNoise(0.9), 4, "pure noise is as near to the real images"),
        (Features(0.9, blind=True), 4, "the distance does not grow with noise on real images"),
    ],
)
def test_features_without_worth_say_why(extractor: Features, classes: int, message: str) -> None:
    assert message in fault(extractor, classes)
