"""Distribution matching: the teacher's score of the student's noisy images against the score of a fake network."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.guidance import unguided
from edgegen.flow.path import Velocity, interpolate, one_step, per_sample
from edgegen.training.distances import DISTANCE_HELP, HUBER_C, Distance, needs_of
from edgegen.training.flow_maps import mean_square
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import real_images
from edgegen.training.student_images import NoisyTimes, image_figures, image_warnings, regression_on_pairs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

LEAST_ERROR = 1e-4  # of n: at the least times the estimate is the image
TEACHER_EVERY = 10  # steps between looks at the teacher's own loss: those that the loop logs
MOST_LAG = 1.5  # times the teacher's loss on real images
LOGIT_LIMIT, RATIO_LIMITS = 10.0, (0.1, 20.0)  # f-distill's, in NVlabs/FastGen

Ratio = Literal["forward_kl", "jensen_shannon", "hellinger", "jeffreys", "softened_kl", "neyman"]


class DistributionMatching(NoisyTimes):
    """The gradient of a divergence between the student's x_t and the teacher's, in x = z - u(z, 1), z ~ N(0, I).

    x_t = (1 - t) x + t e. R = x_t - t v(x_t, t) is the teacher's estimate of the image, F that of the fake network,
    which is the teacher again, trained on the student's images by flow matching. All are per sample:
    kl: (F - R) / n with n = mean |x - R|. f: the same times h(r), r = p_t / q_t. fisher: the gradient, through R and
    F, of (R - F) . (R - x - alpha (R - F)) / n. score_distance: that of (R - F) . (F - x) / sqrt(|R - F|^2 + c^2).
    """

    paper: ClassVar[str] = (
        "kl: DMD, arXiv:2311.18828, Eq. 7-8; f: f-distill, arXiv:2502.15681; fisher: SiD, arXiv:2404.04057; "
        "score_distance: SIM, arXiv:2410.16794"
    )
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True

    divergence: Literal["kl", "fisher", "f", "score_distance"] = Field("kl", description="what the student makes small")
    alpha: Annotated[float, Field(ge=0.0, le=2.0)] = Field(
        1.0, description="of fisher; 0.5 is the exact gradient, SiD takes 1.2, beyond which colours drift"
    )
    ratio: Ratio = Field("jensen_shannon", description="of f: the divergence whose h(r) weighs the samples")
    encoder: Literal["teacher", "small"] = Field("teacher", description="of f: what the network of r sees with")
    width: Annotated[int, Field(ge=8, le=4096)] = Field(64, description="of the first convolution of encoder = 'small'")
    fake_updates: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="steps, each an update of the fake network, to one update of the student; SiD 1, DMD2 5"
    )
    head_start: Annotated[int, Field(ge=0)] = Field(
        50, description="steps before the student's first update: the fake network gets to know its images"
    )
    fake_learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="of the fake network; default: the table's, which is the student's"
    )
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Adam's first decay, of all networks; SiD's is 0"
    )
    regression_weight: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="of the distance to the teacher's pairs, which DMD adds (0.25); 0: no pairs are needed"
    )
    distance: Distance = Field("pseudo_huber", description=f"of the regression, {DISTANCE_HELP}")

    @property
    def needs(self) -> frozenset[Need]:
        own: frozenset[Need] = frozenset({"real_images", "teacher"})
        of_pairs: frozenset[Need] = frozenset({"pairs"})
        if self.divergence == "f" and self.encoder == "teacher":
            own |= {"teacher_features"}
        return own | of_pairs | needs_of(self.distance) if self.regression_weight else own

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        import copy

        from edgegen.training.networks import TrainedNetwork
        from edgegen.training.ratio_network import ratio_network

        assert teacher is not None
        betas, rate = (self.beta1, 0.999), self.fake_learning_rate
        trained = {
            "student": TrainedNetwork(student, every=self.fake_updates, first=self.head_start, betas=betas),
            "fake": TrainedNetwork(copy.deepcopy(unguided(teacher)), learning_rate=rate, betas=betas),
        }
        if self.divergence == "f":
            ratio = ratio_network(self.encoder, student, teacher, width=self.width)
            trained["ratio"] = TrainedNetwork(ratio, learning_rate=rate)
        return trained

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.figures import by_time

        real = real_images(batch)
        images, condition = real.images, real.condition
        z, e, e_fake = (torch.randn(images.shape, generator=rng, device=images.device) for _ in range(3))
        t, t_fake = self.times(len(z), rng), self.times(len(z), rng)
        is_due = "student" in batch.due
        with torch.set_grad_enabled(is_due):
            x = one_step(networks["student"], z, condition)
        fixed = x.detach()
        losses = {
            "fake": _denoising_loss(networks["fake"], fixed, e_fake, t_fake, condition),
            **image_figures(x, images),
        }
        if (batch.step + 1) % TEACHER_EVERY == 0:
            with torch.no_grad():
                losses["teacher"] = _denoising_loss(unguided(networks["teacher"]), images, e_fake, t_fake, condition)
        if self.divergence == "f":
            losses |= _ratio_losses(networks["ratio"], images, fixed, e_fake, t_fake, condition)
        if is_due:
            gradient, difference = self._gradient(networks, fixed, e, t, condition)
            # A mean of squares whose gradient in x is the wanted one, over the number of values.
            losses["student"] = 0.5 * (x - (fixed - gradient)).square().mean() + self._regression(networks, batch)
            losses |= by_time("score_difference", difference, t)
        return losses

    def _gradient(
        self, networks: Networks, x: "Tensor", e: "Tensor", t: "Tensor", condition: "Tensor | None"
    ) -> "tuple[Tensor, Tensor]":
        """That of the divergence in the images x, like x; and |R - F|, root mean square over a sample: (batch,)."""
        import torch

        implicit = self.divergence in ("fisher", "score_distance")
        with torch.set_grad_enabled(implicit):
            x = x.detach().requires_grad_(implicit)
            x_t = interpolate(x, e, t)
            teacher, fake = (_image_estimate(networks[name], x_t, t, condition) for name in ("teacher", "fake"))
            difference = teacher - fake
            n = per_sample((x - teacher).detach().abs().flatten(1).mean(dim=1), x).clamp(min=LEAST_ERROR)
            if self.divergence == "fisher":
                loss = (difference * (teacher - x - self.alpha * difference) / n).sum()
            elif self.divergence == "score_distance":
                c = HUBER_C * math.sqrt(x[0].numel())
                length = (difference.square().flatten(1).sum(dim=1) + c * c).sqrt()
                loss = ((difference * (fake - x)).flatten(1).sum(dim=1) / length).sum()
        if implicit:
            (gradient,) = torch.autograd.grad(loss, x)
        else:
            gradient = -difference / n
        if self.divergence == "f":
            with torch.no_grad():
                gradient = per_sample(self.weights(networks["ratio"](x_t, t, condition)), x) * gradient
        return gradient, mean_square(difference.detach()).sqrt()

    def weights(self, logits: "Tensor") -> "Tensor":
        """h(r) = r^2 f''(r) of the divergence, over its mean; r = exp(logit), over its mean: (batch,)."""
        r = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).exp()
        r = (r / r.mean()).clamp(*RATIO_LIMITS)
        h = {
            "forward_kl": r,
            "jensen_shannon": r / (1 + r),
            "hellinger": r.sqrt(),
            "jeffreys": 1 + r,
            "softened_kl": 1 / (1 + r),
            "neyman": 1 / r,
        }[self.ratio]
        return h / h.mean()

    def _regression(self, networks: Networks, batch: "Batch") -> "Tensor | float":
        if not self.regression_weight:
            return 0.0
        return self.regression_weight * regression_on_pairs(self.distance, networks, batch)

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        faults = image_warnings(figures)
        lag = figures["fake"] / figures["teacher"] if "teacher" in figures else 1.0
        if lag > MOST_LAG:
            faults.append(
                f"the fake network lags: its loss on the student's images is {lag:.1f} times the teacher's on real "
                "ones; raise fake_updates, or give a higher fake_learning_rate and a lower learning_rate"
            )
        return faults


def _image_estimate(network: Velocity, x_t: "Tensor", t: "Tensor", condition: "Tensor | None") -> "Tensor":
    return x_t - per_sample(t, x_t) * network(x_t, t, condition)


def _denoising_loss(network: Velocity, x: "Tensor", e: "Tensor", t: "Tensor", condition: "Tensor | None") -> "Tensor":
    """Flow matching's, E || v(x_t, t) - (e - x) ||^2."""
    return (network(interpolate(x, e, t), t, condition) - (e - x)).square().mean()


def _ratio_losses(
    network: Velocity, real: "Tensor", generated: "Tensor", e: "Tensor", t: "Tensor", condition: "Tensor | None"
) -> "dict[str, Tensor]":
    from edgegen.training.ratio_network import accuracy, ratio_loss

    logits = [network(interpolate(x, e, t), t, condition) for x in (real, generated)]
    return {"ratio": ratio_loss(*logits), "accuracy": accuracy(*logits)}
