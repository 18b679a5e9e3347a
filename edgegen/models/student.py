"""Smaller architectures: what `keep = 0.3` means in widths, depth and parameters."""

from collections.abc import Callable
from typing import Any

import torch

from edgegen.errors import RecipeError
from edgegen.flow.condition import upscale_of
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.program.parameters import parameter_count
from edgegen.recipe import Architecture, Slim
from edgegen.types import Signature

MOST_GROUPS = 8  # of a GroupNorm
WIDTH_STEP = 8  # widths stay multiples of 8: SIMD lanes of phones, and the groups of GroupNorm


def shrink(
    teacher: Architecture, *, keep: float, count: Callable[[Architecture], int], parameters: int | None = None
) -> Architecture:
    """The largest student with at most `keep` of the teacher's `parameters`; None takes those that `count` counts.

    The depth is halved (rounded up); all widths shrink by one factor, to multiples of 8. Raises RecipeError when even
    the narrowest is too large.
    """
    budget = keep * (parameters or count(teacher))
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
            f"{count(students[0]):,}; raise keep, or give [slim.network] with fewer resolutions"
        )
    return max(small_enough, key=count)


def to_step(width: float) -> int:
    return round(width / WIDTH_STEP) * WIDTH_STEP


def architecture(
    model: Architecture, signature: Signature, *, second_time: bool = False, unconditional: bool = False
) -> EdgeUNetConfig:
    """The network's config for samples of this signature.

    Raises RecipeError when the resolutions do not halve evenly, and for a label of no class where there are no classes.
    """
    if unconditional and not signature.num_classes:
        raise RecipeError("label_dropout: the data have no classes of which the network could not be told")
    channels, *sides = signature.sample_shape
    halvings, is_signal = len(model.channels) - 1, len(sides) == 1
    kind, unit = ("signal", "values") if is_signal else ("image", "pixels")
    for size in sides:
        if over := size % 2**halvings:
            fitting = [str(side) for side in (size - over, size - over + 2**halvings) if side]
            raise RecipeError(
                f"channels {list(model.channels)} halve the {kind} {halvings} times, but {size} {unit} cannot be "
                f"halved that often: give fewer channels, or other {kind}s, of {' or '.join(fitting)} {unit}"
            )
    return EdgeUNetConfig(
        sample_size=sides[0] if len(set(sides)) == 1 else (sides[0], sides[1]),
        in_channels=channels,
        channels=model.channels,
        blocks=model.blocks,
        attention=model.attention,
        num_classes=signature.num_classes,
        embedding=model.embedding,
        # A group of one channel would take away what time and class add to it.
        groups=max(1, min(MOST_GROUPS, min(model.channels) // 2)),
        second_time=second_time,
        unconditional=unconditional,
        upscale=upscale_of(signature),
        signal=is_signal,
    )


def student_architecture(
    slim: Slim,
    teacher: Architecture | None,
    signature: Signature,
    *,
    parameters: int | None = None,
    **switches: bool,
) -> EdgeUNetConfig:
    """The student of the recipe's words. Raises RecipeError.

    `teacher` is the teacher's architecture, or what comes nearest to it, None where nothing does; `parameters` are
    those of a teacher that is no EdgeUNet; `switches` are further ones of its config.
    """

    def config(model: Architecture) -> EdgeUNetConfig:
        return architecture(model, signature, **switches)

    assert not isinstance(slim.network, str), "an EdgeUNet"
    model = slim.network
    if model is None:
        if teacher is None:
            raise RecipeError(
                "slim.keep: this teacher has no resolutions that a student could take over; give [slim.network]"
            )
        assert slim.keep is not None
        model = shrink(teacher, keep=slim.keep, count=lambda m: count_parameters(config(m)), parameters=parameters)
    return config(model)


def architecture_of(network: torch.nn.Module) -> Architecture | None:
    """In the recipe's words; of a diffusers UNet2DModel what comes nearest; None of another network."""
    if not isinstance(network, EdgeUNet):
        unet = getattr(network, "unet", None)
        return None if unet is None else _nearest(unet.config)
    own = network.config
    return Architecture(channels=own.channels, blocks=own.blocks, attention=own.attention, embedding=own.embedding)


def own_parameters(network: torch.nn.Module) -> int | None:
    """The parameters of a teacher that is no EdgeUNet; an EdgeUNet's are counted from its architecture."""
    return None if isinstance(network, EdgeUNet) else parameter_count(network)


def _nearest(config: Any) -> Architecture | None:
    """The widths, depth and attention of a UNet2DModel as an EdgeUNet's; None beyond what those can be."""
    widths = tuple(int(width) for width in config.block_out_channels)
    blocks = int(config.layers_per_block)
    attention = tuple(level for level, name in enumerate(config.down_block_types) if "Attn" in name)
    try:
        return Architecture(channels=widths, blocks=blocks, attention=attention)
    except ValueError:
        return None
