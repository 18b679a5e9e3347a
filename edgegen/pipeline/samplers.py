"""The rows of the stage `evaluate`: every network of a run at its numbers of steps, and how it is sampled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgegen.errors import DataError
from edgegen.flow.guidance import unguided
from edgegen.flow.solvers import solve
from edgegen.formats.stage_folder import VERIFIER
from edgegen.models.bicubic import Bicubic
from edgegen.models.macs import macs
from edgegen.models.verifier import load as load_verifier
from edgegen.pipeline.graph import STUDENT_STAGES, Context
from edgegen.pipeline.guided_teacher import network_of
from edgegen.pipeline.methods import evaluated_steps, teacher_steps
from edgegen.support.storage import read_json
from edgegen.training.distributed import state

if TYPE_CHECKING:
    from edgegen.models.diffusers.velocity import ScheduledVelocity

NETWORKS = (  # role, stage
    ("teacher", "teacher"),
    ("slimmed", "slim"),
    ("student", "distill"),
    ("finished", "finish"),
    ("baseline", "baseline"),
)
BEST_OF, CANDIDATES = "best_of_4", 4  # the row of a student whose verifier chooses, and of how many images
BATCH = 512  # images sampled at once


@dataclass(frozen=True)
class Sampler:
    """One row of the table: samples (n, ...) from noise, conditions and a seed, in `steps` steps.

    `stage` made the network ("": none did). `cost` is that of one evaluation of the network, the teacher's being 1;
    of each image it makes `candidates`.
    """

    role: str
    stage: str
    steps: int
    network: torch.nn.Module
    cost: float
    sample: Callable[[Tensor, Tensor | None, int], Tensor]
    candidates: int = 1

    @property
    def evaluations(self) -> int:
        """Of the network, for one image."""
        return self.steps * self.candidates


def samplers(context: Context) -> list[Sampler]:
    """Every network at its numbers of steps, and a brought teacher by its own scheduler at the most steps.

    The last student also with the choice of its verifier, where it has one.
    """
    from edgegen.models.diffusers.schedule import scheduler_for
    from edgegen.models.diffusers.velocity import ScheduledVelocity

    last = next((stage for stage in reversed(STUDENT_STAGES) if stage in context.inputs), "")
    device, full = state().device, teacher_steps(context.recipe)
    rows: list[Sampler] = []
    if upscale := read_json(context.inputs["data"] / "data.json").get("upscale"):
        bicubic = Bicubic(upscale)
        rows.append(Sampler("bicubic", "", 1, bicubic, 0.0, _by_euler(bicubic, 1, device)))
    teachers_macs = 0
    for role, stage in NETWORKS:
        if stage not in context.inputs:
            continue
        loaded = network_of(context, stage)
        network_macs = macs(loaded)
        teachers_macs = teachers_macs or network_macs
        network, cost = loaded.net.to(device), network_macs / max(teachers_macs, 1)
        verifier = context.inputs[stage] / VERIFIER
        counts = evaluated_steps(context.recipe, stage)
        rows += [Sampler(role, stage, count, network, cost, _by_euler(network, count, device)) for count in counts]
        if stage == last and verifier.is_dir():
            best = _by_verifier(network, verifier, device)
            rows.append(Sampler(BEST_OF, stage, 1, network, cost, best, candidates=CANDIDATES))
        if isinstance(unguided(network), ScheduledVelocity) and network is not unguided(network):
            context.progress.message("evaluate: no row of the teacher by its own scheduler, which does not guide it")
        if role == "teacher" and isinstance(network, ScheduledVelocity):
            try:
                scheduler_for(network.schedule, full)
            except DataError as e:  # PNDM's corrections need four steps; ours do without
                context.progress.message(f"evaluate: no row of the teacher by its own scheduler: {e}")
                continue
            rows.append(Sampler("scheduler", stage, full, network, cost, _by_scheduler(network, full, device)))
    return rows


def _by_euler(
    network: torch.nn.Module, steps: int, device: torch.device
) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    return lambda noise, condition, seed: sample(network, noise, condition, steps, device)


def _by_scheduler(
    network: "ScheduledVelocity", steps: int, device: torch.device
) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    from edgegen.models.diffusers import own_sampler

    def run(noise: Tensor, condition: Tensor | None, start: int, *, seed: int) -> Tensor:
        return own_sampler.sample(network.unet, network.schedule, noise, condition, steps=steps, seed=seed + start)

    return lambda noise, condition, seed: _in_batches(partial(run, seed=seed), noise, condition, device)


def _by_verifier(
    network: torch.nn.Module, folder: Path, device: torch.device
) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    verifier = load_verifier(folder)
    verifier.network.to(device)

    def images_of(noise: Tensor, condition: Tensor | None) -> Tensor:
        return sample(network, noise, condition, 1, device).to(device)

    def run(noise: Tensor, condition: Tensor | None, seed: int) -> Tensor:
        own = None if condition is None else condition.to(device)
        return verifier.best_of(CANDIDATES, images_of, noise.to(device), own).cpu()

    return run


@torch.no_grad()
def sample(
    network: torch.nn.Module, noise: Tensor, condition: Tensor | None, steps: int, device: torch.device
) -> Tensor:
    """Samples (n, ...) on the CPU from noise of that shape, by Euler steps."""

    def run(noise: Tensor, condition: Tensor | None, start: int) -> Tensor:
        return solve(network, noise, condition, solver="euler", steps=steps).x

    return _in_batches(run, noise, condition, device)


def _in_batches(
    run: Callable[[Tensor, Tensor | None, int], Tensor], noise: Tensor, condition: Tensor | None, device: torch.device
) -> Tensor:
    """What `run` makes of parts of the noise and condition, and of the place where each part starts; on the CPU."""
    parts = []
    for start in range(0, len(noise), BATCH):
        rows = slice(start, start + BATCH)
        parts.append(
            run(noise[rows].to(device), None if condition is None else condition[rows].to(device), start).cpu()
        )
    return torch.cat(parts)
