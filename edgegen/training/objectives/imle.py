"""Implicit maximum likelihood estimation: every image draws the nearest of several generated ones towards itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.path import one_step
from edgegen.support.tables import Table
from edgegen.training.distances import DISTANCE_HELP, Distance, distance_of, needs_of
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import pair, real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

ALIKE = 0.97  # nearest candidate's distance over the mean one's, from which on a choice among them is none


class Imle(Table):
    """For each image x, D(G(z_j), x) of the nearest of z_1 .. z_M ~ N(0, I), G(z) = z - u(z, 1) of x's class.

    Every image has a generated one near it, so no part of the data is left out; the reverse is not asked for. With a
    rejection radius (RS-IMLE), candidates nearer than that to any image of the batch are not chosen from, and an image
    all of whose candidates are that near has no loss.
    """

    paper: ClassVar[str] = "arXiv:1809.09087, Algorithm 1; arXiv:2409.17439 (RS-IMLE's rejection)"
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True

    images: Literal["teacher", "real"] = Field(
        "teacher", description="what is to be covered: the teacher's images of the pairs, or the data set's"
    )
    candidates: Annotated[int, Field(ge=2)] = Field(
        16, description="M, images generated for each one of the batch; forward passes without gradient"
    )
    rejection_radius: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="RS-IMLE's epsilon, a root mean square over the pixels of images in [-1, 1]; 0 rejects none"
    )
    distance: Distance = Field(
        "l2", description=f"D of the nearest candidate, {DISTANCE_HELP}; which is nearest is decided by l2"
    )

    @property
    def needs(self) -> frozenset[Need]:
        targets: Need = "pairs" if self.images == "teacher" else "real_images"
        return needs_of(self.distance) | {targets}

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        x, condition = self._targets(batch)
        student = networks["student"]
        z = torch.randn(len(x), self.candidates, *x.shape[1:], generator=rng, device=x.device)
        with torch.no_grad():
            of_candidates = None if condition is None else condition.repeat_interleave(self.candidates, dim=0)
            y = one_step(student, z.flatten(0, 1), of_candidates).view_as(z)
            distances = (y - x[:, None]).float().square().flatten(2).mean(dim=2)
            taken = self._too_near(y, x)
            nearest = distances.masked_fill(taken, torch.inf).argmin(dim=1)
        chosen = z[torch.arange(len(x), device=x.device), nearest]
        loss = distance_of(self.distance, networks)(one_step(student, chosen, condition), x)
        kept = (~taken.all(dim=1)).to(loss.dtype)
        return {
            "student": (kept * loss).mean(),
            "nearest": distances.min(dim=1).values.mean().sqrt(),
            "nearest_ratio": (distances.min(dim=1).values / distances.mean(dim=1)).mean().sqrt(),
            "rejected": taken.float().mean(),
        }

    def warnings(self, figures: Mapping[str, float]) -> list[str]:
        faults = []
        ratio, rejected = figures.get("nearest_ratio", 0.0), figures.get("rejected", 0.0)
        if ratio > ALIKE:
            faults.append(
                f"the candidates are alike: the nearest is as far from its image as the others ({ratio:.2f} of their "
                "distance), so that nothing is chosen; start from a trained student, or raise candidates"
            )
        if rejected > 0.5:
            faults.append(
                f"most candidates are rejected: {rejected:.0%} are nearer than rejection_radius = "
                f"{self.rejection_radius:g} to an image; lower it"
            )
        return faults

    def _targets(self, batch: "Batch") -> "tuple[Tensor, Tensor | None]":
        if self.images == "teacher":
            return pair(batch)[1], batch.condition
        real = real_images(batch)
        return real.images, real.condition

    def _too_near(self, y: "Tensor", x: "Tensor") -> "Tensor":
        """Which candidates (batch, candidates) are within the radius of any image of the batch."""
        import torch

        if not self.rejection_radius:
            return torch.zeros(y.shape[:2], dtype=torch.bool, device=y.device)
        rms = torch.cdist(y.float().flatten(2), x.float().flatten(1)) / x[0].numel() ** 0.5
        near: Tensor = (rms < self.rejection_radius).any(dim=2)
        return near
