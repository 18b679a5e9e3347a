"""The straight path of rectified flow (arXiv:2209.03003, Eq. 1): x_t = (1 - t) x + t e, v = e - x, t = 0 is data."""

from collections.abc import Callable

from torch import Tensor

# velocity(x (batch, channels, height, width), t (batch,), class_labels (batch,) or None) -> like x
Velocity = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def per_sample(t: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, 1, 1), to multiply images with."""
    return t[:, None, None, None]


def interpolate(x: Tensor, e: Tensor, t: Tensor) -> Tensor:
    """x_t for data x and noise e of the same shape and times t (batch,)."""
    s = per_sample(t)
    return (1 - s) * x + s * e
