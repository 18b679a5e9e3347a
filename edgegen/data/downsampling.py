"""Smaller copies of images, for networks that make the large image from the small one."""

import numpy as np
from numpy.typing import NDArray

TOGETHER = 1024  # images at once: their sums take four times their memory


def downsampled(images: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The mean of each `factor` x `factor` block, rounded to nearest: (n, height, width, channels) -> smaller ones.

    A box filter, as the pixels of a camera are: it needs no library, and gives the same bytes everywhere. The height
    and the width are multiples of `factor`.
    """
    count, height, width, channels = images.shape
    small = np.empty((count, height // factor, width // factor, channels), np.uint8)
    for start in range(0, count, TOGETHER):
        part = images[start : start + TOGETHER]
        blocks = part.reshape(len(part), height // factor, factor, width // factor, factor, channels)
        sums = blocks.sum(axis=(2, 4), dtype=np.uint32)
        small[start : start + TOGETHER] = (sums + factor * factor // 2) // (factor * factor)
    return small
