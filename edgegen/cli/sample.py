"""`edgegen sample`: images, or signals, from a run, a generator folder or an exported file."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgegen.cli.run import JsonOption
from edgegen.errors import UsageError
from edgegen.support.numbers import LARGEST_WHOLE
from edgegen.support.printable import printable

MOST_STEPS, MOST_CANDIDATES = 10_000, 1_000
TEXT = """Make images by a run's shipped file, a recipe's student, a generator folder, or an exported file.

Networks that take an image get it by --input: a file for any size takes the whole picture, one of a fixed size takes
it in overlapping tiles.

The PNG carries its recipe: the artifact's SHA-256, seed, class. `edgegen inspect FILE.png` shows it, and --like makes
the picture again.

Signals go into a .npz or .csv in the units of the data, one of them into a .wav, plots of them into an .svg. A .npz
carries its recipe, as a PNG does.

Example: edgegen sample digits --count 16 --class 7 -o sevens.png

  edgegen sample signals --count 8 --class fast -o fast.csv

  edgegen sample --like sevens.png -o again.png

  edgegen sample phone/superres_onnx_w8a8.onnx --input photo.png -o large.png

  edgegen sample phone --input style=paint.png --input content=photo.png -o styled.png"""


def register(app: typer.Typer) -> None:
    app.command("sample", help=TEXT)(sample)


SourceArgument = Annotated[
    str | None, typer.Argument(metavar="SOURCE", help="A run's name, a recipe, a folder, or .onnx, .pte, .mlpackage.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="The PNG, or of signals .npz, .csv, .wav, .svg; default: sample.png, sample.npz.",
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option("--like", metavar="FILE", help="Make this PNG or .npz again; SOURCE is looked for if left out."),
]
OtherOption = Annotated[
    bool, typer.Option("--other-artifact", help="With --like: also by an artifact that did not make the picture.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="[NAME=]FILE", help="An image, or .npz or .safetensors, for an input."),
]
CountOption = Annotated[
    int | None, typer.Option("--count", min=1, max=4096, help="How many images; default 16, 1 with --input.")
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=LARGEST_WHOLE, help="The same seed gives the same images everywhere; default 0."),
]
ClassOption = Annotated[
    str | None,
    typer.Option("--class", metavar="CLASS", help="Name or number of one class for all; default: all in turn."),
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, max=MOST_STEPS, help="Solver steps in PyTorch; default 1, for a teacher 20."),
]
BestOption = Annotated[
    int | None,
    typer.Option("--best-of", min=1, max=MOST_CANDIDATES, help="The student's verifier chooses one of N images."),
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run folders are.")]


def sample(
    source: SourceArgument = None,
    output: OutputOption = None,
    like: LikeOption = None,
    other_artifact: OtherOption = False,
    inputs: InputOption = None,
    count: CountOption = None,
    seed: SeedOption = None,
    label: ClassOption = None,
    steps: StepsOption = None,
    best_of: BestOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """The noise is that of edgegen.noise, numbered by image."""
    from edgegen.artifacts.sample import sample_to_png
    from edgegen.artifacts.sample_like import sample_like
    from edgegen.support.progress import progress

    given = inputs or ()
    chosen = {"--count": count, "--seed": seed, "--class": label, "--steps": steps, "--best-of": best_of}
    if like is not None:
        if extra := [flag for flag, value in chosen.items() if value is not None]:
            raise UsageError(f"{extra[0]} does not go with --like: the file says it")
        result = sample_like(
            like,
            source,
            output,
            inputs=given,
            other_artifact=other_artifact,
            runs=runs,
            progress=progress(),
        )
    elif source is None or other_artifact:
        raise UsageError(
            "--other-artifact goes with --like" if source else "give a SOURCE, such as digits; or --like FILE"
        )
    else:
        result = sample_to_png(
            source,
            output,
            inputs=given,
            count=count,
            seed=seed or 0,
            label=label,
            steps=steps,
            best_of=best_of or 1,
            runs=runs,
            progress=progress(),
        )
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)


def _print(result: Mapping[str, Any]) -> None:
    for note in result["notes"]:
        print(printable(note), file=sys.stderr)
    height, width = result["size"]
    is_image = Path(result["file"]).suffix.lower() == ".png"
    kind = "image" if is_image else "signal"
    size = f"{width}x{height}" if is_image else f"{height} x {width} (channels x length)"
    images = f"1 {kind}" if result["count"] == 1 else f"{result['count']} {kind}s"
    tiles = f" in {result['tiles']} tiles" if result["tiles"] > 1 else ""
    again = f", the same {'pixels' if is_image else 'signals'}" if result.get("equal") else ""
    made_by = f"{result['source']} ({result['method']})"
    print(printable(f"{result['file']}: {images}, {size}{tiles}, by {made_by}{again}"))
