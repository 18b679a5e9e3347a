"""The plan of a run: each stage with its key, and its result where it is there already."""

from collections.abc import Collection
from pathlib import Path

from edgegen.data import check_archive, local_path
from edgegen.errors import DataError
from edgegen.pipeline.graph import PlannedStage, Stage
from edgegen.pipeline.run_folder import RunFolder, fingerprint, key_of
from edgegen.recipe import INITS, Recipe
from edgegen.support.bounded_files import user_path


def plan(
    recipe: Recipe, stages: list[Stage], *, base: Path, folder: RunFolder, force: Collection[str] = ()
) -> list[PlannedStage]:
    """Each stage with its key, and its result if it exists and is not in `force`; `base` is the recipe's folder."""
    keys: dict[str, str] = {}
    digests: dict[str, str | None] = {}
    planned: list[PlannedStage] = []
    for stage in stages:
        settings = dict(stage.settings(recipe))
        content = {"stage": stage.name, "version": stage.version, "settings": settings, **_sources(stage, recipe, base)}
        inputs = {need: keys[need] for need in stage.needs if need in keys}
        content["inputs"] = inputs
        keys[stage.name] = key_of(content)
        input_digests = {need: digest for need in inputs if (digest := digests[need]) is not None}
        reusable = len(input_digests) == len(inputs) and stage.name not in force
        result = folder.finished(stage.name, keys[stage.name], input_digests) if reusable else None
        digests[stage.name] = result.digest if result else None
        planned.append(PlannedStage(stage, keys[stage.name], content, result))
    return planned


def _sources(stage: Stage, recipe: Recipe, base: Path) -> dict[str, str]:
    """The fingerprint of the user's files or folder that a stage reads."""
    if stage.name == "data":
        source = local_path(recipe.data.source, base=base)
        if source is None or not source.exists():
            return {}
        check_archive(source)
        return {"source": fingerprint(source)}
    if stage.name == "teacher" and recipe.teacher.folder is not None:
        folder = user_path(recipe.teacher.folder, base=base)
        if not folder.is_dir():
            raise DataError(f"teacher.folder: no folder {folder}")
        return {"source": fingerprint(folder)}
    if stage.name in ("slim", "baseline") and recipe.slim.init not in INITS:
        folder = user_path(recipe.slim.init, base=base)
        if not folder.is_dir():
            raise DataError(f"slim.init: no folder {folder}; other words are: {', '.join(INITS)}")
        return {"init": fingerprint(folder)}
    if stage.name == "evaluate":
        return _weights(recipe, base)
    if stage.name == "report":
        files = measurement_files(recipe, base)
        return {"measurements": key_of({"files": [fingerprint(path) for path in files]})} if files else {}
    return {}


def _weights(recipe: Recipe, base: Path) -> dict[str, str]:
    """The fingerprints of the weights of `evaluate`, after a check: training takes hours, and this a second."""
    named = {"inception": recipe.evaluate.inception, "dinov2": recipe.evaluate.dinov2}
    paths = {key: user_path(text, base=base) for key, text in named.items() if text is not None}
    if paths:
        from edgegen.pipeline.feature_spaces import check_weights  # imported here: it needs torch

        check_weights(recipe.evaluate, base=base)
    return {key: fingerprint(path) for key, path in paths.items()}


def measurement_files(recipe: Recipe, base: Path) -> list[Path]:
    """The files of `report.measurements`. Raises DataError for one that is missing."""
    files = [user_path(name, base=base) for name in recipe.report.measurements]
    for path in files:
        if not path.is_file():
            raise DataError(f"report.measurements: no file {path}")
    return files
