"""Diffusers folders as teachers: a UNet2DModel and its scheduler, seen as a velocity of our straight path.

A network knows x~ = a x + s e: with a^2 + s^2 = 1 (variance preserving), or with a = 1, s = sigma (EDM). Ours is
x_t = (1 - t) x + t e. The two are the same point up to scale where s / a = t / (1 - t) (Karras et al.,
arXiv:2206.00364, section 2 and table 1; Lipman et al., arXiv:2210.02747, section 4.1). From the network's output
follows its estimate d of the data, which the scheduler may limit, then e = (x~ - a d) / s and v = e - d.
"""

from typing import Any

import torch
from torch import Tensor, nn

from edgegen.flow.path import per_sample
from edgegen.flow.time_grid import TimeGrid
from edgegen.models.diffusers.schedule import EDM, Schedule, positive_sigmas
from edgegen.models.diffusers.time_grids import time_grid

# Share of data at the last time. Cosine schedules end at 5e-5, and a solver's further steps correct the first one.
FAINTEST = 1e-6


class ScheduledVelocity(nn.Module):
    """velocity(x, t, condition) of a network and its scheduler, with the times of that scheduler's own sampler."""

    time_dtype = torch.float64  # near t = 1 a time of the scheduler has no exact float32

    def __init__(self, unet: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.unet, self.schedule = unet, schedule
        self.unconditional_class: int | None = None  # its last class, where that stands for none

    @property
    def image_channels(self) -> int:
        config: Any = self.unet.config
        return int(config.in_channels)

    @property
    def num_classes(self) -> int:
        config: Any = self.unet.config
        return int(config.num_class_embeds or 0) - (self.unconditional_class is not None)

    def time_grid(self, steps: int) -> TimeGrid:
        """The times at which its scheduler samples in so many steps. Raises DataError where it cannot."""
        return time_grid(self.schedule, steps)

    def output(self, sample: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """What the network gives, without a variance that it may have learned beside it."""
        out: Tensor = self.unet(sample, time.to(sample.dtype), class_labels=condition, return_dict=False)[0]
        return out[:, : sample.shape[1]]


class VariancePreservingVelocity(ScheduledVelocity):
    """Of a network that predicts epsilon, the sample or v at the discrete times 0..n-1."""

    def __init__(self, unet: nn.Module, schedule: Schedule) -> None:
        super().__init__(unet, schedule)
        assert schedule.alphas_cumprod is not None, "a variance preserving schedule"
        # log(s / a) grows with the index; times between two indices are interpolated in it.
        # Schedules with rescale_betas_zero_snr end at 0, where the ratio is infinite.
        alphas = schedule.alphas_cumprod.double().clamp(min=FAINTEST**2)
        self.register_buffer("log_ratio", 0.5 * torch.log((1 - alphas) / alphas), persistent=False)
        self.log_ratio: Tensor

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        log_ratio_t, time = self._trained(torch.logit(t.double()))
        alpha = torch.rsqrt(1 + torch.exp(2 * log_ratio_t))
        a, s = per_sample(alpha, x).to(x), per_sample((1 - alpha * alpha).sqrt(), x).to(x)
        # At t = 1 the path's point is pure noise and 1 / (1 - t) is infinite; (a + s) x_t is the same point for t < 1.
        scaled = (a + s) * x
        out = self.output(scaled, time, condition)
        if self.schedule.prediction == "epsilon":
            data = (scaled - s * out) / a
        elif self.schedule.prediction == "sample":
            data = out
        else:  # v_prediction: v = a e - s x
            data = a * scaled - s * out
        if self.schedule.limit is not None:
            data = self.schedule.limit(data)
        elif self.schedule.prediction == "epsilon":
            velocity: Tensor = out - data
            return velocity
        elif self.schedule.prediction == "v_prediction":  # no quotient by s, which is small near the data
            return s * scaled + a * out - data
        return (scaled - a * data) / s - data

    def _trained(self, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """The noise level, within those that the network was trained on, and the time that stands for it: (batch,)."""
        log_ratio = log_ratio.clamp(self.log_ratio[0], self.log_ratio[-1])
        if self.schedule.continuous:
            return log_ratio, 0.25 * log_ratio
        right = torch.searchsorted(self.log_ratio, log_ratio).clamp(1, len(self.log_ratio) - 1)
        low, high = self.log_ratio[right - 1], self.log_ratio[right]
        return log_ratio, (right - 1) + (log_ratio - low) / (high - low)


class EDMVelocity(ScheduledVelocity):
    """Of a preconditioned network: d = c_skip x~ + c_out F(c_in x~, ln(sigma) / 4) (arXiv:2206.00364, table 1)."""

    def __init__(self, unet: nn.Module, schedule: Schedule, path: Any) -> None:
        super().__init__(unet, schedule)
        self.sigma_min, self.sigma_max, self.sigma_data = positive_sigmas(schedule, path)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        level = torch.exp(torch.logit(t.double()).clamp(max=20.0)).clamp(self.sigma_min, self.sigma_max)
        sigma = per_sample(level, x).to(x)
        point = (1 + sigma) * x  # x~ = x_t / (1 - t); at t = 1 the point of the largest sigma
        total = sigma**2 + self.sigma_data**2
        out = self.output(point * total.rsqrt(), 0.25 * torch.log(level), condition)
        sign = 1.0 if self.schedule.prediction == "epsilon" else -1.0
        data = self.sigma_data**2 / total * point + sign * sigma * self.sigma_data * total.rsqrt() * out
        return (point - data) / sigma - data


class FlowVelocity(ScheduledVelocity):
    """Of a network trained on the straight path with time counted 0..n (flow matching)."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.output(x, t * self.schedule.steps, condition)


def velocity_of(unet: nn.Module, schedule: Schedule, path: Any) -> ScheduledVelocity:
    """The velocity of a network with this scheduler; `path` is for messages."""
    if schedule.name in EDM:
        return EDMVelocity(unet, schedule, path)
    if schedule.alphas_cumprod is None:
        return FlowVelocity(unet, schedule)
    return VariancePreservingVelocity(unet, schedule)
