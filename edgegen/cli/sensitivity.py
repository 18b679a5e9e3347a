"""`edgegen sensitivity`: the error that quantizing each layer causes, and which layers to leave float."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgegen.cli.export import InputsOption, input_files
from edgegen.cli.run import RunsOption, is_recipe
from edgegen.cli.terminal import show
from edgegen.errors import UsageError, unknown_name

TEXT = """Show how quantizing each layer alone changes a generator's images, and the gain of leaving some layers float.

SOURCE is one of `edgegen export`, or a recipe: then its student (stages without a result run first). A recipe has
images to compare with, so that each layer's change of fd_local is shown as well: a layer may change the images and
leave them as good as before.

Example: edgegen sensitivity ./my-unet

  edgegen sensitivity digits

  edgegen sensitivity ./my-unet --scheme w4-block --json"""


def register(app: typer.Typer) -> None:
    app.command("sensitivity", help=TEXT)(sensitivity)


def sensitivity(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A generator; see above.")],
    scheme: Annotated[str, typer.Option("--scheme", metavar="NAME", help="w8a8, w8a16, w8 or w4-block.")] = "w8a8",
    signature: Annotated[
        Path | None, typer.Option("--signature", metavar="FILE", help="TOML: inputs and outputs of a factory or .pt2.")
    ] = None,
    inputs: InputsOption = None,
    runs: RunsOption = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
) -> None:
    """Writes nothing, except the results of a recipe's stages."""
    from edgegen.quantize.schemes import DEFAULT_OPTIONS, GRIDS

    if scheme not in GRIDS:
        raise UsageError(unknown_name("scheme", scheme, GRIDS))
    from edgegen.artifacts.real_inputs import generators_of
    from edgegen.artifacts.sensitivity import sensitivity_of
    from edgegen.models.sources.load import load_sources
    from edgegen.recipe import Files
    from edgegen.support.progress import progress

    figures: dict[str, Any] = {}
    if is_recipe(source):
        for flag, value in (("--signature", signature), ("--inputs", inputs)):
            if value is not None:
                raise UsageError(f"{flag} does not go with the recipe {source}")
        figures[source] = _of_recipe(source, scheme, runs)
    else:
        report_to = progress()
        sources = load_sources(source, signature=signature)
        generators = generators_of(sources, input_files(inputs, Files()))
        for item, (generator, _) in zip(sources, generators, strict=True):
            figures[item.name] = sensitivity_of(generator, scheme, options=DEFAULT_OPTIONS, seed=0, progress=report_to)
    if as_json:
        print(json.dumps({"scheme": scheme, "sources": figures}, indent=2))
        return
    for name, figures_of_source in figures.items():
        _print(name, scheme, figures_of_source)


def _of_recipe(name: str, scheme: str, runs: Path) -> dict[str, Any]:
    from edgegen.formats.recipe_file import find
    from edgegen.pipeline.run import run_recipe
    from edgegen.pipeline.stages.refine import sensitivity_of_student
    from edgegen.recipe import read
    from edgegen.support.progress import progress

    report_to = progress()
    folders = {
        result.stage: result.folder
        for stage in ("choose", "extractor")
        for result in run_recipe(name, runs=runs, only=stage, progress=report_to)
    }
    return sensitivity_of_student(read(find(name)), folders, scheme, progress=report_to)


def _print(name: str, scheme: str, figures: dict[str, Any]) -> None:
    show(f"{name}, {scheme}: PSNR of the images when one layer alone is quantized, the worst first")
    for layer in sorted(figures["layers"], key=lambda layer: layer["psnr_db"]):
        change = f"  fd_local {layer['fd_change']:+6.1%}" if "fd_change" in layer else ""
        show(f"  {layer['psnr_db']:6.1f} dB{change}  {layer['weights']:>10,} weights  {layer['name']}")
    show("weights in MB, predicted PSNR, layers left float")
    for choice in figures["pareto"]:
        layers = choice["float_layers"]
        listed = ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
        decibels = "float" if choice["psnr_db"] >= 200 else f"{choice['psnr_db']:.1f} dB"
        show(f"  {choice['nbytes'] / 1e6:8.3f}  {decibels:>8}  {listed or 'none'}")
