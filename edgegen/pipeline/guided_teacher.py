"""The teacher's velocity as pairs, methods and figures have it: guided where the recipe says so."""

from pathlib import Path

from edgegen.flow.guidance import Guidance
from edgegen.formats.stage_folder import GENERATOR
from edgegen.models.generator import Loaded
from edgegen.models.guided import guided
from edgegen.models.load import load as load_generator
from edgegen.pipeline.graph import Context
from edgegen.recipe import Recipe
from edgegen.support.bounded_files import user_path


def guidance_of(recipe: Recipe, *, base: Path) -> Guidance:
    """How the recipe guides the teacher's velocity; `base` is the recipe's folder."""
    settings = recipe.teacher
    network = "" if settings.guidance_network is None else str(user_path(settings.guidance_network, base=base))
    return Guidance(settings.guidance, settings.guidance_interval, network)


def with_guidance(teacher: Loaded, recipe: Recipe, *, base: Path) -> Loaded:
    """The teacher with its velocity guided as the recipe says. Raises DataError where it cannot be."""
    return guided(teacher, guidance_of(recipe, base=base))


def network_of(context: Context, stage: str) -> Loaded:
    """The network that a stage has made; that of the stage `teacher` is guided. Raises DataError."""
    loaded = load_generator(context.inputs[stage] / GENERATOR)
    return with_guidance(loaded, context.recipe, base=context.base) if stage == "teacher" else loaded
