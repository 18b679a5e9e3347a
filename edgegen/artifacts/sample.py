"""Images or signals for `edgegen sample`: made by a recipe's student, a generator folder or an exported file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.router import routed, routes_in
from edgegen.artifacts.sample_inputs import GivenInputs, paths_by_name, read_inputs, whole_steps
from edgegen.artifacts.sessions import ImageSource, open_source
from edgegen.artifacts.signal_files import SUFFIXES, write_signals
from edgegen.artifacts.tiles import Assembled, assemble
from edgegen.errors import DataError, ExportError, UsageError
from edgegen.formats.file_hashes import SHOWN
from edgegen.formats.picture import KEYWORD, PictureRecipe
from edgegen.support.pixels import to_uint8
from edgegen.support.progress import Progress, Silent
from edgegen.support.storage import atomic_path, sha256_of
from edgegen.types import Signature

PNG = ".png"
MARGIN = 1  # pixels between images
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # of height and width: networks halve a picture up to six times
VISIBLE = 4.0  # steps of 255 by which tiles differ at their seams, from which on it is said


def sample_to_png(
    source: str | Path,
    output: str | Path | None = None,
    *,
    inputs: Sequence[str] = (),
    count: int | None = None,
    seed: int = 0,
    label: str | int | None = None,
    steps: int | None = None,
    given: Mapping[str, str] | None = None,
    best_of: int = 1,
    runs: Path = Path("runs"),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes one image, or a grid of several, or signals, with its recipe in a .png or .npz; and says what made it.

    Args:
        source: an exported file, a folder of such files, a generator folder, the name of a run, a recipe.
        output: the PNG; of signals a .npz, .csv, .wav or .svg. None: sample.png, or sample.npz.
        inputs: images and arrays, each `FILE` or `NAME=FILE`.
        count: images; None: as many as the inputs have rows, 16 where all is drawn.
        seed: of the noise and of everything that is not given.
        label: name or number (a text), or number of a class for all images; None: all classes in turn.
        steps: of the solver, for a generator folder.
        given: by name, the SHA-256 that the files of `inputs` must have; None: any.
        best_of: images that a student makes for each one, of which its verifier chooses the best.
        runs: where run folders are.
        progress: of the tiles of a picture that is larger than the file's.

    Returns:
        file, count, seed; `method` and `source`, what ran and which file or folder; `size`, [height, width] of an
        image, [channels, length] of a signal; `tiles`; `notes`, what was assumed.

    Raises:
        DataError, UsageError: source, class or inputs do not fit.
        ExportError: the runtime refuses the inputs.
    """
    if output is not None:
        check_output(Path(output), (PNG, *SUFFIXES))
    image_source = _open(str(source), steps=steps, runs=runs, best_of=best_of)
    signature = image_source.signature
    output = _output_for(image_source, output)
    paths = paths_by_name(inputs, signature)
    hashes = {name: sha256_of(path) for name, path in paths.items()}
    _check_given(hashes, given)
    number = None if label is None else _class_number(label, image_source)
    read = read_inputs(paths, signature, label=number, count=count, seed=seed, of=str(image_source.place))
    recipe = _recipe(image_source, read, label=number, best_of=best_of, inputs=hashes)
    if signature.makes_images:
        written = _write_images(image_source, read, output, recipe=recipe, progress=progress or Silent())
    else:
        written = _write_signals(image_source, read, output, recipe=recipe)
    return {
        "file": str(output),
        "count": read.count,
        "seed": seed,
        "method": image_source.method,
        "source": str(image_source.place),
        **written,
    }


def _write_images(
    source: ImageSource, given: GivenInputs, output: Path, *, recipe: PictureRecipe, progress: Progress
) -> dict[str, Any]:
    made = _images(source, given, progress)
    save(grid(made.images), output, recipe=recipe)
    notes = [*given.notes(), *_seam_notes(made)]
    return {"size": list(made.images.shape[1:3]), "tiles": made.tiles, "notes": notes}


