"""What a folder, a run's name or a recipe stands for: the exported file that it ships, or its student.

runs/mine/                  a run, and its name `mine`
  choose/latest/generator   the student that it ships, in PyTorch
  verify/latest/artifacts   its files, with manifest.json: what `edgegen export -o FOLDER` writes as well
  data/latest/data.json     the names of its classes
"""

from pathlib import Path
from typing import Any

from edgegen import registry
from edgegen.errors import DataError, RecipeError, UsageError
from edgegen.exporters.base import Backend
from edgegen.formats.manifest import MANIFEST, rows_of
from edgegen.formats.recipe_file import find
from edgegen.formats.router import ROUTER
from edgegen.formats.signal_units import SignalUnits
from edgegen.formats.stage_folder import ARTIFACTS, AUTOENCODER, CHOICE, GENERATOR, RUN, STAGE
from edgegen.formats.text_pipeline import TEXT
from edgegen.recipe import read
from edgegen.support.storage import read_json
from edgegen.types import Signature


def resolve(source: str, *, runs: Path, generator: bool) -> Path:
    """The exported file or the generator folder that `source` stands for; `generator`: the latter in any case.

    Raises DataError where there is neither yet, UsageError for a name that stands for nothing.
    """
    path = Path(source)
    if path.is_dir() and not (path / RUN).is_file():
        return artifact_in(path) if (path / MANIFEST).is_file() else path
    run = path if path.is_dir() else _run_of(source, runs)
    files = run / "verify" / "latest" / ARTIFACTS
    if not generator and (files / MANIFEST).is_file() and _is_finished(run):
        return artifact_in(files)
    return _student_of(run, source)


def files_of(source: str, *, runs: Path) -> tuple[Path, Path | None]:
    """The folder of exported files that `source` stands for, and the run that it belongs to, if it does to one.

    Raises DataError where a run has no files of the generator that it ships now, UsageError as `resolve` does.
    """
    path = Path(source)
    if path.is_dir() and not (path / RUN).is_file():
        if not any((path / name).is_file() for name in (MANIFEST, TEXT, ROUTER)):
            if (path / "text_encoder" / MANIFEST).is_file():
                raise UsageError(
                    f"{source}: has the parts of a text pipeline and no {TEXT}, which joins them; export the "
                    "pipeline folder, with its tokenizer in it, with --fuse-decoder"
                )
            raise UsageError(f"{source}: has no {MANIFEST}; give a run, or a folder that `edgegen export` wrote")
        return path, None
    run = path if path.is_dir() else _run_of(source, runs)
    files = run / "verify" / "latest" / ARTIFACTS
    if not (files / MANIFEST).is_file() or not _is_finished(run):
        raise DataError(
            f"{source}: no checked files of its generator at {files} yet; make them by: edgegen run {source}"
        )
    return files, run


def artifact_in(folder: Path) -> Path:
    """The first file in its manifest that passed parity and that a runtime here executes; else the first that passed.

    Raises DataError where none passed.
    """
    passed = [row for row in rows_of(folder / MANIFEST) if row.get("parity", {}).get("status") == "ok"]
    if not passed:
        raise DataError(f"{folder}: none of its files passed the comparison with PyTorch; name the one to run")
    return folder / str(min(passed, key=lambda row: not _runs_here(row))["file"])


def decoder_folder(generator: Path) -> Path:
    """The folder that has the autoencoder of a generator, if it has one: its own, or the stage data of its run."""
    if not (generator / AUTOENCODER).is_dir():
        run = next((parent for parent in generator.absolute().parents if (parent / RUN).is_file()), None)
        if run is not None and (run / "data" / "latest" / AUTOENCODER).is_dir():
            return run / "data" / "latest"
    return generator


def class_names(place: Path, signature: Signature) -> tuple[str, ...]:
    """The names of the classes 0, 1, ... of a file or folder inside a run; () where they are not known."""
    run = next((parent for parent in place.absolute().parents if (parent / RUN).is_file()), None)
    data = None if run is None else run / "data" / "latest" / "data.json"
    if data is None or not data.is_file():
        return ()
    names = read_json(data).get("classes", ())
    return tuple(map(str, names)) if len(names) == signature.num_classes else ()


def units_of(generator: Path, signature: Signature) -> SignalUnits | None:
    """Those that edgegen.json of a generator folder gives its signals; None where it makes none, or gives none."""
    from edgegen.models.generator import ABOUT  # imported here: it needs torch

    path = generator / ABOUT
    if signature.outputs[0].role != "signal" or not path.is_file():
        return None
    return SignalUnits.of_record(read_json(path), channels=signature.sample_shape[0], where=str(path))


def _runs_here(row: Any) -> bool:
    if row.get("backend") not in registry.names("backend"):
        return False
    backend: Backend = registry.load("backend", row["backend"])
    return backend.runs_here(row.get("variant", ""))


def _run_of(source: str, runs: Path) -> Path:
    """The folder of the run with this name, or of this recipe."""
    if Path(source).name == source and (runs / source / RUN).is_file():
        return runs / source
    try:
        recipe = find(source)
    except RecipeError as e:
        names = sorted(path.parent.name for path in runs.glob(f"*/{RUN}"))
        finished = f"runs in {runs}: {', '.join(names)}" if names else f"there is no run in {runs}"
        raise UsageError(f"{source}: no file, no folder, no run and no recipe; {finished}. {e}") from e
    return runs / read(recipe).name


def _is_finished(run: Path) -> bool:
    """Whether the files of a run hold the generator that it ships now: nothing was trained again since."""
    chosen, verified = (run / stage / "latest" / STAGE for stage in ("choose", "verify"))
    try:
        return bool(_is_fresh(run) and read_json(verified)["made_from"]["choose"] == read_json(chosen)["digest"])
    except (DataError, KeyError, TypeError):
        return False


def _is_fresh(run: Path) -> bool:
    """Whether the stage choose knew the run's last student."""
    choice = run / "choose" / "latest" / CHOICE
    if not choice.is_file():
        return False
    content = read_json(choice)  # of an older version it does not say which student
    return isinstance(content, dict) and content.get("student") == _last_student(run).resolve().name


def _student_of(run: Path, source: str) -> Path:
    """The generator that a run ships; its distilled student, where that is newer than the choice."""
    if _is_fresh(run):
        return run / "choose" / "latest" / GENERATOR
    student = _last_student(run) / GENERATOR
    if not student.is_dir():
        stage = student.relative_to(run).parts[0]
        raise DataError(f"{source}: no student at {student} yet; make it by: edgegen run {source} --to {stage}")
    return student


def _last_student(run: Path) -> Path:
    """The newest result of the last stage that trains the run's student."""
    stage = "finish" if read_json(run / RUN).get("recipe", {}).get("finish") else "distill"
    return run / stage / "latest"
