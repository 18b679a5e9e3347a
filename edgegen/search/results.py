"""What a search for students leaves behind: the documented schema "edgegen.plan/1", plan.json.

Its JSON Schema is committed beside this file; after a change here:
`python -c "import edgegen.search.results as p; p.update_schema_file()"`.
Every latency was measured, at batch 1; what is not known is null. The quality of a shape is not known before it is
trained, so nothing here speaks of it.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgegen.support.schema import Count, Record, Sha256, Utc
from edgegen.support.storage import write_json

Ms = Annotated[float, Field(gt=0)]


class Shape(Record):
    """A student, in the words of the recipe's [slim.model]."""

    channels: tuple[Count, ...]
    blocks: Count
    attention: tuple[Count, ...]
    embedding: Count


class Measured(Record):
    """A shape that was exported with random weights and put on the device; `failed` has no latency."""

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
    pareto: bool = Field(description="no measured shape is as good in p50, memory, parameters and macs, and better")

    @model_validator(mode="after")
    def _timed_unless_failed(self) -> "Measured":
        if (self.p50_ms is None) != (self.verdict == "failed"):
            raise ValueError("a latency belongs to every shape that did not fail, and to no other")
        return self


class Answer(Record):
    """What was found for one budget. `label` is that of the chosen shape in `measured`, null where none fits.

    `within`: p50 is within 10 % below the budget; `under`: it is further below; `largest`: the largest shape fits;
    `none`: no measured shape fits. `settled` is false where the time ended before all that looked better was measured.
    """

    budget_ms: Ms
    outcome: Literal["within", "under", "largest", "none"]
    label: str | None
    settled: bool
    recipe: str | None = Field(None, description="the name of the recipe's file that was written")


class Plan(Record):
    """One search: what was asked, what was measured, the Pareto set, and the choices."""

    schema_: Literal["edgegen.plan/1"] = Field("edgegen.plan/1", alias="schema")
    created: Utc
    tool: str
    recipe: str
    recipe_sha256: Sha256
    artifact: str = Field(description="of the recipe's [export] artifacts: what was measured")
    device: str
    target: dict[str, Any] = Field(description="what the device says of itself; unknown is null")
    threads: Count
    image_shape: tuple[Count, Count, Count]
    num_classes: Count
    largest: Shape = Field(description="the bound: no shape is larger in anything")
    shapes: Count = Field(description="within the bound; all but the measured ones were skipped")
    minutes: float = Field(description="that the search was given")
    seconds: float = Field(description="that it took, what was known from before not counted")
    answers: tuple[Answer, ...]
    measured: tuple[Measured, ...]
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _choices_fit(self) -> "Plan":
        """What is chosen was measured, and its whole interval is below the budget."""
        by_label = {one.label: one for one in self.measured}
        for answer in self.answers:
            chosen = None if answer.label is None else by_label.get(answer.label)
            if (answer.outcome == "none") != (chosen is None):
                raise ValueError(f"the choice {answer.label} for {answer.budget_ms:g} ms is not among the measured")
            if chosen and (chosen.p50_ci95_ms is None or chosen.p50_ci95_ms[1] > answer.budget_ms):
                raise ValueError(f"the choice {answer.label} does not fit {answer.budget_ms:g} ms")
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the documented keys."""
        content: dict[str, Any] = json.loads(self.model_dump_json(by_alias=True))
        return content

    def chosen(self, answer: Answer) -> Measured | None:
        return next((one for one in self.measured if one.label == answer.label), None)


SCHEMA_FILE = Path(__file__).with_name("plan.schema.json")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a plan (draft 2020-12)."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, **Plan.model_json_schema(by_alias=True, mode="serialization")}


def update_schema_file() -> None:
    write_json(SCHEMA_FILE, json_schema())
