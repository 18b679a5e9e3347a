"""The stage `finish`: a last training of the one-step student."""

from edgegen.pipeline.graph import Context
from edgegen.pipeline.training_stage import train_further


def finish(context: Context) -> None:
    """A generator folder of the student, which starts from the raw weights of the stage `distill`."""
    assert context.recipe.finish is not None
    train_further(context, context.recipe.finish, role="finished")
