"""The stage evaluate: the same figures for any number of processes and after a kill, and more samples than held out."""

import dataclasses
import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY

from edgegen.errors import DataError, MissingExtraError
from edgegen.metrics import inception
from edgegen.pipeline import observed_sets
from edgegen.pipeline.graph import Context, select
from edgegen.pipeline.needed_extras import missing_extras
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.run_folder import RunFolder, StageResult
from edgegen.pipeline.samplers import Sampler, samplers
from edgegen.pipeline.stages import evaluate as stage
from edgegen.pipeline.stages.report import _trained_on_features
from edgegen.recipe import Recipe, parse, read
from edgegen.support.children import Children
from edgegen.support.progress import Silent

RECIPE = TINY.replace("seeds = 2", "seeds = 2\nsamples = 90").replace("steps = [1, 2]", "steps = [1]")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, StageResult]]:
    """The stages before `evaluate`."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "tiny.toml").write_text(RECIPE)
    results = run_recipe(folder / "tiny.toml", runs=folder / "runs", to="extractor")
    return read(folder / "tiny.toml"), {result.stage: result for result in results}


def context_in(folder: Path, trained: tuple[Recipe, dict[str, StageResult]]) -> Context:
    folder.mkdir(exist_ok=True)
    recipe, results = trained
    inputs = {name: result.folder for name, result in results.items()}
    return Context(recipe, "evaluate", folder, inputs, folder, Silent(), results, Children())


@dataclasses.dataclass
class Place:
    """One of several processes, which run after each other here: nobody waits."""

    process_index: int
    num_processes: int
    device: str = "cpu"

    @property
    def is_main_process(self) -> bool:
        return self.process_index == 0

    def wait_for_everyone(self) -> None:
        pass


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed_sets, "BLOCK", 32)


def evaluate_as(place: Place, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("stages.evaluate", "observed_sets", "real_images"):
        monkeypatch.setattr(f"edgegen.pipeline.{module}.state", lambda: place)
    stage.evaluate(context)


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.long
@pytest.mark.usefixtures("small_blocks")
def test_three_processes_and_one_write_the_same_bytes(
    tmp_path: Path, trained: tuple[Recipe, dict[str, StageResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, several = context_in(tmp_path / "alone", trained), context_in(tmp_path / "several", trained)
    evaluate_as(Place(0, 1), alone, monkeypatch)
    made = []
    for index in (2, 1, 0):  # the first process last: it reads what the others made
        made.append(_blocks(several.folder))
        evaluate_as(Place(index, 3), several, monkeypatch)
    assert 0 < len(made[1]) < len(made[2])
    assert files(alone.folder) == files(several.folder)
    assert not _blocks(alone.folder)


def _blocks(folder: Path) -> list[Path]:
    return list(folder.glob("parts/*/*.safetensors"))


@pytest.mark.usefixtures("small_blocks")
def test_what_a_killed_process_left_is_used_and_a_torn_block_is_made_again(
    tmp_path: Path, trained: tuple[Recipe, dict[str, StageResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = context_in(tmp_path / "whole", trained), context_in(tmp_path / "killed", trained)
    evaluate_as(Place(0, 1), whole, monkeypatch)
    evaluate_as(Place(1, 2), killed, monkeypatch)  # its share, and nothing of the first process
    blocks = sorted(_blocks(killed.folder))
    blocks[0].write_bytes(blocks[0].read_bytes()[:100])
    kept = blocks[-1].stat().st_mtime_ns
    kept_path = tmp_path / "kept"

    def keep(sets: observed_sets.ObservedSets) -> None:
        shutil.copytree(sets.folder, kept_path / sets.folder.name)

    monkeypatch.setattr(observed_sets.ObservedSets, "remove", keep)
    evaluate_as(Place(0, 1), killed, monkeypatch)
    assert (kept_path / blocks[-1].parent.name / blocks[-1].name).stat().st_mtime_ns == kept
    assert (whole.folder / "quality.json").read_bytes() == (killed.folder / "quality.json").read_bytes()


def test_more_samples_than_held_out_images(
    tmp_path: Path, trained: tuple[Recipe, dict[str, StageResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are compared on as many as are held out; `fd_local_first` is of the same noise."""
    recipe, results = trained
    settings = recipe.evaluate.model_copy(update={"samples": 600})
    larger = recipe.model_copy(update={"evaluate": settings})
    context = context_in(tmp_path / "larger", (larger, results))
    evaluate_as(Place(0, 1), context, monkeypatch)
    content = json.loads((context.folder / "quality.json").read_text())
    assert (content["n"], content["n_heldout"]) == (600, 449 + 2)
    judge = stage.Judge(larger, context.inputs)
    assert judge.n == 451
    network = samplers(context)[0]
    images = network.sample(judge.noise(0), judge.condition(), 0)
    known = content["quality"][network.role]["1"]
    assert known["fd_local_first"] == pytest.approx(judge.distance(images), rel=1e-6)
    assert content["quality"]["floor"]["0"]["nearest_ratio"] == 1.0


