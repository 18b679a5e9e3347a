"""Training methods by name: a third party's trains a student; what a method needs and cannot have is told before."""

import itertools
import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY

from edgegen.errors import RecipeError, UsageError
from edgegen.flow.solvers import solve
from edgegen.models.load import load
from edgegen.pipeline.graph import check, select
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.run_folder import RunFolder
from edgegen.pipeline.stages.pairs import read_pairs
from edgegen.recipe import Recipe, parse

# Trains on noise alone: the student learns the teacher's velocity, weighted by a second network.
MADE_UP = """
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from edgegen.training.networks import TrainedNetwork


class VelocityMatching(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    paper: ClassVar[str] = "arXiv:0000.00000"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})
    critic_every: int = Field(2, description="steps between updates of the critic", ge=1)

    def networks(self, student: nn.Module, teacher: nn.Module) -> dict[str, TrainedNetwork]:
        assert not any(weight.requires_grad for weight in teacher.parameters())
        return {"critic": TrainedNetwork(nn.Conv2d(1, 1, 3, padding=1), every=self.critic_every)}

    def losses(self, networks: Any, averages: Any, batch: Any, rng: torch.Generator) -> dict[str, torch.Tensor]:
        ones = torch.ones(len(batch.images))
        with torch.no_grad():
            target = networks["teacher"](batch.noise, ones, batch.condition)
        error = networks["student"](batch.noise, ones, batch.condition) - target
        losses = {"student": averages["critic"](error).square().mean() + error.square().mean()}
        if "critic" in batch.due:
            losses["critic"] = networks["critic"](error.detach()).square().mean()
        return losses


class MeanOfPairs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    paper: ClassVar[str] = "arXiv:0000.00000"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "second_time"})

    def networks(self, student: nn.Module, teacher: None) -> dict[str, TrainedNetwork]:
        return {}

    def losses(self, networks: Any, averages: Any, batch: Any, rng: torch.Generator) -> dict[str, torch.Tensor]:
        ones = torch.ones(len(batch.images))
        u = networks["student"](batch.noise, ones, batch.condition, r=0 * ones)
        return {"student": (batch.noise - u - batch.images).square().mean()}


class Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: float = 0.0


class Scheduled(VelocityMatching):
    schedule: Schedule = Schedule()


class OnTrajectories(VelocityMatching):
    needs: ClassVar[frozenset[str]] = frozenset({"trajectories", "real_images"})

    def networks(self, student: nn.Module, teacher: Any) -> dict[str, TrainedNetwork]:
        return {}

    def losses(self, networks: Any, averages: Any, batch: Any, rng: torch.Generator) -> dict[str, torch.Tensor]:
        from edgegen.training.pairs import real_images, trajectories

        states, times = trajectories(batch)
        real = real_images(batch)
        assert times[0] == 1 and times[-1] == 0 and bool((times.diff() < 0).all())
        assert torch.equal(states[:, 0], batch.noise) and torch.equal(states[:, -1], batch.images)
        assert states.shape == (len(batch.images), len(times), *batch.images.shape[1:])
        assert real.images.shape == batch.images.shape and real.condition.shape == batch.condition.shape
        t = times[:-1].repeat(len(states))
        before, labels = states[:, :-1].flatten(0, 1), batch.condition.repeat_interleave(len(times) - 1)
        x = before - t[:, None, None, None] * networks["student"](before, t, labels)
        end = batch.images.repeat_interleave(len(times) - 1, dim=0)
        return {"student": (x - end).square().mean() + 0 * real.images.mean()}


class Loose(BaseModel):
    steps: int = 3


class SameKey(VelocityMatching):
    steps: int = 3
"""
NAMES = {
    "velocity_matching": "VelocityMatching",
    "mean_of_pairs": "MeanOfPairs",
    "scheduled": "Scheduled",
    "absent": "Absent",
    "on_trajectories": "OnTrajectories",
    "loose": "Loose",
    "same_key": "SameKey",
}


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of a third party, as pip would install it."""
    place = tmp_path / "site"
    about = place / "edgegen_made_up-1.0.dist-info"
    about.mkdir(parents=True)
    (place / "edgegen_made_up.py").write_text(textwrap.dedent(MADE_UP))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: edgegen-made-up\nVersion: 1.0\n")
    points = "".join(f"{name} = edgegen_made_up:{kind}\n" for name, kind in NAMES.items())
    (about / "entry_points.txt").write_text(f"[edgegen.objectives]\n{points}")
    monkeypatch.syspath_prepend(place)


def recipe(**tables: dict[str, Any]) -> Recipe:
    """The tiny recipe with other keys in some tables."""
    values = tomllib.loads(TINY)
    return parse({**values, **{name: {**values.get(name, {}), **keys} for name, keys in tables.items()}}, where="test")


def test_a_method_of_a_third_party_trains_the_student(made_up: None, tmp_path: Path) -> None:
    text = TINY.replace("[slim]\n", '[slim]\nmethod = "velocity_matching"\ncritic_every = 5\n')
    text = text.replace("[distill]\n", '[distill]\nmethod = "velocity_matching"\nlearning_rate = 1e-2\nwarmup = 1\n')
    (tmp_path / "tiny.toml").write_text(text + "[baseline]\nenabled = false\n")
    results = run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="distill")
    assert [result.stage for result in results] == ["data", "teacher", "slim", "distill"], "nothing needs pairs"
    _, teacher, slim, distill = (result.folder for result in results)
    losses = [json.loads(line) for line in (slim / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses if "critic" in line] == [10, 20]
    assert [line["step"] for line in losses if "student" in line] == [8, 10, 16, 20, 24]
    noise, labels = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 10
    target, slimmed, distilled = (
        load(folder / "generator").net(noise, torch.ones(64), labels) for folder in (teacher, slim, distill)
    )
    assert (distilled - target).square().mean() < 0.5 * (slimmed - target).square().mean()


def test_a_method_that_needs_a_second_time_gets_a_network_with_one(made_up: None, tmp_path: Path) -> None:
    text = TINY.replace("[distill]\n", '[distill]\nmethod = "mean_of_pairs"\n') + "[baseline]\nenabled = false\n"
    (tmp_path / "tiny.toml").write_text(text)
    *_, slim, distill = run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="distill")
    for result in (slim, distill):
        net = load(result.folder / "generator").net
        assert net.config.second_time
    z, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    step = solve(net, z, labels, solver="euler", steps=1).x
    assert torch.equal(step, z - net(z, torch.ones(4), labels, r=torch.zeros(4)))
    assert not torch.equal(step, z - net(z, torch.ones(4), labels))


def test_a_last_training_goes_on_from_the_student_and_can_have_paths_and_real_images(
    made_up: None, tmp_path: Path
) -> None:
    text = TINY.replace("[pairs]\n", "[pairs]\nknots = 2\n")
    text += '[finish]\nmethod = "on_trajectories"\nsteps = 6\nbatch = 16\ncheckpoint_every = 5\n'
    (tmp_path / "tiny.toml").write_text(text)
    results = {item.stage: item for item in run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="choose")}
    about = json.loads((results["finish"].folder / "generator" / "edgegen.json").read_text())
    assert (about["role"], about["lineage"]) == ("finished", {"distill": results["distill"].key})
    quality = json.loads((results["evaluate"].folder / "quality.json").read_text())["quality"]
    assert quality["finished"].keys() == quality["slimmed"].keys() == quality["teacher"].keys() == {"1", "2"}
    assert quality["student"].keys() == quality["baseline"].keys() == {"1"}, "trained for one step alone"
    choice = json.loads((results["choose"].folder / "choice.json").read_text())
    assert [row["role"] for row in choice["candidates"]] == ["finished", "student", "baseline", "slimmed"]


def test_the_knots_of_a_pair_are_the_teachers_states(tmp_path: Path) -> None:
    """Solved again from a knot with the steps that are left, the path ends in the same image: the last is Euler's."""
    (tmp_path / "tiny.toml").write_text(TINY.replace("[pairs]\n", "[pairs]\nknots = 2\n"))
    _, teacher, result = run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", only="pairs")
    settings = recipe().pairs
    pairs, network = read_pairs(result.folder), load(teacher.folder / "generator").net
    assert pairs.knots is not None
    assert pairs.knot_times is not None
    assert torch.equal(pairs.knots[:, 0], pairs.noise)
    x, times = pairs.knots[:8, 1].float(), torch.linspace(1, 0, settings.steps + 1)
    first = settings.steps // 2
    assert pairs.knot_times.tolist() == [1.0, times[first].item()]
    with torch.no_grad():
        for t, s in itertools.pairwise(times[first:].tolist()):
            x = x + (s - t) * network(x, torch.full((8,), t), pairs.condition[:8])
    assert (x - pairs.images[:8].float()).abs().max() < 2e-3  # stored in half precision


