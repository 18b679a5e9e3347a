"""The stages in order: from images to phone files and the report. The one file to read first.

    data ─ teacher ─ pairs ─ slim ─ distill ─ [finish] ─┬─ choose ─ [refine] ─ export ─ quantize ─ verify ─ profile
                       └─ baseline ─────────────────────┤                                                      │
             extractor ─────────────────────────────────┴─ evaluate                                 report ─ [bundle]

A stage is a function of its settings and of the folders of the stages it needs. Its key is the hash of those, so a
change of the recipe re-runs what depends on it and nothing else. This module imports no torch: planning is fast.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from edgegen.artifacts.target import Target, checked_targets
from edgegen.errors import UsageError, unknown_name
from edgegen.pipeline.methods import (
    baseline_objective,
    check_methods,
    data_settings,
    further_inputs,
    has_baseline,
    has_teacher,
    needs_pairs,
    ordered,
    stages_for,
    student_stage,
    student_steps,
    teacher_steps,
)
from edgegen.pipeline.run_folder import StageResult
from edgegen.quantize.schemes import GRIDS
from edgegen.recipe import GUIDANCE, Recipe
from edgegen.support.children import Children
from edgegen.support.progress import Progress

OF_CONDITIONS = ("pairs", "slim", "distill", "finish", "refine", "export", "quantize")  # what reads those of the data
STUDENT_STAGES = ("slim", "distill", "finish")  # they train one network, each from the weights of the one before
# Keys of the recipe that do not change a result; the guidance of a teacher is part of what uses it (pipeline.planning).
WITHOUT_EFFECT = {"checkpoint_every", *GUIDANCE}


@dataclass(frozen=True)
class Stage:
    """`settings` is the part of the recipe that the result depends on; `run` is imported when the stage starts.

    A stage with a method needs also the stages that give what the method trains on: see `select`.
    `everywhere` stages run in all processes of `accelerate launch`, the others in the first one.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[Recipe], Mapping[str, Any]]
    run: str
    everywhere: bool = False
    enabled: Callable[[Recipe], bool] = lambda recipe: True
    version: int = 1


