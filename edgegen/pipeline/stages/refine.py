"""The stage `refine`: for each scheme, weights that rounding changes less, and the layers that stay float."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgegen.artifacts.refine import refine as refine_generator
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.sensitivity import sensitivity_of
from edgegen.artifacts.target import Target, backends_of
from edgegen.pipeline.files import student_of
from edgegen.pipeline.graph import Context, refined_schemes, stage_seed
from edgegen.pipeline.stages.evaluate import Judge
from edgegen.program.generator import save_program
from edgegen.recipe import Recipe
from edgegen.support.progress import Progress
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import atomic_path, write_json
from edgegen.training.distributed import state

MOST_IMAGES = 256  # of the images that fd_local compares


def refine(context: Context) -> None:
    """<scheme>.pt2, the refined student, for every scheme of the recipe's files that is refined; and refine.json."""
    recipe = context.recipe
    generator = student_of(context.inputs)
    targets = [Target.parse(text) for text in recipe.export.artifacts]
    seed = stage_seed(recipe.seed, "quantize")  # the files are calibrated with the same noise
    rows = []
    for scheme in refined_schemes(recipe):
        training_folder = context.folder / f"training-{scheme}"
        training_folder.mkdir(exist_ok=True)
        with temporary_folder() as temporary:
            refined = refine_generator(
                generator,
                scheme,
                options=recipe.quantize,
                recover=recipe.recover,
                relative_latency=RelativeLatency(
                    generator,
                    folder=Path(temporary),
                    options=recipe.export,
                    children=context.children,
                    seed=seed,
                    progress=context.progress,
                ),
                backends=backends_of(scheme, targets),
                seed=seed,
                folder=training_folder,
                progress=context.progress,
            )
        if not state().is_main_process:
            continue
        with atomic_path(context.folder / f"{scheme}.pt2") as path:
            save_program(refined.program, path)
        rows.append({"scheme": scheme, **refined.to_dict()})
    if state().is_main_process:
        write_json(context.folder / "refine.json", {"schemes": rows})


def sensitivity_of_student(
    recipe: Recipe, inputs: Mapping[str, Path], scheme: str, *, progress: Progress
) -> dict[str, Any]:
    """`sensitivity_of` a recipe's student, with fd_local; `inputs` are the stages data, extractor and choose."""
    generator = student_of(inputs)
    judge = Judge(recipe, inputs)
    return sensitivity_of(
        generator,
        scheme,
        options=recipe.quantize,
        seed=stage_seed(recipe.seed, "quantize"),
        fd_local=None if judge.fault else lambda images: judge.distance(torch.from_numpy(images)),
        images=min(judge.n, MOST_IMAGES),
        progress=progress,
    )
