"""The stage `distill`: the student, trained for one step."""

from edgegen.pipeline.graph import Context
from edgegen.pipeline.training_stage import train_further


def distill(context: Context) -> None:
    """A generator folder of the student, which starts from the raw weights of the stage `slim`."""
    train_further(context, context.recipe.distill, role="student")
