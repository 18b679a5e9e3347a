"""`edgegen inspect`: the content of an exported file and how it will run, or the inputs and output of a source."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegen.cli.terminal import show
from edgegen.errors import DataError, ExportError, UsageError
from edgegen.support.numbers import LARGEST_WHOLE
from edgegen.support.printable import printable

if TYPE_CHECKING:
    from edgegen.inspection.record import Inspection, Method

TEXT = """Show what an exported file holds: weights, operations, multiply-accumulates, what runs where and why.

For a source of `edgegen export`: its inputs and output. For a PNG of edgegen's, or a .npz of signals: what made it.

Example: edgegen inspect digits_executorch_fp32.pte

  edgegen inspect ./my-unet

  edgegen inspect sample.png"""
MAX_LENGTH = 100  # characters of a metadata value on the screen; --json has all of it


def register(app: typer.Typer) -> None:
    app.command("inspect", help=TEXT)(inspect)


def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A .onnx, .pte or .mlpackage, by edgegen or others; or a source of an export."
        ),
    ],
    every_weight: Annotated[bool, typer.Option("--weights", help="List every stored tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON on stdout.")] = False,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="For a source: inputs and output of your own network (TOML).")
    ] = None,
    random_weights: Annotated[
        int | None,
        typer.Option(
            "--random-weights",
            metavar="SEED",
            min=0,
            max=LARGEST_WHOLE,
            help="For a source: draw the weights; config.json is enough.",
        ),
    ] = None,
) -> None:
    """Reads the file only; the code of the network is not needed."""
    if _is_source(file):
        _print_sources(file, signature, random_weights, as_json=as_json)
        return
    if signature is not None or random_weights is not None:
        raise UsageError(f"{file}: --signature and --random-weights are for sources, and this is an exported file")
    if Path(file).suffix.lower() in (".png", ".npz"):
        _print_recipe(Path(file), as_json=as_json)
        return
    from edgegen.formats.manifest import checked_entry
    from edgegen.formats.tuned import TUNED, table
    from edgegen.inspection.record import inspect as inspect_file

    entry = checked_entry(Path(file))
    try:
        inspection = inspect_file(Path(file))
    except ExportError as e:  # exit code of damaged data: no export has failed
        raise DataError(str(e)) from e
    tuned = {} if entry is None else {TUNED: entry.row["details"][TUNED]} if TUNED in entry.row["details"] else {}
    if as_json:
        print(json.dumps(inspection.to_dict() | tuned, indent=2))
        return
    _print(inspection, every_weight=every_weight)
    if tuned:
        show("", *table(tuned))


def _print_recipe(path: Path, *, as_json: bool) -> None:
    from edgegen.artifacts.sampled_file import is_signals, recipe_of

    recipe, kind = recipe_of(path), "signal" if is_signals(path) else "image"
    content = recipe.model_dump(mode="json", by_alias=True)
    if as_json:
        print(json.dumps({"file": str(path), "recipe": content}, indent=2))
        return
    show(f"{path}: {recipe.count} {kind}{'s' * (recipe.count > 1)} of edgegen {recipe.edgegen}")
    show(f"  artifact  SHA-256 {recipe.artifact}")
    show(f"  seed      {recipe.seed}")
    show(f"  class     {'none, or all in turn' if recipe.label is None else recipe.label}")
    if recipe.steps is not None:
        show(f"  steps     {recipe.steps}, in PyTorch")
    for name, sha256 in recipe.inputs.items():
        show(f"  input     {name}: SHA-256 {sha256}")
    show(f"  again: edgegen sample --like {path} -o again{path.suffix.lower()}")


def _is_source(text: str) -> bool:
    path = Path(text)
    folder = any((path / name).is_file() for name in ("config.json", "model_index.json"))
    return folder or path.suffix == ".pt2" or (":" in text and not path.exists())


def _print_sources(source: str, signature: Path | None, random_weights: int | None, *, as_json: bool) -> None:
    from edgegen.models.sources.load import load_sources

    sources = load_sources(source, signature=signature, random_weights=random_weights)
    if as_json:
        rows = [
            {"name": item.name, "about": dict(item.about), "signature": item.signature.to_dict()} for item in sources
        ]
        print(json.dumps({"sources": rows}, indent=2))
        return
    for item in sources:
        about = item.about
        licence = about["license"] or "not stated"
        show(f"{item.name}: {about['family']}, {about['parameters']:,} parameters, licence {licence}")
        roles = _roles(item.signature.to_dict())
        for arrow, specs in (("takes", item.signature.inputs), ("gives", item.signature.outputs)):
            for spec in specs:
                show(f"  {arrow} {spec.name}  {spec.dtype}  [{', '.join(map(str, spec.shape))}]{roles[spec.name]}")
        for note in about["notes"]:
            show(f"  - {note}")


def _print(inspection: "Inspection", *, every_weight: bool) -> None:
    show(f"{inspection.file}: {inspection.kind}, {inspection.nbytes:,} bytes, {inspection.parameters:,} stored numbers")
    for method in inspection.methods:
        _print_method(method, _roles(inspection.signature))
    _table("bytes", ("kind", "bytes", "share"), [
        (kind, f"{size:,}", f"{100 * size / inspection.nbytes:.1f} %")
        for kind, size in inspection.bytes_by_kind.items()
    ])  # fmt: skip
    if every_weight:
        _table("weights", ("name", "dtype", "shape", "bytes"), [
            (w.name, w.dtype, " x ".join(map(str, w.shape)), f"{w.nbytes:,}") for w in inspection.weights
        ])  # fmt: skip
    _table("metadata", ("key", "value"), [(key, _short(value)) for key, value in inspection.metadata.items()])
    _table("constant methods", ("name", "value"), [(key, _short(value)) for key, value in inspection.constants.items()])
    for title, lines in (("needs", inspection.needs), ("notes", inspection.notes), ("hints", inspection.hints)):
        if lines:
            show("", title)
        for line in lines:
            show(f"  - {line}")


def _print_method(method: "Method", roles: Mapping[str, str]) -> None:
    show("", f"method {method.name}")
    for arrow, values in (("takes", method.inputs), ("gives", method.outputs)):
        for value in values:
            shape = ", ".join(map(str, value.shape))
            show(f"  {arrow} {value.name}  {value.dtype}  [{shape}]{roles.get(value.name, '')}")
    macs = method.macs
    show(f"  {macs.total:,} MACs: {macs.weights:,} by weights, {macs.attention:,} between computed tensors")
    if macs.uncounted:
        show(f"  not counted: {', '.join(macs.uncounted)}")
    _table("operations", ("operation", "count"), method.operations.items())
    _table("partitions", ("backend", "bytes", "operations inside"), [
        (part.backend, "" if part.nbytes is None else f"{part.nbytes:,}",
         ", ".join(f"{count} {name}" for name, count in part.operations.items()))
        for part in method.partitions
    ])  # fmt: skip
    _table(f"outside the delegates: {method.nodes_outside}", ("operation", "count", "why", "rewrite"), [
        (entry.operation, entry.count, entry.reason, entry.rewrite or "") for entry in method.outside
    ])  # fmt: skip


def _roles(signature: Mapping[str, Any] | None) -> dict[str, str]:
    """Role and range of each input and output, by name, from edgegen's signature."""
    roles = {}
    for spec in [*(signature or {}).get("inputs", []), *(signature or {}).get("outputs", [])]:
        low, high = spec.get("low"), spec.get("high")
        bounds = f", {low:g} to {high:g}" if low is not None and high is not None else ""
        roles[spec["name"]] = f"  {spec.get('role', '')}{bounds}"
    return roles


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [tuple(printable(str(cell)) for cell in row) for row in rows]
    if not cells:
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        figures = column in ("bytes", "share", "count")
        table.add_column(column, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    for row in cells:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console().print(table)
