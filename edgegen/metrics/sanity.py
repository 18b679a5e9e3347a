"""Whether features are worth anything as a measure of quality: the distance has to grow with known damage."""

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.metrics.distances import frechet_of, moments
from edgegen.metrics.extractor import FeatureExtractor
from edgegen.metrics.feature_space import FeatureSpace
from edgegen.support.rng import generator

DAMAGE = (0.0, 0.1, 0.2, 0.4)  # standard deviation of Gaussian noise on images in [-1, 1]
FAR = 4.0  # pure noise is at least so many times further from the real images than the least damaged ones
ABOVE_CHANCE = 0.1  # share of the way from guessing to certainty that the extractor's own task needs


@dataclass(frozen=True)
class Sanity:
    """The Frechet distance of held-out images to training images, by `DAMAGE` done to them, and that of pure noise.

    `fault` says why the features are no measure of quality, "" where they are one.
    """

    distances: tuple[float, ...]
    pure_noise: float
    fault: str

    def to_dict(self) -> dict[str, Any]:
        return {"damage": list(DAMAGE), **asdict(self)}


def check_features(
    extractor: FeatureExtractor, real: NDArray[np.float64], heldout: Tensor, *, classes: int, seed: int
) -> Sanity:
    """`check_damage`, after the extractor's own task: `accuracy` on its `classes` classes has to beat guessing."""
    sanity = check_damage(extractor, real, heldout, seed=seed)
    least = (1 + ABOVE_CHANCE * (classes - 1)) / classes
    if classes < 2 or extractor.accuracy < least:
        fault = (
            f"the extractor gets {extractor.accuracy:.0%} of its {classes} classes right, where guessing gets "
            f"{1 / classes:.0%}"
        )
        return replace(sanity, fault=fault)
    return sanity


def check_damage(space: FeatureSpace, real: NDArray[Any], heldout: Tensor, *, seed: int) -> Sanity:
    """Measures how the features of `space` see damage.

    Args:
        space: what images are compared in.
        real: features (n, d) of training images.
        heldout: other real images (m, channels, height, width) in [-1, 1].
        seed: draws the damage.

    Returns:
        The distances, and the fault that they show, if any.
    """
    rng = generator(seed)
    noise = torch.randn(heldout.shape, generator=rng)
    reference = moments([real])

    def distance(images: Tensor) -> float:
        return frechet_of(reference, moments([space.features(images)]))

    distances = [distance((heldout + level * noise).clamp(-1, 1)) for level in DAMAGE]
    pure = distance(torch.where(noise < 0, -1.0, 1.0))
    fault = ""
    if any(more <= less for less, more in itertools.pairwise(distances)):
        fault = f"the distance does not grow with noise on real images: {', '.join(f'{d:.3g}' for d in distances)}"
    elif pure < FAR * distances[0]:
        fault = f"pure noise is as near to the real images ({pure:.3g}) as real ones are ({distances[0]:.3g})"
    return Sanity(tuple(distances), pure, fault)