@dataclass(frozen=True)
class Context:
    """What a stage gets: the folder to write to, the folders to read from, the progress to report to.

    `children` make files. `earlier` finds this stage's results of the same settings and other inputs, if not forced.
    """

    recipe: Recipe
    stage: str
    folder: Path
    inputs: Mapping[str, Path]
    base: Path
    progress: Progress
    results: Mapping[str, StageResult]
    children: Children
    earlier: Callable[[], tuple[Path, ...]] = tuple

    @property
    def seed(self) -> int:
        """The seed of this stage, derived from the recipe's."""
        return stage_seed(self.recipe.seed, self.stage)


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan with its key; `result` is None where it has to run."""

    stage: Stage
    key: str
    content: Mapping[str, Any]
    result: StageResult | None

    @property
    def state(self) -> Literal["unchanged", "to run"]:
        return "to run" if self.result is None else "unchanged"


def _part(table: BaseModel, *, only: set[str] | None = None) -> dict[str, Any]:
    return table.model_dump(mode="json", include=only, exclude=WITHOUT_EFFECT)


def _baseline(recipe: Recipe) -> dict[str, Any]:
    regression = baseline_objective(recipe)
    slim = {**_slim(recipe, "method", "objective"), "flip": regression.flip}
    settings = {"slim": slim, "distance": regression.distance, "steps": student_steps(recipe)}
    return settings | further_inputs(recipe, *STUDENT_STAGES) | _compute(recipe)


def _slim(recipe: Recipe, *left_out: str) -> dict[str, Any]:
    table = recipe.slim.model_dump(mode="json", exclude={*WITHOUT_EFFECT, *left_out})
    table["model"] = table.pop("network")  # its name in the keys of older results
    return table


def _compute(recipe: Recipe) -> dict[str, Any]:
    return {"compute": _part(recipe.compute), "seed": recipe.seed}


def _files(recipe: Recipe, *, floating: bool) -> dict[str, Any]:
    return {**_part(recipe.export), "name": recipe.name, "artifacts": recipe.export.targets(floating=floating)}


def _numbers(recipe: Recipe) -> dict[str, Any]:
    return recipe.quantize.model_dump(mode="json", exclude={"budget"})  # the budget does not change the files


def refined_schemes(recipe: Recipe) -> list[str]:
    """The schemes of the artifacts for which the weights are refined."""
    schemes = {Target.parse(text).scheme for text in recipe.export.artifacts}
    changed = recipe.recover is not None or bool(recipe.quantize.methods)
    return [scheme for scheme in GRIDS if scheme in schemes and (changed or scheme == "mixed")]


STAGES = (
    Stage("data", (), data_settings, "edgegen.pipeline.stages.data:data"),
    Stage(
        "teacher",
        ("data",),
        lambda r: {"teacher": _part(r.teacher), **_compute(r)},
        "edgegen.pipeline.stages.teacher:teacher",
        everywhere=True,
        enabled=has_teacher,
    ),
    Stage(
        "pairs",
        ("teacher",),
        lambda r: {"pairs": _part(r.pairs), "seed": r.seed},
        "edgegen.pipeline.stages.pairs:pairs",
        everywhere=True,
        enabled=needs_pairs,
    ),
    Stage(
        "slim",
        ("teacher",),
        lambda r: {"slim": _slim(r), **further_inputs(r, *STUDENT_STAGES), **_compute(r)},
        "edgegen.pipeline.stages.slim:slim",
        everywhere=True,
    ),
    Stage(
        "distill",
        ("slim",),
        lambda r: {"distill": _part(r.distill), **_compute(r)},
        "edgegen.pipeline.stages.distill:distill",
        everywhere=True,
    ),
    Stage(
        "finish",
        ("distill",),
        lambda r: {"finish": _part(r.finish) if r.finish else None, **_compute(r)},
        "edgegen.pipeline.stages.finish:finish",
        everywhere=True,
        enabled=lambda r: r.finish is not None,
    ),
    Stage(
        "baseline",
        ("teacher", "pairs"),
        _baseline,
        "edgegen.pipeline.stages.baseline:baseline",
        everywhere=True,
        enabled=has_baseline,
    ),
    Stage(
        "extractor",
        ("data",),
        lambda r: {"steps": r.evaluate.extractor_steps, **_compute(r)},
        "edgegen.pipeline.stages.extractor:extractor",
        everywhere=True,
        version=2,
    ),
    Stage(
        "evaluate",
        ("data", "extractor", "teacher", "slim", "distill", "finish", "baseline"),
        lambda r: {
            "evaluate": r.evaluate.model_dump(mode="json", exclude={"ship"}),
            "teacher_steps": teacher_steps(r),
            "seed": r.seed,
        },
        "edgegen.pipeline.stages.evaluate:evaluate",
        everywhere=True,
        version=5,
    ),
    Stage(
        "choose",
        ("data", "extractor", "slim", "distill", "finish", "baseline"),
        lambda r: {"ship": r.evaluate.ship, "samples": r.evaluate.samples, "seeds": r.evaluate.seeds, "seed": r.seed},
        "edgegen.pipeline.stages.choose:choose",
        version=2,
    ),
    Stage(
        "refine",
        ("choose",),
        lambda r: {
            "schemes": refined_schemes(r),
            "recover": _part(r.recover) if r.recover else None,
            "quantize": _numbers(r),
            "budget": r.quantize.budget if "mixed" in refined_schemes(r) else None,
            "seed": r.seed,
        },
        "edgegen.pipeline.stages.refine:refine",
        everywhere=True,
        enabled=lambda r: bool(refined_schemes(r)),
    ),
    Stage(
        "export", ("choose",), lambda r: _files(r, floating=True), "edgegen.pipeline.stages.export:export", version=2
    ),
    Stage(
        "quantize",
        ("choose", "refine"),
        lambda r: {**_files(r, floating=False), "quantize": _numbers(r), "seed": r.seed},
        "edgegen.pipeline.stages.quantize:quantize",
        version=2,
    ),
    Stage(
        "verify",
        ("data", "extractor", "choose", "refine", "export", "quantize"),
        lambda r: {
            "verify": _part(r.verify),
            "samples": r.evaluate.samples,
            "budget": r.quantize.budget,
            "seed": r.seed,
        },
        "edgegen.pipeline.stages.verify:verify",
        version=2,
    ),
    Stage(
        "profile",
        ("teacher", "choose", "export", "quantize", "verify"),
        lambda r: {"profile": _part(r.profile), "steps": teacher_steps(r)},
        "edgegen.pipeline.stages.profile:profile",
        version=3,
    ),
    Stage(
        "report",
        (
            *("data", "teacher", "slim", "distill", "finish", "baseline", "extractor"),
            *("evaluate", "choose", "refine", "export", "quantize", "verify", "profile"),
        ),
        lambda r: {"name": r.name, "recipe": r.sha256()},
        "edgegen.pipeline.stages.report:report",
        version=4,
    ),
    Stage(
        "bundle",
        ("verify", "profile"),
        lambda r: {"bundle": _part(r.bundle) if r.bundle else None, "name": r.name},
        "edgegen.pipeline.stages.bundle:bundle",
        enabled=lambda r: r.bundle is not None,
    ),
)
NAMES = tuple(stage.name for stage in STAGES)


def stage_seed(seed: int, stage: str) -> int:
    """63 bits from the recipe's seed and a name: stages do not share their random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:8], "big") >> 1


