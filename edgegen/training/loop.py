"""The only training loop: any method, any number of trained networks, one device or many, killed and resumed at will.

Step k sees a batch and random numbers made from (seed, k) alone and the state of step k - 1, which a checkpoint holds
whole; so a run that was killed ends with the same weights as one that was not (bit for bit on the same CPU).
"""

import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from edgegen.training.log import HELDOUT, LOG, TrainingLog, read
from edgegen.training.networks import Fitted, NetworkState, TrainedNetwork, start
from edgegen.training.objective import Losses, Objective

LOG_EVERY = 10  # steps between looks at the loss: each look waits for the device
NETWORKS_STREAM = 1  # of the seed of the method's own networks; the loop's random numbers have (seed, step, process)


@dataclass(frozen=True)
class Stopping:
    """Ends a training early: when `loss` of the averaged student, on images kept from training, has become flat.

    It is measured in every `every`-th step. Flat: the least of the last `patience` measurements is not below `gain`
    times the least before them.
    """

    loss: Callable[[nn.Module], float]
    every: int
    patience: int
    gain: float

    def is_flat(self, losses: Sequence[float]) -> bool:
        before, last = losses[: -self.patience], losses[-self.patience :]
        return bool(before) and min(last) >= self.gain * min(before)


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
        compile: bool = False,
    ) -> None:
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

    def losses(self, step: int) -> Losses:
        """All of the weights before the step."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        rows = epoch_rows(len(self.data), step, self.settings.batch, self.seed)
        batch = self.data.batch(rows[rank::ranks], self.device, step=step, steps=self.settings.steps)
        batch = replace(_fast_layout(batch), due=frozenset(self.due(step)))
        with self.accelerator.autocast():
            rng = generator(self.seed, step, rank, device=self.device)
            return self.objective.losses(self.networks, self.averages, batch, rng)

    def update(self, losses: Losses, step: int) -> None:
        """Every network that is due moves against its own loss."""
        for name in self.due(step):
            self.states[name].backward(losses[name])
        for name in self.due(step):
            self.states[name].update(learning_rate(self.states[name].settings, step))

    def seconds_per_step(self, *, limit_s: float, most: int) -> float:
        """Seconds of one step, the mean of at most `most` and of no more than fit in `limit_s`; the first is left out.

        The networks are changed by it: of a training that is only timed.
        """
        seconds: list[float] = []
        while len(seconds) <= most and sum(seconds) <= limit_s:
            before, step = time.monotonic(), len(seconds)
            self.update(self.losses(step), step)
            wait_for(self.device)
            seconds.append(time.monotonic() - before)
        warm = seconds[1:] or seconds
        return sum(warm) / len(warm)


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
    stopping: Stopping | None = None,
) -> dict[str, Fitted]:
    """Trains the student and the method's further networks (in place); `folder` keeps the checkpoint and the logs.

    The losses of a step are all of the weights before it. Raises TrainingError, with the step, when a loss or a weight
    stops being finite; the last good checkpoint stays.
    """
    trainer = Trainer(
        objective,
        data,
        student=student,
        frozen=frozen,
        settings=settings,
        seed=seed,
        accelerator=accelerator,
        compile=compile,
    )
    first = checkpoint.restore(folder / CHECKPOINT, trainer.states, label)
    heldout = _measured_before(folder, first)
    watch = _Watch(label, settings, folder, trainer.device)
    log = TrainingLog(folder, first, enabled=accelerator.is_main_process)
    with contextlib.closing(log), progress.task(label, settings.steps, start=first) as task:
        for step in range(first, settings.steps):
            if stopping is not None and stopping.is_flat(heldout):
                progress.message(f"{label}: the loss on held-out images is flat: stopped at {step} of {settings.steps}")
                break
            losses = trainer.losses(step)
            watch.look(losses, step, trainer.due(step))
            trainer.update(losses, step)
            done = step + 1
            measured = _measured(stopping, trainer, done)
            heldout += measured.values()
            is_last = done == settings.steps or (stopping is not None and stopping.is_flat(heldout))
            save = is_last or done % settings.checkpoint_every == 0
            if done % LOG_EVERY == 0 or save or measured:
                values = {name: float(loss.detach()) for name, loss in losses.items()}
                watch.check()
                log.add(done, values | measured, learning_rate(settings, step))
                task.update(done, "  ".join(f"loss {value:.4g}" for value in values.values()))
            if save:
                watch.check_weights(trainer.states, done)
                if accelerator.is_main_process:
                    log.flush()
                    checkpoint.save(folder / CHECKPOINT, trainer.states, done)
                accelerator.wait_for_everyone()
    return {name: state.fitted() for name, state in trainer.states.items()}


def _measured_before(folder: Path, step: int) -> list[float]:
    """The losses on held-out images up to the checkpoint at `step`, which the log knows."""
    return [float(line[HELDOUT]) for line in read(folder / LOG) if HELDOUT in line and line["step"] <= step]


def _measured(stopping: Stopping | None, trainer: Trainer, done: int) -> dict[str, float]:
    """The loss on held-out images after `done` steps, where it is due."""
    if stopping is None or done % stopping.every:
        return {}
    return {HELDOUT: stopping.loss(trainer.averages["student"])}


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
    return replace(batch, images=images, noise=noise, real=None if batch.real is None else _fast_layout(batch.real))