def weights_recipe(tmp_path: Path, **keys: str) -> tuple[Recipe, Path]:
    values: dict[str, Any] = {"name": "x", "slim": {"keep": 0.5}, "evaluate": keys}
    return parse(values, where="test"), tmp_path


def test_weights_are_checked_before_any_work_and_their_content_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    recipe, base = weights_recipe(tmp_path, inception="weights.pth")

    def key() -> str:
        planned = plan(recipe, select(recipe, to="evaluate"), base=base, folder=RunFolder(tmp_path / "run"))
        return planned[-1].key

    with pytest.raises(DataError, match=r"evaluate\.inception: no file .*weights\.pth; nothing is downloaded here"):
        key()
    path.write_bytes(b"first")
    with pytest.raises(DataError, match="is not the file of weights that FID is measured with"):
        key()
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"first").hexdigest())
    assert key() != plan(*_without(recipe), base=base, folder=RunFolder(tmp_path / "run"))[-1].key
    dino, _ = weights_recipe(tmp_path, dinov2="nowhere")
    with pytest.raises(DataError, match=r"evaluate\.dinov2: no folder .*nowhere"):
        plan(dino, select(dino, to="evaluate"), base=base, folder=RunFolder(tmp_path / "run"))


def _without(recipe: Recipe) -> Any:
    plain = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"inception": None})})
    assert "inception" not in plain.evaluate.model_dump(mode="json")  # so that older results keep their keys
    return plain, select(plain, to="evaluate")


def test_the_extras_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegen.support.extras._is_absent", lambda package: True)
    recipe, base = weights_recipe(tmp_path, inception="a.pth", dinov2="b")
    errors = missing_extras(recipe, select(recipe, only="evaluate"), base=base)
    assert all(isinstance(error, MissingExtraError) for error in errors)
    assert [str(error).rpartition(" ")[2] for error in errors] == ["'edgegen[fid]'", "'edgegen[dinov2]'"]


def test_which_stages_trained_on_the_features(tmp_path: Path, trained: tuple[Recipe, dict[str, StageResult]]) -> None:
    context = context_in(tmp_path / "any", trained)
    assert _trained_on_features(context) == []
    values = tomllib.loads(RECIPE)
    values["distill"]["distance"] = "perceptual"
    leaky = dataclasses.replace(context, recipe=parse(values, where="test"))
    assert _trained_on_features(leaky) == ["distill", "baseline"]


@pytest.mark.long
def test_a_network_that_an_earlier_evaluation_measured_is_not_sampled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled: list[str] = []
    observed = stage._observed

    def watched(real: Any, judge: Any, condition: Any, row: Sampler, block: observed_sets.Block) -> Any:
        sampled.append(row.role)
        return observed(real, judge, condition, row, block)

    def run(text: str, **further: Any) -> tuple[set[str], Path]:
        sampled.clear()
        (tmp_path / "tiny.toml").write_text(text)
        results = run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="evaluate", **further)
        return {*sampled}, results[-1].folder

    monkeypatch.setattr(stage, "_observed", watched)
    recipe = tomllib.loads(RECIPE)
    networks, first = run(RECIPE)
    assert networks == {"teacher", "slimmed", "student", "baseline"}
    old = f"steps = {recipe['distill']['steps']}"
    other_student = RECIPE.replace(f"[distill]\n{old}", f"[distill]\nsteps = {recipe['distill']['steps'] + 1}")
    assert other_student != RECIPE
    networks, second = run(other_student)
    assert networks <= {"student", "baseline"}, "the baseline has as many steps as the student"
    assert "student" in networks
    old_figures, figures = (json.loads((folder / "quality.json").read_text())["quality"] for folder in (first, second))
    assert figures["teacher"] == old_figures["teacher"]
    assert figures["student"] != old_figures["student"]
    networks, third = run(other_student, force=["evaluate"])
    assert networks == {"teacher", "slimmed", "student", "baseline"}
    assert json.loads((third / "quality.json").read_text())["quality"] == figures, "and nothing changes by it"
    networks, _ = run(other_student.replace("seeds = 2", "seeds = 3"))
    assert "teacher" in networks, "of other samples"
    damaged = first / "parts" / "teacher-1.json"
    damaged.write_text(damaged.read_text().replace("1", "2", 1))
    shutil.rmtree(second)
    networks, _ = run(RECIPE.replace(f"[distill]\n{old}", f"[distill]\nsteps = {recipe['distill']['steps'] + 2}"))
    assert "teacher" in networks, "what was changed by hand is no figure"
    assert "slimmed" not in networks
