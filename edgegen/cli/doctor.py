"""`edgegen doctor`: which backends, devices and accelerators work on this machine, and how to get the missing ones."""

import json
import platform
from typing import Annotated, Any

import typer

from edgegen.cli.terminal import show


def register(app: typer.Typer) -> None:
    text = "Show which backends, devices and accelerators work here, and how to get the missing ones."
    app.command("doctor", help=f"{text}\n\nExample: edgegen doctor --json")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """Tries every backend in a process of its own."""
    from edgegen.artifacts.doctor import diagnose

    diagnosis = diagnose()
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
    return "yes" if row["works"] else "no "
