"""Which one-step generator is shipped: the rule by itself, and a run in which the student is the worst."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from torch import Tensor

from edgegen.artifacts.sessions import open_source
from edgegen.models.load import load
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.stages import choose
from edgegen.pipeline.stages.choose import Candidate, best
from edgegen.support.pixels import scaled
from edgegen.support.storage import load_tensors, read_json


@pytest.mark.parametrize(
    ("distances", "role"),
    [
        ({"student": (1.0, 1.2), "baseline": (2.0, 2.1)}, "student"),
        ({"student": (1.0, 1.2), "baseline": (0.5, 0.7)}, "baseline"),
        ({"student": (1.0, 1.2), "baseline": (0.9, 1.25)}, "student"),  # nearer by chance at most
        ({"student": (3.0, 9.0), "baseline": (2.9, 8.8)}, "baseline"),  # on every noise, though the noises differ
        ({"student": (3.0, 3.1), "baseline": (2.0, 2.1), "slimmed": (1.0, 1.2)}, "slimmed"),
        ({"student": (3.0, 3.1)}, "student"),
    ],
)
def test_the_nearest_is_taken_unless_by_chance(distances: dict[str, tuple[float, ...]], role: str) -> None:
    chosen, reason = best([Candidate(name, values) for name, values in distances.items()])
    assert chosen == role
    assert all(name in reason for name in distances)
    assert ("further from them" in reason) == (role != "student")


def test_what_ships_is_the_weights_of_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The student gives noise here, the baseline images of the data set."""
    (tmp_path / "tiny.toml").write_text(TINY)
    runs = tmp_path / "runs"
    before = {row.stage: row for row in run_recipe(tmp_path / "tiny.toml", runs=runs, to="extractor")}
    images = load_tensors(before["data"].folder / "images.safetensors")["train_images"]
    real = scaled(images.permute(0, 3, 1, 2))
    calls = itertools.count()

    def sample(network: object, noise: Tensor, labels: Tensor, steps: int, device: object) -> Tensor:
        assert steps == 1
        return real[: len(noise)] if 2 <= next(calls) < 4 else noise  # two seeds each: student, baseline, slimmed

    monkeypatch.setattr(choose, "sample", sample)
    chosen = run_recipe(tmp_path / "tiny.toml", runs=runs, only="choose")[-1].folder
    choice = read_json(chosen / "choice.json")
    assert choice["role"] == "baseline"
    assert choice["reason"].endswith("the student is further from them than the baseline")
    weights = "generator/diffusion_pytorch_model.safetensors"
    assert (chosen / weights).read_bytes() == (before["baseline"].folder / weights).read_bytes()
    (tmp_path / "tiny.toml").write_text(TINY.replace("[evaluate]\n", '[evaluate]\nship = "student"\n'))
    chosen = run_recipe(tmp_path / "tiny.toml", runs=runs, only="choose")[-1].folder
    assert (chosen / weights).read_bytes() == (before["distill"].folder / weights).read_bytes(), "nothing is compared"
    (tmp_path / "tiny.toml").write_text(TINY)
    chosen = run_recipe(tmp_path / "tiny.toml", runs=runs, only="choose")[-1].folder
    loaded = load(chosen / "generator")
    assert (loaded.about["role"], loaded.about["trained_as"]) == ("student", "baseline")
    source = open_source(str(tmp_path / "tiny.toml"), steps=None, runs=runs)
    noise = torch.randn(2, 1, 8, 8)
    inputs = {"sample": noise.numpy(), "class_labels": np.array([0, 1])}
    one_step = noise - loaded.net(noise, torch.ones(2), torch.tensor([0, 1]))
    np.testing.assert_allclose(source.run(inputs), one_step.numpy(), atol=1e-6)
