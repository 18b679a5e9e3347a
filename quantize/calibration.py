"""Calibration inputs: those that the user gave, and else drawn from a seed: for noise that is all there is to know.

The ranges must hold the tails of the noise, or rare pixels come out wrong: on 8x8 images 128 samples (8 k values, up
to 4.0 sigma) left errors of half the image's range, 1024 samples (65 k values, up to 4.5 sigma) none over a tenth.
"""

import math
from typing import Any

from numpy.typing import NDArray

from edgegen.errors import UsageError
from edgegen.program.inputs import CALIBRATION_FIRST, InputSource
from edgegen.types import Signature

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


def calibration_batches(source: InputSource, *, samples: int | None = None, batch: int | None = None) -> Batches:
    """`samples` inputs of `source` (None: enough) in batches of `batch` (None: what fits; the last may be smaller).

    Fewer where the user gave fewer. Raises UsageError when `samples` is not positive.
    """
    samples = enough_samples(source.signature) if samples is None else samples
    if samples < 1:
        raise UsageError(
            f"calibration needs at least 1 sample, found {samples}; the ranges settle at some 65 000 noise values"
        )
    end = CALIBRATION_FIRST + source.calibration_count(samples)
    batch = batch or fitting_batch(source.signature)
    return [source.samples(range(start, min(start + batch, end))) for start in range(CALIBRATION_FIRST, end, batch)]