def test_the_keys_of_a_method_are_those_of_its_table(made_up: None) -> None:
    table = recipe(slim={"method": "velocity_matching", "critic_every": 5}).slim
    assert table.objective.critic_every == 5
    assert table.model_dump(mode="json")["method"] == "velocity_matching"
    assert (
        Recipe.model_validate(recipe(slim={"method": "velocity_matching"}).model_dump()).slim
        == recipe(slim={"method": "velocity_matching"}).slim
    )
    with pytest.raises(RecipeError, match=r"slim.critic_every: .*greater than or equal to 1 \(found 0\)"):
        recipe(slim={"method": "velocity_matching", "critic_every": 0})
    with pytest.raises(RecipeError, match=r"no key 'critic_evry'; .* Did you mean 'critic_every'\? The keys of"):
        recipe(slim={"method": "velocity_matching", "critic_evry": 2})
    assert recipe(slim={"method": "scheduled", "schedule": {"mean": 1}}).slim.objective.schedule.mean == 1
    with pytest.raises(RecipeError, match=r"slim.schedule.maen: no key 'maen'; there are: mean. Did you mean 'mean'\?"):
        recipe(slim={"method": "scheduled", "schedule": {"maen": 1}})
    with pytest.raises(
        RecipeError, match=r"slim: .* the entry point edgegen_made_up:Absent, which cannot be loaded: .* no attribute"
    ):
        recipe(slim={"method": "absent"})
    with pytest.raises(RecipeError, match=r"slim.*: edgegen_made_up:Loose is no record that forbids unknown keys"):
        recipe(slim={"method": "loose"})
    with pytest.raises(RecipeError, match="method 'same_key' has keys of the table's own names: steps"):
        recipe(slim={"method": "same_key"})


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"teacher": {"method": "annealing_reflow"}},
            r"teacher.method = 'annealing_reflow' needs pairs, which .*; methods for it are: .*flow_matching",
        ),
        (
            {"slim": {"method": "flow_guided_distillation"}},
            "slim.method = .* needs slimmed_network, which",
        ),
        ({"distill": {"method": "self_distillation"}}, "needs float_network, which the stage distill does not have"),
        ({"distill": {"method": "classification"}}, "needs classifier, which the stage distill does not have"),
        ({"distill": {"method": "on_trajectories"}}, "needs states between noise and image: give pairs.knots, such as"),
        ({"recover": {"method": "flow_matching"}}, "recover.method = 'flow_matching' needs real_images"),
        ({"finish": {"method": "self_distillation"}}, "needs float_network, which the stage finish does not have"),
    ],
)
def test_a_method_that_cannot_have_what_it_needs_is_an_error_before_any_work(
    made_up: None, tables: dict[str, dict[str, Any]], message: str
) -> None:
    wrong = recipe(**tables)
    with pytest.raises(UsageError, match=message):
        check(wrong, select(wrong))
    check(wrong, select(wrong, to="data"))  # which has no method


