"""Smaller architectures: what `keep = 0.3` means in widths, depth and parameters."""

from collections.abc import Callable

from edgegen.errors import RecipeError
from edgegen.recipe import Architecture

WIDTH_STEP = 8  # widths stay multiples of 8: SIMD lanes of phones, and the groups of GroupNorm


def shrink(teacher: Architecture, *, keep: float, count: Callable[[Architecture], int]) -> Architecture:
    """The largest student with at most `keep` of the teacher's parameters, as counted by `count`.

    The depth is halved (rounded up); all widths shrink by one factor, to multiples of 8. Raises RecipeError when even
    the narrowest is too large.
    """
    budget = keep * count(teacher)
    blocks = -(-teacher.blocks // 2)
    widest = max(teacher.channels)
    students = [
        teacher.model_copy(
            update={
                "channels": tuple(max(WIDTH_STEP, to_step(width * target / widest)) for width in teacher.channels),
                "blocks": blocks,
            }
        )
        for target in range(WIDTH_STEP, widest + WIDTH_STEP, WIDTH_STEP)
    ]
    fitting = [student for student in students if count(student) <= budget]
    if not fitting:
        raise RecipeError(
            f"slim.keep = {keep}: at most {budget:,.0f} parameters, but the narrowest student has "
            f"{count(students[0]):,}; raise keep, or give [slim.model] with fewer resolutions"
        )
    return max(fitting, key=count)


def to_step(width: float) -> int:
    return round(width / WIDTH_STEP) * WIDTH_STEP
