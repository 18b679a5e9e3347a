"""`edgegen sample`: images from a recipe's student, from a generator folder or from an exported file, as one PNG."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edgegen.support.numbers import LARGEST_WHOLE

MOST_STEPS = 10_000
EXAMPLE = "Example: edgegen sample digits --count 16 --class 7 -o sevens.png"


def register(app: typer.Typer) -> None:
    text = "Make images by a finished recipe's one-step student, a generator folder, or an exported file."
    app.command("sample", help=f"{text}\n\n{EXAMPLE}")(sample)


def sample(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A recipe, a generator folder, or .onnx, .pte, .mlpackage.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The PNG to write.")] = Path(
        "sample.png"
    ),
    count: Annotated[int, typer.Option("--count", min=1, max=4096, help="How many images.")] = 16,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_WHOLE, help="The same seed gives the same images, everywhere.")
    ] = 0,
    label: Annotated[
        int | None, typer.Option("--class", min=0, help="One class for all images; default: all classes in turn.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=MOST_STEPS, help="Solver steps; default 1, for a teacher 20.")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run folders are.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """The noise is that of edgegen.noise, numbered by image."""
    from edgegen.artifacts.sample import sample_to_png

    result = sample_to_png(source, output, count=count, seed=seed, label=label, steps=steps, runs=runs)
    print(
        json.dumps(result, indent=2) if as_json else f"{result['file']}: {result['count']} images by {result['method']}"
    )
