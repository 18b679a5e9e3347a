"""The `edgegen` command. An error is one message on stderr and the documented exit code."""

import errno
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edgegen.cli import (
    apps,
    bundle,
    compare,
    devices,
    doctor,
    export,
    inspect,
    methods,
    plan,
    profile,
    report,
    run,
    sample,
    sensitivity,
    serve_bench,
    status,
    tune,
    verify,
)
from edgegen.errors import EdgegenError, UsageError
from edgegen.support.printable import printable_lines
from edgegen.support.signals import exit_codes

EPILOG = (
    "Exit codes: 0 ok, 1 failed, 2 usage or recipe, 3 missing extra, 4 parity failed, 5 over budget, 6 device failed."
)

app = typer.Typer(
    name="edgegen",
    help="From images, or a diffusion model, to a small one-step generator in ONNX, Core ML and ExecuTorch files.\n\n"
    "Start with: edgegen run digits",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
run.register(app)
status.register(app)
verify.register(app)
export.register(app)
bundle.register(app)
apps.register(app)
profile.register(app)
report.register(app)
serve_bench.register(app)
compare.register(app)
devices.register(app)
sample.register(app)
doctor.register(app)
inspect.register(app)
sensitivity.register(app)
plan.register(app)
methods.register(app)
tune.register(app)


def _print_versions(is_given: bool) -> None:
    if is_given:
        from edgegen.formats.manifest import tool_versions

        versions = tool_versions()
        print("\n".join(f"{tool} {versions[tool]}" for tool in sorted(versions, key=lambda tool: tool != "edgegen")))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_versions, help="Print the versions of edgegen and its tools."
        ),
    ] = False,
) -> None:
    """What may stand before the name of a command."""


LONG_WORD, SHOWN = re.compile(r"\S{400,}"), 100  # of a file that holds something else: nobody reads more of it
WRONG_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raises UsageError for a name that is not UTF-8: no JSON file and no library could take it."""
    for text in arguments:
        if not text.isprintable() and "\\udc" in ascii(text):  # how Python holds a byte that is no UTF-8
            raise UsageError(f"the argument {text!a} is not UTF-8; rename the file")


def _shortened(word: re.Match[str]) -> str:
    return f"{word[0][:SHOWN]}... ({len(word[0])} characters)"


def _is_first_to_say(text: str) -> bool:
    """Whether no other process of `accelerate launch` prints it: all of them read the same recipe."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    if "torch" not in sys.modules:
        return os.environ.get("RANK", "0") == "0"
    from edgegen.training.distributed import is_first_to_say

    return is_first_to_say(text)


def main() -> None:
    """The command line, where its modules are imported already."""
    with exit_codes():
        run_app()


def run_app() -> None:
    """Carries out the command line. Raises SystemExit."""
    # OpenMP's threads wait for each other by spinning; where another program holds a core, one step of a small network
    # then takes a second instead of 30 ms (measured, 2 cores). A short spin costs nothing on an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        _check_arguments(sys.argv[1:])
        app()
    except EdgegenError as e:
        if _is_first_to_say(str(e)):
            print(f"error: {printable_lines(LONG_WORD.sub(_shortened, str(e)))}", file=sys.stderr)
        raise SystemExit(e.exit_code) from e
    except OSError as e:  # without an EdgegenError around it: a closed or full stdout, for example
        text = f"{e.strerror or e}" + (f": {e.filename}" if e.filename else "")
        print(f"error: {printable_lines(LONG_WORD.sub(_shortened, text))}", file=sys.stderr)
        raise SystemExit(UsageError.exit_code if e.errno in WRONG_PATH else 1) from e


if __name__ == "__main__":
    main()
