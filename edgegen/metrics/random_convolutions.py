"""A second feature space, which no training can have used: fixed random convolutions, the same for every data set.

Random networks see how images are distributed without having been trained for anything (arXiv:2002.09797, section 3.2,
takes a random VGG for the same purpose). The distance grows with noise, blur, missing classes, few distinct images,
shifts and faded contrast (tests/metrics/test_random_convolutions.py). Tried beside them on digits, Fashion-MNIST and
CIFAR-10: a trained autoencoder and patches of one layer, which overlook slight blur of digits, and deeper random
networks, which overlook slight noise on photographs. All of them see missing classes of photographs late.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgegen.errors import DataError
from edgegen.noise import normal
from edgegen.support.pixels import as_shown

NAME, SIGNAL_NAME = "random-convolutions-v1", "random-convolutions-1d-v1"  # another network is another version
SEED = 0
WIDTHS = (16, 32, 32)
SIGNAL_WIDTHS = (16, 32, 32, 32, 32)  # five halvings: the last layer sees 63 values
BATCH = 512


@dataclass(frozen=True)
class RandomConvolutions:
    """Three 3x3 convolutions with a halving after each; of each layer the mean and the deviation of every channel.

    Of signals, five 1x3 convolutions.
    """

    kernels: tuple[Tensor, ...]
    name: str = NAME

    def features(self, images: Tensor) -> NDArray[np.float32]:
        """float images (n, channels, height, width) in [-1, 1], 4x4 pixels or more -> (n, 160).

        Or signals (n, channels, length), 16 values or more -> (n, 288). Images are rounded to 8 bits first, as they are
        shown. Raises DataError on values that are not finite.
        """
        if not bool(torch.isfinite(images).all()):
            raise DataError("the images hold values that are not finite, so they have no features to compare")
        device = self.kernels[0].device
        with torch.no_grad():
            parts = [self._of(as_shown(part.to(device).float())) for part in torch.split(images, BATCH)]
        return torch.cat(parts).cpu().numpy()

    def _of(self, h: Tensor) -> Tensor:
        h, statistics = h[:, :, None] if h.ndim == 3 else h, []
        for kernel in self.kernels:
            # Replicated edges: black ones would be an edge of their own around a white image.
            padding, halving = ([1, 1, 0, 0], (1, 2)) if kernel.shape[2] == 1 else ([1, 1, 1, 1], (2, 2))
            h = F.relu(F.conv2d(F.pad(h, padding, mode="replicate"), kernel))
            values = h.flatten(2)
            statistics += [values.mean(dim=2), values.std(dim=2)]
            halved = [size // step for size, step in zip(h.shape[2:], halving, strict=True)]
            if math.prod(halved) > 1:  # a single value has no deviation
                h = F.avg_pool2d(h, halving)
        return torch.cat(statistics, dim=1)


def random_convolutions(
    channels: int, *, signals: bool = False, device: torch.device | str = "cpu"
) -> RandomConvolutions:
    """For images, or signals, of so many channels. Weights by edgegen.noise, so that they are the same everywhere.

    Their variance is 2 / (inputs of a value), so that ReLU keeps the size of the values (arXiv:1502.01852, Eq. 10).
    """
    kernels, inputs, size = [], channels, (1, 3) if signals else (3, 3)
    for layer, width in enumerate(SIGNAL_WIDTHS if signals else WIDTHS):
        weights = torch.from_numpy(normal(SEED, layer, 1, (width, inputs, *size))[0])
        kernels.append((weights * math.sqrt(2 / (math.prod(size) * inputs))).to(device))
        inputs = width
    return RandomConvolutions(tuple(kernels), SIGNAL_NAME if signals else NAME)
