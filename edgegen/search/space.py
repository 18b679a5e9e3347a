"""The students that a search may choose among: nets of the teacher's form, none of them larger than it in anything."""

import itertools
from collections.abc import Iterator

from edgegen.models.student import WIDTH_STEP, to_step
from edgegen.recipe import Architecture


def shapes(largest: Architecture) -> list[Architecture]:
    """Every student within `largest`, each once, `largest` itself among them.

    Widths shrink by one factor, to multiples of 8; then those of up to two resolutions may be a step wider or narrower:
    by one factor alone the next shape can take half as long again. The depth is anything from 1, the attention that
    of `largest` or none, and the deepest resolutions may be left out.
    """
    found = {
        largest.model_copy(
            update={"channels": channels, "blocks": blocks, "attention": attention}
        ): None  # a set that keeps its order
        for levels in range(len(largest.channels), 0, -1)
        for attention in dict.fromkeys((tuple(sorted({level for level in largest.attention if level < levels})), ()))
        for blocks in range(largest.blocks, 0, -1)
        for channels in _widths(largest.channels[:levels])
    }
    return list(found)


def _widths(most: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield most
    for target in range(WIDTH_STEP, max(most) + WIDTH_STEP, WIDTH_STEP):
        base = [to_step(width * target / max(most)) for width in most]
        for first, second in itertools.combinations_with_replacement(range(len(most)), 2):
            for steps in itertools.product((-1, 0, 1), repeat=2):
                moved = list(base)
                for level, step in zip((first, second), steps, strict=True):
                    moved[level] = base[level] + WIDTH_STEP * step
                yield tuple(min(width, max(WIDTH_STEP, new)) for width, new in zip(most, moved, strict=True))
