"""`edgegen sample`: images from a run, a generator folder or an exported file, as one PNG."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgegen.support.numbers import LARGEST_WHOLE
from edgegen.support.printable import printable

MOST_STEPS = 10_000
MOST_CANDIDATES = 1_000
TEXT = """Make images by a run's shipped file, a recipe's student, a generator folder, or an exported file.

Networks that take an image get it by --input: a file for any size takes the whole picture, one of a fixed size takes
it in overlapping tiles.

Example: edgegen sample digits --count 16 --class 7 -o sevens.png

  edgegen sample phone/superres_onnx_w8a8.onnx --input photo.png -o large.png

  edgegen sample phone --input style=paint.png --input content=photo.png -o styled.png"""


def register(app: typer.Typer) -> None:
    app.command("sample", help=TEXT)(sample)


def sample(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A run's name, a recipe, a folder, or .onnx, .pte, .mlpackage."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The PNG to write.")] = Path(
        "sample.png"
    ),
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="[NAME=]FILE", help="An image, or .npz or .safetensors, for an input."),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, max=4096, help="How many images; default 16, 1 with --input.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_WHOLE, help="The same seed gives the same images, everywhere.")
    ] = 0,
    label: Annotated[
        str | None,
        typer.Option("--class", metavar="CLASS", help="Name or number of one class for all; default: all in turn."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, max=MOST_STEPS, help="Solver steps in PyTorch; default 1, for a teacher 20."),
    ] = None,
    best_of: Annotated[
        int,
        typer.Option("--best-of", min=1, max=MOST_CANDIDATES, help="The student's verifier chooses one of N images."),
    ] = 1,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run folders are.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """The noise is that of edgegen.noise, numbered by image."""
    from edgegen.artifacts.sample import sample_to_png
    from edgegen.support.progress import progress

    result = sample_to_png(
        source,
        output,
        inputs=inputs or (),
        count=count,
        seed=seed,
        label=label,
        steps=steps,
        best_of=best_of,
        runs=runs,
        progress=progress(),
    )
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for note in result["notes"]:
        print(printable(note), file=sys.stderr)
    height, width = result["size"]
    images = "1 image" if result["count"] == 1 else f"{result['count']} images"
    tiles = f" in {result['tiles']} tiles" if result["tiles"] > 1 else ""
    print(printable(f"{result['file']}: {images}, {width}x{height}{tiles}, by {result['source']} ({result['method']})"))