def test_a_stage_needs_what_its_method_needs(made_up: None, tmp_path: Path) -> None:
    def needs(chosen: Recipe) -> dict[str, set[str]]:
        stages = select(chosen)
        order = [stage.name for stage in stages]
        for number, stage in enumerate(stages):
            assert len(set(stage.needs)) == len(stage.needs)
            assert set(stage.needs) & set(order) <= set(order[:number])
        return {stage.name: set(stage.needs) for stage in stages}

    ours = needs(recipe())
    assert ours["slim"] == {"teacher", "pairs"}
    assert ours["distill"] == {"slim", "pairs"}
    other = needs(recipe(distill={"method": "velocity_matching"}, slim={"method": "flow_matching"}))
    assert other["slim"] == {"teacher", "data"}
    assert other["distill"] == {"slim", "teacher"}
    assert not {"pairs", "baseline"} & other.keys(), "nothing needs them"
    compared = recipe(
        distill={"method": "velocity_matching"}, slim={"method": "flow_matching"}, baseline={"enabled": True}
    )
    assert {"pairs", "baseline"} <= needs(compared).keys()
    finish = recipe(pairs={"knots": 2}, finish={"method": "on_trajectories"})
    assert needs(finish)["finish"] == {"distill", "pairs", "data"}
    assert "finish" in needs(finish)["evaluate"]
    assert needs(recipe(finish={"method": "pair_regression"}, evaluate={"ship": "student"}))["choose"] == {"finish"}


