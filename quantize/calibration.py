"""Calibration inputs: a generator's input is noise, so they are drawn from a seed and need no images.

The ranges must hold the tails of the noise, or rare pixels come out wrong: on 8x8 images 128 samples (8 k values, up
to 4.0 sigma) left errors of half the image's range, 1024 samples (65 k values, up to 4.5 sigma) none over a tenth.
"""

import math
from typing import Any

from numpy.typing import NDArray

from edgegen.errors import UsageError
from edgegen.types import Signature

# Parity runs on the samples 0, 1, 2, ..., which must not be in the calibration set.
FIRST_INDEX = 1 << 32

ENOUGH_VALUES = 65_536  # of noise; see above
FEWEST = 64  # samples, however large: the inner ranges depend on the image, too
LARGEST_BATCH = 32
MOST_AT_ONCE = 256

Batches = list[dict[str, NDArray[Any]]]


def enough_samples(signature: Signature) -> int:
    """How many samples settle the ranges."""
    return max(FEWEST, math.ceil(ENOUGH_VALUES / _values(signature)))


def fitting_batch(signature: Signature) -> int:
    """How many samples to run at once: fewer of a large image, so that the memory stays that of a few."""
    return max(1, min(LARGEST_BATCH, ENOUGH_VALUES // _values(signature)))


def correcting_samples(signature: Signature) -> int:
    """How many samples correct weights and biases: all their activations are in memory at once."""
    return max(FEWEST, min(MOST_AT_ONCE, ENOUGH_VALUES // _values(signature)))


def _values(signature: Signature) -> int:
    return math.prod(size for size in signature.inputs[0].shape if isinstance(size, int))


def calibration_batches(signature: Signature, *, samples: int, seed: int, batch: int) -> Batches:
    """`samples` inputs in batches of `batch` (the last may be smaller), classes in turn.

    Each batch holds what `signature` names, as `edgegen.program.inputs.samples_of` makes it. Raises UsageError when
    `samples` is not positive.
    """
    if samples < 1:
        raise UsageError(
            f"calibration needs at least 1 sample, found {samples}; the ranges settle at some 65 000 noise values"
        )
    from edgegen.program.inputs import samples_of  # it imports torch

    end = FIRST_INDEX + samples
    return [
        samples_of(signature, range(start, min(start + batch, end)), seed) for start in range(FIRST_INDEX, end, batch)
    ]
