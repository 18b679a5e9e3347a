"""How near an image is to the one that it should be: PSNR and SSIM of enlarged images against the true ones."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgegen.support.pixels import as_shown
from edgegen.support.ssim import SMALLEST_SIDE, ssim

DATA_RANGE = 2.0  # of images in [-1, 1]
LEAST_ERROR = 1e-10  # mean square of an image that is equal: 106 dB


def fidelity(images: Tensor, truths: Tensor) -> NDArray[np.float64]:
    """PSNR in dB and SSIM of each image, as a screen shows it: (n, channels, height, width) twice -> (n, 2).

    SSIM is NaN for images that are smaller than its window.
    """
    made, real = (as_shown(part.cpu().float()).numpy() for part in (images, truths))
    error = np.square(made.astype(np.float64) - real).mean(axis=(1, 2, 3))
    psnr_db = 10 * np.log10(DATA_RANGE**2 / np.maximum(error, LEAST_ERROR))
    is_small = min(real.shape[2:]) < SMALLEST_SIDE
    similarity = np.full(len(real), np.nan) if is_small else ssim(real, made, data_range=DATA_RANGE)
    return np.stack([psnr_db, similarity], axis=1)
