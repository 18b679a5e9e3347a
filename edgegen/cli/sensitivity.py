"""`edgegen sensitivity`: what rounding each layer costs, and which layers to leave float."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgegen.errors import UsageError, unknown_name

TEXT = """Show what rounding each layer of a generator costs its pictures, and what leaving some float would bring.

SOURCE is what `edgegen export` takes, but no recipe: its student is the folder runs/NAME/distill/latest/generator.

Example: edgegen sensitivity ./my-unet

  edgegen sensitivity ./my-unet --scheme w4-block --json"""


def register(app: typer.Typer) -> None:
    app.command("sensitivity", help=TEXT)(sensitivity)


def sensitivity(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A generator; see above.")],
    scheme: Annotated[str, typer.Option("--scheme", metavar="NAME", help="w8a8, w8 or w4-block.")] = "w8a8",
    signature: Annotated[
        Path | None, typer.Option("--signature", metavar="FILE", help="TOML: inputs and outputs of a factory or .pt2.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON on stdout.")] = False,
) -> None:
    """Nothing is written."""
    from edgegen.quantize.schemes import AS_USUAL, GRIDS

    if scheme not in GRIDS:
        raise UsageError(unknown_name("scheme", scheme, GRIDS))
    from edgegen.folding import fold
    from edgegen.models.source import load_sources
    from edgegen.progress import progress
    from edgegen.refining import sensitivity_of

    found: dict[str, Any] = {}
    for one in load_sources(source, signature=signature):
        module = fold(one.module, one.signature).module
        found[one.name] = sensitivity_of(module, one.signature, scheme, options=AS_USUAL, seed=0, progress=progress())
    if as_json:
        print(json.dumps({"scheme": scheme, "sources": found}, indent=2))
        return
    for name, figures in found.items():
        _print(name, scheme, figures)


def _print(name: str, scheme: str, figures: dict[str, Any]) -> None:
    print(f"{name}, {scheme}: PSNR of the pictures when one layer alone is rounded, the worst first")
    for layer in sorted(figures["layers"], key=lambda layer: layer["psnr_db"]):
        print(f"  {layer['psnr_db']:6.1f} dB  {layer['weights']:>10,} weights  {layer['name']}")
    print("weights in MB, PSNR foretold, layers left float")
    for choice in figures["pareto"]:
        left = choice["float_layers"]
        shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        decibels = "float" if choice["psnr_db"] >= 200 else f"{choice['psnr_db']:.1f} dB"
        print(f"  {choice['nbytes'] / 1e6:8.3f}  {decibels:>8}  {shown or 'none'}")
