"""Which optional dependencies the stages of a recipe need: determined before any work."""

from pathlib import Path

from edgegen.artifacts.target import Target
from edgegen.errors import MissingExtraError
from edgegen.pipeline.graph import Stage
from edgegen.recipe import Recipe
from edgegen.support.extras import lacking


def missing_extras(recipe: Recipe, stages: list[Stage], *, base: Path) -> list[MissingExtraError]:
    """An error for every optional dependency that these stages need and that is not installed."""
    names = {stage.name for stage in stages}
    purposes: dict[str, str] = {}
    if "data" in names and recipe.data.source.startswith("hf:"):
        purposes["datasets"] = f"the source {recipe.data.source}"
    if "data" in names and recipe.data.autoencoder is not None:
        purposes["diffusers"] = f"the autoencoder {recipe.data.autoencoder}"
    if "teacher" in names and recipe.teacher.folder is not None:
        folder = base / Path(recipe.teacher.folder).expanduser()
        if (folder / "model_index.json").exists() or (folder / "scheduler_config.json").exists():
            purposes["diffusers"] = f"the teacher {recipe.teacher.folder}"
    if "evaluate" in names and recipe.evaluate.inception is not None:
        purposes["fid"] = "evaluate.inception"
    if "evaluate" in names and recipe.evaluate.dinov2 is not None:
        purposes["dinov2"] = "evaluate.dinov2"
    for target in map(Target.parse, recipe.export.artifacts):
        for extra in target.extras() if names & {"export", "quantize"} else ():
            purposes.setdefault(extra, f"the artifact {target}")
    if "report" in names:
        purposes["report"] = "the report"
    return [error for extra, purpose in purposes.items() for error in lacking(extra, purpose=purpose)[:1]]


def require_extras(recipe: Recipe, stages: list[Stage], *, base: Path) -> None:
    """Raises the first of `missing_extras`."""
    for error in missing_extras(recipe, stages, base=base):
        raise error
