"""The search space: within the teacher, each student once, and in steps that are small enough."""

import itertools

import pytest

from edgegen.recipe import Architecture, slices_fault
from edgegen.search.complexity import DataSpec, complexity_of
from edgegen.search.space import shapes

TEACHERS = [
    Architecture(channels=(24, 64, 128), blocks=1),
    Architecture(channels=(64, 128, 128), blocks=3, attention=(2, 1), embedding=64),
    Architecture(channels=(4, 20), blocks=2, attention=(1,)),
]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_no_shape_exceeds_the_teacher(teacher: Architecture) -> None:
    students = shapes(teacher)
    assert len(set(students)) == len(students)
    for shape in students:
        pairs = list(zip(shape.channels, teacher.channels, strict=False))
        assert len(shape.channels) <= len(teacher.channels)
        assert all(width == most or (width < most and width % 8 == 0) for width, most in pairs)
        assert 1 <= shape.blocks <= teacher.blocks
        assert set(shape.attention) <= set(teacher.attention)
        assert shape.embedding == teacher.embedding
        assert Architecture.model_validate(shape.model_dump()) == shape


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_teacher_and_every_depth_attention_and_number_of_resolutions_are_included(
    teacher: Architecture,
) -> None:
    students = shapes(teacher)
    whole = teacher.model_copy(update={"attention": tuple(sorted(teacher.attention))})
    assert students[0] == whole
    assert {shape.blocks for shape in students} == set(range(1, teacher.blocks + 1))
    assert {len(shape.channels) for shape in students} == set(range(1, len(teacher.channels) + 1))
    with_attention = {bool(shape.attention) for shape in students}
    assert with_attention == ({True, False} if teacher.attention else {False})


def test_macs_grow_in_small_steps_from_shape_to_shape() -> None:
    """So that a budget can be used up to a few percent, away from the smallest shapes."""
    data = DataSpec(3, 32, 0)
    macs = sorted(complexity_of(shape, data).macs for shape in shapes(TEACHERS[1]) if len(shape.channels) == 3)
    assert max(b / a for a, b in itertools.pairwise(macs) if a > macs[-1] / 20) < 1.05


def test_students_that_start_as_slices_have_all_resolutions() -> None:
    teacher = Architecture(channels=(16, 24, 32), blocks=2, attention=(2,), embedding=64)
    sliced = shapes(teacher, sliced=True)
    assert sliced == [student for student in shapes(teacher) if not slices_fault(student, teacher)]
    assert 0 < len(sliced) < len(shapes(teacher))
