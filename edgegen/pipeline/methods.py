"""Which stages give what the training methods of a recipe need: determined before any work, without torch."""

from collections.abc import Collection, Mapping
from typing import Any

from edgegen import registry
from edgegen.errors import RecipeError
from edgegen.recipe import Recipe
from edgegen.support.tables import MethodTable
from edgegen.training.objective import WITHOUT_FEATURES, Need

STAGES: Mapping[Need, str] = {
    "real_images": "data",
    "pairs": "pairs",
    "trajectories": "pairs",
    "teacher": "teacher",
    "teacher_features": "teacher",
    "slimmed_network": "slim",
    "feature_network": "extractor",
}
BEFORE: Mapping[str, str] = {"distill": "slim", "finish": "distill"}  # whose network a stage trains on
ON_THE_WAY: frozenset[Need] = frozenset(
    {
        "real_images",
        "pairs",
        "trajectories",
        "teacher",
        "teacher_features",
        "second_time",
        "unconditional_class",
        "feature_network",
    }
)
OF_STAGE_BEFORE: frozenset[Need] = frozenset({"slimmed_network", "earlier_network", "trained_student"})
AVAILABLE: Mapping[str, frozenset[Need]] = {  # what a method can have in a stage
    "teacher": frozenset({"real_images", "second_time", "unconditional_class"}),
    "slim": ON_THE_WAY,
    "distill": ON_THE_WAY | OF_STAGE_BEFORE,
    "finish": ON_THE_WAY | OF_STAGE_BEFORE,
    "refine": frozenset({"float_network"}),
}
OF_ONE_NETWORK = frozenset({"refine", "export", "quantize", "verify", "profile", "report"})
OF_IMAGES: frozenset[Need] = frozenset({"feature_network"})  # what sees images only, and no latents
SWITCHES: Mapping[Need, str] = {"second_time": "second_time", "unconditional_class": "unconditional"}
OF_PAIRS: frozenset[Need] = frozenset({"pairs", "trajectories"})


def stages_for(stage: str, always: tuple[str, ...], recipe: Recipe) -> tuple[str, ...]:
    """The stages that `stage` needs: those that it needs with any method, and those that give what its method needs.

    What the stage cannot have is left out here, and an error in `check_methods`.
    """
    objective = _objectives(recipe).get(stage)
    needs = frozenset() if objective is None else objective.needs & AVAILABLE.get(stage, ON_THE_WAY)
    return tuple(dict.fromkeys((*always, *(giver for need, giver in STAGES.items() if need in needs))))


