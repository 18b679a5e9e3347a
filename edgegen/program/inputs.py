"""Inputs of a generator, drawn from a seed or given by the user: for capture, calibration and comparison. No torch."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.noise import normal, whole_numbers
from edgegen.program.image_noise import natural_images
from edgegen.types import Origin, Signature, TensorSpec

# Comparisons take the samples 0, 1, 2, ... of a seed; what quantization and training see begins here.
CALIBRATION_FIRST = 1 << 32

Rows = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class RealInputs:
    """Samples that a user gave for some inputs, by the input's name: (rows, ...); the two parts share none."""

    calibration: Rows
    verification: Rows

    def part(self, indices: range) -> Rows:
        """The rows for samples `indices`: of the part that they belong to, again from its first after its last."""
        calibrates = indices.start >= CALIBRATION_FIRST
        rows = self.calibration if calibrates else self.verification
        numbers = np.arange(indices.start, indices.stop) - (CALIBRATION_FIRST if calibrates else 0)
        return {name: values[numbers % len(values)] for name, values in rows.items()}


@dataclass(frozen=True, eq=False)
class InputSource:
    """The endless sequence of inputs of a generator: `real` where the user gave some, the others drawn from `seed`.

    `unstated` are inputs of which nobody said what they are: a signature that was guessed, an image without a range.
    """

    signature: Signature
    seed: int
    real: RealInputs | None = None
    unstated: tuple[str, ...] = ()

    def samples(self, indices: range) -> dict[str, NDArray[Any]]:
        """The samples `indices` of the sequence: for every input an array (len(indices), ...)."""
        given = self._fitting(indices) if self.real else {}
        both = samples_of(self.signature, indices, self.seed, without=given.keys()) | given
        return {spec.name: both[spec.name] for spec in self.signature.inputs}

    def examples(self, count: int) -> dict[str, NDArray[Any]]:
        """At most `count` samples for a comparison: none twice where nothing is drawn."""
        return self.samples(range(min(count, self._distinct(calibrates=False) or count)))

    def calibration_count(self, count: int) -> int:
        """`count`, or as many different samples as there are to calibrate with."""
        return min(count, self._distinct(calibrates=True) or count)

    def resized(self, height: int, width: int) -> "InputSource":
        """The inputs of another size of picture: real ones are cut, or continued by their mirror image.

        Raises ValueError as `Signature.resized` does.
        """
        return replace(self, signature=self.signature.resized(height, width))

    @property
    def synthetic(self) -> tuple[str, ...]:
        """The inputs that stand for something real in an app (images, features, ...) and are drawn here."""
        given = self.real.verification if self.real else {}
        drawn = (spec for spec in self.signature.inputs if spec.name not in given)
        return tuple(spec.name for spec in drawn if spec.role not in ("noise", "class") or spec.name in self.unstated)

    @property
    def origin(self) -> Origin:
        """What a comparison on these inputs is worth: "noise" is what an app draws too, "real" what the user gave."""
        if self.synthetic:
            return "synthetic"
        return "real" if self.real else "noise"

    def _distinct(self, *, calibrates: bool) -> int | None:
        """How many different samples there are; None where noise or other drawn numbers make them endless."""
        if self.real is None:
            return None
        rows = self.real.calibration if calibrates else self.real.verification
        drawn = [spec for spec in self.signature.inputs if spec.name not in rows and spec.role != "class"]
        return None if drawn else len(next(iter(rows.values())))

    def _fitting(self, indices: range) -> dict[str, NDArray[Any]]:
        assert self.real is not None, "called where there are real inputs"
        specs = {spec.name: spec for spec in self.signature.inputs}
        rows = self.real.part(indices)
        return {name: _sized(values, specs[name]).astype(specs[name].dtype) for name, values in rows.items()}


def example_inputs(signature: Signature, count: int, seed: int) -> dict[str, NDArray[Any]]:
    """`count` drawn samples for every input, where only their shape and range matter: trial runs and timings."""
    return samples_of(signature, range(count), seed)


def samples_of(
    signature: Signature, indices: range, seed: int, *, without: Collection[str] = ()
) -> dict[str, NDArray[Any]]:
    """The samples `indices` of the endless sequence of drawn inputs of `seed`, `without` those that need not be drawn.

    Portable noise from (seed, index), classes 0, 1, 2, ... in turn. Images have the statistics of photographs; other
    inputs get noise of streams of their own, cut to their range, or whole numbers of all their range; one without axes
    gets one value.
    """
    count, first = len(indices), indices.start
    inputs: dict[str, NDArray[Any]] = {}
    for position, spec in enumerate(signature.inputs):
        if spec.name in without:
            continue
        shape = [int(size) for size in spec.shape[1:]]
        if spec.role == "class":
            values: NDArray[Any] = np.arange(first, first + count) % signature.num_classes
        elif spec.role == "image" and len(shape) == 3:
            values = natural_images(seed + position, first, count, shape, spec.image_range)
        elif _counts(spec):
            values = _whole_numbers(spec, seed + position, first, count)
        else:
            values = normal(seed + position, first, count, shape)
            if spec.role not in ("noise", "latent") and spec.low is not None and spec.high is not None:
                middle, half = (spec.low + spec.high) / 2, (spec.high - spec.low) / 2
                values = np.clip(middle + values * half / 2, spec.low, spec.high)
        inputs[spec.name] = (values if spec.shape else values[0]).astype(spec.dtype)
    return inputs


def _sized(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """`values` with the height and width of `spec`: cut, or continued by their mirror image."""
    if not spec.is_spatial or values.shape[1:] == spec.shape[1:]:
        return values
    height, width = (int(size) for size in spec.shape[2:])
    missing = [(0, 0), (0, 0), (0, max(0, height - values.shape[2])), (0, max(0, width - values.shape[3]))]
    return np.pad(values, missing, mode="symmetric")[:, :, :height, :width]


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
