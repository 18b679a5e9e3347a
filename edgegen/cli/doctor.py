"""`edgegen doctor`: which backends, devices and accelerators work on this machine, and how to get the missing ones."""

import json
import platform
from typing import Annotated, Any

import typer

from edgegen.cli.terminal import show
from edgegen.errors import UsageError


def register(app: typer.Typer) -> None:
    text = "Show which backends, devices and accelerators work here, and how to get the missing ones."
    app.command("doctor", help=f"{text}\n\nExample: edgegen doctor --quick")(doctor)


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Try no backend; show what earlier trials said.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Try every backend, whatever earlier trials said.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Tries every backend in a process of its own, where it has not worked with these versions before."""
    from edgegen.artifacts.doctor import diagnose

    if quick and again:
        raise UsageError("--quick tries nothing, --again tries everything: give one of them")
    diagnosis = diagnose("quick" if quick else "new" if again else "kept")
    if as_json:
        print(json.dumps(diagnosis, indent=2))
        return
    show(f"edgegen {diagnosis['edgegen']}  python {platform.python_version()}  {platform.platform()}", "")
    for kind in ("accelerators", "backends", "extras"):
        show(kind)
        for row in diagnosis[kind]:
            show(f"  {_mark(row)} {row['name']:<12} {row['detail']}")
        show("")


def _mark(row: dict[str, Any]) -> str:
    return {True: "yes", False: "no ", None: "?  "}[row["works"]]
