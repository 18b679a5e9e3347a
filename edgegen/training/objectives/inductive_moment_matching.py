"""Inductive moment matching: images jumped from time t to s match, in distribution, those jumped from r, s < r < t."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.condition import kinds
from edgegen.flow.path import interpolate, per_sample
from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

LEAST_TIME = 0.006  # of CIFAR-10 (Table 5), where t is in [0.006, 0.994]; ours ends at 1, where an image is generated
LARGEST_RATIO = 160.0  # eta_max, of eta = t / (1 - t), of which `2^-halvings` is the step (appendix C.6)
NEAR = 1e-8  # the least distance in the kernel (appendix C.8)


class InductiveMomentMatching(Table):
    """w(t) MMD^2 of { f(x_t, t, s) } and sg { f(x_r, r, s) } within groups of M samples that share s < r < t.

    f(x_t, t, s) = x_t - (t - s) u(x_t, t, s); x_r is the point of the same image and noise; r is one step back in
    eta = t / (1 - t). The kernel is exp(-max(|a - b|, 1e-8) / (D (t - s))) in D dimensions. With M = 1 it is a
    consistency loss, with a distance that saturates. From the data alone, without a teacher.

    Checked against the paper's text (Eq. 12, 13, 67; appendices C.6 to C.9; Table 5) and its code for sampling
    (lumalabs/imm, training/preconds.py). Otherwise than there: noise has the standard deviation 1, for data of about
    that, in place of 0.5 for both; t goes up to 1 and s down to 0, where the one step begins and ends; the samples of a
    group are of one class.
    """

    paper: ClassVar[str] = "arXiv:2503.07565, Eq. 12, Eq. 13 (weight), Algorithm 3; Euler-FM on flow matching's path"
    needs: ClassVar[frozenset[Need]] = frozenset({"real_images", "second_time"})
    one_step: ClassVar[bool] = True

    group: Annotated[int, Field(ge=1)] = Field(4, description="M, samples with the same times, matched together")
    halvings: Annotated[int, Field(ge=1, le=20)] = Field(
        12,
        description="k of the step 160 / 2^k from t to r in eta; the paper's are 15 for CIFAR-10, 12 for ImageNet "
        "(Table 5), 10 to 15 work (appendix C.6)",
    )
    weight_shift: float = Field(
        5.0,
        description="b of the weight sigmoid(b - log SNR); the paper's: 5 for CIFAR-10, 4 for ImageNet (Table 5)",
    )
    weight_power: Literal[1, 2] = Field(
        1, description="a of the weight's factor (1 - t)^a: 2 is better in several steps and worse in one (Table 7)"
    )

    @property
    def within_condition(self) -> str:
        return "group = 1, a consistency loss" if self.group > 1 else ""

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.figures import by_time

        real = real_images(batch)
        x, condition, rows = real.images, real.condition, len(real.images)
        if condition is not None:  # so that a group is of one class, as far as the batch has so many of it
            order = kinds(condition, x).argsort(stable=True)
            x, condition = x[order], condition[order]
        e = torch.randn(x.shape, generator=rng, device=x.device)
        groups = torch.arange(rows, device=x.device) // self.group
        t, r, s = (time[groups * self.group] for time in self._times(rows, rng))
        x_t, x_r = (interpolate(x, e, time.to(x.dtype)) for time in (t, r))
        student = networks["student"]
        y = _jump(student, x_t, t.to(x.dtype), s.to(x.dtype), condition)
        with torch.no_grad():
            y_r = _jump(student, x_r, r.to(x.dtype), s.to(x.dtype), condition)
        same = groups[:, None] == groups[None]
        scale = ((t - s) * x[0].numel()).float()
        discrepancy = _discrepancy(y, y_r, same, scale)
        return {
            "student": (self.weight(t).float() * discrepancy).mean(),
            **by_time("discrepancy", discrepancy, t),
            "kernel_argument": (torch.linalg.vector_norm((y - y_r).flatten(1).detach(), dim=1) / scale).mean(),
        }

    def weight(self, t: "Tensor") -> "Tensor":
        """Eq. 13: (1/2) sigmoid(b - l) (-dl/dt) (1 - t)^a / ((1 - t)^2 + t^2), l = 2 log((1 - t) / t): like t, float64.

        -dl/dt is 2 / (t (1 - t)), whose 1 - t is cancelled here: t may be 1.
        """
        import torch

        data = 1 - t
        factor = data ** (self.weight_power - 1) / (t * (data * data + t * t))
        return torch.sigmoid(self.weight_shift - 2 * (data / t).log()) * factor

    def _times(self, rows: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor, Tensor]":
        """t ~ U(0.006, 1), s ~ U(0, t) and r between them, a step of eta before t: float64, for t - r may be tiny."""
        import torch

        u = torch.rand(rows, 2, generator=rng, device=rng.device).double()
        t = LEAST_TIME + (1 - LEAST_TIME) * u[:, 0]
        s = t * u[:, 1]
        ratio = (t / (1 - t) - LARGEST_RATIO / 2**self.halvings).clamp(min=0.0)
        return t, torch.maximum(ratio / (1 + ratio), s), s


def _jump(network: "nn.Module", x: "Tensor", t: "Tensor", s: "Tensor", condition: "Tensor | None") -> "Tensor":
    jumped: Tensor = x - per_sample(t - s, x) * network(x, t, condition, r=s)
    return jumped


def _discrepancy(y: "Tensor", y_r: "Tensor", same: "Tensor", scale: "Tensor") -> "Tensor":
    """mean over j in i's group of k(y_i, y_j) + k(y_r_i, y_r_j) - 2 k(y_i, y_r_j): (batch,)."""
    import torch

    def kernel(a: "Tensor", b: "Tensor") -> "Tensor":
        # Differences, not products: near points are what the loss is about.
        distance = torch.cdist(a.flatten(1), b.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-distance.clamp(min=NEAR) / scale[:, None])

    share = same / same.sum(dim=1, keepdim=True)
    return (share * (kernel(y, y) + kernel(y_r, y_r) - 2 * kernel(y, y_r))).sum(dim=1)
