"""The times at which a diffusers scheduler samples, as times of our straight path.

diffusers' own scheduler chooses them: its spacing, Karras' or exponential sigmas, flow matching's shift. A noise level
sigma = s / a is the time t = sigma / (1 + sigma). The sampler's start, z for variance preserving points a x + s e and
init_noise_sigma z for points x + sigma e, is a gain of the noise on our path, as its end is where some noise is left.
"""

import math
from dataclasses import replace
from typing import Any

from edgegen.errors import DataError
from edgegen.flow.time_grid import TimeGrid
from edgegen.models.diffusers.schedule import EDM, FLOW, Schedule, scheduler_for

# Schedulers whose points are x + sigma e; the others' are a x + s e.
EXPLODING = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    *EDM,
)


def time_grid(schedule: Schedule, steps: int) -> TimeGrid:
    """The times of so many steps of the scheduler's own. Raises DataError where it cannot sample in them."""
    # A single step of the other spacings starts at time 0, with the data.
    changes: dict[str, Any] = {"timestep_spacing": "trailing"} if steps == 1 else {}
    # PNDM's own times hold those of its corrections; between them it takes DDIM's.
    name = "DDIMScheduler" if schedule.name == "PNDMScheduler" else schedule.name
    scheduler = scheduler_for(replace(schedule, name=name), steps, **changes)
    if schedule.settings.get("invert_sigmas"):
        raise DataError("scheduler_config.json: invert_sigmas: a time that runs from data to noise is not supported")
    if schedule.name in FLOW:
        return TimeGrid(_falling(scheduler.sigmas.double().tolist()))
    levels = _falling(_sigmas(scheduler))
    first, last = levels[0], levels[-1]
    times = tuple(1.0 if math.isinf(level) else level / (1 + level) for level in levels)
    if schedule.name in EXPLODING:
        return TimeGrid(times, float(scheduler.init_noise_sigma) / (1 + first), 1 + last)
    return TimeGrid(times, _gain(first), 1 / _gain(last))


def _gain(sigma: float) -> float:
    """Our point over the variance preserving one: 1 / (a + s)."""
    return 1.0 if math.isinf(sigma) else math.hypot(1.0, sigma) / (1 + sigma)


def _sigmas(scheduler: Any) -> list[float]:
    if getattr(scheduler, "sigmas", None) is not None:
        levels: list[float] = scheduler.sigmas.double().tolist()
        return levels
    alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps].tolist()
    # What is left of the noise after the last step; DDPM's sampler has no such setting, and leaves none.
    alphas.append(float(getattr(scheduler, "final_alpha_cumprod", 1.0)))
    return [math.sqrt((1 - alpha) / alpha) if alpha > 0 else math.inf for alpha in alphas]


def _falling(levels: list[float]) -> tuple[float, ...]:
    """Each level once: a sampler of second order lists those of its corrections, too."""
    falling = [levels[0]]
    for level in levels[1:]:
        if level < falling[-1]:
            falling.append(level)
    return tuple(falling)