def select(recipe: Recipe, *, to: str | None = None, only: str | None = None) -> list[Stage]:
    """All stages, those up to `to`, or `only` with what it needs; in order. Raises UsageError on an unknown name."""
    for name in (to, only):
        if name is not None and name not in NAMES:
            raise UsageError(unknown_name("stage", name, NAMES))
    needs = {stage.name: stages_for(stage.name, _needs(stage, recipe), recipe) for stage in STAGES}
    by_name = {stage.name: replace(stage, needs=needs[stage.name]) for stage in STAGES}
    all_stages = [by_name[name] for name in ordered(needs)]
    if to is not None:
        last = next(index for index, stage in enumerate(all_stages) if stage.name == to)
        all_stages = all_stages[: last + 1]
    stages = [stage for stage in all_stages if stage.enabled(recipe)]
    if only is not None and only not in [stage.name for stage in stages]:
        raise UsageError(f"{recipe.name}: its plan has no stage {only}, because nothing in the recipe needs it")
    if only is not None:
        required = {only}
        for stage in reversed(all_stages):
            if stage.name in required:
                required.update(stage.needs)
        stages = [stage for stage in stages if stage.name in required]
    return stages


def _needs(stage: Stage, recipe: Recipe) -> tuple[str, ...]:
    """What it needs with any method."""
    if stage.name == "choose" and recipe.evaluate.ship == "student":
        return (*(["data"] if recipe.data.autoencoder else []), student_stage(recipe))  # nothing is compared
    if stage.name == "slim" and not has_teacher(recipe):
        return ("data",)  # where the student's images and classes are then known from
    is_watched = stage.name == "finish" and recipe.finish is not None and recipe.finish.largest_recall_drop > 0
    if is_watched or (recipe.data.upscale and stage.name in OF_CONDITIONS):
        return ("data", *stage.needs)
    return stage.needs


def check(recipe: Recipe, stages: list[Stage]) -> None:
    """Raises UsageError and RecipeError, before any work, for what must fail, such as an unknown artifact."""
    check_methods(recipe, {stage.name for stage in stages})
    checked_targets(recipe.export.artifacts, recipe)
