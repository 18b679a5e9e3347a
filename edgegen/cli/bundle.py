"""`edgegen bundle`: the files of a run or an export as one folder for an app."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edgegen.cli.run import JsonOption, RunsOption
from edgegen.cli.terminal import show

TEXT = """Make a folder for an app from the files of a run or an export.

It holds the artifacts, golden images of each, a model card, and manifest.json: inputs, outputs, noise, classes, hashes,
latencies. `edgegen verify` checks all of it. The folder can be uploaded to the Hugging Face hub as it is.

Example: edgegen bundle digits -o phone/

  edgegen bundle exports/my-unet --artifact onnx-w8a8 --artifact my-unet_coreml_fp16.mlpackage --zip"""


def register(app: typer.Typer) -> None:
    app.command("bundle", help=TEXT)(bundle)


def bundle(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A run's name or folder, a recipe, or a folder of an export.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Default: bundles/NAME. A bundle is replaced.")
    ] = None,
    artifacts: Annotated[
        list[str] | None,
        typer.Option(
            "--artifact", metavar="A", help="A file or a target such as onnx-w8a8; default: all that passed parity."
        ),
    ] = None,
    zipped: Annotated[bool, typer.Option("--zip", help="Write DIR.zip as well.")] = False,
    measurements: Annotated[
        list[Path] | None,
        typer.Option("--measurements", metavar="FILE", help="Of `edgegen profile -o`: its latencies are taken over."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of the bundle, in its card.")] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Trains and exports nothing."""
    from edgegen.artifacts.bundle import bundle_source
    from edgegen.support.progress import progress

    made, folder, archive = bundle_source(
        source,
        output,
        artifacts=artifacts or (),
        name=name,
        zipped=zipped,
        measurements=measurements or (),
        runs=runs,
        progress=progress(),
    )
    if as_json:
        archive_name = None if archive is None else str(archive)
        print(json.dumps({"bundle": str(folder), "zip": archive_name, "manifest": made.to_json()}, indent=2))
        return
    for artifact in made.artifacts:
        show(f"{artifact.file}: {artifact.nbytes / 1e6:.2f} MB; golden images: {artifact.golden.made_by}")
    nbytes = sum(file.nbytes for file in made.files)
    show(f"bundle: {folder}: {len(made.files)} files, {nbytes / 1e6:.2f} MB" + (f"; {archive}" if archive else ""))
