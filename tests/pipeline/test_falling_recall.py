"""A finish whose images lose variety: how that is measured, and that such a finish ends and is reported."""

import itertools
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from small_nets import Gives
from torch import Tensor

from edgegen.pipeline import falling_recall
from edgegen.pipeline.graph import Context, select
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.status import status_of
from edgegen.recipe import parse
from edgegen.support.children import Children
from edgegen.support.pixels import scaled
from edgegen.support.progress import Silent
from edgegen.support.storage import load_tensors, read_json
from edgegen.training.log import LOG, last_warnings, read

FINISH = """[finish]
method = "pair_regression"
steps = 20
batch = 16
decay = "none"
"""


def watched(folder: Path, text: str) -> tuple[falling_recall.Stopping, Tensor]:
    """The rule of a recipe's finish, and its held-out images."""
    (folder / "tiny.toml").write_text(text)
    (data,) = run_recipe(folder / "tiny.toml", runs=folder / "runs", to="data")
    recipe = parse(tomllib.loads(text), where="test")
    assert recipe.finish is not None
    context = Context(recipe, "finish", folder, {"data": data.folder}, folder, Silent(), {}, Children())
    stopping = falling_recall.stopping(context, recipe.finish)
    assert stopping is not None
    images = load_tensors(data.folder / "images.safetensors")["heldout_images"]
    return stopping, scaled(images.permute(0, 3, 1, 2)) if images.ndim == 4 else images


def photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "photos.npz", images=rng.integers(0, 256, (400, 16, 16, 3), dtype=np.uint8))


def waves(folder: Path) -> None:
    signals = np.random.default_rng(0).standard_normal((400, 2, 32)).astype(np.float32)
    np.savez(folder / "waves.npz", signals=signals)


@pytest.mark.parametrize(
    ("data", "make"),
    [
        ("", None),
        ('[data]\nsource = "photos.npz"\nupscale = 2\n', photos),
        ('[data]\nsource = "waves.npz"\n', waves),
    ],
    ids=["classes", "small images", "signals"],
)
def test_recall_of_the_real_images_is_1_of_one_image_0_and_of_half_of_them_between(
    data: str, make: object, tmp_path: Path
) -> None:
    if callable(make):
        make(tmp_path)
    stopping, real = watched(tmp_path, TINY.replace("[teacher]", f"{data}[teacher]", 1) + FINISH)
    assert stopping.figure(Gives(real)) == 1.0
    assert stopping.figure(Gives(real[:1])) < 0.1
    assert 0.5 <= stopping.figure(Gives(real[: len(real) // 2])) < 1.0
    assert stopping.figure(Gives(torch.full_like(real, torch.nan))) == 0.0


@pytest.mark.parametrize(
    ("keys", "drop"),
    [('"adversarial"', 0.15), ('"density_ratio"', 0.15), ('"imle"', 0.4), ('"adversarial"\nrecall_drop = 0.05', 0.05)],
)
def test_how_far_it_may_fall_is_the_recipe_s_or_the_method_s(keys: str, drop: float, tmp_path: Path) -> None:
    stopping, _ = watched(tmp_path, TINY + f"[finish]\nmethod = {keys}\n")
    assert not stopping.reason([0.8, 0.8 * (1.01 - drop)])
    assert stopping.reason([0.8, 0.8 * (0.99 - drop)])


def test_a_finish_that_collapses_ends_with_the_weights_before_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images are those of the data set before the first step and after 2 and 4, and then all the same."""
    (tmp_path / "tiny.toml").write_text(TINY + FINISH)
    runs = tmp_path / "runs"
    (*_, distill) = run_recipe(tmp_path / "tiny.toml", runs=runs, to="distill")
    _, real = watched(tmp_path, TINY + FINISH)
    calls = itertools.count()

    def sample(network: object, noise: Tensor, *others: object) -> Tensor:
        part = next(calls)
        return real[: len(noise)] if part < 6 else torch.zeros_like(noise)  # two parts each time

    monkeypatch.setattr(falling_recall, "sample", sample)
    (*_, finish) = run_recipe(tmp_path / "tiny.toml", runs=runs, to="finish")
    lines = read(finish.folder / LOG)
    assert [line["step"] for line in lines if "recall" in line] == [0, 2, 4, 6]
    (text,) = last_warnings(finish.folder / LOG)
    assert text.startswith("the recall of held-out images has fallen: it was 0.92 and is 0.00; lower learning_rate")
    assert status_of(runs / "tiny")["warnings"]["finish"] == [text]
    assert not list(finish.folder.glob("checkpoint*"))
    assert not [name for name in read_json(finish.folder / "stage.json")["files"] if "checkpoint" in name]

    text = TINY + FINISH.replace("steps = 20", "steps = 4") + "recall_drop = 0\n"
    (tmp_path / "tiny.toml").write_text(text)
    (*_, short) = run_recipe(tmp_path / "tiny.toml", runs=runs, to="finish")
    assert not any("recall" in line for line in read(short.folder / LOG))
    ended, whole, before = (load_tensors(row.folder / "raw.safetensors") for row in (finish, short, distill))
    assert all(torch.equal(ended[name], whole[name]) for name in whole)
    assert not all(torch.equal(before[name], whole[name]) for name in whole)


def test_a_finish_that_is_not_watched_needs_no_images() -> None:
    recipe = parse(tomllib.loads(TINY + FINISH), where="test")
    assert {stage.name: set(stage.needs) for stage in select(recipe)}["finish"] == {"distill", "pairs", "data"}
    recipe = parse(tomllib.loads(TINY + FINISH + "recall_drop = 0\n"), where="test")
    assert {stage.name: set(stage.needs) for stage in select(recipe)}["finish"] == {"distill", "pairs"}
