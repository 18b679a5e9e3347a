"""Adversarial training: a critic tells real images from the student's, and the student learns to be taken for real."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.condition import repeated
from edgegen.flow.path import interpolate, one_step
from edgegen.flow.time_sampling import uniform
from edgegen.support.tables import Table
from edgegen.training.distances import DISTANCE_HELP, Distance, distance_of, needs_of
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks, VerifierNetwork
from edgegen.training.pairs import pair, real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

BETAS = (0.0, 0.99)  # Adam's, of both networks, as in StyleGAN and R3GAN (arXiv:2501.05441)
SURE = 0.95  # share of right answers of the critic from which on the student learns little from it
LEAST_RECALL = 0.5  # of a batch; a batch of 64 real images against 64 others of the data set has some 0.9

# What the critic is given of images with noise.
View = tuple["Tensor | None", ...]


class Adversarial(Table):
    """Student: softplus(D(x_t) - D(g_t)) + w D'(e - u(e, 1), x'); critic: softplus(D(g_t) - D(x_t)) + penalty.

    g = z - u(z, 1) of fresh noise, x a real image of the same class, both mixed with the same noise up to the same time
    t ~ U(0, latest). That is the relativistic pairing loss; `non_saturating` takes softplus(-D(g_t)), and
    softplus(D(g_t)) + softplus(-D(x_t)). The penalty is the approximated R1 and R2: gamma |D(x_t) - D((x + a n)_t)|^2
    and the same of g, n ~ N(0, I). (e, x') are the teacher's pairs: without them a critic that has little to say yet
    leads the student astray, since Adam makes steps of one size of any gradient.
    """

    paper: ClassVar[str] = (
        "arXiv:2403.12015, section 3 (critic on the teacher's features of noisy images); arXiv:2501.08316, Eq. 4 "
        "(approximated R1); arXiv:2501.05441, Eq. 2 (relativistic loss with R1 and R2); arXiv:1912.04958, "
        "lazy regularization (penalty_every)"
    )
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True
    recall_drop: ClassVar[float] = 0.15

    critic: Literal["teacher", "small"] = Field(
        "teacher", description="heads on the frozen features of an EdgeUNet teacher, or a small network of its own"
    )
    loss: Literal["relativistic", "non_saturating"] = Field("relativistic", description="of both networks")
    regression_weight: Annotated[float, Field(ge=0.0)] = Field(
        0.3, description="w, of the regression on the teacher's pairs; 0 needs no pairs"
    )
    distance: Distance = Field("pseudo_huber", description=f"D' of the regression, {DISTANCE_HELP}")
    latest: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.6, description="the latest time up to which noise is mixed in: near 1 the critic sees coarse shapes only"
    )
    penalty: Annotated[float, Field(ge=0.0)] = Field(
        10.0, description="gamma; with a = 0.1 a weight of 0.1 on the squared gradient. APT and FastGen: 100 to 1000"
    )
    penalty_noise: Annotated[float, Field(gt=0.0)] = Field(0.1, description="a, standard deviation; FastGen's")
    penalty_every: Annotated[int, Field(ge=1)] = Field(
        1, description="k: the penalty is part of each k-th step, k times as large; it is a third of a step's work"
    )
    critic_learning_rate: Annotated[float, Field(gt=0.0)] = Field(2e-3, description="largest learning rate of Adam")
    critic_width: Annotated[int, Field(ge=1)] = Field(32, description="channels of the critic's layers")
    critic_warmup: Annotated[int, Field(ge=0)] = Field(
        50, description="first steps in which the critic learns alone, and the student from the pairs"
    )

    @property
    def needs(self) -> frozenset[Need]:
        needs: set[Need] = {"real_images"}
        if self.critic == "teacher":
            needs |= {"teacher", "teacher_features"}
        if self.regression_weight:
            needs |= {"pairs", *needs_of(self.distance)}
        return frozenset(needs)

    @property
    def verifier(self) -> VerifierNetwork | None:
        """Heads on the teacher's features are not kept: they say nothing without the teacher."""
        return VerifierNetwork("critic", 0.0, self.latest) if self.critic == "small" else None

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        from edgegen.training.critics import FeatureHeads, feature_teacher
        from edgegen.training.networks import TrainedNetwork
        from edgegen.training.ratio_network import ratio_network

        critic: nn.Module
        if self.critic == "teacher":
            critic = FeatureHeads(feature_teacher(teacher).config.channels, width=self.critic_width)
        else:
            critic = ratio_network("small", student, None, width=self.critic_width)
        return {
            "student": TrainedNetwork(student, betas=BETAS),
            "critic": TrainedNetwork(critic, betas=BETAS, learning_rate=self.critic_learning_rate),
        }

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.critics import recall

        real = real_images(batch)
        x, condition = real.images, real.condition
        z, e, n, m = (torch.randn(x.shape, generator=rng, device=x.device) for _ in range(4))
        t = uniform(len(x), rng, high=self.latest)
        g, of_pairs = self._generated(networks["student"], z, condition, batch)
        image, critic = g.detach().requires_grad_(), networks["critic"]
        view_g = self._view(networks, image, e, t, condition)
        with torch.no_grad():
            near = [x + self.penalty_noise * n, g + self.penalty_noise * m] if self._is_penalized(batch.step) else []
            fixed, count = torch.cat([x, *near]), 1 + len(near)
            mixed = torch.cat([e] * count), torch.cat([t] * count), repeated(condition, count)
            view = self._view(networks, fixed, *mixed)
        # All in one pass: small images do not keep the cores of a CPU busy.
        pairs = zip(view, view_g, strict=True)
        together = [None if one is None or other is None else torch.cat([one, other.detach()]) for one, other in pairs]
        d_x, *d_near, d_g = critic(*together).chunk(count + 1)
        adversarial = self._student_loss(d_x.detach(), critic(*view_g))
        # The gradient in the images is taken here, for its size is a figure; the student gets it by the chain rule.
        (slope,) = torch.autograd.grad(adversarial, image)
        weight = float(batch.step >= self.critic_warmup)
        product = (slope * g).sum()
        loss = weight * (adversarial.detach() + product - product.detach())
        rows_x, rows_g = _rows(view, fixed)[: len(x)], _rows(view_g, g).detach()
        figures = {"adversarial": adversarial, "batch_recall": recall(rows_x, rows_g)}
        if of_pairs is not None:
            regression = distance_of(self.distance, networks)(of_pairs, pair(batch)[1]).mean()
            (pull,) = torch.autograd.grad(regression, of_pairs, retain_graph=True)
            loss = loss + self.regression_weight * regression
            figures["regression"] = regression
            figures["gradient_ratio"] = slope.norm() / (self.regression_weight * pull.norm())

        of_critic = self._critic_loss(d_x, d_g)
        if d_near:
            penalty = (d_near[0] - d_x).square().mean() + (d_near[1] - d_g).square().mean()
            of_critic = of_critic + self.penalty_every * self.penalty * penalty
        figures["critic_accuracy"] = (d_x > d_g).float().mean()
        return {"student": loss, "critic": of_critic, **figures}

    def warnings(self, figures: Mapping[str, float]) -> list[str]:
        faults = []
        accuracy, recall = figures.get("critic_accuracy", 0.0), figures.get("batch_recall", 1.0)
        if accuracy > SURE:
            faults.append(
                f"the critic wins: it tells {accuracy:.0%} of the images right, and the student learns little from it; "
                "raise penalty or latest, or lower critic_learning_rate"
            )
        if recall < LEAST_RECALL:
            faults.append(
                f"the student's images lose variety: recall within a batch is {recall:.2f}; raise regression_weight or "
                "lower learning_rate, and look at the recall that the stage evaluate finds"
            )
        return faults

    def _is_penalized(self, step: int) -> bool:
        return self.penalty > 0 and step % self.penalty_every == 0

    def _generated(
        self, student: "nn.Module", z: "Tensor", condition: "Tensor | None", batch: "Batch"
    ) -> "tuple[Tensor, Tensor | None]":
        """The student's images of fresh noise, and of the pairs' where they are used: one forward pass for both."""
        import torch

        if not self.regression_weight:
            return one_step(student, z, condition), None
        both = None if condition is None or batch.condition is None else torch.cat([condition, batch.condition])
        images = one_step(student, torch.cat([z, pair(batch)[0]]), both)
        return images[: len(z)], images[len(z) :]

    def _view(self, networks: Networks, images: "Tensor", e: "Tensor", t: "Tensor", condition: "Tensor | None") -> View:
        """What the critic is given of images, mixed with this noise up to these times."""
        from edgegen.training.critics import features

        x_t = interpolate(images, e, t)
        return (
            (x_t, t, condition) if self.critic == "small" else tuple(features(networks["teacher"], x_t, t, condition))
        )

    def _student_loss(self, d_x: "Tensor", d_g: "Tensor") -> "Tensor":
        import torch.nn.functional as F

        return F.softplus(d_x - d_g if self.loss == "relativistic" else -d_g).mean()

    def _critic_loss(self, d_x: "Tensor", d_g: "Tensor") -> "Tensor":
        import torch.nn.functional as F

        if self.loss == "relativistic":
            return F.softplus(d_g - d_x).mean()
        return F.softplus(d_g).mean() + F.softplus(-d_x).mean()


def _rows(view: View, images: "Tensor") -> "Tensor":
    """(batch, width) of each image, to compare: the deepest features averaged over the pixels, or the image itself."""
    deepest = view[-1]
    return images.flatten(1) if deepest is None or deepest.ndim != 4 else deepest.mean(dim=(2, 3))
