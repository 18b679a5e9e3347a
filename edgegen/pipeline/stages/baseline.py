"""The stage `baseline`: plain regression of the same small network on the same pairs."""

from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.training import _save, _student, _train, read_pairs
from edgegen.training.objectives.pair_regression import PairRegression


def baseline(context: Context) -> None:
    """The same small net by plain regression on the same pairs, for the steps of slim and distill together."""
    recipe = context.recipe
    settings = recipe.slim.model_copy(update={"steps": recipe.slim.steps + recipe.distill.steps})
    net = _student(context, stage_seed(recipe.seed, "slim"))  # starts from the weights that slim starts from
    objective = PairRegression(recipe.distill.distance, recipe.slim.flip)
    fitted = _train(context, objective, read_pairs(context.inputs["pairs"]), net, settings)
    _save(context, fitted, role="baseline", lineage={"pairs": context.inputs["pairs"].name})
