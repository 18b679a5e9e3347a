"""Flow map: the mean velocity u(x_t, t, r) from the derivative of its own jumps; its presets have published names.

A jump x_r = x_t - (t - r) u(x_t, t, r) must not change when its start moves along the flow, d/dt x_r = 0, which is
u = v - (t - r) du/dt (MeanFlow, arXiv:2505.13447, Eq. 6). At r = t it is flow matching.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from edgegen.flow.path import interpolate, per_sample
from edgegen.flow.time_sampling import log_normal, u_shaped, uniform
from edgegen.support.tables import Table
from edgegen.training.flow_maps import (
    Constant,
    MeanVelocity,
    Normaliser,
    Power,
    bare_mean_velocity,
    central_difference,
    exact,
    is_exact,
    jvp,
    mean_square,
    mean_velocity,
    normalised,
    velocity_of,
)
from edgegen.training.label_dropout import LabelDropout, dropped, without_classes
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import pair, real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

STEP = 1e-3  # of the central difference, in time: float32 rounds as much as it leaves out
WILD = 10.0  # (t - r) du/dt over v, root mean squares, that is warned of; trained networks have about 1

Examples = Annotated[
    Literal["images", "pairs"],
    Field(description="images: real ones and fresh noise; pairs: the teacher's, whose paths cross less (Re-MeanFlow)"),
]
Velocity = Annotated[
    Literal["data", "teacher", "own"],
    Field(
        description="v of the target and of the derivative's direction: data: e - x of the sample; teacher: the "
        "teacher's; own: e - x for the target, the student's u(x_t, t, t), which has no noise, for the direction"
    ),
]
Derivative = Annotated[
    Literal["jvp", "central", "finite_step"],
    Field(
        description="du/dt by forward derivative (jvp), by central difference, or from a second point on the path, "
        "which comes nearer during training (finite_step, SoFlow)"
    ),
]
Times = Annotated[
    Literal["two", "sorted", "interval", "zero", "u_shaped"],
    Field(
        description="from logit normal a (t_mean, t_sd) and b (r_mean, r_sd): two: t = a, r = min(a, b); sorted: the "
        "larger and the smaller of two a; interval: t - r = a, anywhere; zero: t = a, r = 0; u_shaped: t most at both "
        "ends, t - r = a or down to 0"
    ),
]
Mean = Annotated[float, Field(description="mean of the logit of a, for `times`")]
Sd = Annotated[float, Field(gt=0.0, description="standard deviation of the logit of a, for `times`")]
SecondMean = Annotated[float, Field(description="mean of the logit of r, for `times` = two")]
SecondSd = Annotated[float, Field(gt=0.0, description="standard deviation of the logit of r, for `times` = two")]
EqualShare = Annotated[float, Field(ge=0.0, le=1.0, description="share of samples with r = t, which is flow matching")]
TangentShare = Annotated[float, Field(ge=0.0, le=1.0, description="share of (t - r) du/dt that enters, after its rise")]
TangentRise = Annotated[float, Field(ge=0.0, le=1.0, description="share of the steps in which that rises from 0")]
FirstStep = Annotated[
    float, Field(gt=0.0, le=1.0, description="finite_step: way to the second point at the start, as a share of t - r")
]
LastStep = Annotated[float, Field(gt=0.0, le=1.0, description="finite_step: the same at the end of the training")]
Scale = Annotated[
    float,
    Field(
        ge=1.0,
        description="w of classifier-free guidance in the target, for a student without a teacher; needs label_dropout "
        "(a teacher's velocity is guided by [teacher] guidance); 1: none",
        exclude_if=(1.0).__eq__,
    ),
]


class FlowMap(Table):
    """w || u(x_t, t, r) - sg[v - (t - r) du/dt] ||^2, x_t = (1 - t) x + t e, r <= t; sg: no gradient.

    The derivative is along (v, 1, 0) in (x, t, r). The trained network is evaluated once with gradient; with jvp the
    derivative costs about two evaluations more, with the central difference two, with a finite step one.

    With guidance, k u(x_t, t, t) + (1 - k) (w v + (1 - w) u'(x_t, t, t)) takes the place of v, in the direction of the
    derivative, too; u' is told no class. It is for the samples that are told theirs, and costs two evaluations more.
    """

    paper: ClassVar[str] = "arXiv:2505.13447, Eq. 6, 10, 11; guidance: section 4.2, in the form of its code"
    one_step: ClassVar[bool] = True

    examples: Examples = "images"
    velocity: Velocity = "data"
    derivative: Derivative = "jvp"
    normaliser: Normaliser = "adaptive"
    power: Power = 0.75  # py-meanflow for CIFAR-10, as the times; 1 for ImageNet
    constant: Constant = 1e-3
    times: Times = "two"
    t_mean: Mean = -0.6
    t_sd: Sd = 1.6
    r_mean: SecondMean = -4.0
    r_sd: SecondSd = 1.6
    equal_share: EqualShare = 0.25
    tangent_share: TangentShare = 1.0
    tangent_rise: TangentRise = 0.0
    first_step: FirstStep = 1.0
    last_step: LastStep = 3.125e-4
    label_dropout: LabelDropout = 0.0
    guidance: Scale = 1.0
    guidance_mixing: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        None,
        description="k, the share of the student's own velocity in the guided target; default 1 - 1 / w, which leaves "
        "the sample's noise as it is (arXiv:2512.02012); MeanFlow's code: 0.5",
        exclude_if=lambda value: value is None,
    )

    @model_validator(mode="after")
    def guidance_is_of_the_student(self) -> "FlowMap":
        if self.guidance == 1.0:
            return self
        if self.velocity == "teacher" or self.examples == "pairs":
            raise ValueError(
                "guidance is of a student that learns from images alone; a teacher's velocity and pairs are guided by "
                "[teacher] guidance"
            )
        if not self.label_dropout:
            raise ValueError(f"guidance = {self.guidance:g} needs a student that also knows no class: label_dropout")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        examples: Need = "pairs" if self.examples == "pairs" else "real_images"
        needs: set[Need] = {"second_time", examples}
        if self.velocity == "teacher":
            needs.add("teacher")
        if self.label_dropout:
            needs.add("unconditional_class")
        return frozenset(needs)

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.figures import by_time

        e, x, condition = self._ends(batch, rng)
        t, r = self.two_times(len(x), rng)
        x_t, student = interpolate(x, e, t), networks["student"]
        v = velocity_of(networks["teacher"], x_t, t, condition) if self.velocity == "teacher" else e - x
        if self.label_dropout:
            classes, (condition, is_dropped) = condition, dropped(student, condition, self.label_dropout, rng)
            if self.guidance != 1.0 and classes is not None:
                v = torch.where(per_sample(is_dropped, v), v, self._guided(student, x_t, t, classes, v))
        own, u = bare_mean_velocity(student, condition), mean_velocity(student, condition)(x_t, t, r)
        known = u.detach() if is_exact(x.device) else None
        with exact(x.device):
            direction = own(x_t, t, t) if self.velocity == "own" else v
            change = self._change(own, x_t, t, r, direction, known, share=batch.step / batch.steps)
        residual = u.detach() - v + self.tangent(batch.step, batch.steps) * change
        loss = normalised(u, residual, self.normaliser, power=self.power, constant=self.constant).mean()
        return {
            "student": loss,
            **by_time("residual", mean_square(residual), t),
            "residual r = t": torch.where(r == t, mean_square(residual), 0.0).sum() / (r == t).sum(),
            "derivative": (mean_square(change).mean() / mean_square(v).mean()).sqrt(),
        }

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        derivative = figures.get("derivative", 0.0)
        if derivative <= WILD:
            return []
        return [
            f"the derivative in time is wild: (t - r) du/dt is {derivative:.1f} times the velocity, where about 1 is "
            "usual; lower learning_rate, or let the derivative rise slowly by tangent_rise"
        ]

    def two_times(self, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
        """Times t and r <= t, both (count,)."""
        import torch

        t, r = TIMES[self.times](self, count, rng)
        equal = torch.rand(count, generator=rng, device=rng.device) < self.equal_share
        return t, torch.where(equal, t, r)

    def tangent(self, step: int, steps: int) -> float:
        """The share of (t - r) du/dt at a step of the stage's `steps`."""
        rise = self.tangent_rise * steps
        return self.tangent_share * (min(1.0, step / rise) if rise else 1.0)

    def _ends(self, batch: "Batch", rng: "torch.Generator") -> "tuple[Tensor, Tensor, Tensor | None]":
        """(noise, images, condition)."""
        import torch

        if self.examples == "pairs":
            return (*pair(batch), batch.condition)
        real = real_images(batch)
        return torch.randn(real.images.shape, generator=rng, device=real.images.device), real.images, real.condition

    def _guided(self, student: "nn.Module", x_t: "Tensor", t: "Tensor", labels: "Tensor", v: "Tensor") -> "Tensor":
        """v of samples that are told their class, guided; like v."""
        import torch

        classes = torch.cat([labels, without_classes(student, labels)])
        twice, times = torch.cat([x_t, x_t]), torch.cat([t, t])
        with exact(x_t.device):
            own, unconditional = bare_mean_velocity(student, classes)(twice, times, times).chunk(2)
        w, mixing = self.guidance, 1 - 1 / self.guidance if self.guidance_mixing is None else self.guidance_mixing
        return mixing * own + (1 - mixing) * (w * v + (1 - w) * unconditional)

    def _change(
        self,
        u: MeanVelocity,
        x_t: "Tensor",
        t: "Tensor",
        r: "Tensor",
        direction: "Tensor",
        known: "Tensor | None",
        *,
        share: float,
    ) -> "Tensor":
        """(t - r) du/dt; `known` is u(x_t, t, r) where it has been computed. Zero at r = t."""
        import torch

        if self.derivative == "finite_step":
            ratio: float = self.first_step * (self.last_step / self.first_step) ** share
            to_l = ratio * (t - r)
            x_l = x_t - per_sample(to_l, x_t) * direction
            u_t = u(x_t, t, r) if known is None else known
            # d/dt of the jump as a quotient is v - u_t - (l - r) (u_t - u_l) / (t - l): SoFlow, arXiv:2512.15657.
            u_l = u(x_l, t - to_l, r)
            return (u_t - u_l) * ((1 - ratio) / ratio)
        point, along = (x_t, t, r), (direction, torch.ones_like(t), torch.zeros_like(r))
        if self.derivative == "jvp":
            return per_sample(t - r, x_t) * jvp(u, point, along)
        return per_sample(t - r, x_t) * central_difference(u, point, along, (0.5 * (t - r)).clamp_max(STEP))


def _first(method: FlowMap, count: int, rng: "torch.Generator") -> "Tensor":
    return log_normal(count, rng, mean=method.t_mean, sd=method.t_sd)


def _two(method: FlowMap, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
    t = _first(method, count, rng)
    return t, log_normal(count, rng, mean=method.r_mean, sd=method.r_sd).minimum(t)


def _sorted(method: FlowMap, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
    a, b = _first(method, count, rng), _first(method, count, rng)
    return a.maximum(b), a.minimum(b)


def _interval(method: FlowMap, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
    interval = _first(method, count, rng)
    r = uniform(count, rng) * (1 - interval)
    return r + interval, r


def _zero(method: FlowMap, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
    t = _first(method, count, rng)
    return t, 0 * t


def _u_shaped(method: FlowMap, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
    """Re-MeanFlow's (re2_truncate in its code): from near noise, intervals that end below 0.4 go to 0."""
    import torch

    t = u_shaped(count, rng)
    r = (t - _first(method, count, rng)).clamp_min(0)
    return t, torch.where((t > 0.8) & (r < 0.4), 0, r)


TIMES: "Mapping[str, Callable[[FlowMap, int, torch.Generator], tuple[Tensor, Tensor]]]" = {
    "two": _two,
    "sorted": _sorted,
    "interval": _interval,
    "zero": _zero,
    "u_shaped": _u_shaped,
}
