"""The student before its training: its size, and the weights that it starts from."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY

from edgegen.errors import DataError, RecipeError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import Loaded, save, signature_of
from edgegen.models.weight_selection import select_weights
from edgegen.pipeline.graph import select
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run_folder import RunFolder
from edgegen.pipeline.student import new_student
from edgegen.recipe import Recipe, parse

TEACHER = EdgeUNetConfig(8, channels=(8, 16), blocks=1, num_classes=10, embedding=16)


def recipe(**slim: Any) -> Recipe:
    values = tomllib.loads(TINY)
    size = {"keep": 0.9} if "model" not in slim else {}
    return parse({**values, "slim": {**size, "steps": 4, **slim}}, where="test")


def teacher(config: EdgeUNetConfig = TEACHER) -> Loaded:
    torch.manual_seed(3)
    network = EdgeUNet(config)
    return Loaded(network, signature_of(config), {})


def student(chosen: Recipe, base: Path, *, seed: int = 0, brought: Loaded | None = None) -> EdgeUNet:
    there = brought or teacher()
    net = new_student(chosen, there, there.signature, base=base, seed=seed).net
    assert isinstance(net, EdgeUNet)
    return net


def test_a_student_is_new_or_sliced_from_the_teacher_or_starts_from_a_folder(tmp_path: Path) -> None:
    first = student(recipe(), tmp_path)
    assert torch.equal(first.stem.weight, student(recipe(init="random"), tmp_path).stem.weight)
    assert not torch.equal(first.stem.weight, student(recipe(), tmp_path, seed=1).stem.weight)
    sliced = student(recipe(init="teacher"), tmp_path)
    origin = teacher().net
    assert isinstance(origin, EdgeUNet)
    select_weights(origin, first)
    assert torch.equal(sliced.stem.weight, first.stem.weight)
    save(sliced, tmp_path / "sliced", about={})
    again = student(recipe(init="sliced"), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(sliced.parameters(), again.parameters(), strict=True))


def test_a_new_student_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    there = Loaded(EdgeUNet(TEACHER), signature_of(TEACHER), {})
    torch.manual_seed(5)
    student(recipe(), tmp_path, brought=there)
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    other = teacher(EdgeUNetConfig(8, channels=(8, 24), num_classes=10, embedding=16)).net
    assert isinstance(other, EdgeUNet)
    save(other, tmp_path / "other", about={})
    with pytest.raises(DataError, match=r"slim.init: .*other holds another network than the student: .* is \("):
        student(recipe(init="other"), tmp_path)
    chosen = recipe(init="techer")
    with pytest.raises(DataError, match=r"slim.init: no folder .*techer; other words are: random, teacher"):
        plan(chosen, select(chosen), base=tmp_path, folder=RunFolder(tmp_path / "run"))


def test_a_student_that_is_no_part_of_the_teacher_is_refused_with_the_recipe() -> None:
    with pytest.raises(RecipeError, match="cannot be sliced from the teacher: it has 1 resolutions, the teacher 2"):
        recipe(init="teacher", model={"channels": [8]})


def test_the_first_weights_change_the_students_keys_and_the_default_none(tmp_path: Path) -> None:
    def keys(chosen: Recipe) -> dict[str, str]:
        planned = plan(chosen, select(chosen), base=tmp_path, folder=RunFolder(tmp_path / "run"))
        return {item.stage.name: item.key for item in planned}

    save(student(recipe(), tmp_path), tmp_path / "start", about={})
    assert "init" not in recipe(init="random").model_dump()["slim"]
    assert keys(recipe(init="random")) == keys(recipe())
    before = keys(recipe(init="start"))
    assert {name for name, key in before.items() if keys(recipe())[name] == key} == {
        "data",
        "teacher",
        "pairs",
        "extractor",
    }
    save(student(recipe(), tmp_path, seed=1), tmp_path / "start", about={})
    changed = {name for name, key in keys(recipe(init="start")).items() if before[name] != key}
    assert {"slim", "baseline", "distill"} <= changed
    assert not {"teacher", "pairs"} & changed
