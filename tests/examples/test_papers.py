"""The recipes of papers' settings: they are read and planned, and their networks have the sizes that they say."""

import re
from pathlib import Path

import pytest

from edgegen.models.edge_unet import count_parameters
from edgegen.models.student import architecture
from edgegen.pipeline.run import dry_run
from edgegen.recipe import Architecture
from edgegen.types import Signature

FOLDER = Path(__file__).parents[2] / "examples" / "papers"
RECIPES = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_papers_recipe_is_planned_and_has_the_sizes_that_it_says(path: Path, tmp_path: Path) -> None:
    recipe, planned = dry_run(path, runs=tmp_path)
    assert [item.stage.name for item in planned][:5] == ["data", "teacher", "pairs", "slim", "distill"]
    assert (recipe.slim.batch, recipe.slim.objective.anneal_steps, recipe.distill.steps) == (128, 300_000, 400_000)
    size = 32 if path.stem.startswith("cifar10") else 64
    classes = 1000 if path.stem.startswith("imagenet") else 0
    text = path.read_text()
    assert recipe.slim.network is not None
    for table, model in (("teacher", recipe.teacher.model), ("slim", recipe.slim.network)):
        said = re.search(rf"^\[{table}\] +# ([\d.]+) M parameters", text, re.MULTILINE)
        assert said is not None
        assert millions(model, size, classes) == pytest.approx(float(said[1]), abs=0.05)
    asked = float(re.search(r"([\d.]+)M$", path.stem)[1])  # type: ignore[index]
    assert millions(recipe.slim.network, size, classes) == pytest.approx(asked, rel=0.05)


def millions(model: Architecture, size: int, classes: int) -> float:
    return count_parameters(architecture(model, Signature.of(channels=3, size=size, num_classes=classes))) / 1e6
