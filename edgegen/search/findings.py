"""What a search found: its record, its page, and the recipe ready to train."""

from collections.abc import Mapping
from typing import Any

from edgegen.recipe import Architecture
from edgegen.report import plan_page
from edgegen.report.plan_page import ShapeRow
from edgegen.search.recipe_edit import with_student
from edgegen.search.results import Answer, Measured, Plan, Shape
from edgegen.search.selection import BAND, Search, pareto
from edgegen.search.trials import Trial, Trials, label_of
from edgegen.support.extras import version_of
from edgegen.support.schema import utc_now

NOTES = (
    "The weights are random: the latency is that of the trained student, its quality is not known before training.",
    "Chosen is, of the measured shapes whose p50 with its 95 % interval is below the budget, the one with the most "
    "parameters times multiplications.",
)
SMOOTHING = "quantize.methods has smoothing, whose multiplications are not in the measured files."


def plan_of(
    search: Search,
    trials: Trials,
    tried: Mapping[Architecture, Trial],
    *,
    names: Mapping[float, str],
    minutes: float,
    seconds: float,
) -> Plan:
    """The record of a search; `names` are the recipes to be written, by budget in ms."""
    recipe, facts = trials.recipe, trials.facts
    front = pareto(search.works, search.times)
    in_order = sorted(tried, key=lambda shape: search.times[shape].p50_ms if shape in search.times else 0.0)
    return Plan(
        created=utc_now(),
        tool=f"edgegen {version_of('edgegen')}",
        recipe=recipe.name,
        recipe_sha256=recipe.sha256(),
        artifact=str(trials.target),
        device=trials.device.partition(":")[0],
        target=dict(trials.about_device),
        threads=trials.threads,
        image_shape=(facts.channels, facts.size, facts.size),
        num_classes=facts.num_classes,
        largest=_shape(search.largest()),
        shapes=len(search.works),
        minutes=minutes,
        seconds=round(seconds, 1),
        answers=tuple(_answer(search, budget, name) for budget, name in names.items()),
        measured=tuple(_measured(search, tried[shape], pareto=shape in front) for shape in in_order),
        notes=(*NOTES, *([SMOOTHING] if "smoothing" in recipe.quantize.methods else [])),
    )


def recipe_text(text: str, plan: Plan, answer: Answer) -> str:
    """The recipe's text with the student that was chosen for a budget."""
    chosen = plan.chosen(answer)
    assert chosen is not None, "a shape that fits"
    noisy = " (noisy)" if chosen.verdict == "noisy" else ""
    note = f"p50 {chosen.p50_ms:.3g} ms{noisy} of {answer.budget_ms:g} ms, {plan.artifact} on {plan.device}"
    return with_student(text, Architecture.model_validate(chosen.shape.model_dump()), note=note)


def page(plan: Plan) -> str:
    """plan.html: the plots and the table, in one file."""
    budgets: dict[str, list[float]] = {}
    for answer in plan.answers:
        budgets.setdefault(answer.label or "", []).append(answer.budget_ms)
    marks = [
        ShapeRow(
            label=one.label,
            p50_ms=one.p50_ms,
            p50_ci95_ms=one.p50_ci95_ms,
            parameters=one.parameters,
            macs=one.macs,
            peak_rss_bytes=one.peak_rss_bytes,
            nbytes=one.nbytes,
            verdict=one.verdict,
            reasons=one.reasons,
            pareto=one.pareto,
            budgets_ms=tuple(budgets.get(one.label, ())),
        )
        for one in plan.measured
    ]
    lead = (
        f"{plan.artifact} on {plan.device} ({plan.target.get('cpu') or plan.target.get('arch')}), {plan.threads} "
        f"thread{'s' * (plan.threads > 1)}: {len(marks)} of {plan.shapes:,} shapes measured, before any training."
    )
    asked = [answer.budget_ms for answer in plan.answers]
    return plan_page.render(plan.recipe, lead, marks, budgets_ms=asked, notes=plan.notes)


def _shape(model: Architecture) -> Shape:
    return Shape(channels=model.channels, blocks=model.blocks, attention=model.attention, embedding=model.embedding)


def _answer(search: Search, budget_ms: float, name: str) -> Answer:
    chosen, settled = search.choice(budget_ms), not search.proposals([budget_ms], 1)
    if chosen is None:
        return Answer(budget_ms=budget_ms, outcome="none", label=None, settled=settled)
    near = search.times[chosen].p50_ms >= (1 - BAND) * budget_ms
    outcome: Any = "within" if near else "largest" if chosen == search.largest() else "under"
    return Answer(budget_ms=budget_ms, outcome=outcome, label=label_of(chosen), settled=settled, recipe=name)


def _measured(search: Search, trial: Trial, *, pareto: bool) -> Measured:
    result, counted = trial.result, search.works[trial.shape]
    found: dict[str, Any] = {"verdict": "failed", "reasons": (trial.reason,)}
    if result is not None:
        found |= {"sha256": result.artifact.sha256, "nbytes": result.artifact.nbytes}
    if result is not None and result.latency is not None:
        latency = result.latency
        found |= {"p50_ms": latency.p50_ms, "p50_ci95_ms": latency.p50_ci95_ms, "p90_ms": latency.p90_ms}
        found |= {"peak_rss_bytes": result.peak_rss_bytes}
        found |= {"verdict": result.verdict.status, "reasons": result.verdict.reasons}
    return Measured(
        shape=_shape(trial.shape),
        label=label_of(trial.shape),
        parameters=counted.parameters,
        macs=counted.macs,
        pareto=pareto,
        **found,
    )