def _write_signals(source: ImageSource, given: GivenInputs, output: Path, *, recipe: PictureRecipe) -> dict[str, Any]:
    inputs = given.at(0, 0)[1]
    signals = np.asarray(source.run(inputs), np.float32)
    labels = next((inputs[spec.name] for spec in source.signature.inputs if spec.role == "class"), None)
    write_signals(output, signals, source.units, labels=labels, recipe=recipe.text())
    return {"size": list(signals.shape[1:]), "tiles": 1, "notes": given.notes()}


def _recipe(
    source: ImageSource, read: GivenInputs, *, label: int | None, best_of: int, inputs: Mapping[str, str]
) -> PictureRecipe:
    return PictureRecipe(
        edgegen=version("edgegen"),
        artifact=sha256_of(source.place),
        seed=read.seed,
        label=label,
        count=read.count,
        steps=source.steps,
        best_of=best_of,
        inputs=dict(inputs),
    )


def _open(source: str, *, steps: int | None, runs: Path, best_of: int) -> ImageSource:
    """What `source` is; of the folder of several students all of them, each for its classes."""
    folder = Path(source)
    routes = routes_in(folder)
    if not routes:
        return open_source(source, steps=steps, runs=runs, best_of=best_of)
    parts = [open_source(str(folder / route.folder), steps=steps, runs=runs, best_of=best_of) for route in routes]
    return routed(folder, routes, parts)


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


def _seam_notes(made: Assembled) -> list[str]:
    if made.difference <= VISIBLE:
        return []
    return [
        f"its {made.tiles} tiles differ by {made.difference:.0f} of 255 where they meet: the network looks at more "
        "than a tile; export it for any size (onnx:any_size), which takes the whole picture"
    ]


def _output_for(source: ImageSource, output: str | Path | None) -> Path:
    """The file for what the source makes. Raises UsageError where that is neither an image nor a signal."""
    spec = source.signature.outputs[0]
    if not source.signature.makes_images and not (spec.role == "signal" and len(spec.shape) == 3):
        shape = "x".join(map(str, spec.shape))
        raise UsageError(f"{source.place}: its output '{spec.name}' is {spec.role} {shape}, no image to show")
    suffixes = (PNG,) if source.signature.makes_images else SUFFIXES
    path = Path(f"sample{suffixes[0]}") if output is None else Path(output)
    check_output(path, suffixes)
    return path


def check_output(output: Path, suffixes: Sequence[str]) -> None:
    """Raises UsageError where a file that is to be written has another suffix, or is a folder."""
    if output.suffix.lower() not in suffixes:
        raise UsageError(f"--output {output}: give a name that ends in {', '.join(suffixes)}")
    if output.is_dir():
        raise UsageError(f"--output {output}: is a folder; give the name of a file")


