"""Runs a plan: the stages in order, in one process or in all processes of `accelerate launch`."""

import contextlib
import functools
import importlib
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgegen.formats.recipe_file import find
from edgegen.formats.stage_folder import STATUS
from edgegen.pipeline.forecast import Forecast, StageTime
from edgegen.pipeline.graph import Context, PlannedStage, Stage, check, select
from edgegen.pipeline.needed_extras import require_extras
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run_folder import RunFolder, StageResult
from edgegen.pipeline.status import StatusFile
from edgegen.recipe import Recipe, read
from edgegen.support.children import Children
from edgegen.support.progress import Progress, Silent
from edgegen.support.storage import read_json


def run(
    recipe: Recipe,
    planned: list[PlannedStage],
    *,
    base: Path,
    folder: RunFolder,
    progress: Progress,
    force: Collection[str] = (),
    expect: bool = False,
) -> list[StageResult]:
    """Runs the stages without a result, in order, and reuses other results. Errors leave finished stages as they are.

    A stage that was interrupted continues from its checkpoint, unless it is in `force`. With `expect`, some seconds
    after the stage `data` tell how long the others will take.
    """
    is_main = _is_main_process()
    names = [item.stage.name for item in planned]
    bar = progress if is_main else Silent()
    with StatusFile(bar, folder.path / STATUS, names, enabled=is_main) as status, Children() as children:
        return _run_stages(
            recipe,
            planned,
            base=base,
            folder=folder,
            status=status,
            children=children,
            force=force,
            expect=expect,
            is_main=is_main,
        )


def _run_stages(
    recipe: Recipe,
    planned: list[PlannedStage],
    *,
    base: Path,
    folder: RunFolder,
    status: StatusFile,
    children: Children,
    force: Collection[str],
    expect: bool,
    is_main: bool,
) -> list[StageResult]:
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    results: dict[str, StageResult] = {}
    forecast: Forecast | None = None
    for number, planned_stage in enumerate(planned):
        name, key = planned_stage.stage.name, planned_stage.key
        needed = {need: results[need] for need in planned_stage.stage.needs if need in results}
        wait_for_all(several)  # no process changes the folder while another one reads it
        # Looked up again, because an input that was made again can have the same digest as before.
        digests = {need: result.digest for need, result in needed.items()}
        existing = None if name in force else folder.finished(name, key, digests)
        if existing is not None:
            results[name] = existing
            status.message(f"{name}: unchanged ({existing.folder})")
        else:
            left = [item.stage.name for item in planned[number:] if item.result is None or item.stage.name in force]
            if expect and not several and forecast is None and name != "data":
                forecast = Forecast(expected_times(recipe, left, base=base, finished=_folders(results)))
            left_text = None if forecast is None else forecast.left(left)
            status.message(f"{name} ..." if left_text is None else f"{name} ...  ({left_text} left)")
            partial = folder.path / name / f"{key}.partial"
            if is_main:
                partial = folder.partial(name, key, fresh=name in force)
            status.begin(name, partial, left_text)
            inputs = {need: result.folder for need, result in needed.items()}
            for result in needed.values() if is_main else ():
                folder.check_content(result)
            earlier = tuple if name in force else functools.partial(folder.earlier, name, key, planned_stage.content)
            context = Context(recipe, name, partial, inputs, base, status, results, children, earlier)
            results[name] = _run_stage(context, planned_stage, folder, is_main=is_main, several=several)
            status.message(f"{name}: done in {results[name].seconds:.1f} s ({results[name].folder})")
            if forecast is not None:
                forecast.took(name, results[name].seconds)
        if is_main:
            status.done(name)
            folder.link_latest(results[name])
            folder.record(recipe.name, recipe.model_dump(mode="json"), results)
    return list(results.values())


def expected_times(
    recipe: Recipe, stages: Collection[str], *, base: Path, finished: Mapping[str, Path]
) -> dict[str, StageTime]:
    """By stage, how long it will take here; `finished` are the folders of the results that are there.

    It times some training steps, for seconds. Raises DataError and RecipeError for images, a teacher or a student that
    do not fit each other.
    """
    if not stages:
        return {}
    from edgegen.pipeline.estimate import estimate  # imported here: it needs torch

    return estimate(recipe, stages, base=base, finished=finished)


def _folders(results: Mapping[str, StageResult]) -> dict[str, Path]:
    return {name: result.folder for name, result in results.items()}


def _is_main_process() -> bool:
    """Whether this is the first process of `accelerate launch`, or the only one; asked before torch is imported."""
    return int(os.environ.get("RANK", "0")) == 0