def ordered(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Stages in their order, but each after those that it needs: `extractor` before a training with its features."""
    names: dict[str, None] = {}

    def place(name: str) -> None:
        if name not in names:
            for need in needs[name]:
                place(need)
            names[name] = None

    for name in needs:
        place(name)
    return list(names)


def needs_pairs(recipe: Recipe) -> bool:
    """Whether any stage trains on pairs."""
    return bool(recipe.baseline.enabled) or _method_needs_pairs(recipe)


def has_baseline(recipe: Recipe) -> bool:
    """Whether there is a plain regression to compare with; by default it must not be the only reason for pairs."""
    return _method_needs_pairs(recipe) if recipe.baseline.enabled is None else recipe.baseline.enabled


def has_teacher(recipe: Recipe) -> bool:
    """Whether there is a teacher: where the recipe has its table, or where something cannot do without it."""
    by_method = any("teacher" in table.objective.needs for table in _tables(recipe).values())
    for_student = recipe.slim.keep is not None or recipe.slim.init == "teacher"
    return "teacher" in recipe.model_fields_set or by_method or for_student or needs_pairs(recipe)


def student_stage(recipe: Recipe) -> str:
    """The last stage that trains the student."""
    return "distill" if recipe.finish is None else "finish"


def data_settings(recipe: Recipe) -> dict[str, Any]:
    """What the stage data depends on: latents for a teacher that is brought along are scaled as it was trained."""
    scaled = {"latents": "by the autoencoder's config"} if keeps_scale(recipe) else {}
    return {"data": recipe.data.model_dump(mode="json"), "seed": recipe.seed, **scaled}


def keeps_scale(recipe: Recipe) -> bool:
    """Whether latents stay as the config of their autoencoder scales them."""
    return recipe.data.autoencoder is not None and recipe.teacher.folder is not None


def _method_needs_pairs(recipe: Recipe) -> bool:
    return any(OF_PAIRS & table.objective.needs for table in _tables(recipe).values())


def further_inputs(recipe: Recipe, *stages: str) -> dict[str, bool]:
    """What the network that these stages train takes, because the method of one of them needs it.

    Switches of an EdgeUNet: "second_time", and "unconditional", a label that stands for no class.
    """
    tables = _tables(recipe)
    needs = frozenset[Need]().union(*(tables[stage].objective.needs for stage in stages if stage in tables))
    return {switch: True for need, switch in SWITCHES.items() if need in needs}


def uses_velocity_of_teacher(recipe: Recipe, stage: str) -> bool:
    """Whether a stage's result depends on how the teacher's velocity is guided."""
    if stage in ("pairs", "evaluate", "profile"):
        return has_teacher(recipe)
    tables = _tables(recipe)
    return stage in tables and "teacher" in tables[stage].objective.needs


def check_methods(recipe: Recipe, stages: Collection[str]) -> None:
    """Raises RecipeError for a method of one of `stages` that needs what the stage does not have."""
    if recipe.slim.students > 1 and (files := sorted(OF_ONE_NETWORK & set(stages))):
        raise RecipeError(
            f"slim.students = {recipe.slim.students}: the stage {files[0]} makes the files of one network; end the run "
            "with --to choose, then: edgegen export RUN/choose/latest/generator -o FOLDER"
        )
    for stage, table in _tables(recipe).items():
        key = f"{'recover' if stage == 'refine' else stage}.method = '{table.method}'"
        if stage not in stages:
            continue
        missing = sorted(table.objective.needs - AVAILABLE[stage])
        if missing:
            # Built-in methods only: one of a third party that cannot be imported must not spoil this message.
            names = [name for name in registry.BUILT_IN["objective"] if _needs(name) <= AVAILABLE[stage]]
            raise RecipeError(
                f"{key} needs {', '.join(missing)}, which the stage {stage} does not have; methods for it are: "
                f"{', '.join(sorted(names))}"
            )
        instead = getattr(table.objective, "within_condition", "")
        if recipe.data.upscale and instead:
            raise RecipeError(
                f"{key} compares or exchanges samples of one condition, and with data.upscale each has an image of its "
                f"own: give {instead}"
            )
        if recipe.data.autoencoder is not None and table.objective.needs & OF_IMAGES:
            raise RecipeError(
                f"{key} compares images by layers of a classifier, and this run trains on latents (data.autoencoder), "
                "which would have to be decoded in every step: take a distance of values, such as 'pseudo_huber'"
            )
        if "unconditional_class" in table.objective.needs and not recipe.data.conditional:
            raise RecipeError(
                f"{key} trains without a class as well (label_dropout), and data.conditional is false; remove "
                "label_dropout"
            )
        if "trajectories" in table.objective.needs and recipe.pairs.knots == 1:
            raise RecipeError(f"{key} needs states between noise and image: give pairs.knots, such as knots = 4")


def check_teacher(recipe: Recipe, teacher: object) -> None:
    """Raises RecipeError for a method that needs the layers of a teacher that does not show them."""
    for stage, table in _tables(recipe).items():
        if "teacher_features" in table.objective.needs and not hasattr(teacher, "encode"):
            raise RecipeError(
                f"{stage}.method = '{table.method}' needs features of the teacher, which are known of an EdgeUNet, and "
                f"teacher.folder holds a {type(teacher).__name__}: {WITHOUT_FEATURES}"
            )


def check_students(recipe: Recipe, num_classes: int) -> None:
    """Raises RecipeError where there are fewer classes than students to divide them among, or a label for none."""
    students = recipe.slim.students
    if students > 1 and "unconditional" in further_inputs(recipe, "slim", "distill", "finish"):
        raise RecipeError(
            f"slim.students = {students}: a method of the recipe trains without a class as well (label_dropout), which "
            "no student would serve; give students = 1, or another method"
        )
    if students > max(1, num_classes):
        kind = f"{num_classes} classes" if num_classes else "no classes (they are unconditional)"
        raise RecipeError(
            f"slim.students = {students}: each serves a part of the classes, and these images have {kind}; give "
            f"students = 1{f', or at most {num_classes}' if num_classes > 1 else ''}"
        )


def baseline_objective(recipe: Recipe) -> Any:
    """Plain regression with distill's distance and slim's flip, as far as their methods have them."""
    shared = {"distance": recipe.distill.objective, "flip": recipe.slim.objective}
    values = {key: getattr(method, key) for key, method in shared.items() if hasattr(method, key)}
    return registry.load("objective", "pair_regression")(**values)


def flipping(recipe: Recipe) -> list[str]:
    """The stages whose method mirrors what it trains on."""
    return [stage for stage, table in _tables(recipe).items() if getattr(table.objective, "flip", False)]


def student_steps(recipe: Recipe) -> dict[str, int]:
    """By stage, the steps that the student is trained for; plain regression gets as many, to be a fair comparison."""
    steps = {"slim": recipe.slim.steps, "distill": recipe.distill.steps}
    return steps if recipe.finish is None else {**steps, "finish": recipe.finish.steps}


def teacher_steps(recipe: Recipe) -> int:
    """The teacher's full number of steps, which everything is compared with: no fewer than the pairs were made in."""
    made_in = recipe.pairs.steps if needs_pairs(recipe) and recipe.pairs.solver != "rk45" else 1
    return max(made_in, *recipe.evaluate.steps)


def evaluated_steps(recipe: Recipe, stage: str) -> list[int]:
    """The numbers of steps in which `evaluate` samples the network of a stage.

    What is trained for one step alone is sampled in no others, the teacher also in its full number.
    """
    if stage == "teacher":
        return sorted({*recipe.evaluate.steps, teacher_steps(recipe)})
    if getattr(_objectives(recipe)[stage], "noise_alone", False):
        return [1]
    return sorted({*recipe.evaluate.steps, 1})


def _tables(recipe: Recipe) -> dict[str, MethodTable]:
    """By stage, the recipe's tables whose method is used."""
    tables: dict[str, MethodTable] = {"slim": recipe.slim, "distill": recipe.distill}
    if recipe.teacher.folder is None:
        tables["teacher"] = recipe.teacher
    if recipe.finish is not None:
        tables["finish"] = recipe.finish
    if recipe.recover is not None:
        tables["refine"] = recipe.recover
    return tables


def _objectives(recipe: Recipe) -> dict[str, Any]:
    """By stage, the methods that are used, with that of the stage `baseline`."""
    objectives = {stage: table.objective for stage, table in _tables(recipe).items()}
    return objectives | ({"baseline": baseline_objective(recipe)} if has_baseline(recipe) else {})


def _needs(method: str) -> frozenset[Need]:
    needs: frozenset[Need] = registry.load("objective", method)().needs  # of its defaults
    return needs
