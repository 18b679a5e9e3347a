"""Inputs of a generator, drawn from a seed: for capture, calibration, comparison and timing. No torch."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.noise import normal, whole_numbers
from edgegen.types import Signature, TensorSpec


def example_inputs(signature: Signature, count: int, seed: int) -> dict[str, NDArray[Any]]:
    """`count` samples for every input: portable noise from (seed, index 0..), classes 0, 1, 2, ...

    Other inputs get noise of streams of their own, cut to their range, or whole numbers of all their range; one without
    axes (a scalar) gets one value.
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
        elif _counts(spec):
            values = _whole_numbers(spec, seed + position, first, count)
        else:
            values = normal(seed + position, first, count, shape)
            if spec.role not in ("noise", "latent") and spec.low is not None and spec.high is not None:
                middle, half = (spec.low + spec.high) / 2, (spec.high - spec.low) / 2
                values = np.clip(middle + values * half / 2, spec.low, spec.high)
        inputs[spec.name] = (values if spec.shape else values[0]).astype(spec.dtype)
    return inputs


def _counts(spec: TensorSpec) -> bool:
    """Whether it is whole numbers of a known range: a mask, token numbers, a count."""
    return "int" in spec.dtype and spec.role != "image" and spec.low is not None and spec.high is not None


def _whole_numbers(spec: TensorSpec, seed: int, first: int, count: int) -> NDArray[np.int64]:
    """Each number of the range as likely; the first one of sample 0 is the lowest, that of sample 1 the highest."""
    low, high = math.ceil(spec.low or 0), math.floor(spec.high or 0)
    values = whole_numbers(seed, first, count, [int(size) for size in spec.shape[1:]], low=low, high=high)
    rows = values.reshape(count, -1)
    for index, end in enumerate((low, high)):
        if first <= index < first + count and rows.size:
            rows[index - first, 0] = end
    return values
