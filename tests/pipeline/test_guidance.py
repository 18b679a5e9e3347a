"""Guidance of the teacher in a run: pairs, methods and figures have the guided velocity, and the teacher stays."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY
from torch import Tensor, nn
from trained_teachers import small_unet2d

from edgegen.artifacts.sessions import network as timed_network
from edgegen.errors import DataError, RecipeError
from edgegen.flow.guidance import Guidance, unguided
from edgegen.flow.guided_velocity import GuidedVelocity
from edgegen.flow.solvers import solve
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import save
from edgegen.models.load import load
from edgegen.pipeline import training_stage
from edgegen.pipeline.estimate import estimate
from edgegen.pipeline.graph import Context, check, select
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run import dry_run, run_recipe
from edgegen.pipeline.run_folder import RunFolder
from edgegen.pipeline.samplers import samplers
from edgegen.pipeline.stages.pairs import read_pairs
from edgegen.recipe import Recipe, parse, read
from edgegen.support.children import Children
from edgegen.support.progress import Silent

GUIDED = TINY.replace("[teacher]\n", "[teacher]\nlabel_dropout = 0.2\nguidance = 1.5\nguidance_interval = [0.1, 0.9]\n")
BY_TEACHER = '[distill]\nmethod = "consistency_tuning"\nteacher_step = "euler"\n'


def tiny(**tables: Any) -> Recipe:
    values: dict[str, Any] = tomllib.loads(TINY)
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table}
    return parse(values, where="test")


def dry(recipe: Recipe, place: Path) -> None:
    """What a dry run does before it prints."""
    stages = select(recipe)
    plan(recipe, stages, base=place, folder=RunFolder(place / "runs"))
    estimate(recipe, [stage.name for stage in stages], base=place, finished={}, limit_s=1.0)


def by_hand(net: nn.Module, none: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The velocity guided with 1.5 between the times 0.1 and 0.9."""

    def velocity(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        v, v_none = net(x, t, labels), net(x, t, torch.full_like(labels, none))
        inside = ((t > 0.1) & (t <= 0.9))[:, None, None, None]
        return torch.where(inside, v_none + 1.5 * (v - v_none), v)

    return velocity


def test_pairs_and_methods_get_the_guided_velocity_and_another_scale_keeps_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, dict[str, nn.Module]] = {}
    make = training_stage._frozen

    def remembered(context: Any, *arguments: Any) -> dict[str, nn.Module]:
        given[context.stage] = make(context, *arguments)
        return given[context.stage]

    monkeypatch.setattr(training_stage, "_frozen", remembered)
    text, runs = GUIDED.replace("[distill]\n", BY_TEACHER), tmp_path / "runs"
    (tmp_path / "tiny.toml").write_text(text)
    results = {item.stage: item for item in run_recipe(tmp_path / "tiny.toml", runs=runs, to="distill")}
    loaded = load(results["teacher"].folder / "generator")
    assert loaded.signature.num_classes == 10
    made = read_pairs(results["pairs"].folder)
    with torch.no_grad():
        expected = solve(by_hand(loaded.net, 10), made.noise.float(), made.condition, solver="heun", steps=2).x
    torch.testing.assert_close(made.images.float(), expected, atol=5e-3, rtol=5e-3)
    plain = solve(loaded.net, made.noise.float(), made.condition, solver="heun", steps=2).x
    assert not torch.allclose(made.images.float(), plain, atol=5e-3, rtol=5e-3)
    teacher = given["distill"]["teacher"]
    assert isinstance(teacher, GuidedVelocity)
    assert teacher.guidance == Guidance(1.5, (0.1, 0.9))
    assert isinstance(unguided(teacher), EdgeUNet)
    recipe, inputs = read(tmp_path / "tiny.toml"), {stage: results[stage].folder for stage in ("data", "teacher")}
    rows = samplers(Context(recipe, "evaluate", tmp_path, inputs, tmp_path, Silent(), {}, Children()))
    assert {type(row.network) for row in rows} == {GuidedVelocity}
    student = load(results["distill"].folder / "generator").net
    assert student.config.to_dict().keys().isdisjoint({"unconditional", "second_time"}), "it stays u(x, t, class)"
    (tmp_path / "tiny.toml").write_text(text.replace("guidance = 1.5", "guidance = 2"))
    states = {item.stage.name: item.state for item in dry_run(tmp_path / "tiny.toml", runs=runs, to="distill")[1]}
    kept = [stage for stage, state in states.items() if state == "unchanged"]
    assert kept == ["data", "teacher"]


