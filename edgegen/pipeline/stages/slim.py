"""The stage `slim`: annealing reflow of the pairs into the smaller network."""

from edgegen.pipeline.graph import Context
from edgegen.pipeline.training import _save, _student, _train, read_pairs
from edgegen.training.objectives.annealing_reflow import AnnealingReflow

PAPER_ANNEAL = (
    300_000 / 800_000
)  # share of SlimFlow's annealing reflow in which fresh noise fades out (METHODS 1.2, 1.5)


def slim(context: Context) -> None:
    """Annealing reflow of the pairs into the smaller net: the reflowed generator, and its raw weights for distill."""
    settings = context.recipe.slim
    anneal = PAPER_ANNEAL if settings.anneal_steps is None else settings.anneal_steps / settings.steps
    net = _student(context, context.seed)
    objective = AnnealingReflow(anneal, settings.flip)
    fitted = _train(context, objective, read_pairs(context.inputs["pairs"]), net, settings)
    _save(context, fitted, role="reflowed", lineage={"pairs": context.inputs["pairs"].name})
