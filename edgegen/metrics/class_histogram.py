"""Whether classes are missing: how often each class is among the generated images, by the local classifier."""

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError


def class_shares(classes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The share of each of `count` classes among `classes` (n,). Raises DataError where there is no image."""
    if not len(classes):
        raise DataError("no image has a class, so there is no histogram of classes")
    return np.bincount(classes, minlength=count) / len(classes)


def class_distance(wanted: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Total variation between two histograms: half of the sum of the differences, 0 (alike) to 1 (no class shared).

    It is the share of the images that would have to be of another class.
    """
    return float(np.abs(wanted - shares).sum() / 2)