def test_of_a_plan_without_pairs_the_stages_that_ask_the_teacher_change(tmp_path: Path) -> None:
    def keys(guidance: float) -> dict[str, str]:
        recipe = tiny(
            teacher={"label_dropout": 0.1, "guidance": guidance},
            slim={"method": "flow_matching"},
            distill={"method": "progressive"},
        )
        stages = select(recipe, to="evaluate")
        return {p.stage.name: p.key for p in plan(recipe, stages, base=tmp_path, folder=RunFolder(tmp_path / "runs"))}

    before, after = keys(1.5), keys(3.0)
    changed = [stage for stage, key in before.items() if after[stage] != key]
    assert changed == ["distill", "evaluate"]


def test_a_second_network_guides_and_is_part_of_the_key(tmp_path: Path) -> None:
    config = EdgeUNetConfig(8, 1, (8,), 1, (), 10, 16)
    torch.manual_seed(0)
    save(EdgeUNet(config), tmp_path / "worse", about={})
    (tmp_path / "tiny.toml").write_text(
        TINY.replace("[teacher]\n", '[teacher]\nguidance = 3.0\nguidance_network = "worse"\n')
    )
    results = {item.stage: item for item in run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="pairs")}
    good, bad = load(results["teacher"].folder / "generator").net, load(tmp_path / "worse").net
    made = read_pairs(results["pairs"].folder)
    with torch.no_grad():
        expected = solve(
            lambda x, t, labels: 3 * good(x, t, labels) - 2 * bad(x, t, labels),
            made.noise.float(),
            made.condition,
            solver="heun",
            steps=2,
        ).x
    torch.testing.assert_close(made.images.float(), expected, atol=5e-3, rtol=5e-3)
    torch.manual_seed(1)
    save(EdgeUNet(config), tmp_path / "worse", about={})
    planned = dry_run(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="pairs")[1]
    assert [item.state for item in planned] == ["unchanged", "unchanged", "to run"]
    folder = str(results["teacher"].folder / "generator")
    guidance = {"scale": 3.0, "interval": [0.0, 1.0], "network": str(tmp_path / "worse")}
    image = timed_network(threads=1, folder=folder, steps=2, guidance=guidance)()
    assert not np.array_equal(image, timed_network(threads=1, folder=folder, steps=2)())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports
def test_a_brought_unet_with_one_class_more_than_the_data_knows_none(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = small_unet2d(num_class_embeds=11).eval()
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "theirs")
    others = TINY[TINY.index("[pairs]") :].replace("steps = 2", 'steps = 2\nsolver = "euler"', 1)
    table = '[teacher]\nfolder = "theirs"\nguidance = 1.5\nguidance_interval = [0.1, 0.9]\n'
    (tmp_path / "tiny.toml").write_text('name = "tiny"\n' + table + others)
    results = {item.stage: item for item in run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="slim")}
    loaded = load(results["teacher"].folder / "generator")
    assert (loaded.signature.num_classes, loaded.net.unconditional_class) == (10, 10)
    made = read_pairs(results["pairs"].folder)
    with torch.no_grad():
        velocity = by_hand(loaded.net, 10)
        velocity.time_grid, velocity.time_dtype = loaded.net.time_grid, torch.float64  # type: ignore[attr-defined]
        expected = solve(velocity, made.noise.float(), made.condition, solver="euler", steps=2).x
    torch.testing.assert_close(made.images.float(), expected, atol=1e-2, rtol=1e-2)
    assert load(results["slim"].folder / "generator").signature.num_classes == 10


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"teacher": {"guidance": 2.0}}, r"teacher: guidance = 2 needs a teacher that also knows no class: give label_dr"),
    ({"teacher": {"label_dropout": 0.1, "guidance": 2.0, "guidance_interval": [0.8, 0.2]}}, r"\[0.8, 0.2\]: the first"),
    ({"teacher": {"guidance_interval": [0.2, 0.8]}}, "guidance_interval without guidance: give guidance = 1.5"),
    ({"teacher": {"guidance": -1.0}}, r"teacher.guidance: .* \(found -1.0\)"),
    (
        {"teacher": {"label_dropout": 0.1}, "data": {"conditional": False}},
        r"teacher.method = 'flow_matching' trains without a class .* data.conditional is false; remove label_dropout",
    ),
    ({"recover": {"method": "flow_matching", "label_dropout": 0.1}}, "which the stage refine does not have"),
)


