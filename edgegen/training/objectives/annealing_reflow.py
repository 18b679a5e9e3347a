"""Annealing reflow (SlimFlow): from flow matching on the teacher's images to plain reflow of its pairs."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from pydantic import Field

from edgegen.flow.path import interpolate, per_sample
from edgegen.flow.time_sampling import u_shaped, uniform
from edgegen.support.tables import Table
from edgegen.training.distances import Distance, FeatureNetwork, in_features, l2, needs_of, pseudo_huber
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

    2-RF++'s options: times near both ends, where the error is largest once pairs are straight; of the error of the
    velocity its pseudo-Huber distance h; and "perceptual": (1 - t) h + LPIPS(x_t - t v(x_t, t), x).
    """

    paper: ClassVar[str] = "arXiv:2407.12718, Eq. 9; options: arXiv:2405.20320, sections 3.2 and 3.3"

    anneal_steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="steps in which fresh noise fades out; default: the paper's share, 3/8 of the steps"
    )
    flip: bool = Field(False, description="joint horizontal flip of noise and images: for photographs, not for digits")

    times: Literal["uniform", "u_shaped"] = Field(
        "uniform", description="t ~ U(0.001, 1), or more at both ends", exclude_if="uniform".__eq__
    )
    distance: Distance = Field(
        "l2", description="of velocities: l2, pseudo_huber or perceptual (of images)", exclude_if="l2".__eq__
    )

    @property
    def needs(self) -> frozenset[Need]:
        return needs_of(self.distance) | {"pairs"}

    def beta(self, step: int, steps: int) -> float:
        """b at a step of the stage's `steps`."""
        anneal = PAPER_ANNEAL if self.anneal_steps is None else self.anneal_steps / steps
        return 1.0 - min(1.0, step / steps / anneal) if anneal > 0 else 0.0

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        if self.flip:
            batch = flipped(batch, rng)
        e, x = pair(batch)
        b = self.beta(batch.step, batch.steps)
        fresh = torch.randn(e.shape, generator=rng, device=e.device)
        e_b = math.sqrt(1 - b * b) * e + b * fresh
        t = uniform(len(x), rng, low=EPS) if self.times == "uniform" else u_shaped(len(x), rng)
        x_t = interpolate(x, e_b, t)
        v = networks["student"](x_t, t, batch.condition)
        if self.distance == "l2":
            return {"student": l2(v, e_b - x).mean()}
        loss = pseudo_huber(v, e_b - x)
        if self.distance == "perceptual":
            features = cast("FeatureNetwork", networks["features"])
            loss = (1 - t) * loss + in_features(x_t - per_sample(t, x) * v, x, features)
        return {"student": loss.mean()}
