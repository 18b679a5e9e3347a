"""The networks of a training, and what one step does to them."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgegen.errors import TrainingError
from edgegen.recipe import Training
from edgegen.support.rng import generator
from edgegen.training.batch import Batch, Examples, epoch_rows
from edgegen.training.distributed import add_up
from edgegen.training.networks import TrainedNetwork, start
from edgegen.training.objective import Objective
from edgegen.training.parts import Part, draws

NETWORKS_STREAM = 1  # of the seed of the method's own networks; the loop's random numbers have (seed, step, part)


@dataclass(frozen=True)
class StepResult:
    """Losses and figures of the weights before a step, each with the part of the batch that it is of, on the device.

    They are of this process alone: `values` has those of all.
    """

    names: frozenset[str]  # of the trained networks: other names are figures
    parts: Sequence[tuple[Part, Mapping[str, Tensor]]]
    batch: Batch  # of the first part
    finite: Tensor  # a flag; the step was skipped where it is false, in all processes

    def values(self) -> tuple[dict[str, float], dict[str, float]]:
        """The losses and the figures of the whole batch; of figures, parts with NaN are left out of the mean.

        All processes have to call it. What is not finite is left out: JSON has no word for it.
        """
        names = list(self.parts[0][1])
        if not names:  # no network was due
            return {}, {}
        table = torch.stack([torch.stack([values[name].float() for name in names]) for _, values in self.parts])
        shares = torch.tensor([part.share for part, _ in self.parts], device=table.device)[:, None]
        counted = ~table.isnan() | torch.tensor([name in self.names for name in names], device=table.device)
        sums, weights = (shares * table.where(counted, 0.0)).sum(dim=0), (shares * counted).sum(dim=0)
        add_up([sums, weights])
        means = dict(zip(names, (sums / weights).tolist(), strict=True))
        finite = {name: value for name, value in means.items() if math.isfinite(value)}
        losses = {name: value for name, value in finite.items() if name in self.names}
        return losses, {name: value for name, value in finite.items() if name not in self.names}


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
        self.parts = _parts(settings, accelerator, label)

    def due(self, step: int) -> list[str]:
        """The networks that step `step`, counted from 0, updates."""
        return [name for name, state in self.states.items() if state.is_due(step)]

    def step(self, step: int) -> StepResult:
        """Every network that is due moves against its own loss, unless that or its gradient is not finite.

        Raises TrainingError where one has none.
        """
        due = self.due(step)
        rows = epoch_rows(len(self.data), step, self.settings.batch, self.seed)
        results: list[tuple[Part, Mapping[str, Tensor]]] = []
        batches: list[Batch] = []
        for part in self.parts:
            batch = self.data.batch(part.of(rows), self.device, step=step, steps=self.settings.steps)
            batch = replace(_fast_layout(batch), due=frozenset(due))
            with self.accelerator.autocast(), draws(part, self.seed, step, self.device) as rng:
                values = self.objective.losses(self.networks, self.averages, batch, rng)
            missing = sorted(set(due) - values.keys())
            if missing:
                raise TrainingError(
                    f"{self.label}: the method gives no loss of {', '.join(missing)} in step {step + 1}"
                )
            for name in due:
                self.states[name].backward(values[name] if part.count == 1 else values[name] * part.share)
            results.append((part, {name: value.detach() for name, value in values.items()}))
            batches.append(batch)
        finite = self._update(results, due, step)
        return StepResult(frozenset(self.states), results, batches[0], finite)

    def _update(self, results: Sequence[tuple[Part, Mapping[str, Tensor]]], due: Sequence[str], step: int) -> Tensor:
        """Updates the networks that are due, all or none: none where a loss or a gradient is not finite."""
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for name in due:
            finite = finite & self.states[name].clip(torch.stack([values[name] for _, values in results]).sum())
        for name in due:
            self.states[name].update(learning_rate(self.states[name].settings, step), finite)
        return finite

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


def _parts(settings: Training, accelerator: Accelerator, label: str) -> list[Part]:
    """What this process takes of every batch. Raises TrainingError where that would be nothing."""
    rank, ranks = accelerator.process_index, accelerator.num_processes
    count = ranks * settings.accumulate
    if count > settings.batch:
        raise TrainingError(
            f"{label}: batch = {settings.batch} cannot be divided into {count} parts ({ranks} processes, accumulate = "
            f"{settings.accumulate}): take a larger batch, or fewer of them"
        )
    return [Part(number * ranks + rank, count, settings.batch) for number in range(settings.accumulate)]


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
    real = None if batch.real is None else _fast_layout(batch.real)
    condition = batch.condition
    if condition is not None and condition.ndim == 4:
        condition = condition.contiguous(memory_format=torch.channels_last)
    return replace(batch, images=images, condition=condition, noise=noise, real=real)
