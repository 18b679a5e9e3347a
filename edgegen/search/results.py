"""The results of a search for students: plan.json (schema "edgegen.plan/1"), its page, and the recipes.

Its JSON Schema is committed beside this file; after a change here:
`python -c "from edgegen.search.results import SearchResult; SearchResult.update_schema_file()"`.
Every latency is measured, at batch 1; unknown values are null. The quality of a shape is not known before it is trained
and therefore has no field.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from edgegen.recipe import Architecture
from edgegen.report import plan_page
from edgegen.report.plan_page import ShapeRow
from edgegen.search.recipe_edit import with_student
from edgegen.search.selection import BAND, Search, pareto
from edgegen.search.trials import Trial, Trials, shape_label
from edgegen.support.extras import version_of
from edgegen.support.schema import Count, Document, Record, Sha256, Utc, utc_now

Ms = Annotated[float, Field(gt=0)]
NOTES = (
    "The weights are random: the latency is that of the trained student, its quality is not known before training.",
    "The choice is, among the measured shapes whose p50 with its 95 % interval is below the budget, the one with the "
    "largest product of parameters and MACs.",
)
SMOOTHING = "quantize.methods has smoothing, whose operations are missing from the measured files."


class Shape(Record):
    """A student, in the words of the recipe's [slim.network]."""

    channels: tuple[Count, ...]
    blocks: Count
    attention: tuple[Count, ...]
    embedding: Count


class MeasuredShape(Record):
    """A shape that was exported with random weights and run on the device; `failed` has no latency."""

    shape: Shape
    label: str
    parameters: Count = Field(description="that are trained, as slim.keep counts them")
    macs: Count = Field(description="multiply-accumulates of one inference, the time folded")
    sha256: Sha256 | None = Field(None, description="of the file; null where it could not be made")
    nbytes: Count | None = None
    p50_ms: Ms | None = None
    p50_ci95_ms: tuple[Ms, Ms] | None = None
    p90_ms: Ms | None = None
    peak_rss_bytes: Count | None = None
    verdict: Literal["ok", "noisy", "failed"]
    reasons: tuple[str, ...] = ()
    pareto: bool = Field(description="no measured shape dominates it in p50, memory, parameters and macs")

    @model_validator(mode="after")
    def _timed_unless_failed(self) -> "MeasuredShape":
        if (self.p50_ms is None) != (self.verdict == "failed"):
            raise ValueError("a latency belongs to every shape that did not fail, and to no other")
        return self


class Answer(Record):
    """The choice for one budget. `label` is that of the chosen shape in `measured`, null where none fits.

    `within`: p50 is within 10 % below the budget; `under`: it is further below; `largest`: the largest shape fits;
    `none`: no measured shape fits. `settled` is false where the search ran out of time before everything that promised
    to be better was measured.
    """

    budget_ms: Ms
    outcome: Literal["within", "under", "largest", "none"]
    label: str | None
    settled: bool
    recipe: str | None = Field(None, description="file name of the recipe that was written")


class SearchResult(Document):
    """One search: the request, the measured shapes, the Pareto set, and the choices."""

    model_config = ConfigDict(title="Plan")

    schema_file: ClassVar[Path] = Path(__file__).with_name("plan.schema.json")

    schema_: Literal["edgegen.plan/1"] = Field("edgegen.plan/1", alias="schema")
    created: Utc
    tool: str
    recipe: str
    recipe_sha256: Sha256
    artifact: str = Field(description="the one of the recipe's [export] artifacts that was measured")
    device: str
    target: dict[str, Any] = Field(description="what the device reports about itself; unknown is null")
    threads: Count
    image_shape: tuple[Count, Count, Count]
    num_classes: Count
    largest: Shape = Field(description="the bound: no shape exceeds it")
    shapes: Count = Field(description="number of shapes within the bound; all but the measured ones were skipped")
    minutes: float = Field(description="the limit of the search")
    seconds: float = Field(description="duration of this search, without earlier ones whose results it used")
    answers: tuple[Answer, ...]
    measured: tuple[MeasuredShape, ...]
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _choices_fit(self) -> "SearchResult":
        """Every choice was measured, and its whole interval is below the budget."""
        by_label = {shape.label: shape for shape in self.measured}
        for answer in self.answers:
            chosen = None if answer.label is None else by_label.get(answer.label)
            if (answer.outcome == "none") != (chosen is None):
                raise ValueError(f"the choice {answer.label} for {answer.budget_ms:g} ms is not among the measured")
            if chosen and (chosen.p50_ci95_ms is None or chosen.p50_ci95_ms[1] > answer.budget_ms):
                raise ValueError(f"the choice {answer.label} does not fit {answer.budget_ms:g} ms")
        return self

    def chosen(self, answer: Answer) -> MeasuredShape | None:
        """The measured shape of an answer."""
        return next((shape for shape in self.measured if shape.label == answer.label), None)


