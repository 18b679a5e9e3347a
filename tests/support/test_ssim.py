"""Structural similarity against its formula, window by window."""

import numpy as np
import pytest

from edgegen.support.ssim import ssim


def by_windows(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """Equation 13 of the paper at every place of an 11x11 window, its Gaussian weights by hand."""
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = x[row : row + 11, column : column + 11], y[row : row + 11, column : column + 11]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


def test_equals_the_formula() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 3, 16, 19))
    damaged = images + rng.normal(0, [[[[5.0]]], [[[40.0]]]], images.shape)
    expected = [
        np.mean([by_windows(a, b, 255.0) for a, b in zip(x, y, strict=True)])
        for x, y in zip(images, damaged, strict=True)
    ]
    np.testing.assert_allclose(ssim(images, damaged, data_range=255.0), expected, rtol=1e-10)
    assert expected[0] > expected[1]


def test_same_images_are_similar_and_small_ones_refused() -> None:
    images = np.random.default_rng(1).normal(size=(1, 1, 12, 12))
    np.testing.assert_allclose(ssim(images, images, data_range=2.0), 1.0)
    with pytest.raises(ValueError, match="window of 11"):
        ssim(images[..., :10], images[..., :10], data_range=2.0)
