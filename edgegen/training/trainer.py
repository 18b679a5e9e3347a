"""The networks of a training, and what one step does to them."""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgegen.errors import TrainingError
from edgegen.recipe import Training
from edgegen.support.rng import generator
from edgegen.training.batch import Batch, Examples, epoch_rows
from edgegen.training.networks import TrainedNetwork, start
from edgegen.training.objective import Objective

NETWORKS_STREAM = 1  # of the seed of the method's own networks; the loop's random numbers have (seed, step, process)


@dataclass(frozen=True)
class StepResult:
    """Losses and figures of the weights before the step, on the device, and the batch that they are of."""

    losses: Mapping[str, Tensor]
    figures: Mapping[str, Tensor]
    batch: Batch


class Trainer:
    """The networks of a training, and what one step does to them."""

    def __init__(
        self,
        objective: Objective,
        data: Examples,
        *,
        student: nn.Module,
        frozen: Mapping[str, nn.Module],
        settings: Training,
        seed: int,
        accelerator: Accelerator,
        label: str = "training",
        compile: bool = False,
    ) -> None:
        self.label = label
        self.objective, self.settings, self.seed, self.accelerator = objective, settings, seed, accelerator
        self.device = accelerator.device
        helpers = {name: network.to(self.device).eval().requires_grad_(False) for name, network in frozen.items()}
        self.states = start(_trained(objective, student, helpers, seed), settings, accelerator, compile=compile)
        self.networks = {**helpers, **{name: state.wrapped for name, state in self.states.items()}}
        self.averages = {name: state.average for name, state in self.states.items()}
        self.data = data.to(self.device)

    def due(self, step: int) -> list[str]:
        """The networks that step `step`, counted from 0, updates."""
        return [name for name, state in self.states.items() if state.is_due(step)]

    def step(self, step: int) -> StepResult:
        """Every network that is due moves against its own loss. Raises TrainingError where one has none."""
        due = self.due(step)
        batch = self._batch(step, due)
        with self.accelerator.autocast():
            rng = generator(self.seed, step, self.accelerator.process_index, device=self.device)
            values = self.objective.losses(self.networks, self.averages, batch, rng)
        missing = sorted(set(due) - values.keys())
        if missing:
            raise TrainingError(f"{self.label}: the method gives no loss of {', '.join(missing)} in step {step + 1}")
        for name in due:
            self.states[name].backward(values[name])
        for name in due:
            self.states[name].update(learning_rate(self.states[name].settings, step))
        detached = {name: value.detach() for name, value in values.items()}
        losses = {name: value for name, value in detached.items() if name in self.states}
        figures = {name: value for name, value in detached.items() if name not in self.states}
        return StepResult(losses, figures, batch)

    def _batch(self, step: int, due: Collection[str]) -> Batch:
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        rows = epoch_rows(len(self.data), step, self.settings.batch, self.seed)
        batch = self.data.batch(rows[rank::ranks], self.device, step=step, steps=self.settings.steps)
        return replace(_fast_layout(batch), due=frozenset(due))

    def seconds_per_step(self, *, limit_s: float, most: int) -> float:
        """Seconds of one step, the mean of at most `most` and of no more than fit in `limit_s`; the first is left out.

        The networks are changed by it: of a training that is only timed.
        """
        seconds: list[float] = []
        while len(seconds) <= most and sum(seconds) <= limit_s:
            before, step = time.monotonic(), len(seconds)
            self.step(step)
            wait_for(self.device)
            seconds.append(time.monotonic() - before)
        warm = seconds[1:] or seconds
        return sum(warm) / len(warm)


def wait_for(device: torch.device) -> None:
    """Until everything that was started on the device has ended: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def learning_rate(settings: Training, step: int) -> float:
    """Linear warm-up, then constant, or falling to zero by half a cosine."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return rate


def _trained(
    objective: Objective, student: nn.Module, frozen: Mapping[str, nn.Module], seed: int
) -> dict[str, TrainedNetwork]:
    """The student and the networks of the method, which start from random numbers of this seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, NETWORKS_STREAM).initial_seed())
        return {"student": TrainedNetwork(student), **objective.networks(student, frozen.get("teacher"))}


def _fast_layout(batch: Batch) -> Batch:
    """The same batch; images on CUDA with the channels last, which its convolutions are faster with."""
    if batch.images.ndim != 4 or batch.images.device.type != "cuda":
        return batch
    images = batch.images.contiguous(memory_format=torch.channels_last)
    noise = None if batch.noise is None else batch.noise.contiguous(memory_format=torch.channels_last)
    return replace(batch, images=images, noise=noise, real=None if batch.real is None else _fast_layout(batch.real))
