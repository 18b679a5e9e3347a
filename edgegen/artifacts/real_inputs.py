"""Inputs that a user gives for a network that takes images, features, ...: read, sized, split in two parts."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgegen.data.folder import image_names, read_images
from edgegen.data.npz import Arrays
from edgegen.data.npz import load as load_npz
from edgegen.errors import DataError, UsageError, unknown_name
from edgegen.models.sources.source import Source
from edgegen.program.generator import Generator
from edgegen.program.inputs import RealInputs
from edgegen.support.storage import load_tensors
from edgegen.types import Signature, TensorSpec
from edgegen.verification.verify import REAL_SAMPLES

MOST_ROWS = 1024  # samples that are read: more settle nothing
MOST_BYTES = 1 << 30  # of all of them
VERIFICATION_SHARE = 0.25
ENOUGH = 16  # fewer say little about the field

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class InputFiles:
    """Where the inputs of a network are: by the name of an input a file or folder; "" for one that says it itself."""

    paths: Mapping[str, Path]

    @staticmethod
    def parse(texts: Iterable[str]) -> "InputFiles":
        """From texts NAME=PATH or PATH. Raises UsageError."""
        paths: dict[str, Path] = {}
        for text in texts:
            name, equals, path = text.partition("=")
            name, path = (name, path) if equals and name.isidentifier() else ("", text)
            if not path:
                raise UsageError(f"--inputs {text!r}: give a folder of images, an .npz or .safetensors: photo=photos/")
            if name in paths:
                raise UsageError(f"--inputs: two {f'for {name}' if name else 'without a name'}: {paths[name]}, {path}")
            paths[name] = Path(path)
        return InputFiles(paths)


def generators_of(sources: Sequence[Source], files: InputFiles | None) -> list[tuple[Generator, dict[str, Any] | None]]:
    """The generator of each source with its real inputs, and what the manifest says of them (None: there are none).

    `files` take the place of those that a source's signature names. Raises DataError and UsageError.
    """
    if files is None:
        return [_generator(source, InputFiles(source.samples)) for source in sources]
    takes = {source.name: {spec.name for spec in source.signature.inputs} for source in sources}
    unknown = [name for name in files.paths if name and not any(name in names for names in takes.values())]
    if unknown:
        raise UsageError(f"--inputs: {unknown_name('input', unknown[0], set().union(*takes.values()))}")
    if len(sources) > 1 and "" in files.paths:
        raise UsageError(f"--inputs {files.paths['']}: there are several networks; write the input's name, NAME=PATH")
    return [
        _generator(
            source,
            InputFiles({name: path for name, path in files.paths.items() if not name or name in takes[source.name]}),
        )
        for source in sources
    ]


def _generator(source: Source, files: InputFiles) -> tuple[Generator, dict[str, Any] | None]:
    real, facts = read_real_inputs(files, source.signature) if files.paths else (None, None)
    return Generator(source.module, source.signature, real=real, unstated=source.unstated), facts


@dataclass(frozen=True)
class _Column:
    """The samples of one input: `count` of them; `read` gives those of some numbers as (rows, ...) of the signature."""

    count: int
    read: Callable[[Sequence[int]], NDArray[Any]]
    source: str


def read_real_inputs(files: InputFiles, signature: Signature) -> tuple[RealInputs, dict[str, Any]]:
    """Reads, sizes and splits the inputs: a quarter to verify with, at most REAL_SAMPLES, and the others to calibrate
    with; no sample is in both.

    Images are cut to the input's proportions around their middle and scaled to its size; arrays must have the shapes of
    the signature, with the samples as first axis. Samples of several inputs belong together in order. Returns them and
    what the manifest says of them. Raises DataError and UsageError.
    """
    columns: dict[str, _Column] = {}
    for name, path in files.paths.items():
        new = _columns(name, path, signature)
        twice = sorted(columns.keys() & new.keys())
        if twice:
            raise UsageError(f"--inputs: {twice[0]} is in two of the files; leave one out")
        columns |= new
    counts = {name: column.count for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise DataError(f"inputs that belong together have the same number of samples; found {listed}")
    rows = {name: column.read(_chosen(column.count, signature)) for name, column in columns.items()}
    digests = _digests(rows)
    # In the order of their hashes: which part a sample is in depends on nothing but itself and the others.
    order = [index for _, index in sorted({digest: index for index, digest in enumerate(digests)}.items())]
    if len(order) < 2:
        raise DataError(
            f"{', '.join(map(str, files.paths.values()))}: {len(order)} different sample(s); at least 2 are needed, "
            f"one to calibrate and one to verify, and {ENOUGH} or more say something about the field"
        )
    held = min(REAL_SAMPLES, max(1, round(VERIFICATION_SHARE * len(order))))
    parts = [{name: values[index] for name, values in rows.items()} for index in (order[held:], order[:held])]
    facts = {
        "files": {name: column.source for name, column in columns.items()},
        "sha256": hashlib.sha256("".join(digests[index] for index in order).encode()).hexdigest(),
        "calibration": len(order) - held,
        "verification": held,
        "repeated": len(digests) - len(order),
    }
    return RealInputs(parts[0], parts[1]), facts


def sentence(facts: Mapping[str, Any]) -> str:
    """What `read_real_inputs` says of its samples, in words."""
    files = ", ".join(f"{name} from {source}" for name, source in facts["files"].items())
    repeated = f", {facts['repeated']} repeated left out" if facts["repeated"] else ""
    few = "" if facts["calibration"] + facts["verification"] >= ENOUGH else f"; {ENOUGH} or more would say more"
    return (
        f"inputs: {files}: {facts['calibration']} samples to calibrate, {facts['verification']} others to verify"
        f"{repeated}{few}"
    )


def _chosen(count: int, signature: Signature) -> list[int]:
    """The numbers of the samples that are read: all, or as many as fit, evenly spaced."""
    nbytes = sum(4 * math.prod(map(int, spec.shape[1:])) for spec in signature.inputs)
    most = max(2, min(MOST_ROWS, MOST_BYTES // nbytes))
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist() if count else []


def _digests(rows: Mapping[str, NDArray[Any]]) -> list[str]:
    count = len(next(iter(rows.values())))
    return [
        hashlib.sha256(b"".join(np.ascontiguousarray(rows[name][row]).tobytes() for name in sorted(rows))).hexdigest()
        for row in range(count)
    ]


def _columns(name: str, path: Path, signature: Signature) -> dict[str, _Column]:
    """The inputs that a path holds. Raises DataError, UsageError."""
    specs = {spec.name: spec for spec in signature.inputs if spec.role not in ("noise", "class")}
    if not specs:
        raise UsageError("--inputs: all inputs are noise or a class, which are drawn; leave the option out")
    if name and name not in specs:
        raise UsageError(f"--inputs: {unknown_name('input', name, specs)}")
    if not path.exists():
        raise DataError(f"no inputs at {path}")
    if path.suffix == ".npz":
        return _array_columns(name, path, specs, Arrays(path).names, lambda key: Arrays(path)[key])
    if path.suffix == ".safetensors":
        tensors = load_tensors(path)
        return _array_columns(name, path, specs, tuple(tensors), lambda key: tensors[key].numpy())
    spec = specs[name] if name else _only_image(path, specs)
    if spec.role != "image" or len(spec.shape) != 4:
        raise UsageError(f"{path}: images are for an input of the role image; {spec.name} is {spec.role}: give an .npz")
    _require_range(spec)
    names = image_names(path)

    def read(rows: Sequence[int]) -> NDArray[Any]:
        return np.stack([_as_input(pixels, spec) for pixels in read_images(path, [names[row] for row in rows])])

    return {spec.name: _Column(len(names), read, path.resolve().name)}


def _only_image(path: Path, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    images = [spec for spec in specs.values() if spec.role == "image"]
    if len(images) == 1:
        return images[0]
    listed = ", ".join(f"{spec.name} ({spec.role})" for spec in specs.values())
    raise UsageError(f"{path}: for which input? There are {listed}; write NAME={path}")


def _array_columns(
    name: str,
    path: Path,
    specs: Mapping[str, TensorSpec],
    keys: Sequence[str],
    read: Callable[[str], NDArray[Any]],
) -> dict[str, _Column]:
    """Arrays under the names of inputs; or, of one input, the file's only array or its images."""
    wanted = [name] if name else list(specs)
    present = {key: key for key in wanted if key in keys}
    if not present and (name or len(specs) == 1):
        (only,) = wanted
        if len(keys) == 1:
            present = {only: keys[0]}
        elif specs[only].role == "image" and path.suffix == ".npz":
            return {only: _column(load_npz(path).images, specs[only], path)}
    if not present:
        raise DataError(f"{path}: no array for {' or '.join(wanted)}; found {', '.join(keys) or 'nothing'}")
    return {key: _column(read(array), specs[key], path) for key, array in present.items()}


