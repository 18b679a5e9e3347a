"""Images as diffusers itself samples them with a scheduler: what our solvers are checked against."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.models.diffusers.schedule import EDM, Schedule, scheduler_for

# The deterministic sampler of first order that takes the same times. DDIM derives epsilon from the limited estimate.
FIRST_ORDER: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **dict.fromkeys(
        ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler"),
        ("DDIMScheduler", {}, {"use_clipped_model_output": True}),
    ),
    **dict.fromkeys(("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"), ("EulerDiscreteScheduler", {}, {})),
    "DPMSolverMultistepScheduler": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 1, "algorithm_type": "dpmsolver++"},
        {},
    ),
    **dict.fromkeys(EDM, ("EDMEulerScheduler", {}, {})),
    "FlowMatchEulerDiscreteScheduler": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": False}, {}),
}


def first_order(schedule: Schedule) -> tuple[Schedule, dict[str, Any]] | None:
    """The scheduler whose first-order steps ours must equal, with the arguments of its `step`; None where none does."""
    if schedule.name not in FIRST_ORDER:
        return None
    name, changes, arguments = FIRST_ORDER[schedule.name]
    settings = {**schedule.settings, **changes}
    if schedule.name == "PNDMScheduler":  # it limits nothing, and DDIM does where its settings are silent
        settings |= {"clip_sample": False}
    if name == "DDIMScheduler" and settings.get("timestep_spacing") == "linspace":
        # DDIM steps down by a whole share of the times, and then asks the network at the next of the even ones.
        settings |= {"timestep_spacing": "trailing"}
    return replace(schedule, name=name, settings=settings), arguments


def even_steps(schedule: Schedule, most: int) -> int:
    """The largest number of steps up to `most` that divides the times of training, so that none of them is rounded."""
    return next(steps for steps in range(most, 0, -1) if schedule.steps % steps == 0)


@torch.no_grad()
def sample(
    unet: nn.Module,
    schedule: Schedule,
    noise: Tensor,
    condition: Tensor | None,
    *,
    steps: int,
    seed: int = 0,
    arguments: dict[str, Any] | None = None,
) -> Tensor:
    """Images (batch, channels, height, width) of diffusers' scheduler, from `noise` of that shape.

    `seed` draws what a stochastic scheduler adds; `arguments` go to its `step`. Raises as `scheduler_for` does.
    """
    scheduler = scheduler_for(schedule, steps)
    variance = schedule.settings.get("variance_type") or ""
    takes_variance = schedule.name == "DDPMScheduler" and variance.startswith("learned")
    rng = torch.Generator(noise.device).manual_seed(seed)
    x = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    scaled = getattr(scheduler, "scale_model_input", lambda sample, time: sample)
    stochastic = "generator" in scheduler.step.__code__.co_varnames
    for time in scheduler.timesteps:
        out = unet(scaled(x, time), time, class_labels=condition, return_dict=False)[0]
        out = out if takes_variance else out[:, : x.shape[1]]
        given = {**(arguments or {}), **({"generator": rng} if stochastic else {})}
        x = scheduler.step(out, time, x, **given, return_dict=False)[0]
    return x
