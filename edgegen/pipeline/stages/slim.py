"""The stage `slim`: the smaller network, trained from fresh weights."""

from edgegen.pipeline.graph import Context
from edgegen.pipeline.training_stage import first_student, save, train


def slim(context: Context) -> None:
    """A generator folder of the smaller network, and its raw weights for the stage `distill`."""
    settings = context.recipe.slim
    fitted = train(context, settings.objective, first_student(context, context.seed), settings)
    source = next(stage for stage in ("pairs", "data", "teacher") if stage in context.inputs)
    save(context, fitted, role="slimmed", lineage={source: context.inputs[source].name})
