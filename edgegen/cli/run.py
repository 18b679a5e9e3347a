"""`edgegen run`, and one command for each stage: the same pipeline, up to a stage or only what a stage needs."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgegen.cli.terminal import show
from edgegen.errors import BudgetError, ParityError, UsageError

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a shipped recipe: digits, signals.")
]
RunsOption = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Where run folders are; this one is DIR/<name>.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Run again what is there already.")]
DryOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved recipe, what would run and how long it takes; run nothing."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

STAGE_COMMANDS = {  # command: (stage, what it does)
    "train": ("teacher", "Train the teacher by flow matching, or take the one that the recipe brings."),
    "pairs": ("pairs", "Make (noise, image) pairs by the teacher's ODE."),
    "slim": (
        "slim",
        "Annealing reflow of the pairs into the smaller network. `edgegen plan` "
        "determines how small it has to be for a device.",
    ),
    "distill": ("distill", "Flow-guided distillation of the smaller network into one step."),
    "evaluate": (
        "evaluate",
        "Distances of all networks' images to the training images, at several numbers of steps.",
    ),
    "quantize": ("quantize", "Write the compressed files, calibrated on noise."),
}


def register(app: typer.Typer) -> None:
    text = "Run a recipe from images, or signals, to phone files and the report."
    app.command("run", help=f"{text}\n\nExample: edgegen run digits\n\n  edgegen run signals")(run)
    for command, (stage, text) in STAGE_COMMANDS.items():
        note = f"{text} Earlier stages run only where their result is missing.\n\nExample: edgegen {command} digits"
        app.command(command, help=note)(_stage_command(stage))


def run(
    recipe: RecipeArgument,
    to: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")] = None,
    runs: RunsOption = Path("runs"),
    force: ForceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """All stages of a recipe, in order; what is unchanged is not run again."""
    run_stages(recipe, runs, to=to, only=None, force=force, dry_run=dry_run, as_json=as_json)


def _stage_command(stage: str) -> Any:
    def command(
        recipe: RecipeArgument,
        runs: RunsOption = Path("runs"),
        force: ForceOption = False,
        dry_run: DryOption = False,
        as_json: JsonOption = False,
    ) -> None:
        run_stages(recipe, runs, to=None, only=stage, force=force, dry_run=dry_run, as_json=as_json)

    return command


def is_recipe(source: str) -> bool:
    """Whether `source` is a recipe's file or the name of a shipped one; a folder of that name takes precedence."""
    from edgegen.formats.recipe_file import shipped

    return not Path(source).is_dir() and (source.endswith(".toml") or source in shipped())


def run_if_recipe(
    source: str,
    stage: str,
    flags: Mapping[str, object],
    *,
    why: str,
    runs: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Where `source` is a recipe, runs its `stage` and the stages that it needs; returns whether it did.

    Raises UsageError, with `why`, where one of the command's `flags` is set: none of them is for a recipe.
    """
    if not is_recipe(source):
        return False
    extra = [name for name, value in flags.items() if value is not None and value is not False]
    if extra:
        raise UsageError(f"{extra[0]} does not go with the recipe {source}: {why}")
    run_stages(source, runs, to=None, only=stage, force=force, dry_run=dry_run, as_json=as_json)
    return True


def run_stages(
    name: str, runs: Path, *, to: str | None, only: str | None, force: bool, dry_run: bool, as_json: bool
) -> None:
    from edgegen.pipeline import run as execute
    from edgegen.support.progress import progress

    if dry_run:
        _print_plan(name, runs, to=to, only=only, force=force, as_json=as_json)
        return
    results = execute.run_recipe(name, runs=runs, to=to, only=only, force=force, progress=progress())
    if all(result.reused for result in results):
        show(f"nothing to do: all {len(results)} stages are up to date", file=sys.stderr)
    _print_results(results, as_json=as_json)
    failed = execute.failed_parity(results)
    if failed:
        raise ParityError("not the same as PyTorch:\n  " + "\n  ".join(failed))
    broken = execute.broken_budget(results)
    if broken:
        raise BudgetError(
            "quantize.budget is not kept:\n  "
            + "\n  ".join(broken)
            + "\nLet [recover] train, name the worst layers in quantize.float_layers, take a mixed or wider scheme, or "
            "ask for less"
        )


def _print_plan(name: str, runs: Path, *, to: str | None, only: str | None, force: bool, as_json: bool) -> None:
    from edgegen.formats.recipe_file import find
    from edgegen.pipeline import run as execute
    from edgegen.pipeline.forecast import duration, total
    from edgegen.pipeline.needed_extras import missing_extras

    recipe, planned = execute.dry_run(name, runs=runs, to=to, only=only, force=force)
    base = find(name).parent
    for error in missing_extras(recipe, [item.stage for item in planned], base=base):
        show(f"missing: {error}", file=sys.stderr)
    to_run = [item.stage.name for item in planned if item.result is None]
    if to_run:
        show("timing a few steps of each training stage on this machine, for some 10 s ...", file=sys.stderr)
    finished = {item.stage.name: item.result.folder for item in planned if item.result is not None}
    times = execute.expected_times(recipe, to_run, base=base, finished=finished)
    rows: list[dict[str, Any]] = [
        {"stage": item.stage.name, "key": item.key, "state": item.state}
        | (asdict(times[item.stage.name]) if item.stage.name in times else {"seconds": 0.0, "how": "there already"})
        for item in planned
    ]
    resolved = recipe.model_dump(mode="json")
    if as_json:
        print(json.dumps({"recipe": resolved, "stages": rows}, indent=2))
        return
    print(json.dumps(resolved, indent=2))
    for row in rows:
        expected = "?" if row["seconds"] is None else duration(row["seconds"]) if row["state"] == "to run" else ""
        show(f"{row['stage']:<10} {row['key']}  {row['state']:<9}  {expected:>10}  {row['how']}".rstrip())
    if to_run:
        busy, processors = os.getloadavg()[0], os.cpu_count() or 1
        doubt = f"; it is busy now (load {busy:.1f} on {processors} processors)" if busy > processors else ""
        show(f"in all: {total(times)} on this machine{doubt}")


def _print_results(results: Any, *, as_json: bool) -> None:
    from edgegen.support.storage import read_json

    by_stage = {result.stage: result for result in results}
    report = by_stage["report"].folder / "report.html" if "report" in by_stage else None
    verdict = read_json(report.with_suffix(".json"))["verdict"] if report else None
    if as_json:
        rows = [
            {"stage": r.stage, "key": r.key, "folder": str(r.folder), "seconds": r.seconds, "reused": r.reused}
            for r in results
        ]
        print(json.dumps({"stages": rows, "report": str(report) if report else None, "images": verdict}, indent=2))
        return
    if "verify" in by_stage:
        show(f"files: {by_stage['verify'].folder / 'artifacts'}")
    if verdict:
        show(f"verdict: {verdict['level']}: {verdict['reason']}. {verdict['advice']}".rstrip())
    if "bundle" in by_stage:
        show(f"bundle for an app: {by_stage['bundle'].folder / 'bundle'}")
    show(f"report: {report}" if report else f"{results[-1].stage}: {results[-1].folder}")
