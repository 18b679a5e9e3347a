"""Random times of training samples."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def uniform(count: int, rng: "torch.Generator", *, low: float = 0.0, high: float = 1.0) -> "Tensor":
    """t ~ U(low, high): (count,), on the generator's device."""
    import torch

    u = torch.rand(count, generator=rng, device=rng.device)
    return u if (low, high) == (0.0, 1.0) else low + (high - low) * u