def save(pixels: NDArray[np.uint8], output: Path, *, recipe: PictureRecipe | None = None) -> None:
    """Writes (height, width, channels) as a PNG that carries its recipe. Raises StorageError."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    if recipe is not None:
        chunks.add_text(KEYWORD, recipe.text())
    with atomic_path(output) as temporary:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        image.save(temporary, format="PNG", pnginfo=chunks)


def _check_given(hashes: Mapping[str, str], wanted: Mapping[str, str] | None) -> None:
    """Raises DataError where the files of --input are not those that a picture was made from."""
    for name in sorted(hashes.keys() | wanted.keys()) if wanted is not None else ():
        if name not in hashes:
            raise DataError(f"the picture was made from a file for '{name}'; give it by --input {name}=FILE")
        if hashes[name] != (expected := wanted.get(name, "none") if wanted else "none"):
            raise DataError(
                f"--input {name}: the picture was made from another file: its SHA-256 is {expected[:SHOWN]}..., this "
                f"one has {hashes[name][:SHOWN]}..."
            )


def _class_number(label: str | int, source: ImageSource) -> int:
    """The class with this name, else with this number. Raises UsageError that lists the classes."""
    classes, names = source.signature.num_classes, source.class_names
    if label in names:  # never a number
        return names.index(label)
    text = str(label)
    if text.isascii() and text.isdigit() and int(text) < classes:
        return int(text)
    if not classes:
        raise UsageError(f"--class {label}: {source.place} knows no classes")
    if names == tuple(map(str, range(classes))):
        raise UsageError(f"--class {label}: there are 0 to {classes - 1}")
    if names:
        raise UsageError(f"--class {label}: there are " + ", ".join(f"{i} {name}" for i, name in enumerate(names)))
    raise UsageError(f"--class {label}: there are 0 to {classes - 1}, and {source.place} does not know their names")


def _images(source: ImageSource, given: GivenInputs, progress: Progress) -> Assembled:
    """At the size of what was given: in one run, or in tiles where the file takes one size."""
    if given.size is None:
        images = source.run(given.at(0, 0)[1])
        if images.dtype != np.uint8:
            images = to_uint8(images.astype(np.float32), source.signature.outputs[0].image_range)
        return Assembled(images, 1, 0.0)
    made = _whole(source, given) if source.sizes is None else _in_tiles(source, given, progress)
    own, output, margin = (
        _size_of(given.signature, given.reference),
        source.signature.image_shape[1:],
        source.signature.outputs[0].margin,
    )
    height, width = (
        math.ceil(Fraction((size + margin) * have, of)) - margin
        for size, have, of in zip(output, given.size, own, strict=True)
    )
    return replace(made, images=made.images[:, :height, :width])


def _whole(source: ImageSource, given: GivenInputs) -> Assembled:
    """In one run, by a file for any size; what it refuses is continued to a multiple of 2, 4, ..."""
    assert given.size is not None, "called where something with a size was given"
    units = whole_steps(given.signature, given.reference)
    refusal: ExportError | None = None
    for multiple in MULTIPLES:
        height, width = (
            math.ceil(size / math.lcm(unit, multiple)) * math.lcm(unit, multiple)
            for size, unit in zip(given.size, units, strict=True)
        )
        sized, arrays = given.at(height, width)
        try:
            return assemble(
                source.run, arrays, sized, tile=sized, reference=given.reference, steps=units, progress=Silent()
            )
        except ExportError as e:
            refusal = refusal or e
    height, width = given.size
    raise ExportError(f"{source.place}: {height}x{width} (height x width) is refused: {refusal}") from refusal


def _in_tiles(source: ImageSource, given: GivenInputs, progress: Progress) -> Assembled:
    """By a file of one size, or of several of which one is that of the picture."""
    assert given.size is not None, "called where something with a size was given"
    units, tile = whole_steps(given.signature, given.reference), given.signature
    height, width = given.size
    if _first_size(given) in (source.sizes or ()):
        tile = given.signature.resized(height, width, of=given.reference)
    else:
        height, width = (
            max(own, math.ceil(have / unit) * unit)
            for have, own, unit in zip(given.size, _size_of(tile, given.reference), units, strict=True)
        )
    sized, arrays = given.at(height, width)
    return assemble(source.run, arrays, sized, tile=tile, reference=given.reference, steps=units, progress=progress)


def _size_of(signature: Signature, name: str) -> tuple[int, int]:
    spec = next(spec for spec in signature.inputs if spec.name == name)
    return int(spec.shape[2]), int(spec.shape[3])


def _first_size(given: GivenInputs) -> tuple[int, int] | None:
    """Height and width of the first input beside what was given; None where it has none, or they are not whole."""
    try:
        first = given.signature.resized(*(given.size or (0, 0)), of=given.reference).inputs[0]
    except ValueError:
        return None
    return (int(first.shape[2]), int(first.shape[3])) if first.is_spatial else None
