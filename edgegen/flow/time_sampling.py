"""Random times of training samples."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def uniform(count: int, rng: "torch.Generator", *, low: float = 0.0, high: float = 1.0) -> "Tensor":
    """t ~ U(low, high): (count,), on the generator's device."""
    import torch

    u = torch.rand(count, generator=rng, device=rng.device)
    return u if (low, high) == (0.0, 1.0) else low + (high - low) * u


def logit_normal(count: int, rng: "torch.Generator", *, mean: float, sd: float) -> "Tensor":
    """t = sigmoid(n), n ~ N(mean, sd^2): (count,). In EDM's sigma = t / (1 - t) it is ln sigma that is normal."""
    import torch

    return torch.sigmoid(mean + sd * torch.randn(count, generator=rng, device=rng.device))


def u_shaped(count: int, rng: "torch.Generator", *, a: float) -> "Tensor":
    """Density proportional to e^(a t) + e^(a (1 - t)), most at both ends: (count,). 2-RF++, arXiv:2405.20320, Eq. 8."""
    import torch

    t = torch.log1p(torch.rand(count, generator=rng, device=rng.device) * math.expm1(a)) / a
    return torch.where(torch.rand(count, generator=rng, device=rng.device) < 0.5, t, 1 - t)