def _column(values: NDArray[Any], spec: TensorSpec, path: Path) -> _Column:
    """Raises DataError for values of another shape or kind, not finite, or beyond the range of the signature."""
    where = f"{path}: {spec.name}"
    if values.dtype == np.uint8 and spec.role == "image" and values.ndim in (3, 4):
        _require_range(spec)
        images = values[..., None] if values.ndim == 3 else values
        if images.shape[3] not in (1, 3):
            raise DataError(
                f"{where}: uint8 {values.shape}; images are (n, height, width), with 1 or 3 channels behind"
            )
        return _Column(len(images), lambda rows: np.stack([_as_input(images[row], spec) for row in rows]), path.name)
    if values.shape[1:] != tuple(spec.shape[1:]) or values.dtype.kind not in "fiu":
        needed = ", ".join(map(str, ("n", *spec.shape[1:])))
        raise DataError(f"{where}: {values.dtype} {values.shape}; needed are numbers ({needed})")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: {int((~np.isfinite(values)).sum())} values are not finite")
    low, high = (-np.inf if spec.low is None else spec.low), (np.inf if spec.high is None else spec.high)
    if values.size and not (low <= values.min() and values.max() <= high):
        raise DataError(
            f"{where}: values from {values.min():g} to {values.max():g}; the signature says {low:g} to {high:g}"
        )
    return _Column(len(values), lambda rows: values[list(rows)].astype(spec.dtype), path.name)


def _require_range(spec: TensorSpec) -> None:
    if spec.low is None or spec.high is None:
        raise UsageError(
            f"{spec.name}: its signature does not say what black and white are; write low and high, such as 0.0 and 1.0"
        )


def _as_input(pixels: Pixels, spec: TensorSpec) -> NDArray[Any]:
    """uint8 (height, width, 1 or 3) -> (channels, height, width) of an image input, in its range."""
    channels, height, width = (int(size) for size in spec.shape[1:])
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if channels not in (1, 3):
        raise UsageError(f"{spec.name} has {channels} channels, an image file 1 or 3; give an .npz")
    fitted = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (width, height), Image.Resampling.LANCZOS)
    values = np.asarray(fitted, np.float64).reshape(height, width, channels).transpose(2, 0, 1) / 255
    low, high = spec.image_range
    return (low + values * (high - low)).astype(spec.dtype)
