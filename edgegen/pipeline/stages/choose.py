"""The stage `choose`: which of the run's one-step generators is shipped.

They are compared on the held-out images and on noise of this stage's own; the figures of the report compare with the
training images. So the choice does not flatter the figure that the report shows of it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgegen.formats.stage_folder import CHOICE, GENERATOR
from edgegen.metrics.distances import frechet
from edgegen.models.generator import ABOUT
from edgegen.models.load import load as load_generator
from edgegen.noise import normal
from edgegen.pipeline.graph import Context
from edgegen.pipeline.methods import student_stage
from edgegen.pipeline.stages.evaluate import Judge, sample
from edgegen.support.pixels import scaled
from edgegen.support.storage import read_json, write_json
from edgegen.training.distributed import state

CANDIDATES = {"finished": "finish", "student": "distill", "baseline": "baseline", "reflowed": "slim"}  # role: stage


@dataclass(frozen=True)
class Candidate:
    """A one-step generator of the run, and the distance of its images to the held-out ones by noise seed."""

    role: str
    distances: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.distances))


def choose(context: Context) -> None:
    """A copy of the generator folder that is shipped, and choice.json with the reason."""
    candidates, unjudged = _judged(context)
    last = student_stage(context.recipe)
    student = next(role for role, stage in CANDIDATES.items() if stage == last)
    role, reason = best(candidates) if candidates else (student, unjudged)
    context.progress.message(f"choose: {role}: {reason}")
    source = context.inputs[CANDIDATES[role]]
    if (target := context.folder / GENERATOR).exists():
        shutil.rmtree(target)
    shutil.copytree(source / GENERATOR, target)
    # A folder of this role makes its image in one step wherever it is opened.
    write_json(target / ABOUT, {**read_json(target / ABOUT), "role": "student", "trained_as": role})
    rows = [{"role": row.role, "mean": row.mean, "distances": list(row.distances)} for row in candidates]
    choice = {"role": role, "from": source.name, "student": context.inputs[last].name, "reason": reason}
    write_json(context.folder / CHOICE, {**choice, "candidates": rows})


def best(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """The role of the nearest candidate, and why; the first one, where no other is nearer by more than chance.

    On the same noises the differences are compared, not the distances: less of the noise is left in them.
    """
    first, *others = candidates
    nearest = min(others, key=lambda other: other.mean, default=first)
    differences = np.subtract(first.distances, nearest.distances)
    figures = ", ".join(f"{row.role} {row.mean:.3g}" for row in candidates)
    compared = f"one-step fd_local to the held-out images: {figures}"
    if nearest is not first and differences.mean() > differences.std(ddof=1):
        return nearest.role, f"{compared}; the {first.role} is further from them than the {nearest.role}"
    return first.role, compared


def _judged(context: Context) -> tuple[list[Candidate], str]:
    """The candidates with their distances; none, and why, where nothing is to be compared or can be."""
    if context.recipe.evaluate.ship == "student":
        return [], "evaluate.ship = 'student'"
    judge = Judge(context.recipe, context.inputs)
    if judge.fault:
        return [], f"nothing was compared: {judge.fault}"
    heldout = scaled(judge.images["heldout_images"].permute(0, 3, 1, 2))
    real, labels, device = judge.features(heldout), judge.labels(), state().device
    stages = {role: stage for role, stage in CANDIDATES.items() if stage in context.inputs}
    rows: list[Candidate] = []
    with context.progress.task("choose", len(stages)) as task:
        for role, stage in stages.items():
            network = load_generator(context.inputs[stage] / GENERATOR).net.to(device)
            noises = [_noise(context, judge, index) for index in range(context.recipe.evaluate.seeds)]
            images = [sample(network, noise, labels, 1, device) for noise in noises]
            rows.append(Candidate(role, tuple(frechet(real, judge.features(part)) for part in images)))
            task.update(len(rows), f"{role} {rows[-1].mean:.3g}")
    return rows, ""


def _noise(context: Context, judge: Judge, index: int) -> Tensor:
    return torch.from_numpy(normal(context.seed + index, 0, judge.n, judge.about["image_shape"]))
