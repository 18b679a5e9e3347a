"""Calibration inputs: a generator eats noise, so its calibration set is made from a seed and needs no images.

The ranges must hold the tails of the noise, or rare pixels come out wrong: on 8x8 images 128 samples (8 k values, up
to 4.0 sigma) left errors of half the image's range, 1024 samples (65 k values, up to 4.5 sigma) none over a tenth.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import UsageError
from edgegen.noise import normal
from edgegen.types import Signature

FIRST_INDEX = 1 << 32  # sample indexes of its own: parity runs on 0, 1, 2, ... and must not see its calibration set

Batches = list[dict[str, NDArray[Any]]]


def calibration_batches(signature: Signature, *, samples: int, seed: int, batch: int) -> Batches:
    """`samples` inputs in batches of `batch` (the last may be smaller), classes in turn.

    Each batch holds what `signature` names: sample (batch, channels, height, width) float32, class_labels (batch,)
    int64. Raises UsageError when `samples` is not positive.
    """
    if samples < 1:
        raise UsageError(
            f"calibration needs at least 1 sample, found {samples}; the ranges settle at some 65 000 noise values"
        )
    return [_batch(signature, start, min(batch, samples - start), seed) for start in range(0, samples, batch)]


def _batch(signature: Signature, start: int, count: int, seed: int) -> dict[str, NDArray[Any]]:
    inputs: dict[str, NDArray[Any]] = {"sample": normal(seed, FIRST_INDEX + start, count, signature.image_shape)}
    if signature.num_classes:
        inputs["class_labels"] = np.arange(start, start + count, dtype=np.int64) % signature.num_classes
    return inputs
