"""Two figures of a set of images that need no features: how much is black or white, and how much the images differ."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgegen.support.pixels import as_shown


@dataclass(frozen=True)
class PixelStatistics:
    """`saturated` is the share of the values that are black or white as shown, 0 to 1.

    `spread` is the standard deviation of a pixel over the images, the mean over the pixels, on the scale from -1 to 1.
    """

    saturated: float
    spread: float


@dataclass(frozen=True, eq=False)
class PixelSums:
    """Sums over `count` images, from which `statistics` come: saturated values, and pixels and their squares."""

    count: int
    saturated: float
    pixels: NDArray[np.float64]
    squares: NDArray[np.float64]

    @staticmethod
    def of(images: Tensor) -> "PixelSums":
        """Of float images (n, channels, height, width) in [-1, 1], rounded to 8 bits; or of signals as they are."""
        shown = as_shown(images.float()).cpu().double().numpy()
        return PixelSums(len(shown), float((np.abs(shown) >= 1).sum()), shown.sum(axis=0), (shown * shown).sum(axis=0))

    def __add__(self, other: "PixelSums") -> "PixelSums":
        return PixelSums(
            self.count + other.count,
            self.saturated + other.saturated,
            self.pixels + other.pixels,
            self.squares + other.squares,
        )

    def statistics(self) -> PixelStatistics:
        """Of 2 images or more. Values lie in [-1, 1], so that the squares lose no digits that are shown."""
        variance = (self.squares - self.pixels**2 / self.count) / (self.count - 1)
        spread = float(np.sqrt(np.clip(variance, 0.0, None)).mean())
        return PixelStatistics(self.saturated / (self.count * self.pixels.size), spread)


def pixel_statistics(parts: Iterable[PixelSums]) -> PixelStatistics:
    """Of all images of `parts`, one or more."""
    first, *others = parts
    return sum(others, first).statistics()
