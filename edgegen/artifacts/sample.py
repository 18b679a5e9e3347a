"""Images for `edgegen sample`, in a PNG: made by a recipe's student, a generator folder or an exported file."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.sessions import open_source
from edgegen.errors import UsageError

MARGIN = 1  # pixels between images


def sample_to_png(
    source: str, output: Path, *, count: int, seed: int, label: int | None, steps: int | None, runs: Path
) -> dict[str, Any]:
    """Writes a PNG grid and says what made it. Raises DataError and UsageError where source or class do not fit."""
    from PIL import Image

    from edgegen.program.inputs import example_inputs
    from edgegen.support.pixels import to_uint8
    from edgegen.support.storage import atomic_path

    if output.suffix.lower() != ".png":
        raise UsageError(f"--output {output}: give a name that ends in .png")
    if output.is_dir():
        raise UsageError(f"--output {output}: is a folder; give the name of a file")
    image_source = open_source(source, steps=steps, runs=runs)
    inputs = example_inputs(image_source.signature, count, seed)
    classes = image_source.signature.num_classes
    if label is not None and label >= max(classes, 1):
        raise UsageError(f"--class {label}: " + (f"there are 0 to {classes - 1}" if classes else "it knows no classes"))
    if label is not None:
        (name,) = (spec.name for spec in image_source.signature.inputs if spec.role == "class")
        inputs[name] = np.full(count, label)
    images = image_source.run(inputs)
    if images.dtype != np.uint8:
        images = to_uint8(images.astype(np.float32), image_source.signature.outputs[0].image_range)
    pixels = grid(images)
    with atomic_path(output) as temporary:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(temporary, format="PNG")
    return {"file": str(output), "count": count, "seed": seed, "method": image_source.method}


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 images (n, height, width, channels) side by side in an almost square one."""
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * (height + MARGIN) - MARGIN, columns * (width + MARGIN) - MARGIN, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + MARGIN), i % columns * (width + MARGIN)
        sheet[top : top + height, left : left + width] = image
    return sheet
