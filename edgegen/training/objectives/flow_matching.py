"""Flow matching on straight paths (rectified flow): regress v(x_t, t) on e - x."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from edgegen.flow.coupling import Coupling, minibatch_ot
from edgegen.flow.path import interpolate
from edgegen.flow.time_sampling import uniform
from edgegen.support.tables import Table
from edgegen.training.label_dropout import LabelDropout, dropped
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch


class FlowMatching(Table):
    """E || v(x_t, t) - (e - x) ||^2, e ~ N(0, I), t ~ U(0, 1).

    With minibatch optimal transport, noises of the batch go to the images nearest to them: straighter paths.
    """

    paper: ClassVar[str] = (
        "arXiv:2209.03003, Eq. 1; coupling: arXiv:2302.00482, section 3.2; label_dropout: arXiv:2207.12598, Algorithm 1"
    )

    coupling: Coupling = Field(
        "independent",
        description="which noise meets which image: any, or minibatch_ot, the nearest of the batch within each class",
        exclude_if="independent".__eq__,
    )
    label_dropout: LabelDropout = 0.0

    @property
    def needs(self) -> frozenset[Need]:
        always: frozenset[Need] = frozenset({"real_images"})
        return always | {"unconditional_class"} if self.label_dropout else always

    @property
    def within_condition(self) -> str:
        return "coupling = 'independent'" if self.coupling == "minibatch_ot" else ""

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        x = batch.images
        e = torch.randn(x.shape, generator=rng, device=x.device)
        if self.coupling == "minibatch_ot":
            e = minibatch_ot(x, e, batch.condition)
        t = uniform(len(x), rng)
        condition = batch.condition
        if self.label_dropout:
            condition, _ = dropped(networks["student"], condition, self.label_dropout, rng)
        v = networks["student"](interpolate(x, e, t), t, condition)
        return {"student": (v - (e - x)).square().mean()}
