"""The only training loop: any method, any number of trained networks, one device or many, killed and resumed at will.

Step k sees a batch and random numbers made from (seed, k) alone and the state of step k - 1, which a checkpoint holds
whole; so a run that was killed ends with the same weights as one that was not (bit for bit on the same CPU).
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from edgegen.errors import TrainingError
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.recipe import Training
from edgegen.support.progress import Progress
from edgegen.training import checkpoint
from edgegen.training.batch import Examples
from edgegen.training.figures import CollapseCheck, FaultWatch
from edgegen.training.log import HELDOUT, LOG, TrainingLog, read
from edgegen.training.networks import Fitted, NetworkState
from edgegen.training.objective import Objective
from edgegen.training.trainer import Trainer, learning_rate

LOG_EVERY = 10  # steps between looks at the loss: each look waits for the device


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
        label=label,
        compile=compile,
    )
    first = checkpoint.restore(folder / CHECKPOINT, trainer.states, label)
    before = [line for line in read(folder / LOG) if line["step"] <= first]
    heldout = [float(line[HELDOUT]) for line in before if HELDOUT in line]
    watch = _Watch(label, settings, folder, trainer.device)
    faults = FaultWatch(objective, before, lambda text: progress.message(f"{label}: warning: {text}"))
    collapse = CollapseCheck(objective, seed)
    log = TrainingLog(folder, first, enabled=accelerator.is_main_process)
    with contextlib.closing(log), progress.task(label, settings.steps, start=first) as task:
        for step in range(first, settings.steps):
            if stopping is not None and stopping.is_flat(heldout):
                progress.message(f"{label}: the loss on held-out images is flat: stopped at {step} of {settings.steps}")
                break
            result, done = trainer.step(step), step + 1
            watch.look(result.losses, step)
            measured = _measured(stopping, trainer, done)
            heldout += measured.values()
            is_last = done == settings.steps or (stopping is not None and stopping.is_flat(heldout))
            save = is_last or done % settings.checkpoint_every == 0
            if done % LOG_EVERY == 0 or save or measured:
                watch.check()
                losses = _finite(result.losses) | measured
                figures = _finite(
                    {**result.figures, **collapse.figures(trainer.averages["student"], result.batch, done)}
                )
                warnings = faults.after(losses | figures)
                log.add(done, losses, learning_rate(settings, step), figures=figures, warnings=warnings)
                task.update(done, "  ".join(f"loss {losses[name]:.4g}" for name in result.losses))
            if save:
                watch.check_weights(trainer.states, done)
                if accelerator.is_main_process:
                    log.flush()
                    checkpoint.save(folder / CHECKPOINT, trainer.states, done)
                accelerator.wait_for_everyone()
    return {name: state.fitted() for name, state in trainer.states.items()}


def _measured(stopping: Stopping | None, trainer: Trainer, done: int) -> dict[str, float]:
    """The loss on held-out images after `done` steps, where it is due."""
    if stopping is None or done % stopping.every:
        return {}
    return {HELDOUT: stopping.loss(trainer.averages["student"])}


def _finite(values: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """As plain numbers; one that is not finite has nothing to say, and JSON has no word for it."""
    numbers = {name: float(value) for name, value in values.items()}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


class _Watch:
    """Looks for losses and weights that are not finite; the number of the first bad step stays on the device."""

    def __init__(self, label: str, settings: Training, folder: Path, device: torch.device) -> None:
        self.label, self.settings, self.path = label, settings, folder / CHECKPOINT
        self.bad_step = torch.full((), -1, device=device)

    def look(self, losses: Mapping[str, torch.Tensor], step: int) -> None:
        for loss in losses.values():
            finite = torch.isfinite(loss)
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
