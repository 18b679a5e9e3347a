"""Flow matching on straight paths (rectified flow): regress v(x_t, t) on e - x."""

from typing import TYPE_CHECKING, ClassVar

from edgegen.flow.path import interpolate
from edgegen.flow.time_sampling import uniform
from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch


class FlowMatching(Table):
    """E || v(x_t, t) - (e - x) ||^2, e ~ N(0, I), t ~ U(0, 1)."""

    paper: ClassVar[str] = "arXiv:2209.03003, Eq. 1"
    needs: ClassVar[frozenset[Need]] = frozenset({"real_images"})

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        x = batch.images
        e = torch.randn(x.shape, generator=rng, device=x.device)
        t = uniform(len(x), rng)
        v = networks["student"](interpolate(x, e, t), t, batch.labels)
        return {"student": (v - (e - x)).square().mean()}
