"""The real images or signals of a run as the stage data keeps them, and as networks, metrics and the report do."""

from collections.abc import Mapping

import torch
from torch import Tensor

from edgegen.errors import DataError
from edgegen.support.pixels import floats, to_uint8

IMAGES = "images.safetensors"


def stored(tensors: Mapping[str, Tensor], part: str, rows: Tensor | slice = slice(None)) -> Tensor:
    """Of "train" or "heldout": uint8 images (n, channels, height, width), or float32 signals (n, channels, length)."""
    images = tensors[f"{part}_images"][rows]
    return images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images


def in_range(tensors: Mapping[str, Tensor], part: str, rows: Tensor | slice = slice(None)) -> Tensor:
    """The same as float32 in [-1, 1]."""
    return floats(stored(tensors, part, rows))


def shown(samples: Tensor) -> Tensor:
    """What the report shows of images in [-1, 1]: uint8 (n, height, width, channels); signals stay as they are.

    Raises DataError on values that are not finite.
    """
    if samples.ndim == 4:
        return torch.from_numpy(to_uint8(samples))
    if not bool(torch.isfinite(samples).all()):
        raise DataError("signals hold values that are not finite (NaN or infinity), so there is nothing to show")
    return samples.float()
