"""The search space: students of the teacher's architecture that exceed it neither in width nor in depth."""

import itertools
from collections.abc import Iterator

from edgegen.models.student import WIDTH_STEP, to_step
from edgegen.recipe import Architecture


def shapes(largest: Architecture, *, sliced: bool = False) -> list[Architecture]:
    """Every student within `largest`, each once, `largest` itself included.

    Widths are scaled by one factor, to multiples of 8; then those of up to two resolutions may be a step wider or
    narrower, because with one factor alone the next shape can take half as long again. Depths start at 1, attention is
    that of `largest` or none, and the deepest resolutions may be left out; not with `sliced`, where the weights shall
    start as slices of `largest` (`slim.init = "teacher"`).
    """
    students = {
        largest.model_copy(
            update={"channels": channels, "blocks": blocks, "attention": attention}
        ): None  # keys: a set that keeps its order
        for levels in range(len(largest.channels), len(largest.channels) - 1 if sliced else 0, -1)
        for attention in dict.fromkeys((tuple(sorted({level for level in largest.attention if level < levels})), ()))
        for blocks in range(largest.blocks, 0, -1)
        for channels in _widths(largest.channels[:levels])
    }
    return list(students)


def _widths(largest: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield largest
    for target in range(WIDTH_STEP, max(largest) + WIDTH_STEP, WIDTH_STEP):
        base = [to_step(width * target / max(largest)) for width in largest]
        for first, second in itertools.combinations_with_replacement(range(len(largest)), 2):
            for steps in itertools.product((-1, 0, 1), repeat=2):
                moved = list(base)
                for level, step in zip((first, second), steps, strict=True):
                    moved[level] = base[level] + WIDTH_STEP * step
                yield tuple(min(width, max(WIDTH_STEP, new)) for width, new in zip(largest, moved, strict=True))
