"""Diffusers folders as teachers: a UNet2DModel and its scheduler, seen as a velocity of our straight path.

A variance-preserving net knows x~ = a x + s e with a^2 + s^2 = 1; ours is x_t = (1 - t) x + t e. The two are the same
point up to scale where s / a = t / (1 - t), that is x_t = x~ (1 - t) / a (Karras et al., arXiv:2206.00364, section 2
and table 1; Lipman et al., arXiv:2210.02747, section 4.1). From the net's output there follow x and e; v = e - x.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.flow.path import per_sample
from edgegen.models.diffusers.schedule import FLOW, VARIANCE_PRESERVING, Schedule, read_schedule, require_signal
from edgegen.models.generator import Loaded
from edgegen.support.extras import require
from edgegen.support.vendor_logs import DIFFUSERS, quiet
from edgegen.types import Signature

# Share of data at the last time. Cosine schedules end at 5e-5, and a solver's further steps correct the first one.
FAINTEST = 1e-6


class VariancePreservingVelocity(nn.Module):
    """velocity(x, t, class_labels) of a net that predicts epsilon, the sample or v at discrete times 0..n-1."""

    def __init__(self, unet: nn.Module, alphas_cumprod: Tensor, prediction: str) -> None:
        super().__init__()
        self.unet = unet
        self.prediction = prediction
        # log(s / a) grows with the index; times between two indices are interpolated in it.
        # Schedules with rescale_betas_zero_snr end at 0, where the ratio is infinite.
        alphas = alphas_cumprod.double().clamp(min=FAINTEST**2)
        self.register_buffer("log_ratio", 0.5 * torch.log((1 - alphas) / alphas), persistent=False)
        self.log_ratio: Tensor

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        # t is clamped to the noise levels that the network was trained on.
        log_ratio_t = torch.logit(t.double()).clamp(self.log_ratio[0], self.log_ratio[-1])
        right = torch.searchsorted(self.log_ratio, log_ratio_t).clamp(1, len(self.log_ratio) - 1)
        low, high = self.log_ratio[right - 1], self.log_ratio[right]
        index = (right - 1) + (log_ratio_t - low) / (high - low)
        alpha = torch.rsqrt(1 + torch.exp(2 * log_ratio_t))
        a, s = per_sample(alpha).to(x), per_sample((1 - alpha * alpha).sqrt()).to(x)
        # At t = 1 the path's point is pure noise and 1 / (1 - t) is infinite; (a + s) x_t is the same point for t < 1.
        scaled = (a + s) * x
        out = self.unet(scaled, index.to(x.dtype), class_labels=class_labels, return_dict=False)[0]
        if self.prediction == "epsilon":
            e = out
            data = (scaled - s * e) / a
        elif self.prediction == "sample":
            data = out
            e = (scaled - a * data) / s
        else:  # v_prediction: v = a e - s x
            data = a * scaled - s * out
            e = s * scaled + a * out
        velocity: Tensor = e - data
        return velocity


class FlowVelocity(nn.Module):
    """velocity(x, t, class_labels) of a net trained on the straight path with time counted 0..n (flow matching)."""

    def __init__(self, unet: nn.Module, steps: int) -> None:
        super().__init__()
        self.unet, self.steps = unet, steps

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        velocity: Tensor = self.unet(x, t * self.steps, class_labels=class_labels, return_dict=False)[0]
        return velocity


def load_unet2d(folder: Path) -> Loaded:
    """A folder with a UNet2DModel and `scheduler_config.json`, or a pipeline folder with both. Raises DataError."""
    require("diffusers", purpose=f"reading the UNet2DModel in {folder}")
    with quiet(DIFFUSERS):
        from diffusers import UNet2DModel  # diffusers imports it on access: here, so that its messages are suppressed
    in_pipeline = (folder / "model_index.json").exists()
    schedule_path = folder / ("scheduler/" if in_pipeline else "") / "scheduler_config.json"
    if not schedule_path.exists():
        raise DataError(f"{folder}: no {schedule_path.name}; it defines the UNet2DModel's times and noise levels")
    schedule = read_schedule(schedule_path, kinds=VARIANCE_PRESERVING + FLOW)
    require_signal(schedule, schedule_path, least=FAINTEST)
    try:
        unet = UNet2DModel.from_pretrained(
            str(folder / "unet" if in_pipeline else folder), use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as e:
        raise DataError(f"{folder}: the UNet2DModel cannot be read: {str(e).splitlines()[0]}") from e
    config = unet.config
    if config.in_channels != config.out_channels:
        raise DataError(
            f"{folder}: {config.in_channels} channels in and {config.out_channels} out; the two must be equal"
        )
    size = config.sample_size
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise DataError(f"{folder}: sample_size is {size!r}; it must be one whole number: the images are square")
    signature = Signature.of(channels=config.in_channels, size=size, num_classes=config.num_class_embeds or 0)
    net = _velocity(unet, schedule)
    return Loaded(net.eval().requires_grad_(False), signature, {"role": "teacher", "from": "diffusers UNet2DModel"})


def _velocity(unet: nn.Module, schedule: Schedule) -> nn.Module:
    if schedule.alphas_cumprod is None:
        return FlowVelocity(unet, schedule.steps)
    return VariancePreservingVelocity(unet, schedule.alphas_cumprod, schedule.prediction)
