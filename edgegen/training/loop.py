"""The only training loop: any method, any number of trained networks, one device or many, killed and resumed at will.

Step k sees a batch and random numbers made from (seed, k) alone and the state of step k - 1, which a checkpoint holds
whole; so a run that was killed ends with the same weights as one that was not (bit for bit on the same CPU).
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgegen.errors import TrainingError
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.recipe import Training
from edgegen.support.progress import Progress
from edgegen.training import checkpoint
from edgegen.training.batch import Examples
from edgegen.training.distributed import wait_for_all
from edgegen.training.figures import CollapseCheck, FaultWatch
from edgegen.training.log import LOG, TrainingLog, read
from edgegen.training.networks import Fitted, NetworkState
from edgegen.training.objective import Objective
from edgegen.training.stopping import Measurements, Stopping
from edgegen.training.trainer import Trainer, learning_rate

RECENT = 100  # steps, of which a tenth may be skipped
SKIPPED = "skipped"  # in a line of the log: the steps so far whose loss or gradient was not finite
LOG_EVERY = 10  # steps between looks at the loss: each look waits for the device


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

    The losses of a step are all of the weights before it. A step whose loss or gradient is not finite changes nothing;
    of a tenth of the last 100 steps, or where a weight is not finite, it raises TrainingError, with the step: the last
    good checkpoint stays.
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
    watch = _Watch(label, settings, folder, trainer.device, before)
    faults = FaultWatch(objective, before, lambda text: progress.message(f"{label}: warning: {text}"))
    collapse = CollapseCheck(objective, seed)
    measurements = Measurements(stopping, trainer, folder, before)
    log = TrainingLog(folder, first, enabled=accelerator.is_main_process)
    done = first
    with contextlib.closing(log), progress.task(label, settings.steps, start=first) as task:
        if not first and (measured := measurements.after(0, settings.steps)):
            log.add(0, {}, learning_rate(settings, 0), figures=measured)
        while done < settings.steps and not measurements.reason:
            step, done = done, done + 1
            result = trainer.step(step)
            watch.look(result.finite, step)
            measured = measurements.after(done, settings.steps)
            save = done == settings.steps or bool(measurements.reason) or done % settings.checkpoint_every == 0
            if done % LOG_EVERY == 0 or save or measured:
                losses, figures = result.values()
                figures |= collapse.figures(trainer.averages["student"], result.batch, done) | watch.check(done)
                warnings = faults.after(losses | figures, [*watch.faults(), *measurements.warnings])
                log.add(done, losses, learning_rate(settings, step), figures=figures | measured, warnings=warnings)
                task.update(done, "  ".join(f"loss {losses[name]:.4g}" for name in losses))
            if save:
                watch.check_weights(trainer.states, done)
                _save(trainer, log, folder / CHECKPOINT, done)
    measurements.end(done, settings.steps, lambda text: progress.message(f"{label}: {text}"))
    return {name: state.fitted() for name, state in trainer.states.items()}


def _save(trainer: Trainer, log: TrainingLog, path: Path, done: int) -> None:
    if trainer.accelerator.is_main_process:
        log.flush()
        checkpoint.save(path, trainer.states, done)
    wait_for_all()


class _Watch:
    """Counts the steps that were skipped, on the device, and looks for weights that are not finite."""

    def __init__(
        self, label: str, settings: Training, folder: Path, device: torch.device, before: Sequence[Mapping[str, Any]]
    ) -> None:
        """`before` are the lines of the log so far."""
        self.label, self.settings, self.path = label, settings, folder / CHECKPOINT
        self.limit = max(1, min(settings.steps, RECENT) // 10)
        self.recent = torch.zeros(RECENT, dtype=torch.bool, device=device)  # of step k at k % RECENT
        self.total = torch.full((), int(before[-1].get(SKIPPED, 0)) if before else 0, device=device)
        self.steps: list[int] = []  # that were skipped, of the last RECENT

    def look(self, finite: Tensor, step: int) -> None:
        """After a step."""
        self.recent[step % RECENT] = ~finite
        self.total += ~finite

    def check(self, done: int) -> dict[str, float]:
        """How many steps were skipped, for the log, where any was. Raises TrainingError where they are too many."""
        recent = self.recent.tolist()
        self.steps = [step for step in range(max(0, done - RECENT), done) if recent[step % RECENT]]
        if len(self.steps) >= self.limit:
            raise self._error(self.steps[0])
        total = float(self.total)
        return {SKIPPED: total} if total else {}

    def faults(self) -> list[str]:
        """In words, at the last check."""
        if not self.steps:
            return []
        return [f"steps are skipped: the loss or its gradient was not finite in {len(self.steps)} of the last {RECENT}"]

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
