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


def u_shaped(count: int, rng: "torch.Generator", *, steepness: float = 4.0) -> "Tensor":
    """p(t) ~ exp(a t) + exp(a (1 - t)) on [0, 1], a = 4 (2-RF++, arXiv:2405.20320, section 3.2): (count,)."""
    import torch

    u = torch.rand(count, generator=rng, device=rng.device)
    mirror = torch.rand(count, generator=rng, device=rng.device) < 0.5
    rising = torch.log1p(u * math.expm1(steepness)) / steepness
    return torch.where(mirror, 1 - rising, rising)


def log_normal(count: int, rng: "torch.Generator", *, mean: float, sd: float, low: float = 0.0) -> "Tensor":
    """t of noise levels s = t / (1 - t) with ln s ~ N(mean, sd^2), cut off below the time `low`: (count,).

    s is the standard deviation of the noise beside the data: the sigma of EDM (arXiv:2206.00364, section 5).
    """
    import torch

    u = torch.rand(count, generator=rng, device=rng.device, dtype=torch.float64)
    least = 0.0 if low == 0.0 else 0.5 * math.erfc(-(math.log(low / (1 - low)) - mean) / (sd * math.sqrt(2)))
    normal = torch.special.ndtri((least + (1 - least) * u).clamp(1e-9, 1 - 1e-9))
    return torch.sigmoid(mean + sd * normal).float().clamp(min=low)
