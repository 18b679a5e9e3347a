"""What a batch holds for a method: pairs, as they are or mirrored together, trajectories, real images."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edgegen.training.batch import Batch


def pair(batch: "Batch") -> "tuple[Tensor, Tensor]":
    """(noise, image) of a batch of pairs."""
    assert batch.noise is not None, "this objective trains on pairs"
    return batch.noise, batch.images


def flipped(batch: "Batch", rng: "torch.Generator") -> "Batch":
    """All of the batch mirrored left to right with probability 1/2 (SlimFlow's joint flip); classes stay."""
    import torch

    mirror = torch.rand((), generator=rng, device=batch.images.device) < 0.5

    def turned(part: "Tensor | None") -> "Tensor | None":
        return part if part is None or part.ndim == 1 else torch.where(mirror, part.flip(-1), part)

    images = torch.where(mirror, batch.images.flip(-1), batch.images)
    noise, knots, condition = turned(batch.noise), turned(batch.knots), turned(batch.condition)
    return replace(batch, images=images, noise=noise, knots=knots, condition=condition)


def trajectories(batch: "Batch") -> "tuple[Tensor, Tensor]":
    """The teacher's states from noise to image (batch, states, channels, height, width), at times (states,) 1 to 0.

    The last state is the image, at t = 0.
    """
    import torch

    assert batch.knots is not None, "this objective trains on trajectories"
    assert batch.knot_times is not None
    states = torch.cat([batch.knots, batch.images[:, None]], dim=1)
    return states, torch.cat([batch.knot_times, batch.knot_times.new_zeros(1)])


def real_images(batch: "Batch") -> "Batch":
    """The real images and their conditions: of a batch of pairs with real images beside them, or the batch itself."""
    return batch if batch.real is None else batch.real
