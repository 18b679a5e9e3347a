"""Consistency tuning (ECT): two neighbouring points of a path land on one image, at ever smaller distances of time."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from edgegen.flow.path import image_of, interpolate, per_sample, time_dtype
from edgegen.flow.time_sampling import log_normal
from edgegen.support.tables import Table
from edgegen.training.distances import DISTANCE_HELP, Distance, distance_of, needs_of, pseudo_huber
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

Share = Annotated[float, Field(ge=0.0, le=1.0)]

EARLY, STEEPNESS = 8.0, 1.0  # k, b: steps are up to 1 + k / 2 times as long near the data (ECT's code)
LARGEST_RATIO = 0.999  # of r / t: steps do not become shorter, as in NVlabs/FastGen
DIFFERENCE = 0.01  # of t: the step of the difference quotient that ADCM's rule takes
BANDWIDTH = 0.5  # in ln(t / (1 - t)): samples so near to each other share one step in ADCM's rule
LEAST_TIME = 0.002  # EDM's smallest noise level, where ADCM's times begin
HIGHEST = math.log(80.0)  # of ln(t / (1 - t)) there: EDM's largest noise level
# TCM: samples at the truncation time itself, and their weight. Its other times are of Student's distribution, ours of
# the normal one, cut off.
BOUNDARY_SHARE, BOUNDARY_WEIGHT = 0.25, 0.1


class ConsistencyTuning(Table):
    """E D(f(x_t, t), f'(x_r, r)) / (t - r) of real images x, r < t, where f(x, t) = x - t v(x, t).

    f' is f of the averaged student, or of the student itself, without gradient.

    x_t = (1 - t) x + t e and x_r have the same noise e; with a `teacher_step` x_r is one step of the teacher's ODE from
    x_t (consistency distillation). f(x, 0) = x by itself, so no sigma_data is needed: of a velocity on the straight
    path, c_skip = 1 and c_out = -t. r rises towards t in `stages`, or follows ADCM's rule; then the loss is divided by
    D(f'(x_r, r), x), the target's own error, in place of t - r (or as `divisor` says).

    ADCM is checked against its paper's text (section 3, Eq. 9 to 11, appendices A.2 and B). Its pseudo-Huber c = 0.03
    is ours for CIFAR-10. Otherwise than there, the step is found for every batch, from samples at near times, and not
    for a grid of times every 25,000 steps. So is the target's error: divided by each sample's own one, the loss favours
    images that are near their targets (Gaussian data came out 1.8 times as wide).

    Times have ln(t / (1 - t)) ~ N(mean, sd^2), the noise levels of EDM; a share of the samples has t = 1, pure noise,
    which that distribution never gives and which is the one time that the generator runs at.
    """

    paper: ClassVar[str] = (
        "arXiv:2406.14548 (ECT), section 3; arXiv:2303.01469, Eq. 7 (distillation, averaged target); "
        "arXiv:2510.17266, Eq. 10, 11 (ADCM); arXiv:2410.14895 (TCM)"
    )
    one_step: ClassVar[bool] = True

    distance: Distance = Field("pseudo_huber", description=f"D, {DISTANCE_HELP}")
    teacher_step: Literal["none", "euler", "heun"] = Field(
        "none", description="none: the same noise (consistency training); else the teacher's step (distillation)"
    )
    target: Literal["student", "average"] = Field(
        "average",
        description="whose image of the nearer point: the student's moving average's (consistency models, the steadier "
        "one in small batches), or the student's own (ECT)",
    )
    mean: float = Field(
        -1.1, description="of ln(t / (1 - t)), the logarithm of the noise level; as in ECT for CIFAR-10"
    )
    sd: Annotated[float, Field(gt=0.0)] = Field(2.0, description="standard deviation of ln(t / (1 - t)); as in ECT")
    noise_share: Share = Field(0.25, description="share of the samples at t = 1, where the generator runs")
    step_rule: Literal["schedule", "adcm"] = Field(
        "schedule",
        description="schedule: steps t - r shrink by q in every stage; adcm: as long as they improve the target",
    )
    stages: Annotated[int, Field(ge=1)] = Field(8, description="stages of the schedule, of equal length; ECT: 8")
    q: Annotated[float, Field(gt=1.0)] = Field(
        2.0, description="steps become so many times shorter in each stage; ECT also: 256 in a single stage"
    )
    adcm_weight: Annotated[float, Field(gt=0.0)] = Field(
        0.05,
        description="lambda of the target's own error in ADCM's rule: larger is longer steps. ADCM: 0.01, for ImageNet "
        "from 0.64 down to it (appendix A.2); short trainings want longer steps",
    )
    divisor: Literal["rule", "step", "target_error"] = Field(
        "rule",
        description="what the loss is divided by: step: t - r (ECT); target_error: the distance of target and image "
        "(ADCM, Eq. 11); rule: the one of the paper that step_rule is of",
        exclude_if="rule".__eq__,
    )
    truncate_at: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="TCM's second stage: trains t above this alone; below, the network of the stage before is taken",
    )

    @property
    def needs(self) -> frozenset[Need]:
        teacher: frozenset[Need] = frozenset({"teacher"}) if self.teacher_step != "none" else frozenset()
        earlier: frozenset[Need] = frozenset({"earlier_network"}) if self.truncate_at is not None else frozenset()
        return teacher | earlier | needs_of(self.distance) | {"real_images"}

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        return {}

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        from edgegen.training.figures import by_time

        real, student = real_images(batch), networks["student"]
        x, condition = real.images, real.condition
        e = torch.randn(x.shape, generator=rng, device=x.device)
        t, weight = self._times(len(x), rng)
        x_t = interpolate(x, e, t)
        with torch.no_grad():
            step = self._scheduled(t, batch) if self.step_rule == "schedule" else self._adapted(real, e, t, student)
        r = t - step
        # Both passes have the same dropout masks: else the loss does not fall below the masks' variance.
        with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            x_r = interpolate(x, e, r) if self.teacher_step == "none" else self._next(networks, x_t, t, r, condition)
            target = image_of(averages["student"] if self.target == "average" else student, x_r, r, condition)
            if self.truncate_at is not None:
                below = image_of(networks["earlier"], x_r, r, condition)
                target = torch.where(per_sample(r < self.truncate_at, below), below, target)
        image = image_of(student, x_t, t, condition)
        distance = distance_of(self.distance, networks)
        divisor = step
        if self.divides_by_error:
            with torch.no_grad():  # f' is x_r itself at the least times, and no target is better than there
                least = distance(interpolate(x, e, torch.full_like(t, LEAST_TIME)), x)
                divisor = _mean_at_near_times(torch.maximum(distance(target, x), least), t)
        loss = weight * distance(image, target) / divisor
        return {
            "student": loss.mean(),
            "r_over_t": (r / t).mean(),
            "share_of_data": (r <= 0).float().mean(),
            **by_time("residual", pseudo_huber(image, target), t),
        }

    @property
    def divides_by_error(self) -> bool:
        return self.divisor == "target_error" or (self.divisor == "rule" and self.step_rule == "adcm")

    def warnings(self, figures: Mapping[str, float]) -> Sequence[str]:
        """ADCM's rule without a signal: its steps are all of the least length."""
        mean = figures.get("r_over_t", 0.0)
        if self.step_rule == "schedule" or mean < 1 - 2 * (1 - LARGEST_RATIO):
            return []
        return [f"ADCM's rule gives the shortest steps everywhere: r / t is {mean:.4f}; raise adcm_weight"]

    def _times(self, count: int, rng: "torch.Generator") -> "tuple[Tensor, Tensor]":
        """t and the weights of the samples: both (count,)."""
        import torch

        low = self.truncate_at or 0.0
        t = log_normal(count, rng, mean=self.mean, sd=self.sd, low=low)
        u = torch.rand(count, generator=rng, device=t.device)
        weight = torch.ones_like(t)
        if self.truncate_at is not None:
            at_boundary = u > 1 - BOUNDARY_SHARE
            t = torch.where(at_boundary, low, t)
            weight = torch.where(at_boundary, BOUNDARY_WEIGHT, weight)
        return torch.where(u < self.noise_share, 1.0, t), weight

    def _scheduled(self, t: "Tensor", batch: "Batch") -> "Tensor":
        """t - r of ECT's mapping: t n(t) / q^(stage + 1), at most t; n(t) = 1 + k sigmoid(-b s), s the noise level."""
        stage = self.stages * batch.step // batch.steps
        nearness = 1 + EARLY * (-STEEPNESS * t / (1 - t).clamp(min=1e-6)).sigmoid()
        return t * (nearness * self.q ** -(stage + 1)).clamp(1 - LARGEST_RATIO, 1.0)

    def _adapted(self, real: "Batch", e: "Tensor", t: "Tensor", student: "nn.Module") -> "Tensor":
        """t - r = a / (1 + a) E[f' . (f - x)] / E[f' . f'], a = `adcm_weight`, at most t.

        It is least of E ||f(t) - f(r)||^2 + a E ||f(r) - x||^2, to first order in t - r: Gauss-Newton. The means are
        over the samples of the batch at near times, f' is a difference quotient along the straight line from x to e.
        """
        import torch

        x, h = real.images, DIFFERENCE * t
        f, before = (image_of(student, interpolate(x, e, s), s, real.condition) for s in (t, t - h))
        slope = (f - before) / per_sample(h, x)
        gain, size = (_mean_at_near_times((slope * other).flatten(1).mean(dim=1), t) for other in (f - x, slope))
        length = self.adcm_weight / (1 + self.adcm_weight) * gain / size.clamp(min=1e-12)
        return torch.minimum(torch.maximum(length, (1 - LARGEST_RATIO) * t), t)

    def _next(
        self, networks: Networks, x_t: "Tensor", t: "Tensor", r: "Tensor", condition: "Tensor | None"
    ) -> "Tensor":
        """x_r by one step of the teacher's ODE from x_t; Heun's second slope is left out where r = 0 (EDM, Alg. 1)."""
        import torch

        teacher, length = networks["teacher"], per_sample(r - t, x_t)
        dtype = time_dtype(teacher, x_t.dtype)
        v = teacher(x_t, t.to(dtype), condition)
        euler: Tensor = x_t + length * v
        if self.teacher_step == "euler":
            return euler
        v_r = teacher(euler, r.to(dtype), condition)
        heun: Tensor = x_t + length * (v + v_r) / 2
        return torch.where(per_sample(r > 0, x_t), heun, euler)


def _mean_at_near_times(values: "Tensor", t: "Tensor") -> "Tensor":
    """Of each sample, the mean of `values` (batch,) over those whose noise level is like its own: (batch,)."""
    import torch

    level = torch.logit(t.double()).clamp(max=HIGHEST).float()
    near = torch.exp(-0.5 * ((level[:, None] - level) / BANDWIDTH).square())
    return (near * values).sum(dim=1) / near.sum(dim=1)  # no matmul, which autocast would round
