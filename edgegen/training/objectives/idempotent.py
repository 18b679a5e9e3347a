"""Idempotent generative network (experimental): one step leaves real images as they are, and its own images, too."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgegen.flow.path import one_step
from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

Weight = Annotated[float, Field(ge=0.0)]

LEAST = 1e-12  # of the scale of the clamp, which is zero where an image is reconstructed to the bit
CORRUPTION = 0.3  # of noise on images, of which a projection onto the images takes back most
STILL = 0.25  # of that corruption; a student that moves such images less is warned of


class Idempotent(Table):
    """E D(f(x), x) + a D(f'(f(z)), f(z)) - b D(f(f'(z)), f'(z)) of images x, noise z: f = one step, D = mean |a - b|.

    f' is f with frozen weights: idempotence moves f(z) to where f stands still, tightness makes f move what is there.
    The last term is clamped, -c tanh(D / c), c = `clamp` D(f(x), x), so that it does not outweigh the first; c has no
    gradient. A network that gives back its input has no gradient at all, and a fresh one does: hence `trained_student`.
    """

    paper: ClassVar[str] = "arXiv:2311.01462 (IGN), section 2 and the code of its appendix; marked as an experiment"
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"real_images", "trained_student"})

    # The paper's 20, 20 and 2.5, over 20; its ratio of the clamp.
    idempotence_weight: Weight = Field(1.0, description="a, beside the reconstruction of real images, which has 1")
    tightness_weight: Weight = Field(0.125, description="b; with 0, any network that gives back its input will do")
    clamp: Annotated[float, Field(gt=0.0)] = Field(
        1.5, description="bound of the tightness of a sample, over the reconstruction error of its real image"
    )

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        real, student = real_images(batch), networks["student"]
        x, condition = real.images, real.condition
        z = torch.randn(x.shape, generator=rng, device=x.device)
        reconstruction, f_z = _distance(one_step(student, x, condition), x), one_step(student, z, condition)
        y = f_z.detach()
        # f' needs no copy of the weights: this gradient ends at f(z), and moves none of those that f' is made of.
        error = _distance(one_step(student, f_z, condition), f_z)
        (slope,) = torch.autograd.grad(error.sum(), f_z)
        idempotence = error.detach() + ((f_z - y) * slope).flatten(1).sum(dim=1)
        drift = _distance(one_step(student, y, condition), y)
        bound = (self.clamp * reconstruction.detach()).clamp(min=LEAST)
        tightness = -bound * (drift / bound).tanh()
        with torch.no_grad():
            corrupted = x + CORRUPTION * z
            moved = _distance(one_step(student, corrupted, condition), corrupted).mean()
        loss = reconstruction + self.idempotence_weight * idempotence + self.tightness_weight * tightness
        return {
            "student": loss.mean(),
            "reconstruction": reconstruction.mean(),
            "idempotence": error.mean(),
            "tightness": tightness.mean(),
            "moved": moved / _distance(corrupted, x).mean(),
        }

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        moved = figures.get("moved", 1.0)
        if moved >= STILL:
            return []
        return [
            f"the student gives back what it is given, images or not: it moves noisy images by {moved:.2f} of their "
            "noise; raise tightness_weight or clamp, or take a network without a way from its input to its output"
        ]


def _distance(a: "Tensor", b: "Tensor") -> "Tensor":
    """Mean absolute difference of the values: (batch,)."""
    return (a.float() - b.float()).abs().flatten(1).mean(dim=1)
