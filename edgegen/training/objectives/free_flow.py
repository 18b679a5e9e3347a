"""FreeFlow: a flow map of the teacher from noise alone, corrected by a second velocity network of its own images."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.guidance import unguided
from edgegen.flow.path import interpolate, jump, per_sample
from edgegen.flow.time_sampling import log_normal, uniform
from edgegen.support.tables import Table
from edgegen.training.flow_maps import (
    Constant,
    Power,
    bare_mean_velocity,
    central_difference,
    every_nth,
    exact,
    jvp,
    mean_square,
    mean_velocity,
    normalised,
    velocity_of,
)
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.objectives.flow_map import STEP

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

LAG = 1.2  # the fake network's loss over the teacher's on the same generated images, that is warned of


class FreeFlow(Table):
    """Prediction: the student's own path x_r = z - (1 - r) u(z, 1, r) follows the teacher, d/dr x_r = v_T(x_r, r).

    That is u = v_T(x_r, r) + (1 - r) du/dr. Correction, with a share of the batch: u(z, 1, 0) moves against
    v_F - v_T at noised images of its own, where the fake network v_F, which starts as the teacher, learns flow
    matching on them. Each step: the student once with gradient and a derivative, the teacher once, v_F twice.
    """

    paper: ClassVar[str] = "arXiv:2511.19428 (prediction and correction)"
    one_step: ClassVar[bool] = True
    noise_alone: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "second_time"})

    derivative: Literal["jvp", "central"] = Field(
        "jvp", description="du/dr by forward derivative or central difference"
    )
    power: Power = 1.0  # 0 does not train in the paper: FID 43.5 in place of 5.6
    constant: Constant = 1e-3
    correct_every: Annotated[int, Field(ge=2)] = Field(
        4, description="one sample of so many is corrected, the others are predicted; the paper's share"
    )
    correction_weight: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="of the correction, whose mean size is first made that of the prediction; 0 leaves it out"
    )
    noise_mean: float = Field(0.8, description="mean of the logit of the time to which corrected images are noised")
    noise_sd: Annotated[float, Field(gt=0.0)] = Field(1.6, description="standard deviation of that logit")
    fake_learning_rate: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="of the fake network; default: the student's"
    )

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        from edgegen.training.networks import TrainedNetwork

        assert teacher is not None
        return {"fake": TrainedNetwork(copy.deepcopy(unguided(teacher)), learning_rate=self.fake_learning_rate)}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        from edgegen.training.figures import by_time

        assert batch.noise is not None
        z, condition = batch.noise, batch.condition
        corrected, predicted = every_nth(len(z), self.correct_every, z.device)
        ones, r = z.new_ones(len(z)), uniform(len(z), rng)
        r[corrected] = 0.0
        u = mean_velocity(networks["student"], condition)(z, ones, r)
        residual = self._residual(networks, z, ones, r, u.detach(), condition)
        conditions = None if condition is None else condition[corrected]
        difference, fake = self._correction(networks, (z - u)[corrected].detach(), conditions, rng)
        # Both are as large in the mean: the residuals as they are normalised, and the differences.
        square = mean_square(residual)[predicted]
        size = (square.sqrt() / (square + self.constant) ** self.power).mean()
        scale = self.correction_weight * size / mean_square(difference).sqrt().mean().clamp_min(1e-12)
        prediction = normalised(u[predicted], residual[predicted], "adaptive", power=self.power, constant=self.constant)
        correction = mean_square(u[corrected] - (u[corrected] - scale * difference).detach())
        return {
            "student": (prediction.sum() + correction.sum()) / len(z),
            **fake,
            **by_time("residual", square, r[predicted]),
            "residual": square.mean(),
            "correction": mean_square(difference).mean(),
        }

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        fake, teacher = figures.get("fake", 0.0), figures.get("teacher on generated", math.inf)
        if fake <= LAG * teacher:
            return []
        return [
            f"the fake network lags: its loss on the student's images is {fake / teacher:.1f} times the teacher's; "
            "raise fake_learning_rate or lower learning_rate"
        ]

    def _residual(
        self, networks: Networks, z: "Tensor", ones: "Tensor", r: "Tensor", u: "Tensor", condition: "Tensor | None"
    ) -> "Tensor":
        """u - v_T(x_r, r) - (1 - r) du/dr, without gradient."""
        import torch

        v = velocity_of(networks["teacher"], jump(z, ones, r, u), r, condition)
        own, point = bare_mean_velocity(networks["student"], condition), (z, ones, r)
        along = (torch.zeros_like(z), torch.zeros_like(r), torch.ones_like(r))
        with exact(z.device):
            if self.derivative == "jvp":
                change = jvp(own, point, along)
            else:
                change = central_difference(own, point, along, (0.5 * (1 - r)).clamp_max(STEP))
        return u - v - per_sample(1 - r, u) * change

    def _correction(
        self, networks: Networks, x_g: "Tensor", condition: "Tensor | None", rng: "torch.Generator"
    ) -> "tuple[Tensor, Losses]":
        """v_F - v_T at noised images of the student's, and the fake network's loss there, beside the teacher's."""
        import torch

        e = torch.randn(x_g.shape, generator=rng, device=x_g.device)
        s = log_normal(len(x_g), rng, mean=self.noise_mean, sd=self.noise_sd)
        x_s = interpolate(x_g, e, s)
        v_f = networks["fake"](x_s, s, condition).to(x_s.dtype)
        v_t = velocity_of(networks["teacher"], x_s, s, condition)
        loss, of_teacher = (mean_square(v - (e - x_g)).mean() for v in (v_f, v_t))
        return v_f.detach() - v_t, {"fake": loss, "teacher on generated": of_teacher}
