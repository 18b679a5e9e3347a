"""Images as uint8 and as float32 in [-1, 1]: the one place where either becomes the other.

    x = p / 127.5 - 1        p = round(127.5 (x + 1)), cut to 0..255

An app's side is uint8 (n, height, width, channels), ours float32 (n, channels, height, width). A network that somebody
brings may give another range (low, high), as its signature says: p = round(255 (x - low) / (high - low)).
"""

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

HALF = 127.5  # of the 255 steps between -1 and 1
OURS = (-1.0, 1.0)


@overload
def scaled(pixels: "Tensor") -> "Tensor": ...
@overload
def scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float32]: ...
def scaled(pixels: Any) -> Any:
    """uint8 -> float32 in [-1, 1] of the same layout: x / 127.5 - 1."""
    floats = pixels.astype(np.float32) if isinstance(pixels, np.ndarray) else pixels.float()
    return floats / HALF - 1


def floats(images: "Tensor") -> "Tensor":
    """As networks take them, of what is stored: uint8 images become float32 in [-1, 1]; numbers stay numbers."""
    import torch

    return scaled(images) if images.dtype == torch.uint8 else images.float()


def to_float(images: NDArray[np.uint8]) -> "Tensor":
    """uint8 (n, height, width, channels) -> float32 (n, channels, height, width) in [-1, 1]."""
    import torch

    return scaled(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))


def to_uint8(x: "Tensor | NDArray[Any]", image_range: tuple[float, float] = OURS) -> NDArray[np.uint8]:
    """float (n, channels, height, width) in `image_range` -> uint8 (n, height, width, channels): rounded, clamped.

    The inverse of `to_float`, for [-1, 1]. Raises DataError on values that are not finite.
    """
    values = np.asarray(x if isinstance(x, np.ndarray) else x.detach().cpu().float().numpy())
    if not np.isfinite(values).all():
        raise DataError("images hold values that are not finite (NaN or infinity), so there is no picture to show")
    low, high = image_range
    pixels = np.clip(np.rint((values.astype(np.float32) - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def in_range(images: NDArray[np.uint8], image_range: tuple[float, float]) -> NDArray[np.float32]:
    """uint8 (n, height, width, channels) -> float32 (n, channels, height, width) in `image_range`, as `to_uint8` reads.

    Black is `low`, white is `high`: x = low + p (high - low) / 255.
    """
    low, high = image_range
    values = images.transpose(0, 3, 1, 2).astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
    return np.ascontiguousarray(values, dtype=np.float32)


def as_shown(images: "Tensor") -> "Tensor":
    """Images in [-1, 1] as a screen shows them: each value at the nearest of the 256 that uint8 has.

    Signals (n, channels, length), which no screen shows, stay.
    """
    if images.ndim == 3:
        return images
    return ((images + 1) * HALF).round().clamp(0, 255) / HALF - 1


def traced_pixels(images: "Tensor", image_range: tuple[float, float] = OURS) -> "Tensor":
    """`to_uint8` for an exported program, which may hold no check of values: rounds by cutting x + 1/2."""
    import torch

    low, high = image_range
    gain = 255 / (high - low)
    return (images * gain + (0.5 - low * gain)).clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1)
