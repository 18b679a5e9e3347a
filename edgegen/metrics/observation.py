"""What is kept of generated images: their features and a few numbers each, so that 50,000 need little memory.

Images are observed in blocks, by any process; the figures (edgegen.metrics.quality) come from all blocks of a set in
their order, and so do not depend on who observed which.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.metrics.extractor import LocalExtractor
from edgegen.metrics.feature_space import FeatureSpace
from edgegen.metrics.fidelity import fidelity
from edgegen.metrics.memorisation import nearest_distances
from edgegen.metrics.pixel_statistics import PixelSums
from edgegen.metrics.spectrum import ring_power

PREFIX = "features."  # of the features of a space among the tensors of a block


@dataclass(frozen=True, eq=False)
class Observation:
    """Of n images: `features` (n, d) by the name of the space, and the rest; `None` where it was not asked for.

    `classes` (n,) are what the local classifier takes the images for, `rings` the mean of `ring_power` over the images
    (rings,), `nearest` the distances of `nearest_distances` (n,), `fidelity` the figures of `fidelity` (n, 2).
    """

    count: int
    features: Mapping[str, NDArray[np.floating]]
    rings: NDArray[np.float64]
    pixels: PixelSums
    classes: NDArray[np.int64] | None = None
    nearest: NDArray[np.float64] | None = None
    fidelity: NDArray[np.float64] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file; features in float32, in which the networks gave them."""
        arrays: dict[str, NDArray[np.generic]] = {
            "count": np.array([self.count, self.pixels.count]),
            "rings": self.rings,
            "saturated": np.array([self.pixels.saturated]),
            "pixels": self.pixels.pixels,
            "squares": self.pixels.squares,
        }
        arrays |= {PREFIX + name: values.astype(np.float32) for name, values in self.features.items()}
        arrays |= {} if self.classes is None else {"classes": self.classes}
        arrays |= {} if self.nearest is None else {"nearest": self.nearest}
        arrays |= {} if self.fidelity is None else {"fidelity": self.fidelity}
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor]) -> "Observation":
        """What `tensors` gave."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        features = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        count, pixel_count = (int(value) for value in arrays["count"])
        pixels = PixelSums(pixel_count, float(arrays["saturated"][0]), arrays["pixels"], arrays["squares"])
        further = {name: arrays.get(name) for name in ("classes", "nearest", "fidelity")}
        return Observation(count, features, arrays["rings"], pixels, **further)


def observe(
    images: Tensor,
    spaces: Mapping[str, FeatureSpace],
    *,
    classifier: LocalExtractor | None = None,
    training: Tensor | None = None,
    truths: Tensor | None = None,
) -> Observation:
    """Of float images (n, channels, height, width), or signals (n, channels, length), in [-1, 1].

    Args:
        images: one block.
        spaces: what they are compared in, by name.
        classifier: says of which class each one is, by its features in the space "local"; None: nobody asks.
        training: uint8 images (m, channels, height, width), or float signals, among which the nearest is looked for;
            None: nobody asks.
        truths: what each image is to be like, of the same shape; None: nobody knows.

    Raises:
        DataError: values that are not finite.
    """
    features = {name: space.features(images) for name, space in spaces.items()}
    return Observation(
        len(images),
        features,
        ring_power(images).mean(axis=0),
        PixelSums.of(images),
        classes=None if classifier is None else classifier.classes(features["local"]),
        nearest=None if training is None else nearest_distances(images, training),
        fidelity=None if truths is None else fidelity(images, truths),
    )
