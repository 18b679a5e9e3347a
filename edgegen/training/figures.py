"""Figures of a training beside its losses: means by time, the spread over a batch, and warnings in words.

A method returns figures among its losses (edgegen.training.objective); this module makes the usual ones, and watches
them.
"""

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.log import WARNINGS
from edgegen.training.objective import Need, Objective

WINDOW = 10  # lines of the log whose mean is judged: one batch says little
COLLAPSE_EVERY = 100  # steps between looks at the student's images
COLLAPSE_IMAGES = 64
COLLAPSE_STREAM = 2  # of the seed: the noise of those images
OUTPUT_SD, DATA_SD = "output_sd", "data_sd"
WITH_IMAGES: frozenset[Need] = frozenset({"real_images", "pairs", "trajectories"})
LEAST_SPREAD = 0.25  # of the data's; the verdict of a run calls images with less "not usable" (docs/run.md)


def by_time(
    name: str, values: Tensor, t: Tensor, *, bins: int = 4, low: float = 0.0, high: float = 1.0
) -> dict[str, Tensor]:
    """The mean of `values` (batch,) in equal bins of the times t (batch,): scalars by name; NaN where a bin is empty.

    Normalised losses do not fall when a network learns: this is for what stands before the normalisation.
    """
    index = ((t.detach() - low) / (high - low) * bins).long().clamp(0, bins - 1)
    inside = index[:, None] == torch.arange(bins, device=t.device)
    sums = torch.where(inside, values.detach().float()[:, None], 0.0).sum(dim=0)
    means = sums / inside.sum(dim=0)
    edges = [low + (high - low) * number / bins for number in range(bins + 1)]
    names = [f"{name} t {start:.2f}-{end:.2f}" for start, end in itertools.pairwise(edges)]
    return dict(zip(names, means.unbind(), strict=True))


def spread(images: Tensor) -> Tensor:
    """Standard deviation over the batch, root mean square over the rest: (batch, ...) -> a scalar."""
    return images.detach().float().var(dim=0, correction=0).mean().sqrt()


class CollapseCheck:
    """Compares the images that a one-step student makes of always the same noise with those of the batch, by `spread`.

    Only for methods that say `one_step = True`: one step of any other student is blurred, and rightly so. And only for
    those that train on images: the batch of one that trains on noise alone is noise.
    """

    def __init__(self, objective: Objective, seed: int) -> None:
        is_one_step, has_images = bool(getattr(objective, "one_step", False)), bool(objective.needs & WITH_IMAGES)
        self.enabled, self.seed = is_one_step and has_images, seed

    def figures(self, student: nn.Module, batch: Batch, done: int) -> dict[str, float]:
        """Both spreads, where they are due after `done` steps; `student` is the averaged one, a velocity network."""
        if not self.enabled or done % COLLAPSE_EVERY:
            return {}
        images = batch.images[:COLLAPSE_IMAGES]
        condition = None if batch.condition is None else batch.condition[:COLLAPSE_IMAGES]
        noise = torch.randn(images.shape, generator=generator(self.seed, COLLAPSE_STREAM)).to(images.device)
        with torch.no_grad():
            made = OneStep(student, time=NOISE_TIME)(noise, condition)
        return {OUTPUT_SD: float(spread(made)), DATA_SD: float(spread(images))}


class FaultWatch:
    """What the method, and the check for collapse, warn of, from the mean of the last lines of the log."""

    def __init__(self, objective: Objective, lines: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> None:
        """`lines` are those of the log so far; `say` gets a fault when it begins."""
        self.warnings: Callable[[Mapping[str, float]], Sequence[str]] | None = getattr(objective, "warnings", None)
        self.lines: deque[Mapping[str, float]] = deque((_numbers(line) for line in lines[-WINDOW:]), maxlen=WINDOW)
        self.say, self.last = say, set(lines[-1].get(WARNINGS, ()) if lines else ())

    def after(self, values: Mapping[str, float], others: Sequence[str] = ()) -> list[str]:
        """All faults after one more line with these losses and figures; `others` are those that someone else has seen.

        The method's begin when there are WINDOW lines.
        """
        self.lines.append(values)
        faults = [*others, *(self._judged() if len(self.lines) == WINDOW else ())]
        known = {_kind(text) for text in self.last}
        for text in faults:
            if _kind(text) not in known:
                self.say(text)
        self.last = set(faults)
        return faults

    def _judged(self) -> list[str]:
        names = dict.fromkeys(name for line in self.lines for name in line)
        means = {name: _mean([line[name] for line in self.lines if name in line]) for name in names}
        return [*_collapse(means), *(() if self.warnings is None else map(str, self.warnings(means)))]


def _collapse(means: Mapping[str, float]) -> list[str]:
    if OUTPUT_SD not in means or DATA_SD not in means or means[OUTPUT_SD] >= LEAST_SPREAD * means[DATA_SD]:
        return []
    return [
        f"the generator's outputs are collapsing: standard deviation over the batch {means[OUTPUT_SD]:.2g}, "
        f"{means[DATA_SD]:.2g} in the data"
    ]


def _kind(fault: str) -> str:
    """What tells a fault from others: what stands before its figures."""
    return fault.partition(":")[0]


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if isinstance(value, float)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
