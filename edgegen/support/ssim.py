"""Structural similarity of images, beside PSNR: what a few wrong areas hide in a mean, it shows."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SIGMA, RADIUS = 1.5, 5  # pixels: a Gaussian window of 11x11
SMALLEST_SIDE = 2 * RADIUS + 1  # of an image
STABILITY = (0.01**2, 0.03**2)


def ssim(reference: NDArray[np.floating], actual: NDArray[np.floating], *, data_range: float) -> NDArray[np.float64]:
    """SSIM of each image, mean over its channels and pixels: (n, channels, height, width) twice -> (n,).

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    Trans. Image Processing 13(4), 2004, equation 13 with its constants and window, where the window lies inside the
    image. Raises ValueError for images smaller than the window.
    """
    if min(reference.shape[2:]) < SMALLEST_SIDE:
        raise ValueError(f"images of {reference.shape[2:]} are smaller than the window of {SMALLEST_SIDE} pixels")

    def local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth = gaussian_filter(values, SIGMA, radius=RADIUS, axes=(2, 3))
        inner: NDArray[np.float64] = smooth[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS]
        return inner

    x, y = reference.astype(np.float64), actual.astype(np.float64)
    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x, variance_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (constant * data_range**2 for constant in STABILITY)
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    means: NDArray[np.float64] = similarity.mean(axis=(1, 2, 3))
    return means
