"""`edgegen plan`: which width and depth of a recipe's student fit a latency budget, before any training."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegen.cli.run import JsonOption, RecipeArgument, RunsOption
from edgegen.cli.terminal import show
from edgegen.errors import BudgetError, UsageError

if TYPE_CHECKING:
    from edgegen.search.results import Answer, SearchResult

TEXT = """Find the student that fits a latency budget, before any training, and write the recipe that trains it.

Shapes no larger than the teacher (width, depth, attention, resolutions) are exported with random weights, on which
latency does not depend, and measured on the device. The command writes RECIPE-8ms.toml, ready for `edgegen run`, and
into DIR/<name>/plan plan.json, with all measured shapes and the Pareto set, and plan.html, which plots them. An
interrupted plan continues where it stopped; a further budget or device reuses files and measurements. Of the recipe's
stages only `data` runs.

Example: edgegen plan digits --budget 0.3ms

  edgegen plan my.toml --device ssh:pi@raspberrypi --budget 8ms

  edgegen plan my.toml --budget 4ms,8ms,16ms --artifact executorch-w8a8 --minutes 20"""


def register(app: typer.Typer) -> None:
    app.command("plan", help=TEXT)(plan)


def plan(
    recipe: RecipeArgument,
    budget: Annotated[
        str, typer.Option("--budget", metavar="LIST", help="Largest p50 of one image: 8ms, 0.5s, or 4ms,8ms,16ms.")
    ],
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="Where to measure: host, or ssh:USER@HOST.")
    ] = "host",
    artifact: Annotated[
        str | None,
        typer.Option(
            "--artifact", metavar="NAME", help="One of the recipe's artifacts; default: the first that runs there."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=1, help="Threads of the runtime on the device.")
    ] = 1,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="N", min=0.1, help="Limit of the search; it then reports what it has.")
    ] = 10.0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.toml", help="The recipe; default: RECIPE-8ms.toml beside it."),
    ] = None,
    runs: RunsOption = Path("runs"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace a recipe that was not written by a plan, or changed since.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Prints the measured shapes and the choices."""
    budgets = budgets_ms(budget)
    from edgegen.search.plan import Request, search_students
    from edgegen.support.progress import progress

    request = Request(recipe, budgets, device, artifact, threads, minutes, runs, output, force)
    result = search_students(request, progress=progress())
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        show(*_table(result))
    missed = [answer for answer in result.answers if answer.outcome == "none"]
    if missed:
        fastest = next(shape for shape in result.measured if shape.p50_ms is not None)
        budgets_text = ", ".join(f"{answer.budget_ms:g}" for answer in missed)
        raise BudgetError(
            f"no measured shape fits {budgets_text} ms: the fastest, {fastest.label}, takes {fastest.p50_ms:.3g} ms. "
            "Give a larger budget, or choose a faster artifact (--artifact)"
        )


def budgets_ms(text: str) -> tuple[float, ...]:
    """ "8ms", "8", "0.5s", "4ms,8ms" -> milliseconds, the shortest first, each once. Raises UsageError."""
    budgets = set()
    for part in text.split(","):
        matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)?", part.strip())
        if matched is None or float(matched[1]) == 0:
            raise UsageError(f"--budget {text}: give a time such as 8ms or 0.5s, or several: 4ms,8ms,16ms")
        budgets.add(float(matched[1]) * (1000 if matched[2] == "s" else 1))
    return tuple(sorted(budgets))


def _table(result: "SearchResult") -> list[str]:
    from edgegen.report.formats import count, nbytes, number, short_count

    machine = result.target.get("cpu") or result.target.get("arch")
    lines = [
        f"{result.artifact} on {result.device}: {machine}, {result.threads} thread{'s' * (result.threads > 1)}; "
        f"{len(result.measured)} of {result.shapes:,} shapes measured, {result.seconds:.0f} s",
        "",
        "| shape | parameters | MACs | p50 ms (95 %) | memory | verdict | Pareto | chosen for |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shape in result.measured:
        budgets = ", ".join(f"{answer.budget_ms:g} ms" for answer in result.answers if answer.label == shape.label)
        low, high = shape.p50_ci95_ms or (None, None)
        p50 = f"{number(shape.p50_ms)} ({number(low)} to {number(high)})"
        figures = [count(shape.parameters), short_count(shape.macs), p50, nbytes(shape.peak_rss_bytes), shape.verdict]
        lines.append(f"| {' | '.join([shape.label, *figures, 'yes' if shape.pareto else '', budgets])} |")
    lines += [f"{shape.label}: {reason}" for shape in result.measured for reason in shape.reasons]
    lines.append("")
    lines += [_sentence(result, answer) for answer in result.answers if answer.label is not None]
    lines += result.notes
    return lines


def _sentence(result: "SearchResult", answer: "Answer") -> str:
    """The choice for a budget, with its qualifications."""
    shape = result.chosen(answer)
    assert shape is not None, "the answer has a label"
    assert shape.p50_ms is not None, "a choice was measured"
    remarks = [f"{shape.p50_ms:.3g} ms, {shape.p50_ms / answer.budget_ms - 1:+.1%}"]
    if shape.verdict == "noisy":
        remarks.append("noisy")
    if answer.outcome == "largest":
        remarks.append("the largest shape that the teacher allows")
    if not answer.settled:
        remarks.append("the search ran out of time before it had measured everything that promised to be better")
    return f"{answer.budget_ms:g} ms: {shape.label} ({'; '.join(remarks)}) -> {answer.recipe}"
