"""`edgegen status`: what a run is doing or has done, without disturbing it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgegen.cli.run import JsonOption, RunsOption, is_recipe
from edgegen.cli.terminal import show

TEXT = """What a run is doing: the stage, its step, losses, figures and warnings, and the time left.

Nothing is changed and the run is not disturbed; it may be under way, finished, failed or killed.

Example: edgegen status digits"""


def register(app: typer.Typer) -> None:
    app.command("status", help=TEXT)(status)


def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A recipe, the name of a run, or its folder.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Reads what the run has written."""
    from edgegen.pipeline.status import status_of

    facts = status_of(_folder(run, runs))
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        show(*_lines(facts))


def _folder(run: str, runs: Path) -> Path:
    from edgegen.formats.recipe_file import find
    from edgegen.formats.stage_folder import RUN
    from edgegen.recipe import read

    if (Path(run) / RUN).is_file():
        return Path(run)
    return runs / (read(find(run)).name if is_recipe(run) else run)


def _lines(facts: dict[str, Any]) -> list[str]:
    from edgegen.support.progress import clock

    by_state: dict[str, list[str]] = {}
    for stage, state in facts["stages"].items():
        by_state.setdefault(state, []).append(stage)
    where = f", stage {facts['stage']}" if facts["stage"] else ""
    lines = [f"{facts['name']}: {facts['state']}{where}" + (f": {facts['error']}" if facts["error"] else "")]
    if task := facts["task"]:
        left = "" if facts["left_s"] is None else f", {clock(facts['left_s'])} left"
        share = 100 * task["done"] // max(task["total"], 1)
        lines.append(f"  {task['label']} {task['done']}/{task['total']} ({share} %) {task['per_second']:.3g}/s{left}")
    if last := facts["last"]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in last.items() if isinstance(value, float))
        lines.append(f"  at step {last['step']}: {values}")
    if facts["state"] != "running" and facts["checkpoint"] is not None:
        lines.append(f"  the checkpoint of step {facts['checkpoint']} is kept: the same command goes on from there")
    lines += [f"  warning: {stage}: {text}" for stage, texts in facts["warnings"].items() for text in texts]
    lines += [f"  {state}: {', '.join(by_state[state])}" for state in ("done", "to run") if state in by_state]
    if facts["left"] and facts["state"] == "running":
        lines.append(f"  when this stage began, {facts['left']} were left of the whole run")
    return lines
