"""Flow-guided distillation (SlimFlow): one step that lands on the pairs and on the student's own two-step target."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgegen.flow.condition import repeated
from edgegen.flow.path import interpolate, one_step, per_sample
from edgegen.flow.time_sampling import uniform
from edgegen.support.tables import Table
from edgegen.training.distances import DISTANCE_HELP, Distance, distance_of, needs_of
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import flipped, pair

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch

LOW, HIGH = 0.2, 0.8  # times of the two-step term's middle point, as in SlimFlow's code


class FlowGuidedDistillation(Table):
    """D(e - v(e, 1), x) + w D(z - v(z, 1), x'), z ~ N(0, I).

    x' = x_t - t v_r(x_t, t) with x_t = z - (1 - t) v(z, 1): the student's own first step, without gradient, then one
    step of the frozen slimmed network v_r; t ~ U(0.2, 0.8). Labels of the fresh noise are the batch's.
    """

    paper: ClassVar[str] = "arXiv:2407.12718, Eq. 8, 11-13 (first step by the student, section 4.1)"
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True

    distance: Distance = Field("pseudo_huber", description=f"D, {DISTANCE_HELP}")
    two_step_weight: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="w, of the two-step term; 0 leaves it out"
    )
    flip: bool = Field(False, description="joint horizontal flip of noise and images: for photographs, not for digits")

    @property
    def needs(self) -> frozenset[Need]:
        return needs_of(self.distance) | {"pairs", "slimmed_network"}

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        student, slimmed = networks["student"], networks["slimmed"]
        if self.flip:
            batch = flipped(batch, rng)
        (e, x), condition = pair(batch), batch.condition
        distance = distance_of(self.distance, networks)
        if not self.two_step_weight:
            return {"student": distance(one_step(student, e, condition), x).mean()}
        z = torch.randn(e.shape, generator=rng, device=e.device)
        t = uniform(len(z), rng, low=LOW, high=HIGH)
        # One forward pass for both terms: the network runs at t = 1 on (e, z).
        both = torch.cat([e, z])
        image_e, image_z = one_step(student, both, repeated(condition, 2)).chunk(2)
        with torch.no_grad():
            x_t = interpolate(image_z, z, t)  # z - (1 - t) v(z, 1)
            target = x_t - per_sample(t, x_t) * slimmed(x_t, t, condition)
        loss = distance(image_e, x).mean() + self.two_step_weight * distance(image_z, target).mean()
        return {"student": loss}
