"""Carries out a plan: stages in order, in one process or in all those of `accelerate launch`."""

import contextlib
import importlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from edgegen.formats.recipe_file import find
from edgegen.pipeline.graph import Context, PlannedStage, Stage, check, plan, select
from edgegen.pipeline.run_folder import RunFolder, StageResult
from edgegen.recipe import Recipe, read
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
) -> list[StageResult]:
    """Runs what is to run, in order; a result that is there is used as it is. Errors leave finished stages as they are.

    What an interrupted run left of a stage is taken up, unless the stage is in `force`.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    progress = progress if first else Silent()
    results: dict[str, StageResult] = {}
    for item in planned:
        name = item.stage.name
        needed = {need: results[need] for need in item.stage.needs if need in results}
        meet(several)  # nobody changes the folder while another process looks
        # Looked up now and not in the plan: an input that was made again may have come out the same.
        digests = {need: result.digest for need, result in needed.items()}
        kept = None if name in force else folder.finished(name, item.key, digests)
        if kept is not None:
            results[name] = kept
            progress.message(f"{name}: unchanged ({kept.folder})")
        else:
            progress.message(f"{name} ...")
            place = folder.path / name / f"{item.key}.partial"
            if first:
                place = folder.partial(name, item.key, fresh=name in force)
            inputs = {need: result.folder for need, result in needed.items()}
            for result in needed.values() if first else ():
                folder.check_content(result)
            context = Context(recipe, name, place, inputs, base, progress, results)
            results[name] = _run_one(context, item, folder, first=first, several=several)
            progress.message(f"{name}: done in {results[name].seconds:.1f} s ({results[name].folder})")
        if first:
            folder.point(results[name])
            folder.record(recipe.name, recipe.model_dump(mode="json"), results)
    return list(results.values())


def _run_one(context: Context, item: PlannedStage, folder: RunFolder, *, first: bool, several: bool) -> StageResult:
    stage, began = item.stage, time.monotonic()
    meet(several)
    if first or stage.everywhere:
        from edgegen.training.distributed import use_threads  # imports torch, which a plan does without

        module, _, function = stage.run.partition(":")
        use_threads(context.recipe.compute.threads)
        getattr(importlib.import_module(module), function)(context)
    meet(several)
    digests = {need: context.results[need].digest for need in context.inputs}
    result = folder.finish(stage.name, item.key, item.content, time.monotonic() - began, digests) if first else None
    meet(several)
    if result is None:  # the first process has just written and hashed it
        result = folder.finished(stage.name, item.key, digests)
        assert result is not None, f"{stage.name} is not there after it ran"
    return replace(result, reused=False)


def run_recipe(
    name: str | Path,
    *,
    runs: Path = Path("runs"),
    to: str | None = None,
    only: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[StageResult]:
    """What `edgegen run` does: reads a recipe and runs the stages whose results are not there yet.

    Args:
        name: a recipe file, or the name of a shipped one.
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
    ready = _PreparedRun.of(name, runs, to=to, only=only, force=force)
    # The first of several processes holds the folder for all of them.
    first = int(os.environ.get("RANK", "0")) == 0
    with ready.folder.open(ready.recipe.name) if first else contextlib.nullcontext():
        return run(
            ready.recipe,
            ready.plan(),
            base=ready.base,
            folder=ready.folder,
            progress=progress or Silent(),
            force=ready.force,
        )


def dry_run(
    name: str | Path, *, runs: Path = Path("runs"), to: str | None = None, only: str | None = None, force: bool = False
) -> tuple[Recipe, list[PlannedStage]]:
    """The resolved recipe, and the stages that `run_recipe` would run; writes nothing."""
    ready = _PreparedRun.of(name, runs, to=to, only=only, force=force)
    ready.folder.check(ready.recipe.name)
    return ready.recipe, ready.plan()


@dataclass(frozen=True)
class _PreparedRun:
    """A recipe that was read and checked, and its place."""

    recipe: Recipe
    base: Path
    stages: list[Stage]
    folder: RunFolder
    force: Collection[str]

    @staticmethod
    def of(name: str | Path, runs: Path, *, to: str | None, only: str | None, force: bool) -> "_PreparedRun":
        path = find(str(name))
        recipe = read(path)
        stages = select(recipe, to=to, only=only)
        check(recipe, stages)
        forced = {only} if only else {stage.name for stage in stages}
        return _PreparedRun(recipe, path.parent, stages, RunFolder(runs / recipe.name), forced if force else ())

    def plan(self) -> list[PlannedStage]:
        return plan(self.recipe, self.stages, base=self.base, folder=self.folder, force=self.force)


def failed_parity(results: Collection[StageResult]) -> list[str]:
    """The artifacts of this run that do not compute what PyTorch computes, each with its reason."""
    for result in results:
        if result.stage == "verify":
            rows = read_json(result.folder / "parity.json")["artifacts"]
            return [f"{row['file']}: {row['parity']['reason']}" for row in rows if row["parity"]["status"] == "failed"]
    return []


def broken_budget(results: Collection[StageResult]) -> list[str]:
    """The artifacts of this run that do not keep the recipe's budget: what each misses, and the layers to blame."""
    for result in results:
        if result.stage == "verify":
            rows = read_json(result.folder / "parity.json")["artifacts"]
            return [f"{row['file']}: {'; '.join(row['budget'])}" for row in rows if row["budget"]]
    return []


def meet(several: bool) -> None:
    """All processes of `accelerate launch` wait here for each other."""
    if several:
        from edgegen.training.distributed import state

        state().wait_for_everyone()
