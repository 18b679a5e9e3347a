"""Golden images: what an artifact gives for known seeds, classes and inputs, as an app repeats it on its device."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError, ExportError
from edgegen.exporters.base import Session, further, in_parts
from edgegen.formats.bundle import MOST_NUMBERS, GivenInput, Sample
from edgegen.formats.bundle_folder import GOLDEN
from edgegen.noise import normal
from edgegen.program.inputs import samples_of
from edgegen.support.pixels import in_range, to_uint8
from edgegen.support.storage import write_bytes
from edgegen.types import PIXELS, Signature, TensorSpec
from edgegen.verification.parity import psnr_db

COUNT = 16  # images of an artifact, and more where each of a few classes is to have one
MOST_CLASSES = 64  # of which each has a golden image
LARGEST = 1 << 22  # bytes of the golden images of one artifact: of large images there are fewer
TOGETHER = 2  # samples in one run, as in a comparison
DRAWN = ("noise", "class")  # roles whose values an app makes itself
FLOOR_DB = 40.0  # at most that of a scheme: a value on the edge between two bytes may fall to either side

Arrays = dict[str, NDArray[Any]]


def golden_samples(signature: Signature) -> tuple[Sample, ...]:
    """The seeds 0, 1, 2, ..., each with its sample 0; all classes in turn, or as many as there is room for."""
    channels, height, width = signature.image_shape
    classes = signature.num_classes
    wanted = max(COUNT, classes if classes <= MOST_CLASSES else 0)
    numbers = sum(math.prod(int(size) for size in spec.shape[1:]) for spec in signature.inputs)
    count = max(1, min(wanted, LARGEST // (channels * height * width), MOST_NUMBERS // max(1, numbers)))
    step = max(1, classes // count)  # of a thousand classes, some from all over the range
    return tuple(Sample(seed=seed, label=seed * step % classes if classes else None) for seed in range(count))


def write_given(folder: Path, signature: Signature, count: int, *, text: str | None = None) -> tuple[GivenInput, ...]:
    """Draws the inputs that are neither noise nor a class, and writes them below `folder`. Raises StorageError.

    The input `text` comes of prompts, and is left out.
    """
    made = [spec.name for spec in signature.inputs if spec.role in DRAWN or spec.name == text]
    drawn = samples_of(signature, range(count), 0, without=made)
    written = []
    for position, spec in enumerate(signature.inputs):
        if spec.name in made:
            continue
        values = drawn[spec.name] if spec.shape else np.repeat(drawn[spec.name][None], count, axis=0)
        stored = to_uint8(values, spec.image_range) if _is_picture(spec) else values
        path = f"{GOLDEN}/input-{position}.bin"
        write_bytes(folder / path, stored.astype(stored.dtype.newbyteorder("<")).tobytes())
        written.append(GivenInput(name=spec.name, file=path, dtype=stored.dtype.name, shape=stored.shape))
    return tuple(written)


def golden_inputs(
    folder: Path,
    signature: Signature,
    samples: Sequence[Sample],
    given: Sequence[GivenInput],
    *,
    text: str | None = None,
) -> Arrays:
    """What the network takes for all golden images, by input, without the input `text`. Raises DataError."""
    files = {item.name: item for item in given}
    inputs: Arrays = {}
    for position, spec in enumerate(signature.inputs):
        if spec.name == text:
            continue
        if spec.role == "noise":
            shape = [int(size) for size in spec.shape[1:]]
            values: NDArray[Any] = np.concatenate(
                [normal(sample.seed + position, sample.index, 1, shape) for sample in samples]
            )
        elif spec.role == "class":
            values = np.array([sample.label for sample in samples])
        else:
            item = files[spec.name]
            raw = np.frombuffer((folder / item.file).read_bytes(), np.dtype(item.dtype).newbyteorder("<"))
            values = raw.reshape(item.shape)
            if _is_picture(spec):
                values = in_range(values, spec.image_range)
        if "int" in spec.dtype:
            values = np.rint(values)
        inputs[spec.name] = (values if spec.shape else values[0]).astype(spec.dtype)
    return inputs


def images_of(session: Session, inputs: Mapping[str, NDArray[Any]], signature: Signature) -> NDArray[np.uint8]:
    """uint8 images (n, height, width, channels) of an artifact, as an app shows them: by `generate` where it has that.

    Raises ExportError where the runtime refuses the inputs, or gives no such image.
    """
    best = further(session).get("generate", session)
    outputs = in_parts(inputs, best, largest=TOGETHER)
    name = next((name for name in (PIXELS, signature.outputs[0].name) if name in outputs), None)
    if name is None:
        raise ExportError(f"it gives {', '.join(outputs)} and no '{signature.outputs[0].name}' or '{PIXELS}'")
    values = outputs[name]
    channels, height, width = signature.image_shape
    count = max(len(array) for array in inputs.values() if array.ndim)
    expected = (count, height, width, channels) if name == PIXELS else (count, channels, height, width)
    if values.shape != expected:
        raise ExportError(f"'{name}' has shape {list(values.shape)}; the golden images need {list(expected)}")
    try:
        return values.astype(np.uint8) if name == PIXELS else to_uint8(values, signature.outputs[0].image_range)
    except DataError as e:  # not finite
        raise ExportError(str(e)) from e


def worst_psnr_db(expected: NDArray[np.uint8], actual: NDArray[np.uint8]) -> float:
    """PSNR of the image that is farthest off, relative to 255."""
    return min(psnr_db(*pair, data_range=255.0) for pair in zip(expected, actual, strict=True))


def _is_picture(spec: TensorSpec) -> bool:
    return spec.role == "image" and spec.is_spatial
