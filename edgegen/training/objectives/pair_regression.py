"""Plain regression on the teacher's pairs: the baseline that flow-guided distillation has to beat."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from edgegen.flow.path import one_step
from edgegen.support.tables import Table
from edgegen.training.distances import DISTANCE_HELP, Distance, distance_of, needs_of
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import flipped, pair

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch


class PairRegression(Table):
    """D(e - u(e, 1), x) over stored pairs (e, x)."""

    paper: ClassVar[str] = "arXiv:2101.02388 (knowledge distillation of the sampler in one step)"
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True

    distance: Distance = Field("pseudo_huber", description=f"D, {DISTANCE_HELP}")
    flip: bool = Field(False, description="joint horizontal flip of noise and images: for photographs, not for digits")

    @property
    def needs(self) -> frozenset[Need]:
        return needs_of(self.distance) | {"pairs"}

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        if self.flip:
            batch = flipped(batch, rng)
        e, x = pair(batch)
        image = one_step(networks["student"], e, batch.condition)
        return {"student": distance_of(self.distance, networks)(image, x).mean()}
