"""The stage `baseline`: plain regression of the same small network on the same pairs."""

from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.methods import baseline_objective
from edgegen.pipeline.training_stage import first_student, save, train


def baseline(context: Context) -> None:
    """A generator folder of the same small network, trained for the steps of slim and distill together."""
    recipe = context.recipe
    settings = recipe.slim.model_copy(update={"steps": recipe.slim.steps + recipe.distill.steps})
    network = first_student(context, stage_seed(recipe.seed, "slim"))  # starts from the weights that slim starts from
    fitted = train(context, baseline_objective(recipe), network, settings)
    save(context, fitted, role="baseline", lineage={"pairs": context.inputs["pairs"].name})
