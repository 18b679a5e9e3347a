"""The record of a search: its schema is the committed one, and contradictory records are refused."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from edgegen.search.results import SearchResult
from edgegen.support.storage import read_json

SHAPE = {"channels": [8, 16], "blocks": 1, "attention": [], "embedding": 16}


def content(**changes: Any) -> dict[str, Any]:
    measured = {"shape": SHAPE, "label": "8-16-b1", "parameters": 10, "macs": 20, "sha256": "0" * 64, "nbytes": 5}
    measured |= {"p50_ms": 0.95, "p50_ci95_ms": [0.94, 0.96], "p90_ms": 1.0, "verdict": "ok", "pareto": True}
    plan = {"schema": "edgegen.plan/1", "created": "2026-01-01T00:00:00Z", "tool": "edgegen 0", "recipe": "x"}
    plan |= {"recipe_sha256": "0" * 64, "artifact": "onnx-fp32", "device": "host", "target": {"cpu": None}}
    plan |= {"threads": 1, "image_shape": [1, 8, 8], "num_classes": 0, "largest": SHAPE, "shapes": 3, "minutes": 10.0}
    plan |= {"seconds": 1.0, "measured": [measured]}
    answer = {"budget_ms": 1.0, "outcome": "within", "label": "8-16-b1", "settled": True, "recipe": "x-1ms.toml"}
    return {**plan, "answers": [{**answer, **changes.pop("answer", {})}], **changes}


def test_the_committed_schema_is_that_of_the_record_and_a_plan_conforms_to_it() -> None:
    assert read_json(SearchResult.schema_file) == SearchResult.json_schema()
    Draft202012Validator.check_schema(SearchResult.json_schema())
    plan = SearchResult.model_validate(content())
    Draft202012Validator(SearchResult.json_schema()).validate(plan.to_json())
    assert SearchResult.model_validate(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": {"budget_ms": 0.95}}, "8-16-b1 does not fit 0.95 ms"),
        ({"answer": {"label": "16-16-b1"}}, "16-16-b1 for 1 ms is not among the measured"),
        ({"answer": {"label": None}}, "is not among the measured"),
        ({"measured": [{**content()["measured"][0], "verdict": "failed"}]}, "a latency belongs to every shape"),
        ({"quality": 3}, "Extra inputs"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchResult.model_validate(content(**changes))
