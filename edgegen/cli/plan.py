"""`edgegen slim plan`: which width and depth of a recipe's student fit a latency budget, before any training."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegen.cli.run import JsonOption, RecipeArgument, RunsOption
from edgegen.errors import BudgetError, UsageError

if TYPE_CHECKING:
    from edgegen.search.results import Answer, Plan

TEXT = """Find the student that fits a latency budget, before any training, and write the recipe that trains it.

Shapes within the teacher's (width, depth, attention, resolutions) are exported with random weights, on which latency
does not depend, and measured on the device. Written are RECIPE-8ms.toml, ready for `edgegen run`, and in
DIR/<name>/plan plan.json, with all measured shapes and the Pareto set, and plan.html, which plots them. An interrupted
plan goes on, and a further budget or device uses what is there. Of the recipe's stages only its data are made.

Example: edgegen slim plan digits --budget 0.3ms

  edgegen slim plan my.toml --device ssh:pi@raspberrypi --budget 8ms

  edgegen slim plan my.toml --budget 4ms,8ms,16ms --artifact executorch-w8a8 --minutes 20"""


def register(app: typer.Typer) -> None:
    app.command("slim plan", help=TEXT)(slim_plan)


def slim_plan(
    recipe: RecipeArgument,
    budget: Annotated[
        str, typer.Option("--budget", metavar="LIST", help="Most p50 of one image: 8ms, 0.5s, or 4ms,8ms,16ms.")
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
    threads: Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Of the runtime on the device.")] = 1,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="N", min=0.1, help="For the search; what is found by then is told.")
    ] = 10.0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.toml", help="The recipe; default: RECIPE-8ms.toml beside it."),
    ] = None,
    runs: RunsOption = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that is not as a plan wrote it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prints the measured shapes and the choices."""
    budgets = budgets_ms(budget)
    from edgegen.search.plan import Request, slim_plan
    from edgegen.support.progress import progress

    request = Request(recipe, budgets, device, artifact, threads, minutes, runs, output, force)
    plan = slim_plan(request, progress=progress())
    print(json.dumps(plan.to_json(), indent=2) if as_json else _table(plan))
    broken = [answer for answer in plan.answers if answer.outcome == "none"]
    if broken:
        fastest = next(one for one in plan.measured if one.p50_ms is not None)
        asked = ", ".join(f"{answer.budget_ms:g}" for answer in broken)
        raise BudgetError(
            f"no measured shape fits {asked} ms: the fastest, {fastest.label}, takes {fastest.p50_ms:.3g} ms. "
            "Ask for more time, or for a faster artifact (--artifact)"
        )


def budgets_ms(text: str) -> tuple[float, ...]:
    """ "8ms", "8", "0.5s", "4ms,8ms" -> milliseconds, the shortest first, each once. Raises UsageError."""
    found = set()
    for part in text.split(","):
        matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)?", part.strip())
        if matched is None or float(matched[1]) == 0:
            raise UsageError(f"--budget {text}: give a time such as 8ms or 0.5s, or several: 4ms,8ms,16ms")
        found.add(float(matched[1]) * (1000 if matched[2] == "s" else 1))
    return tuple(sorted(found))


def _table(plan: "Plan") -> str:
    from edgegen.report.formats import count, nbytes, number, short_count

    machine = plan.target.get("cpu") or plan.target.get("arch")
    lines = [
        f"{plan.artifact} on {plan.device}: {machine}, {plan.threads} thread{'s' * (plan.threads > 1)}; "
        f"{len(plan.measured)} of {plan.shapes:,} shapes measured, {plan.seconds:.0f} s",
        "",
        "| shape | parameters | MACs | p50 ms (95 %) | memory | verdict | Pareto | chosen for |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in plan.measured:
        chosen = ", ".join(f"{answer.budget_ms:g} ms" for answer in plan.answers if answer.label == one.label)
        low, high = one.p50_ci95_ms or (None, None)
        p50 = f"{number(one.p50_ms)} ({number(low)} to {number(high)})"
        figures = [count(one.parameters), short_count(one.macs), p50, nbytes(one.peak_rss_bytes), one.verdict]
        lines.append(f"| {' | '.join([one.label, *figures, 'yes' if one.pareto else '', chosen])} |")
    lines += [f"{one.label}: {reason}" for one in plan.measured for reason in one.reasons]
    lines.append("")
    lines += [_sentence(plan, answer) for answer in plan.answers if answer.label is not None]
    lines += plan.notes
    return "\n".join(lines)


def _sentence(plan: "Plan", answer: "Answer") -> str:
    """What was chosen for a budget, and what limits that."""
    chosen = plan.chosen(answer)
    assert chosen is not None, "a measured shape"
    assert chosen.p50_ms is not None, "that fits"
    found = [f"{chosen.p50_ms:.3g} ms, {chosen.p50_ms / answer.budget_ms - 1:+.1%}"]
    if chosen.verdict == "noisy":
        found.append("noisy")
    if answer.outcome == "largest":
        found.append("the largest shape that the teacher allows")
    if not answer.settled:
        found.append("the time was up before all that looked better was measured")
    return f"{answer.budget_ms:g} ms: {chosen.label} ({'; '.join(found)}) -> {answer.recipe}"
