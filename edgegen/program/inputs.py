"""Inputs of a generator, drawn from a seed: for capture, calibration, comparison and timing. No torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.noise import normal
from edgegen.types import Signature


def example_inputs(signature: Signature, count: int, seed: int) -> dict[str, NDArray[Any]]:
    """`count` samples for every input: portable noise from (seed, index 0..), classes 0, 1, 2, ...

    Other inputs get noise of streams of their own, cut to their range; one without the batch axis gets one value.
    """
    return samples_of(signature, range(count), seed)


def samples_of(signature: Signature, indices: range, seed: int) -> dict[str, NDArray[Any]]:
    """The samples `indices` of the endless sequence of inputs of `seed`; see `example_inputs`."""
    count, first = len(indices), indices.start
    inputs: dict[str, NDArray[Any]] = {}
    for position, spec in enumerate(signature.inputs):
        shape = [int(size) for size in spec.shape[1:]]
        if spec.role == "class":
            values: NDArray[Any] = np.arange(first, first + count) % signature.num_classes
        else:
            values = normal(seed + position, first, count, shape)
            if spec.role not in ("noise", "latent") and spec.low is not None and spec.high is not None:
                middle, half = (spec.low + spec.high) / 2, (spec.high - spec.low) / 2
                values = np.clip(middle + values * half / 2, spec.low, spec.high)
        inputs[spec.name] = values.astype(spec.dtype)
    return inputs
