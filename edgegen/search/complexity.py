"""What an EdgeUNet of a shape has to do for one image, counted from its architecture, without making the net.

The net as it is exported: one step at a fixed time, whose conditioning is folded into constants. A search counts
thousands of shapes; `tests/search/test_complexity.py` holds the counts to those of real nets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from edgegen.recipe import Architecture

TIME_INPUTS = 64  # sines and cosines that the time branch takes (models/edge_unet.py)
FILLED = 16  # channels that onnxruntime computes together with AVX-512: 24 take as long as 32 (measured)


@dataclass(frozen=True)
class Facts:
    """What the data set of a recipe decides about every net: images (channels, size, size) and classes (0: none)."""

    channels: int
    size: int
    num_classes: int


@dataclass(frozen=True)
class Work:
    """`parameters` are those that are trained, the conditioning included, as `slim.keep` counts them.

    The rest is one inference of the folded net: multiply-accumulates (attention included), the part of them that is
    products of pixels with pixels, those of the convolutions with widths filled up to FILLED, the weights that are
    read, the numbers that layers write, and how many layers.
    """

    parameters: int
    macs: int
    attention_macs: int
    filled_macs: int
    weights: int
    activations: int
    layers: int


@dataclass(frozen=True)
class _Conv:
    """A convolution with bias: `pixels` of its output."""

    inside: int
    outside: int
    kernel: int
    pixels: int

    @property
    def weights(self) -> int:
        return self.outside * (self.inside * self.kernel**2 + 1)

    @property
    def macs(self) -> int:
        return self.pixels * self.inside * self.outside * self.kernel**2


def work(model: Architecture, facts: Facts) -> Work:
    """Counts a shape for the images of `facts`."""
    pixels = [(facts.size >> level) ** 2 for level in range(len(model.channels))]
    convs = list(_convolutions(model, facts, pixels))
    filled = model.model_copy(update={"channels": tuple(-(-width // FILLED) * FILLED for width in model.channels)})
    norms = list(_norms(model, pixels))
    attended = [level for level in model.attention for _ in range(_passes(model, level))]
    products = sum(2 * pixels[level] ** 2 * model.channels[level] for level in attended)
    weights = sum(conv.weights for conv in convs) + sum(2 * width for width, _ in norms)
    return Work(
        parameters=weights + _conditioning(model, facts.num_classes),
        macs=sum(conv.macs for conv in convs) + products,
        attention_macs=products,
        filled_macs=sum(conv.macs for conv in _convolutions(filled, facts, pixels)),
        weights=weights,
        activations=sum(conv.outside * conv.pixels for conv in convs)
        + sum(width * count for width, count in norms)
        + sum(2 * pixels[level] ** 2 for level in attended),
        layers=len(convs) + len(norms) + 3 * len(attended),
    )


def _passes(model: Architecture, level: int) -> int:
    """How often the net comes through a resolution: down and up, the deepest once."""
    return 1 if level == len(model.channels) - 1 else 2


def _blocks(model: Architecture) -> Iterator[tuple[int, int]]:
    """(level, input width) of every residual block; after each doubling the skip is concatenated."""
    for level, width in enumerate(model.channels):
        yield from ((level, width) for _ in range(model.blocks))
    for level in range(len(model.channels) - 1):
        yield level, 2 * model.channels[level]
        yield from ((level, model.channels[level]) for _ in range(model.blocks - 1))


def _convolutions(model: Architecture, facts: Facts, pixels: list[int]) -> Iterator[_Conv]:
    widths = model.channels
    yield _Conv(facts.channels, widths[0], 3, pixels[0])
    yield _Conv(widths[0], facts.channels, 3, pixels[0])
    for level in range(len(widths) - 1):
        yield _Conv(widths[level], widths[level + 1], 3, pixels[level + 1])
        yield _Conv(widths[level + 1], widths[level], 1, pixels[level + 1])
    for level, inside in _blocks(model):
        width = widths[level]
        yield _Conv(inside, width, 3, pixels[level])
        yield _Conv(width, width, 3, pixels[level])
        if inside != width:
            yield _Conv(inside, width, 1, pixels[level])
    for level in model.attention:
        for _ in range(_passes(model, level)):
            yield _Conv(widths[level], 3 * widths[level], 1, pixels[level])
            yield _Conv(widths[level], widths[level], 1, pixels[level])


def _norms(model: Architecture, pixels: list[int]) -> Iterator[tuple[int, int]]:
    """(width, pixels) of every GroupNorm: two a block, one an attention, one before the head."""
    yield model.channels[0], pixels[0]
    for level, inside in _blocks(model):
        yield inside, pixels[level]
        yield model.channels[level], pixels[level]
    for level in model.attention:
        yield from ((model.channels[level], pixels[level]) for _ in range(_passes(model, level)))


def _conditioning(model: Architecture, num_classes: int) -> int:
    """Parameters of the time and class branch, which folding takes away."""
    width, shifts = model.embedding, sum(model.channels[level] for level, _ in _blocks(model))
    return (TIME_INPUTS + 1) * width + (width + 1) * width + num_classes * width + (width + 1) * shifts
