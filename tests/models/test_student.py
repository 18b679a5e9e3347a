"""What `keep` means: the largest student under the budget, by counting real nets."""

import pytest

from edgegen.errors import RecipeError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.student import shrink
from edgegen.recipe import Architecture


def count(model: Architecture) -> int:
    network = EdgeUNet(EdgeUNetConfig(8, 1, model.channels, model.blocks, model.attention, 10, model.embedding))
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("keep", [0.1, 0.33, 0.7])
def test_students_keep_at_most_that_share(keep: float) -> None:
    teacher = Architecture(channels=(24, 64, 128), blocks=3)
    student = shrink(teacher, keep=keep, count=count)
    assert count(student) <= keep * count(teacher)
    assert student.blocks == 2
    assert all(width % 8 == 0 for width in student.channels)
    wider = student.model_copy(update={"channels": tuple(width + 8 for width in student.channels)})
    assert count(wider) > keep * count(teacher)


def test_a_share_that_is_too_small_says_what_is_possible() -> None:
    with pytest.raises(RecipeError, match=r"slim.keep = 0.01: at most .* parameters, but the narrowest student has"):
        shrink(Architecture(channels=(16, 16), blocks=1), keep=0.01, count=count)
