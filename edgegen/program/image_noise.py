"""Random images with the statistics of photographs, for networks that take an image where nobody gave any. No torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgegen.noise import normal

LEAVES = 64  # discs of one image, each on those before it
RADII = (1 / 24, 1 / 2)  # of the larger side: the smallest and the largest disc
CHANNELS_ALIKE = 0.85  # correlation of the channels of a colour
TEXTURE = 0.08  # of half the range: standard deviation of the 1/f texture on the discs
LARGEST_BATCH = 1 << 22  # pixels at once


def natural_images(
    seed: int, first: int, count: int, shape: Sequence[int], image_range: tuple[float, float]
) -> NDArray[np.float32]:
    """Images first .. first+count-1 of a seed: (count, channels, height, width) float32 within `image_range`.

    Discs that lie over each other, many small among few large, are the dead leaves model (Lee, Mumford, Huang,
    "Occlusion models for natural images", IJCV 41, 2001); on them lies a texture whose amplitude falls as 1/f (Field,
    JOSA A 4(12), 1987). As in photographs, neighbouring pixels are alike but for edges, some areas are black or white,
    and the spectrum falls as 1/f. White noise has none of that: a network that was trained on photographs answers it
    with values that it never has in use.
    """
    channels, height, width = shape
    most = max(1, LARGEST_BATCH // (height * width))
    low, high = image_range
    parts = []
    for start in range(first, first + count, most):
        part = min(most, first + count - start)
        images = _leaves(seed, start, part, channels, height, width)
        images += TEXTURE * _texture(seed, start, part, height, width)[:, None]
        parts.append(np.clip((low + high) / 2 + (high - low) / 2 * images, low, high).astype(np.float32))
    return np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)


def _leaves(seed: int, first: int, count: int, channels: int, height: int, width: int) -> NDArray[np.float64]:
    """The discs alone: (count, channels, height, width), about -1 to 1."""
    numbers = normal(seed, first, count, (LEAVES, 4 + channels)).astype(np.float64)
    places = _uniform(numbers[..., :3])  # of the centre, and of the radius within its distribution
    colours = np.sqrt(CHANNELS_ALIKE) * numbers[..., 3:4] + np.sqrt(1 - CHANNELS_ALIKE) * numbers[..., 4:]
    colours = 2.2 * _uniform(colours) - 1.1  # a little beyond: black and white occur
    smallest, largest = (share * max(height, width) for share in RADII)
    radii = 1 / (1 / smallest + places[..., 2] * (1 / largest - 1 / smallest))  # density r^-2
    radii[:, 0] = 2 * max(height, width)  # the first lies below all others
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    images = np.empty((count, channels, height, width))
    for image, (place, radius, colour) in enumerate(zip(places, radii, colours, strict=True)):
        for leaf in range(LEAVES):
            row, column = place[leaf, 0] * height, place[leaf, 1] * width
            inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius[leaf] ** 2
            images[image, :, inside] = colour[leaf]
    return images


def _texture(seed: int, first: int, count: int, height: int, width: int) -> NDArray[np.float64]:
    """Gaussian fields of variance 1 whose amplitude falls as 1/f: (count, height, width)."""
    white = normal(seed + (1 << 32), first, count, (height, width))
    # Below the slowest wave there is the mean alone; it varies as much as that wave.
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    gain = 1 / np.maximum(frequency, 1 / max(height, width))
    fields: NDArray[np.float64] = np.fft.ifft2(np.fft.fft2(white) * gain).real / np.sqrt(np.mean(gain**2))
    return fields


def _uniform(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal numbers as their quantiles, 0 to 1, by the logistic function (off by at most 0.01)."""
    return 1 / (1 + np.exp(-1.702 * numbers))
