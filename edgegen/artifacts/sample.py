"""Pictures for `edgegen sample`: one way in for recipes, generator folders and exported files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError, UsageError
from edgegen.types import Signature

SUFFIXES = {".onnx": "onnx", ".pte": "executorch", ".mlpackage": "coreml"}
TEACHER_STEPS = 20
MARGIN = 1  # pixels between images

# inputs by name -> images (n, channels, height, width)
Sampler = Callable[[dict[str, NDArray[Any]]], NDArray[Any]]


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
    run, signature, method = _open(source, steps, runs)
    inputs = example_inputs(signature, count, seed)
    classes = signature.num_classes
    if label is not None and label >= max(classes, 1):
        raise UsageError(f"--class {label}: " + (f"there are 0 to {classes - 1}" if classes else "it knows no classes"))
    if label is not None:
        inputs["class_labels"] = np.full(count, label)
    pixels = grid(to_uint8(run(inputs).astype(np.float32)))
    with atomic_path(output) as temporary:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(temporary, format="PNG")
    return {"file": str(output), "count": count, "seed": seed, "method": method}


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 images (n, height, width, channels) side by side in an almost square picture."""
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    picture = np.zeros((rows * (height + MARGIN) - MARGIN, columns * (width + MARGIN) - MARGIN, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + MARGIN), i % columns * (width + MARGIN)
        picture[top : top + height, left : left + width] = image
    return picture


def _open(source: str, steps: int | None, runs: Path) -> tuple[Sampler, Signature, str]:
    path = Path(source)
    if path.suffix in SUFFIXES:
        if steps not in (None, 1):
            raise UsageError(f"--steps {steps}: an exported file makes its image in one step")
        return _open_artifact(path)
    if not path.is_dir():
        path = _student_of(source, runs)
    return _open_generator(path, steps)


def _student_of(source: str, runs: Path) -> Path:
    from edgegen.formats.stage_folder import GENERATOR
    from edgegen.recipe import find, read

    folder = runs / read(find(source)).name / "distill" / "latest" / GENERATOR
    if not folder.is_dir():
        raise DataError(f"{source}: no student at {folder} yet; make it by: edgegen distill {source}")
    return folder


def _open_generator(path: Path, steps: int | None) -> tuple[Sampler, Signature, str]:
    import torch

    from edgegen.flow.solvers import solve
    from edgegen.models.load import load

    loaded = load(path)
    many = steps or (1 if loaded.about.get("role") in ("student", "baseline") else TEACHER_STEPS)

    def run(inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        labels = torch.from_numpy(inputs["class_labels"]) if "class_labels" in inputs else None
        return solve(loaded.net, torch.from_numpy(inputs["sample"]), labels, solver="euler", steps=many).x.numpy()

    return run, loaded.signature, f"PyTorch, {many} step{'s' * (many > 1)}"


def _open_artifact(path: Path) -> tuple[Sampler, Signature, str]:
    from edgegen.registry import load
    from edgegen.support.storage import read_json

    if not path.exists():
        raise DataError(f"no file {path}")
    manifest = path.parent / "manifest.json"
    if not manifest.exists():
        raise DataError(f"{path}: no manifest.json beside it, which says what goes in; `edgegen export` writes both")
    session = load("backend", SUFFIXES[path.suffix]).open(path)
    try:
        signature = Signature.from_dict(read_json(manifest)["signature"])
    except (KeyError, TypeError) as e:
        raise DataError(f"{manifest}: not a manifest of edgegen's; `edgegen export` writes one") from e
    output = signature.outputs[0].name
    return (lambda inputs: session(inputs)[output]), signature, session.method
