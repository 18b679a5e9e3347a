"""Ends a training before its last step, by a figure that is measured as it goes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgegen.errors import TrainingError
from edgegen.formats.stage_folder import GOOD
from edgegen.training import checkpoint
from edgegen.training.distributed import take_from_first, wait_for_all
from edgegen.training.trainer import Trainer

CHANCE = 0.02  # about two standard deviations of a share of 1,000 images, such as a recall, where it is small
Reason = Callable[[Sequence[float]], str]


@dataclass(frozen=True)
class Stopping:
    """Ends a training early, by a `figure` of the averaged student that is measured in every `every`-th step.

    `name` is that of the figure in the log. `reason` says why to end after the figures so far, "" to go on. With
    `goes_back` there is a figure of the first weights and of the last ones, too, and a training that ends early has the
    weights of the last figure that was no reason to end.
    """

    name: str
    figure: Callable[[nn.Module], float]
    every: int
    reason: Reason
    goes_back: bool = False


def flat(*, patience: int, gain: float) -> Reason:
    """The least of the last `patience` losses is not below `gain` times the least before them."""

    def reason(losses: Sequence[float]) -> str:
        before, last = losses[:-patience], losses[-patience:]
        return "the loss on held-out images is flat" if before and min(last) >= gain * min(before) else ""

    return reason


def fallen(what: str, *, most: float, advice: str) -> Reason:
    """The last figure is below the highest before it by more than `most` times that, and by more than chance."""

    def reason(figures: Sequence[float]) -> str:
        best = max(figures[:-1], default=0.0)
        if best - figures[-1] <= max(most * best, CHANCE):
            return ""
        return f"{what} has fallen: it was {best:.2f} and is {figures[-1]:.2f}; {advice}"

    return reason


class Measurements:
    """The figures of a `Stopping` so far; None measures nothing."""

    def __init__(
        self, stopping: Stopping | None, trainer: Trainer, folder: Path, lines: Sequence[Mapping[str, Any]]
    ) -> None:
        """`lines` are those of the log so far; `folder` keeps the weights to go back to."""
        self.stopping, self.trainer, self.good = stopping, trainer, folder / GOOD
        self.figures = [float(line[stopping.name]) for line in lines if stopping and stopping.name in line]

    @property
    def reason(self) -> str:
        """Why the training is to end, "" to go on."""
        return self.stopping.reason(self.figures) if self.stopping and self.figures else ""

    def after(self, done: int, steps: int) -> dict[str, float]:
        """The figure after `done` of all `steps`, for the log, where it is due. All processes have to call it."""
        if self.stopping is None:
            return {}
        due = done > 0 and done % self.stopping.every == 0
        if not due and not (self.stopping.goes_back and (done == steps or not self.figures)):
            return {}
        # Of the first process: were it another one elsewhere by a bit, the processes could end at different steps.
        is_first = self.trainer.accelerator.is_main_process
        value = self.stopping.figure(self.trainer.averages["student"]) if is_first else 0.0
        figure = torch.tensor(value, device=self.trainer.device)
        take_from_first([figure])
        self.figures.append(float(figure))
        if self.stopping.goes_back and not self.reason:
            if is_first:
                checkpoint.save(self.good, self.trainer.states, done)
            wait_for_all()
        return {self.stopping.name: self.figures[-1]}

    @property
    def warnings(self) -> list[str]:
        """The reason, where it is one to go back."""
        return [self.reason] if self.stopping and self.stopping.goes_back and self.reason else []

    def end(self, done: int, steps: int, say: Callable[[str], None]) -> None:
        """After the last step: goes back where there is a reason to; `say` gets how the training has ended.

        Raises TrainingError where the weights to go back to are gone.
        """
        if self.stopping is None or not self.reason:
            return
        if self.stopping.goes_back:
            if not self.good.is_file():
                raise TrainingError(f"{self.good} is missing; delete its folder and run the same command again")
            good = checkpoint.restore(self.good, self.trainer.states, self.trainer.label)
            say(f"ended after {done} of {steps} steps, with the weights of step {good}")
        elif done < steps:
            say(f"{self.reason}: stopped at {done} of {steps}")
