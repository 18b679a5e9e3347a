"""The inputs of `edgegen sample`: the user's images and arrays by the name of the input; the others are drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.data.arrays import SUFFIXES, read_array
from edgegen.data.pixels import read_image
from edgegen.errors import DataError, UsageError, unknown_name
from edgegen.program.inputs import example_inputs
from edgegen.support.pixels import in_range
from edgegen.types import Signature, TensorSpec

Arrays = dict[str, NDArray[Any]]
COUNT = 16  # images where nothing says how many
ROUNDING = 1e-3  # of the range of an input: that of whoever wrote an array
GREY = "mogrify -colorspace Gray *.png"


@dataclass(frozen=True, eq=False)
class GivenInputs:
    """What the user gave of the inputs of `signature`: `rows` by name, (n, ...), for `count` samples.

    `reference` is the first of them that has a height and a width, and `size` is these; "" and None where none has.
    """

    signature: Signature
    rows: Mapping[str, NDArray[Any]]
    count: int
    seed: int
    reference: str
    size: tuple[int, int] | None

    def at(self, height: int, width: int) -> tuple[Signature, Arrays]:
        """All inputs, with `reference` at this size, and the signature of that: what was given is continued by its
        mirror image below and on the right, the rest is drawn. Raises ValueError as `resized` does."""
        sized = self.signature.resized(height, width, of=self.reference) if self.reference else self.signature
        arrays = example_inputs(sized, self.count, self.seed)
        for spec in sized.inputs:
            if spec.name in self.rows:
                values = self.rows[spec.name]
                if spec.is_spatial:
                    missing = [(0, int(size) - own) for size, own in zip(spec.shape[2:], values.shape[2:], strict=True)]
                    values = np.pad(values, [(0, 0), (0, 0), *missing], mode="symmetric")
                arrays[spec.name] = np.repeat(values, self.count // len(values), axis=0)
        return sized, arrays

    def notes(self) -> list[str]:
        """What was assumed, in words."""
        drawn = [
            spec.name
            for spec in self.signature.inputs
            if spec.role not in ("noise", "class") and spec.name not in self.rows
        ]
        notes = [f"{name}: random numbers; give your own by --input {name}=FILE.npz" for name in drawn]
        unbounded = [
            spec.name
            for spec in self.signature.inputs
            if spec.role == "image" and spec.name in self.rows and None in (spec.low, spec.high)
        ]
        return notes + [f"{name}: its signature has no range; black is -1 and white 1" for name in unbounded]


def paths_by_name(options: Sequence[str], signature: Signature) -> dict[str, Path]:
    """The files of `--input FILE` and `--input NAME=FILE`, by the input that they are for. Raises UsageError."""
    names = [spec.name for spec in signature.inputs]
    paths: dict[str, Path] = {}
    for option in options:
        name, equals, file = option.partition("=")
        if not equals or (name not in names and Path(option).exists()):
            name, file = _image_input(option, signature), option
        if name not in names:
            raise UsageError(f"--input {option}: {unknown_name('input', name, names)}")
        if name in paths:
            raise UsageError(f"--input {option}: '{name}' is given twice")
        paths[name] = Path(file)
    return paths


def read_inputs(
    paths: Mapping[str, Path], signature: Signature, *, label: int | None, count: int | None, seed: int, of: str
) -> GivenInputs:
    """Reads what the user gave of the inputs of the file `of`; `label` is the class of all samples.

    `count` None: as many samples as there are rows, COUNT where everything is drawn. Raises DataError for a file that
    does not fit its input or the others, UsageError where an image is missing.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    images = [spec.name for spec in signature.inputs if spec.role == "image"]
    for name in images:
        if name not in paths:
            given = "photo.png" if len(images) == 1 else f"{name}=photo.png"
            raise UsageError(f"{of} makes its image from another one, '{name}': give that by --input {given}")
    rows = {name: _read(path, specs[name]) for name, path in paths.items()}
    if label is not None:
        (name,) = (spec.name for spec in signature.inputs if spec.role == "class")
        if name in rows:
            raise UsageError(f"--class {label}: --input gives '{name}' as well; leave out one of them")
        rows[name] = np.full(1, label, specs[name].dtype)
    samples = _count(rows, paths, count)
    reference, size = _size(rows, specs, paths)
    return GivenInputs(signature, rows, samples, seed, reference, size)


def whole_steps(signature: Signature, reference: str) -> tuple[int, int]:
    """The least height and width of `reference` of which every multiple gives all other tensors a whole size."""
    own = next(spec for spec in signature.inputs if spec.name == reference)
    spatial = [spec for spec in (*signature.inputs, *signature.outputs) if spec.is_spatial]
    rows, columns = (
        math.lcm(*(Fraction(int(spec.shape[axis]) + spec.margin, int(own.shape[axis])).denominator for spec in spatial))
        for axis in (2, 3)
    )
    return rows, columns


