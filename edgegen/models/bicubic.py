"""Enlarging without a network: what a network that takes a small image is compared with."""

import torch.nn.functional as F
from torch import Tensor, nn


class Bicubic(nn.Module):
    """A velocity whose single step makes the bicubic enlargement of the small image, whatever the noise."""

    def __init__(self, upscale: int) -> None:
        super().__init__()
        self.upscale = upscale

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Noise x (batch, channels, height, width), times, small images -> x - image."""
        image = F.interpolate(condition, scale_factor=float(self.upscale), mode="bicubic", align_corners=False)
        return x - image.clamp(-1, 1)
