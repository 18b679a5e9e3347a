"""`edgegen report`: measurements from anywhere in one table, or on one page; or a recipe's stage `report`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegen.cli.run import DryOption, ForceOption, JsonOption, RunsOption, run_if_recipe
from edgegen.cli.terminal import show
from edgegen.errors import UsageError

if TYPE_CHECKING:
    from edgegen.profilers.measurement import Measurement

TEXT = """Show measurements beside each other, each under its source's name; or write a recipe's report.

Files: what edgegen profile -o wrote, an ETDump of ExecuTorch, a profile of onnxruntime, the output or result file of
onnxruntime_perf_test, a perf.yaml of Qualcomm AI Hub Models.

Example: edgegen report board.json perf.yaml -o latencies.html

  edgegen report digits"""


def register(app: typer.Typer) -> None:
    app.command("report", help=TEXT)(report)


def report(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Measurements; or a recipe.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.html", help="A page with the table and the spread.")
    ] = None,
    runs: RunsOption = Path("runs"),
    force: ForceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """A recipe goes through its stages; files are read and nothing is measured."""
    flags = {"-o": output, **dict.fromkeys(files[1:], True)}
    options: dict[str, Any] = {"runs": runs, "force": force, "dry_run": dry_run, "as_json": as_json}
    if run_if_recipe(files[0], "report", flags, why="[report] measurements names files", **options):
        return
    if force or dry_run:
        raise UsageError("--force and --dry-run are for recipes")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"-o {output}: no folder {output.parent}")
    from edgegen.profilers.importers import read

    measurements = [measurement for file in files for measurement in read(Path(file))]
    if output is not None:
        from edgegen.report.measurements import write_page

        write_page(output, measurements)
    if as_json:
        print(json.dumps({"measurements": [measurement.to_dict() for measurement in measurements]}, indent=2))
    else:
        show(*_table(measurements))


def _table(measurements: "list[Measurement]") -> list[str]:
    from edgegen.report.measurements import table

    content = table(measurements)
    lines = [f"| {' | '.join(column.title for column in content.columns)} |", "|---" * len(content.columns) + "|"]
    for row in content.rows:
        texts = [f"{cell.text} ({cell.detail})" if cell.detail else cell.text for cell in row]
        lines.append("| " + " | ".join(text.replace("|", "/") for text in texts) + " |")
    return lines
