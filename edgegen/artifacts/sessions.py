"""Opens what makes images, to run it on this machine: a recipe's student, a generator folder, an exported file.

`network` does it for a worker of the profiler, which is given "edgegen.artifacts.sessions:network".
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgegen.errors import DataError, UsageError
from edgegen.types import Signature

TEACHER_STEPS = 20


@dataclass(frozen=True)
class ImageSource:
    """`run` turns inputs by name into images (n, channels, height, width); `method` says what it is, in words."""

    run: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
    signature: Signature
    method: str


def open_source(source: str, *, steps: int | None, runs: Path) -> ImageSource:
    """A recipe's student in `runs`, a generator folder or an exported file. Raises DataError and UsageError."""
    from edgegen.exporters.base import backends_by_suffix

    path = Path(source)
    if path.suffix in (backends := backends_by_suffix()):
        if steps not in (None, 1):
            raise UsageError(f"--steps {steps}: an exported file makes its image in one step")
        return open_artifact(path, backends[path.suffix])
    return open_generator(path if path.is_dir() else _student_of(source, runs), steps=steps)


def open_generator(path: Path, *, steps: int | None = None) -> ImageSource:
    """A generator folder in PyTorch, by Euler steps: as many as a student or a teacher usually takes."""
    import torch

    from edgegen.flow.solvers import solve
    from edgegen.models.load import load

    loaded = load(path)
    count = steps or (1 if loaded.about.get("role") in ("student", "baseline") else TEACHER_STEPS)

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        labels = torch.from_numpy(inputs["class_labels"]) if "class_labels" in inputs else None
        return solve(loaded.net, torch.from_numpy(inputs["sample"]), labels, solver="euler", steps=count).x.numpy()

    return ImageSource(run, loaded.signature, f"PyTorch, {count} step{'s' * (count > 1)}")


def open_artifact(path: Path, backend: str) -> ImageSource:
    """An exported file in its runtime, with the manifest beside it. Raises DataError, ExportError."""
    from edgegen import registry
    from edgegen.formats.manifest import MANIFEST
    from edgegen.support.storage import read_json

    if not path.exists():
        raise DataError(f"no file {path}")
    manifest = path.parent / MANIFEST
    if not manifest.exists():
        raise DataError(f"{path}: no manifest.json beside it, which says what goes in; `edgegen export` writes both")
    session = registry.load("backend", backend).open(path)
    try:
        signature = Signature.from_dict(read_json(manifest)["signature"])
    except (KeyError, TypeError) as e:
        raise DataError(f"{manifest}: not a manifest of edgegen's; `edgegen export` writes one") from e
    output = signature.outputs[0].name
    return ImageSource(lambda inputs: session(inputs)[output], signature, session.method)


def preload() -> None:
    """Imports torch in a worker before its clock starts."""
    importlib.import_module("torch")


def network(*, threads: int, folder: str, steps: int) -> Callable[[], object]:
    """One image of a generator folder in PyTorch, for a worker.

    With one thread where the caller has no reason for more: at batch 1 of a small network a second thread mostly waits
    for the first (8 ms in place of 1 ms, measured on 2 cores).
    """
    import torch

    from edgegen.program.inputs import example_inputs

    torch.set_num_threads(threads)
    source = open_generator(Path(folder), steps=steps)
    inputs = example_inputs(source.signature, 1, 0)
    return lambda: source.run(inputs)


def _student_of(source: str, runs: Path) -> Path:
    from edgegen.formats.recipe_file import find
    from edgegen.formats.stage_folder import GENERATOR
    from edgegen.recipe import read

    folder = runs / read(find(source)).name / "distill" / "latest" / GENERATOR
    if not folder.is_dir():
        raise DataError(f"{source}: no student at {folder} yet; make it by: edgegen distill {source}")
    return folder
