"""Parameters, MACs and activations of an EdgeUNet, counted from its architecture without making the network.

Counted is the network as it is exported: one step at a fixed time, its conditioning folded into constants. A search
counts thousands of shapes; `tests/search/test_complexity.py` compares the counts with those of real networks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from edgegen.recipe import Architecture

TIME_INPUTS = 64  # sines and cosines that the time branch takes (models/edge_unet.py)
CHANNEL_BLOCK = 16  # channels that onnxruntime computes together with AVX-512: 24 take as long as 32 (measured)


@dataclass(frozen=True)
class DataSpec:
    """What the data set decides about every network: channels and size of the images, and classes (0: none).

    `size` is one number for height and width, or (height, width).
    """

    channels: int
    size: int | tuple[int, int]
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return self.channels, height, width


@dataclass(frozen=True)
class Complexity:
    """Counts of one network. `parameters` are those that are trained, conditioning included, as for `slim.keep`.

    The rest describes one inference of the folded network: `macs` (attention included); `attention_macs`, the products
    of pixels with pixels among them; `padded_macs` of the convolutions, with widths rounded up to CHANNEL_BLOCK; the
    `weights` that are read; the `activations` that layers write; and the number of `layers`.
    """

    parameters: int
    macs: int
    attention_macs: int
    padded_macs: int
    weights: int
    activations: int
    layers: int


@dataclass(frozen=True)
class _Conv:
    """A convolution with bias; `pixels` is height times width of its output."""

    in_channels: int
    out_channels: int
    kernel: int
    pixels: int

    @property
    def weights(self) -> int:
        return self.out_channels * (self.in_channels * self.kernel**2 + 1)

    @property
    def macs(self) -> int:
        return self.pixels * self.in_channels * self.out_channels * self.kernel**2


def complexity_of(model: Architecture, data: DataSpec) -> Complexity:
    """Counts the network of an architecture for the images of a data set."""
    _, height, width = data.image_shape
    pixels = [(height >> level) * (width >> level) for level in range(len(model.channels))]
    convs = list(_convolutions(model, data, pixels))
    padded = model.model_copy(
        update={"channels": tuple(-(-width // CHANNEL_BLOCK) * CHANNEL_BLOCK for width in model.channels)}
    )
    norms = list(_norms(model, pixels))
    attended = [level for level in model.attention for _ in range(_passes(model, level))]
    products = sum(2 * pixels[level] ** 2 * model.channels[level] for level in attended)
    weights = sum(conv.weights for conv in convs) + sum(2 * width for width, _ in norms)
    return Complexity(
        parameters=weights + _conditioning(model, data.num_classes),
        macs=sum(conv.macs for conv in convs) + products,
        attention_macs=products,
        padded_macs=sum(conv.macs for conv in _convolutions(padded, data, pixels)),
        weights=weights,
        activations=sum(conv.out_channels * conv.pixels for conv in convs)
        + sum(width * count for width, count in norms)
        + sum(2 * pixels[level] ** 2 for level in attended),
        layers=len(convs) + len(norms) + 3 * len(attended),
    )


def _passes(model: Architecture, level: int) -> int:
    """How often a resolution is computed: on the way down and up, the deepest once."""
    return 1 if level == len(model.channels) - 1 else 2


def _blocks(model: Architecture) -> Iterator[tuple[int, int]]:
    """(level, input width) of every residual block; after each upsampling the skip connection is concatenated."""
    for level, width in enumerate(model.channels):
        yield from ((level, width) for _ in range(model.blocks))
    for level in range(len(model.channels) - 1):
        yield level, 2 * model.channels[level]
        yield from ((level, model.channels[level]) for _ in range(model.blocks - 1))


def _convolutions(model: Architecture, data: DataSpec, pixels: list[int]) -> Iterator[_Conv]:
    widths = model.channels
    yield _Conv(data.channels, widths[0], 3, pixels[0])
    yield _Conv(widths[0], data.channels, 3, pixels[0])
    for level in range(len(widths) - 1):
        yield _Conv(widths[level], widths[level + 1], 3, pixels[level + 1])
        yield _Conv(widths[level + 1], widths[level], 1, pixels[level + 1])
    for level, in_channels in _blocks(model):
        width = widths[level]
        yield _Conv(in_channels, width, 3, pixels[level])
        yield _Conv(width, width, 3, pixels[level])
        if in_channels != width:
            yield _Conv(in_channels, width, 1, pixels[level])
    for level in model.attention:
        for _ in range(_passes(model, level)):
            yield _Conv(widths[level], 3 * widths[level], 1, pixels[level])
            yield _Conv(widths[level], widths[level], 1, pixels[level])


def _norms(model: Architecture, pixels: list[int]) -> Iterator[tuple[int, int]]:
    """(width, pixels) of every GroupNorm: two per block, one per attention, one before the head."""
    yield model.channels[0], pixels[0]
    for level, in_channels in _blocks(model):
        yield in_channels, pixels[level]
        yield model.channels[level], pixels[level]
    for level in model.attention:
        yield from ((model.channels[level], pixels[level]) for _ in range(_passes(model, level)))


def _conditioning(model: Architecture, num_classes: int) -> int:
    """Parameters of the time and class branch, which folding removes."""
    width, shifts = model.embedding, sum(model.channels[level] for level, _ in _blocks(model))
    return (TIME_INPUTS + 1) * width + (width + 1) * width + num_classes * width + (width + 1) * shifts
