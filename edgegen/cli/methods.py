"""`edgegen methods`: the training methods, with what each needs and costs."""

import json
from typing import Annotated

import typer

from edgegen.cli.terminal import show


def register(app: typer.Typer) -> None:
    text = (
        "List the training methods: the tables of a recipe that take them, what they need, their source, the networks "
        "that they train beside the student, the cost of a step in forward passes of the student, and how near to the "
        "teacher's images the best way with them came in examples/bench_methods.py."
    )
    app.command("methods", help=f"{text}\n\nExample: edgegen methods --json")(methods)


def methods(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """Reads the registry, and counts one step of each method on small networks."""
    from edgegen.pipeline import method_table

    rows = method_table.method_rows()
    if as_json:
        print(json.dumps({"methods": method_table.as_json(rows)}, indent=2))
        return
    for row in rows:
        tables = ", ".join(f"[{table}]" for table in row.stages) or "none of a recipe's"
        show(f"{row.name}: {row.forward_passes:g} forward passes a step")
        show(f"  tables  {tables}", f"  needs   {', '.join(row.needs) or 'nothing'}")
        if row.extra_networks:
            show(f"  trains  {', '.join(row.extra_networks)} beside the student")
        show(f"  source  {row.paper}")
        for result in row.reached:
            seeds = "1 seed" if result.seeds == 1 else f"{result.seeds} seeds"
            ratio = f"{result.of_teacher:.2f} times the teacher's fd_local"
            show(f"  reached {ratio} on {result.data}, {seeds}: {result.way}")
