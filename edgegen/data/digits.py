"""The 1,797 handwritten digits of scikit-learn, 8x8: the data of the demo, there without a download."""

import numpy as np

from edgegen.data.images import ImageSet, image_set

LEVELS = 16  # the data set counts the ink in 4x4 cells: whole numbers 0..16


def load() -> ImageSet:
    """uint8 (1797, 8, 8, 1): floor(value * 255 / 16 + 1/2), so 0 -> 0, 8 -> 128, 16 -> 255."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.floor(values * (255 / LEVELS) + 0.5).astype(np.uint8)
    return image_set(images.reshape(-1, 8, 8, 1), labels, source="digits")
