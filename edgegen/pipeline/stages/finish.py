"""The stage `finish`: a last training of the one-step student."""

from edgegen.pipeline import falling_recall
from edgegen.pipeline.graph import Context
from edgegen.pipeline.training_stage import train_further


def finish(context: Context) -> None:
    """A generator folder of the student, which starts from the raw weights of the stage `distill`."""
    settings = context.recipe.finish
    assert settings is not None
    train_further(context, settings, role="finished", stopping=falling_recall.stopping(context, settings))
