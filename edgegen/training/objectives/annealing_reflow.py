"""Annealing reflow (SlimFlow): from flow matching on the teacher's images to plain reflow of its pairs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgegen.flow.path import interpolate
from edgegen.training.batch import Batch

EPS = 1e-3  # smallest time, as in SlimFlow's code


@dataclass(frozen=True)
class AnnealingReflow:
    """E || v(x_t, t) - (e_b - x) ||^2 over stored pairs (e, x), t ~ U(eps, 1).

    e_b = sqrt(1 - b^2) e + b e', e' ~ N(0, I); b falls linearly from 1 to 0 over the first `anneal` share of the stage
    and is one number for the whole batch. `flip` mirrors noise and image together, whole batches with probability 1/2.
    """

    anneal: float
    flip: bool = False
    paper = "arXiv:2407.12718, Eq. 9"

    def beta(self, progress: float) -> float:
        return 1.0 - min(1.0, progress / self.anneal) if self.anneal > 0 else 0.0

    def losses(self, nets: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        e, x = flipped(batch, rng) if self.flip else pair(batch)
        b = self.beta(batch.progress)
        fresh = torch.randn(e.shape, generator=rng, device=e.device)
        e_b = math.sqrt(1 - b * b) * e + b * fresh
        t = EPS + (1 - EPS) * torch.rand(len(x), generator=rng, device=x.device)
        v = nets["student"](interpolate(x, e_b, t), t, batch.labels)
        return {"student": (v - (e_b - x)).square().mean()}


def pair(batch: Batch) -> tuple[Tensor, Tensor]:
    """(noise, image) of a batch of pairs."""
    assert batch.noise is not None, "this objective trains on pairs"
    return batch.noise, batch.images


def flipped(batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(noise, image), both mirrored left to right with probability 1/2 (SlimFlow's joint flip)."""
    e, x = pair(batch)
    mirror = torch.rand((), generator=rng, device=x.device) < 0.5
    return torch.where(mirror, e.flip(-1), e), torch.where(mirror, x.flip(-1), x)
