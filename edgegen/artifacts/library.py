"""Commands as functions of the library: `edgegen.export`, `edgegen.verify`, `edgegen.read_recipe`."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import ExportResult, raise_failures
from edgegen.artifacts.real_inputs import InputFiles
from edgegen.artifacts.target import checked_targets
from edgegen.formats.bundle_folder import check_bundle, is_bundle
from edgegen.formats.manifest import check_folder
from edgegen.formats.recipe_file import find
from edgegen.recipe import Files, Recipe, read
from edgegen.support.progress import Progress, Silent
from edgegen.types import Parity

TARGETS = ("onnx", "executorch", "coreml")


def read_recipe(recipe: str | Path) -> Recipe:
    """Reads a recipe.

    Args:
        recipe: a TOML file, or the name of a shipped recipe, such as "digits".

    Returns:
        The recipe with its defaults filled in.

    Raises:
        RecipeError: the file cannot be read, or a key is wrong: which, what was found there, and what would do.
    """
    return read(find(str(recipe)))


def export(
    source: str | Path,
    output: str | Path,
    *,
    to: Sequence[str] = TARGETS,
    recipe: Recipe | None = None,
    signature: str | Path | None = None,
    inputs: Mapping[str, str | Path] | None = None,
    name: str | None = None,
    measure: bool = False,
    progress: Progress | None = None,
) -> list[ExportResult]:
    """What `edgegen export` does: writes the files of a generator, compares each with PyTorch, and describes them.

    Args:
        source: a generator folder, a diffusers folder or pipeline, `package.module:factory`, `file.py:factory`, a .pt2.
        output: the folder of the files, of manifest.json and README.md.
        to: what to write, each RUNTIME[-SCHEME][:VARIANT].
        recipe: its tables [export], [quantize] and [recover] say how; default: their defaults.
        signature: the TOML file of a factory's or .pt2's inputs and output.
        inputs: files of real inputs by the input's name, in place of those that the signature names.
        name: first part of the files' names; default: the source's.
        measure: whether to time the files on this machine.
        progress: receives messages and progress; default: nobody.

    Returns:
        One result for each network of the source; `parity` says by file how true it is, `folder` where the files are.

    Raises:
        UsageError: a target that does not exist, or does not fit the source.
        DataError: a source, signature or inputs that cannot be read.
        ExportError: a file could not be made; those that could are there.
        ParityError: a file does not compute what PyTorch computes.
        BudgetError: a file does not keep the recipe's budget.
    """
    files = Files()
    if recipe is not None:
        files = Files(export=recipe.export, quantize=recipe.quantize, recover=recipe.recover)
    settings = ExportSettings(
        checked_targets(to, files),
        export=files.export,
        quantize=files.quantize,
        recover=files.recover,
        measure=measure,
        name=name,
        inputs=InputFiles({key: Path(path) for key, path in inputs.items()}) if inputs else None,
    )
    results = export_source(
        str(source),
        Path(output),
        settings,
        signature=None if signature is None else Path(signature),
        progress=progress or Silent(),
    )
    raise_failures(results)
    return results


def verify(folder: str | Path) -> dict[str, Parity]:
    """Compares the files of a folder with its manifest.json by SHA-256, as `edgegen verify FOLDER` does.

    Of a bundle all files are compared; `edgegen verify` also runs the artifacts.

    Args:
        folder: what `export` wrote, the files of a run (runs/NAME/verify/latest/artifacts), a copy of them, a bundle.

    Returns:
        By file, how true it was when it was made.

    Raises:
        DataError: files that are missing or do not hold what was written, or a manifest that cannot be read.
    """
    known = {field.name for field in fields(Parity)}
    unknown = {"status": "not checked", "method": "none", "floor_db": 0.0}
    if is_bundle(Path(folder)):
        check_bundle(Path(folder))
    rows = [entry.row for entry in check_folder(Path(folder))]
    return {
        row["file"]: Parity(**{**unknown, **{key: row["parity"][key] for key in known & row.get("parity", {}).keys()}})
        for row in rows
    }
