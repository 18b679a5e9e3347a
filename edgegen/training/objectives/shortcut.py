"""Shortcut models: a long jump is what two jumps of the network's own make; the shortest are flow matching."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.path import interpolate, jump, per_sample
from edgegen.flow.time_sampling import uniform
from edgegen.support.tables import Table
from edgegen.training.flow_maps import every_nth, mean_square, mean_velocity, velocity_of
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

Velocity = Annotated[
    Literal["data", "teacher"],
    Field(description="what the shortest jumps learn: e - x of the sample, or the teacher's velocity"),
]
Split = Annotated[
    Literal["middle", "any"],
    Field(description="where a jump is split: in its middle, of lengths 1, 1/2, 1/4, ...; or anywhere, of any length"),
]
Every = Annotated[int, Field(ge=1, description="one sample of so many learns a long jump, the others the velocity")]
Target = Annotated[
    Literal["average", "own"], Field(description="whose two jumps: the moving average's, or the student's own")
]


class Shortcut(Table):
    """|| u(x_t, t, r) - sg[l u'(x_t, t, m) + (1 - l) u'(x_m, m, r)] ||^2 with x_m = x_t - (t - m) u'(x_t, t, m).

    l = (t - m) / (t - r); sg: no gradient. The other samples: || u(x_t, t, t) - v ||^2. The paper tells the network the
    shortest length, 1 / grid, in place of 0 there.
    """

    paper: ClassVar[str] = "arXiv:2410.12557, Eq. 4, 5, Algorithm 1"
    one_step: ClassVar[bool] = True

    velocity: Velocity = "data"
    split: Split = "middle"
    bootstrap_every: Every = 8  # the paper's share, section 3.2
    target: Target = "average"
    grid: Annotated[int, Field(ge=2)] = Field(
        128, description="split = middle: shortest jumps in the whole; power of 2"
    )

    @property
    def needs(self) -> frozenset[Need]:
        always: frozenset[Need] = frozenset({"second_time", "real_images"})
        return always | {"teacher"} if self.velocity == "teacher" else always

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.figures import by_time

        real = real_images(batch)
        x, condition = real.images, real.condition
        e = torch.randn(x.shape, generator=rng, device=x.device)
        t, m, r = self.three_times(len(x), rng)
        start = self._on_grid(uniform(len(x), rng))
        long, short = every_nth(len(x), self.bootstrap_every, x.device)
        t[short] = r[short] = start[short]
        x_t = interpolate(x, e, t)
        target = velocity_of(networks["teacher"], x_t, t, condition) if self.velocity == "teacher" else e - x
        helper = averages["student"] if self.target == "average" else networks["student"]
        conditions = None if condition is None else condition[long]
        target[long] = self._two_jumps(helper, x_t[long], t[long], m[long], r[long], conditions)
        square = mean_square(mean_velocity(networks["student"], condition)(x_t, t, r) - target)
        return {
            "student": square.mean(),
            **by_time("velocity error", square[short], t[short]),
            **by_time("jump error, length", square[long], (t - r)[long]),
            "velocity error": square[short].mean(),
            "jump error": square[long].mean(),
        }

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        jumps, velocity = figures.get("jump error", 0.0), figures.get("velocity error", math.inf)
        if jumps <= velocity:
            return []
        return [
            f"long jumps do not follow the short ones: squared error {jumps:.3g}, of the velocity {velocity:.3g}; "
            "lower learning_rate, or bootstrap_every"
        ]

    def three_times(self, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor, Tensor]":
        """Times t > m > r of jumps and where they are split, each (count,)."""
        import torch

        length, place = uniform(count, rng), uniform(count, rng)
        if self.split == "any":
            r = place * (1 - length)
            return r + length, r + length * uniform(count, rng), r
        levels = int(math.log2(self.grid))  # lengths 1, 1/2, ..., 2 / grid
        length = 0.5 ** (length * levels).floor()
        r = torch.floor(place / length) * length
        return r + length, r + 0.5 * length, r

    def _on_grid(self, t: "Tensor") -> "Tensor":
        """The start of one of the shortest jumps, which ends at or above 0."""
        return t if self.split == "any" else (t * self.grid).floor().add(1) / self.grid

    def _two_jumps(
        self, helper: "nn.Module", x_t: "Tensor", t: "Tensor", m: "Tensor", r: "Tensor", condition: "Tensor | None"
    ) -> "Tensor":
        """The mean velocity of a jump to m and one to r; of the shortest length they are steps of the velocity."""
        import torch

        u = mean_velocity(helper, condition)

        def end(start: "Tensor", end: "Tensor") -> "Tensor":
            shortest = 0.0 if self.split == "any" else 1 / self.grid
            return torch.where(start - end <= shortest, start, end)

        with torch.no_grad():
            first = u(x_t, t, end(t, m))
            second = u(jump(x_t, t, m, first), m, end(m, r))
            part = per_sample((t - m) / (t - r).clamp_min(torch.finfo(t.dtype).tiny), x_t)
            return part * first + (1 - part) * second
