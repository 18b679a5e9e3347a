"""The numbers that each quantization scheme allows, and layers chosen by pattern. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgegen.errors import UsageError, unknown_name
from edgegen.recipe import Quantize

BLOCK = 32  # weights of one scale in w4-block
# Core ML's weights of at most this many elements stay fp16: a compressed one adds some 360 bytes to the program and
# pads its scales to 64, about what 8 bits save on 400 elements. Measured on an 8x8 EdgeUNet of widths 32 and 64,
# thresholds 0, 256, 1024 and 2048 give 345648, 344070, 343995 and 347141 bytes; the first and the last convolution,
# which stay fp16 at 1024, are worth 1 dB.
SMALLEST = 1024


@dataclass(frozen=True)
class QuantizationGrid:
    """Weights are whole numbers from -`largest` to `largest`, times a scale: the least that holds the largest weight.

    An output channel has one scale, or with `block` each so many weights along its input channels. Activations are
    whole numbers of `activation_bits`, too, unless that is 0: affine, one static range a tensor. Tensors of at most
    `smallest` elements stay float.
    """

    largest: int
    block: int = 0
    activation_bits: int = 0
    smallest: int = 0


GRIDS = {
    # 64 and not 127: x86 cores without VNNI add two products of a uint8 and an int8 in 16 bits, which overflow with
    # full weights and cannot with halved ones (2 x 255 x 64 < 2^15). It costs 0.3 to 0.8 dB, and makes one
    # quantization that computes the same on every core.
    "w8a8": QuantizationGrid(64, activation_bits=8),
    "mixed": QuantizationGrid(64, activation_bits=8),  # w8a8 but for the layers that a budget leaves float
    "w8a16": QuantizationGrid(127, activation_bits=16),  # for NPUs, which multiply 8 bits with 16
    "w8": QuantizationGrid(127),
    "w4-block": QuantizationGrid(7, block=BLOCK, smallest=SMALLEST),
}


DEFAULT_OPTIONS = Quantize()


def matching(patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """The names that match one of the patterns. Raises UsageError for a pattern that matches none."""
    known, matches = sorted(names), set()
    for pattern in patterns:
        matched = {name for name in known if fnmatchcase(name, pattern)}
        if not matched:
            raise UsageError(unknown_name("layer that matches", pattern, known))
        matches |= matched
    return matches


def with_float(options: Quantize, layers: Sequence[str]) -> Quantize:
    """The options with more layers that stay float."""
    return options.model_copy(update={"float_layers": (*options.float_layers, *layers)})
