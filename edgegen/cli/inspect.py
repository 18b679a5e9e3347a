"""`edgegen inspect`: what an exported file holds and how it would run, from the file alone; what a source takes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegen.errors import DataError, ExportError, UsageError

if TYPE_CHECKING:
    from edgegen.inspection.record import Inspection, Method

TEXT = """Show what an exported file holds: weights, operations, multiplications, what runs where and why.

Of a source that `edgegen export` takes: its inputs and output.

Example: edgegen inspect digits_executorch_fp32.pte

  edgegen inspect ./my-unet"""
LONGEST = 100  # characters of a metadata value on the screen; --json has all of it


def register(app: typer.Typer) -> None:
    app.command("inspect", help=TEXT)(inspect)


def inspect(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="An exported file, edgegen's or any other's; or a source of an export."),
    ],
    every_weight: Annotated[bool, typer.Option("--weights", help="List every stored tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON on stdout.")] = False,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="Of a source: what your own network takes and gives (TOML).")
    ] = None,
    random_weights: Annotated[
        int | None, typer.Option("--random-weights", metavar="SEED", help="Of a source: config.json is enough.")
    ] = None,
) -> None:
    """Reads only; the code of the net is not needed."""
    if _is_source(file):
        _print_sources(file, signature, random_weights, as_json=as_json)
        return
    if signature is not None or random_weights is not None:
        raise UsageError(f"{file}: --signature and --random-weights are for sources; a file has all it needs inside")
    from edgegen.inspection.record import inspect as read

    try:
        found = read(Path(file))
    except ExportError as e:  # the file is at fault, not an export
        raise DataError(str(e)) from e
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    _print(found, every_weight=every_weight)


def _is_source(text: str) -> bool:
    path = Path(text)
    folder = any((path / name).is_file() for name in ("config.json", "model_index.json"))
    return folder or path.suffix == ".pt2" or (":" in text and not path.exists())


def _print_sources(source: str, signature: Path | None, random_weights: int | None, *, as_json: bool) -> None:
    from edgegen.models.sources.load import load_sources

    found = load_sources(source, signature=signature, random_weights=random_weights)
    if as_json:
        rows = [{"name": one.name, "about": dict(one.about), "signature": one.signature.to_dict()} for one in found]
        print(json.dumps({"sources": rows}, indent=2))
        return
    for one in found:
        about = one.about
        licence = about["license"] or "not stated"
        print(f"{one.name}: {about['family']}, {about['parameters']:,} parameters, licence {licence}")
        roles = _roles(one.signature.to_dict())
        for arrow, specs in (("takes", one.signature.inputs), ("gives", one.signature.outputs)):
            for spec in specs:
                print(f"  {arrow} {spec.name}  {spec.dtype}  [{', '.join(map(str, spec.shape))}]{roles[spec.name]}")
        for note in about["notes"]:
            print(f"  - {note}")


def _print(found: "Inspection", *, every_weight: bool) -> None:
    print(f"{found.file}: {found.kind}, {found.nbytes:,} bytes, {found.parameters:,} stored numbers")
    for method in found.methods:
        _print_method(method, _roles(found.signature))
    _table("bytes", ("kind", "bytes", "share"), [
        (kind, f"{size:,}", f"{100 * size / found.nbytes:.1f} %") for kind, size in found.bytes_by_kind.items()
    ])  # fmt: skip
    if every_weight:
        _table("weights", ("name", "dtype", "shape", "bytes"), [
            (w.name, w.dtype, " x ".join(map(str, w.shape)), f"{w.nbytes:,}") for w in found.weights
        ])  # fmt: skip
    _table("metadata", ("key", "value"), [(key, _short(value)) for key, value in found.metadata.items()])
    _table("constant methods", ("name", "value"), [(key, _short(value)) for key, value in found.constants.items()])
    for title, lines in (("needs", found.needs), ("notes", found.notes), ("hints", found.hints)):
        if lines:
            print(f"\n{title}")
        for line in lines:
            print(f"  - {line}")


def _print_method(method: "Method", roles: Mapping[str, str]) -> None:
    print(f"\nmethod {method.name}")
    for arrow, values in (("takes", method.inputs), ("gives", method.outputs)):
        for value in values:
            shape = ", ".join(map(str, value.shape))
            print(f"  {arrow} {value.name}  {value.dtype}  [{shape}]{roles.get(value.name, '')}")
    macs = method.macs
    print(f"  {macs.total:,} multiplications: {macs.weights:,} by weights, {macs.attention:,} between computed tensors")
    if macs.uncounted:
        print(f"  not counted: {', '.join(macs.uncounted)}")
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
    """What edgegen's signature says of each input and output: its role and range."""
    found = {}
    for spec in [*(signature or {}).get("inputs", []), *(signature or {}).get("outputs", [])]:
        low, high = spec.get("low"), spec.get("high")
        bounds = f", {low:g} to {high:g}" if low is not None and high is not None else ""
        found[spec["name"]] = f"  {spec.get('role', '')}{bounds}"
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    listed = [tuple(map(str, row)) for row in rows]
    if not listed:
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        figures = column in ("bytes", "share", "count")
        table.add_column(column, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    for row in listed:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console().print(table)