def _image_input(option: str, signature: Signature) -> str:
    images = [spec.name for spec in signature.inputs if spec.role == "image"]
    if len(images) == 1:
        return images[0]
    others = ", ".join(f"{spec.name} ({spec.role})" for spec in signature.inputs)
    if not images:
        raise UsageError(f"--input {option}: it takes no image; its inputs are {others}: --input NAME=FILE.npz")
    raise UsageError(f"--input {option}: it takes {len(images)} images; say which: --input {images[0]}={option}")


def _read(path: Path, spec: TensorSpec) -> NDArray[Any]:
    is_array = path.suffix.lower() in SUFFIXES
    values = _array(path, spec) if is_array else _image(path, spec)
    if spec.dtype.startswith("float"):
        return values.astype(spec.dtype)
    whole = np.rint(values)
    if is_array and (whole != values).any():
        raise DataError(f"{path}: '{spec.name}' takes whole numbers ({spec.dtype}), and these are not")
    return whole.astype(spec.dtype)


def _image(path: Path, spec: TensorSpec) -> NDArray[np.float32]:
    """(1, channels, height, width) in the range of the signature."""
    if spec.role != "image" or not spec.is_spatial:
        shape = "x".join(map(str, spec.shape))
        raise DataError(
            f"{path}: '{spec.name}' is no picture but {spec.role} {shape}; give an array of that shape, "
            f"{' or '.join(SUFFIXES)}"
        )
    pixels = read_image(path)
    channels = spec.shape[1]
    if channels == 3 and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if channels == 1 and pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    if channels != pixels.shape[2]:
        kind = "grey" if pixels.shape[2] == 1 else "RGB"
        advice = f"make it grey first, such as: {GREY}" if channels == 1 else f"give an array ({' or '.join(SUFFIXES)})"
        raise DataError(
            f"{path}: is {kind}, and '{spec.name}' takes {channels} channel{'s' * (channels != 1)} "
            f"(batch x channels x height x width, colours in the order red, green, blue); {advice}"
        )
    return in_range(pixels[None], spec.image_range)


def _array(path: Path, spec: TensorSpec) -> NDArray[Any]:
    """(n, ...) as the network takes it. Raises DataError where shape or range are other than the signature's."""
    values = read_array(path, spec.name)
    own = spec.shape[1:]
    if values.ndim == len(own):
        values = values[None]
    fixed = len(own) - (2 if spec.is_spatial else 0)  # axes whose sizes are the signature's
    fits = values.ndim == len(own) + 1 and values.size and values.shape[1 : fixed + 1] == own[:fixed]
    if not fits:
        needed = "x".join(map(str, (*own[:fixed], *("height", "width")[: len(own) - fixed]))) or "one number"
        raise DataError(
            f"{path}: '{spec.name}' has shape {'x'.join(map(str, values.shape))}; needed: n x {needed}, or one sample"
        )
    if spec.low is not None and spec.high is not None:
        margin = ROUNDING * (spec.high - spec.low)
        lowest, highest = float(values.min()), float(values.max())
        if lowest < spec.low - margin or highest > spec.high + margin:
            raise DataError(
                f"{path}: '{spec.name}' has values from {lowest:g} to {highest:g}; the signature says "
                f"{spec.low:g} to {spec.high:g}"
            )
    return values


def _count(rows: Mapping[str, NDArray[Any]], paths: Mapping[str, Path], count: int | None) -> int:
    lengths = {name: len(values) for name, values in rows.items()}
    most = max(lengths.values(), default=1)
    for name, length in lengths.items():
        if length not in (1, most):
            raise DataError(f"{paths[name]}: {length} samples of '{name}', and {most} of another input; give as many")
    if most > 1:
        if count not in (None, most):
            raise UsageError(f"--count {count}: the files of --input have {most} samples")
        return most
    return count or (1 if paths else COUNT)


def _size(
    rows: Mapping[str, NDArray[Any]], specs: Mapping[str, TensorSpec], paths: Mapping[str, Path]
) -> tuple[str, tuple[int, int] | None]:
    """The first given input with a height and width, and these. Raises DataError where another is not in proportion."""
    spatial = [name for name in specs if name in rows and specs[name].is_spatial]
    if not spatial:
        return "", None
    first, *others = spatial
    height, width = rows[first].shape[2:]
    for name in others:
        shares = (Fraction(int(specs[name].shape[axis]), int(specs[first].shape[axis])) for axis in (2, 3))
        needed = tuple(size * share for size, share in zip((height, width), shares, strict=True))
        if rows[name].shape[2:] != needed:
            sizes = ["x".join(map(str, pair)) for pair in (rows[name].shape[2:], (height, width), needed)]
            raise DataError(
                f"{paths[name]}: {sizes[0]} (height x width); beside {paths[first]} of {sizes[1]}, '{name}' must have "
                f"{sizes[2]}"
            )
    return first, (height, width)
