"""The stage between the student and its compressed files: weights that bear rounding, and layers that stay float."""

import torch

from edgegen.build import quantize_options
from edgegen.capture import NOISE_TIME, OneStep
from edgegen.folding import Folds
from edgegen.models import folder as generators
from edgegen.pipeline import Context, refined_schemes, stage_seed
from edgegen.quantize.budget import Budget
from edgegen.quiet import EXPORT, quiet
from edgegen.refining import refine as refined
from edgegen.runs import GENERATOR
from edgegen.storage import atomic_path, write_json
from edgegen.training.machine import state


def refine(context: Context) -> None:
    """<scheme>.pt2 for every scheme of the recipe's files that has one: the student to be rounded; and refine.json."""
    loaded, recipe = generators.load(context.inputs["distill"] / GENERATOR), context.recipe
    module = Folds(OneStep(loaded.net, time=NOISE_TIME), loaded.signature)().module
    options, seed = quantize_options(recipe.quantize), stage_seed(recipe.seed, "quantize")  # its files' calibration
    budget = None if recipe.quantize.budget is None else Budget.parse(recipe.quantize.budget)
    rows = []
    for scheme in refined_schemes(recipe):
        place = context.folder / f"training-{scheme}"
        place.mkdir(exist_ok=True)
        made = refined(
            module,
            loaded.signature,
            scheme,
            options=options,
            methods=recipe.quantize.methods,
            recover=recipe.recover,
            budget=budget,
            seed=seed,
            folder=place,
            progress=context.progress,
        )
        if not state().is_main_process:
            continue
        with atomic_path(context.folder / f"{scheme}.pt2") as path, quiet(EXPORT):
            torch.export.save(made.program, path)
        rows.append({"scheme": scheme, **made.to_dict()})
    if state().is_main_process:
        write_json(context.folder / "refine.json", {"schemes": rows})
