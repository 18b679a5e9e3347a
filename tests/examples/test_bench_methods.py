"""The bench of the methods: every way of it is a recipe that a run accepts."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from edgegen.pipeline.graph import check, select
from edgegen.recipe import parse

ROWS = Path(__file__).parents[2] / "examples" / "bench_methods.json"


@pytest.fixture
def bench(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("bench_methods")


@pytest.mark.parametrize("data", ["digits", "fashion"])
def test_every_way_is_a_recipe_of_both_data_sets_with_as_many_steps(bench: ModuleType, data: str) -> None:
    for name, way in bench.ALL_WAYS.items():
        recipe = parse(bench.tables(data, way, 0, data, 1.0), where=name)
        check(recipe, select(recipe, to="evaluate"))
        steps = recipe.slim.steps + recipe.distill.steps + (0 if recipe.finish is None else recipe.finish.steps)
        assert steps == sum(bench.DATA[data][table]["steps"] for table in ("slim", "distill")), name


def test_the_guidance_of_a_teacher_is_all_that_differs_in_its_table(bench: ModuleType) -> None:
    plain, guided = (
        parse(bench.tables("fashion", bench.GUIDANCE[f"slimflow, guidance = {scale}"], 0, "x", 1.0), where="x")
        for scale in ("1", "1.5")
    )
    assert guided.teacher.guidance == 1.5
    assert plain.model_dump(exclude={"teacher"}) == guided.model_dump(exclude={"teacher"})
    assert plain.teacher.model_copy(update={"guidance": 1.5}) == guided.teacher


def test_guided_rows_decide_no_goal(bench: ModuleType) -> None:
    rows = json.loads(ROWS.read_text())["rows"]
    guided = [{**row, "method": "slimflow, guidance = 1.5", "teacher": 1e6} for row in rows]
    assert bench.goals([*rows, *guided]) == bench.goals(rows)
    assert bench.best_ways([*rows, *guided]) == bench.best_ways(rows)


def test_a_plan_that_measured_the_teacher_at_few_steps_is_compared_with_its_best(bench: ModuleType) -> None:
    shown = {"figures": {"fd_local": 3.0}, "parameters": 1, "teacher_parameters": 4, "seconds": 1, "images_per_s": 1}
    rows = [
        {"data": "fashion", "method": "cmt", "seed": 0, "teacher": 2.0, **shown},
        {"data": "fashion", "method": "flow_matching, mean_flow", "seed": 0, "teacher": 40.0, **shown},
        {"data": "fashion", "method": "slimflow, guidance = 1.5", "seed": 0, "teacher": 1.0, **shown},
        {"data": "fashion", "method": "cmt", "seed": 1, "teacher": 1.5, **shown},
    ]
    ratios = {item["method"]: item["of_teacher"] for item in bench.summary(rows, "fashion", "methods")}
    assert ratios == {"cmt": (1.5 + 2.0) / 2, "flow_matching, mean_flow": 1.5}
    again = {"data": "fashion", "method": "pair_regression", "seed": 0, "teacher": 2.5, **shown}  # on another machine
    ratios = {item["method"]: item["of_teacher"] for item in bench.summary([*rows, again], "fashion", "methods")}
    assert ratios == {"cmt": 1.75, "flow_matching, mean_flow": 1.5, "pair_regression": 1.2}
    (guided,) = bench.summary(rows, "fashion", "guidance")
    assert guided["of_teacher"] == 3.0


def test_distribution_matching_has_a_rate_of_its_own_on_fashion_alone(bench: ModuleType) -> None:
    for name in ("annealing_reflow, distribution_matching f", "slimflow, then distribution_matching kl"):
        of_digits, of_fashion = (bench.tables(data, bench.WAYS[name], 0, "x", 1.0) for data in ("digits", "fashion"))
        stage = "finish" if "finish" in of_digits else "distill"
        assert of_fashion[stage]["learning_rate"] == 5e-4 < of_digits[stage]["learning_rate"]
        assert "fake_learning_rate" not in of_digits[stage]


def test_the_networks_of_all_stages_of_a_way(bench: ModuleType) -> None:
    assert bench.networks_beside("digits", bench.WAYS["pair_regression"]) == []
    assert bench.networks_beside("digits", bench.WAYS["slimflow, then adversarial"]) == ["critic", "slimmed", "teacher"]
