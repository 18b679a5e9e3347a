"""`edgegen inspect`: what an exported file holds and how it would run, from the file alone."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgegen.exporters.inspection import Inspection, Method

LONGEST = 100  # characters of a metadata value on the screen; --json has all of it


def register(app: typer.Typer) -> None:
    text = "Show what a .onnx, .pte or .mlpackage holds: weights, operations, multiplications, what runs where and why."
    app.command("inspect", help=f"{text}\n\nExample: edgegen inspect digits_executorch_fp32.pte")(inspect)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An exported file, edgegen's or any other's.")],
    every_weight: Annotated[bool, typer.Option("--weights", help="List every stored tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON on stdout.")] = False,
) -> None:
    """Reads only; the code of the net is not needed."""
    from edgegen.exporters.inspection import inspect as read

    found = read(file)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    _print(found, every_weight=every_weight)


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
