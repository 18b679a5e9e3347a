"""`[teacher] size`: every name gives a network of the images' size that a student can be cut from."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from edgegen.errors import RecipeError
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.student import architecture, student_architecture
from edgegen.models.teacher_size import teacher_architecture
from edgegen.pipeline.graph import select
from edgegen.pipeline.stages.data import signature_of_data
from edgegen.recipe import Slim, Teacher, parse
from edgegen.types import Signature

SIZES = ("auto", "small", "medium", "large")


def data(height: int, width: int, train: int = 50_000, channels: int = 3) -> dict[str, Any]:
    return {"image_shape": [channels, height, width], "train": train, "num_classes": 10}


@pytest.mark.parametrize(
    ("height", "width", "levels"),
    [(4, 4, 3), (8, 8, 3), (28, 28, 3), (32, 32, 3), (64, 64, 4), (50, 50, 2), (48, 96, 4), (512, 512, 6)],
)
def test_images_are_halved_down_to_a_small_side_as_far_as_they_can_be(height: int, width: int, levels: int) -> None:
    for size in SIZES:
        model = teacher_architecture(Teacher(size=size), data(height, width))
        assert len(model.channels) == levels
        architecture(model, Signature.of(channels=3, size=(height, width), num_classes=10))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep", [0.1, 0.33, 0.9])
def test_a_student_is_cut_from_each(size: Any, keep: float) -> None:
    about = data(8, 8)
    teacher = teacher_architecture(Teacher(size=size), about)
    config = student_architecture(
        Slim(keep=keep),
        teacher,
        signature_of_data(about),
    )
    image = EdgeUNet(config)(torch.zeros(1, 3, 8, 8), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    assert image.shape == (1, 3, 8, 8)


def test_auto_goes_by_the_number_of_images() -> None:
    few, many = data(28, 28, train=9_999), data(28, 28, train=10_000)
    assert teacher_architecture(Teacher(), few) == teacher_architecture(Teacher(size="small"), few)
    assert teacher_architecture(Teacher(), many) == teacher_architecture(Teacher(size="medium"), many)
    widths = [teacher_architecture(Teacher(size=size), many).channels for size in SIZES[1:]]
    assert widths == sorted(set(widths))


def test_the_manual_s_table_of_sizes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "run.md").read_text(encoding="utf-8")
    for size in SIZES[1:]:
        _, _, blocks, *columns, _ = re.search(rf"^\| `{size}`.*$", text, re.M)[0].split("|")  # type: ignore[index]
        for sides, channels in zip(((8, 28, 32), (64,), (128,), (256, 512)), columns, strict=True):
            for side in sides:
                model = teacher_architecture(Teacher(size=size), data(side, side))
                assert [model.blocks, *model.channels] == [int(blocks), *map(int, channels.split(","))]


def test_images_that_cannot_be_halved_are_refused_with_what_to_do() -> None:
    model = teacher_architecture(Teacher(), data(45, 45))
    with pytest.raises(RecipeError, match="45 pixels cannot be halved that often: give fewer channels, or other"):
        architecture(model, Signature.of(channels=3, size=45, num_classes=10))


def test_the_key_of_a_teacher_with_its_own_model_knows_no_size() -> None:
    """Results of recipes that name a model are found again; those of two sizes are two results."""

    def settings(teacher: dict[str, Any]) -> Any:
        recipe = parse({"name": "any", "slim": {"keep": 0.5}, "teacher": teacher}, where="here")
        stage = next(stage for stage in select(recipe) if stage.name == "teacher")
        return stage.settings(recipe)["teacher"]

    assert "size" not in settings({"model": {"channels": [8]}})
    assert settings({"model": {"channels": [8]}})["model"]["channels"] == [8]
    assert settings({}) == settings({"size": "auto"})
    assert settings({"size": "small"})["size"] == "small"
