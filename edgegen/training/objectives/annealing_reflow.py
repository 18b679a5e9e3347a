"""Annealing reflow (SlimFlow): from flow matching on the teacher's images to plain reflow of its pairs."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgegen.flow.path import interpolate
from edgegen.flow.time_sampling import uniform
from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import flipped, pair

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch

EPS = 1e-3  # smallest time, as in SlimFlow's code
PAPER_ANNEAL = 300_000 / 800_000  # share of the steps of SlimFlow's annealing reflow in which fresh noise fades out


class AnnealingReflow(Table):
    """E || v(x_t, t) - (e_b - x) ||^2 over stored pairs (e, x), t ~ U(eps, 1).

    e_b = sqrt(1 - b^2) e + b e', e' ~ N(0, I); b falls linearly from 1 to 0 over the first `anneal_steps` and is one
    number for the whole batch.
    """

    paper: ClassVar[str] = "arXiv:2407.12718, Eq. 9"
    needs: ClassVar[frozenset[Need]] = frozenset({"pairs"})

    anneal_steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="steps in which fresh noise fades out; default: the paper's share, 3/8 of the steps"
    )
    flip: bool = Field(False, description="joint horizontal flip of noise and image: for photographs, not for digits")

    def beta(self, step: int, steps: int) -> float:
        """b at a step of the stage's `steps`."""
        anneal = PAPER_ANNEAL if self.anneal_steps is None else self.anneal_steps / steps
        return 1.0 - min(1.0, step / steps / anneal) if anneal > 0 else 0.0

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        e, x = flipped(batch, rng) if self.flip else pair(batch)
        b = self.beta(batch.step, batch.steps)
        fresh = torch.randn(e.shape, generator=rng, device=e.device)
        e_b = math.sqrt(1 - b * b) * e + b * fresh
        t = uniform(len(x), rng, low=EPS)
        v = networks["student"](interpolate(x, e_b, t), t, batch.labels)
        return {"student": (v - (e_b - x)).square().mean()}
