"""`edgegen compare`: two measurements beside each other, and an exit code where one is slower than allowed."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgegen.cli.run import JsonOption
from edgegen.cli.terminal import show
from edgegen.errors import BudgetError, DeviceError

TEXT = """Compare two measurements of the same files, with the interval in which the difference lies.

--fail-on ends with exit code 5 where the whole interval is beyond it, and with 6 where a measurement was noisy.

Example: edgegen compare before.json after.json --fail-on "p50>+5%\""""


def register(app: typer.Typer) -> None:
    app.command("compare", help=TEXT)(compare)


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE.json", help="From edgegen profile -o.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER.json", help="Another one, of the same files.")],
    fail_on: Annotated[
        str | None, typer.Option("--fail-on", metavar="TEXT", help="Such as p50>+5%,memory>+10%; else exit code 5.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Reads two files and writes none."""
    from edgegen.profilers.compare import Limit, differences
    from edgegen.profilers.schema import read

    limits = () if fail_on is None else Limit.parse(fail_on)
    changes = differences(read(before), read(after))
    if as_json:
        rows = [{**asdict(change), "surely": change.surely, "broken": change.broken(limits)} for change in changes]
        print(json.dumps({"differences": rows}, indent=2))
    else:
        show("| file | before ms | after ms | change of p50 (95 %) | surely |", "|---|---|---|---|---|")
        for change in changes:
            low, high = change.interval
            p50 = f"{change.changes['p50']:+.1%} ({low:+.1%} to {high:+.1%})"
            show(f"| {change.label} | {change.before_ms:.3g} | {change.after_ms:.3g} | {p50} | {change.surely} |")
    broken = [text for change in changes for text in change.broken(limits)]
    noisy = [f"{change.label}: {'; '.join(change.noisy)}" for change in changes if change.noisy]
    if limits and noisy:
        raise DeviceError("not judged, because a measurement was noisy:\n  " + "\n  ".join(noisy))
    if noisy:
        show("noisy:", *(f"  {text}" for text in noisy), file=sys.stderr)
    if broken:
        raise BudgetError("slower than allowed:\n  " + "\n  ".join(broken))
