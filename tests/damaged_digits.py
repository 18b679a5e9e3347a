"""Real images, and damage to them of which there can be more or less; shared by the tests of what notices it."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgegen.data.digits import load
from edgegen.support.pixels import scaled


def digits(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """uint8 (n, 1, 8, 8) and labels: 1,200 training and 500 held-out digits."""
    images = load()
    assert images.labels is not None
    order = torch.randperm(len(images.images), generator=torch.Generator().manual_seed(seed))
    pixels = torch.from_numpy(images.images).permute(0, 3, 1, 2)[order]
    labels = torch.from_numpy(np.asarray(images.labels))[order]
    return pixels[:1200], labels[:1200], pixels[1200:1700], labels[1200:1700]


def noisy(images: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + deviation * noise).clamp(-1, 1)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """By a Gaussian of `sigma` pixels; 0 changes nothing."""
    if not sigma:
        return images
    reach = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel, channels = kernel / kernel.sum(), images.shape[1]
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(rows, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def without_classes(images: Tensor, labels: Tensor, missing: int) -> tuple[Tensor, Tensor]:
    """As many images, of the first 10 - `missing` classes."""
    kept = (labels < 10 - missing).nonzero()[:, 0]
    rows = kept[torch.arange(len(images)) % len(kept)]
    return images[rows], labels[rows]


def few(images: Tensor, distinct: int) -> Tensor:
    """As many images, of which so many are distinct."""
    return images[torch.arange(len(images)) % distinct]


def heldout() -> Tensor:
    return scaled(digits()[2])
