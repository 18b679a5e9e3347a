"""Smaller architectures: what `keep = 0.3` means in widths, depth and parameters."""

from collections.abc import Callable

import torch

from edgegen.errors import RecipeError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.recipe import Architecture, Slim

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
    small_enough = [student for student in students if count(student) <= budget]
    if not small_enough:
        raise RecipeError(
            f"slim.keep = {keep}: at most {budget:,.0f} parameters, but the narrowest student has "
            f"{count(students[0]):,}; raise keep, or give [slim.model] with fewer resolutions"
        )
    return max(small_enough, key=count)


def to_step(width: float) -> int:
    return round(width / WIDTH_STEP) * WIDTH_STEP


def architecture(
    model: Architecture, image_shape: list[int], num_classes: int, *, second_time: bool = False
) -> EdgeUNetConfig:
    """The network's config for these images. Raises RecipeError when the resolutions do not halve evenly."""
    channels, height, width = image_shape
    halvings = len(model.channels) - 1
    for pixels in (height, width):
        if pixels % 2**halvings:
            raise RecipeError(
                f"channels {list(model.channels)} halve the image {halvings} times, but {pixels} pixels cannot be "
                "halved that often: give fewer channels, or other images"
            )
    return EdgeUNetConfig(
        sample_size=height if height == width else (height, width),
        in_channels=channels,
        channels=model.channels,
        blocks=model.blocks,
        attention=model.attention,
        num_classes=num_classes,
        embedding=model.embedding,
        second_time=second_time,
    )


def student_architecture(
    slim: Slim, teacher: Architecture | None, shape: list[int], classes: int, *, second_time: bool = False
) -> EdgeUNetConfig:
    """The student of the recipe's words; `teacher` is None where it is not an EdgeUNet. Raises RecipeError."""

    def config(model: Architecture) -> EdgeUNetConfig:
        return architecture(model, shape, classes, second_time=second_time)

    model = slim.model
    if model is None:
        if teacher is None:
            raise RecipeError("slim.keep is for teachers trained here; for a diffusers teacher give [slim.model]")
        assert slim.keep is not None
        model = shrink(teacher, keep=slim.keep, count=lambda m: count_parameters(config(m)))
    return config(model)


def architecture_of(network: torch.nn.Module) -> Architecture | None:
    """In the recipe's words; None of a network that is not ours."""
    if not isinstance(network, EdgeUNet):
        return None
    own = network.config
    return Architecture(channels=own.channels, blocks=own.blocks, attention=own.attention, embedding=own.embedding)
