"""Shards of pairs that are not those of their manifest are refused, also those that an interrupted run has left."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY
from torch import Tensor

from edgegen.errors import DataError
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.stages.pairs import read_pairs, shard_name
from edgegen.support.storage import load_tensors, save_tensors, write_json

MANIFEST = {"shards": 2, "count": 5, "shard": 3, "sample_shape": [1, 4, 4], "num_classes": 3, "condition_shape": []}


def write(folder: Path, **changes: Any) -> None:
    manifest = {**MANIFEST, **changes}
    write_json(folder / "pairs.json", manifest)
    for index, count in enumerate((3, 2)):
        noise = torch.full((count, 1, 4, 4), float(index)).half()
        tensors = {"noise": noise, "images": -noise, "labels": torch.arange(count)}
        save_tensors(folder / shard_name(index), tensors)


def change(path: Path, **changes: Tensor | None) -> None:
    tensors = {**load_tensors(path), **changes}
    save_tensors(path, {name: tensor for name, tensor in tensors.items() if tensor is not None})


def test_shards_that_match_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path)
    pairs = read_pairs(tmp_path)
    assert pairs.images[:, 0, 0, 0].tolist() == [0, 0, 0, -1, -1]
    assert pairs.condition is not None
    assert pairs.condition.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 1, 4, 2)}, r"images is \(2, 1, 4, 2\), \(2, 1, 4, 4\) in the run's manifest"),
        ({"noise": None}, r"noise is absent, \(2, 1, 4, 4\) in the run's manifest"),
        ({"knots": torch.zeros(2, 1, 1, 4, 4)}, r"knots is \(2, 1, 1, 4, 4\), absent in the run's manifest"),
        ({"labels": torch.tensor([0, 3])}, "its labels are 0 to 3, and the teacher has the classes 0 to 2"),
        ({"labels": torch.tensor([-1, 1])}, "its labels are -1 to 1"),
    ],
)
def test_a_shard_that_holds_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Tensor | None], message: str
) -> None:
    write(tmp_path)
    change(tmp_path / shard_name(1), **changes)
    with pytest.raises(DataError, match=rf"pairs-00001.safetensors does not match its manifest: {message}.*; delete"):
        read_pairs(tmp_path)


def test_fewer_shards_than_the_manifest_says_are_refused(tmp_path: Path) -> None:
    write(tmp_path, shards=3)
    with pytest.raises(DataError, match=r"pairs-00002\.safetensors"):
        read_pairs(tmp_path)


def test_a_shard_that_an_interrupted_run_has_left_is_checked_before_others_are_made(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    made = run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="pairs")[-1].folder
    partial = made.with_name(f"{made.name}.partial")
    made.rename(partial)
    (partial / "stage.json").unlink()
    labels = load_tensors(partial / shard_name(1))["labels"]
    change(partial / shard_name(1), labels=labels + 7)
    (partial / shard_name(2)).unlink()
    with pytest.raises(DataError, match="its labels are 7 to 16, and the teacher has the classes 0 to 9"):
        run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="pairs")
    assert not (partial / shard_name(2)).exists()
    change(partial / shard_name(1), labels=labels)
    assert len(read_pairs(run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="pairs")[-1].folder)) == 96
