"""Two figures of a set of images that need no features: how much is black or white, and how much the images differ."""

from dataclasses import dataclass

from torch import Tensor

from edgegen.support.pixels import as_shown


@dataclass(frozen=True)
class PixelStatistics:
    """`saturated` is the share of the values that are black or white as shown, 0 to 1.

    `spread` is the standard deviation of a pixel over the images, the mean over the pixels, on the scale from -1 to 1.
    """

    saturated: float
    spread: float


def pixel_statistics(images: Tensor) -> PixelStatistics:
    """Of float images (n, channels, height, width) in [-1, 1], n of 2 or more, after rounding to 8 bits."""
    shown = as_shown(images.float())
    return PixelStatistics(float((shown.abs() >= 1).double().mean()), float(shown.double().std(dim=0).mean()))
