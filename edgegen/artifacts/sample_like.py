"""`edgegen sample --like FILE`: a picture or signals once more, by the artifact, seed and class that it carries."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts import shipped
from edgegen.artifacts.router import routes_in
from edgegen.artifacts.sample import PNG, check_output, sample_to_png
from edgegen.artifacts.sampled_file import NPZ, is_signals, recipe_of, values_of
from edgegen.errors import DataError, UsageError
from edgegen.exporters.base import backends_by_suffix
from edgegen.formats.file_hashes import SHOWN
from edgegen.formats.manifest import MANIFEST, rows_of
from edgegen.formats.picture import PictureRecipe
from edgegen.formats.stage_folder import ARTIFACTS, GENERATOR
from edgegen.support.progress import Progress
from edgegen.support.storage import sha256_of

FOLDERS = ("exports/*", "exports/*/*", "bundles/*")  # where commands write files that nobody gave another place
GENERATORS = ("choose", "finish", "distill", "baseline", "slim", "teacher")  # stages of a run that give one
ONLY_IN_APPS = (
    "by tokenizer, text encoder and generator, of which `edgegen sample` runs the last alone; give the prompt and the "
    "seed to the app"
)
OTHER_PLACE = "another machine, another version of the runtime, or a file that was changed"


def sample_like(
    picture: Path,
    source: str | None,
    output: Path | None = None,
    *,
    inputs: Sequence[str] = (),
    other_artifact: bool = False,
    runs: Path = Path("runs"),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Makes the images or signals of `picture` again; with the same artifact on the same machine they are equal.

    Args:
        picture: a PNG that edgegen or an app of its templates wrote, or a .npz of signals.
        source: as for `sample_to_png`; of several files the one that made the picture. None: it is looked for in
            `runs`, exports/ and bundles/.
        output: the PNG or .npz. None: sample.png, or sample.npz.
        inputs: the images and arrays that went into the picture.
        other_artifact: whether another artifact may take the same seed and class.
        runs: where run folders are.
        progress: as for `sample_to_png`.

    Returns:
        What `sample_to_png` gives, with `equal`: whether the pixels or signals are those of `picture`.

    Raises:
        DataError: a picture without a recipe, another artifact, other inputs.
        UsageError: as `sample_to_png`, and an output that is `picture`.
    """
    recipe, suffix = recipe_of(picture), NPZ if is_signals(picture) else PNG
    output = output or Path(f"sample{suffix}")
    check_output(output, (suffix,))
    if recipe.prompt is not None:
        raise UsageError(f"{picture}: was made from the prompt {recipe.prompt!r} {ONLY_IN_APPS}")
    if output.exists() and output.samefile(picture):
        raise UsageError(f"--output {output}: is the file that is to be made again; give another name")
    place = _found(recipe, picture, runs) if source is None else _named(source, recipe, runs)
    reason = _reason(place, recipe, picture, other_artifact=other_artifact)
    result = sample_to_png(
        place,
        output,
        inputs=inputs,
        count=recipe.count,
        seed=recipe.seed,
        label=recipe.label,
        steps=recipe.steps,
        best_of=recipe.best_of,
        given=recipe.inputs,
        runs=runs,
        progress=progress,
    )
    before, after = values_of(picture), values_of(output)
    equal = np.array_equal(before, after)
    notes = [] if equal else [_difference(picture, before, after, reason)]
    return {**result, "like": str(picture), "equal": equal, "notes": [*result["notes"], *notes]}


def _reason(place: Path, recipe: PictureRecipe, picture: Path, *, other_artifact: bool) -> str:
    """Why what `place` makes may differ from the picture. Raises DataError where another artifact was not asked for."""
    actual = sha256_of(place)
    if actual == recipe.artifact:
        return OTHER_PLACE
    if other_artifact:
        return "another artifact"
    raise DataError(
        f"{picture}: was made by the artifact with SHA-256 {recipe.artifact[:SHOWN]}..., and {place} has "
        f"{actual[:SHOWN]}...; give the one that made it, or --other-artifact for what this one makes of its seed"
    )


def _difference(picture: Path, before: NDArray[Any], after: NDArray[Any], reason: str) -> str:
    if before.shape != after.shape:
        return f"{picture} has another size: it was cut or scaled since"
    distance, kind, of = np.abs(before - after), "pixels", " of 255"
    if is_signals(picture):
        kind, of = "signals", ""
    return (
        f"not the same {kind} as in {picture}: {np.count_nonzero(distance)} of {distance.size} values differ, by at "
        f"most {distance.max():.4g}{of}: {reason}"
    )


def _named(source: str, recipe: PictureRecipe, runs: Path) -> Path:
    """The file or folder of `source`: of several that one that made the picture, else the one that it stands for."""
    path = Path(source)
    if path.suffix in backends_by_suffix():
        return path
    if recipe.steps is None:
        run = runs / source if (runs / source).is_dir() and not path.is_dir() else path
        for folder in (path, run / "verify" / "latest" / ARTIFACTS):
            artifact = _with_hash(folder, recipe.artifact)
            if artifact is not None:
                return artifact
    if routes_in(path) and sha256_of(path) == recipe.artifact:
        return path
    return shipped.resolve(source, runs=runs, generator=recipe.steps is not None)


def _found(recipe: PictureRecipe, picture: Path, runs: Path) -> Path:
    """Raises DataError where nothing in the usual places has the hash."""
    for place in _places(recipe, runs):
        return place
    raise DataError(
        f"{picture}: was made by the artifact with SHA-256 {recipe.artifact[:SHOWN]}..., which is neither in {runs}, "
        "exports nor bundles; name its file: edgegen sample --like PICTURE FILE"
    )


def _places(recipe: PictureRecipe, runs: Path) -> Iterator[Path]:
    if recipe.steps is not None:
        for stage in GENERATORS:
            for folder in sorted(runs.glob(f"*/{stage}/latest/{GENERATOR}")):
                if sha256_of(folder) == recipe.artifact:
                    yield folder
        return
    folders = [runs.glob(f"*/verify/latest/{ARTIFACTS}"), *map(Path().glob, FOLDERS)]
    for folder in (folder for paths in folders for folder in sorted(paths)):
        artifact = _with_hash(folder, recipe.artifact)
        if artifact is not None:
            yield artifact


def _with_hash(folder: Path, sha256: str) -> Path | None:
    """The artifact in `folder` that has this hash, by the folder's manifest."""
    try:
        rows = rows_of(folder / MANIFEST) if (folder / MANIFEST).is_file() else []
    except DataError:  # of something else; where it is meant, opening it says what is wrong
        return None
    return next((folder / str(row["file"]) for row in rows if row["sha256"] == sha256), None)
