"""The (noise, image) pairs of a batch, as they are or mirrored together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edgegen.training.batch import Batch


def pair(batch: "Batch") -> "tuple[Tensor, Tensor]":
    """(noise, image) of a batch of pairs."""
    assert batch.noise is not None, "this objective trains on pairs"
    return batch.noise, batch.images


def flipped(batch: "Batch", rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
    """(noise, image), both of the whole batch mirrored left to right with probability 1/2 (SlimFlow's joint flip)."""
    import torch

    e, x = pair(batch)
    mirror = torch.rand((), generator=rng, device=x.device) < 0.5
    return torch.where(mirror, e.flip(-1), e), torch.where(mirror, x.flip(-1), x)
