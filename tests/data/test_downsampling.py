"""Small copies of images, against NumPy block by block."""

import numpy as np

from edgegen.data.downsampling import downsampled


def test_a_pixel_is_the_mean_of_its_block_rounded_to_nearest() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 9, 3), dtype=np.uint8)
    small = downsampled(images, 3)
    assert small.dtype == np.uint8
    assert small.shape == (5, 2, 3, 3)
    for row in range(2):
        for column in range(3):
            block = images[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].astype(np.float64)
            assert np.array_equal(small[:, row, column], np.floor(block.mean(axis=(1, 2)) + 0.5))


def test_many_images_are_made_in_parts() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2100, 2, 2, 1), dtype=np.uint8)
    assert np.array_equal(downsampled(images, 2), np.concatenate([downsampled(image[None], 2) for image in images]))
