"""The shape of what images are compared in: a function from images to rows of numbers."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgegen.errors import DataError


class FeatureSpace(Protocol):
    """What a distance needs: `name` says exactly which features these are, with the hash of trained weights."""

    @property
    def name(self) -> str: ...

    def features(self, images: Tensor) -> NDArray[np.floating[Any]]:
        """float images (n, channels, height, width), or signals, in [-1, 1] -> (n, width of the features)."""


def as_rgb(images: Tensor) -> Tensor:
    """Images of 1 or 3 channels in 3. Raises DataError for others, which networks of photographs cannot see."""
    channels = images.shape[1]
    if channels not in (1, 3):
        raise DataError(f"images of {channels} channels; Inception and DINOv2 see images of 1 channel or 3")
    return images.expand(-1, 3, -1, -1) if channels == 1 else images
