"""Drifting (experimental): images are pulled towards the data's and pushed off each other, in a feature space."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.condition import kinds
from edgegen.flow.path import interpolate, one_step
from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

FAR = 100.0  # added to the distance of an image to itself, and to those of other classes
SHARPNESS = (0.02, 0.05, 0.2)  # temperatures of the paper's code, of distances over their mean


class Drifting(Table):
    """|| phi(y) - sg(phi(y) + V) ||^2 over images y = G(z) and real ones x of the same class (an experiment).

    V_i = sum over temperatures T of a force with unit root mean square: sum_j A+_ij a-_i (x_j - y_i) - A-_ij a+_i (y_j
    - y_i), where A = sqrt(softmax over rows x softmax over columns) of -distance / T, a its sums, + of the real images
    and - of the other generated ones. Needs many images a class in a batch: some 20 real ones and as many generated.
    """

    paper: ClassVar[str] = "arXiv:2602.04770 (drifting; the form of the authors' code); marked as an experiment"
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True
    within_condition: ClassVar[str] = "another method"

    features: Literal["pixels", "teacher"] = Field(
        "pixels", description="phi: the pixels themselves, or the mean of each channel of an EdgeUNet teacher's layers"
    )
    feature_time: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="the time at which the teacher sees the images; they are mixed with as much of the same noise"
    )

    @property
    def needs(self) -> frozenset[Need]:
        own: frozenset[Need] = frozenset({"teacher", "teacher_features"})
        images: frozenset[Need] = frozenset({"real_images"})
        return own | images if self.features == "teacher" else images

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        real = real_images(batch)
        x, condition = real.images, real.condition
        z, e = (torch.randn(x.shape, generator=rng, device=x.device) for _ in range(2))
        y = one_step(networks["student"], z, condition)
        phi_y = self._features(networks, y, e, condition)
        with torch.no_grad():
            phi_x = self._features(networks, x, e, condition)
            classes = kinds(condition, x)
            same = classes[:, None] == classes[None]
            force, scale = _force(phi_y.detach(), phi_x, same)
            goal = phi_y.detach() + scale * force
        # Over the squared scale: the loss is the mean square of V, which its normalisation holds near a constant.
        return {
            "student": ((phi_y - goal) / scale).square().mean(),
            "nearest_real": torch.cdist(phi_y.detach(), phi_x).masked_fill(~same, torch.inf).min(dim=1).values.mean(),
        }

    def _features(self, networks: Networks, images: "Tensor", e: "Tensor", condition: "Tensor | None") -> "Tensor":
        import torch

        from edgegen.training.critics import features

        if self.features == "pixels":
            return images.float().flatten(1)
        t = torch.full((len(images),), self.feature_time, device=images.device)
        maps = features(networks["teacher"], interpolate(images, e, t), t, condition)
        return torch.cat([part.float().mean(dim=(2, 3)) for part in maps], dim=1)


def _force(y: "Tensor", x: "Tensor", same: "Tensor") -> "tuple[Tensor, Tensor]":
    """V (batch, width) of features y at those of the real images x, over the scale, which is the second: a scalar.

    `same` (batch, batch) says which rows of y and x, and of y and y, are of one class. The scale is the mean distance
    within classes, over the root of the width.
    """
    import torch

    rows, width = y.shape
    targets = torch.cat([y, x])
    within = torch.cat([same, same], dim=1)
    distance = torch.cdist(y, targets)
    mean = distance[within].mean().clamp(min=1e-8)
    itself = torch.cat([torch.eye(rows, dtype=torch.bool, device=y.device), torch.zeros_like(same)], dim=1)
    apart = distance / mean + FAR * (itself | ~within)
    scale = mean / width**0.5
    total = torch.zeros_like(y)
    for temperature in SHARPNESS:
        logits = -apart / temperature
        affinity = (logits.softmax(dim=1) * logits.softmax(dim=0)).sqrt() * (within & ~itself)
        off, near = affinity[:, :rows], affinity[:, rows:]
        pull = near * off.sum(dim=1, keepdim=True)
        push = off * near.sum(dim=1, keepdim=True)
        force = (pull @ x - push @ y - (pull.sum(dim=1) - push.sum(dim=1))[:, None] * y) / scale
        total += force / force.square().mean().sqrt().clamp(min=1e-8)
    return total, scale