def _run_stage(
    context: Context, planned_stage: PlannedStage, folder: RunFolder, *, is_main: bool, several: bool
) -> StageResult:
    stage, began = planned_stage.stage, time.monotonic()
    wait_for_all(several)
    if is_main or stage.everywhere:
        from edgegen.training.distributed import use_threads  # imported here: planning needs no torch

        module, _, function = stage.run.partition(":")
        use_threads(context.recipe.compute.threads)
        getattr(importlib.import_module(module), function)(context)
    wait_for_all(several)
    digests = {need: context.results[need].digest for need in context.inputs}
    result = None
    if is_main:
        seconds = time.monotonic() - began
        folder.check_there()
        result = folder.finish(stage.name, planned_stage.key, planned_stage.content, seconds, digests)
    wait_for_all(several)
    if result is None:  # the first process has just written and hashed it
        result = folder.finished(stage.name, planned_stage.key, digests)
        assert result is not None, f"{stage.name} has no result after it ran"
    return replace(result, reused=False)


def run_recipe(
    recipe: str | Path | Recipe,
    *,
    runs: Path = Path("runs"),
    to: str | None = None,
    only: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[StageResult]:
    """What `edgegen run` does: reads a recipe and runs the stages that have no result yet.

    Args:
        recipe: a recipe file, the name of a shipped one, or a recipe, whose paths are relative to the working folder.
        runs: where run folders are; this one is runs/NAME, with the recipe's name.
        to: the last stage to run; default: all.
        only: a single stage, with the stages that it needs where they are missing.
        force: whether to run all stages again, or `only` that stage.
        progress: receives messages and progress; default: nobody.

    Returns:
        One result for each stage, in order; `folder` holds the files of the stage.

    Raises:
        RecipeError: the recipe is wrong.
        UsageError: an unknown stage or artifact.
        DataError: images or a teacher that are missing or do not fit.
        MissingExtraError: an optional dependency is not installed.
        TrainingError: a loss is not finite.
        ExportError: a vendor's tool failed.
        StorageError: the disk is full, or the run folder is in use.
    """
    prepared = _PreparedRun.of(recipe, runs, to=to, only=only, force=force)
    require_extras(prepared.recipe, prepared.stages, base=prepared.base)
    # The main process locks the folder for all of them.
    with prepared.folder.open(prepared.recipe.name) if _is_main_process() else contextlib.nullcontext():
        return run(
            prepared.recipe,
            prepared.plan(),
            base=prepared.base,
            folder=prepared.folder,
            progress=progress or Silent(),
            force=prepared.force,
            expect=progress is not None,
        )


def dry_run(
    recipe: str | Path | Recipe,
    *,
    runs: Path = Path("runs"),
    to: str | None = None,
    only: str | None = None,
    force: bool = False,
) -> tuple[Recipe, list[PlannedStage]]:
    """The resolved recipe, and the stages that `run_recipe` would run; writes nothing, and needs no extra."""
    prepared = _PreparedRun.of(recipe, runs, to=to, only=only, force=force)
    prepared.folder.check(prepared.recipe.name)
    return prepared.recipe, prepared.plan()


@dataclass(frozen=True)
class _PreparedRun:
    """A recipe that was read and checked, with its folders and stages."""

    recipe: Recipe
    base: Path
    stages: list[Stage]
    folder: RunFolder
    force: Collection[str]

    @staticmethod
    def of(source: str | Path | Recipe, runs: Path, *, to: str | None, only: str | None, force: bool) -> "_PreparedRun":
        recipe, base = (source, Path()) if isinstance(source, Recipe) else _read(find(str(source)))
        stages = select(recipe, to=to, only=only)
        check(recipe, stages)
        forced = {only} if only else {stage.name for stage in stages}
        return _PreparedRun(recipe, base, stages, RunFolder(runs / recipe.name), forced if force else ())

    def plan(self) -> list[PlannedStage]:
        return plan(self.recipe, self.stages, base=self.base, folder=self.folder, force=self.force)


def _read(path: Path) -> tuple[Recipe, Path]:
    """The recipe, and the folder that its paths are relative to."""
    return read(path), path.parent


def failed_parity(results: Collection[StageResult]) -> list[str]:
    """The artifacts of this run that failed parity, each with the reason."""
    for result in results:
        if result.stage == "verify":
            rows = read_json(result.folder / "parity.json")["artifacts"]
            return [f"{row['file']}: {row['parity']['reason']}" for row in rows if row["parity"]["status"] == "failed"]
    return []


def broken_budget(results: Collection[StageResult]) -> list[str]:
    """The artifacts of this run that break the recipe's budget, each with the limits and the layers that cost most."""
    for result in results:
        if result.stage == "verify":
            rows = read_json(result.folder / "parity.json")["artifacts"]
            return [f"{row['file']}: {'; '.join(row['budget'])}" for row in rows if row["budget"]]
    return []


def wait_for_all(several: bool) -> None:
    """Where there are several processes of `accelerate launch`, waits until all of them are here."""
    if several:
        from edgegen.training.distributed import wait_for_all as wait

        wait()
