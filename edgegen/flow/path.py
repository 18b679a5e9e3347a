"""The straight path of rectified flow (arXiv:2209.03003, Eq. 1): x_t = (1 - t) x + t e, v = e - x, t = 0 is data.

A network with a second time r <= t gives u(x_t, t, r), the mean velocity from r to t (MeanFlow, arXiv:2505.13447,
Eq. 3): x_r = x_t - (t - r) u(x_t, t, r). At r = t it is the velocity v(x_t, t). Such a network has an attribute
`second_time` that is true, and takes r (batch,) as a keyword; without r it gives the velocity.

Of every velocity network the attributes `image_channels`, `num_classes` and `upscale` say what it takes
(`image_facts`); where it has `unconditional_class`, that is the label that stands for no class (edgegen.flow.guidance).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# velocity(x, t (batch,), condition or None: see edgegen.flow.condition) -> like x, which is images
# (batch, channels, height, width) or signals (batch, channels, length)
Velocity: TypeAlias = "Callable[[Tensor, Tensor, Tensor | None], Tensor]"


def per_sample(t: "Tensor", x: "Tensor") -> "Tensor":
    """(batch,) -> (batch, 1, ...) with as many axes as x, to multiply images (4 axes) or signals (3) with."""
    return t.reshape(-1, *[1] * (x.ndim - 1))


def interpolate(x: "Tensor", e: "Tensor", t: "Tensor") -> "Tensor":
    """x_t for data x and noise e of the same shape and times t (batch,)."""
    s = per_sample(t, x)
    return (1 - s) * x + s * e


def jump(x: "Tensor", t: "Tensor", r: "Tensor", u: "Tensor") -> "Tensor":
    """x_r = x_t - (t - r) u(x_t, t, r): from time t to r (batch,) along the mean velocity u."""
    return x - per_sample(t - r, x) * u


def has_second_time(network: object) -> bool:
    """Whether a velocity network takes a second time."""
    return bool(getattr(network, "second_time", False))


def velocity_between(
    network: "nn.Module", x_t: "Tensor", t: "Tensor", r: "Tensor", condition: "Tensor | None"
) -> "Tensor":
    """u(x_t, t, r, c) of a network with a second time, v(x_t, t, c) of one without: like x_t, and in its type.

    Whatever precision the network computes in: times and differences of images need float32's digits.
    """
    second_time = {"r": r} if has_second_time(network) else {}
    u: Tensor = network(x_t, t, condition, **second_time)
    return u.to(x_t.dtype)


def image_of(network: "nn.Module", x_t: "Tensor", t: "Tensor", condition: "Tensor | None") -> "Tensor":
    """Images x_t - t u(x_t, t[, r = 0], c) of x_t (batch, channels, height, width): where a single step ends."""
    return x_t - per_sample(t, x_t) * velocity_between(network, x_t, t, t.new_zeros(len(t)), condition)


def one_step(network: "nn.Module", z: "Tensor", condition: "Tensor | None") -> "Tensor":
    """Images z - u(z, 1[, r = 0], c) of noise z (batch, channels, height, width): as a one-step generator."""
    return image_of(network, z, z.new_ones(len(z)), condition)


@dataclass(frozen=True)
class ImageFacts:
    """What a velocity network takes: images of these channels, and of so many classes (0: none) or beside an image that
    is `upscale` times smaller (None: none)."""

    channels: int
    classes: int
    upscale: int | None


def image_facts(network: object) -> ImageFacts:
    """As the network's attributes say."""
    facts: Any = network
    return ImageFacts(int(facts.image_channels), int(facts.num_classes), getattr(facts, "upscale", None))


def time_dtype(network: object, dtype: "torch.dtype") -> "torch.dtype":
    """The type of the times that a velocity network takes: its attribute `time_dtype`, or that of its images."""
    own: torch.dtype = getattr(network, "time_dtype", dtype)
    return own
