"""Networks of other stages that a method trains with: the extractor's layers, the network of the stage before."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY

from edgegen.errors import RecipeError
from edgegen.models.load import load
from edgegen.pipeline import training_stage
from edgegen.pipeline.estimate import estimate
from edgegen.pipeline.graph import check, select
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.stages.extractor import load_extractor
from edgegen.recipe import Recipe, parse
from edgegen.support.storage import read_json

METHODS = """
[finish]
method = "progressive"
teacher_steps = 4
steps = 8
batch = 16
checkpoint_every = 5
"""
TUNED = TINY.replace("[pairs]\n", "[pairs]\nknots = 2\n").replace(
    "[slim]\n", '[slim]\nmethod = "cmt"\ndistance = "perceptual"\n'
).replace(
    "[distill]\n", '[distill]\nmethod = "consistency_tuning"\nteacher_step = "heun"\ntruncate_at = 0.4\n'
)  # fmt: skip


def recipe(**tables: Any) -> Recipe:
    values = tomllib.loads(TINY)
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table}
    return parse(values, where="test")


def test_a_run_gives_the_methods_the_networks_that_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, dict[str, torch.nn.Module]] = {}
    make = training_stage._frozen

    def remembered(context: Any, *arguments: Any) -> dict[str, torch.nn.Module]:
        given[context.stage] = make(context, *arguments)
        return given[context.stage]

    monkeypatch.setattr(training_stage, "_frozen", remembered)
    (tmp_path / "tiny.toml").write_text(TUNED + METHODS)
    results = {item.stage: item for item in run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="finish")}
    assert list(results) == ["data", "teacher", "pairs", "extractor", "slim", "distill", "finish"]
    assert {stage: set(networks) for stage, networks in given.items()} == {
        "teacher": set(),
        "slim": {"features"},
        "distill": {"teacher", "earlier"},
        "finish": {"teacher"},
    }
    extractor = load_extractor(results["extractor"].folder, [1, 8, 8]).network.state_dict()
    features = given["slim"]["features"].state_dict()
    assert all(torch.equal(extractor[name], features[name]) for name in extractor)
    slimmed = load(results["slim"].folder / "generator").net.state_dict()
    earlier = given["distill"]["earlier"].state_dict()
    assert all(torch.equal(slimmed[name], earlier[name]) for name in slimmed)
    inputs = read_json(results["slim"].folder / "stage.json")["inputs"]
    assert inputs["extractor"] == results["extractor"].key, "another extractor is another student"


def test_the_time_of_such_a_plan_is_estimated(tmp_path: Path) -> None:
    whole = parse(tomllib.loads(TUNED + METHODS), where="test")
    stages = ["slim", "distill", "finish", "baseline"]
    times = estimate(whole, stages, base=tmp_path, finished={}, limit_s=1.0)
    assert all(times[stage].seconds for stage in stages)


def test_the_extractor_comes_before_a_training_that_uses_it_and_else_late() -> None:
    def names(chosen: Recipe, **selection: str) -> list[str]:
        return [stage.name for stage in select(chosen, **selection)]

    plain, perceptual = recipe(), recipe(distill={"distance": "perceptual"})
    assert names(plain).index("extractor") > names(plain).index("baseline")
    assert "extractor" not in names(plain, to="distill")
    assert names(perceptual, to="distill") == ["data", "teacher", "pairs", "slim", "extractor", "distill"]
    assert "extractor" in names(perceptual, only="distill")
    assert sorted(names(perceptual)) == sorted(names(plain))
    baseline = next(stage for stage in select(perceptual) if stage.name == "baseline")
    assert "extractor" in baseline.needs, "its distance is that of distill"


def test_what_a_stage_cannot_have_is_told_before_any_work() -> None:
    truncated = recipe(slim={"method": "consistency_tuning", "truncate_at": 0.5})
    with pytest.raises(RecipeError, match=r"slim.method = 'consistency_tuning' needs earlier_network, which the stage"):
        check(truncated, select(truncated))
    pathless = recipe(slim={"method": "cmt"})
    with pytest.raises(RecipeError, match=r"slim.method = 'cmt' needs states .*: give pairs.knots, such as knots = 4"):
        check(pathless, select(pathless))
    with pytest.raises(RecipeError, match=r"distill.truncate_at: .*less than 1 \(found 1.5\)"):
        recipe(distill={"method": "consistency_tuning", "truncate_at": 1.5})
    with pytest.raises(RecipeError, match=r"teacher_steps: .* 2, 4, 8, 16, 32 or 64 \(found 12\)"):
        recipe(distill={"method": "progressive", "teacher_steps": 12})
