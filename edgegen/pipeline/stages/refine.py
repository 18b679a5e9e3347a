"""The stage between the student and its compressed files: weights that bear rounding, and layers that stay float."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgegen.artifacts.refine import refine as refined
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.sensitivity import sensitivity_of
from edgegen.artifacts.target import Target, backends_of
from edgegen.pipeline.files import student_of
from edgegen.pipeline.graph import Context, refined_schemes, stage_seed
from edgegen.pipeline.stages.evaluate import Judge
from edgegen.program.generator import save_program
from edgegen.quantize.budget import Budget
from edgegen.recipe import Recipe
from edgegen.support.progress import Progress
from edgegen.support.storage import atomic_path, write_json
from edgegen.training.distributed import state

NOISES = 256  # most of those whose pictures fd_local compares


def refine(context: Context) -> None:
    """<scheme>.pt2 for every scheme of the recipe's files that has one: the student to be rounded; and refine.json."""
    recipe = context.recipe
    generator = student_of(context.inputs)
    targets = [Target.parse(text) for text in recipe.export.artifacts]
    options, seed = recipe.quantize, stage_seed(recipe.seed, "quantize")  # its files' calibration
    budget = None if recipe.quantize.budget is None else Budget.parse(recipe.quantize.budget)
    rows = []
    for scheme in refined_schemes(recipe):
        place = context.folder / f"training-{scheme}"
        place.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
            lowering = recipe.export
            made = refined(
                generator.folded().module,
                generator.signature,
                scheme,
                options=options,
                methods=recipe.quantize.methods,
                recover=recipe.recover,
                budget=budget,
                race=RelativeLatency(
                    generator, folder=Path(temporary), options=lowering, seed=seed, progress=context.progress
                ),
                backends=backends_of(scheme, targets),
                seed=seed,
                folder=place,
                progress=context.progress,
            )
        if not state().is_main_process:
            continue
        with atomic_path(context.folder / f"{scheme}.pt2") as path:
            save_program(made.program, path)
        rows.append({"scheme": scheme, **made.to_dict()})
    if state().is_main_process:
        write_json(context.folder / "refine.json", {"schemes": rows})


def sensitivity_of_student(
    recipe: Recipe, inputs: Mapping[str, Path], scheme: str, *, progress: Progress
) -> dict[str, Any]:
    """`sensitivity_of` a recipe's student, with fd_local; `inputs` are the stages data, extractor and distill."""
    generator = student_of(inputs)
    judge = Judge(recipe, inputs)
    return sensitivity_of(
        generator.folded().module,
        generator.signature,
        scheme,
        options=recipe.quantize,
        seed=stage_seed(recipe.seed, "quantize"),
        fd_local=lambda pictures: judge.fd_local(torch.from_numpy(pictures)),
        noises=min(judge.n, NOISES),
        progress=progress,
    )
