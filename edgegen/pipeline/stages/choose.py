"""The stage `choose`: which of the run's one-step generators is shipped.

They are compared on the held-out images and on noise of this stage's own; the figures of the report compare with the
training images. So the choice does not flatter the figure that the report shows of it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from edgegen.formats.stage_folder import AUTOENCODER, AVERAGE, CHOICE, GENERATOR, VERIFIER
from edgegen.metrics.distances import frechet
from edgegen.models.generator import ABOUT, WEIGHTS
from edgegen.models.load import load as load_generator
from edgegen.pipeline.graph import Context
from edgegen.pipeline.methods import student_stage
from edgegen.pipeline.samplers import sample
from edgegen.pipeline.stages.evaluate import Judge
from edgegen.support.storage import load_tensors, read_json, write_json
from edgegen.training.distributed import state

CANDIDATES = {"finished": "finish", "student": "distill", "baseline": "baseline", "slimmed": "slim"}  # role: stage


@dataclass(frozen=True)
class Candidate:
    """A one-step generator of the run, and the distance of its images to the held-out ones by noise seed."""

    role: str
    distances: tuple[float, ...]
    width: str = ""  # of the average of its weights, where it is not the first of `ema_widths`

    @property
    def name(self) -> str:
        return f"{self.role} of width {self.width}" if self.width else self.role

    @property
    def mean(self) -> float:
        return float(np.mean(self.distances))


def choose(context: Context) -> None:
    """A copy of the generator folder that is shipped, and choice.json with the reason."""
    candidates, unjudged = _judged(context)
    last = student_stage(context.recipe)
    student = next(role for role, stage in CANDIDATES.items() if stage == last)
    name, reason = best(candidates) if candidates else (student, unjudged)
    context.progress.message(f"choose: {name}: {reason}")
    role, width = next(((row.role, row.width) for row in candidates if row.name == name), (student, ""))
    source = context.inputs[CANDIDATES[role]]
    for part in (GENERATOR, VERIFIER):
        if (context.folder / part).exists():
            shutil.rmtree(context.folder / part)
        if (source / part).exists():
            shutil.copytree(source / part, context.folder / part)
    target = context.folder / GENERATOR
    if context.recipe.data.autoencoder is not None:
        shutil.copytree(context.inputs["data"] / AUTOENCODER, target / AUTOENCODER)
    if width:
        shutil.copyfile(source / AVERAGE.format(width), target / WEIGHTS)
    # A folder of this role makes its image in one step wherever it is opened.
    write_json(target / ABOUT, {**read_json(target / ABOUT), "role": "student", "trained_as": role})
    rows = [{"role": row.name, "mean": row.mean, "distances": list(row.distances)} for row in candidates]
    choice = {"role": role, "from": source.name, "student": context.inputs[last].name, "reason": reason}
    write_json(context.folder / CHOICE, {**choice, "candidates": rows})


def best(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """The name of the nearest candidate, and why; the first one, where no other is nearer by more than chance.

    On the same noises the differences are compared, not the distances: less of the noise is left in them.
    """
    first, *others = candidates
    nearest = min(others, key=lambda other: other.mean, default=first)
    differences = np.subtract(first.distances, nearest.distances)
    figures = ", ".join(f"{row.name} {row.mean:.3g}" for row in candidates)
    compared = f"one-step fd_local to the held-out part: {figures}"
    if nearest is not first and differences.mean() > differences.std(ddof=1):
        return nearest.name, f"{compared}; the {first.name} is further from them than the {nearest.name}"
    return first.name, compared


def _judged(context: Context) -> tuple[list[Candidate], str]:
    """The candidates with their distances; none, and why, where nothing is to be compared or can be."""
    if context.recipe.evaluate.ship == "student":
        return [], "evaluate.ship = 'student'"
    judge = Judge(context.recipe, context.inputs)
    if judge.fault:
        return [], f"nothing was compared: {judge.fault}"
    heldout = judge.part("heldout", slice(None))
    real, condition, device = judge.features(heldout), judge.condition(), state().device
    stages = {role: stage for role, stage in CANDIDATES.items() if stage in context.inputs}
    averages = [(role, stage, width) for role, stage in stages.items() for width in _widths(context.inputs[stage])]
    noises = [_noise(context, judge, index) for index in range(context.recipe.evaluate.seeds)]
    rows: list[Candidate] = []
    with context.progress.task("choose", len(averages)) as task:
        for role, stage, width in averages:
            network = load_generator(context.inputs[stage] / GENERATOR).net
            if width:
                network.load_state_dict(load_tensors(context.inputs[stage] / AVERAGE.format(width)))
            network.to(device)
            images = [judge.space.images(sample(network, noise, condition, 1, device)) for noise in noises]
            rows.append(Candidate(role, tuple(frechet(real, judge.features(part)) for part in images), width))
            task.update(len(rows), f"{rows[-1].name} {rows[-1].mean:.3g}")
    return rows, ""


def _widths(folder: Path) -> list[str]:
    """Of the averages that a stage has kept: "" is its generator."""
    before, after = AVERAGE.split("{}")
    return ["", *sorted(path.name[len(before) : -len(after)] for path in folder.glob(AVERAGE.format("*")))]


def _noise(context: Context, judge: Judge, index: int) -> Tensor:
    return judge.space.noise(context.seed + index, 0, judge.n)
