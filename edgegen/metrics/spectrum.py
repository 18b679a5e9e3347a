"""The power of images by spatial frequency: blur, noise and grids of an upsampler, which small networks overlook.

As in "Watch your Up-Convolution" (Durall, Keuper and Keuper 2020, arXiv:2003.01826, section 3): the two-dimensional
power spectrum, averaged over rings of one distance from frequency 0.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.support.pixels import HALF, as_shown

# Rounding to 8 bits is noise of this power (a step of 1 / 127.5, uniform): what lies below it cannot be seen. Of
# signals, too, it counts as nothing: 53 dB below the full range.
LEAST_POWER = (1 / HALF) ** 2 / 12
ON_THE_EDGE = 1e-9  # of a ring: rounding does not move a frequency to the next one


def ring_power(images: Tensor) -> NDArray[np.float64]:
    """float images (n, channels, height, width) in [-1, 1] -> mean power in each ring (n, min(height, width) // 2 + 1).

    Of signals (n, channels, length), the power at each of the length // 2 frequencies above 0.

    Ring j holds the frequencies from j w to (j + 1) w of the sampling frequency, w = 1 / (2 (rings - 1)); the last one
    the corners beyond 1/2. Frequency 0, the mean colour, is left out. White noise of variance s^2 has s^2 in each ring.
    """
    shown = as_shown(images.cpu().double())
    if shown.ndim == 3:
        spectrum: NDArray[np.float64] = torch.fft.rfft(shown).abs().square().mean(dim=1)[:, 1:].numpy()
        return spectrum / shown.shape[2]
    height, width = shown.shape[2:]
    power = torch.fft.fft2(shown).abs().square().mean(dim=1).flatten(1) / (height * width)
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64) for size in (height, width))
    inner = min(height, width) // 2
    radius = torch.hypot(rows[:, None], columns[None, :]).flatten()
    ring = (torch.ceil(2 * inner * radius - ON_THE_EDGE) - 1).clamp(-1, inner).long()  # -1: frequency 0
    sums = power.new_zeros(len(power), inner + 2).index_add_(1, ring + 1, power)
    counts = torch.bincount(ring + 1, minlength=inner + 2)
    means: NDArray[np.float64] = (sums / counts)[:, 1:].numpy()
    return means


def spectrum_distance_db(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    """How much the power of two sets differs: the root mean square over the rings, in decibels.

    `real` and `fake` are the means of `ring_power` over each set's images: (rings,).
    """
    decibels = 10 * np.log10((fake + LEAST_POWER) / (real + LEAST_POWER))
    return float(np.sqrt(np.mean(decibels**2)))
