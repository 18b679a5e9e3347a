"""The only training loop: any method, any number of trained networks, one device or many, killed and resumed at will.

Step k sees a batch and random numbers made from (seed, k) alone and the state of step k - 1, which a checkpoint holds
whole; so a run that was killed ends with the same weights as one that was not (bit for bit on the same CPU).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from edgegen.errors import TrainingError
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.recipe import Training
from edgegen.support.progress import Progress
from edgegen.support.rng import generator
from edgegen.training import checkpoint
from edgegen.training.batch import Batch, Examples, epoch_rows
from edgegen.training.log import TrainingLog
from edgegen.training.networks import Fitted, NetworkState, TrainedNetwork, start
from edgegen.training.objective import Objective

LOG_EVERY = 10  # steps between looks at the loss: each look waits for the device
NETWORKS_STREAM = 1  # of the seed of the method's own networks; the loop's random numbers have (seed, step, process)


def fit(
    objective: Objective,
    data: Examples,
    *,
    student: nn.Module,
    frozen: Mapping[str, nn.Module],
    settings: Training,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
    label: str,
    compile: bool = False,
) -> dict[str, Fitted]:
    """Trains the student and the method's further networks (in place); `folder` keeps the checkpoint and the logs.

    The losses of a step are all of the weights before it. Raises TrainingError, with the step, when a loss or a weight
    stops being finite; the last good checkpoint stays.
    """
    device = accelerator.device
    helpers = {name: network.to(device).eval().requires_grad_(False) for name, network in frozen.items()}
    states = start(_trained(objective, student, helpers, seed), settings, accelerator, compile=compile)
    first = checkpoint.restore(folder / CHECKPOINT, states, label)
    watch = _Watch(label, settings, folder, device)
    log = TrainingLog(folder, first, enabled=accelerator.is_main_process)
    data = data.to(device)
    networks = {**helpers, **{name: state.wrapped for name, state in states.items()}}
    averages = {name: state.average for name, state in states.items()}
    rank, ranks = accelerator.process_index, accelerator.num_processes
    with progress.task(label, settings.steps, start=first) as task:
        for step in range(first, settings.steps):
            due = [name for name, state in states.items() if state.is_due(step)]
            rows = epoch_rows(len(data), step, settings.batch, seed)
            batch = data.batch(rows[rank::ranks], device, step=step, steps=settings.steps)
            batch = replace(_fast_layout(batch), due=frozenset(due))
            with accelerator.autocast():
                losses = objective.losses(networks, averages, batch, generator(seed, step, rank, device=device))
            watch.look(losses, step, due)
            for name in due:
                states[name].backward(losses[name])
            for name in due:
                states[name].update(learning_rate(states[name].settings, step))
            done = step + 1
            save = done % settings.checkpoint_every == 0 or done == settings.steps
            if done % LOG_EVERY == 0 or save:
                values = {name: float(loss.detach()) for name, loss in losses.items()}
                watch.check()
                log.add(done, values, learning_rate(settings, step))
                task.update(done, "  ".join(f"loss {value:.4g}" for value in values.values()))
            if save:
                watch.check_weights(states, done)
                if accelerator.is_main_process:
                    log.flush()
                    checkpoint.save(folder / CHECKPOINT, states, done)
                accelerator.wait_for_everyone()
    log.close()
    return {name: state.fitted() for name, state in states.items()}


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


class _Watch:
    """Looks for losses and weights that are not finite; the number of the first bad step stays on the device."""

    def __init__(self, label: str, settings: Training, folder: Path, device: torch.device) -> None:
        self.label, self.settings, self.path = label, settings, folder / CHECKPOINT
        self.bad_step = torch.full((), -1, device=device)

    def look(self, losses: Mapping[str, torch.Tensor], step: int, due: Collection[str]) -> None:
        """Raises TrainingError where a network that is due has no loss."""
        missing = sorted(set(due) - losses.keys())
        if missing:
            raise TrainingError(f"{self.label}: the method gives no loss of {', '.join(missing)} in step {step + 1}")
        for loss in losses.values():
            finite = torch.isfinite(loss.detach())
            self.bad_step = torch.where((self.bad_step < 0) & ~finite, step, self.bad_step)

    def check(self) -> None:
        """Raises TrainingError if a loss was not finite."""
        bad_step = int(self.bad_step)
        if bad_step >= 0:
            raise self._error(bad_step)

    def check_weights(self, states: Mapping[str, NetworkState], done: int) -> None:
        """A checkpoint of weights that are not finite would be no help: stop before it replaces the last good one."""
        if not all(state.is_finite() for state in states.values()):
            raise self._error(done - 1)

    def _error(self, bad_step: int) -> TrainingError:
        done, settings = checkpoint.done_steps(self.path), self.settings
        kept = "no checkpoint yet" if done is None else f"the checkpoint of step {done} is kept in {self.path}"
        return TrainingError(
            f"{self.label}: the loss is not finite at step {bad_step + 1} of {settings.steps}; {kept}. "
            f"Lower learning_rate (now {settings.learning_rate:g}) or clip_norm (now {settings.clip_norm:g}), "
            "or look at the images for wrong values"
        )


def _fast_layout(batch: Batch) -> Batch:
    """The same batch; images on CUDA with the channels last, which its convolutions are faster with."""
    if batch.images.ndim != 4 or batch.images.device.type != "cuda":
        return batch
    images = batch.images.contiguous(memory_format=torch.channels_last)
    noise = None if batch.noise is None else batch.noise.contiguous(memory_format=torch.channels_last)
    return replace(batch, images=images, noise=noise)
