"""Consistency mid-training (CMT): from every state on the teacher's path, one step lands on the path's end."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgegen.flow.path import image_of
from edgegen.support.tables import Table
from edgegen.training.distances import DISTANCE_HELP, Distance, distance_of, needs_of, pseudo_huber
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import trajectories

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgegen.training.batch import Batch


class CMT(Table):
    """E D(x_i - t_i v(x_i, t_i), x_0) over the states x_i of stored paths, at the times t_i, that end in x_0.

    No schedule, no weights, no gradient to stop: the target is fixed. It is the regression of pairs where a path has
    one state, its noise. A student that has learned it is a good start of consistency tuning.
    """

    paper: ClassVar[str] = "arXiv:2509.24526 (consistency mid-training, its loss for consistency models)"
    one_step: ClassVar[bool] = True

    distance: Distance = Field("pseudo_huber", description=f"D, {DISTANCE_HELP}")
    noise_share: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="share of the samples at t = 1, the one time that the generator runs at; others at any state"
    )

    @property
    def needs(self) -> frozenset[Need]:
        return needs_of(self.distance) | {"trajectories"}

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.figures import by_time

        states, times = trajectories(batch)
        count, knots = len(states), len(times) - 1
        index = torch.randint(knots, (count,), generator=rng, device=states.device)
        at_noise = torch.rand(count, generator=rng, device=states.device) < self.noise_share
        index = torch.where(at_noise, 0, index)
        x_t, t, x = states[torch.arange(count, device=states.device), index], times[index], states[:, -1]
        landing = image_of(networks["student"], x_t, t, batch.condition)
        loss = distance_of(self.distance, networks)(landing, x)
        return {"student": loss.mean(), **by_time("error", pseudo_huber(landing, x), t)}