def test_to_name_the_method_that_is_the_default_changes_no_key(tmp_path: Path) -> None:
    def keys(chosen: Recipe) -> dict[str, str]:
        planned = plan(chosen, select(chosen), base=tmp_path, folder=RunFolder(tmp_path / "run"))
        return {item.stage.name: item.key for item in planned}

    named = recipe(
        teacher={"method": "flow_matching"},
        slim={"method": "annealing_reflow"},
        distill={"method": "flow_guided_distillation"},
    )
    assert named.sha256() == recipe().sha256()
    assert keys(named) == keys(recipe())
    other = keys(recipe(slim={"method": "pair_regression"}))
    assert {name for name, key in keys(recipe()).items() if other[name] != key} >= {"slim", "distill", "report"}


ALONE = """
name = "alone"
[slim]
method = "flow_matching"
network = { channels = [8, 16], blocks = 1, embedding = 16 }
steps = 6
batch = 16
checkpoint_every = 4
[distill]
method = "flow_matching"
steps = 4
batch = 16
[evaluate]
steps = [1, 2]
seeds = 2
extractor_steps = 30
[export]
artifacts = ["onnx-fp32"]
[verify]
samples = 4
[profile]
min_runs = 3
max_seconds = 0.2
"""


def alone(**tables: dict[str, Any]) -> Recipe:
    values = tomllib.loads(ALONE)
    return parse({**values, **{name: {**values.get(name, {}), **keys} for name, keys in tables.items()}}, where="test")


def test_a_teacher_is_in_the_plan_where_something_needs_it_or_the_recipe_has_one(made_up: None) -> None:
    def stages(chosen: Recipe) -> set[str]:
        check(chosen, select(chosen))
        return {stage.name for stage in select(chosen)}

    assert stages(alone()) == {
        *("data", "slim", "distill", "extractor", "evaluate", "choose", "export", "quantize", "verify"),
        *("profile", "report"),
    }
    assert "teacher" in stages(alone(teacher={"steps": 5}))
    assert "teacher" in stages(alone(slim={"init": "teacher", "network": {"channels": [16, 32]}}))
    assert "teacher" in stages(alone(slim={"network": None, "keep": 0.5}))
    assert "teacher" in stages(alone(distill={"method": "velocity_matching"}))
    assert {"teacher", "pairs", "baseline"} <= stages(alone(distill={"method": "pair_regression"}))
    assert {"teacher", "pairs", "baseline"} <= stages(alone(baseline={"enabled": True}))
    with pytest.raises(UsageError, match="alone: its plan has no stage teacher, because nothing in the recipe needs"):
        select(alone(), only="teacher")


def test_without_a_teacher_a_generator_is_judged_and_chosen(tmp_path: Path) -> None:
    (tmp_path / "alone.toml").write_text(ALONE)
    results = {item.stage: item for item in run_recipe(tmp_path / "alone.toml", runs=tmp_path / "runs", to="choose")}
    assert list(results) == ["data", "slim", "distill", "extractor", "evaluate", "choose"]
    quality = json.loads((results["evaluate"].folder / "quality.json").read_text())["quality"]
    assert quality.keys() == {"floor", "slimmed", "student"}
    about = json.loads((results["slim"].folder / "generator" / "edgegen.json").read_text())
    assert about["lineage"] == {"data": results["data"].key}


@pytest.mark.slow
def test_a_run_without_a_teacher_ends_in_a_report(tmp_path: Path) -> None:
    (tmp_path / "alone.toml").write_text(ALONE)
    results = {item.stage: item.folder for item in run_recipe(tmp_path / "alone.toml", runs=tmp_path / "runs")}
    assert not {"teacher", "pairs", "baseline"} & results.keys()
    report = json.loads((results["report"] / "report.json").read_text())
    assert report["quality"]["teacher"] is None
    assert report["parameters"]["teacher"] is None
    assert report["quality"]["student"].keys() == {"1", "2"}
    assert [row["network"] for row in report["torch_latency"]] == ["student"]
