"""The stage `bundle`: the run's files as one folder for an app, with golden images and latencies."""

from edgegen.artifacts.bundle import write_bundle
from edgegen.formats.stage_folder import ARTIFACTS, BUNDLE
from edgegen.pipeline.graph import Context


def bundle(context: Context) -> None:
    """The bundle of the files that agree with PyTorch, or of those that the recipe names."""
    recipe = context.recipe
    write_bundle(
        context.inputs["verify"] / ARTIFACTS,
        context.folder / BUNDLE,
        artifacts=recipe.bundle.artifacts if recipe.bundle else (),
        name=recipe.name,
        measurements=[context.inputs["profile"] / "profile.json"],
        progress=context.progress,
    )
