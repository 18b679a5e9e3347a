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
from edgegen.types import PIXELS, Signature

TEACHER_STEPS = 20
BATCH = 64  # images that an exported file makes in one run: of thousands, the activations would fill the memory


@dataclass(frozen=True)
class ImageSource:
    """`run` turns inputs by name into images (n, channels, height, width); `method` says what it is, in words.

    Images of a file that gives uint8 are (n, height, width, channels).
    """

    run: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
    signature: Signature
    method: str


def open_source(source: str, *, steps: int | None, runs: Path) -> ImageSource:
    """A recipe's student in `runs`, a generator folder or an exported file, after it was compared with its record.

    Raises DataError and UsageError.
    """
    from edgegen.exporters.base import backends_by_suffix

    path = Path(source)
    if path.suffix in (backends := backends_by_suffix()):
        if steps not in (None, 1):
            raise UsageError(f"--steps {steps}: an exported file makes its image in one step")
        return open_artifact(path, backends[path.suffix])
    folder = path if path.is_dir() else _student_of(source, runs)
    _check_stage_of(folder)
    return open_generator(folder, steps=steps)


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
    """An exported file in its runtime, with the manifest beside it. Raises DataError, ExportError.

    The runtime is in a child process, which ends when nothing uses the source.
    """
    from edgegen.exporters.base import in_parts
    from edgegen.formats.manifest import MANIFEST, checked_entry
    from edgegen.verification.session_process import SessionProcess

    if not path.exists():
        raise DataError(f"no file {path}")
    entry, manifest = checked_entry(path), path.parent / MANIFEST
    if entry is None:
        lacking = f"{MANIFEST} beside it does not list it" if manifest.exists() else f"no {MANIFEST} beside it"
        raise DataError(f"{path}: {lacking}, which says what goes in; `edgegen export` writes both")
    try:
        signature = Signature.from_dict(entry.signature)
    except (KeyError, TypeError) as e:
        raise DataError(f"{manifest}: not a manifest of edgegen's; `edgegen export` writes one") from e
    session = SessionProcess().open(backend, path)
    output = PIXELS if entry.row.get("variant") == "generate" else signature.outputs[0].name

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return in_parts(inputs, lambda part: {output: session(part)[output]}, largest=BATCH)[output]

    return ImageSource(run, signature, session.method)


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


def _check_stage_of(generator: Path) -> None:
    """Where a generator folder is part of a stage's result, compares its files. Raises DataError."""
    from edgegen.formats.file_hashes import FileHashes
    from edgegen.formats.stage_folder import STAGE, check_files
    from edgegen.support.storage import read_json

    stage = generator.parent / STAGE
    if not stage.is_file():
        return
    try:
        files = {
            name: {"sha256": facts["sha256"]}
            for name, facts in read_json(stage)["files"].items()
            if name.startswith(f"{generator.name}/")
        }
    except (KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{stage}: not the record of a stage; run the recipe again") from e
    check_files(stage.parent, files, hashes=FileHashes())


def _student_of(source: str, runs: Path) -> Path:
    """The generator that a recipe's run ships; its distilled student, where that is newer than the choice."""
    from edgegen.formats.recipe_file import find
    from edgegen.formats.stage_folder import CHOICE, GENERATOR
    from edgegen.recipe import read
    from edgegen.support.storage import read_json

    run = runs / read(find(source)).name
    student, shipped = (run / stage / "latest" for stage in ("distill", "choose"))
    if (shipped / CHOICE).is_file() and read_json(shipped / CHOICE)["distill"] == student.resolve().name:
        return shipped / GENERATOR
    if not (student / GENERATOR).is_dir():
        raise DataError(f"{source}: no student at {student / GENERATOR} yet; make it by: edgegen distill {source}")
    return student / GENERATOR
