"""Density ratio (DiffRatio): a network tells noisy generated images from noisy real ones, and its logit is the loss."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.path import interpolate, one_step
from edgegen.training.distances import DISTANCE_HELP, Distance, needs_of
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks, VerifierNetwork
from edgegen.training.pairs import real_images
from edgegen.training.student_images import NoisyTimes, image_figures, image_warnings, regression_on_pairs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

SMOOTHNESS_NOISE = 0.1  # a of the approximated R1 in APT
MOST_ACCURACY = 0.95  # of the ratio network: nearly every logit is far from zero, and little is to be learned from it


class DensityRatio(NoisyTimes):
    """E w(t) l(D(x_t, t)) of x_t = (1 - t) x + t e for x = z - u(z, 1), z ~ N(0, I); no scores.

    D = log p_t / q_t of the real images p and the student's q, by a classifier of both. l is -D of `kl` (DiKL),
    log(1 - sigmoid(D)) of `js` (DiJS), -log sigmoid(D) of `non_saturating`. w = (t / (1 - t))^weight_power. To it is
    added regression_weight D'(e - u(e, 1), x') of the teacher's pairs (e, x'): the ratio network lags behind the
    student, and Adam makes steps of one size of whatever it says, so without pairs the student runs off the data.
    """

    paper: ClassVar[str] = "arXiv:2502.08005, DiKL and DiJS (the non-saturating loss: arXiv:1406.2661, section 3)"
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True
    recall_drop: ClassVar[float] = 0.15

    high: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.6, description="largest such time: near 1 noisy images are all alike, and the logit is noise"
    )
    divergence: Literal["kl", "js", "non_saturating"] = Field(
        "non_saturating", description="what the student makes small"
    )
    encoder: Literal["teacher", "small"] = Field(
        "teacher", description="what the ratio network sees with: the teacher's way down, trained on, or its own"
    )
    width: Annotated[int, Field(ge=8, le=4096)] = Field(64, description="of the first convolution of encoder = 'small'")
    ratio_updates: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="steps, each an update of the ratio network, to one update of the student"
    )
    head_start: Annotated[int, Field(ge=0)] = Field(
        50, description="steps before the student's first update: until then the ratio network says nothing"
    )
    ratio_learning_rate: Annotated[float, Field(gt=0.0)] = Field(
        2e-3, description="of the ratio network; it has to keep up: ten times the student's is usual"
    )
    smoothness: Annotated[float, Field(ge=0.0)] = Field(
        10.0, description="weight of |D(x_t) - D(x_t + 0.1 n)|^2 in the ratio network's loss, n ~ N(0, I); 0: none"
    )
    weight_power: Annotated[float, Field(ge=0.0, le=2.0)] = Field(0.0, description="0 weighs all times alike")
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="Adam's first decay, of the student")
    regression_weight: Annotated[float, Field(ge=0.0)] = Field(
        0.3, description="of the distance to the teacher's pairs; 0: no pairs are needed"
    )
    distance: Distance = Field("pseudo_huber", description=f"D' of the regression, {DISTANCE_HELP}")

    @property
    def needs(self) -> frozenset[Need]:
        needs: set[Need] = {"real_images"}
        if self.encoder == "teacher":
            needs |= {"teacher", "teacher_features"}
        if self.regression_weight:
            needs |= {"pairs", *needs_of(self.distance)}
        return frozenset(needs)

    @property
    def verifier(self) -> VerifierNetwork:
        return VerifierNetwork("ratio", self.low, self.high)

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        from edgegen.training.networks import TrainedNetwork
        from edgegen.training.ratio_network import ratio_network

        ratio = ratio_network(self.encoder, student, teacher, width=self.width)
        return {
            "student": TrainedNetwork(
                student, every=self.ratio_updates, first=self.head_start, betas=(self.beta1, 0.999)
            ),
            "ratio": TrainedNetwork(ratio, learning_rate=self.ratio_learning_rate),
        }

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.ratio_network import accuracy, ratio_loss

        real = real_images(batch)
        x, condition, ratio = real.images, real.condition, networks["ratio"]
        z, e = (torch.randn(x.shape, generator=rng, device=x.device) for _ in range(2))
        t = self.times(len(x), rng)
        is_due = "student" in batch.due
        with torch.set_grad_enabled(is_due):
            x_g = one_step(networks["student"], z, condition)
        # Both with the same noise: what differs between the logits is then the images.
        seen = [interpolate(images, e, t) for images in (x, x_g.detach())]
        logits_real, logits_fake = (ratio(x_t, t, condition) for x_t in seen)
        loss = ratio_loss(logits_real, logits_fake)
        if self.smoothness:
            noise = SMOOTHNESS_NOISE * torch.randn(x.shape, generator=rng, device=x.device)
            near = [ratio(x_t + noise, t, condition) for x_t in seen]
            jumps = [(a - b).square().mean() for a, b in zip(near, (logits_real, logits_fake), strict=True)]
            loss = loss + self.smoothness * sum(jumps) / 2
        losses = {
            "ratio": loss,
            "accuracy": accuracy(logits_real, logits_fake),
            "log_ratio": logits_fake.mean(),
            **image_figures(x_g, x),
        }
        if is_due:
            losses["student"] = self._student_loss(ratio(interpolate(x_g, e, t), t, condition), t)
            if self.regression_weight:
                losses["regression"] = regression = regression_on_pairs(self.distance, networks, batch)
                losses["student"] = losses["student"] + self.regression_weight * regression
        return losses

    def _student_loss(self, logits: "Tensor", t: "Tensor") -> "Tensor":
        import torch.nn.functional as F

        losses = {"kl": -logits, "js": -F.softplus(logits), "non_saturating": F.softplus(-logits)}
        weight = (t / (1 - t)) ** self.weight_power
        return (weight * losses[self.divergence]).mean()

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        faults = image_warnings(figures)
        if figures.get("accuracy", 0.0) > MOST_ACCURACY:
            faults.append(
                "the ratio network tells generated images nearly always: in "
                f"{figures['accuracy']:.0%} of the cases; let the student start from better weights, or lower "
                "ratio_learning_rate"
            )
        return faults
