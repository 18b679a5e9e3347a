"""`edgegen app`: a project for an app, with a bundle inside."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgegen.cli.run import JsonOption
from edgegen.cli.terminal import show

TEXT = """Make a project for an app from a bundle: sources that can be read and changed, with the model inside.

PLATFORM: android (Kotlin, Compose, ExecuTorch or ONNX Runtime), ios (Swift, SwiftUI, Core ML or ExecuTorch) or web
(TypeScript, Vite, ONNX Runtime).

Example: edgegen app web bundles/digits --name Digits -o DigitsPage"""


def register(app: typer.Typer) -> None:
    app.command("app", help=TEXT)(make_app)


def make_app(
    platform: Annotated[str, typer.Argument(metavar="PLATFORM", help="android, ios or web")],
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or .zip of `edgegen bundle`.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the app, as people read it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder.")],
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime", metavar="R", help="executorch, onnx or coreml; default: what the bundle has files for."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an app that this command wrote to DIR.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Nothing is compiled and nothing downloaded."""
    from edgegen.apps.project import write_app

    plan = write_app(platform, bundle, output, name=name, runtime=runtime, force=force)
    if as_json:
        print(json.dumps({"app": str(output), "platform": platform, "values": dict(plan.values)}, indent=2))
        return
    for line in (f"app: {output}", *plan.shown):
        show(line)
    if plan.commands:
        show(f"next: {' && '.join((f'cd {shlex.quote(str(output))}', *plan.commands))}")
