"""The students of a search: within the teacher, each once, and near enough to each other."""

import itertools

import pytest

from edgegen.recipe import Architecture
from edgegen.search.complexity import Facts, work
from edgegen.search.space import shapes

TEACHERS = [
    Architecture(channels=(24, 64, 128), blocks=1),
    Architecture(channels=(64, 128, 128), blocks=3, attention=(2, 1), embedding=64),
    Architecture(channels=(4, 20), blocks=2, attention=(1,)),
]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_no_shape_is_larger_than_the_teacher_in_anything(teacher: Architecture) -> None:
    found = shapes(teacher)
    assert len(set(found)) == len(found)
    for shape in found:
        pairs = list(zip(shape.channels, teacher.channels, strict=False))
        assert len(shape.channels) <= len(teacher.channels)
        assert all(width == most or (width < most and width % 8 == 0) for width, most in pairs)
        assert 1 <= shape.blocks <= teacher.blocks
        assert set(shape.attention) <= set(teacher.attention)
        assert shape.embedding == teacher.embedding
        assert Architecture.model_validate(shape.model_dump()) == shape


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_teacher_itself_and_every_depth_attention_and_number_of_resolutions_are_there(
    teacher: Architecture,
) -> None:
    found = shapes(teacher)
    whole = teacher.model_copy(update={"attention": tuple(sorted(teacher.attention))})
    assert found[0] == whole
    assert {shape.blocks for shape in found} == set(range(1, teacher.blocks + 1))
    assert {len(shape.channels) for shape in found} == set(range(1, len(teacher.channels) + 1))
    with_attention = {bool(shape.attention) for shape in found}
    assert with_attention == ({True, False} if teacher.attention else {False})


def test_from_shape_to_shape_the_multiplications_grow_by_little() -> None:
    """So that a budget can be used up to a few percent, away from the smallest shapes."""
    facts = Facts(3, 32, 0)
    macs = sorted(work(shape, facts).macs for shape in shapes(TEACHERS[1]) if len(shape.channels) == 3)
    assert max(b / a for a, b in itertools.pairwise(macs) if a > macs[-1] / 20) < 1.05
