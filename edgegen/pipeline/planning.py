"""The plan of a run: each stage with its key, and its result where it is there already."""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edgegen.data import check_archive, local_path
from edgegen.errors import DataError
from edgegen.pipeline.graph import PlannedStage, Stage
from edgegen.pipeline.methods import uses_velocity_of_teacher
from edgegen.pipeline.run_folder import RunFolder, fingerprint, key_of
from edgegen.recipe import DIFFUSERS, GUIDANCE, INITS, Recipe
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
        settings |= _guidance(stage, recipe, base)
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
        source, autoencoder = local_path(recipe.data.source, base=base), _autoencoder(recipe, base)
        if source is None or not source.exists():
            return autoencoder
        check_archive(source)
        return {"source": fingerprint(source), **autoencoder}
    if stage.name == "teacher" and recipe.teacher.folder is not None:
        folder = user_path(recipe.teacher.folder, base=base)
        if not folder.is_dir():
            raise DataError(f"teacher.folder: no folder {folder}")
        return {"source": fingerprint(folder)}
    if stage.name in ("slim", "baseline"):
        return _student_sources(recipe, base)
    if stage.name == "evaluate":
        return _weights(recipe, base)
    if stage.name == "report":
        files = measurement_files(recipe, base)
        return {"measurements": key_of({"files": [fingerprint(path) for path in files]})} if files else {}
    return {}


def _autoencoder(recipe: Recipe, base: Path) -> dict[str, str]:
    """The fingerprint of the folder of `data.autoencoder`, after a check."""
    if recipe.data.autoencoder is None:
        return {}
    from edgegen.models.diffusers.autoencoder import check_autoencoder  # imported here: it needs torch

    folder = user_path(recipe.data.autoencoder, base=base)
    check_autoencoder(folder)
    return {"autoencoder": fingerprint(folder)}


def _guidance(stage: Stage, recipe: Recipe, base: Path) -> dict[str, Any]:
    """How the teacher's velocity is guided, where it is and the stage uses it; the teacher itself does not change."""
    if recipe.teacher.guidance == 1.0 or not uses_velocity_of_teacher(recipe, stage.name):
        return {}
    settings: dict[str, Any] = recipe.teacher.model_dump(mode="json", include=set(GUIDANCE))
    if recipe.teacher.guidance_network is not None:
        folder = user_path(recipe.teacher.guidance_network, base=base)
        if not folder.is_dir():
            raise DataError(f"teacher.guidance_network: no folder {folder}")
        settings["guidance_network"] = fingerprint(folder)
    return {"guidance": settings}


def _weights(recipe: Recipe, base: Path) -> dict[str, str]:
    """The fingerprints of the weights of `evaluate`, after a check: training takes hours, and this a second."""
    named = {"inception": recipe.evaluate.inception, "dinov2": recipe.evaluate.dinov2}
    paths = {key: user_path(text, base=base) for key, text in named.items() if text is not None}
    if paths:
        from edgegen.pipeline.feature_spaces import check_weights  # imported here: it needs torch

        check_weights(recipe.evaluate, base=base)
    return {key: fingerprint(path) for key, path in paths.items()}


def _student_sources(recipe: Recipe, base: Path) -> dict[str, str]:
    """The fingerprints of the folder that the student's weights start from, and of the file that its network is in."""
    sources = {}
    if recipe.slim.init not in INITS:
        folder = user_path(recipe.slim.init, base=base)
        if not folder.is_dir():
            raise DataError(f"slim.init: no folder {folder}; other words are: {', '.join(INITS)}")
        sources["init"] = fingerprint(folder)
    if isinstance(recipe.slim.network, str):
        place, _, name = recipe.slim.network.rpartition(":")
        if place == DIFFUSERS or place.endswith(".py"):
            path = user_path(name if place == DIFFUSERS else place, base=base)
            if not path.exists():
                raise DataError(f"slim.network = '{recipe.slim.network}': no file {path}")
            sources["network"] = fingerprint(path)
        else:
            sources["network"] = _fingerprint_of_module(place)
    return sources


def _fingerprint_of_module(name: str) -> str:
    """Of a module's own file, which is not imported. Raises DataError where there is no such module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError) as e:
        raise DataError(f"slim.network: no module {name}: {e}") from e
    if spec is None:
        raise DataError(f"slim.network: no module {name}; a file is written as {name}.py:factory")
    return fingerprint(Path(spec.origin)) if spec.origin is not None and Path(spec.origin).is_file() else ""


def measurement_files(recipe: Recipe, base: Path) -> list[Path]:
    """The files of `report.measurements`. Raises DataError for one that is missing."""
    files = [user_path(name, base=base) for name in recipe.report.measurements]
    for path in files:
        if not path.is_file():
            raise DataError(f"report.measurements: no file {path}")
    return files
