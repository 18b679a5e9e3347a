"""Whether a generator copies: how near its images are to the nearest training image, against held-out images.

Distances are of pixels, so that nothing trained is in between: features can be blind to what makes two images differ.
A generator that has learned the data is about as far from the training images as held-out images are (the ratio of the
medians is near 1); one that copies gives images at a fraction of that distance. Blurred images are nearer, too, but not
by so much: tests/metrics/test_memorisation.py has the figures.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.support.pixels import as_shown, floats

ROWS = 2048  # training images at once: with 512 others of 3 x 64 x 64 pixels some 100 MB
COPY = 1 / 3  # of the median distance of held-out images: within it an image is a copy


def nearest_distances(images: Tensor, training: Tensor) -> NDArray[np.float64]:
    """The root mean square difference of each image's pixels to the nearest training image's: (n,), 0 for a copy.

    `images` are float (n, channels, height, width) in [-1, 1], taken as 8 bits show them; `training` is uint8 of the
    same shape. Of signals (n, channels, length) both are float. Memory grows with n and not with the number of training
    images.
    """
    shown = as_shown(images.float()).flatten(1)
    norms = shown.square().sum(dim=1)
    best = torch.full_like(norms, torch.inf)
    nearest = torch.zeros_like(norms, dtype=torch.int64)
    for start in range(0, len(training), ROWS):
        rows = floats(training[start : start + ROWS].to(shown.device)).flatten(1)
        squares = torch.addmm(rows.square().sum(dim=1), shown, rows.T, alpha=-2.0)
        least, index = squares.min(dim=1)
        nearest = torch.where(least < best, index + start, nearest)
        best = torch.minimum(least, best)
    # Products of float32 lose digits where images are near each other: the distance itself is of the differences.
    differences = shown.cpu().double() - floats(training[nearest.cpu()]).flatten(1).double()
    return differences.square().mean(dim=1).sqrt().numpy()


def nearness(distances: Sequence[float] | NDArray[np.float64], heldout: float) -> tuple[float | None, float]:
    """(the ratio of the median of `distances` to `heldout`, the share of copies) of `nearest_distances`.

    `heldout` is the median distance of held-out images; the ratio is None where it is 0, as it is where the data hold
    most images twice.
    """
    values = np.asarray(distances)
    return (float(np.median(values)) / heldout if heldout else None), float(np.mean(values <= COPY * heldout))
