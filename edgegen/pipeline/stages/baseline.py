"""The stage `baseline`: plain regression of the same small network on the same pairs."""

from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.methods import baseline_objective, student_steps
from edgegen.pipeline.training_stage import first_student, save, train


def baseline(context: Context) -> None:
    """A generator folder of the same small network, trained for as many steps as the student in all its stages."""
    recipe = context.recipe
    settings = recipe.slim.model_copy(update={"steps": sum(student_steps(recipe).values())})
    network = first_student(context, stage_seed(recipe.seed, "slim"))  # starts from the weights that slim starts from
    fitted = train(context, baseline_objective(recipe), network, settings)
    save(context, fitted, role="baseline", lineage={"pairs": context.inputs["pairs"].name})
