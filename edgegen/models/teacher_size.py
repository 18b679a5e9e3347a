"""`[teacher] size`: an architecture by name, that fits the images.

The widths of `small` and `medium` are those that the recipe `digits` and the manual's table of settings were tried
with, made regular; `large` is for a GPU.
"""

from collections.abc import Mapping
from typing import Any

from edgegen.formats.stage_folder import sample_shape
from edgegen.recipe import Architecture, Teacher

WIDTHS_BLOCKS = {"small": (24, 1), "medium": (32, 1), "large": (64, 2)}  # width at full resolution, blocks
FEW_IMAGES = 10_000  # for which auto is small: what has more weights than that can use learns them by heart
WIDEST = 8  # times the width at full resolution
SMALLEST_SIDE = 8  # pixels or values, below which an image or a signal is not halved again
LEAST_LEVELS, USUAL_LEVELS, MOST_LEVELS = 2, 3, 6


def teacher_architecture(settings: Teacher, data: Mapping[str, Any]) -> Architecture:
    """The teacher's `model`, or that of its `size` for the images of `data` (data.json)."""
    if settings.model is not None:
        return settings.model
    size = settings.size
    if size == "auto":
        size = "small" if data["train"] < FEW_IMAGES else "medium"
    width, blocks = WIDTHS_BLOCKS[size]
    channels = tuple(width * min(2**level, WIDEST) for level in range(_levels(*sample_shape(data)[1:])))
    return Architecture(channels=channels, blocks=blocks)


def words(model: Architecture) -> str:
    """As a recipe writes it, for a message."""
    return f"channels = {list(model.channels)}, blocks = {model.blocks}"


def _levels(*sides: int) -> int:
    """Resolutions: down to a small image, or a short signal, as far as the sides can be halved.

    No fewer than two: sides that cannot be halved at all are refused with the network, which says what to do.
    """
    levels = LEAST_LEVELS
    while levels < MOST_LEVELS and not any(side % 2**levels for side in sides):
        if levels >= USUAL_LEVELS and min(sides) / 2 ** (levels - 1) <= SMALLEST_SIDE:
            break
        levels += 1
    return levels