def search_result(
    search: Search,
    trials: Trials,
    tried: Mapping[Architecture, Trial],
    *,
    names: Mapping[float, str],
    minutes: float,
    seconds: float,
) -> SearchResult:
    """The record of a search; `names` are the file names of its recipes, by budget in ms."""
    recipe, data = trials.recipe, trials.data
    front = pareto(search.complexities, search.latencies)
    by_latency = sorted(tried, key=lambda shape: search.latencies[shape].p50_ms if shape in search.latencies else 0.0)
    return SearchResult(
        created=utc_now(),
        tool=f"edgegen {version_of('edgegen')}",
        recipe=recipe.name,
        recipe_sha256=recipe.sha256(),
        artifact=str(trials.target),
        device=trials.device.partition(":")[0],
        target=dict(trials.about_device),
        threads=trials.threads,
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        largest=_shape(search.largest()),
        shapes=len(search.complexities),
        minutes=minutes,
        seconds=round(seconds, 1),
        answers=tuple(_answer(search, budget, name) for budget, name in names.items()),
        measured=tuple(_measured(search, tried[shape], pareto=shape in front) for shape in by_latency),
        notes=(*NOTES, *([SMOOTHING] if "smoothing" in recipe.quantize.methods else [])),
    )


def recipe_text(text: str, result: SearchResult, answer: Answer) -> str:
    """The recipe's text with the student of an answer."""
    chosen = result.chosen(answer)
    assert chosen is not None, "the answer has a label"
    noisy = " (noisy)" if chosen.verdict == "noisy" else ""
    note = f"p50 {chosen.p50_ms:.3g} ms{noisy} of {answer.budget_ms:g} ms, {result.artifact} on {result.device}"
    return with_student(text, Architecture.model_validate(chosen.shape.model_dump()), note=note)


def page(result: SearchResult) -> str:
    """plan.html: plots and table in one file that opens offline."""
    budgets: dict[str, list[float]] = {}
    for answer in result.answers:
        budgets.setdefault(answer.label or "", []).append(answer.budget_ms)
    marks = [
        ShapeRow(
            label=shape.label,
            p50_ms=shape.p50_ms,
            p50_ci95_ms=shape.p50_ci95_ms,
            parameters=shape.parameters,
            macs=shape.macs,
            peak_rss_bytes=shape.peak_rss_bytes,
            nbytes=shape.nbytes,
            verdict=shape.verdict,
            reasons=shape.reasons,
            pareto=shape.pareto,
            budgets_ms=tuple(budgets.get(shape.label, ())),
        )
        for shape in result.measured
    ]
    lead = (
        f"{result.artifact} on {result.device} ({result.target.get('cpu') or result.target.get('arch')}), "
        f"{result.threads} thread{'s' * (result.threads > 1)}: {len(marks)} of {result.shapes:,} shapes measured, "
        "before any training."
    )
    all_budgets = [answer.budget_ms for answer in result.answers]
    return plan_page.render(result.recipe, lead, marks, budgets_ms=all_budgets, notes=result.notes)


def _shape(model: Architecture) -> Shape:
    return Shape(channels=model.channels, blocks=model.blocks, attention=model.attention, embedding=model.embedding)


def _answer(search: Search, budget_ms: float, name: str) -> Answer:
    chosen, settled = search.choice(budget_ms), not search.proposals([budget_ms], 1)
    if chosen is None:
        return Answer(budget_ms=budget_ms, outcome="none", label=None, settled=settled)
    near = search.latencies[chosen].p50_ms >= (1 - BAND) * budget_ms
    outcome: Any = "within" if near else "largest" if chosen == search.largest() else "under"
    return Answer(budget_ms=budget_ms, outcome=outcome, label=shape_label(chosen), settled=settled, recipe=name)


def _measured(search: Search, trial: Trial, *, pareto: bool) -> MeasuredShape:
    result, complexity = trial.result, search.complexities[trial.shape]
    figures: dict[str, Any] = {"verdict": "failed", "reasons": (trial.reason,)}
    if result is not None:
        figures |= {"sha256": result.artifact.sha256, "nbytes": result.artifact.nbytes}
    if result is not None and result.latency is not None:
        latency = result.latency
        figures |= {"p50_ms": latency.p50_ms, "p50_ci95_ms": latency.p50_ci95_ms, "p90_ms": latency.p90_ms}
        figures |= {"peak_rss_bytes": result.peak_rss_bytes}
        figures |= {"verdict": result.verdict.status, "reasons": result.verdict.reasons}
    return MeasuredShape(
        shape=_shape(trial.shape),
        label=shape_label(trial.shape),
        parameters=complexity.parameters,
        macs=complexity.macs,
        pareto=pareto,
        **figures,
    )
