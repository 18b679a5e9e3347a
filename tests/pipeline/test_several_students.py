"""A run of two students, each for half of the classes, with a verifier: one row, its best of 4, and images by class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from PIL import Image

from edgegen.artifacts.sample import sample_to_png
from edgegen.artifacts.sessions import open_source
from edgegen.errors import DataError, RecipeError, UsageError
from edgegen.models.class_partition import ClassPartition
from edgegen.models.load import load
from edgegen.models.verifier import load as load_verifier
from edgegen.pipeline.graph import check, select
from edgegen.pipeline.methods import check_students
from edgegen.pipeline.run import run_recipe
from edgegen.recipe import parse
from edgegen.support.storage import read_json

pytestmark = pytest.mark.long

FINISH = """
[finish]
method = "density_ratio"
encoder = "small"
width = 8
head_start = 2
steps = 8
batch = 16
"""
RECIPE = TINY.replace("keep = 0.9", "keep = 0.9\nstudents = 2").replace("[evaluate]", f"{FINISH}\n[evaluate]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to the stage choose."""
    folder = tmp_path_factory.mktemp("students")
    (folder / "tiny.toml").write_text(RECIPE)
    run_recipe(folder / "tiny.toml", runs=folder / "runs", to="choose")
    return folder / "runs"


def test_both_are_trained_and_have_one_row_and_one_of_the_best_of_four(runs: Path) -> None:
    first, last = (load(runs / "tiny" / stage / "latest" / "generator").net for stage in ("slim", "finish"))
    assert isinstance(first, ClassPartition)
    assert isinstance(last, ClassPartition)
    for before, after in zip(first.networks, last.networks, strict=True):
        assert not torch.equal(before.stem.weight, after.stem.weight)
    assert not torch.equal(last.networks[0].stem.weight, last.networks[1].stem.weight)
    quality = read_json(runs / "tiny" / "evaluate" / "latest" / "quality.json")["quality"]
    assert set(quality["best_of_4"]) == {"1"}
    assert quality["best_of_4"]["1"]["fd_local"] != quality["finished"]["1"]["fd_local"]


def test_the_verifier_goes_with_the_student_and_chooses_its_images(runs: Path, tmp_path: Path) -> None:
    chosen = runs / "tiny" / "choose" / "latest"
    role = read_json(chosen / "choice.json")["role"]
    if role != "finished":  # of a student that no verifier was trained for
        assert not (chosen / "verifier").exists()
    source = runs / "tiny" / "finish" / "latest"
    inputs = {"sample": np.random.default_rng(0).normal(size=(6, 1, 8, 8)).astype(np.float32)}
    inputs["class_labels"] = np.array([0, 9, 4, 5, 2, 7])
    generator = str(source / "generator")
    one, best = (open_source(generator, steps=1, runs=runs, best_of=count) for count in (1, 8))
    verifier, labels = load_verifier(source / "verifier"), torch.from_numpy(inputs["class_labels"])
    scores = [verifier.scores(torch.from_numpy(made.run(inputs)), labels) for made in (one, best)]
    assert bool((scores[1] >= scores[0]).all())
    assert bool((scores[1] > scores[0]).any())
    made = sample_to_png(generator, tmp_path / "a.png", count=4, best_of=3, steps=1)
    assert made["method"] == "PyTorch, 1 step, best of 3"
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (17, 17)


def test_without_a_verifier_the_best_of_several_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--best-of 4: no folder verifier beside .*density_ratio and adversarial"):
        open_source(str(runs / "tiny" / "distill" / "latest" / "generator"), steps=None, runs=runs, best_of=4)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match=r"--best-of 4: an exported file has no verifier; give the run"):
        open_source(str(tmp_path / "a.onnx"), steps=None, runs=runs, best_of=4)
    damaged = runs / "tiny" / "finish" / "latest" / "verifier" / "config.json"
    content = damaged.read_text()
    damaged.write_text(content.replace("8", "9", 1))
    with pytest.raises(DataError, match=r"verifier/config\.json"):
        open_source(str(damaged.parent.parent / "generator"), steps=None, runs=runs, best_of=4)
    damaged.write_text(content)


def test_what_several_students_cannot_have_is_refused_before_any_work() -> None:
    several = parse({"name": "x", "slim": {"keep": 0.5, "students": 4}}, where="recipe")
    with pytest.raises(
        RecipeError, match=r"slim.students = 4: the stage export makes .*--to choose, then: edgegen exp"
    ):
        check(several, select(several))
    check(several, select(several, to="choose"))
    with pytest.raises(RecipeError, match=r"slim.students = 4: .*have no classes \(they are unconditional\); give"):
        check_students(several, 0)
    with pytest.raises(RecipeError, match=r"these images have 3 classes; give students = 1, or at most 3"):
        check_students(several, 3)
    check_students(several, 4)
    with pytest.raises(RecipeError, match=r"students = 2 are EdgeUNets: network = 'a.py:net' names another"):
        parse({"name": "x", "slim": {"network": "a.py:net", "students": 2}}, where="recipe")