@pytest.mark.parametrize(("tables", "message"), WRONG)
def test_guidance_that_cannot_be_is_refused_with_the_recipe(tables: dict[str, Any], message: str) -> None:
    def read_and_checked() -> None:
        recipe = tiny(**tables)
        check(recipe, select(recipe))

    with pytest.raises(RecipeError, match=message):
        read_and_checked()


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"guidance": 2.0, "guidance_network": "absent"}, "teacher.guidance_network: no folder .*absent"),
        (
            {"guidance": 2.0, "guidance_network": "three"},
            r"guidance_network: makes images \[3, 8, 8\] of 10 classes, the teacher \[1, 8, 8\] of 10 classes",
        ),
        ({"guidance": 2.0, "guidance_network": "none"}, r"makes images \[1, 8, 8\] of 0 classes, the teacher"),
        ({"guidance": 2.0, "guidance_network": "student"}, "student is a student, trained for a single step"),
        (
            {"guidance": 2.0, "folder": "ten"},
            "teacher.guidance = 2: the teacher knows 10 classes, and no label that stands for none of them: it was",
        ),
    ],
)
def test_guidance_that_does_not_fit_the_teacher_is_refused_before_any_training(
    tmp_path: Path, teacher: dict[str, Any], message: str
) -> None:
    for name, changes in {"ten": {}, "none": {"num_classes": 0}, "three": {"in_channels": 3}}.items():
        config = EdgeUNetConfig(**{"sample_size": 8, "channels": (8, 16), "blocks": 1, "num_classes": 10, **changes})
        save(EdgeUNet(config), tmp_path / name, about={})
    save(EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, (), 10)), tmp_path / "student", about={"role": "student"})
    values: dict[str, Any] = tomllib.loads(TINY)
    own = {} if "folder" in teacher else values["teacher"]
    whole = {key: str(tmp_path / value) if isinstance(value, str) else value for key, value in teacher.items()}
    recipe = parse({**values, "teacher": {**own, **whole}}, where="test")
    with pytest.raises(DataError, match=message):
        dry(recipe, tmp_path)
    with pytest.raises(DataError, match=message):
        run_recipe(recipe, runs=tmp_path / "runs", to="pairs")
    assert not list((tmp_path / "runs").glob("tiny/teacher/*/log.jsonl"))


def test_a_teacher_without_classes_is_guided_by_another_network_alone(tmp_path: Path) -> None:
    config = EdgeUNetConfig(8, 1, (8, 16), 1, (), 0, 16)
    save(EdgeUNet(config), tmp_path / "plain", about={})
    values: dict[str, Any] = tomllib.loads(TINY)
    tables = {"data": {"conditional": False}, "teacher": {"folder": str(tmp_path / "plain"), "guidance": 2.0}}
    with pytest.raises(DataError, match="the teacher knows no classes that it could be guided by; give a guidance_ne"):
        run_recipe(parse({**values, **tables}, where="test"), runs=tmp_path / "runs", to="pairs")
    tables["teacher"]["guidance_network"] = str(tmp_path / "plain")
    results = run_recipe(parse({**values, **tables}, where="test"), runs=tmp_path / "runs", to="pairs")
    assert results[-1].stage == "pairs"
